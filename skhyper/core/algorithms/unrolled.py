"""Reverse mode through training steps (Maclaurin et al., 2015; Franceschi et al., 2017), truncated to the last T.

Of each interval the last T steps divide the gradient by the training rule's present metric, without momentum, and are
differentiated through; how the weights before them depend on the decays is left out.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import Progress, TrainedResponse, TrainingAlgorithm, parts
from skhyper.core.training import State
from skhyper.core.unroll import Step, reverse, unrolled_steps


@dataclass(frozen=True)
class Unrolled(TrainingAlgorithm):
    """Differentiation through the training steps.

    Parameters
    ----------
    n_steps : int
        T, the steps that are differentiated through.
    interval : int or None
        Training steps between two hypergradients, at least T; None: by the length of the training.
    """

    n_steps: int = 10
    interval: int | None = None

    def bind(self, problem: NetworkProblem) -> "UnrolledResponse":
        return UnrolledResponse(*parts(problem, self.interval), self)


@dataclass(frozen=True)
class UnrolledResponse(TrainedResponse):
    """The response that `Unrolled` binds."""

    algorithm: Unrolled

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        trainer, training = self.trainer, progress.training
        decay = self.decay(hyper, training.w)
        plain = max(1, self.interval - self.algorithm.n_steps)
        training, loss = trainer.run(training, decay, plain)
        metric = trainer.recipe.descent.safe_metric(training.moments)
        training, _, steps = unrolled_steps(trainer, training, decay, self.algorithm.n_steps, metric)
        return training, loss, steps

    def pull(
        self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: list[Step]
    ) -> tuple[Tensor, float, Any]:
        decay = self.decay(hyper, training.w)
        _, products = reverse(self.trainer, memory, decay, v)
        return -self.problem.decays.group_sums(decay * products), float("nan"), None
