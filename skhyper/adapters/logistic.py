"""LogisticRegression: C sum_i s_i l_i + 1/2 |w|^2, divided by C, so that the core's decay is 1 / C.

Two classes share one row of coefficients; more are multinomial (one-vs-rest where an older scikit-learn is told so).
Only the liblinear solver penalises the intercept, through `intercept_scaling`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV

from ..core.losses import LogLoss, Loss, MultinomialLogLoss
from .base import Array, ClassifierAdapter, Solution, Targets, one_hot, refuse
from .class_weights import class_weights


class LogisticAdapter(ClassifierAdapter):
    """LogisticRegression with the l2 penalty."""

    parameter = "C"
    reciprocal = True

    def check(self, estimator: Any) -> None:
        if isinstance(estimator, LogisticRegressionCV):
            raise TypeError("LogisticRegressionCV tunes C by itself; use LogisticRegression.")
        if estimator.penalty not in ("l2", "deprecated"):
            refuse(estimator, "penalty", "only the l2 penalty is differentiable; leave penalty at its default.")
        if estimator.penalty == "deprecated" and estimator.l1_ratio not in (None, 0):
            refuse(estimator, "l1_ratio", "only the l2 penalty is differentiable; set l1_ratio=0.")
        if getattr(estimator, "multi_class", None) == "multinomial" and estimator.solver == "liblinear":
            refuse(estimator, "multi_class", "liblinear knows no multinomial loss; set solver='lbfgs'.")

    def classes(self, estimator: Any, y: Any) -> NDArray[Any]:
        classes = super().classes(estimator, y)
        if len(classes) == 2 and getattr(estimator, "multi_class", None) == "multinomial":
            refuse(estimator, "multi_class", "with two classes set multi_class='auto'.")
        if len(classes) > 2 and estimator.solver == "liblinear" and not hasattr(estimator, "multi_class"):
            raise ValueError(
                "The 'liblinear' solver does not support multiclass classification (n_classes >= 3); "
                "set solver='lbfgs'."
            )
        return classes

    def _one_vs_rest(self, estimator: Any) -> bool:
        return getattr(estimator, "multi_class", None) == "ovr" or estimator.solver == "liblinear"

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        weights = None if sample_weight is None else sample_weight[train]
        rows = np.ones(len(train)) if weights is None else weights
        if estimator.class_weight is not None:
            by_class = class_weights(estimator.class_weight, classes, y[train], weights)
            rows = rows * by_class[np.searchsorted(classes, y[train])]
        values = one_hot(y, classes)
        if len(classes) == 2 or self._one_vs_rest(estimator):
            return Targets(values, rows)
        present = np.isin(classes, y[train][rows > 0])
        # The estimator fitted to a fold knows the classes there; for two of them its penalty is that of one output.
        return Targets(np.where(present, values, -np.inf), rows / 2 if present.sum() == 2 else rows)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return LogLoss() if n_outputs == 1 or self._one_vs_rest(estimator) else MultinomialLogLoss()

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return {"neg_log_loss": self.loss(estimator, n_outputs)}

    def column(self, estimator: Any) -> float | None:
        penalised = estimator.solver == "liblinear" and estimator.fit_intercept
        return float(estimator.intercept_scaling) if penalised else None

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator.classes_ = classes
        estimator.coef_ = solution.coefficients.T.copy()
        bare = estimator.solver == "liblinear" and not estimator.fit_intercept
        estimator.intercept_ = 0.0 if bare else solution.intercepts.copy()
        estimator.n_iter_ = np.array([solution.n_iter], dtype=np.int32)
