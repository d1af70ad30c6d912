"""Pipelines and TransformedTargetRegressors around the estimator that is tuned.

A composite is fitted by scikit-learn itself, on each fold's training rows, with a recorder in the place of its final
estimator: what the recorder is handed is what that estimator would have been fitted to, whatever the routing.

Samplers, steps with `fit_resample` as imbalanced-learn's pipelines have them, act in fit alone: they change a fold's
training rows, and held-out rows pass them by. Such a fold has rows of its own (`place_rows`).
"""

from collections.abc import Iterator, Mapping
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
from .base import Adapter, Array


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
    split: Split | None  # which of these rows train, and which are held out; None: all train
    weight: Array | None  # the rows' sample weights, (n,)


class Recorded(NamedTuple):
    """A composite that is fitted up to its final estimator, and what that estimator would be fitted to."""

    composite: Any
    x: Any
    y: Any
    weight: Array | None


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


def fit_around(
    leaf: Leaf, composite: Any, x: Any, y: Any, params: Mapping[str, Any], weight: Array | None = None
) -> Recorded:
    """Fit everything but the final estimator.

    Parameters
    ----------
    leaf : Leaf
        The estimator inside `composite`.
    composite : estimator
        Unfitted.
    x, y
        Training rows.
    params : mapping
        Fit parameters of the composite.
    weight : array of shape (n,), optional
        The final estimator's weights of these rows, which follow the rows that samplers keep.

    Raises
    ------
    ValueError
        If there are weights, and a sampler does not say which rows it keeps.
    """
    composite = clone(composite).set_params(**{"__".join(leaf.path): recorder_like(leaf.estimator)})
    composite.fit(x, y, **params)
    x_final, y_final = final_estimator(composite).recorded_
    if weight is not None:
        for name, sampler in samplers(composite):
            if not hasattr(sampler, "sample_indices_"):
                raise ValueError(
                    f"sample_weight must be None where {name}={sampler!r} makes rows: it has no sample_indices_, which "
                    "say whose weights its rows have."
                )
            weight = weight[sampler.sample_indices_]
    return Recorded(composite, x_final, y_final, weight)


def is_sampler(step: Any) -> bool:
    """Whether a step of a pipeline changes the rows in fit, and does nothing elsewhere."""
    return hasattr(step, "fit_resample")


def samplers(fitted: Any) -> Iterator[tuple[str, Any]]:
    """Names and samplers of a composite, in the order in which rows pass them."""
    while True:
        if isinstance(fitted, Pipeline):
            yield from (step for step in fitted.steps[:-1] if is_sampler(step[1]))
            fitted = fitted.steps[-1][1]
        elif isinstance(fitted, TransformedTargetRegressor):
            fitted = fitted.regressor_
        else:
            return


def transformers(pipeline: Pipeline) -> Pipeline | None:
    """What rows to predict pass before the final step: the steps before it, samplers apart; None if there are none."""
    if all(is_sampler(step) for _, step in pipeline.steps[:-1]):
        return None
    head = pipeline[:-1]
    head.steps = [(name, step) for name, step in head.steps if not is_sampler(step)]
    return head


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
            head = transformers(fitted)
            x = x if head is None else head.transform(x)
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
            head = transformers(fitted)
            x = x if head is None or x is None else head.transform(x)
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
    head = transformers(inner) if isinstance(inner, Pipeline) else None
    if head is not None and unwrap(inner).path == (inner.steps[-1][0],):
        try:
            names = np.atleast_1d(np.asarray(head.get_feature_names_out(), dtype=object))  # None: all passed on
        except (AttributeError, ValueError):
            names = np.empty(0, dtype=object)
        if len(names) == n_features:
            return names
    return np.array([f"x{j}" for j in range(n_features)], dtype=object)


