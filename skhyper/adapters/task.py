"""A user's estimator, data and splits as one tuning task: unwrapped, preprocessed fold by fold, encoded.

Without preprocessing all folds share one matrix. With it, each fold has its own, and columns are aligned by name: one
that a fold lacks (a category, a selected feature) is zero there. Samplers give it rows of its own as well.
"""

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.utils.validation import _check_method_params
from torch import Tensor

from ..boundary import Granularity, Split, group_labels, refuse_sizes
from .base import Adapter, Array
from .encode import LinearEncoding, encode_linear
from .network import NetworkAdapter, NetworkEncoding, encode_network
from .registry import adapter_for
from .unwrap import FoldData, Leaf, feature_names, pad_rows, put_final, record_fold, samplers, unwrap


@dataclass(frozen=True)
class Target:
    """What is tuned: an estimator, the leaf inside it, and what stays the same for all folds and the final fit."""

    estimator: Any
    leaf: Leaf
    adapter: Adapter
    classes: NDArray[Any] | None
    output_names: tuple[Any, ...]

    @property
    def parameter(self) -> str:
        """The nested name of the hyperparameter, as in `ridge__alpha`."""
        return self.leaf.parameter(self.adapter.parameter)


@dataclass(frozen=True)
class Task:
    """A problem whose weights become fitted estimators.

    Parameters
    ----------
    target : Target
    folds : list of K FoldData
        Fitted preprocessing; folds without any share one matrix.
    columns : list of K index arrays, or None
        Where each fold's columns are among `names`; None where all folds have the same.
    names : array of str, shape (p,)
        The columns of the problem.
    granularity : Granularity, or that of a network
    encoding : LinearEncoding or NetworkEncoding
    """

    target: Target
    folds: list[FoldData]
    columns: list[NDArray[np.int64]] | None
    names: NDArray[np.object_]
    granularity: Any
    encoding: LinearEncoding | NetworkEncoding

    @property
    def decay_names(self) -> list[str]:
        """What each decay is called."""
        return self.granularity.names(list(self.names), self.target.output_names)

    def feature_decays(self, decays: Array) -> Array | None:
        """The decay of each column, (p,); None where the weights of a column have different ones."""
        return self.granularity.feature_decays(decays, len(self.names), self.encoding.problem.network.n_outputs)

    def fitted(self, k: int, w: Tensor, alpha: float, n_iter: int, losses: Sequence[float] = ()) -> Any:
        """The user's estimator as if fitted to fold k, with the weights w (K, n_weights) and alpha as its setting.

        `losses` holds the training loss of every epoch, for estimators that keep it.
        """
        fold, adapter = self.folds[k], self.target.adapter
        solution = self.encoding.solution(w[k], n_iter, None if self.columns is None else self.columns[k], losses)
        final = copy(fold.shell)
        setattr(final, adapter.parameter, adapter.value(alpha))  # set_params, without its search for nested names
        adapter.store(final, solution, fold.x, fold.y, self.target.classes)
        return final if fold.composite is None else put_final(fold.composite, final)


def make_target(estimator: Any, y: Any) -> Target:
    """Unwrap an estimator, check its settings, and learn its labels.

    Raises
    ------
    TypeError
        If the estimator or one of its settings is not supported.
    ValueError
        If a classifier's y holds fewer than two classes.
    """
    leaf = unwrap(estimator)
    adapter = adapter_for(leaf.estimator)
    labels = np.asarray(y)
    labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    classes = adapter.classes(leaf.estimator, labels)
    if classes is None:
        names = getattr(y, "columns", np.arange(labels.shape[1] if labels.ndim == 2 else 1))
    else:
        names = classes if len(classes) > 2 or labels.ndim == 2 else classes[1:]
    return Target(estimator, leaf, adapter, classes, tuple(np.asarray(names).tolist()))


