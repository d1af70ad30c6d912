"""Ridge and RidgeClassifier: sum_i s_i (f_i - y_i)^2 + alpha |w|^2, halved; the intercept carries no decay."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.class_weight import compute_sample_weight

from ..core.losses import Loss, SquaredError
from .base import Array, ClassifierAdapter, RegressorAdapter, Solution, Targets, match_dtype, refuse, signs


def check_ridge(estimator: Any) -> None:
    """The settings without a smooth objective."""
    if estimator.positive:
        refuse(estimator, "positive", "a constraint is not differentiable; set positive=False.")


def store_ridge(estimator: Any, solution: Solution, x: Any, flat: bool) -> None:
    """coef_, intercept_, n_iter_ and solver_ as Ridge sets them; `flat` for targets that were one-dimensional."""
    coef = match_dtype(solution.coefficients.T, x)
    intercept = match_dtype(solution.intercepts, x)
    estimator.coef_ = coef[0] if len(coef) == 1 else coef
    estimator.intercept_ = (intercept[0] if flat else intercept) if estimator.fit_intercept else 0.0
    estimator.n_iter_ = None
    automatic = "sparse_cg" if sparse.issparse(x) else "cholesky"
    estimator.solver_ = automatic if estimator.solver == "auto" else estimator.solver


class RidgeAdapter(RegressorAdapter):
    """Ridge, any number of targets."""

    multi_output = True

    def check(self, estimator: Any) -> None:
        check_ridge(estimator)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredError()

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        store_ridge(estimator, solution, x, flat=y.ndim == 1)


class RidgeClassifierAdapter(ClassifierAdapter):
    """RidgeClassifier: one-vs-rest targets -1 and +1, class weights on the rows."""

    multi_output = True

    def check(self, estimator: Any) -> None:
        check_ridge(estimator)

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        rows = np.ones(len(train)) if sample_weight is None else sample_weight[train]
        if estimator.class_weight:
            rows = rows * compute_sample_weight(estimator.class_weight, y[train])
        return Targets(signs(y, classes), rows)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredError()

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return {}

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        store_ridge(estimator, solution, x, flat=False)
        estimator._label_binarizer = LabelBinarizer(pos_label=1, neg_label=-1).fit(y)
        if not isinstance(getattr(type(estimator), "classes_", None), property):
            estimator.classes_ = estimator._label_binarizer.classes_
