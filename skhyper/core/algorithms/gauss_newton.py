"""Implicit differentiation of networks in training: damped Gauss-Newton systems, a few steps of conjugate gradients.

Weights that take t steps of rate 1 / P towards the optimum have answered to a change of the decays as if the Hessian
were H + P / t. So the damping is the metric P of the training rule over the steps in which the decays were about what
they are now, and the preconditioner is P / t + a.

A hypergradient of a few steps and rows is right to a digit or two, so the systems are solved in single precision. Small
networks have them in double precision, which costs hardly more there: what rounding makes of rows that are repeated
instead of weighted, or in another order, is not amplified to digits that show.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import PlainlyTrained, System, TrainingAlgorithm, parts
from skhyper.core.training import State

SMALL = 2**15  # weights of a network whose systems are in double precision


@dataclass(frozen=True)
class GaussNewton(TrainingAlgorithm):
    """Implicit differentiation of networks.

    Parameters
    ----------
    interval : int or None
        Training steps between two hypergradients; None: by the length of the training.
    cg_max_iter : int
        Steps of conjugate gradients for each hypergradient, from the solution of the one before.
    cg_tol : float
        Relative residual at which they end.
    n_rows : int
        Training rows that a Hessian is taken from.
    horizon : float
        Epochs in which the decays are taken to have been as they are: the damping.
    dtype : torch.dtype
        Of the systems of networks that are not small.
    """

    follows_weights = True
    interval: int | None = None
    cg_max_iter: int = 3
    cg_tol: float = 1e-3
    n_rows: int = 256
    horizon: float = 100.0
    dtype: torch.dtype = torch.float32

    def bind(self, problem: NetworkProblem) -> "GaussNewtonResponse":
        return GaussNewtonResponse(*parts(problem, self.interval), self)


@dataclass(frozen=True)
class GaussNewtonResponse(PlainlyTrained):
    """The response that `GaussNewton` binds."""

    algorithm: GaussNewton

    @property
    def precision(self) -> torch.dtype:
        return torch.float64 if self.problem.network.n_weights <= SMALL else self.algorithm.dtype

    def adjoint(self, training: State, hyper: Hyper, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        trainer, algorithm, penalty = self.trainer, self.algorithm, self.penalty(hyper, training.w)
        steps = min(training.moments.t, algorithm.horizon * trainer.steps_per_epoch)
        system = System(self.problem, trainer, training, penalty, algorithm.n_rows, steps, self.precision)
        del penalty  # memory
        found = system.solve(v, algorithm.cg_tol, algorithm.cg_max_iter, memory)
        return found.x, float(found.residual.max()), found.x
