"""The only door between arrays, frames, labels and weights on one side and tensors on the other.

Shapes: n rows, p features, T outputs, K folds. What comes in is numpy or scipy; what goes out is float64 tensors, and
back again. Row weights are (K, n): a fold sees its training rows through them, and no rows are copied.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import cache
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import _check_sample_weight, _num_samples
from threadpoolctl import ThreadpoolController
from torch import Tensor

from .core.decays import Decays
from .core.designs import DenseDesign, Design, SparseDesign

# Products below this number of multiplications run on one thread: handing them out costs more than it gains.
SMALL_WORK = 2e7

# Sparse matrices with no more entries than this in all, zeros included, are handled faster as dense ones.
SMALL_MATRIX = 2**21

# Whether this thread is in a session.
_inside: ContextVar[bool] = ContextVar("inside", default=False)

# Sizes between which products of two squares, and what divides them, keep within the range of float64.
SIZES = (1e-70, 1e70)

# Entries whose sizes are looked at in one go.
BLOCK = 2**20

GRANULARITIES = ("global", "output", "feature", "weight")


class Split(NamedTuple):
    """The rows that a fold trains on, and those that it is judged by."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]


class _Sessions:
    """Those of all threads, which share torch's default dtype: how many there are, and the dtype outside of them."""

    lock = Lock()
    n = 0
    outside = torch.float32


@contextmanager
def _float64() -> Iterator[None]:
    """Float64 by default until the last of the threads' sessions ends."""
    nested, token = _inside.get(), _inside.set(True)
    with _Sessions.lock:
        before = torch.get_default_dtype()
        if not _Sessions.n:
            _Sessions.outside = before
        _Sessions.n += 1
        torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        _inside.reset(token)
        with _Sessions.lock:
            _Sessions.n -= 1
            if nested or not _Sessions.n:
                torch.set_default_dtype(before if nested else _Sessions.outside)


@contextmanager
def torch_session(work: float = np.inf) -> Iterator[None]:
    """Float64, gradients on, the global generator untouched; one thread if `work` is small. All is put back.

    Parameters
    ----------
    work : float
        Multiplications in one product with X: K * n * p * min(n, p) for a factorisation.
    """
    # Torch's own setter is left alone: what it changes beside the number of threads cannot be put back.
    threads = nullcontext() if work >= SMALL_WORK else _thread_pools().limit(limits=1)
    device = nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu")
    streams, modes = torch.random.fork_rng(devices=[]), torch.inference_mode(False)
    with threads, device, streams, modes, torch.enable_grad(), _float64():
        yield


@contextmanager
def users_torch() -> Iterator[None]:
    """For code of the user's: torch's default dtype as it is outside of sessions, and what is drawn undone."""
    with torch.random.fork_rng(devices=[]):
        with _Sessions.lock:
            if _Sessions.n:
                torch.set_default_dtype(_Sessions.outside)
        try:
            yield
        finally:
            with _Sessions.lock:  # what it was before may be that of a session of another thread, which has ended
                if _Sessions.n:
                    torch.set_default_dtype(torch.float64)


@cache
def _thread_pools() -> ThreadpoolController:
    """The libraries with thread pools that are loaded; to look for them takes as long as a small fit's scan."""
    return ThreadpoolController()


def to_tensor(values: ArrayLike) -> Tensor:
    """A float64 tensor; shares memory where the array is float64 and writeable already."""
    array = np.ascontiguousarray(values, dtype=np.float64)
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def to_numpy(values: Tensor) -> NDArray[np.float64]:
    """A numpy array that owns its memory."""
    return np.array(values.detach().cpu().numpy(), dtype=np.float64)


