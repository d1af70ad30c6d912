"""Moments of the folds' training and validation rows: a squared loss of a linear network needs nothing else.

Rows fall into cells that train and validate the same folds (K cells for K folds). Each cell's second moments are formed
once, about the overall mean, and added to the folds that they belong to: one pass over X, nothing is subtracted.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .designs import DenseDesign
from .problem import Problem

MAX_CELLS = 64
MAX_FOLDS = 30
AT_ONCE = 8  # cells whose moments are held at once
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


class Cell(NamedTuple):
    """Rows that the same folds train on and validate on, with weights in the same proportions."""

    rows: Tensor  # row numbers, ascending
    weights: Tensor  # of the rows
    train: Tensor  # (K,), what the weights are multiplied by in each fold's training loss
    validation: Tensor  # (K,), and in its validation loss


class Sums(NamedTuple):
    """Second moments of z = (x_i - shift, y_i - shift, 1) over all rows that some fold uses, kept for the final fit."""

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
        sums = ratio * self.total[None]
        return _centred(self, sums, torch.zeros_like(sums), problem.network.intercept)


def fold_moments(problem: Problem) -> tuple[FoldMoments, Sums] | None:
    """The moments, and sums for the final fit; None where rows fall into too many cells, or X is sparse or not shared."""
    design = problem.design
    if not isinstance(design, DenseDesign) or not design.shared or problem.y.ndim == 3:
        return None
    cells = find_cells(problem.train, problem.validation)
    if cells is None:
        return None
    x, y, intercept = design.x, problem.y, problem.network.intercept
    columns = varying_columns(x, intercept)
    size = len(columns) + y.shape[-1] + 1
    shift = torch.cat([x.mean(0)[columns], y.mean(0)]) if intercept else x.new_zeros(size - 1)
    folds = x.new_zeros(2 * problem.n_folds, size, size)
    total, weights = x.new_zeros(size, size), x.new_zeros(len(x))
    for some in (cells[i : i + AT_ONCE] for i in range(0, len(cells), AT_ONCE)):
        own = torch.stack([second_moments(x, y, columns, shift, cell) for cell in some])
        factors = torch.stack([torch.cat([cell.train, cell.validation]) for cell in some])
        folds.flatten(1).addmm_(factors.mT, own.flatten(1))
        total += own.sum(0)
    for cell in cells:
        weights[cell.rows] = cell.weights
    sums = Sums(x, y, weights, columns, shift, total)
    return _centred(sums, *folds.split(problem.n_folds), intercept), sums


def _centred(sums: Sums, train: Tensor, held: Tensor, intercept: bool) -> FoldMoments:
    """Sums of every fold about the overall mean -> moments about the means of its training rows."""
    p, total = len(sums.columns), train[:, -1, -1].clone()
    mean = train[:, -1, :-1] / total[:, None] * intercept
    train, held = (_about(mean, moments) for moments in (train, held))
    x, y = (mean + sums.shift).split([p, mean.shape[-1] - p], -1)
    square = held[:, p:, p:].diagonal(dim1=-2, dim2=-1).sum(-1)
    parts = (train[:, :p, :p], train[:, p:, :p], held[:, :p, :p], held[:, p:, :p])
    return FoldMoments(sums.columns, total, x, y, *(part.contiguous() for part in parts), square)


def varying_columns(x: Tensor, intercept: bool) -> Tensor:
    """Columns that an intercept does not stand for already; without one, that are not all zero."""
    value = x[0] if intercept else torch.zeros_like(x[0])
    varies = (x[:ROWS] != value).any(0)
    doubtful = (~varies).nonzero()[:, 0]
    varies[doubtful] = (x[:, doubtful] != value[doubtful]).any(0)
    return varies.nonzero()[:, 0]


def find_cells(train: Tensor, validation: Tensor) -> list[Cell] | None:
    """The cells of row weights (K, n), or None where there are too many."""
    n_folds = len(train)
    if n_folds > MAX_FOLDS:
        return None
    uses = torch.cat([train, validation])
    code = ((uses > 0).to(torch.int64) << torch.arange(2 * n_folds)[:, None]).sum(0)
    patterns = code.unique()
    cells = []
    for pattern in patterns[patterns > 0].tolist():
        if len(cells) == MAX_CELLS:
            return None
        rows = (code == pattern).nonzero()[:, 0]
        own = uses[:, rows]
        first = int((own[:, 0] > 0).nonzero()[0, 0])
        weights, factors = own[first], own[:, 0] / own[first, 0]
        if bool(((own - factors[:, None] * weights).abs() > SAME * own).any()):
            return None
        cells.append(Cell(rows, weights, factors[:n_folds], factors[n_folds:]))
    return cells


def second_moments(x: Tensor, y: Tensor, columns: Tensor, shift: Tensor, cell: Cell) -> Tensor:
    """Weighted sums of z z' over the rows z = (x_i - shift, y_i - shift, 1) of a cell, x restricted to `columns`."""
    (p, size), equal = (len(columns), len(shift) + 1), bool((cell.weights == 1).all())
    total = x.new_zeros(size, size)
    parts = [slice(start, min(start + COLUMNS, size)) for start in range(0, size, COLUMNS)]
    buffer = x.new_ones(ROWS, size)
    for rows, weights in zip(cell.rows.split(ROWS), cell.weights.split(ROWS), strict=True):
        z = buffer[: len(rows)]
        first, last = int(rows[0]), int(rows[-1]) + 1
        where = slice(first, last) if last - first == len(rows) else rows
        z[:, :p] = x[where] if p == x.shape[1] else x[where].index_select(1, columns)
        z[:, p:-1] = y[where]
        z[:, :-1] -= shift
        for part in parts:  # symmetric: the blocks on and above the diagonal are enough
            left = z[:, part] if equal else z[:, part] * weights[:, None]
            total[part, part.start :].addmm_(left.mT, z[:, part.start :])
    return total.triu() + total.triu(1).mT


def _about(mean: Tensor, moments: Tensor) -> Tensor:
    """Second moments about another origin, without the row and column of ones: (K, m + 1, m + 1) -> (K, m, m)."""
    first, total = moments[:, -1, :-1], moments[:, -1, -1:]
    left, right = torch.stack([-first, mean], -1), torch.stack([mean, total * mean - first], -2)
    return moments[:, :-1, :-1].baddbmm(left, right)
