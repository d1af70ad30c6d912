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
    """A best response that is learnt first, and then left as it is while the decays move.

    Parameters
    ----------
    sample_scale : float
        Standard deviation of the log-decays that the hypernetwork is trained at, about the first ones.
    n_steps : int or None
        Training steps of the hypernetwork, in all rounds; None: as many as a plain fit may take.
    rounds : int
        How often it is trained: each time about the decays as they are then, over a range half as wide.
    round_length : int
        Evaluations of a round; the last one has no end.
    """

    sample_scale: float = 1.5
    n_steps: int | None = None
    rounds: int = 4
    round_length: int = 30

    def bind(self, problem: NetworkProblem) -> "GlobalResponse":
        return GlobalResponse(*self.parts(problem), self)


@dataclass(frozen=True)
class GlobalResponse(GeneratingResponse):
    """The response that `Global` binds."""

    algorithm: Global

    @property
    def reach(self) -> float:
        return 2 * self.algorithm.sample_scale / 2 ** (self.algorithm.rounds - 1)

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        training, algorithm = progress.training, self.algorithm
        learnt = progress.memory or self.begin_learning(training, hyper)
        number, within = divmod(learnt.age, algorithm.round_length)
        if within or number >= algorithm.rounds:
            return self.learn(training, learnt, hyper, 0)
        n_steps = algorithm.n_steps
        if n_steps is None:
            n_steps = self.problem.recipe.max_epochs * self.trainer.steps_per_epoch
        scale, part = algorithm.sample_scale / 2**number, -(-n_steps // algorithm.rounds)
        return self.learn(training, self.follow(learnt, hyper), hyper, part, scale, settling=True)