def refuse_unreadable(**named: Any) -> None:
    """Masked arrays and dates convert to floats without a word, and mean nothing there.

    Raises
    ------
    TypeError
        If an array is masked, or an array or a column of a frame holds dates or time differences.
    """
    for name, values in named.items():
        if isinstance(values, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array; fill it or drop the masked rows, masks are not read.")
        kinds = np.atleast_1d(np.array(getattr(values, "dtypes", getattr(values, "dtype", None)), dtype=object))
        dated = [str(kind) for kind in kinds if str(kind).lower().startswith(("datetime", "timedelta", "date", "dura"))]
        if dated:
            raise TypeError(f"{name} holds dates ({dated[0]}); turn them into numbers before fitting.")


def refuse_sizes(what: str, values: Any, names: Sequence[Any]) -> None:
    """Numbers whose squares leave the range of float64: losses and decays would be infinite, zero or not a number.

    Parameters
    ----------
    what : str
        "X" or "y".
    values : ndarray or sparse matrix of shape (n, p)
        Finite numbers.
    names : sequence of p
        Of the columns.

    Raises
    ------
    ValueError
        If the largest size in a column is neither zero nor between `SIZES`; with the column's name and that size.
    """
    sizes = _column_sizes(values)
    wrong = np.flatnonzero((sizes > 0) & ((sizes < SIZES[0]) | (sizes > SIZES[1])))
    if len(wrong):
        j = int(wrong[0])
        raise ValueError(
            f"{what} must hold columns whose largest size is zero or between {SIZES[0]:g} and {SIZES[1]:g}, or squares "
            f"leave the range of float64; column {names[j]!r} has {sizes[j]:.3g}. Give it in another unit."
        )


def _column_sizes(values: Any) -> NDArray[np.float64]:
    """The largest size in each column, (p,); no copy of the values is made."""
    sizes = np.zeros(values.shape[1])
    if sparse.issparse(values):
        for start in range(0, values.nnz, BLOCK):
            part = slice(start, start + BLOCK)
            np.maximum.at(sizes, values.indices[part], np.abs(values.data[part]))
    elif len(values):
        np.maximum(values.max(axis=0), -values.min(axis=0), out=sizes, casting="unsafe")
    return sizes


def plain_targets(y: Any) -> Any:
    """Targets as numpy's own booleans, numbers or strings: pandas' nullable and categorical types, and Python objects.

    A series or a frame stays one.

    Raises
    ------
    ValueError
        If a target is missing, or there are objects that have no common order.
    """
    if y is None or sparse.issparse(y):
        return y
    listed = isinstance(y, list | tuple)  # numpy would read [nan, "a"] as two strings
    values = np.asarray(y, dtype=object) if listed else np.asarray(y)
    if values.dtype.kind != "O":
        return _like(y, values) if _is_extended(y) else y
    missing = np.flatnonzero(pd.isna(values).reshape(len(values), -1).any(axis=1)) if values.ndim else np.empty(0)
    if len(missing):
        raise ValueError(
            f"Input y contains missing values (NaN or None), the first in row {missing[0]}. Drop the rows that have no "
            "target."
        )
    try:
        np.unique(values)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in values.ravel()})
        raise ValueError(f"y must hold values of one type, got {', '.join(kinds)}.") from error
    own = pd.Series(values.ravel()).infer_objects().to_numpy().reshape(values.shape)
    return y if listed or own.dtype.kind not in "biuf" else _like(y, own)


def _is_extended(y: Any) -> bool:
    """Whether pandas holds values in a type that is not numpy's."""
    kinds = y.dtypes if isinstance(y, pd.DataFrame) else [y.dtype] if isinstance(y, pd.Series) else []
    return not all(isinstance(kind, np.dtype) for kind in kinds)


def _like(y: Any, values: NDArray[Any]) -> Any:
    """The values in the container of y."""
    if isinstance(y, pd.DataFrame):
        return pd.DataFrame(values, index=y.index, columns=y.columns)
    return pd.Series(values, index=y.index, name=y.name) if isinstance(y, pd.Series) else values