def make_task(
    target: Target,
    x: Any,
    y: Any,
    splits: Sequence[Split] | None,
    *,
    granularity: str,
    decay_groups: Any = None,
    sample_weight: Array | None = None,
    params: Mapping[str, Any] | None = None,
    scoring: str | None = None,
    n_jobs: int | None = None,
) -> Task:
    """Fit each fold's preprocessing, and encode what the final estimator sees.

    Parameters
    ----------
    target : Target
    x, y
        The user's data.
    splits : sequence of K Split, or None
        None: all rows, for the final fit.
    granularity, decay_groups
        Which weights share a decay; groups are those of the final estimator's features.
    sample_weight : array of shape (n,), optional
        The final estimator's.
    params : mapping, optional
        All fit parameters of the estimator, which a Pipeline hands on.
    scoring : str, optional
        The score whose twin is the outer loss.
    n_jobs : int, optional
        Folds preprocessed at once.

    Raises
    ------
    ValueError
        If a column that the final estimator sees, or a target, has no squares in float64.
    """
    leaf, adapter = target.leaf, target.adapter
    parts = [None] if splits is None else list(splits)
    if leaf.path:
        rows = [None if split is None else split.train for split in parts]
        folds = Parallel(n_jobs=n_jobs)(
            delayed(record_fold)(
                leaf,
                adapter,
                target.estimator,
                x,
                y,
                split,
                _check_method_params(x, params or {}, indices),
                sample_weight,
            )
            for split, indices in zip(parts, rows, strict=True)
        )
        if any(samplers(folds[0].composite)):
            n_rows = max(fold.x.shape[0] for fold in folds)
            folds = [pad_rows(fold, n_rows) for fold in folds]
            _check_labels(target, folds)
    else:
        shell = clone(leaf.estimator)
        x, y = adapter.read(shell, x, y)
        names = feature_names(None, shell, x.shape[1])
        folds = [FoldData(None, shell, x, y, names, split, sample_weight) for split in parts]
    for fold in folds if leaf.path else folds[:1]:
        _refuse_sizes(fold, target)
    names, columns = align([fold.names for fold in folds])
    labels = None if decay_groups is None else group_labels(decay_groups, names)
    kind: Any = Granularity(granularity, labels)
    encode: Any = encode_linear
    if isinstance(adapter, NetworkAdapter):
        kind, encode = adapter.granularity(folds[0].shell, kind), encode_network
        if adapter.fixed_columns and columns is not None:
            raise ValueError(
                f"{type(leaf.estimator).__name__} has a fixed number of inputs, but preprocessing gives the folds of "
                "cv different columns; use transformers whose columns do not depend on the rows."
            )
    matrices = [fold.x for fold in folds]
    if columns is not None:
        matrices = [_placed(x_k, at, len(names)) for x_k, at in zip(matrices, columns, strict=True)]
    encoding = encode(
        adapter,
        folds[0].shell,
        matrices if leaf.path and len(folds) > 1 else matrices[0],
        [fold.y for fold in folds],
        None if splits is None else [fold.split for fold in folds],
        granularity=kind,
        sample_weight=None if sample_weight is None else [fold.weight for fold in folds],
        scoring=scoring,
        classes=target.classes,
    )
    return Task(target, folds, columns, names, kind, encoding)


def _check_labels(target: Target, folds: Sequence[FoldData]) -> None:
    """Raise ValueError if a sampler makes rows of classes that the user's y lacks."""
    if target.classes is None or folds[0].y.ndim > 1:
        return
    unknown = np.setdiff1d(np.concatenate([fold.y for fold in folds]), target.classes)
    if len(unknown):
        names = ", ".join(name for name, _ in samplers(folds[0].composite))
        raise ValueError(f"{names} must keep the classes of y {target.classes.tolist()}, but gives {unknown.tolist()}.")


def _refuse_sizes(fold: FoldData, target: Target) -> None:
    """Data of the final estimator that has no squares in float64; labels have no size, and a net's rows any shape."""
    if getattr(fold.x, "ndim", 0) == 2 and fold.x.dtype.kind == "f":
        refuse_sizes("X", fold.x, fold.names)
    if target.classes is None and fold.y.dtype.kind == "f":
        refuse_sizes("y", fold.y.reshape(len(fold.y), -1), target.output_names)


def align(names: Sequence[NDArray[np.object_]]) -> tuple[NDArray[np.object_], list[NDArray[np.int64]] | None]:
    """All folds' column names in one order, and where each fold's columns are in it; None where all are the same."""
    if all(np.array_equal(names[0], other) for other in names):
        return names[0], None
    union = {name: None for fold in names for name in fold}
    position = {name: j for j, name in enumerate(union)}
    return np.array(list(union), dtype=object), [np.array([position[name] for name in fold]) for fold in names]


def _placed(x: Any, at: NDArray[np.int64], width: int) -> Any:
    """The matrix with its columns moved to `at` among `width`."""
    if sparse.issparse(x):
        place = sparse.csr_array((np.ones(len(at)), (np.arange(len(at)), at)), shape=(len(at), width))
        return sparse.csr_array(x @ place)
    out = np.zeros((x.shape[0], width))
    out[:, at] = x
    return out
