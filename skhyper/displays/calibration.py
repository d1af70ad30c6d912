"""Whether predicted intervals hold as many observations as they promise."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..adapters.unwrap import inner_with
from .axes import get_axes


class CalibrationDisplay:
    """Observed against nominal coverage of central intervals, for regression.

    A central interval of coverage c holds y where |2 F(y) - 1| <= c, with F the predictive distribution function. The
    band is that of 19 in 20 samples of this size from a calibrated model, point by point.

    Parameters
    ----------
    levels : ndarray of shape (n_samples,)
        Sorted |2 F(y) - 1|: the nominal coverage of the interval that ends at each observation.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        Of `ax_`.

    References
    ----------
    Kuleshov, Fenner and Ermon (2018): Accurate uncertainties for deep learning using calibrated regression.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skhyper import HypernetRegressor
    >>> from skhyper.displays import CalibrationDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = HypernetRegressor(n_estimators=1, max_iter=5, random_state=0).fit(X[:300], y[:300])
    >>> display = CalibrationDisplay.from_estimator(model, X[300:], y[300:])  # doctest: +SKIP
    """

    def __init__(self, levels: Any) -> None:
        self.levels = levels

    @classmethod
    def from_estimator(cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, ax: Any = None) -> "CalibrationDisplay":
        """Draw the coverage on rows that the network was not fitted to.

        Parameters
        ----------
        estimator : HypernetRegressor
            Fitted, with one target; it may be the last step of a pipeline, or found by a search.
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,)
            Observations.
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : CalibrationDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        inner, x = inner_with(estimator, X, "cdf")
        levels = inner.cdf(x, column_or_1d(y)).ravel()
        return cls(np.sort(np.abs(2 * levels - 1))).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "CalibrationDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : CalibrationDisplay
            Itself.
        """
        (self.ax_,) = get_axes(ax)
        self.figure_ = self.ax_.figure
        n = len(self.levels)
        nominal = np.linspace(0, 1, 101)
        width = 1.96 * np.sqrt(nominal * (1 - nominal) / n)
        self.ax_.fill_between(nominal, nominal - width, nominal + width, color="0.85", lw=0, label="calibrated, 95 %")
        self.ax_.plot([0, 1], [0, 1], color="0.5", lw=0.8)
        observed = np.arange(1, n + 1) / n
        self.ax_.step(self.levels, observed, where="post", label=f"{n} rows")
        self.ax_.set(xlabel="nominal coverage", ylabel="observed coverage", xlim=(0, 1), ylim=(0, 1))
        self.ax_.legend(fontsize="small")
        return self
