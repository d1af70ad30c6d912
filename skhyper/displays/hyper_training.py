"""Losses and decays against time."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .axes import get_axes


class HyperTrainingDisplay:
    """Held-out loss and alpha against seconds, one colour a stage.

    Parameters
    ----------
    history : dict of str to list
        As `history_` of a fitted search.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        Of the loss, and of alpha.
    figure_ : matplotlib Figure
        Of `axes_`.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from skhyper import HyperTrainingSearchCV
    >>> from skhyper.displays import HyperTrainingDisplay
    >>> search = HyperTrainingSearchCV(Ridge()).fit(*load_diabetes(return_X_y=True))
    >>> display = HyperTrainingDisplay.from_estimator(search)  # doctest: +SKIP
    """

    def __init__(self, history: Any) -> None:
        self.history = history

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> "HyperTrainingDisplay":
        """Draw the history of a fitted search.

        Parameters
        ----------
        estimator : HyperTrainingSearchCV
            Fitted.
        ax : sequence of two matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : HyperTrainingDisplay
            Drawn.
        """
        check_is_fitted(estimator, "history_")
        return cls(estimator.history_).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "HyperTrainingDisplay":
        """Draw.

        Parameters
        ----------
        ax : sequence of two matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : HyperTrainingDisplay
            Itself.
        """
        self.axes_ = get_axes(ax, 2)
        self.figure_ = self.axes_[0].figure
        stages = np.asarray(self.history["stage"])
        columns = {name: np.asarray(self.history[name]) for name in ("seconds", "value", "log_alpha")}
        for stage in dict.fromkeys(stages.tolist()):
            here = stages == stage
            seconds = columns["seconds"][here]
            self.axes_[0].plot(seconds, columns["value"][here], ".-", ms=3, lw=0.8, label=stage)
            self.axes_[1].plot(seconds, np.exp(columns["log_alpha"][here]), ".-", ms=3, lw=0.8)
        self.axes_[0].set(ylabel="held-out loss")
        self.axes_[0].legend(fontsize="small")
        self.axes_[1].set(yscale="log", ylabel="alpha", xlabel="seconds")
        return self