def record_fold(
    leaf: Leaf,
    adapter: Adapter,
    composite: Any,
    x: Any,
    y: Any,
    split: Split | None,
    params: Mapping[str, Any],
    weight: Array | None = None,
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
    weight : array of shape (n,), optional
        The final estimator's weights of all rows.
    """
    n_rows = _num_samples(x)
    train = slice(None) if split is None else split.train
    part = (x, y) if split is None else [_safe_indexing(values, split.train) for values in (x, y)]
    recorded = fit_around(leaf, composite, *part, params, None if weight is None else weight[train])
    shell = clone(leaf.estimator)
    x_train, y_train = adapter.read(shell, recorded.x, recorded.y)
    fitted = put_final(recorded.composite, shell)
    names = feature_names(fitted, shell, x_train.shape[1])
    if split is None:
        return FoldData(fitted, shell, x_train, y_train, names, None, recorded.weight)
    x_held, y_held = held_out_rows(leaf, adapter, fitted, x, y, split)
    y_held = y_held.reshape(len(y_held), *y_train.shape[1:])  # older TransformedTargetRegressors drop an axis in fit
    if any(samplers(fitted)):
        split = place_rows(n_rows, split.validation, len(y_train))
        n_rows = max(n_rows, 1 + int(split.train.max()))
        if weight is not None:
            weight = np.pad(weight, (0, n_rows - len(weight)))
            weight[split.train] = recorded.weight
    x_all, y_all = _scatter_matrix(n_rows, split, x_held, x_train), _scatter_target(n_rows, split, y_held, y_train)
    return FoldData(fitted, shell, x_all, y_all, names, split, weight)


def held_out_rows(leaf: Leaf, adapter: Adapter, fitted: Any, x: Any, y: Any, split: Split) -> tuple[Any, Any]:
    """The held-out ones of all rows as the final estimator of a fitted composite sees them."""
    x, y = (_safe_indexing(values, split.validation) for values in (x, y))
    return adapter.read(clone(leaf.estimator), transform_features(fitted, x), transform_target(fitted, y))


def place_rows(n_rows: int, validation: NDArray[np.int64], n_train: int) -> Split:
    """Where a fold's rows are once samplers have made its training rows other ones.

    Held-out rows stay at their numbers among the user's n_rows, the same in every fold; the training rows fill the
    other places, and go on behind them.
    """
    free = np.setdiff1d(np.arange(n_rows), validation)
    places = np.concatenate([free, np.arange(n_rows, n_rows + n_train)])
    return Split(places[:n_train], validation)


def pad_rows(fold: FoldData, n_rows: int) -> FoldData:
    """The fold with rows that neither train nor are held out behind its own."""
    missing = n_rows - fold.x.shape[0]
    if not missing:
        return fold
    assert fold.split is not None
    if sparse.issparse(fold.x):
        x: Any = sparse.vstack([fold.x, sparse.csr_array((missing, fold.x.shape[1]))], format="csr")
    else:
        x = np.pad(fold.x, ((0, missing), (0, 0)))
    y = np.concatenate([fold.y, np.repeat(fold.y[fold.split.train[:1]], missing, axis=0)])
    weight = None if fold.weight is None else np.pad(fold.weight, (0, missing))
    return fold._replace(x=x, y=y, weight=weight)


def _scatter_matrix(n_rows: int, split: Split, held: Any, train: Any) -> Any:
    """All rows of a fold in one matrix; a row in both parts is as it trains."""
    if not sparse.issparse(train) and not sparse.issparse(held):
        out = np.zeros((n_rows, train.shape[1]))
        out[split.validation] = held
        out[split.train] = train
        return out
    rows = np.concatenate([split.train, split.validation])
    _, first = np.unique(rows, return_index=True)
    stacked = sparse.vstack([sparse.csr_array(part) for part in (train, held)], format="csr")[first]
    place = sparse.csr_array((np.ones(len(first)), (rows[first], np.arange(len(first)))), shape=(n_rows, len(first)))
    return sparse.csr_array(place @ stacked)


def _scatter_target(n_rows: int, split: Split, held: Any, train: Any) -> Any:
    """All rows' targets of a fold; rows in neither part repeat a training row, so that every loss is defined."""
    out = np.empty((n_rows, *train.shape[1:]), dtype=np.result_type(held, train))
    out[:] = train[0]
    out[split.validation] = held
    out[split.train] = train
    return out
