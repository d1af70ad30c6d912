"""Newton's method for the inner problem of all folds and candidates as one batch.

The family's penalty is smooth but stiff: a weight that passes from its size to nought crosses a kink, where Newton's
method is slow and re-weighting slower still. So the penalty's gradient a(w) w gets a variable of its own, v, and
the equation v / a(w) = w is linearised instead (Chan, Golub and Mulet, 1999): the Hessian keeps its form, diag(a) -
sum_g b_g w_g w_g', but b_g is scaled by the share of v_g that lies along a_g w_g. At the solution v = a w, and the
step is Newton's own; it starts at minus the loss's gradient, which it is at the solution too.

Steps with the factor of an earlier Hessian are tried first: they cost two products with X, and by how much they
contract says what error is left.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import vector_norm

from .cg import conjugate_gradients
from .hessian import Factor, Hessian, Layout
from .inner import InnerObjective, Point, at_least_tiny
from .problem import weighted_sum

# An earlier factor serves as long as a step with it is shorter than this share of the one before.
CONTRACTION = 0.1
# Conjugate gradients take at most this many steps where the last step was longer than the share FAR, or not full.
FAR, CG_FAR = 0.1, 20
# Share of the way to where the loss becomes infinite that a step goes at most.
INSIDE = 0.25
# Relative rounding error of the objective, generously.
ROUNDING = 3e-14
# Steps in a row that lower the objective by no more than its rounding error, after which a fold ends.
MOST_STALLED = 3
# Relative additions to the diagonal, tried in turn where a Hessian is not positive definite.
JITTERS = (1e-14, 1e-8, 1e-4, 1.0, 1e4)


class Direction(NamedTuple):
    """Where to go from a point."""

    d: Tensor  # (..., K, n_weights)
    b: Tensor | None  # the concavity that was used
    exact: Tensor  # bool (..., K): the Hessian was positive definite without changes
    error: Tensor  # relative error of d as a solution of its linear system, (..., K)
    factor: Factor | None  # to be used again


class Progress(NamedTuple):
    """Where the folds and candidates are on their way, (..., K) each."""

    done: Tensor  # bool
    stalled: Tensor  # how many steps in a row have changed nothing
    last: Tensor  # relative length of the last step, nan if that was not a full one

    def take(self, rows: Tensor) -> "Progress":
        """The progress of some of the candidates."""
        return Progress(*(part[rows] for part in self))


class State(NamedTuple):
    """All that a step needs and leaves."""

    objective: InnerObjective
    point: Point
    g: Tensor  # the objective's gradient, (..., K, n_weights)
    v: Tensor  # the penalty's gradient, as a variable of its own, (..., K, n_weights)
    progress: Progress

    def take(self, rows: Tensor) -> "State":
        """The state of some of the candidates."""
        if rows.all():
            return self
        objective, point, g, v, progress = self
        return State(objective.take(rows), point.take(rows), g[rows], v[rows], progress.take(rows))


@dataclass(frozen=True)
class Minimiser:
    """Newton's method, with the settings that all calls for one problem share.

    Parameters
    ----------
    layout : Layout
    dense : bool
        Factorise Hessians; otherwise conjugate gradients on products with them.
    max_iter, cg_max_iter : int
        Most Newton steps, and most products with the Hessian in each.
    """

    layout: Layout
    dense: bool
    max_iter: int
    cg_max_iter: int

    def __call__(self, objective: InnerObjective, w: Tensor, tol: float) -> Tensor:
        """The minimiser of every fold and candidate, from w: (..., K, n_weights) -> the same."""
        point = objective.at(objective.problem.outputs(w), w)
        g = self.layout.centre(objective.gradient(point))
        zeros = torch.zeros_like(point.value)
        progress = Progress(zeros > 0, zeros, torch.full_like(zeros, torch.nan))
        state = State(objective, point, g, point.a * w - g, progress)
        now: Direction | None = None
        ended, left = torch.empty_like(w), torch.arange(len(w))
        for _ in range(self.max_iter):
            again = None if now is None or now.factor is None else self._again(state, now, now.factor)
            if again is None and w.ndim == 3:
                over = state.progress.done.all(-1)
                ended[left[over]] = state.point.w[over]
                state, left = state.take(~over), left[~over]
            now = again or self._direction(state)
            state = self._advance(state, now, again is None, tol)
            if state.progress.done.all():
                break
            if again is not None and state.progress.last.isnan().any():
                now = None
        ended[left] = state.point.w
        return self.layout.centre(ended)

    def _again(self, state: State, before: Direction, factor: Factor) -> Direction | None:
        """The step with the factor that is there, if it is short enough for every fold."""
        d = -factor.solve(state.g)
        short = step_length(self.layout, d, state.point) <= CONTRACTION * state.progress.last
        return before._replace(d=d) if (short | state.progress.done).all() else None

    def _direction(self, state: State) -> Direction:
        """The step by the Hessian at the point."""
        objective, point, g, v, (done, _, last) = state
        b = objective.concavity(point, v)
        if self.dense:
            factor, b, exact = factorise(self.layout, objective, point, b)
            return Direction(-factor.solve(g), b, exact, torch.zeros_like(point.value), factor)
        forcing = torch.where(last.isnan(), 0.1, last.clamp(1e-8, 0.1))
        near = bool(((last < FAR) | done).all())
        most = self.cg_max_iter if near else min(self.cg_max_iter, CG_FAR)
        right = torch.where(done[..., None], 0.0, -g)
        hessian = Hessian(self.layout, point.f, point.w, point.a, b)
        found = conjugate_gradients(hessian.product, hessian.jacobi, right, forcing, most)
        exact = found.positive
        if not exact.all():
            del found  # memory
            hessian = convex(hessian, objective, exact)
            found = conjugate_gradients(hessian.product, hessian.jacobi, right, forcing, most)
        return Direction(found.x, hessian.b, exact, found.residual, None)

    def _advance(self, state: State, now: Direction, fresh: bool, tol: float) -> State:
        """Go along a direction, as far as that helps."""
        objective, point, g, v, (done, stalled, last) = state
        d = torch.where(done[..., None] | ~now.d.isfinite(), 0.0, now.d)
        share = inside(objective, point, d)
        d = d * share[..., None]
        length = step_length(self.layout, d, point)
        ratio = torch.where(last.isnan(), 0.5, length / last).clamp(max=0.999)
        # A row that crosses a kink is seen only by the step after.
        to_come = (ratio / (1 - ratio)).clamp(min=0.0 if objective.problem.loss.smooth else 1.0)
        close = now.exact & (share == 1) & (length * torch.maximum(to_come, now.error) <= tol)
        if now.b is not None:
            turn = point.a * (point.w + d) - objective.bend(point, now.b, d) - v
            close = close & (vector_norm(turn, dim=-1) <= tol**0.5 * vector_norm(v, dim=-1))
        done = done | close
        if done.all():
            return state._replace(point=point._replace(w=point.w + d), progress=Progress(done, stalled, last))
        t, new = line_search(objective, point, d, (g * d).sum(-1), done, ~(now.exact | done))
        if now.b is not None:
            v = v + t[..., None] * turn
        idle = (point.value - new.value <= ROUNDING * new.size) & (ratio >= 0.5)
        stalled = torch.where(idle, stalled + 1, 0.0)
        done = done | (stalled >= MOST_STALLED) | ((t == 0) & fresh)
        last = torch.where((t >= 1) & (share == 1), length, torch.nan)
        g = self.layout.centre(objective.gradient(new))
        return State(objective, new, g, v, Progress(done, stalled, last))


def factorise(
    layout: Layout, objective: InnerObjective, point: Point, b: Tensor | None
) -> tuple[Factor, Tensor | None, Tensor]:
    """A positive definite factor, the concavity that it has, and where the Hessian needed no changes."""
    hessian = Hessian(layout, point.f, point.w, point.a, b)
    factor = Factor(hessian)
    exact = factor.positive
    if exact.all():
        return factor, b, exact
    hessian = convex(hessian, objective, exact)
    jitter = torch.full_like(point.value, JITTERS[0])
    for level in JITTERS:
        jitter = torch.where(factor.positive, jitter, level)
        factor = Factor(hessian, jitter=jitter)
        if factor.positive.all():
            break
    return factor, hessian.b, exact


def convex(hessian: Hessian, objective: InnerObjective, exact: Tensor) -> Hessian:
    """The Hessian without negative curvature where it was not `exact`."""
    b = hessian.b
    if b is not None:
        b = torch.where(exact[..., None], b, objective.clipped(b))
    return replace(hessian, b=b, convex=True)


def inside(objective: InnerObjective, point: Point, d: Tensor) -> Tensor:
    """The share of a step after which the loss is still finite, (..., K).

    A scale that is best at zero is approached by a quarter a step, which leaves the coefficients the time to follow.
    """
    reach = objective.problem.loss.reach(point.f, objective.problem.outputs(d))
    return torch.ones_like(point.value) if reach is None else (INSIDE * reach).clamp(max=1.0)


def step_length(layout: Layout, d: Tensor, point: Point) -> Tensor:
    """Relative length of a step: of the coefficients, and of the rest in units of the outputs; (..., K)."""
    m = layout.problem.network.n_coefficients
    ratio: Tensor = vector_norm(d[..., :m], dim=-1) / at_least_tiny(vector_norm((point.w + d)[..., :m], dim=-1))
    if m == d.shape[-1]:
        return ratio
    c = layout.problem.train
    size = (weighted_sum(c, (point.f**2).sum(-1)) / c.sum(-1)).sqrt()
    rest = vector_norm(d[..., m:], dim=-1)
    return torch.maximum(ratio, rest / at_least_tiny(torch.maximum(size, rest)))


def line_search(
    objective: InnerObjective, point: Point, d: Tensor, slope: Tensor, accept: Tensor, extend: Tensor
) -> tuple[Tensor, Point]:
    """The first of the steps 1, 1/2, 1/4 ... that lowers the objective of a fold enough, 0 where none does.

    Where `accept` is true the full step is taken as it is: what it changes may be less than the objective's rounding.
    Where `extend` is true, full steps are doubled for as long as that lowers the objective further: a direction from
    a changed Hessian can be far too short.
    """
    df = objective.problem.outputs(d)

    def at(t: Tensor) -> Point:
        return objective.at(point.f + t[..., None, None] * df, point.w + t[..., None] * d)

    t = torch.ones_like(point.value)
    enough = torch.zeros_like(t, dtype=torch.bool)
    for _ in range(50):
        new = at(t)
        enough = accept | (new.value <= point.value + 1e-4 * t * slope + ROUNDING * point.size)
        if enough.all():
            break
        t = torch.where(enough, t, torch.where(new.value.isfinite(), t / 2, t / 4))
    else:
        t = torch.where(enough, t, 0.0)
        new = at(t)
    growing = extend & (t == 1)
    while growing.any():
        longer = torch.where(growing, 2 * t, t)
        further = at(longer)
        growing = growing & (further.value < new.value) & (t < 1e3)
        t = torch.where(growing, longer, t)
        new = further if (t == longer).all() else at(t)
    return t, new
