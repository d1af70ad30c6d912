"""Scans: outer losses along a grid of log alpha, as many points at once as fit."""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper
from .hyperoptim import Objective
from .loop import Journal, OutOfBudget

PATIENCE = 4.0  # units of log alpha below the lowest point after which a scan in parts ends, if not told otherwise
TOL = 1e-2  # relative accuracy of the weights
FLAT = 1e-5  # of the objective: a scan goes on beyond an end only while a step gains more


class Grid(NamedTuple):
    """Where to look."""

    points: list[float]  # descending and equally spaced; clipped to the bounds
    bounds: tuple[float, float]
    exponent: float
    path: Tensor | None  # warm starts for the points, from a scan of another exponent
    patience: float = PATIENCE
    keep: bool = False  # whether the points and their weights are asked for


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
    """Where the objective is lowest along the grid."""

    log_alpha: Tensor  # where it is lowest by interpolation
    curvature: float  # of the objective there; 0 where it is not known
    w: Tensor  # weights at the lowest point, (K, n_weights)
    relief: float  # how far the objective varies
    path: Tensor | None  # weights along the whole grid where they were solved at once, (points, K, n_weights)
    points: Points | None = None  # all that were looked at, where they are asked for


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
    points, bounds, exponent, path, patience, keep = grid
    kept: list[Points] = []
    step = points[0] - points[1]
    todo = torch.tensor(sorted({min(max(x, bounds[0]), bounds[1]) for x in points}, reverse=True), dtype=s2.dtype)
    at_once = response.capacity >= len(todo)
    start = path if path is not None and len(path) == len(todo) else None
    log_alpha, values = s2.new_zeros(0), s2.new_zeros(0)
    whole: Tensor | None = None
    best, beyond = s2.new_zeros(0), 0  # points that were added where the lowest lay at an end: twice as many each time
    while len(todo):
        part, todo = todo[: response.capacity], todo[response.capacity :]
        w, fold_losses = response.look(Hyper(part, torch.full_like(part, exponent)), s2, start, TOL)
        if keep:
            kept.append(Points(part, w))
        losses = fold_losses.mean(-1).nan_to_num(torch.inf, torch.inf)
        new = torch.tensor([objective.value(float(x), None) for x in losses], dtype=s2.dtype)
        gain = float(values.min() - new.min()) if beyond else math.inf
        whole = w if at_once and whole is None else whole
        if not len(values) or float(new.min()) < float(values.min()):
            best = w[int(new.argmin())]
        start = w[-1:]
        order = torch.cat([log_alpha, part]).argsort(descending=True)
        log_alpha, values = torch.cat([log_alpha, part])[order], torch.cat([values, new])[order]
        try:
            journal.scanned(stage, part, losses, new, exponent)
        except OutOfBudget:  # what is known by now is refined once, so that there is a model to keep
            break
        lowest = int(values.argmin())
        if len(todo) and float(log_alpha[lowest] - log_alpha[-1]) >= patience:
            todo = todo[:0]
        if not len(todo) and gain > FLAT:
            beyond = max(1, 2 * beyond)
            todo, start = _beyond(log_alpha, lowest, step * torch.arange(1, beyond + 1), bounds), best[None]
    i = int(values.argmin())
    vertex, curvature = _vertex(log_alpha, values, i)
    return Scan(
        vertex, curvature, best, float(values.max() - values.min()), whole, reduce(Points.join, kept) if kept else None
    )


def _beyond(log_alpha: Tensor, lowest: int, steps: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The next points where the lowest lies at an end that is no bound, descending."""
    if lowest == 0 and float(log_alpha[0]) < bounds[1]:
        return (log_alpha[0] + steps.flip(0)).clamp(*bounds).unique().flip(0)
    if lowest == len(log_alpha) - 1 and float(log_alpha[-1]) > bounds[0]:
        return (log_alpha[-1] - steps).clamp(*bounds).unique().flip(0)
    return log_alpha[:0]


def _vertex(x: Tensor, y: Tensor, i: int) -> tuple[Tensor, float]:
    """Where the interpolating polynomial has its minimum near the lowest point, and its second derivative there.

    A quartic through two neighbours on either side where there are as many, else a parabola through one.
    """
    if not 0 < i < len(x) - 1:
        return x[i], 0.0
    step, spacing = x[i] - x[i - 1], x[max(i - 2, 0) : i + 3].diff()
    if len(spacing) == 4 and bool(((spacing - step).abs() < 1e-6).all()):
        shift, curvature = _quartic_minimum(*y[i - 2 : i + 3].tolist())
        if abs(shift) <= 1 and curvature > 0:
            return x[i] + shift * step, curvature / float(step) ** 2
    left, right = (y[i] - y[i - 1]) / step, (y[i + 1] - y[i]) / (x[i + 1] - x[i])
    curvature = float(2 * (right - left) / (x[i + 1] - x[i - 1]))
    if not math.isfinite(curvature) or curvature <= 0:
        return x[i], 0.0
    return (x[i] - (left + curvature * step / 2) / curvature).clamp(x[i + 1], x[i - 1]), curvature


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