def check_weights(sample_weight: Any, x: Any) -> NDArray[np.float64] | None:
    """Sample weights as a float64 array of shape (n,), or None.

    Raises
    ------
    ValueError
        If the weights have the wrong length, are not finite, are negative or are all zero, or if the largest is not
        between `SIZES`.
    """
    if sample_weight is None:
        return None
    refuse_unreadable(sample_weight=sample_weight)
    weights = _check_sample_weight(sample_weight, np.empty((_num_samples(x), 0)), dtype=np.float64)
    if weights.min() < 0:
        raise ValueError(f"sample_weight must not be negative, got a minimum of {weights.min():g}.")
    if not weights.any():  # newer scikit-learn has said so by now
        raise ValueError("sample_weight must have a positive entry, got zeros only.")
    if not SIZES[0] <= weights.max() <= SIZES[1]:
        raise ValueError(
            f"sample_weight must have its largest entry between {SIZES[0]:g} and {SIZES[1]:g}, got {weights.max():.3g}."
        )
    return weights


def check_splits(splits: Sequence[tuple[ArrayLike, ArrayLike]], n_rows: int) -> list[Split]:
    """Index arrays of every fold; boolean masks become indices.

    Raises
    ------
    ValueError
        If there is no fold, or a fold has no training or no validation rows, or what it has are neither row numbers in
        range nor masks of all rows.
    """
    checked = []
    for k, pair in enumerate(splits):
        parts = []
        for part, rows in zip(("training", "validation"), pair, strict=True):
            index = np.asarray(rows)
            if index.ndim != 1 or (len(index) and index.dtype.kind not in "iub"):
                raise ValueError(
                    f"cv must give row numbers or masks; the {part} rows of fold {k} have dtype {index.dtype} and "
                    f"shape {index.shape}."
                )
            if index.dtype == bool and len(index) != n_rows:
                raise ValueError(f"cv gives a mask of {len(index)} rows for fold {k} but X has {n_rows} rows.")
            index = np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)
            if not len(index):
                raise ValueError(f"cv must give every fold rows; fold {k} has no {part} rows.")
            if index.min() < -n_rows or index.max() >= n_rows:
                raise ValueError(f"cv gives indices in [{index.min()}, {index.max()}] but X has {n_rows} rows.")
            parts.append(index % n_rows)
        checked.append(Split(*parts))
    if not checked:
        raise ValueError("cv must give at least one fold, got none.")
    return checked


def pad_columns(matrices: Sequence[Any]) -> list[Any]:
    """The matrices of all folds with as many columns as the widest, zeros on the right."""
    width = max(m.shape[1] for m in matrices)
    if any(sparse.issparse(m) for m in matrices):
        rows = [sparse.csr_array(m, dtype=np.float64) for m in matrices]
        return [sparse.csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], width)) for m in rows]
    return [np.pad(m, ((0, 0), (0, width - m.shape[1]))) if m.shape[1] < width else m for m in matrices]


def make_design(x: Any) -> Design:
    """A Design from one matrix that all folds share, or from a list of one a fold (padded where they differ).

    Parameters
    ----------
    x : ndarray or sparse matrix of shape (n, p), or a list of K such
    """
    matrices = pad_columns(x if isinstance(x, list) else [x])
    if sparse.issparse(matrices[0]):
        if sum(m.shape[0] * m.shape[1] for m in matrices) > SMALL_MATRIX:
            return SparseDesign(matrices)
        matrices = [m.toarray() for m in matrices]
    return DenseDesign(to_tensor(np.stack(matrices) if isinstance(x, list) else matrices[0]))


def with_column(x: Any, value: float) -> Any:
    """The matrix with one more, constant column: an intercept that its estimator penalises."""
    column = np.full((x.shape[0], 1), value, dtype=np.float64)
    return sparse.hstack([x, column], format="csr") if sparse.issparse(x) else np.hstack([x, column])


def row_sums(n_rows: int, index: NDArray[np.int64], weights: ArrayLike) -> NDArray[np.float64]:
    """Row weights of one fold, shape (n,): weights are added up where a split repeats a row."""
    return np.bincount(index, weights=np.broadcast_to(weights, index.shape), minlength=n_rows)


