"""Estimators that train themselves at several alphas at once, and have no problem that algorithms could work on."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Never

from numpy.typing import NDArray

from ..core.losses import Loss
from .base import Adapter, Array, Solution, Targets


class SelfTrainedAdapter(Adapter):
    """An adapter by which a search scans alphas; the estimator's own fit makes the weights."""

    @abstractmethod
    def fit_alphas(self, estimator: Any, x: Any, y: Any, sample_weight: Array | None, alphas: Sequence[float]) -> Any:
        """Fit the estimator at several alphas.

        Parameters
        ----------
        estimator : estimator
            Unfitted; it may be changed.
        x, y : array-like
            Training rows.
        sample_weight : ndarray or None
            Their weights.
        alphas : sequence of float
            Decays.

        Returns
        -------
        fitted : list of estimators
            One for each alpha, with that alpha among its parameters.
        """

    @abstractmethod
    def held_out_loss(self, fitted: Any, x: Any, y: Any, sample_weight: Array | None) -> float:
        """Judge a fitted estimator by rows that it was not fitted to.

        Parameters
        ----------
        fitted : estimator
            One that `fit_alphas` gave.
        x, y : array-like
            Held-out rows.
        sample_weight : ndarray or None
            Their weights.

        Returns
        -------
        loss : float
            Weighted mean.
        """

    def targets(self, estimator: Any, y: Any, classes: Any, train: NDArray[Any], sample_weight: Any) -> Targets:
        """Refuse: the estimator encodes its own targets."""
        self._refuse(estimator)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        """Refuse: the estimator's objective is no sum of a core loss."""
        self._refuse(estimator)

    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        """Refuse: the estimator stores what it learns itself."""
        self._refuse(estimator)

    def _refuse(self, estimator: Any) -> Never:
        raise TypeError(f"{type(estimator).__name__} trains itself; it can be tuned by HyperTrainingSearchCV only.")
