"""Pipelines and TransformedTargetRegressors around the estimator that is tuned.

A composite is fitted by scikit-learn itself, on each fold's training rows, with a recorder in the place of its final
estimator: what the recorder is handed is what that estimator would have been fitted to, whatever the routing.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils import _safe_indexing
from sklearn.utils._metadata_requests import _routing_enabled
from sklearn.utils.metadata_routing import get_routing_for_object
from sklearn.utils.validation import _num_samples

from ..boundary import Split
from .base import Adapter


class Leaf(NamedTuple):
    """The estimator that is tuned, and where it is.

    `path` holds the names that lead to it in nested parameters; `steps` those of them that are pipeline steps.
    """

    estimator: Any
    path: tuple[str, ...]
    steps: tuple[str, ...]

    def parameter(self, name: str) -> str:
        """The nested name of one of its parameters."""
        return "__".join((*self.path, name))


class FoldData(NamedTuple):
    """What one fold's final estimator sees: all rows, zeros in x where a row is in neither part."""

    composite: Any  # fitted around an estimator that still waits for its weights
    shell: Any  # that estimator, with n_features_in_ set
    x: Any  # (n, p)
    y: Any  # (n,) or (n, T)
    names: NDArray[np.object_]  # (p,)


def unwrap(estimator: Any) -> Leaf:
    """Follow final steps and regressors down to the estimator that has coefficients.

    Raises
    ------
    TypeError
        If a Pipeline ends in no estimator.
    """
    path: list[str] = []
    steps: list[str] = []
    while True:
        if isinstance(estimator, Pipeline):
            name, estimator = estimator.steps[-1]
            steps.append(name)
        elif isinstance(estimator, TransformedTargetRegressor):
            name, estimator = "regressor", estimator.regressor
        else:
            break
        path.append(name)
    if estimator is None or isinstance(estimator, str):
        where = "__".join(path)
        raise TypeError(f"{where}={estimator!r} is no estimator that can be tuned; put the estimator to tune there.")
    return Leaf(estimator, tuple(path), tuple(steps))


def weight_name(leaf: Leaf) -> str | None:
    """The name under which fit's parameters carry the final estimator's sample_weight; None if they cannot."""
    if not _routing_enabled():
        return "__".join((*leaf.steps, "sample_weight"))
    requested = get_routing_for_object(leaf.estimator).fit.requests.get("sample_weight")
    if requested is True:
        return "sample_weight"
    return requested if isinstance(requested, str) else None


class _Recording:
    """Stands in for the final estimator and keeps what its fit is handed."""

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Any:
        self.recorded_ = X, y
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "recorded_")


def recorder_like(estimator: Any) -> Any:
    """A clone whose fit records; it keeps parameters, metadata requests and tags."""
    recorder = clone(estimator)
    recorder.__class__ = type(type(estimator).__name__, (_Recording, type(estimator)), {})
    return recorder


