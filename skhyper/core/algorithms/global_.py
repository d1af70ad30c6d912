"""Algorithm 2 of Lorraine and Duvenaud (2018): a hypernetwork over a broad p(lambda), then the decays."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.hypernet_training import Generating, GeneratingResponse
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import Progress
from skhyper.core.training import State


@dataclass(frozen=True)
class Global(Generating):
    """A best response that is learnt first and then left as it is.

    Parameters
    ----------
    sample_scale : float
        Standard deviation of the log-decays that the hypernetwork is trained at, about the first ones.
    n_steps : int or None
        Training steps of the hypernetwork; None: as many as a plain fit may take.
    """

    sample_scale: float = 1.5
    n_steps: int | None = None

    def bind(self, problem: NetworkProblem) -> "GlobalResponse":
        return GlobalResponse(*self.parts(problem), self)


@dataclass(frozen=True)
class GlobalResponse(GeneratingResponse):
    """The response that `Global` binds."""

    algorithm: Global

    @property
    def reach(self) -> float:
        return 2 * self.algorithm.sample_scale

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        training = progress.training
        if progress.memory is not None:
            return self.learn(training, progress.memory, hyper, 0.0, 0)
        n_steps = self.algorithm.n_steps
        if n_steps is None:
            n_steps = self.problem.recipe.max_epochs * self.trainer.steps_per_epoch
        learnt = self.begin_learning(training, self.log_decays(hyper))
        return self.learn(training, learnt, hyper, self.algorithm.sample_scale, n_steps)
