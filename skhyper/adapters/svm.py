"""LinearSVC and LinearSVR with squared losses: C sum_i s_i l_i + 1/2 (|w|^2 + b^2), divided by C.

liblinear penalises the intercept b * intercept_scaling: the core sees a constant column with a decay of its own, which
stays at 1 / C whatever the exponent.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.losses import Loss, SquaredEpsilonInsensitive, SquaredHinge
from .base import Adapter, Array, ClassifierAdapter, RegressorAdapter, Solution, Targets, refuse, signs
from .class_weights import class_weights
from .losses import SignedWeights


class LinearSVMAdapter(Adapter):
    """What LinearSVC and LinearSVR share."""

    parameter = "C"
    reciprocal = True

    def column(self, estimator: Any) -> float | None:
        return float(estimator.intercept_scaling) if estimator.fit_intercept else None


class LinearSVCAdapter(LinearSVMAdapter, ClassifierAdapter):
    """LinearSVC; with more than two classes one-vs-rest, class weights on the positive class."""

    def check(self, estimator: Any) -> None:
        if estimator.loss != "squared_hinge":
            refuse(estimator, "loss", "the hinge is not smooth; set loss='squared_hinge'.")
        if estimator.penalty != "l2":
            refuse(estimator, "penalty", "only the l2 penalty is differentiable; set penalty='l2'.")
        if estimator.multi_class != "ovr":
            refuse(estimator, "multi_class", "its loss is not smooth; set multi_class='ovr'.")

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        weights = None if sample_weight is None else sample_weight[train]
        rows = np.ones(len(train)) if weights is None else weights
        by_class = class_weights(estimator.class_weight, classes, y[train], weights)
        return one_vs_rest(signs(y, classes), rows, by_class, y[train], classes)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredHinge() if n_outputs == 1 else SignedWeights(SquaredHinge())

    def own_outer(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredHinge() if n_outputs == 1 else SignedWeights(SquaredHinge(), weighted=False)

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator.classes_ = classes
        estimator.coef_ = solution.coefficients.T.copy()
        estimator.intercept_ = solution.intercepts.copy() if estimator.fit_intercept else 0.0
        estimator.n_iter_ = solution.n_iter


class LinearSVRAdapter(LinearSVMAdapter, RegressorAdapter):
    """LinearSVR with the squared loss."""

    def check(self, estimator: Any) -> None:
        if estimator.loss != "squared_epsilon_insensitive":
            refuse(estimator, "loss", "it is not smooth; set loss='squared_epsilon_insensitive'.")

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredEpsilonInsensitive(float(estimator.epsilon))

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator.coef_ = solution.coefficients[:, 0].copy()
        estimator.intercept_ = solution.intercepts.copy() if estimator.fit_intercept else 0.0
        estimator.n_iter_ = solution.n_iter


def one_vs_rest(values: Array, rows: Array, by_class: Array, labels: NDArray[Any], classes: NDArray[Any]) -> Targets:
    """+-1 targets whose class weights act as liblinear and SGD have it.

    Two classes: on the rows of both. More: on the positive rows of each output alone, as |y|.
    """
    if values.shape[1] == 1:
        return Targets(values, rows * by_class[np.searchsorted(classes, labels)])
    weights = np.maximum(by_class, np.finfo(np.float64).tiny)
    return Targets(np.where(values > 0, weights, values), rows)
