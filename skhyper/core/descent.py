"""The family's weights under a squared loss, as accurately as asked for: Newton's method on the normal equations.

    inner(w) = w' X'CX w / 2 - r' w + P(w)

The family's penalty is smooth but stiff. As in `newton`, its gradient a(w) w gets a variable of its own, v, and the
equation v / a(w) = w is linearised instead (Chan, Golub and Mulet, 1999), so that the Hessian keeps its form,
X'CX + diag(a) - sum_g b_g w_g w_g', with b_g scaled by the share of v_g that lies along a_g w_g.

For q < 1 the Hessian may be indefinite: far from the solution b_g is made small enough for positive curvature along
w_g. So it is always where X'CX is so ill-conditioned that rounding hides the curvature that is left. Newton's method
may end at a saddle: then it goes on from beside it, down the direction of most negative curvature.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .decays import Decays, Hyper
from .linear_systems import System
from .saddles import Saddles

MAX_STEPS = 300
MAX_HALVINGS = 30
MAX_IDLE = 10  # steps that lower the objective by no more than its rounding error, after which a problem ends
EXACT_BELOW = 0.1  # relative length of a step after which negative curvature is let be
VANISHED = 1e-2  # size of the weights, beside the global solution's, below which their change is measured by it
ROUNDING = 3e-14  # relative error of the objective, generously
CURVATURE_ROUNDING = 1e-15  # relative error of X'CX, in units of its trace
MAX_SADDLES = 5  # that a problem leaves,
ASIDE = 1e-2  # by a step of this length beside the weights


class Batch(NamedTuple):
    """A flat batch of problems: the fold of each, and its hyperparameters."""

    fold: Tensor  # (B,)
    s2: Tensor  # (B,)
    hyper: Hyper  # with leading axis B

    def take(self, rows: Tensor) -> "Batch":
        """Some of the problems."""
        return Batch(self.fold[rows], self.s2[rows], self.hyper.take(rows))


class Point(NamedTuple):
    """Weights, and what the objective knows there."""

    w: Tensor  # (B, p * T)
    r: Tensor  # their relative size, (B, n_groups)
    a: Tensor  # their decays, (B, n_groups)
    smooth: Tensor  # X'CX w - r, (B, p * T)


class Path(NamedTuple):
    """Where the steps of a batch have got to."""

    at: Point
    v: Tensor  # the penalty's gradient, as a variable of its own
    length: Tensor  # of the last step, relative to w; infinite where it was shortened, (B,)
    error: Tensor  # estimated relative error of w
    idle: Tensor  # steps without progress, less those with


@dataclass(frozen=True)
class Descent:
    """Newton's method for a batch of inner problems.

    Parameters
    ----------
    system : System
        X'CX.
    rhs : Tensor, shape (K, p, T)
        Right-hand sides r.
    decays : Decays
        Of the coefficients.
    solve : callable
        (batch, w, a, b, g) -> (X'CX + diag(a) - sum_g b_g w_g w_g')^-1 g, with a, b (B, n_groups), g (B, p, T).
    frozen : callable
        (batch, w) -> the ridge solution with the decays of w, which is always lower.
    saddles : callable
        (batch, w) -> which problems have negative curvature at w, and a direction of it for each of these.
    """

    system: System
    rhs: Tensor
    decays: Decays
    solve: Callable[[Batch, Tensor, Tensor, Tensor, Tensor], Tensor]
    frozen: Callable[[Batch, Tensor], Tensor]
    saddles: Callable[[Batch, Tensor], Saddles]

    def __call__(self, batch: Batch, w: Tensor, tol: float) -> Tensor:
        """From w (B, p * T) to the minimisers."""
        w = self._descend(batch, w, tol)
        left = (batch.hyper.exponent < 1).nonzero()[:, 0]
        for _ in range(MAX_SADDLES if len(left) else 0):
            saddles, beside = self._beside_saddles(batch.take(left), w[left])
            left = left[saddles]
            if not len(left):
                break
            w[left] = self._descend(batch.take(left), beside, tol)
        return w

    def _beside_saddles(self, batch: Batch, w: Tensor) -> tuple[Tensor, Tensor]:
        """Which problems have negative curvature at w, and lower points beside it for these."""
        saddles, d = self.saddles(batch, w)
        batch, w = batch.take(saddles), w[saddles]
        d = d * (ASIDE * vector_norm(w, dim=-1) / vector_norm(d, dim=-1))[:, None]
        up = self._objective(batch, w + d) > self._objective(batch, w - d)
        return saddles, w + torch.where(up, -1.0, 1.0)[:, None] * d

    def _objective(self, batch: Batch, w: Tensor) -> Tensor:
        """inner(w), (B,)."""
        matrix, rhs = w.unflatten(-1, self.rhs.shape[-2:]), self.rhs[batch.fold]
        smooth = self.system.matvec(batch.fold, matrix) / 2 - rhs
        return (matrix * smooth).sum((-2, -1)) + self.decays.penalty(w, batch.hyper, batch.s2)

    def _descend(self, batch: Batch, w: Tensor, tol: float) -> Tensor:
        """From w to where the slope vanishes; problems leave as they converge."""
        w = w.clone()
        point = self._at(batch, w)
        far = torch.full_like(batch.s2, torch.inf)
        path, active = Path(point, self.decays.spread(point.a) * w, far, far, 0 * batch.s2), torch.arange(len(w))
        for _ in range(MAX_STEPS):
            path = self._step(batch, path)
            w[active] = path.at.w
            left = (path.error > tol) & (path.idle < MAX_IDLE)
            if not bool(left.any()):
                break
            if not bool(left.all()):
                at, *rest = path
                active, batch = active[left], batch.take(left)
                path = Path(Point(*(t[left] for t in at)), *(t[left] for t in rest))
        return w

    def _at(self, batch: Batch, w: Tensor) -> Point:
        r = self.decays.relative(w, batch.s2)
        matrix = w.unflatten(-1, self.rhs.shape[-2:])
        smooth = (self.system.matvec(batch.fold, matrix) - self.rhs[batch.fold]).flatten(-2)
        return Point(w, r, self.decays.log_decays_at(r, batch.hyper).exp(), smooth)

    def _step(self, batch: Batch, path: Path) -> Path:
        (w, _, a_g, smooth), decays = path.at, self.decays
        a = decays.spread(a_g)
        d, b, extend = self._direction(batch, path, smooth + a * w)
        t, idle = self._line_search(batch, w, d, smooth, a, extend)
        v = path.v + t[:, None] * (a * (w + d) - decays.spread(b * decays.group_sums(w * d)) * w - path.v)
        new, full = self._at(batch, w + t[:, None] * d), t >= 1
        size = torch.maximum(vector_norm(new.w, dim=-1), VANISHED * (batch.s2 * w.shape[-1]).sqrt())
        size = size.clamp(min=torch.finfo(w.dtype).tiny)
        length = t * vector_norm(d, dim=-1) / size
        ratio = torch.where(path.length.isinf(), 0.5, length / path.length).nan_to_num(0.5).clamp(max=0.999)
        # Small weights with large decays may be off although steps are short: what their decays alone would change.
        a = decays.spread(new.a)
        change = (new.smooth + a * new.w) / (a + self.system.trace[batch.fold][:, None] / len(self.rhs[0]))
        error = torch.maximum(length * ratio / (1 - ratio), vector_norm(change, dim=-1) / size)
        error = torch.where(full, error, torch.inf)
        idle &= (ratio > 0.5) | ~full
        idle = torch.where(idle, path.idle + 1, (path.idle - 1).clamp(min=0))
        return Path(new, v, torch.where(full, length, torch.inf), error, idle)

    def _direction(self, batch: Batch, path: Path, slope: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where to go, the b_g that led there, and whether it may be too short for want of negative curvature."""
        (w, _, a, _), q = path.at, batch.hyper.exponent
        b = self._concavity(batch, path)
        floor = CURVATURE_ROUNDING * self.system.trace[batch.fold][:, None]
        most = (a - floor).clamp(min=0) / self.decays.group_sums(w**2).clamp(min=torch.finfo(w.dtype).tiny)
        positive = torch.minimum(b / (2 - q)[:, None].clamp(min=1), most)
        exact = (q < 1) & (path.length < EXACT_BELOW)
        b = torch.where(exact[:, None], b, positive)
        d = -self._solve(batch, w, a, b, slope)
        up = ~((slope * d).sum(-1) < 0)
        if bool((up & exact).any()):
            rows, exact = up & exact, exact & ~up
            b[rows] = positive[rows]
            d[rows] = -self._solve(batch.take(rows), w[rows], a[rows], b[rows], slope[rows])
            up = ~((slope * d).sum(-1) < 0)
        if bool(up.any()):
            d[up], b[up] = self.frozen(batch.take(up), w[up]) - w[up], 0.0
        return d, b, (q < 1) & ~exact

    def _solve(self, batch: Batch, w: Tensor, a: Tensor, b: Tensor, g: Tensor) -> Tensor:
        return self.solve(batch, w, a, b, g.unflatten(-1, self.rhs.shape[-2:])).flatten(-2)

    def _concavity(self, batch: Batch, path: Path) -> Tensor:
        """b_g scaled by the share of v_g along a_g w_g, but not beyond a_g (2 - q)."""
        w, r, a, _ = path.at
        along, across = self.decays.group_sums(path.v * w), a * self.decays.group_sums(w**2)
        share = torch.where(across > 0, along / across, 1.0).clamp(min=0)
        sharp = (r - self.decays.eps).clamp(min=torch.finfo(r.dtype).tiny)
        return self.decays.concavity_at(r, a, batch.hyper, batch.s2) * torch.minimum(share, (r / sharp).sqrt())

    def _line_search(
        self, batch: Batch, w: Tensor, d: Tensor, smooth: Tensor, a: Tensor, extend: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The first of the steps 1, 1/2 ... that lowers the objective enough, doubled where that helps further.

        Returns its length, and whether the objective falls by no more than its rounding error.
        """
        product = self.system.matvec(batch.fold, d.unflatten(-1, self.rhs.shape[-2:])).flatten(-2)
        bend, first = (d * product).sum(-1), (d * smooth).sum(-1)
        penalty = self.decays.penalty(w, batch.hyper, batch.s2)
        # Of the objective's terms, and of the slope along d, where X'CX w - r cancels.
        rounding = ROUNDING * ((w * self.rhs[batch.fold].flatten(-2)).sum(-1).abs() + penalty)
        rounding += CURVATURE_ROUNDING * self.system.trace[batch.fold] * vector_norm(w, dim=-1) * vector_norm(d, dim=-1)
        expected = -1e-4 * (first + (d * a * w).sum(-1))

        def gain(t: Tensor) -> Tensor:
            return penalty - self.decays.penalty(w + t[:, None] * d, batch.hyper, batch.s2) - t * (first + t * bend / 2)

        t = torch.ones_like(bend)
        found = gain(t)
        for _ in range(MAX_HALVINGS):
            short = ~(found >= t * expected - rounding)
            if not bool(short.any()):
                break
            t = torch.where(short, t / 2, t)
            found = torch.where(short, gain(t), found)
        t = torch.where(found.isfinite(), t, 0.0)
        growing = extend & (t == 1)
        while bool(growing.any()):
            further = gain(2 * t)
            growing &= (further > found) & (t < 1e3)
            t, found = torch.where(growing, 2 * t, t), torch.where(growing, further, found)
        return t, ~(found > rounding)