def fit_around(leaf: Leaf, composite: Any, x: Any, y: Any, params: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """Fit everything but the final estimator; returns the composite and what that estimator would be fitted to."""
    composite = clone(composite).set_params(**{"__".join(leaf.path): recorder_like(leaf.estimator)})
    composite.fit(x, y, **params)
    recorded = final_estimator(composite).recorded_
    return composite, *recorded


def final_estimator(fitted: Any) -> Any:
    """The innermost estimator of a fitted composite."""
    while True:
        if isinstance(fitted, Pipeline):
            fitted = fitted.steps[-1][1]
        elif isinstance(fitted, TransformedTargetRegressor):
            fitted = fitted.regressor_
        else:
            return fitted


def put_final(fitted: Any, final: Any) -> Any:
    """A copy of the fitted composite with another final estimator, in its parameters too; other steps are shared."""
    if isinstance(fitted, Pipeline):
        fitted, (name, inner) = copy(fitted), fitted.steps[-1]
        fitted.steps = [*fitted.steps[:-1], (name, put_final(inner, final))]
        return fitted
    if isinstance(fitted, TransformedTargetRegressor):
        fitted = copy(fitted)
        fitted.regressor = _unfitted(fitted.regressor, final)
        fitted.regressor_ = put_final(fitted.regressor_, final)
        return fitted
    return final


def _unfitted(regressor: Any, final: Any) -> Any:
    """The parameter from which a TransformedTargetRegressor clones, with the final estimator's settings in it."""
    path = unwrap(regressor).path
    return clone(regressor).set_params(**{"__".join(path): clone(final)}) if path else clone(final)


def transform_features(fitted: Any, x: Any) -> Any:
    """X as the final estimator sees it."""
    while True:
        if isinstance(fitted, Pipeline):
            x = fitted[:-1].transform(x) if len(fitted.steps) > 1 else x
            fitted = fitted.steps[-1][1]
        elif isinstance(fitted, TransformedTargetRegressor):
            fitted = fitted.regressor_
        else:
            return x


def transform_target(fitted: Any, y: Any) -> Any:
    """Y as the final estimator sees it."""
    while True:
        if isinstance(fitted, Pipeline):
            fitted = fitted.steps[-1][1]
        elif isinstance(fitted, TransformedTargetRegressor):
            y = np.asarray(y)
            moved = np.asarray(fitted.transformer_.transform(y.reshape(len(y), -1)))
            y = moved[:, 0] if y.ndim == 1 and moved.ndim == 2 and moved.shape[1] == 1 else moved
            fitted = fitted.regressor_
        else:
            return y


def inner_with(fitted: Any, x: Any, method: str) -> tuple[Any, Any]:
    """The estimator inside of pipelines and searches that has a method or an attribute, and X, if given, as it sees it.

    Raises
    ------
    TypeError
        If there is none, or one that knows the target in another unit.
    """
    outer = fitted
    while not hasattr(fitted, method):
        if isinstance(fitted, Pipeline) and fitted.steps:
            x = fitted[:-1].transform(x) if len(fitted.steps) > 1 and x is not None else x
            fitted = fitted.steps[-1][1]
        elif hasattr(fitted, "best_estimator_"):
            fitted = fitted.best_estimator_
        elif isinstance(fitted, TransformedTargetRegressor):
            raise TypeError(
                f"{method} is that of the target inside of TransformedTargetRegressor, in another unit; leave it out: "
                "HypernetRegressor scales its target itself."
            )
        else:
            raise TypeError(f"{type(outer).__name__} must have {method}, or end in an estimator that has it.")
    return fitted, x


def feature_names(fitted: Any, shell: Any, n_features: int) -> NDArray[np.object_]:
    """Names of the columns that the final estimator sees: its own, the last transformer's, or x0, x1, ..."""
    if hasattr(shell, "feature_names_in_"):
        return np.asarray(shell.feature_names_in_, dtype=object)
    inner = fitted
    while isinstance(inner, TransformedTargetRegressor):
        inner = inner.regressor_
    if isinstance(inner, Pipeline) and len(inner.steps) > 1 and unwrap(inner).path == (inner.steps[-1][0],):
        try:
            names = np.atleast_1d(np.asarray(inner[:-1].get_feature_names_out(), dtype=object))  # None: all passed on
        except (AttributeError, ValueError):
            names = np.empty(0, dtype=object)
        if len(names) == n_features:
            return names
    return np.array([f"x{j}" for j in range(n_features)], dtype=object)


def record_fold(
    leaf: Leaf, adapter: Adapter, composite: Any, x: Any, y: Any, split: Split | None, params: Mapping[str, Any]
) -> FoldData:
    """Fit a fold's preprocessing on its training rows and transform all of its rows.

    Parameters
    ----------
    leaf, adapter
        The estimator inside `composite` and its adapter.
    composite : estimator
        Unfitted.
    x, y
        The user's data, all rows.
    split : Split or None
        None: all rows train and there is nothing to hold out.
    params : mapping
        Fit parameters, already cut to the training rows.
    """
    if split is None:
        fitted, x_train, y_train = fit_around(leaf, composite, x, y, params)
        shell = clone(leaf.estimator)
        x_train, y_train = adapter.read(shell, x_train, y_train)
        fitted = put_final(fitted, shell)
        return FoldData(fitted, shell, x_train, y_train, feature_names(fitted, shell, x_train.shape[1]))
    part = [_safe_indexing(values, split.train) for values in (x, y)]
    fitted, x_train, y_train = fit_around(leaf, composite, *part, params)
    shell = clone(leaf.estimator)
    x_train, y_train = adapter.read(shell, x_train, y_train)
    fitted = put_final(fitted, shell)
    x_held = transform_features(fitted, _safe_indexing(x, split.validation))
    y_held = transform_target(fitted, _safe_indexing(y, split.validation))
    x_held, y_held = adapter.read(clone(leaf.estimator), x_held, y_held)
    y_held = y_held.reshape(len(y_held), *y_train.shape[1:])  # older TransformedTargetRegressors drop an axis in fit
    n_rows = _num_samples(x)
    return FoldData(
        fitted,
        shell,
        _scatter_matrix(n_rows, split, x_held, x_train),
        _scatter_target(n_rows, split, y_held, y_train),
        feature_names(fitted, shell, x_train.shape[1]),
    )


def _scatter_matrix(n_rows: int, split: Split, held: Any, train: Any) -> Any:
    """All rows of a fold in one matrix; a row in both parts is as it trains."""
    if not sparse.issparse(train):
        out = np.zeros((n_rows, train.shape[1]))
        out[split.validation] = held
        out[split.train] = train
        return out
    rows = np.concatenate([split.train, split.validation])
    _, first = np.unique(rows, return_index=True)
    stacked = sparse.vstack([train, held], format="csr")[first]
    place = sparse.csr_array((np.ones(len(first)), (rows[first], np.arange(len(first)))), shape=(n_rows, len(first)))
    return sparse.csr_array(place @ stacked)


def _scatter_target(n_rows: int, split: Split, held: Any, train: Any) -> Any:
    """All rows' targets of a fold; rows in neither part repeat a training row, so that every loss is defined."""
    out = np.empty((n_rows, *train.shape[1:]), dtype=np.result_type(held, train))
    out[:] = train[0]
    out[split.validation] = held
    out[split.train] = train
    return out
