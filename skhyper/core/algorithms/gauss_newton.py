"""Implicit differentiation of networks in training: damped Gauss-Newton systems, a few steps of conjugate gradients.

Weights that take t steps of rate 1 / P towards the optimum have answered to a change of the decays as if the Hessian
were H + P / t. So the damping is the metric P of the training rule over the steps in which the decays were about what
they are now, and the preconditioner is P / t + a.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from skhyper.core.cg import conjugate_gradients
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import PlainlyTrained, TrainingAlgorithm, gauss_newton, parts, seeded
from skhyper.core.training import State


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
    """

    interval: int | None = None
    cg_max_iter: int = 5
    cg_tol: float = 1e-3
    n_rows: int = 256
    horizon: float = 20.0

    def bind(self, problem: NetworkProblem) -> "GaussNewtonResponse":
        return GaussNewtonResponse(*parts(problem, self.interval), self)


@dataclass(frozen=True)
class GaussNewtonResponse(PlainlyTrained):
    """The response that `GaussNewton` binds."""

    algorithm: GaussNewton

    def adjoint(self, training: State, decay: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        trainer, w = self.trainer, training.w
        rows = trainer.rows.sample(self.algorithm.n_rows, seeded(training))
        rows = rows._replace(c=rows.c / trainer.steps_per_epoch)
        steps = min(training.moments.t, self.algorithm.horizon * trainer.steps_per_epoch)
        metric = trainer.recipe.descent.metric(training.moments)
        diagonal = decay + metric * (rows.c.sum(-1, keepdim=True) / steps)
        product = gauss_newton(self.problem, w, rows, diagonal)
        u = torch.zeros_like(w) if memory is None else memory
        left = v - product(u)
        needed = torch.full_like(left[:, 0], self.algorithm.cg_tol)
        found = conjugate_gradients(product, lambda r: r / diagonal, left, needed, self.algorithm.cg_max_iter)
        u = u + found.x
        return u, float(found.residual.max()), u
