"""Arrays, labels and splits of a linear model -> a Problem, and tuned weights back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, from_numpy

from ..boundary import (
    Granularity,
    Split,
    make_decays,
    make_design,
    pad_columns,
    row_sums,
    to_numpy,
    to_tensor,
    with_column,
)
from ..core.networks import LinearNetwork
from ..core.problem import Problem
from .base import Adapter, Array, Solution

# Distance of a column's mean from zero, in its standard deviations, beyond which the mean is taken from the column: the
# outputs would lose as many digits.
FAR = 1e3


@dataclass(frozen=True)
class LinearEncoding:
    """A problem, and the way back from its weights.

    Parameters
    ----------
    problem : Problem
    column : float or None
        The value of the constant column that stands for a penalised intercept.
    missing : dict of int to list
        For each fold, classes without training rows; their validation rows do not count.
    centre : array of shape (p,) or None
        What was taken from the columns; the intercept makes up for it.
    """

    problem: Problem
    column: float | None
    missing: dict[int, list[Any]]
    centre: Array | None = None

    def solution(
        self,
        w: Tensor,
        n_iter: int = 0,
        columns: NDArray[np.int64] | None = None,
        losses: Sequence[float] = (),
    ) -> Solution:
        """Flat weights of one fold, (n_weights,), as arrays; of some of the columns where a fold has not all."""
        coefficients, intercepts, constants = map(to_numpy, self.problem.network.split(w))
        if self.column is not None:
            intercepts = self.column * coefficients[-1]
            coefficients = coefficients[:-1]
        if self.centre is not None:
            intercepts = intercepts - self.centre @ coefficients
        if columns is not None:
            coefficients = coefficients[columns]
        return Solution(coefficients, intercepts, constants, n_iter)


def encode_linear(
    adapter: Adapter,
    estimator: Any,
    x: Any,
    y: Any,
    splits: Sequence[Split] | None = None,
    *,
    granularity: Granularity,
    sample_weight: Array | Sequence[Array] | None = None,
    scoring: str | None = None,
    classes: NDArray[Any] | None = None,
) -> LinearEncoding:
    """The bilevel problem of a linear estimator.

    Parameters
    ----------
    adapter : Adapter
        Of the estimator.
    estimator : estimator
        Its settings.
    x : matrix of shape (n, p) that all folds share, or list of K
        As `adapter.read` returned it.
    y : array of shape (n,) or (n, T) that all folds share, or list of K
        As `adapter.read` returned it.
    splits : sequence of K Split, or None
        None: one fold that trains on all rows, for the final fit.
    granularity : Granularity
    sample_weight : array of shape (n,) that all folds share, or list of K, optional
        Weighs inner and outer loss.
    scoring : str, optional
        The score whose differentiable twin is the outer loss.
    classes : array, optional
        Labels, of a classifier.

    Raises
    ------
    ValueError
        If a fold has no weight on its training or validation rows, or trains on a single class.
    """
    rows = encode_rows(adapter, estimator, x, y, splits, sample_weight, classes)
    matrices = rows.matrices
    column = adapter.column(estimator)
    if column is not None:
        matrices = [with_column(m, column) for m in matrices]
    intercept = bool(getattr(estimator, "fit_intercept", True)) and column is None
    centre = _far(matrices[0]) if intercept else None
    if centre is not None:
        matrices = [m - centre for m in matrices]
    design = make_design(matrices if isinstance(x, list) else matrices[0])
    n_outputs = rows.targets.shape[-1]
    loss = adapter.loss(estimator, n_outputs)
    network = LinearNetwork(design.n_columns, n_outputs, intercept, loss.n_constants)
    n_free = network.n_weights - network.n_coefficients
    problem = Problem(
        design=design,
        y=to_tensor(rows.targets),
        train=from_numpy(rows.train),
        validation=from_numpy(rows.validation),
        network=network,
        loss=loss,
        outer_loss=adapter.outer(estimator, n_outputs, scoring),
        decays=make_decays(granularity, design.n_columns - (column is not None), n_outputs, n_free, column is not None),
        counts=rows.counts,
    )
    return LinearEncoding(problem, column, rows.missing, centre)


def _far(x: Any) -> Array | None:
    """The means of columns that are far from zero, zeros for the others; None where no column is, or x is sparse."""
    if sparse.issparse(x):
        return None
    mean = x.mean(axis=0)
    away = np.abs(mean) > FAR * x.std(axis=0)
    return np.where(away, mean, 0.0) if away.any() else None


class EncodedRows(NamedTuple):
    """Rows of all folds: what every kind of network needs of them."""

    matrices: list[Any]  # one that folds share, or K of the same width
    targets: Array  # (n, T), or (K, n, T)
    train: Array  # (K, n)
    validation: Array  # (K, n)
    counts: Tensor | None  # sample weights of held-out rows, (n,)
    missing: dict[int, list[Any]]


def encode_rows(
    adapter: Adapter,
    estimator: Any,
    x: Any,
    y: Any,
    splits: Sequence[Split] | None,
    sample_weight: Array | Sequence[Array] | None,
    classes: NDArray[Any] | None,
) -> EncodedRows:
    """Targets and row weights of every fold; the arguments are those of `encode_linear`."""
    matrices = pad_columns(x if isinstance(x, list) else [x])
    n_rows = matrices[0].shape[0]
    everything = np.arange(n_rows)
    splits = [Split(everything, everything)] if splits is None else splits
    labels = y if isinstance(y, list) else [y] * len(splits)
    weights = sample_weight if isinstance(sample_weight, list) else [sample_weight] * len(splits)

    train, validation, values, missing = [], [], [], {}
    for k, (split, y_k, weight) in enumerate(zip(splits, labels, weights, strict=True)):
        targets = adapter.targets(estimator, y_k, classes, split.train, weight)
        train.append(row_sums(n_rows, split.train, targets.rows))
        values.append(targets.values)
        counted = np.ones(n_rows) if weight is None else weight.copy()
        if classes is not None and y_k.ndim == 1:
            absent = _absent(y_k, train[-1], classes, k)
            if len(absent):
                missing[k] = absent.tolist()
                counted[np.isin(y_k, absent)] = 0.0
        validation.append(_normalised(row_sums(n_rows, split.validation, counted[split.validation]), k))
        if not train[-1].any():
            raise ValueError(f"sample_weight is zero on every training row of fold {k} of cv.")

    same = all(v is values[0] or np.array_equal(v, values[0]) for v in values)
    targets = values[0] if same else np.stack(values)
    held_out = np.stack(validation)
    counts = None
    if sample_weight is not None:
        counts = to_tensor(np.where(held_out > 0, np.stack(weights), 0.0).max(axis=0))
    return EncodedRows(matrices, targets, np.stack(train), held_out, counts, missing)


def _absent(y: NDArray[Any], weights: Array, classes: NDArray[Any], k: int) -> NDArray[Any]:
    present = np.isin(classes, y[weights > 0])
    if present.sum() < 2:
        raise ValueError(
            f"The training rows of fold {k} of cv must hold at least 2 classes with positive sample_weight and "
            f"class_weight, got {classes[present].tolist()}."
        )
    return classes[~present]


def _normalised(weights: Array, k: int) -> Array:
    total = weights.sum()
    if total <= 0:
        raise ValueError(
            f"Fold {k} of cv must have a validation row with a positive sample_weight and a class that its training "
            "rows hold."
        )
    return weights / total
