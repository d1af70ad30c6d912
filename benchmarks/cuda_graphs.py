"""Steps of training as CUDA graphs: the kernels of one update are recorded once, and launched as one from then on.

A step of a small network is some fifty kernels of a few microseconds each; launched one by one they take longer than
they run. What a recorded step reads must stay where it is: parameters and moments are updated in place, and rows, noise
and rates are copied into buffers. Hyperparameters, looks at held-out rows and averages go on as they are.
"""

import warnings
from functools import partial

import torch

from skhyper.core.noise.training import Pace

# Updates of a phase before one is recorded: libraries set themselves up in them.
WARM_UP = 3


class Recorder:
    """Runs and records on a stream of its own.

    Parameters
    ----------
    generator : torch.Generator
        Of the random numbers inside an update; those of a replay follow on those before.
    """

    def __init__(self, generator):
        self.generator, self.stream = generator, torch.cuda.Stream(generator.device)

    def run(self, update):
        """An update that is not recorded."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            update()
        torch.cuda.current_stream().wait_stream(self.stream)

    def record(self, update):
        """A function that replays what `update` would do; nothing is done yet."""
        graph = torch.cuda.CUDAGraph()
        if hasattr(graph, "register_generator_state"):  # versions that register by themselves say that it is deprecated
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph, stream=self.stream):
            update()
        return graph.replay


class Replay:
    """Stands in for `Trainer.update`.

    Parameters
    ----------
    update : callable
        That of the trainer.
    recorder : Recorder
    """

    def __init__(self, update, recorder):
        self.update, self.recorder, self.phase = update, recorder, None

    def __call__(self, walk, phase, index, z, pace):
        if phase is not self.phase:
            self._enter(walk, phase, index, z, pace)
        self.index.copy_(index)
        self.z.copy_(z)
        for slot, value in zip(self.pace, pace, strict=True):
            slot.fill_(value)
        self.n_seen += 1
        if self.n_seen <= WARM_UP:
            self.recorder.run(self.step)
            return
        self.replay = self.replay or self.recorder.record(self.step)
        self.replay()

    def _enter(self, walk, phase, index, z, pace):
        """Buffers for another phase."""
        self.phase, self.n_seen, self.replay = phase, 0, None
        self.index, self.z = index.clone(), z.clone()
        self.pace = Pace(*(walk.flat.new_full((), value) for value in pace))
        self.step = partial(self.update, walk, phase, self.index, self.z, self.pace)
