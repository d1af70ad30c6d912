"""The range of log alpha in which the curve of one decay for all weights can have a minimum.

Of the training loss about the constant model, with h_i the curvature of row i's loss there, the coefficients see the
matrix G = sum_i c_i h_i (x_i - mean)(x_i - mean)'. Equal decays shrink each of its eigendirections by a factor
lambda / (lambda + alpha): far above the largest eigenvalue nothing is left of the model, far below the smallest one
nothing is shrunk, and between them no feature of the curve is narrower than about two units of log alpha. Columns in
different units make this range wide, with a valley wherever a group of columns sets in.

The smallest eigenvalue is at least min(d) min(mu), with d the columns' curvatures and mu the eigenvalues of their
correlations. This bound does not lose small eigenvalues beside large ones, as those of G itself would be.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .designs import DenseDesign
from .problem import Problem

# Log alpha beyond the largest and the smallest eigenvalue. A curve that falls at an end is followed further.
ABOVE, BELOW = 5.0, 7.0
# How far above the largest eigenvalue alpha may move at all.
FURTHEST = 30.0
# Log alpha above its least value from which weights that are solved for by steps are accurate.
MARGIN = 14.0
# Eigenvalues of correlations below this share of the largest are rounding errors.
RANK = 1e-13
# Rows that are enough to see how columns are correlated.
MOST_ROWS = 1024
# Largest matrix of correlations that is decomposed; beyond, their smallest eigenvalue is an assumption.
LARGEST, ASSUMED = 1024, 1e-4


class AlphaRange(NamedTuple):
    """Where the curve of the global log alpha can have minima."""

    high: float
    low: float
    least: float  # below it, what alpha adds to a matrix is lost in its rounding

    def points(self, step: float) -> list[float]:
        """Log alphas a step apart, descending."""
        n = math.ceil((self.high - self.low) / step)
        return [self.high - i * step for i in range(n + 1)]

    @property
    def bounds(self) -> tuple[float, float]:
        """Bounds of log alpha: beyond them nothing changes but for rounding."""
        return self.least, self.high + FURTHEST

    @property
    def rough_bounds(self) -> tuple[float, float]:
        """Those of what is solved for by steps: the family, and losses whose curvature vanishes as weights grow."""
        return min(self.low, self.least + MARGIN), self.high + FURTHEST


def alpha_range(problem: Problem) -> AlphaRange:
    """The range in which the global alpha of a problem is looked for."""
    c = problem.row_curvatures()
    d = problem.column_squares(c).amax(0)
    seen = d > 0
    if not bool(seen.any()):
        return AlphaRange(ABOVE, -BELOW, -BELOW)
    most, least = math.log(d.max()), math.log(d[seen].min())
    weak, strong = _correlations(problem, c) or (ASSUMED, min(float(d.sum() / d.max()), float(problem.design.n_rows)))
    rounding = least + math.log(RANK * strong)
    return AlphaRange(most + math.log(strong) + ABOVE, least + math.log(weak) - BELOW, rounding - BELOW)


def _correlations(problem: Problem, c: Tensor) -> tuple[float, float] | None:
    """The smallest eigenvalue of the columns' correlations that is not a rounding error, and the largest.

    Of one fold's training rows, or some of them where there are many. None where that would take too long.
    """
    design, rows = problem.design, (c[0] > 0).nonzero()[:, 0]
    rows = rows[:: max(1, len(rows) // max(MOST_ROWS, 2 * design.n_columns))]
    if min(len(rows), design.n_columns) > LARGEST or not isinstance(design, DenseDesign):
        return None
    part = DenseDesign((design.x if design.shared else design.x[0])[rows])
    weights, x = c[:1, rows], part.x
    squares = part.centred_squares(weights)[0] if problem.network.intercept else part.squares(weights)[0]
    if not bool((squares > 0).any()):  # rare columns, which these rows miss
        return None
    if problem.network.intercept:
        x = x - x.mean(0)
        x = x - weights[0] @ x / weights.sum()
    z = weights[0, :, None].sqrt() * x[:, squares > 0] / squares[squares > 0].sqrt()
    mu = torch.linalg.eigvalsh(z.mT @ z if z.shape[0] > z.shape[1] else z @ z.mT)
    return float(mu[mu > RANK * mu[-1]][0]), float(mu[-1])