def group_labels(decay_groups: Any, names: Sequence[str]) -> NDArray[np.object_]:
    """The group of each feature, shape (p,).

    Parameters
    ----------
    decay_groups : array-like of shape (p,) or mapping name -> group
        In a mapping each feature must have an entry.
    names : sequence of p feature names

    Raises
    ------
    ValueError
        If the length differs from the number of features, a mapping's names differ from them, or two groups have the
        same name as text.
    """
    if isinstance(decay_groups, Mapping):
        missing = [name for name in names if name not in decay_groups]
        unknown = [name for name in decay_groups if name not in set(names)]
        if missing or unknown:
            raise ValueError(
                f"decay_groups must have one entry for each of the {len(names)} features; "
                f"missing: {missing[:5]}, unknown: {unknown[:5]}."
            )
        return _distinct(np.array([decay_groups[name] for name in names], dtype=object))
    labels = np.array(list(decay_groups), dtype=object)
    if labels.shape != (len(names),):
        raise ValueError(
            f"decay_groups must hold one group for each of the {len(names)} features that the final estimator sees, "
            f"got shape {labels.shape}."
        )
    return _distinct(labels)


def _distinct(labels: NDArray[np.object_]) -> NDArray[np.object_]:
    """The labels, each of which has a name of its own in `alphas_`."""
    groups = list(dict.fromkeys(labels))
    if len({str(group) for group in groups}) < len(groups):
        raise ValueError(f"decay_groups must have groups whose names differ as text, got {groups}.")
    return labels


class Granularity(NamedTuple):
    """Which weights share a decay: a name of `GRANULARITIES`, or labels of the features' groups."""

    name: str
    labels: NDArray[np.object_] | None = None

    def index(self, n_features: int, n_outputs: int) -> NDArray[np.int64]:
        """The decay of each coefficient, feature-major: shape (n_features * n_outputs,)."""
        features = np.repeat(np.arange(n_features), n_outputs)
        outputs = np.tile(np.arange(n_outputs), n_features)
        if self.labels is not None:
            return self._positions(self.labels)[features]
        maps = {
            "global": np.zeros_like(features),
            "layer": np.zeros_like(features),
            "output": outputs,
            "feature": features,
            "weight": np.arange(len(features)),
        }
        return maps[self.name]

    def names(self, features: Sequence[Any], outputs: Sequence[Any]) -> list[str]:
        """What each decay is called: the keys of `alphas_`, strings always; `feature[output]` for single weights."""
        if self.labels is not None:
            return [str(label) for label in dict.fromkeys(self.labels)]
        of_features, of_outputs = [str(f) for f in features], [str(o) for o in outputs]
        several = len(of_outputs) > 1
        keys: dict[str, list[str]] = {
            "global": ["all"],
            "layer": ["all"],
            "output": of_outputs,
            "feature": of_features,
            "weight": [f"{f}[{o}]" for f in of_features for o in of_outputs] if several else of_features,
        }
        return keys[self.name]

    def feature_decays(self, decays: NDArray[np.float64], n_features: int, n_outputs: int) -> Any:
        """The decay of each feature, (n_features,); None where the weights of a feature have different ones."""
        index = self.index(n_features, n_outputs).reshape(-1, n_outputs)
        return decays[index[:, 0]] if (index == index[:, :1]).all() else None

    @staticmethod
    def _positions(labels: NDArray[np.object_]) -> NDArray[np.int64]:
        order = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        return np.array([order[label] for label in labels], dtype=np.int64)


def make_decays(granularity: Granularity, n_features: int, n_outputs: int, n_free: int, column: bool) -> Decays:
    """The index map of a linear network's flat weights.

    Parameters
    ----------
    granularity : Granularity
        Of the features without the constant column.
    n_features, n_outputs : int
        p and T.
    n_free : int
        Weights after the coefficients that carry no decay: intercepts and constants.
    column : bool
        Whether a constant column follows the features; its weights share a decay that stays at alpha.
    """
    index = granularity.index(n_features, n_outputs)
    plain = None
    if column:
        n_groups = int(index.max()) + 1
        index = np.concatenate([index, np.full(n_outputs, n_groups)])
        plain = torch.arange(n_groups + 1) == n_groups
    return Decays(torch.from_numpy(np.concatenate([index, np.full(n_free, -1)])), plain)
