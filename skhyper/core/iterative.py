"""Squared loss where direct factorisation is dear: Newton's method on moments, its systems by conjugate gradients.

Decays that differ by output or by fold make each (fold, output) a system of its own. `SharedFactor` solves them all
with one factor. Where decays depend on the weights, each of Newton's steps is only as accurate as it pays, and the
penalty's gradient is a variable of its own, as in `Descent`.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse, hypergradient
from .decays import Hyper
from .losses import Loss, Rescaled, SquaredError
from .moments import FoldMoments, Sums
from .problem import Problem
from .result import Evaluation
from .shared_factor import SINGLE, TINY, Curvature, SharedFactor

LEAST_COLUMNS = 256
PRODUCTS = 40  # operations for each entry of the matrix in one evaluation
MAX_STEPS = 100
MAX_IDLE = 3  # steps in a row that no longer reduce the residual, after which the solution is as good as it gets
FORCING = 0.1  # reduction of the residual in one of Newton's steps
MAX_HALVINGS = 30
ROUNDING = 3e-14  # relative error of the objective, generously
CANCELLATION = 1e-6  # validation loss relative to the mean square of y below which moments do not give it


def iteration_pays(problem: Problem) -> bool:
    """Whether factorising for every fold, and output where decays differ, costs more than iterating with one factor."""
    n_folds, p, n_outputs = problem.n_folds, problem.design.n_columns, problem.network.n_outputs
    if p < LEAST_COLUMNS or problem.design.n_rows < p:
        return False
    own = 1 if problem.decays.restrict(p * n_outputs).shared_by_outputs(n_outputs) else n_outputs
    direct, iterative = n_folds * own * p / 3, p / 3 + PRODUCTS * n_folds * n_outputs
    return direct > 2 * iterative


@dataclass
class Warm:
    """The last adjoint, (K, T, p), from which the next one starts."""

    adjoint: Tensor | None = None


@dataclass(frozen=True)
class IterativeResponse(BestResponse):
    """Best response through the moments of the folds; coefficients are (K, T, p) inside."""

    moments: FoldMoments
    sums: Sums | None = None
    warm: Warm = field(default_factory=Warm)

    @property
    def capacity(self) -> int:
        """One candidate at a time."""
        return 1

    @property
    def scans(self) -> bool:
        """No: a candidate costs as much as a step by hypergradient."""
        return False

    def take_folds(self, which: Tensor) -> "IterativeResponse":
        """Share the moments that are there."""
        return IterativeResponse(self.problem.take_folds(which), self.moments.take(which))

    def take_output(self, t: int) -> "IterativeResponse":
        """Share the moments that are there."""
        return IterativeResponse(self.problem.take_output(t), self.moments.take_output(t))

    def all_rows(self, problem: Problem) -> "IterativeResponse | None":
        """The best response of the final fit, if the sums that are there give it."""
        moments = None if self.sums is None else self.sums.all_rows(problem)
        return None if moments is None else IterativeResponse(problem, moments)

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """Candidates one after the other, each from the one before where there is no other start."""
        if not hyper.log_alpha.ndim:
            start = None if w is None else self._matrix(w)
            return self._join(self._minimise(hyper, s2, start, tol))
        found: list[Tensor] = []
        for i in range(len(hyper.log_alpha)):
            log_alpha, exponent, offsets = hyper
            one = Hyper(log_alpha[i], exponent.expand(log_alpha.shape)[i], None if offsets is None else offsets[i])
            warm = found[-1] if found else None
            found.append(self.solve(one, s2, warm if w is None else w[i % len(w)], tol))
        return torch.stack(found)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """H^-1 v; the intercepts are eliminated."""
        layers = self.problem.network.split(v)
        coefficients = layers.coefficients[:, self.moments.columns].mT
        centred = coefficients - layers.intercepts[..., None] * self.moments.x[:, None]
        u, error = self._adjoint(w, hyper, s2, centred, tol)
        intercepts = layers.intercepts / self.moments.total[:, None] - self._products(u, self.moments.x)
        return self._joined(u, intercepts), error

    def fold_losses(self, w: Tensor) -> Tensor:
        """Validation losses from moments, unless they cancel or the outer loss is another."""
        if self._outer is None:
            return super().fold_losses(w)
        losses = torch.stack([self._held(self._matrix(one)).losses for one in w.reshape(-1, *w.shape[-2:])])
        return super().fold_losses(w) if self._cancel(losses) else losses.reshape(w.shape[:-1])

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Evaluation:
        """Weights, validation losses and hypergradient; one product with the held-out moments gives both of these."""
        w = self.solve(hyper, s2, w, tol)
        held = None if self._outer is None else self._held(self._matrix(w))
        if held is None or self._cancel(held.losses):
            u, error = self.adjoint(w, hyper, s2, self.problem.outer_gradient(w), tol)
            losses = self.problem.fold_losses(w)
        else:
            u, error = self._adjoint(w, hyper, s2, held.gradient / self.problem.n_folds, tol)
            u, losses = self._flat(u), held.losses
            decays, w_decayed = self.problem.coefficient_decays, w[..., : self.problem.network.n_coefficients]
            return Evaluation(hyper, w, losses, hypergradient(decays, w_decayed, hyper, s2, u), error)
        return Evaluation(hyper, w, losses, hypergradient(self.problem.decays, w, hyper, s2, u), error)

    # Layouts.

    def _matrix(self, w: Tensor) -> Tensor:
        """Flat weights -> coefficients (K, T, p) of the columns that vary."""
        network = self.problem.network
        matrix = w[..., : self.problem.network.n_coefficients].unflatten(-1, (network.n_features, network.n_outputs))
        return matrix[:, self.moments.columns].mT.contiguous()

    def _flat(self, v: Tensor) -> Tensor:
        """Coefficients (K, T, p) -> flat weights without intercepts, zeros where columns are constant."""
        flat = v.new_zeros(len(v), self.problem.network.n_features, v.shape[1])
        return flat.index_copy_(1, self.moments.columns, v.mT).flatten(-2)

    def _join(self, v: Tensor) -> Tensor:
        return self._joined(v, self.moments.y - self._products(v, self.moments.x))

    def _joined(self, v: Tensor, intercepts: Tensor) -> Tensor:
        if not self.problem.network.intercept:
            return self._flat(v)
        return torch.cat([self._flat(v), intercepts], -1)

    @staticmethod
    def _products(v: Tensor, x: Tensor) -> Tensor:
        """(K, T, p), (K, p) -> (K, T)."""
        return (v @ x[..., None])[..., 0]

    # Validation.

    @cached_property
    def _outer(self) -> float | None:
        """The factor of the outer loss, if it is a squared error."""
        return squared_factor(self.problem.outer_loss)

    def _held(self, v: Tensor) -> "Held":
        moments, factor = self.moments, self._outer or 1.0
        product = v @ moments.held_gram
        losses = (v * (product / 2 - moments.held_rhs)).sum((-1, -2)) + moments.held_square.sum(-1) / 2
        return Held(factor * losses, factor * (product - moments.held_rhs))

    def _cancel(self, losses: Tensor) -> bool:
        return not bool((losses.abs() > CANCELLATION * (self._outer or 1.0) * self.moments.held_square.sum(-1)).all())

    # The inner problem.

    @cached_property
    def _system(self) -> SharedFactor:
        return SharedFactor(self.moments.gram, self.moments.rhs)

    def _minimise(self, hyper: Hyper, s2: Tensor, v: Tensor | None, tol: float) -> Tensor:
        """The solution from v (K, T, p): Newton's method; one step where decays do not depend on the weights."""
        quadratic, system = bool(hyper.exponent == 2), self._system
        if v is None:
            v = torch.zeros_like(self.moments.rhs)
            if not quadratic:
                v = self._minimise(hyper._replace(exponent=torch.full_like(hyper.exponent, 2.0)), s2, v, tol)
        gradient: Tensor | None = None  # of the penalty, as a variable of its own
        idle, least = 0, torch.inf
        for _ in range(MAX_STEPS):
            product = system.product(v, tol, "weights")
            w = self._flat(v)
            curvature, gradient = self._curvature(w, hyper, s2, gradient)
            residual = self.moments.rhs - product - curvature.decays * v
            size = system.size(curvature)
            step = system.correct(curvature, residual, SINGLE if quadratic else FORCING, tol * size)
            left = float((step.before / size).max())
            if left <= tol or idle == MAX_IDLE:
                break
            idle, least = idle + 1 if left > 0.5 * least else 0, min(least, left)
            if quadratic:
                v = v + step.d
                if tol >= SINGLE * left:
                    break
            else:
                t = self._line_search(hyper, s2, v, step.d, product, curvature)[:, None, None]
                gradient = self._turn(gradient, w, curvature, step.d, t)
                v = v + t * step.d
        return v

    def _curvature(self, w: Tensor, hyper: Hyper, s2: Tensor, gradient: Tensor | None) -> tuple[Curvature, Tensor]:
        """The penalty's Hessian, b_g scaled by the share of `gradient` along a_g w_g, and positive definite."""
        decays = self.problem.coefficient_decays
        r = decays.relative(w, s2)
        a_g = decays.log_decays_at(r, hyper).exp()
        a = decays.spread(a_g)
        if bool(hyper.exponent == 2):
            matrix = self._matrix(a)
            return Curvature(matrix, matrix), w
        gradient = a * w if gradient is None else gradient
        squares = decays.group_sums(w**2)
        along, across = decays.group_sums(gradient * w), a_g * squares
        share = torch.where(across > 0, along / across, 1.0).clamp(min=0)
        b = decays.concavity_at(r, a_g, hyper, s2) * torch.minimum(share, (r / (r - decays.eps).clamp(min=TINY)).sqrt())
        b = torch.minimum(b / (2 - hyper.exponent).clamp(min=1), a_g / squares.clamp(min=TINY))
        return self._bent(w, a, b), gradient

    def _bent(self, w: Tensor, a: Tensor, b: Tensor) -> Curvature:
        """diag(a) - sum_g b_g w_g w_g'."""
        decays = self.problem.coefficient_decays
        bend = decays.spread(b) * w**2
        decay, diagonal = self._matrix(a), self._matrix(a - bend)
        if decays.single:
            return Curvature(decay, diagonal)

        def coupling(v: Tensor) -> Tensor:
            flat = self._flat(v)
            return self._matrix(
                bend.to(v) * flat - w.to(v) * decays.spread(b.to(v) * decays.group_sums(w.to(v) * flat))
            )

        return Curvature(decay, diagonal, coupling)

    def _turn(self, gradient: Tensor, w: Tensor, curvature: Curvature, d: Tensor, t: Tensor) -> Tensor:
        """The penalty's gradient after a step, as its linearised equation has it."""
        return gradient + t[:, 0] * (self._flat(curvature.decays) * w + self._flat(curvature(d)) - gradient)

    def _line_search(
        self, hyper: Hyper, s2: Tensor, v: Tensor, d: Tensor, product: Tensor, curvature: Curvature
    ) -> Tensor:
        """The first of the steps 1, 1/2 ... that lowers the objective of a fold enough: (K,)."""
        rhs, decays = self.moments.rhs, self.problem.coefficient_decays
        first, bend = ((product - rhs) * d).sum((-1, -2)), (d * self._system.low_product(d)).sum((-1, -2))
        slope = first + (curvature.decays * v * d).sum((-1, -2))
        w, step = self._flat(v), self._flat(d)
        start = decays.penalty(w, hyper, s2)
        size = (v * product).sum((-1, -2)) / 2 + (v * rhs).sum((-1, -2)).abs() + start
        t = torch.ones_like(slope)
        for _ in range(MAX_HALVINGS):
            change = decays.penalty(w + t[:, None] * step, hyper, s2) - start + t * (first + t * bend / 2)
            enough = change <= 1e-4 * t * slope + ROUNDING * size
            if bool(enough.all()):
                break
            t = torch.where(enough, t, t / 2)
        return t

    def _adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float) -> tuple[Tensor, float]:
        """H^-1 v for coefficients (K, T, p), and the relative residual that is left."""
        decays, system = self.problem.coefficient_decays, self._system
        flat = w[..., : self.problem.network.n_coefficients]
        a = decays.spread(decays.log_decays(flat, hyper, s2).exp())
        curvature = self._bent(flat, a, decays.concavity(flat, hyper, s2))
        u = torch.zeros_like(v) if self.warm.adjoint is None else self.warm.adjoint
        size = system.norm(v, curvature).clamp(min=TINY)
        before = torch.inf
        for _ in range(MAX_STEPS):
            residual = v - system.product(u, tol, "adjoint") - curvature(u)
            step = system.correct(curvature, residual, SINGLE, tol * size)
            left, error = float((step.before / size).max()), float((step.after / size).max())
            if left <= tol or left > 0.5 * before:
                error = left
                break
            before, u = left, u + step.d
            if error <= tol and tol >= SINGLE * left:
                break
        self.warm.adjoint = u
        return u, error


class Held(NamedTuple):
    """Validation losses (K,) and their gradients with respect to coefficients (K, T, p)."""

    losses: Tensor
    gradient: Tensor


def squared_factor(loss: Loss) -> float | None:
    """The factor of a squared error, None for other losses."""
    if isinstance(loss, Rescaled):
        inner = squared_factor(loss.loss)
        return None if inner is None else inner * loss.factor
    return 1.0 if loss == SquaredError() else None
