"""Moments of the folds' training and validation rows: a squared loss of a linear network needs nothing else.

Rows fall into cells that train and validate the same folds (K cells for K folds). Each cell's second moments are formed
once, about a common origin near the mean, and added up for the folds that it belongs to: one pass over X, nothing is
subtracted.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .designs import DenseDesign
from .problem import Problem

MAX_CELLS = 32
MAX_FOLDS = 30
SAME = 1e-12  # relative difference of weights that are taken as equal
ROWS, COLUMNS = 512, 128  # of the blocks in which second moments are summed


class FoldMoments(NamedTuple):
    """Moments of every fold about the means of its training rows (about zero without an intercept).

    With V the coefficients of a fold (T, p), the training loss is sum V * (V gram / 2 - rhs) and the validation loss
    sum V * (V held_gram / 2 - held_rhs) + held_square / 2. Columns that are constant are left out.
    """

    columns: Tensor  # (p,), the columns of X that vary
    total: Tensor  # (K,), sum of the training rows' weights
    x: Tensor  # (K, p), means of the training rows; zeros without an intercept
    y: Tensor  # (K, T)
    gram: Tensor  # (K, p, p)
    rhs: Tensor  # (K, T, p)
    held_gram: Tensor  # (K, p, p)
    held_rhs: Tensor  # (K, T, p)
    held_square: Tensor  # (K,)

    def take(self, which: Tensor) -> "FoldMoments":
        """Some of the folds."""
        return FoldMoments(self.columns, *(t[which] for t in self[1:]))


class Sums(NamedTuple):
    """Sums of z z' over all rows that some fold uses, z = (x_i - shift, y_i - shift, 1), for the final fit."""

    x: Tensor  # the matrix and the targets that they are of
    y: Tensor
    weights: Tensor  # (n,), of the rows
    columns: Tensor  # (p,), the columns of x that vary
    shift: Tensor  # (p + T,)
    total: Tensor  # (p + T + 1, p + T + 1)

    def all_rows(self, problem: Problem) -> FoldMoments | None:
        """The moments of a problem of one fold that trains on all these rows; None if these sums do not give them."""
        design, train = problem.design, problem.train
        if not isinstance(design, DenseDesign) or design.x.data_ptr() != self.x.data_ptr() or len(train) > 1:
            return None
        ratio = float(train.sum() / self.weights.sum())
        same_rows = bool(((train[0] - ratio * self.weights).abs() <= SAME * train[0]).all())
        if design.x.shape != self.x.shape or not same_rows or not torch.equal(problem.y, self.y):
            return None
        return _centred(self, [(ratio * self.total, torch.zeros_like(self.total))], problem.network.intercept)


class Cell(NamedTuple):
    """Rows that the same folds train on and validate on, with weights in the same proportions."""

    rows: Tensor  # row numbers, ascending
    weights: Tensor  # of the rows
    train: Tensor  # (K,), what the weights are multiplied by in each fold's training loss
    validation: Tensor  # (K,), and in its validation loss


def fold_moments(problem: Problem) -> tuple[FoldMoments, Sums] | None:
    """The moments and the sums; None where rows fall into too many cells, or X is sparse or not shared by the folds."""
    design = problem.design
    if not isinstance(design, DenseDesign) or not design.shared or problem.y.ndim == 3:
        return None
    cells = find_cells(problem.train, problem.validation)
    if cells is None:
        return None
    x, y, intercept = design.x, problem.y, problem.network.intercept
    columns = varying_columns(x, intercept)
    size = len(columns) + y.shape[-1] + 1
    # Any origin near the means will do: it is taken out again.
    shift = torch.cat([x[:ROWS].mean(0)[columns], y[:ROWS].mean(0)]) if intercept else x.new_zeros(size - 1)
    own, weights = x.new_empty(len(cells), size, size), x.new_zeros(len(x))
    for cell, total in zip(cells, own, strict=True):
        second_moments(x, y, columns, shift, cell, total)
        weights[cell.rows] = cell.weights
    sums = Sums(x, y, weights, columns, shift, own.sum(0))
    train, held = (torch.stack(uses, 1).tolist() for uses in zip(*(cell[2:] for cell in cells), strict=True))
    folds = [(_combined(own, a), _combined(own, b)) for a, b in zip(train, held, strict=True)]
    return _centred(sums, folds, intercept), sums


