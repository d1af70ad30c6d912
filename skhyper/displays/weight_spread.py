"""How far the weights of a hypernetwork spread as it is trained."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..adapters.unwrap import inner_with
from .axes import get_axes


class WeightSpreadDisplay:
    """Mean over the weights of their standard deviation over draws of the noise, along the training.

    The quantity of Figure 2 of Sheikh et al. (2017), arXiv:1712.01141.

    Parameters
    ----------
    spread : ndarray of shape (n_evaluations,)
        In the unit of the weights.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        Of `ax_`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from skhyper import HypernetRegressor
    >>> from skhyper.displays import WeightSpreadDisplay
    >>> model = HypernetRegressor(n_estimators=1, max_iter=5, random_state=0).fit(*load_diabetes(return_X_y=True))
    >>> display = WeightSpreadDisplay.from_estimator(model)  # doctest: +SKIP
    """

    def __init__(self, spread: Any) -> None:
        self.spread = spread

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "WeightSpreadDisplay":
        """Draw the curve of a fitted network.

        Parameters
        ----------
        estimator : HypernetRegressor or HypernetClassifier
            Fitted; it may be the last step of a pipeline, or found by a search.
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : WeightSpreadDisplay
            Drawn.
        """
        check_is_fitted(estimator)
        inner, _ = inner_with(estimator, None, "weight_spread_curve_")
        return cls(inner.weight_spread_curve_).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "WeightSpreadDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : WeightSpreadDisplay
            Itself.
        """
        (self.ax_,) = get_axes(ax)
        self.figure_ = self.ax_.figure
        self.ax_.plot(np.arange(1, len(self.spread) + 1), self.spread)
        self.ax_.set(xlabel="evaluation", ylabel="standard deviation over draws,\nmean over weights")
        self.ax_.set_ylim(bottom=0)
        return self
