"""What a fitted HypernetClassifier says of new rows: labels, probabilities, entropies."""

from abc import ABC
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..core.noise.predictive import entropy_parts
from ..core.noise.state import State
from .hypernet import BaseHypernet, Uncertainty


class PredictsProbabilities(BaseHypernet, ABC):
    """Predictions of a classification: softmaxes averaged over members and draws."""

    classes_: NDArray[Any]

    def predict(self, X: ArrayLike, n_samples: int | None = None) -> NDArray[Any]:
        """Predict the most probable class.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        n_samples : int, default=None
            Number of draws of each member, at most the number made at fit; None: all.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Labels.
        """
        best = self.predict_proba(X, n_samples).argmax(1)
        return self.classes_[best]

    def predict_proba(self, X: ArrayLike, n_samples: int | None = None) -> NDArray[np.float64]:
        """Predict probabilities: the mean over members and draws of their softmaxes.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        n_samples : int, default=None
            Number of draws of each member, at most the number made at fit; None: all.

        Returns
        -------
        p : ndarray of shape (n_samples, n_classes)
            Probabilities, in the order of `classes_`.
        """
        return np.concatenate(self._reduce(X, lambda p: p.mean((0, 1)), n_samples))

    def predict_log_proba(self, X: ArrayLike, n_samples: int | None = None) -> NDArray[np.float64]:
        """Predict logarithms of probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.
        n_samples : int, default=None
            Number of draws of each member, at most the number made at fit; None: all.

        Returns
        -------
        log_p : ndarray of shape (n_samples, n_classes)
            Logarithms of `predict_proba`.
        """
        return np.log(np.maximum(self.predict_proba(X, n_samples), np.finfo(np.float64).tiny))

    def predict_proba_samples(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict the probabilities of every member and draw.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        p : ndarray of shape (n_estimators * n_draws, n_samples, n_classes)
            Probabilities; the draws of a member lie next to each other.
        """
        return np.concatenate(self._reduce(X, lambda p: p.flatten(0, 1)), axis=1)

    def predict_uncertainty(self, X: ArrayLike) -> Uncertainty:
        """Split the predictive entropy.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Data.

        Returns
        -------
        parts : Uncertainty
            Entropies in nats, each of shape (n_samples,): `total` of the predicted probabilities, `aleatoric` the
            mean of the members' own, `epistemic` the difference: the mutual information of label and member.
        """
        self._check_members()
        blocks = self._reduce(X, lambda p: torch.stack(entropy_parts(p.mean(1)), -1))
        return Uncertainty(*np.concatenate(blocks).T)

    def _reduce(
        self, X: ArrayLike, reduce: Callable[[torch.Tensor], torch.Tensor], n_samples: int | None = None
    ) -> list[NDArray[np.float64]]:
        """What `reduce` makes of each block's probabilities, (M, S, rows, C)."""

        def of_outputs(part: slice, outputs: torch.Tensor, state: State) -> torch.Tensor:
            return reduce(torch.softmax(outputs * torch.exp(-state.log_factor), -1))

        return self._collect_blocks(X, of_outputs, n_samples)
