"""Squared loss, linear network: the normal equations of all folds as one batch.

Fixed decays are exact in one factorisation. The family's decays depend on the weights. Where a rough solution is
enough, each step solves the ridge problem whose decays are frozen at the current weights (P is concave in w^2 for
q <= 2, so that this majorises the inner problem and never goes up); where not, `Descent` takes Newton's steps.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..decays import Hyper
from ..descent import CURVATURE_ROUNDING, VANISHED, Batch, Descent
from ..iterative import IterativeResponse, iteration_pays
from ..linear_systems import Dual, Moments, System, normal_equations
from ..losses import SquaredError
from ..lu import lu_factor
from ..moments import fold_moments
from ..networks import Layers
from ..problem import Problem
from ..saddles import Saddles, negative, of_rows
from .base import Algorithm, BestResponse

MAX_STEPS = 100
NEXT_TO_NOTHING = 1e-12  # of a decay
ROUGH_TOL = 3e-4  # accuracy of the weights above which rough steps are good enough


@dataclass(frozen=True)
class ClosedForm(Algorithm):
    """Exact best response for a squared loss."""

    def bind(self, problem: Problem) -> "ClosedFormResponse | IterativeResponse":
        """Form the normal equations of every fold once."""
        if problem.loss != SquaredError():
            raise ValueError(f"the closed form needs a squared loss, got {problem.loss}")
        if iteration_pays(problem):
            moments = fold_moments(problem)
            if moments is not None:
                return IterativeResponse(problem, *moments)
        return ClosedFormResponse(problem, *normal_equations(problem))


@dataclass(frozen=True)
class ClosedFormResponse(BestResponse):
    """Best response through the normal equations; `rhs` is X'C(y - mean), (K, p, T)."""

    system: System
    rhs: Tensor
    moments: Moments

    @property
    def capacity(self) -> int:
        """How many candidates are solved at once."""
        return max(1, self.system.capacity // self.problem.n_folds)

    def take_folds(self, which: Tensor) -> "ClosedFormResponse":
        """Share the normal equations that are there."""
        problem = self.problem.take_folds(which)
        return ClosedFormResponse(problem, self.system.take_folds(which), self.rhs[which], self.moments.take(which))

    def take_output(self, t: int) -> "ClosedFormResponse":
        """Share the normal equations that are there."""
        total, x, y = self.moments
        moments = Moments(total, x, y[:, t : t + 1])
        return ClosedFormResponse(self.problem.take_output(t), self.system, self.rhs[..., t : t + 1], moments)

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """One factorisation where decays are fixed, re-weighted steps where they depend on the weights."""
        batch, shape = self._flatten(hyper, s2)
        if bool((hyper.exponent == 2).all()):
            flat = self._frozen(batch, self.rhs.new_ones(len(batch.fold), self.problem.network.n_coefficients))
        else:
            start = self.solve(Hyper(hyper.log_alpha, 2.0 + 0 * hyper.exponent, hyper.offsets), s2) if w is None else w
            start = start[..., : self.problem.network.n_coefficients].expand(*shape, -1).flatten(0, -2)
            flat = self._reweight(batch, start, tol)
        coefficients = flat.reshape(*shape, *self.rhs.shape[-2:])
        intercepts = self.moments.y - (self.moments.x[..., None] * coefficients).sum(-2)
        return self._join(coefficients, intercepts)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """H^-1 v by factorisation, refined once where that leaves too much; the intercepts are eliminated."""
        batch, shape = self._flatten(hyper, s2)
        layers = self.problem.network.split(v)
        centred = layers.coefficients - self.moments.x[..., None] * layers.intercepts[..., None, :]
        r, flat = centred.flatten(0, -3), w[..., : self.problem.network.n_coefficients].flatten(0, -2)
        u = self._newton(batch, flat, r)
        left = r - self._product(batch, flat, u)
        if float(left.norm()) > tol * float(r.norm()):
            u = u + self._newton(batch, flat, left)
            left = r - self._product(batch, flat, u)
        coefficients = u.reshape(*shape, *self.rhs.shape[-2:])
        intercepts = layers.intercepts / self.moments.total - (self.moments.x[..., None] * coefficients).sum(-2)
        error = float(left.norm()) / max(float(r.norm()), torch.finfo(r.dtype).tiny)
        return self._join(coefficients, intercepts), error

    @cached_property
    def _shared(self) -> bool:
        return self.problem.coefficient_decays.shared_by_outputs(self.rhs.shape[-1])

    @cached_property
    def _rows_apart(self) -> bool:
        """Whether a decay is that of one row of coefficients, and such systems have a form of their own."""
        decays, (p, n_outputs) = self.problem.coefficient_decays, self.rhs.shape[-2:]
        own_rows = self._shared and decays.n_groups == p
        return own_rows and isinstance(self.system, Dual) and self.system.rows_pay(n_outputs)

    def _join(self, coefficients: Tensor, intercepts: Tensor) -> Tensor:
        return self.problem.network.join(Layers(coefficients, intercepts, intercepts[..., :0]))

    def _flatten(self, hyper: Hyper, s2: Tensor) -> tuple[Batch, tuple[int, ...]]:
        """Candidates x folds -> one flat batch, and the shape to restore."""
        lead = hyper.log_alpha.shape
        shape = (*lead, self.problem.n_folds)
        fold = torch.arange(shape[-1]).expand(shape).flatten()
        offsets = hyper.offsets
        if offsets is not None:
            offsets = offsets[..., None, :].expand(*shape, -1).flatten(0, -2)
        scalars = (hyper.log_alpha, hyper.exponent)
        log_alpha, exponent = (t[..., None].expand(shape).flatten() for t in scalars)
        return Batch(fold, s2.expand(shape).flatten(), Hyper(log_alpha, exponent, offsets)), shape

    def _decay(self, batch: Batch, w: Tensor) -> Tensor:
        """Frozen decays at w: (B, p) where outputs share them, else (B, p, T)."""
        decays = self.problem.coefficient_decays
        return self._as_matrix(decays.spread(decays.log_decays(w, batch.hyper, batch.s2).exp()))

    def _as_matrix(self, a: Tensor) -> Tensor:
        """Flat weights (B, p * T) -> (B, p) where outputs share decays, else (B, p, T)."""
        a = a.unflatten(-1, self.rhs.shape[-2:])
        return a[..., 0] if self._shared else a

    def _frozen(self, batch: Batch, w: Tensor) -> Tensor:
        """The ridge solution with the decays frozen at w."""
        return self.system.solve(batch.fold, self._decay(batch, w), self.rhs[batch.fold]).flatten(-2)

    def _reweight(self, batch: Batch, w: Tensor, tol: float) -> Tensor:
        """Rough: majorise-minimise, problems leave as they converge. Accurate: Newton's method."""
        if tol <= ROUGH_TOL:
            solvers = self._solve_bent, self._frozen, self._saddles
            return Descent(self.system, self.rhs, self.problem.coefficient_decays, *solvers)(batch, w, tol)
        w = w.clone()
        active = torch.arange(len(w))
        for _ in range(MAX_STEPS):
            part, old = batch.take(active), w[active]
            new = self._frozen(part, old)
            w[active] = new
            size = torch.maximum(new.norm(dim=-1), VANISHED * (part.s2 * w.shape[-1]).sqrt())
            change = (new - old).norm(dim=-1) / size.clamp(min=torch.finfo(w.dtype).tiny)
            active = active[change > tol]
            if not len(active):
                break
        return w

    def _newton(self, batch: Batch, w: Tensor, r: Tensor) -> Tensor:
        """H^-1 r with the true Hessian of the inner problem at w: (B, p, T)."""
        decays = self.problem.coefficient_decays
        a = decays.log_decays(w, batch.hyper, batch.s2).exp()
        return self._solve_bent(batch, w, a, decays.concavity(w, batch.hyper, batch.s2), r)

    def _product(self, batch: Batch, w: Tensor, u: Tensor) -> Tensor:
        """H u with the same Hessian: (B, p, T) -> (B, p, T)."""
        decays, flat = self.problem.coefficient_decays, u.flatten(-2)
        a, b = decays.log_decays(w, batch.hyper, batch.s2).exp(), decays.concavity(w, batch.hyper, batch.s2)
        bend = decays.spread(b * decays.group_sums(w * flat)) * w
        return self.system.matvec(batch.fold, u) + (decays.spread(a) * flat - bend).unflatten(-1, u.shape[-2:])

    def _solve_bent(self, batch: Batch, w: Tensor, a: Tensor, b: Tensor, r: Tensor) -> Tensor:
        """(X'CX + diag(a) - sum_g b_g w_g w_g')^-1 r: (B, p, T)."""
        decays = self.problem.coefficient_decays
        if isinstance(self.system, Dual):
            b = self._off_zero(batch, w, a, b)
        if decays.single:
            return self.system.solve(batch.fold, self._as_matrix(decays.spread(a - b * decays.group_sums(w**2))), r)
        frozen = self._as_matrix(decays.spread(a))
        if self._rows_apart:
            rows, bends = w.unflatten(-1, self.rhs.shape[-2:]), self._as_matrix(decays.spread(b))
            return self.system.solve_rows(batch.fold, frozen, bends, rows, r[..., None])[..., 0]
        u = self.system.solve(batch.fold, frozen, r)
        if not bool(b.any()):
            return u
        # H = A - W B W', W = one column a decay: H^-1 r = u + A^-1 W (I - B W'A^-1 W)^-1 B W'u.
        small = torch.eye(decays.n_groups, dtype=w.dtype) - b[..., None] * self._coupling(batch, w, a)
        lift = lu_factor(small).solve((b * decays.group_sums(w * u.flatten(-2)))[..., None])[..., 0]
        column = (decays.spread(lift) * w).unflatten(-1, self.rhs.shape[-2:])
        return u + self.system.solve(batch.fold, frozen, column)

    def _off_zero(self, batch: Batch, w: Tensor, a: Tensor, b: Tensor) -> Tensor:
        """The b_g, changed where a_g - b_g |w_g|^2, which the dual form divides by, is less than its rounding error."""
        floor = torch.maximum(NEXT_TO_NOTHING * a, CURVATURE_ROUNDING * self.system.trace[batch.fold][:, None])
        squares = self.problem.coefficient_decays.group_sums(w**2).clamp(min=torch.finfo(w.dtype).tiny)
        return torch.where((a - b * squares).abs() < floor, (a - floor) / squares, b)

    def _saddles(self, batch: Batch, w: Tensor) -> Saddles:
        """Negative curvature of the inner problems at w."""
        decays, (p, n_outputs) = self.problem.coefficient_decays, self.rhs.shape[-2:]
        a = decays.log_decays(w, batch.hyper, batch.s2).exp()
        b = decays.concavity(w, batch.hyper, batch.s2)
        if decays.single:  # then outputs are problems of their own
            apart = (decays.spread(v).unflatten(-1, (p, n_outputs)).mT.flatten(0, 1) for v in (a, b))
            own = w.unflatten(-1, (p, n_outputs)).mT.flatten(0, 1)
            found, d = of_rows(self.system, batch.fold.repeat_interleave(n_outputs), own[..., None], *apart)
            down = torch.zeros_like(own).index_put_((found,), d[..., 0]).unflatten(0, (-1, n_outputs))
            found = found.unflatten(0, (-1, n_outputs)).any(1)
            return Saddles(found, down[found].mT.flatten(-2))
        if self._rows_apart:
            rows = (self._as_matrix(decays.spread(v)) for v in (a, b))
            found, d = of_rows(self.system, batch.fold, w.unflatten(-1, (p, n_outputs)), *rows)
            return Saddles(found, d.flatten(-2))
        root = b.sqrt()
        found, e = negative(root[:, :, None] * self._coupling(batch, w, a) * root[:, None, :])
        column = (decays.spread(root[found] * e) * w[found]).unflatten(-1, (p, n_outputs))
        frozen = self._as_matrix(decays.spread(a[found]))
        return Saddles(found, self.system.solve(batch.fold[found], frozen, column).flatten(-2))

    def _coupling(self, batch: Batch, w: Tensor, a: Tensor) -> Tensor:
        """W' A^-1 W for decays a (B, n_groups): (B, n_groups, n_groups)."""
        decays, (p, n_outputs) = self.problem.coefficient_decays, self.rhs.shape[-2:]
        a = self._as_matrix(decays.spread(a))
        w, group = w.unflatten(-1, (p, n_outputs)), decays.index.unflatten(-1, (p, n_outputs))
        coupled = w.new_zeros(len(w), decays.n_groups, decays.n_groups)
        inverse = self.system.inverse(batch.fold, a) if a.ndim == 2 else None
        for t in range(n_outputs):
            block = self.system.inverse(batch.fold, a[..., t]) if inverse is None else inverse
            block = block * w[..., :, None, t] * w[..., None, :, t]
            rows = w.new_zeros(len(w), decays.n_groups, p).index_add_(1, group[:, t], block)
            coupled.index_add_(2, group[:, t], rows)
        return coupled
