"""Predictions with their intervals beside what was observed."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.validation import check_is_fitted, column_or_1d

from ..adapters.unwrap import inner_with
from .axes import get_axes


class PredictionIntervalDisplay:
    """Predicted means, central intervals and observations.

    Parameters
    ----------
    x : ndarray of shape (n_samples,)
        Positions on the horizontal axis, in any order.
    y : ndarray of shape (n_samples,)
        Observations.
    mean : ndarray of shape (n_samples,)
        Predicted means.
    interval : ndarray of shape (n_samples, 2)
        Lower and upper ends.
    coverage : float
        Nominal coverage, in (0, 1).
    xlabel : str
        What the positions are.

    Attributes
    ----------
    covered_ : float
        Share of the observations inside of their intervals.
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        Of `ax_`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skhyper import HypernetRegressor
    >>> from skhyper.displays import PredictionIntervalDisplay
    >>> X, y = load_diabetes(return_X_y=True)
    >>> model = HypernetRegressor(n_estimators=1, max_iter=5, random_state=0).fit(X[:300], y[:300])
    >>> display = PredictionIntervalDisplay.from_estimator(model, X[300:], y[300:])  # doctest: +SKIP
    """

    def __init__(self, x: Any, y: Any, mean: Any, interval: Any, coverage: float, xlabel: str) -> None:
        self.x = x
        self.y = y
        self.mean = mean
        self.interval = interval
        self.coverage = coverage
        self.xlabel = xlabel

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: ArrayLike, y: ArrayLike, *, coverage: float = 0.9, ax: Any = None
    ) -> "PredictionIntervalDisplay":
        """Draw against the feature where there is one, else in the order of the predicted means.

        Parameters
        ----------
        estimator : HypernetRegressor
            Fitted, with one target; it may be the last step of a pipeline, or found by a search.
        X : array-like of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,)
            Observations.
        coverage : float, default=0.9
            Nominal coverage of the intervals, in (0, 1).
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : PredictionIntervalDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        inner, seen = inner_with(estimator, X, "predict_interval")
        y = inner._check_targets(seen, column_or_1d(y)).numpy()[:, 0]
        mean, interval = inner.predict(seen).ravel(), inner.predict_interval(seen, coverage=coverage).reshape(-1, 2)
        rows = np.asarray(X)
        if rows.shape[1] == 1:
            x, xlabel = rows[:, 0], "feature"
        else:
            x, xlabel = np.argsort(np.argsort(mean, kind="stable")), "rows by predicted mean"
        return cls(x, y, mean, interval, coverage, xlabel).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "PredictionIntervalDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : PredictionIntervalDisplay
            Itself.
        """
        (self.ax_,) = get_axes(ax)
        self.figure_ = self.ax_.figure
        order = np.argsort(self.x, kind="stable")
        x, y, mean = self.x[order], self.y[order], self.mean[order]
        low, high = self.interval[order].T
        inside = (low <= y) & (y <= high)
        self.covered_ = float(inside.mean())
        self.ax_.fill_between(x, low, high, alpha=0.25, lw=0, label=f"{self.coverage:.0%} interval")
        self.ax_.plot(x, mean, lw=1, label="predicted mean")
        self.ax_.plot(x[inside], y[inside], "k.", ms=3, label=f"inside: {self.covered_:.1%}")
        self.ax_.plot(x[~inside], y[~inside], "x", color="tab:red", ms=4, label="outside")
        self.ax_.set(xlabel=self.xlabel, ylabel="target")
        self.ax_.legend(fontsize="small")
        return self
