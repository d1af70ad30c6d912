"""PoissonRegressor, GammaRegressor, TweedieRegressor: weighted mean half-deviance + alpha/2 |w|^2."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.losses import Loss, SquaredError, TweedieLog
from .base import SQUARED_SCORES, Array, RegressorAdapter, Solution, Targets, refuse

LOG_LINK_SCORES = {"neg_mean_poisson_deviance": TweedieLog(1), "neg_mean_gamma_deviance": TweedieLog(2)}


class GlmAdapter(RegressorAdapter):
    """A generalised linear model with a log link, or the normal one with an identity link."""

    def __init__(self, power: float | None = None) -> None:
        self._power = power

    def power_of(self, estimator: Any) -> float:
        """The Tweedie power of the deviance."""
        return float(estimator.power if self._power is None else self._power)

    def _identity(self, estimator: Any) -> bool:
        link = getattr(estimator, "link", "log")
        return link == "identity" or (link == "auto" and self.power_of(estimator) <= 0)

    def check(self, estimator: Any) -> None:
        power = self.power_of(estimator)
        if power < 0 or 0 < power < 1:
            refuse(estimator, "power", "use a power of 0, or of 1 and above.")
        if self._identity(estimator) and power != 0:
            refuse(estimator, "link", "its loss is infinite where a prediction is negative; set link='log'.")

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        x, y = super().read(estimator, x, y)
        loss = estimator._get_loss()
        if not loss.in_y_true_range(y):
            raise ValueError(f"Some value(s) of y are out of the valid range of the loss {type(loss).__name__!r}.")
        return x, y

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        targets = super().targets(estimator, y, classes, train, sample_weight)
        return targets._replace(rows=targets.rows / targets.rows.sum())

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return SquaredError() if self._identity(estimator) else TweedieLog(self.power_of(estimator))

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        if self._identity(estimator):
            return super().twins(estimator, n_outputs)
        return LOG_LINK_SCORES | dict.fromkeys(SQUARED_SCORES, TweedieLog(0))

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        estimator._base_loss = estimator._get_loss()
        estimator.coef_ = solution.coefficients[:, 0].copy()
        estimator.intercept_ = solution.intercepts[0] if estimator.fit_intercept else 0.0
        estimator.n_iter_ = solution.n_iter
