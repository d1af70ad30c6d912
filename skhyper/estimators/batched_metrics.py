"""Metrics of many models on the same rows in one call: a metric checks its arguments for longer than it works."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import (
    accuracy_score,
    f1_score,
    jaccard_score,
    mean_absolute_error,
    mean_squared_error,
    precision_score,
    r2_score,
    recall_score,
    roc_auc_score,
)
from sklearn.metrics._scorer import _PassthroughScorer, _Scorer

# Metrics that score each column of several outputs as they would score it alone; of indicators of labels likewise.
OF_OUTPUTS = (mean_squared_error, mean_absolute_error, r2_score)
OF_INDICATORS = (f1_score, jaccard_score, precision_score, recall_score)

Batched = Callable[[Sequence[Any], Any, NDArray[Any]], "NDArray[np.float64] | None"]


def batched(scorer: Any, fitted: Any, params: Mapping[str, Any]) -> Batched | None:
    """How models are scored in one call: (fitted, X, y) -> scores, or None where that is for one at a time.

    Parameters
    ----------
    scorer : callable
        A scorer of scikit-learn.
    fitted : estimator
        One of the models.
    params : mapping
        What the scorer is given beside X and y.
    """
    if not set(params) <= {"sample_weight"}:
        return None
    if isinstance(scorer, _PassthroughScorer):
        own = getattr(type(fitted), "score", None)
        if own is RegressorMixin.score:
            return partial(_of_outputs, r2_score, 1, params)
        return partial(_accuracy, params) if own is ClassifierMixin.score else None
    if type(scorer) is not _Scorer:
        return None
    metric, sign, given = scorer._score_func, scorer._sign, scorer._kwargs
    if metric in OF_OUTPUTS and not given:
        return partial(_of_outputs, metric, sign, params)
    if sign != 1:
        return None
    if metric is accuracy_score and not given:
        return partial(_accuracy, params)
    if metric in OF_INDICATORS and given == {"average": "binary"}:
        return partial(_of_indicators, metric, params)
    return _area if metric is roc_auc_score and not given and not params else None


def _predictions(fitted: Sequence[Any], x: Any) -> NDArray[Any]:
    """(n, models)."""
    return np.stack([one.predict(x) for one in fitted], axis=1)


def _of_outputs(
    metric: Callable[..., Any], sign: int, params: Mapping[str, Any], fitted: Sequence[Any], x: Any, y: NDArray[Any]
) -> NDArray[np.float64] | None:
    predicted = _predictions(fitted, x)
    if predicted.ndim > 2 or len(y) < 2 or not np.isfinite(predicted).all():
        return None
    scores = metric(np.broadcast_to(y[:, None], predicted.shape), predicted, **params, multioutput="raw_values")
    return np.asarray(sign * scores)


def _accuracy(params: Mapping[str, Any], fitted: Sequence[Any], x: Any, y: NDArray[Any]) -> NDArray[np.float64] | None:
    predicted = _predictions(fitted, x)
    if predicted.ndim > 2:
        return None
    return np.asarray(np.average(predicted == y[:, None], axis=0, weights=params.get("sample_weight")))


def _of_indicators(
    metric: Callable[..., Any], params: Mapping[str, Any], fitted: Sequence[Any], x: Any, y: NDArray[Any]
) -> NDArray[np.float64] | None:
    """Of the label 1 against 0: each model is a label of its own."""
    predicted = _predictions(fitted, x)
    if len(fitted) < 2 or predicted.ndim > 2 or not np.isin(y, (0, 1)).all() or not np.isin(predicted, (0, 1)).all():
        return None
    truth = np.broadcast_to(y[:, None], predicted.shape).astype(int)
    return np.asarray(metric(truth, predicted.astype(int), average=None, **params))


def _area(fitted: Sequence[Any], x: Any, y: NDArray[Any]) -> NDArray[np.float64] | None:
    """Area under the ROC curve by ranks: the share of pairs of a positive and a negative row in the right order."""
    labels = np.unique(y)
    if len(labels) != 2 or not all(hasattr(one, "decision_function") for one in fitted):
        return None
    values = np.stack([one.decision_function(x) for one in fitted], axis=1)
    positive = y == labels[1]
    if values.ndim > 2 or not np.isfinite(values).all() or not np.array_equal(fitted[0].classes_, labels):
        return None
    n = int(positive.sum())
    above = rankdata(values, axis=0)[positive].sum(axis=0) - n * (n + 1) / 2
    return np.asarray(above / (n * (len(y) - n)))
