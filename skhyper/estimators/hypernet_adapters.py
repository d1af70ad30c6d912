"""HypernetRegressor and HypernetClassifier in a search: alphas are members of one batch, judged by their likelihood."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.base import Array
from ..adapters.registry import register
from ..adapters.self_trained import SelfTrainedAdapter
from .hypernet_classifier import HypernetClassifier
from .hypernet_regressor import HypernetRegressor


class HypernetAdapter(SelfTrainedAdapter):
    """What the two have in common."""

    multi_output = True

    def check(self, estimator: Any) -> None:
        estimator._validate_params()

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        return estimator._check_rows(x, y, reset=True)

    def fit_alphas(self, estimator: Any, x: Any, y: Any, sample_weight: Array | None, alphas: Sequence[float]) -> Any:
        return estimator._fit_alphas(x, y, sample_weight, alphas)


class HypernetRegressorAdapter(HypernetAdapter):
    """Negative log-likelihood of the predictive mixture, in the unit of y as the estimator sees it."""

    def classes(self, estimator: Any, y: Any) -> None:
        return None

    def held_out_loss(self, fitted: Any, x: Any, y: Any, sample_weight: Array | None) -> float:
        return float(-np.average(fitted.log_prob(x, y), weights=sample_weight))


class HypernetClassifierAdapter(HypernetAdapter):
    """Log-loss of the mean probabilities; rows of classes that training lacked do not count."""

    def classes(self, estimator: Any, y: Any) -> NDArray[Any]:
        classes = np.unique(y)
        if len(classes) < 2:
            raise ValueError(
                f"{type(estimator).__name__} needs samples of at least 2 classes in y, got one class: {classes[0]!r}."
            )
        return classes

    def held_out_loss(self, fitted: Any, x: Any, y: Any, sample_weight: Array | None) -> float:
        y = np.asarray(y).ravel()
        known = np.isin(y, fitted.classes_)
        if not known.any():
            raise ValueError("A fold of cv must have a validation row of a class that its training rows hold.")
        own = fitted.predict_log_proba(x)[known, np.searchsorted(fitted.classes_, y[known])]
        return float(-np.average(own, weights=None if sample_weight is None else sample_weight[known]))


register(HypernetRegressor, HypernetRegressorAdapter())
register(HypernetClassifier, HypernetClassifierAdapter())
