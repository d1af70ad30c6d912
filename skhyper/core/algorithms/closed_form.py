"""Squared loss, linear network: the normal equations of all folds as one batch.

Fixed decays are exact in one factorisation. The family's decays depend on the weights: each step solves the ridge
problem whose decays are frozen at the current weights (P is concave in w^2 for q <= 2, so that this majorises the
inner problem and never goes up). That is cheap and quick to be roughly right, and slow to be accurate; where accuracy
is asked for, Newton's steps with the penalty's gradient as a variable of its own take its place.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from ..decays import Decays, Hyper
from ..iterative import IterativeResponse, iteration_pays
from ..linear_systems import Moments, System, normal_equations
from ..losses import SquaredError
from ..moments import fold_moments
from ..networks import Layers
from ..problem import Problem
from .base import Algorithm, BestResponse

MAX_STEPS = 300
ROUGH_TOL = 3e-4  # accuracy of the weights above which majorising steps, themselves rough, are good enough
VANISHED = 1e-2  # size of the weights, beside the global solution's, below which their change is measured by it
MAX_HALVINGS = 30
MAX_IDLE = 10  # steps that lower the objective by no more than its rounding error, after which a problem ends
EXACT_BELOW = 0.1  # relative length of a step under which negative curvature is not cut any more
CURVATURE_ROUNDING = 1e-15  # relative error of the normal equations' matrix, in units of its trace
ROUNDING = 3e-14  # relative error of the objective, generously


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


class Batch(NamedTuple):
    """A flat batch of problems: the fold of each, and its hyperparameters."""

    fold: Tensor  # (B,)
    s2: Tensor  # (B,)
    hyper: Hyper  # with leading axis B

    def take(self, rows: Tensor) -> "Batch":
        """Some of the problems."""
        log_alpha, exponent, offsets = self.hyper
        hyper = Hyper(log_alpha[rows], exponent[rows], None if offsets is None else offsets[rows])
        return Batch(self.fold[rows], self.s2[rows], hyper)


class Path(NamedTuple):
    """Where the steps of a batch have got to."""

    w: Tensor  # (B, p * T)
    v: Tensor  # the penalty's gradient, as a variable of its own
    length: Tensor  # of the last step, relative to w; infinite where it was shortened, (B,)
    error: Tensor  # estimated relative error of w
    idle: Tensor  # steps without progress


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

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """One factorisation where decays are fixed, re-weighted steps where they depend on the weights."""
        batch, shape = self._flatten(hyper, s2)
        if bool((hyper.exponent == 2).all()):
            flat = self._frozen(batch, self.rhs.new_ones(len(batch.fold), self._n_decayed))
        else:
            start = self.solve(Hyper(hyper.log_alpha, 2.0 + 0 * hyper.exponent, hyper.offsets), s2) if w is None else w
            start = start[..., : self._n_decayed].expand(*shape, -1).flatten(0, -2)
            flat = (self._majorise if tol > ROUGH_TOL else self._reweight)(batch, start, tol)
        coefficients = flat.reshape(*shape, *self.rhs.shape[-2:])
        intercepts = self.moments.y - (self.moments.x[..., None] * coefficients).sum(-2)
        return self._join(coefficients, intercepts)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """H^-1 v by factorisation; the intercepts are eliminated."""
        batch, shape = self._flatten(hyper, s2)
        layers = self.problem.network.split(v)
        centred = layers.coefficients - self.moments.x[..., None] * layers.intercepts[..., None, :]
        flat = w[..., : self._n_decayed].flatten(0, -2)
        coefficients = self._newton(batch, flat, centred.flatten(0, -3)).reshape(*shape, *self.rhs.shape[-2:])
        intercepts = layers.intercepts / self.moments.total - (self.moments.x[..., None] * coefficients).sum(-2)
        return self._join(coefficients, intercepts), 0.0

    @property
    def _n_decayed(self) -> int:
        return self.problem.network.n_coefficients

    @cached_property
    def _decays(self) -> Decays:
        return self.problem.decays.restrict(self._n_decayed)

    @cached_property
    def _shared(self) -> bool:
        return self._decays.shared_by_outputs(self.rhs.shape[-1])

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
        return self._as_matrix(self._decays.spread(self._decays.log_decays(w, batch.hyper, batch.s2).exp()))

    def _as_matrix(self, a: Tensor) -> Tensor:
        """Flat weights (B, p * T) -> (B, p) where outputs share decays, else (B, p, T)."""
        a = a.unflatten(-1, self.rhs.shape[-2:])
        return a[..., 0] if self._shared else a

    def _frozen(self, batch: Batch, w: Tensor, rough: bool = False) -> Tensor:
        """The ridge solution with the decays frozen at w."""
        return self.system.solve(batch.fold, self._decay(batch, w), self.rhs[batch.fold], rough).flatten(-2)

    def _majorise(self, batch: Batch, w: Tensor, tol: float) -> Tensor:
        """Ridge solutions with decays frozen at the last; problems leave as they converge."""
        w, active = w.clone(), torch.arange(len(w))
        for _ in range(MAX_STEPS):
            old = w[active]
            w[active] = new = self._frozen(batch, old, rough=True)
            size = torch.maximum(new.norm(dim=-1), VANISHED * (batch.s2 * w.shape[-1]).sqrt())
            left = (new - old).norm(dim=-1) > tol * size
            if not bool(left.any()):
                break
            active, batch = active[left], batch.take(left)
        return w

    def _reweight(self, batch: Batch, w: Tensor, tol: float) -> Tensor:
        """Newton's method with a variable of its own for the penalty's gradient; problems leave as they converge."""
        w = w.clone()
        active = torch.arange(len(w))
        path = self._start(batch, w)
        for _ in range(MAX_STEPS):
            path = self._step(batch, path)
            w[active] = path.w
            left = (path.error > tol) & (path.idle < MAX_IDLE)
            if not bool(left.any()):
                break
            if not bool(left.all()):
                active, batch, path = active[left], batch.take(left), Path(*(t[left] for t in path))
        return w

    def _start(self, batch: Batch, w: Tensor) -> "Path":
        a = self._decays.spread(self._decays.log_decays(w, batch.hyper, batch.s2).exp())
        far = torch.full_like(batch.s2, torch.inf)
        return Path(w, a * w, far, far, torch.zeros_like(far))

    def _step(self, batch: Batch, path: "Path") -> "Path":
        """Newton's step, shortened until it goes down."""
        w, decays, q = path.w, self._decays, batch.hyper.exponent
        r = decays.relative(w, batch.s2)
        a_g = decays.log_decays_at(r, batch.hyper).exp()
        b, a = self._concavity(batch, path, r, a_g), decays.spread(a_g)
        slope = self._smooth_gradient(batch, w) + a * w
        # What the rounding of X'CX hides is no curvature, and what negative curvature is left goes far from the solution.
        positive = torch.minimum(b / (2 - q)[:, None].clamp(min=1), self._least(batch, w, a_g))
        exact = (path.length < EXACT_BELOW) & (q < 1)
        b = torch.where(exact[:, None], b, positive)
        d = self._direction(batch, w, a_g, b, slope)
        lost = exact & ~((slope * d).sum(-1) < 0)
        if bool(lost.any()):
            part, b[lost] = batch.take(lost), positive[lost]
            d[lost] = self._direction(part, w[lost], a_g[lost], b[lost], slope[lost])
        lost = ~((slope * d).sum(-1) < 0)
        if bool(lost.any()):
            d[lost], b[lost] = self._frozen(batch.take(lost), w[lost]) - w[lost], 0.0
        t, gain, size = self._line_search(batch, w, d, slope, (q < 1) & (b == positive).all(-1))
        v = path.v + t[:, None] * (a * (w + d) - decays.spread(b * decays.group_sums(w * d)) * w - path.v)
        new = w + t[:, None] * d
        length = (t * d.norm(dim=-1)) / new.norm(dim=-1).clamp(min=torch.finfo(w.dtype).tiny)
        ratio = torch.where(path.length.isinf(), 0.5, length / path.length).clamp(max=0.999)
        error = torch.where(t >= 1, length * ratio / (1 - ratio), torch.inf)
        idle = (gain <= ROUNDING * size) & ((ratio > 0.5) | (t < 1))
        return Path(new, v, torch.where(t >= 1, length, torch.inf), error, torch.where(idle, path.idle + 1, 0.0))

    def _direction(self, batch: Batch, w: Tensor, a: Tensor, b: Tensor, slope: Tensor) -> Tensor:
        return -self._solve_bent(batch, w, a, b, slope.unflatten(-1, self.rhs.shape[-2:])).flatten(-2)

    def _least(self, batch: Batch, w: Tensor, a: Tensor) -> Tensor:
        """The largest b_g that leaves a_g - b_g |w_g|^2 above the rounding error of X'CX."""
        floor = CURVATURE_ROUNDING * self.system.trace[batch.fold][:, None]
        return (a - floor).clamp(min=0) / self._decays.group_sums(w**2).clamp(min=torch.finfo(w.dtype).tiny)

    def _concavity(self, batch: Batch, path: "Path", r: Tensor, a: Tensor) -> Tensor:
        """b_g scaled by the share of v_g along a_g w_g."""
        decays = self._decays
        along, across = decays.group_sums(path.v * path.w), a * decays.group_sums(path.w**2)
        share = torch.where(across > 0, along / across, 1.0).clamp(min=0)
        r_smooth = (r - decays.eps).clamp(min=torch.finfo(r.dtype).tiny)
        return decays.concavity_at(r, a, batch.hyper, batch.s2) * torch.minimum(share, (r / r_smooth).sqrt())

    def _line_search(
        self, batch: Batch, w: Tensor, d: Tensor, slope: Tensor, extend: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The first of the steps 1, 1/2 ... that lowers the objective enough; doubled while that helps further.

        Returns the length, by how much the objective falls, and the size of its terms.
        """
        shape = self.rhs.shape[-2:]
        bend = (d * self.system.matvec(batch.fold, d.unflatten(-1, shape)).flatten(-2)).sum(-1)
        smooth = self._smooth_gradient(batch, w)
        first, size = (smooth * d).sum(-1), self._size(batch, w, smooth)
        start = self._decays.penalty(w, batch.hyper, batch.s2)

        def gain(t: Tensor) -> Tensor:
            penalty = self._decays.penalty(w + t[:, None] * d, batch.hyper, batch.s2)
            return start - penalty - t * (first + t * bend / 2)

        expected = -(slope * d).sum(-1)
        t = torch.ones_like(bend)
        for _ in range(MAX_HALVINGS):
            found = gain(t)
            enough = found >= 1e-4 * t * expected - ROUNDING * size
            if bool(enough.all()):
                break
            t = torch.where(enough, t, t / 2)
        growing = extend & (t == 1)
        while bool(growing.any()):
            further = gain(torch.where(growing, 2 * t, t))
            growing = growing & (further > found) & (t < 1e3)
            t, found = torch.where(growing, 2 * t, t), torch.where(growing, further, found)
        return t, found, size

    def _smooth_gradient(self, batch: Batch, w: Tensor) -> Tensor:
        matrix = w.unflatten(-1, self.rhs.shape[-2:])
        return (self.system.matvec(batch.fold, matrix) - self.rhs[batch.fold]).flatten(-2)

    def _size(self, batch: Batch, w: Tensor, smooth: Tensor) -> Tensor:
        """The sum of the sizes of the objective's terms."""
        linear = (w * self.rhs[batch.fold].flatten(-2)).sum(-1)
        return (w * smooth).sum(-1).abs() / 2 + linear.abs() + self._decays.penalty(w, batch.hyper, batch.s2)

    def _newton(self, batch: Batch, w: Tensor, r: Tensor) -> Tensor:
        """H^-1 r with the true Hessian of the inner problem at w: (B, p, T)."""
        decays = self._decays
        a = decays.log_decays(w, batch.hyper, batch.s2).exp()
        return self._solve_bent(batch, w, a, decays.concavity(w, batch.hyper, batch.s2), r)

    def _solve_bent(self, batch: Batch, w: Tensor, a: Tensor, b: Tensor, r: Tensor) -> Tensor:
        """(X'CX + diag(a) - sum_g b_g w_g w_g')^-1 r: (B, p, T)."""
        decays, k = self._decays, -b
        if decays.single:
            return self.system.solve(batch.fold, self._as_matrix(decays.spread(a + k * decays.group_sums(w**2))), r)
        frozen = self._as_matrix(decays.spread(a))
        u = self.system.solve(batch.fold, frozen, r)
        if not bool(k.any()):
            return u
        # H = A + W K W', W = one column a decay: H^-1 r = u - A^-1 W (I + K W'A^-1 W)^-1 K W'u.
        coupled = self._coupling(batch, frozen, w)
        small = torch.eye(decays.n_groups, dtype=w.dtype) + k[..., None] * coupled
        lift = torch.linalg.solve(small, k * decays.group_sums(w * u.flatten(-2)))
        column = (decays.spread(lift) * w).unflatten(-1, self.rhs.shape[-2:])
        return u - self.system.solve(batch.fold, frozen, column)

    def _coupling(self, batch: Batch, a: Tensor, w: Tensor) -> Tensor:
        """W' A^-1 W: (B, n_groups, n_groups)."""
        decays, (p, n_outputs) = self._decays, self.rhs.shape[-2:]
        w, group = w.unflatten(-1, (p, n_outputs)), decays.index.unflatten(-1, (p, n_outputs))
        coupled = w.new_zeros(len(w), decays.n_groups, decays.n_groups)
        inverse = self.system.inverse(batch.fold, a) if a.ndim == 2 else None
        for t in range(n_outputs):
            block = self.system.inverse(batch.fold, a[..., t]) if inverse is None else inverse
            block = block * w[..., :, None, t] * w[..., None, :, t]
            rows = w.new_zeros(len(w), decays.n_groups, p).index_add_(1, group[:, t], block)
            coupled.index_add_(2, group[:, t], rows)
        return coupled
