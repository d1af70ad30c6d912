"""Training on MNIST as one long run: rows stay on the device, and a checkpoint is written every few epochs.

A run is that of the estimator's own `fit`, step by step, so that it can be looked at, end early and go on.
"""

import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from math import inf
from pathlib import Path

import torch

from benchmarks.cuda_graphs import Recorder, Replay
from skhyper.boundary import torch_session
from skhyper.estimators.hypernet_options import resolve_settings

# What of a course a checkpoint holds beside its trainer's.
PARTS = ("walk", "curve", "step", "due")


@contextmanager
def precision(name, device):
    """Products in float32 as they are, in "tf32" or in "bf16"; the setting is put back."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    half = torch.autocast(torch.device(device).type, torch.bfloat16, cache_enabled=False)
    try:
        with half if name == "bf16" else nullcontext():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


class Run:
    """The fit of an estimator as a course.

    Parameters
    ----------
    model : HypernetClassifier
        Unfitted.
    X, y : arrays of shape (n, p), (n,)
    epochs : int
    looks : int or None
        Lines of the training curve in an epoch; None: as many as in any fit.
    graphs : bool
        Whether steps are CUDA graphs.
    """

    def __init__(self, model, X, y, epochs, looks=None, graphs=False):
        self.model = model.set_params(max_iter=epochs)
        encoded = model._encode(X, y, None, None, None, reset=True)
        settings = resolve_settings(model, encoded.small, len(y))
        if looks is not None:
            settings = replace(settings, n_evaluations=looks * epochs)
        with torch_session():
            self.job = model._job(encoded, settings, model._holding(encoded), [settings.alpha])
            (begin,) = self.job.courses()
            self.course = begin()
        self.settings, self.n_rows, self.seconds = settings, len(y), 0.0
        self.epoch_steps = settings.n_steps // epochs
        self.trainer = self.course.trainer
        if graphs:
            self.trainer.update = Replay(self.trainer.update, Recorder(self.trainer.generator))

    @property
    def epochs(self):
        """Passes so far."""
        return self.course.step / self.epoch_steps

    @property
    def over(self):
        """Whether no steps are left."""
        return self.course.over

    def go(self, n_steps, limit=inf):
        """So many steps, or fewer if they are over or take longer than `limit` seconds."""
        start, last = time.perf_counter(), self.course.step + n_steps
        with torch_session(), torch.inference_mode():
            while self.course.step < last and not self.over and time.perf_counter() - start <= limit:
                self.course.advance(lambda record: None)
            if self.course.walk.flat.is_cuda:
                torch.cuda.synchronize()
        self.seconds += time.perf_counter() - start

    def fitted(self):
        """The estimator as it stands."""
        with torch_session(), torch.inference_mode():
            if self.course.looked < self.course.step:
                self.course.look(lambda record: None)
            (fit,) = self.job.fits(self.course)
        self.model._store(fit, self.settings, self.n_rows, again=False, keep_optimizer=False)
        return self.model

    def save(self, path, extra):
        """Write all that the run needs to go on, and whatever else; the file is whole or that of before."""
        course, trainer = self.course, self.trainer
        state = {name: getattr(course, name) for name in PARTS}
        phase = {"noisy": course.phase.noisy, "z_eval": course.phase.z_eval, "z_spread": course.phase.z_spread}
        trainers = {"schedule": trainer.schedule, "due": trainer.due, "random": trainer.generator.get_state()}
        part = Path(path).with_suffix(".part")
        torch.save({**state, "phase": phase, "trainer": trainers, "seconds": self.seconds, "extra": extra}, part)
        part.replace(path)
        self.deal_anew()

    def load(self, path):
        """Go on from there; gives back what else was written."""
        course, trainer = self.course, self.trainer
        state = torch.load(path, map_location=course.walk.flat.device, weights_only=False)
        for name in PARTS:
            setattr(course, name, state[name])
        phase = dict(state["phase"])
        course.phase = (trainer.noisy() if phase.pop("noisy") else trainer.plain())._replace(**phase)
        trainer.schedule, trainer.due = state["trainer"]["schedule"], state["trainer"]["due"]
        trainer.generator.set_state(state["trainer"]["random"].cpu())
        self.seconds = state["seconds"]
        self.deal_anew()
        return state["extra"]

    def deal_anew(self):
        """Minibatches and draws begin anew, so that they are the same whether or not the run was broken off."""
        course, trainer = self.course, self.trainer
        course.batches, trainer.held_batches = trainer.batches(), trainer.held_minibatches()
        if course.phase.noisy:
            course.phase = course.phase._replace(noises=trainer.noises(trainer.groups.n_draws))


def affordable(model, X, y, seconds, most):
    """The number of epochs that there is time for, by the first steps."""
    if seconds == inf:
        return most
    probe = Run(model, X, y, 1)
    probe.go(3)
    before, step = probe.seconds, probe.course.step
    probe.go(10)
    pace = (probe.seconds - before) / (probe.course.step - step) * probe.epoch_steps
    return max(1, min(most, int(seconds / pace)))
