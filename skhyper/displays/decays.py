"""Decays by name, or as an image."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .axes import get_axes


class DecayDisplay:
    """The tuned decays: a bar each, or for pixels a picture.

    Parameters
    ----------
    names : list
        What each decay is called.
    decays : ndarray of shape (n_decays,)
        Positive; infinite where weights are exact zeros.
    image_shape : tuple of int or None, default=None
        Rows and columns of the picture that the features are the pixels of.

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
    >>> from skhyper.displays import DecayDisplay
    >>> search = HyperTrainingSearchCV(Ridge()).fit(*load_diabetes(return_X_y=True))
    >>> display = DecayDisplay.from_estimator(search)  # doctest: +SKIP
    """

    def __init__(self, names: Any, decays: Any, image_shape: Any = None) -> None:
        self.names = names
        self.decays = decays
        self.image_shape = image_shape

    @classmethod
    def from_estimator(cls, estimator: Any, *, image_shape: Any = None, ax: Any = None) -> "DecayDisplay":
        """Draw the decays of a fitted search.

        Parameters
        ----------
        estimator : HyperTrainingSearchCV
            Fitted, with `alphas_`.
        image_shape : tuple of int, default=None
            Rows and columns: the first rows * columns decays are drawn as a picture.
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : DecayDisplay
            Drawn.
        """
        check_is_fitted(estimator, "alphas_")
        decays = np.array(list(estimator.alphas_.values()), dtype=np.float64)
        return cls(list(estimator.alphas_), decays, image_shape).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> "DecayDisplay":
        """Draw.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; new ones if None.

        Returns
        -------
        display : DecayDisplay
            Itself.

        Raises
        ------
        ValueError
            If there are fewer decays than the picture has pixels.
        """
        logs = np.log10(np.where(np.isinf(self.decays), np.nan, self.decays))
        if self.image_shape is not None and len(logs) < np.prod(self.image_shape):
            raise ValueError(f"image_shape={self.image_shape!r} has more pixels than the {len(logs)} decays.")
        (self.ax_,) = get_axes(ax)
        self.figure_ = self.ax_.figure
        if self.image_shape is not None:
            picture = self.ax_.imshow(logs[: int(np.prod(self.image_shape))].reshape(self.image_shape))
            self.figure_.colorbar(picture, ax=self.ax_, label="log10 of the decay")
            return self
        self.ax_.plot(np.arange(len(logs)), self.decays, "o", ms=4)
        self.ax_.set(yscale="log", ylabel="decay")
        gone = np.flatnonzero(np.isinf(self.decays))
        if len(gone):
            top = self.ax_.get_xaxis_transform()  # vertical positions as shares of the height
            self.ax_.plot(
                gone, np.full(len(gone), 0.98), "^", color="0.7", ms=4, transform=top, label="weights are zero"
            )
            self.ax_.legend(fontsize="small")
        if len(logs) <= 30:
            self.ax_.set_xticks(np.arange(len(logs)), [str(name) for name in self.names], rotation=60, ha="right")
        return self
