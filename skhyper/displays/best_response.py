"""The held-out loss against alpha."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..adapters.registry import adapter_for
from ..adapters.unwrap import unwrap
from .axes import get_axes


class BestResponseDisplay:
    """Held-out loss along alpha by the best response, and the points that the search evaluated.

    Parameters
    ----------
    alphas : ndarray of shape (n_alphas,)
        Ascending, positive.
    losses : ndarray of shape (n_alphas,)
        Mean outer loss over folds.
    evaluated : tuple of two ndarrays
        Alphas and outer losses of the search's own evaluations; empty for neural networks, whose weights are not those
        of any one alpha before the end.
    best_alpha : float
        The tuned alpha.

    Attributes
    ----------
    ax_ : matplotlib Axes
        Where it is drawn.
    figure_ : matplotlib Figure
        Of `ax_`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from skhyper import HyperTrainingSearchCV
    >>> from skhyper.displays import BestResponseDisplay
    >>> search = HyperTrainingSearchCV(Ridge(), granularity="global").fit(*load_diabetes(return_X_y=True))
    >>> display = BestResponseDisplay.from_estimator(search)  # doctest: +SKIP
    """

    def __init__(self, alphas: Any, losses: Any, evaluated: Any, best_alpha: float) -> None:
        self.alphas = alphas
        self.losses = losses
        self.evaluated = evaluated
        self.best_alpha = best_alpha

    @classmethod
    def from_estimator(cls, estimator: Any, *, n_alphas: int = 100, ax: Any = None) -> "BestResponseDisplay":
        """Draw the curve of a fitted search.

        Parameters
        ----------
        estimator : HyperTrainingSearchCV
            Fitted.
        n_alphas : int, default=100
            Points of the curve.
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : BestResponseDisplay
            Drawn.
        """
        if not hasattr(estimator, "validation_curve"):
            raise TypeError(f"estimator must be a HyperTrainingSearchCV, got a {type(estimator).__name__}.")
        check_is_fitted(estimator, "response_range_")
        alphas = np.geomspace(*estimator.response_range_, n_alphas)
        evaluated = np.exp(estimator._curve[0]), estimator._curve[1]
        if hasattr(estimator, "hypergradient_cosine_"):
            evaluated = np.empty(0), np.empty(0)  # a network's weights had not answered to the alphas on the way
        adapter = adapter_for(unwrap(estimator.estimator).estimator)
        best = float(adapter.alpha(*estimator.best_params_.values()))
        return cls(alphas, estimator.validation_curve(alphas), evaluated, best).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "BestResponseDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : BestResponseDisplay
            Itself.
        """
        (self.ax_,) = get_axes(ax)
        self.figure_ = self.ax_.figure
        self.ax_.plot(self.alphas, self.losses, label="best response")
        if len(self.evaluated[0]):
            self.ax_.plot(*self.evaluated, "x", color="grey", ms=4, label="evaluated in the search")
        self.ax_.axvline(self.best_alpha, lw=0.8, ls="--", color="grey")
        self.ax_.set(xscale="log", xlabel="alpha", ylabel="held-out loss")
        self.ax_.legend()
        return self
