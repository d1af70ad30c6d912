"""T1 - T2 (Luketina, Berglund, Greff and Raiko, 2016): the Hessian is taken to be the identity.

In the unit of a batch's mean loss; so u = v / B, B the weight of a batch.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import PlainlyTrained, TrainingAlgorithm, parts
from skhyper.core.training import State


@dataclass(frozen=True)
class T1T2(TrainingAlgorithm):
    """Identity Hessian.

    Parameters
    ----------
    interval : int or None
        Training steps between two hypergradients; None: by the length of the training.
    """

    follows_weights = True
    interval: int | None = None

    def bind(self, problem: NetworkProblem) -> "T1T2Response":
        return T1T2Response(*parts(problem, self.interval))


@dataclass(frozen=True)
class T1T2Response(PlainlyTrained):
    """The response that `T1T2` binds."""

    def adjoint(self, training: State, hyper: Hyper, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        return v / self.problem.train.sum(-1, keepdim=True), float("nan"), None
