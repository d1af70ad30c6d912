"""Scans: outer losses along a grid of log alpha, as many points at once as fit, and the valleys of their curve."""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper
from .hyperoptim import Objective
from .loop import Journal, OutOfBudget

TOL = 1e-2  # relative accuracy of the weights
KINKED_TOL = 1e-4  # where the loss has kinks: Newton's steps are short long before they have crossed them all
ROUGH = 2e-3  # what that leaves of the objective as an error, relative where it is not a logarithm
# Units of log alpha without a finite loss after which a scan in parts ends: weaker decays have no solution.
LOST = 4.5
# A scan goes on beyond an end only while a step gains more than this, of a logarithm and of a loss without a unit: that
# may go to zero, and is worth its difference from zero.
FLAT, FLAT_LOSS = 1e-5, 3e-7


class Grid(NamedTuple):
    """Where to look."""

    points: list[float]  # descending and equally spaced; clipped to the bounds
    bounds: tuple[float, float]
    exponent: float
    path: Tensor | None = None  # warm starts for the points, from a scan of another exponent
    patience: float = math.inf  # units of log alpha below the lowest point after which a scan in parts ends
    keep: bool = False  # whether all points and their weights are asked for
    tol: float = TOL


class Valley(NamedTuple):
    """A local minimum of the objective along the grid."""

    point: float  # the lowest log alpha that was solved
    value: float  # the objective there
    w: Tensor  # weights there, (K, n_weights)
    log_alpha: Tensor  # where the minimum lies by interpolation, ()
    curvature: float  # second derivative of the objective there; 0 where it is not known
    error: float  # of the value
    reach: float  # how far below the value the objective may come, as far as the points tell


class Points(NamedTuple):
    """Points of a scan and their weights, which may be rough."""

    log_alpha: Tensor  # (P,)
    w: Tensor  # (P, K, n_weights)

    def join(self, other: "Points") -> "Points":
        """Those of both."""
        return Points(torch.cat([self.log_alpha, other.log_alpha]), torch.cat([self.w, other.w]))

    def take(self, which: Tensor) -> "Points":
        """Some of them."""
        return Points(self.log_alpha[which], self.w[which])


class Scan(NamedTuple):
    """What the objective is like along the grid."""

    valleys: list[Valley]  # ascending in their lowest value
    relief: float  # how far the objective varies
    path: Tensor | None  # weights along the whole grid where they were solved at once, (points, K, n_weights)
    points: Points | None = None  # all that were looked at, where they are asked for

    @property
    def lowest(self) -> Valley:
        """The valley with the lowest point."""
        return self.valleys[0]


def scan(
    response: BestResponse,
    objective: Objective,
    s2: Tensor,
    journal: Journal,
    stage: str,
    grid: Grid,
) -> Scan:
    """Solve along the grid, then go on while the lowest point lies at an end.

    Where there is no path to start from, each part starts from the weights of the part before it.
    """
    points, bounds, exponent, path, patience, keep, tol = grid
    asked: list[Points] = []
    step, flat = points[0] - points[1], FLAT if objective.log_scale else FLAT_LOSS
    todo = torch.tensor(sorted({min(max(x, bounds[0]), bounds[1]) for x in points}, reverse=True), dtype=s2.dtype)
    at_once = response.capacity >= len(todo)
    start = path if path is not None and len(path) == len(todo) else None
    log_alpha, values, weights = s2.new_zeros(0), s2.new_zeros(0), list[Tensor | None]()
    whole: Tensor | None = None
    beyond, before = 0, math.inf  # points added where the lowest lay at an end, twice as many each time; what it was
    while len(todo):
        part, todo = todo[: response.capacity], todo[response.capacity :]
        w, fold_losses = response.look(Hyper(part, torch.full_like(part, exponent)), s2, start, tol)
        if keep:
            asked.append(Points(part, w))
        losses = fold_losses.mean(-1).nan_to_num(torch.inf, torch.inf)
        new = torch.tensor([objective.value(float(x), None) for x in losses], dtype=s2.dtype)
        whole = w if at_once and whole is None else whole
        start = w[-1:]
        order = torch.cat([log_alpha, part]).argsort(descending=True)
        log_alpha, values = torch.cat([log_alpha, part])[order], torch.cat([values, new])[order]
        weights = [[*weights, *w][i] for i in order]
        if beyond:
            kept = _falling(values, int((log_alpha > part.max()).sum()), len(part), flat)
            if len(kept) < len(values):
                todo, before = todo[:0], -math.inf
            log_alpha, values, weights = log_alpha[kept], values[kept], [weights[i] for i in kept]
        lowest = int(values.argmin())
        # The last point may turn out to be a minimum yet, and the others no more.
        low = {*_minima(values), len(values) - 1}
        weights = [w if i in low else None for i, w in enumerate(weights)]
        try:
            journal.scanned(stage, part, losses, new, exponent)
        except OutOfBudget:  # what is known by now is refined once, so that there is a model to keep
            break
        finite = log_alpha[values.isfinite()]
        lost = len(finite) and float(finite[-1] - log_alpha[-1]) >= LOST
        if len(todo) and (lost or float(log_alpha[lowest] - log_alpha[-1]) >= patience):
            todo = todo[:0]
        if not len(todo) and before - float(values[lowest]) > flat:
            beyond, before = max(1, 2 * beyond), float(values[lowest])
            todo = _beyond(log_alpha, lowest, step * torch.arange(1, beyond + 1), bounds)
            start = _known(weights[lowest])[None]
    found = [_valley(log_alpha, values, i, _known(weights[i]), objective.log_scale) for i in _minima(values)]
    found.sort(key=lambda valley: valley.value)
    every = reduce(Points.join, asked) if asked else None
    return Scan(found, float(values.max() - values.min()), whole, every)


