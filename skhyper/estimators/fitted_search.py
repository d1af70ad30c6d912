"""What a fitted search answers beside GridSearchCV's methods."""

import numpy as np
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from ..adapters.registry import adapter_for
from ..adapters.unwrap import final_estimator, unwrap
from .response import check_alphas, interpolate, moved_estimator
from .scaling import keep_decays


class FittedSearch:
    """The questions that need no training rows: other alphas, and the tuned decays as an estimator of their own."""

    def _check_refitted(self, method):
        check_is_fitted(self, "n_splits_")
        if not hasattr(self, "best_estimator_"):
            raise AttributeError(f"{method} needs the model of all rows, but refit={self.refit!r}; set refit=True.")

    def validation_curve(self, alphas):
        """Held-out loss at other alphas, without any training.

        Parameters
        ----------
        alphas : array-like of shape (n_alphas,)
            Global alphas in the core's unit: the estimator's own alpha, or 1 / C; finer decays move along with it.

        Returns
        -------
        losses : ndarray of shape (n_alphas,)
            Mean outer loss over folds: by the best response for neural networks, interpolated between the points where
            alpha was tuned for linear models, with the exponent of the chosen row; these are a factor of 4.5 apart, so
            that it may be off by a tenth where it is steep. Of free decays, of an exponent that was tuned and of
            averages it is that of the global alpha. Outside of `response_range_` it is that of the nearest end, with a
            warning.
        """
        check_is_fitted(self, "response_range_")
        values = check_alphas(alphas, self.response_range_)
        return interpolate(self._curve, np.log(values))

    def best_response(self, alpha):
        """The network at another alpha, without any training.

        Parameters
        ----------
        alpha : float
            Global alpha; finer decays move along with it. Outside of `response_range_` a warning says so.

        Returns
        -------
        estimator : estimator
            `best_estimator_` with its weights moved along their derivative by log alpha.

        Raises
        ------
        AttributeError
            If the search was not refitted.
        ValueError
            If the model is linear, where `set_params` and `fit` are exact and fast.
        """
        self._check_refitted("best_response")
        if not hasattr(self, "_moved"):
            name = type(final_estimator(self.best_estimator_)).__name__
            raise ValueError(
                f"best_response is for neural networks whose decays moved while they were trained; {name} is fitted at "
                "another alpha by set_params and fit."
            )
        (value,) = check_alphas(alpha, self.response_range_)
        (name, tuned), *_ = self.best_params_.items()
        moved = moved_estimator(self.best_estimator_, self._moved, float(np.log(value / tuned)))
        moved.set_params(**{name: float(value)})
        final = final_estimator(moved)  # a fitted net of skorch's hands this on to its optimizer alone
        setattr(final, adapter_for(final).parameter, float(value))
        return moved

    def refit_estimator(self):
        """An unfitted Pipeline of column scaling and estimator that keeps the tuned decays of features.

        Returns
        -------
        pipeline : estimator
            The user's estimator with the columns scaled before its final step; `fit` on the training rows gives the
            coefficients of `best_estimator_` times what the columns were divided by, and `clone` keeps the decays.
            Columns whose decay is infinite are multiplied by zero.

        Raises
        ------
        AttributeError
            If the search was not refitted.
        ValueError
            If a feature's weights do not share one decay.
        """
        self._check_refitted("refit_estimator")
        if self._feature_decays is None:
            raise ValueError(
                f"refit_estimator needs one decay for each feature, but granularity={self.granularity!r} gives the "
                "weights of a feature different ones."
            )
        leaf = unwrap(self.estimator).estimator
        adapter, ((name, value),) = adapter_for(leaf), self.best_params_.items()
        least = self._feature_decays.min()
        if np.isfinite(least) and adapter.column(leaf) is None:  # a family's alpha may be far from all decays
            value = adapter.value(float(least))
        factors = np.sqrt(adapter.alpha(value) / self._feature_decays)
        return keep_decays(clone(self.estimator).set_params(**{name: value}), factors)
