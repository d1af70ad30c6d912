"""SGDRegressor and SGDClassifier with smooth losses: (1/n) sum_i s_i l_i + alpha/2 |w|^2 with n rows.

n counts rows, whatever they weigh, and so alpha is in the unit of a row's weight. All folds are given the mean weight
of all rows, whichever they hold themselves: then alpha says the same to each of them, and a row of weight 3 is three
rows of weight 1, but for the factor by which the mean weight multiplies alpha.

The settings of the descent (learning rate, averaging, early stopping) do not change what it descends to; they are not
read.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.losses import (
    Huber,
    LogLoss,
    Loss,
    ModifiedHuber,
    SeparableLoss,
    SquaredEpsilonInsensitive,
    SquaredError,
    SquaredHinge,
)
from .base import Array, ClassifierAdapter, RegressorAdapter, Solution, Targets, match_dtype, refuse, signs
from .class_weights import class_weights
from .losses import SignedWeights
from .svm import one_vs_rest

REGRESSION_LOSSES = ("squared_error", "huber", "squared_epsilon_insensitive")
CLASSIFICATION_LOSSES = ("log_loss", "modified_huber", "squared_hinge", *REGRESSION_LOSSES)


def check_sgd(estimator: Any, losses: tuple[str, ...]) -> None:
    """The settings without a smooth objective."""
    if estimator.loss not in losses:
        refuse(estimator, "loss", f"it is not smooth; set loss to one of {', '.join(map(repr, losses))}.")
    if estimator.penalty != "l2":
        refuse(estimator, "penalty", "only the l2 penalty is differentiable; set penalty='l2'.")


def mean_weights(train: NDArray[np.int64], sample_weight: Array | None) -> Array:
    """What the losses of training rows are multiplied by in their mean."""
    if sample_weight is None:
        return np.full(len(train), 1 / len(train))
    own = sample_weight[train]
    return own * (sample_weight.mean() / max(own.sum(), np.finfo(np.float64).tiny))


def sgd_loss(estimator: Any) -> SeparableLoss:
    """The core's loss of a name."""
    losses: dict[str, SeparableLoss] = {
        "squared_error": SquaredError(),
        "huber": Huber(float(estimator.epsilon)),
        "squared_epsilon_insensitive": SquaredEpsilonInsensitive(float(estimator.epsilon)),
        "log_loss": LogLoss(),
        "modified_huber": ModifiedHuber(),
        "squared_hinge": SquaredHinge(),
    }
    return losses[estimator.loss]


def store_sgd(estimator: Any, solution: Solution, coef: NDArray[Any], n_rows: int) -> None:
    """coef_, intercept_, n_iter_, t_, and what averaging leaves."""
    estimator.coef_ = coef
    estimator.intercept_ = solution.intercepts.copy()
    estimator.n_iter_ = solution.n_iter
    estimator.t_ = 1.0 + solution.n_iter * n_rows
    if estimator.average:
        flat = coef[0] if coef.ndim == 2 and len(coef) == 1 else coef
        estimator._standard_coef, estimator._average_coef = flat.copy(), flat
        estimator._standard_intercept = solution.intercepts.copy()
        estimator._average_intercept = estimator.intercept_


class SGDRegressorAdapter(RegressorAdapter):
    """SGDRegressor."""

    def check(self, estimator: Any) -> None:
        check_sgd(estimator, REGRESSION_LOSSES)

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        targets = super().targets(estimator, y, classes, train, sample_weight)
        return targets._replace(rows=mean_weights(train, sample_weight))

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return sgd_loss(estimator)

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        store_sgd(estimator, solution, match_dtype(solution.coefficients[:, 0].copy(), x), x.shape[0])


class SGDClassifierAdapter(ClassifierAdapter):
    """SGDClassifier; with more than two classes one-vs-rest, class weights on the positive class."""

    def check(self, estimator: Any) -> None:
        check_sgd(estimator, CLASSIFICATION_LOSSES)

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        by_class = class_weights(estimator.class_weight, classes, y[train])
        return one_vs_rest(signs(y, classes), mean_weights(train, sample_weight), by_class, y[train], classes)

    def _signed(self, estimator: Any, weighted: bool) -> Loss:
        return SignedWeights(sgd_loss(estimator), zero_one=estimator.loss == "log_loss", weighted=weighted)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return self._signed(estimator, weighted=True)

    def own_outer(self, estimator: Any, n_outputs: int) -> Loss:
        return self._signed(estimator, weighted=False)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        smooth = estimator.loss == "log_loss" and n_outputs == 1
        return {"neg_log_loss": self.own_outer(estimator, n_outputs)} if smooth else {}

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator.classes_ = classes
        estimator._expanded_class_weight = class_weights(estimator.class_weight, classes, y)
        estimator._loss_function_ = estimator._get_loss_function(estimator.loss)
        store_sgd(estimator, solution, match_dtype(solution.coefficients.T.copy(), x), x.shape[0])
