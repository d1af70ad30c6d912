"""What an algorithm is: a configuration that binds to a problem and yields its best response.

With u = H^-1 d outer / d w, H the Hessian of the penalised training loss, and a * w the gradient of the penalty, the
hypergradient is the same for every loss and network:

    d outer / d log alpha = - sum_k u_k . (a * w)_k
    d outer / d z_g       = - sum_k sum_{j in g} (u * a * w)_kj
    d outer / d q         = - sum_k u_k . (a * w * log(m / s^2 + eps)) / 2

so that an algorithm has two things to say: the weights, and H^-1 v.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from skhyper.core.decays import Decays, Hyper
from skhyper.core.problem import Folds, Problem
from skhyper.core.result import Evaluation


@dataclass(frozen=True)
class Response(ABC):
    """Weights of every fold that follow the hyperparameters, exactly or step by step."""

    problem: Folds

    @abstractmethod
    def evaluate(self, hyper: Hyper, s2: Tensor, w: Any = None, tol: float = 1e-8) -> Evaluation:
        """Weights, validation losses and hypergradient; `w` is where to start from."""

    def keep(self, evaluation: Evaluation) -> Evaluation:
        """The evaluation as it is while others follow."""
        return evaluation

    def again(self, state: Any) -> Any:
        """A start from the state of an evaluation that was kept."""
        return state


@dataclass(frozen=True)
class BestResponse(Response):
    """The weights of every fold as a function of the hyperparameters.

    Leading axes of w before the fold axis carry candidates, with as many of `hyper`.
    """

    problem: Problem

    @property
    @abstractmethod
    def capacity(self) -> int:
        """How many candidates are solved at once; 1 where memory is short."""

    @property
    def scans(self) -> bool:
        """Whether many candidates are cheap enough to look at; else a few do, and hypergradients lead."""
        return True

    @abstractmethod
    def take_folds(self, which: Tensor) -> "BestResponse":
        """The best response of some of the folds."""

    def take_output(self, t: int) -> "BestResponse | None":
        """The best response of one output with one decay, where outputs are problems of their own; else None."""
        return None

    def all_rows(self, problem: Problem) -> "BestResponse | None":
        """The best response of the final fit, where what is prepared here serves it too; else None."""
        return None

    @abstractmethod
    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """The weights that minimise the inner problem of every fold.

        Parameters
        ----------
        hyper : Hyper
            Shared by all folds.
        s2 : Tensor, shape (K,)
            The constant of the family for each fold.
        w : Tensor, shape (..., K, n_weights), optional
            Warm start.
        tol : float
            Relative accuracy of the weights, in the norm of the fold's weights.
        """

    @abstractmethod
    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """H^-1 v at the solution w, and the relative residual that is left."""

    def fold_losses(self, w: Tensor) -> Tensor:
        """The outer loss of each fold: (..., K, n_weights) -> (..., K)."""
        return self.problem.fold_losses(w)

    def look(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> tuple[Tensor, Tensor]:
        """Weights and outer losses of each fold for several candidates, without the hypergradient."""
        w = self.solve(hyper, s2, w, tol)
        return w, self.fold_losses(w)

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Evaluation:
        """Weights, validation losses and hypergradient."""
        w = self.solve(hyper, s2, w, tol)
        u, error = self.adjoint(w, hyper, s2, self.problem.outer_gradient(w), tol)
        gradient = hypergradient(self.problem.decays, w, hyper, s2, u)
        error = max(error, self.residual(w, hyper, s2))
        return Evaluation(hyper, w, self.fold_losses(w), gradient, error)

    def residual(self, w: Tensor, hyper: Hyper, s2: Tensor) -> float:
        """How far the weights are from stationary, the largest of folds and candidates: 0 at the solution.

        The inner objective's gradient relative to that of the constant model, each in the norm of the inverse of the
        curvature's diagonal, so that columns of any unit count alike.
        """
        problem, decays = self.problem, self.problem.decays
        a = decays.spread(decays.log_decays(w, hyper, s2).exp())
        curvature = a[..., : problem.network.n_coefficients] + self.curvatures
        metric = torch.where(curvature > 0, 1 / curvature, 0.0)

        def size(g: Tensor) -> Tensor:
            return (metric * g[..., : problem.network.n_coefficients] ** 2).sum(-1).sqrt()

        left, scale = size(problem.loss_gradient(w) + a * w), size(self._first_gradient)
        return float((left / scale.clamp(min=torch.finfo(w.dtype).tiny)).max())

    @cached_property
    def curvatures(self) -> Tensor:
        """Of each coefficient at the constant model, (K, n_coefficients)."""
        squares = self.problem.column_squares(self.problem.row_curvatures())
        return squares.repeat_interleave(self.problem.network.n_outputs, -1)

    @cached_property
    def _first_gradient(self) -> Tensor:
        """The gradient of the training loss at the constant model, (K, n_weights)."""
        return self.problem.loss_gradient(self.problem.constant_model())

    def evaluate_all(self, hyper: Hyper, s2: Tensor, w: Tensor, tol: float = 1e-8) -> list[Evaluation]:
        """Evaluations of candidates, (C,) hyperparameters and (C, K, n_weights) warm starts, as many at once as fit."""
        out = []
        for part in torch.arange(len(w)).split(self.capacity):
            if len(part) == 1:
                i = int(part)
                out.append(self.evaluate(hyper.take(i), s2, w[i], tol))
                continue
            these = self.evaluate(hyper.take(part), s2, w[part], tol)
            out += [
                Evaluation(these.hyper.take(i), these.w[i], these.fold_losses[i], these.gradient.take(i), these.error)
                for i in range(len(part))
            ]
        return out


class Algorithm(ABC):
    """A configuration; `bind` prepares what all evaluations of one problem share."""

    @abstractmethod
    def bind(self, problem: Problem) -> BestResponse:
        """The best response of this problem's folds."""


def hypergradient(decays: Decays, w: Tensor, hyper: Hyper, s2: Tensor, u: Tensor) -> Hyper:
    """d outer / d hyperparameters from the adjoint u = H^-1 d outer / d w, summed over folds."""
    log_a = decays.log_decays(w, hyper, s2)
    by_group = -log_a.exp() * decays.group_sums(u * w)
    by_exponent = by_group * decays.relative(w, s2).log() / 2
    return Hyper(
        by_group.sum((-1, -2)),
        by_exponent.sum((-1, -2)),
        None if hyper.offsets is None else by_group.sum(-2),
    )