def find_cells(train: Tensor, validation: Tensor) -> list[Cell] | None:
    """The cells of row weights (K, n), or None where there are too many."""
    n_folds = len(train)
    if n_folds > MAX_FOLDS:
        return None
    uses = torch.cat([train, validation])
    code = ((uses > 0).to(torch.int64) << torch.arange(2 * n_folds)[:, None]).sum(0)
    patterns = code.unique()
    patterns = patterns[patterns > 0].tolist()
    cells = []
    for pattern in patterns if len(patterns) <= MAX_CELLS else []:
        rows = (code == pattern).nonzero()[:, 0]
        own = uses[:, rows]
        first = int((own[:, 0] > 0).nonzero()[0, 0])
        weights, factors = own[first], own[:, 0] / own[first, 0]
        if bool(((own - factors[:, None] * weights).abs() > SAME * own).any()):
            return None
        cells.append(Cell(rows, weights, factors[:n_folds], factors[n_folds:]))
    return cells or None


def varying_columns(x: Tensor, intercept: bool) -> Tensor:
    """Columns that an intercept does not stand for already; without one, that are not all zero."""
    value = x[0] if intercept else torch.zeros_like(x[0])
    varies = (x[:ROWS] != value).any(0)
    doubtful = (~varies).nonzero()[:, 0]
    varies[doubtful] = (x[:, doubtful] != value[doubtful]).any(0)
    return varies.nonzero()[:, 0]


def second_moments(x: Tensor, y: Tensor, columns: Tensor, shift: Tensor, cell: Cell, out: Tensor) -> None:
    """Weighted sums of z z' over the rows z = (x_i - shift, y_i - shift, 1) of a cell, x restricted to `columns`."""
    (p, size), equal = (len(columns), len(out)), bool((cell.weights == 1).all())
    parts = [slice(start, min(start + COLUMNS, size)) for start in range(0, size, COLUMNS)]
    z = x.new_ones(min(ROWS, len(cell.rows)), size)
    out.zero_()
    for rows, weights in zip(cell.rows.split(ROWS), cell.weights.split(ROWS), strict=True):
        z = z[: len(rows)]
        first, last = int(rows[0]), int(rows[-1]) + 1
        where = slice(first, last) if last - first == len(rows) else rows
        block = x[where] if p == x.shape[1] else x[where].index_select(1, columns)
        torch.sub(block, shift[:p], out=z[:, :p])
        torch.sub(y[where], shift[p:], out=z[:, p:-1])
        for part in parts:  # symmetric: the blocks on and above the diagonal are enough
            left = z[:, part] if equal else z[:, part] * weights[:, None]
            out[part, part.start :].addmm_(left.mT, z[:, part.start :])
    for part in parts:
        out[part.stop :, part] = out[part, part.stop :].mT


def _combined(own: Tensor, factors: list[float]) -> Tensor:
    total = torch.zeros_like(own[0])
    for factor, moments in zip(factors, own, strict=True):
        if factor:
            total.add_(moments, alpha=factor)
    return total


def _centred(sums: Sums, folds: list[tuple[Tensor, Tensor]], intercept: bool) -> FoldMoments:
    """Sums of every fold's training and validation rows -> moments about the means of the training rows."""
    p, size, k = len(sums.columns), len(sums.total), len(folds)
    new, n_outputs = sums.total.new_empty, size - 1 - p
    grams, products = (new(k, p, p), new(k, p, p)), (new(k, n_outputs, p), new(k, n_outputs, p))
    total, means, square = new(k), new(k, size - 1), new(k)
    for i, both in enumerate(folds):
        total[i] = both[0][-1, -1]
        mean = both[0][-1, :-1] / total[i] * intercept
        means[i] = mean + sums.shift
        for moments, gram, product in zip(both, grams, products, strict=True):
            first = moments[-1, :-1]
            left, right = torch.stack([-first, mean], -1), torch.stack([mean, moments[-1, -1] * mean - first])
            torch.addmm(moments[:p, :p], left[:p], right[:, :p], out=gram[i])
            torch.addmm(moments[p:-1, :p], left[p:], right[:, :p], out=product[i])
        square[i] = torch.addmm(both[1][p:-1, p:-1], left[p:], right[:, p:]).trace()
    x, y = means[:, :p], means[:, p:]
    return FoldMoments(sums.columns, total, x, y, grams[0], products[0], grams[1], products[1], square)
