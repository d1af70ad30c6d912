"""Training of a hypernetwork in the place of the weights: what joint, simplified and global hyper-training share.

A step draws log-decays lambda, generates weights w(lambda), takes the gradient of the penalised training loss at w
under the decays lambda, and pulls it back to the hypernetwork's parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decays import Decays, Hyper
from .hypernets import Hypernet
from .problem import NetworkProblem
from .recipe import Moments
from .result import Evaluation
from .trained import PRECISION, Progress, TrainedResponse, TrainingAlgorithm, parts, seeded
from .training import Rows, State, Trainer, penalised_gradient
from .unroll import Step, reverse, unrolled_steps

Maker = Callable[[Decays, torch.Generator], Hypernet]


class Learnt(NamedTuple):
    """A hypernetwork in training."""

    phi: Tensor  # (K, n_parameters)
    moments: Moments
    origin: Hyper  # where x = 0
    age: int = 0  # evaluations since it began


class Kept(NamedTuple):
    """A hypernetwork that was best, without its past: later steps do not write to it."""

    parts: tuple[Tensor, ...]  # of `Hypernet.packed`
    origin: Hyper
    age: int


class Memory(NamedTuple):
    """What an evaluation remembers until its hypergradient is taken."""

    learnt: Learnt
    steps: list[Step]  # of the fine-tuning


@dataclass(frozen=True)
class Generating(TrainingAlgorithm):
    """An algorithm that trains a hypernetwork.

    Parameters
    ----------
    hypernet : callable
        (decays, generator) -> Hypernet.
    interval : int or None
        Training steps between two hypergradients; None: by the length of the training.
    fine_tuning : int
        Unrolled training steps from the generated weights, which the hypergradient goes through.
    seed : int
        Of a hypernetwork's random initial parameters.
    dtype : torch.dtype
        Of the hypernetwork and of its training; fine-tuning steps are in double precision.
    """

    hypernet: Maker
    interval: int | None = None
    fine_tuning: int = 0
    seed: int = 0
    dtype: torch.dtype = torch.float32

    def parts(self, problem: NetworkProblem) -> tuple[NetworkProblem, Trainer, Rows, int, Hypernet, int, torch.dtype]:
        """What every response is made of."""
        hypernet = self.hypernet(problem.decays, torch.Generator().manual_seed(self.seed))
        return *parts(problem, self.interval), hypernet, self.fine_tuning, self.dtype


@dataclass(frozen=True)
class GeneratingResponse(TrainedResponse):
    """Weights that a hypernetwork generates."""

    hypernet: Hypernet
    fine_tuning: int
    dtype: torch.dtype

    @property
    def precision(self) -> torch.dtype:
        return self.dtype

    def keep(self, evaluation: Evaluation) -> Evaluation:
        kept, learnt = super().keep(evaluation), evaluation.state.memory
        if learnt is None:
            return kept
        w, parts = kept.w, self.hypernet.packed(learnt.phi)
        if evaluation.w.data_ptr() == learnt.phi.data_ptr():
            w = parts[0][:, : self.hypernet.n_weights]
        memory = Kept(parts, learnt.origin, learnt.age)
        state = kept.state._replace(training=kept.state.training._replace(w=w), memory=memory)
        return kept._replace(w=w, state=state)

    def again(self, state: Any) -> Progress:
        begin, kept = super().again(state), state.memory
        return begin if kept is None else begin._replace(memory=self.unpacked(kept))

    def unpacked(self, kept: Kept) -> Learnt:
        """The hypernetwork that was kept, with no past."""
        phi = self.hypernet.unpacked(kept.parts)
        return Learnt(phi, Moments.none(phi, PRECISION), kept.origin, kept.age)

    def onwards(self, start: Any, end: Progress) -> Progress:
        """With a new hypernetwork, which starts from a copy of the weights and has no past."""
        begin: Progress = start
        moments = Moments.none(begin.training.w[:, :0], PRECISION)
        return begin._replace(training=begin.training._replace(moments=moments), memory=None)

    def log_decays(self, hyper: Hyper) -> Tensor:
        return super().log_decays(hyper).to(self.dtype)

    def begin_learning(self, training: State, origin: Hyper) -> Learnt:
        """A hypernetwork that generates the weights of a run that begins."""
        phi = self.hypernet.start(training.w.to(self.dtype), seeded(training))
        return Learnt(phi, Moments.none(phi, PRECISION), origin)

    def inputs(self, learnt: Learnt | Kept, hyper: Hyper) -> Tensor:
        """What the hypernetwork reads there, (K, n_groups); folds share the memory."""
        if learnt.origin is hyper:
            return torch.zeros((), dtype=self.dtype).expand(self.problem.n_folds, self.problem.decays.n_groups)
        return (self.log_decays(hyper) - self.log_decays(learnt.origin)).expand(self.problem.n_folds, -1)

    def follow(self, learnt: Learnt, hyper: Hyper) -> Learnt:
        """The hypernetwork centred at decays that have moved."""
        if learnt.origin is not hyper:
            self.hypernet.recentre(learnt.phi, self.inputs(learnt, hyper))
        return learnt._replace(origin=hyper)

    def learn(
        self,
        training: State,
        learnt: Learnt,
        hyper: Hyper,
        n_steps: int,
        scale: float = 0.0,
        *,
        once: bool = False,
        settling: bool = False,
    ) -> tuple[State, Tensor, Memory]:
        """Steps at log-decays drawn about the present ones; then the weights for these.

        They are drawn with standard deviation `scale`, for every step or once for all; every second draw is the first
        one's mirror image. Where the hypernetwork settles,
        the rate falls to zero in the second half of the steps.
        """
        problem, trainer, generator = self.problem, self.trainer, seeded(training)
        total = torch.zeros(problem.n_folds, dtype=torch.float64)
        phi, moments, origin, age = learnt
        centred, centre = origin is hyper, self.inputs(learnt, hyper)
        training = training._replace(w=phi[:, :0])  # memory
        drawn = torch.zeros_like(centre)
        for step in range(n_steps):
            training, batch = trainer.next_batch(training)
            if scale and not (once and step):
                if step % 2:
                    drawn.neg_()
                else:
                    drawn = torch.randn(drawn.shape, generator=generator, dtype=torch.float32).mul_(scale)
            decay = problem.decays.spread((self.log_decays(hyper) + drawn).exp_())
            x = drawn if centred else centre + drawn
            w = self.hypernet.weights(phi, x)
            value, g = penalised_gradient(problem.network, problem.loss, w, batch.to(self.dtype), decay)
            del w, decay  # memory
            share = min(1.0, 2 * (1 - step / n_steps)) if settling else 1.0
            moments = self.hypernet.step(phi, x, g, trainer.recipe.descent, moments, share)
            del g
            total += value
        w = self.hypernet.at_origin(phi) if centred else self.hypernet.weights(phi, centre)
        # The past of b stands for that of the weights.
        first, second, _ = moments
        n, t = problem.network.n_weights, training.moments.t + n_steps + 1
        training = training._replace(w=w, moments=Moments(first[:, :n], second[:, :n], t))
        training, steps = self._fine_tuned(training, moments.t, hyper)
        return training, total / max(n_steps, 1), Memory(Learnt(phi, moments, origin, age + 1), steps)

    def _fine_tuned(self, training: State, t: int, hyper: Hyper) -> tuple[State, list[Step]]:
        """A few unrolled steps from the generated weights, t steps after the hypernetwork began."""
        if not self.fine_tuning:
            return training, []
        metric = self.trainer.recipe.descent.safe_metric(training.moments._replace(t=t))
        training = training._replace(w=training.w.to(self.problem.y, copy=True))
        decay = self.decay(hyper, training.w)
        training, _, steps = unrolled_steps(self.trainer, training, decay, self.fine_tuning, metric)
        return training, steps

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Memory) -> tuple[Tensor, float, Any]:
        """Through the fine-tuning steps, and then through the hypernetwork."""
        learnt, steps = memory
        if not steps:
            return self.hypernet.to_decays(learnt.phi, self.inputs(learnt, hyper), v), float("nan"), learnt
        decay = self.decay(hyper, training.w)
        v, products = reverse(self.trainer, steps, decay, v.to(self.problem.y))
        by_decay = self.hypernet.to_decays(learnt.phi, self.inputs(learnt, hyper), v.to(self.dtype))
        return by_decay - self.problem.decays.group_sums(decay * products), float("nan"), learnt

    def along(self, progress: Progress, hyper: Hyper, shifts: Tensor) -> Iterator[Tensor]:
        """The weights of a kept hypernetwork at shifted log-decays, fine-tuning apart; plain training has none."""
        kept: Kept | None = progress.memory
        if kept is None:
            yield from super().along(progress, hyper, shifts)
            return
        phi, x = self.hypernet.unpacked(kept.parts), self.inputs(kept, hyper)
        for shift in shifts.to(self.dtype):
            yield self.hypernet.weights(phi, x + shift)
