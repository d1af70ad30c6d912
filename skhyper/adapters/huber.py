"""HuberRegressor: sum_i s_i (sigma + H((f_i - y_i) / sigma) sigma) + alpha |w|^2, halved; the scale sigma is fitted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.extmath import safe_sparse_dot

from ..core.losses import ConcomitantHuber, Loss, SquaredError
from .base import SQUARED_SCORES, RegressorAdapter, Solution
from .losses import OfPredictions


class HuberAdapter(RegressorAdapter):
    """HuberRegressor."""

    def check(self, estimator: Any) -> None:
        """Every setting has a smooth objective."""

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return ConcomitantHuber(float(estimator.epsilon))

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return dict.fromkeys(SQUARED_SCORES, OfPredictions(SquaredError(), 1))

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator.coef_ = solution.coefficients[:, 0].copy()
        estimator.intercept_ = solution.intercepts[0] if estimator.fit_intercept else 0.0
        estimator.scale_ = solution.constants[0]
        estimator.n_iter_ = solution.n_iter
        residual = np.abs(y - safe_sparse_dot(x, estimator.coef_) - estimator.intercept_)
        estimator.outliers_ = residual > estimator.scale_ * estimator.epsilon