def _falling(y: Tensor, first: int, n: int, flat: float) -> list[int]:
    """The points but those beyond where a curve that falls towards an end has become flat.

    The n points from `first` are those that were added there: it is the upper end if `first` is 0, else the lower one.
    """
    every = list(range(len(y)))
    if first == 0:
        gains = (y[1 : n + 1] - y[:n]).flip(0) if len(y) > n else y.new_zeros(0)
    else:
        gains = y[first - 1 : first - 1 + n] - y[first : first + n]
    flats = (gains <= flat).nonzero()[:, 0].tolist()
    if not flats:
        return every
    return every[n - 1 - flats[0] :] if first == 0 else every[: first + flats[0] + 1]


def _minima(y: Tensor) -> list[int]:
    """Places that are no higher than their neighbours; ends have one, and of equal neighbours the first counts."""
    before = torch.cat([y.new_full((1,), torch.inf), y[:-1]])
    after = torch.cat([y[1:], y.new_full((1,), torch.inf)])
    found: list[int] = ((y < before) & (y <= after)).nonzero()[:, 0].tolist()
    return found or [0]


def _known(w: Tensor | None) -> Tensor:
    """Weights of a point that is a minimum so far."""
    assert w is not None
    return w


def _valley(x: Tensor, y: Tensor, i: int, w: Tensor, log_scale: bool) -> Valley:
    """The valley whose lowest point is the i-th."""
    log_alpha, curvature, depth = _vertex(x, y, i)
    value = float(y[i])
    error = ROUGH * (1.0 if log_scale else abs(value))
    return Valley(float(x[i]), value, w, log_alpha, curvature, error, 2 * depth + error)


def _beyond(log_alpha: Tensor, lowest: int, steps: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The next points where the lowest lies at an end that is no bound, the nearest first."""
    if lowest == 0 and float(log_alpha[0]) < bounds[1]:
        return (log_alpha[0] + steps).clamp(*bounds).unique()
    if lowest == len(log_alpha) - 1 and float(log_alpha[-1]) > bounds[0]:
        return (log_alpha[-1] - steps).clamp(*bounds).unique().flip(0)
    return log_alpha[:0]


def _vertex(x: Tensor, y: Tensor, i: int) -> tuple[Tensor, float, float]:
    """Where the interpolating polynomial has its minimum near the i-th point, its second derivative, and its depth.

    A quartic through two neighbours on either side where there are as many, else a parabola through one. The depth is
    how far the parabola goes below the point; at an end, beyond which changes fade, that of the last step.
    """
    if not 0 < i < len(x) - 1:
        return x[i], 0.0, float((y[i] - y[abs(i - 1)]).abs()) if len(x) > 1 else 0.0
    step, spacing = x[i] - x[i - 1], x[max(i - 2, 0) : i + 3].diff()
    left, right = (y[i] - y[i - 1]) / step, (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    curvature = float(2 * (right - left) / (x[i + 1] - x[i - 1]))
    if not math.isfinite(curvature) or curvature <= 0:
        return x[i], 0.0, 0.0
    shift = float((left + curvature * step / 2) / curvature)
    depth = curvature * shift**2 / 2
    if len(spacing) == 4 and bool(((spacing - step).abs() < 1e-6).all()):
        steps, fourth = _quartic_minimum(*y[i - 2 : i + 3].tolist())
        if abs(steps) <= 1 and fourth > 0:
            return x[i] + steps * step, fourth / float(step) ** 2, depth
    return (x[i] - shift).clamp(x[i + 1], x[i - 1]), curvature, depth


def _quartic_minimum(a: float, b: float, c: float, d: float, e: float) -> tuple[float, float]:
    """Of the quartic with these values at -2, -1, 0, 1, 2: Newton's method from 0; the place and second derivative."""
    first, second = (a - 8 * b + 8 * d - e) / 12, (-a + 16 * b - 30 * c + 16 * d - e) / 12
    third, fourth = (-a + 2 * b - 2 * d + e) / 2, a - 4 * b + 6 * c - 4 * d + e
    t, curvature = 0.0, second
    for _ in range(5):
        if not curvature > 0:
            return math.inf, math.nan
        t -= (first + t * (second + t * (third / 2 + t * fourth / 6))) / curvature
        curvature = second + t * (third + t * fourth / 2)
    return t, curvature
