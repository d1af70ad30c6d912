"""Algorithm 3 of Lorraine and Duvenaud (2018): hypernetwork and decays in one loop, decays drawn near the present."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.hypernet_training import Generating, GeneratingResponse
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import Progress
from skhyper.core.training import State


@dataclass(frozen=True)
class Joint(Generating):
    """Joint training of a hypernetwork and the decays.

    Parameters
    ----------
    sample_scale : float
        Standard deviation of the log-decays that the hypernetwork is trained at.
    """

    sample_scale: float = 0.5

    def bind(self, problem: NetworkProblem) -> "JointResponse":
        return JointResponse(*self.parts(problem), self)


@dataclass(frozen=True)
class JointResponse(GeneratingResponse):
    """The response that `Joint` binds; its hypernetwork is centred at the present decays."""

    algorithm: Joint

    @property
    def reach(self) -> float:
        return 2 * self.algorithm.sample_scale

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        learnt = self.follow(progress.memory or self.begin_learning(progress.training, hyper), hyper)
        return self.learn(progress.training, learnt, hyper, self.interval, self.algorithm.sample_scale)
