"""What an adapter knows about one scikit-learn estimator.

Every supported estimator minimises, in the core's scales,

    sum_i c_i loss(f_i, y_i) + 1/2 sum_j a_j w_j^2

An adapter says which loss and row weights c that is, how the estimator's own hyperparameter becomes `a`, which core
loss is the twin of a score, and how tuned weights become a fitted estimator of the user's own class.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d, validate_data

from ..core.losses import Loss, SquaredError

Array = NDArray[np.float64]

# Scores that rank models as their mean squared error does.
SQUARED_SCORES = ("r2", "neg_mean_squared_error", "neg_root_mean_squared_error", "explained_variance")


class Targets(NamedTuple):
    """One fold's targets for all rows, and the weights of its training rows in the estimator's own unit."""

    values: Array  # (n, T)
    rows: Array  # (n_train,)


class Solution(NamedTuple):
    """Tuned weights of one network."""

    coefficients: Array  # (p, T)
    intercepts: Array  # (T,)
    constants: Array  # (C,)
    n_iter: int


class Adapter(ABC):
    """One estimator class as an inner objective, and back.

    A subclass says what the class's settings mean; `RegressorAdapter` and `ClassifierAdapter` (in the same module) know
    about targets and labels already, so that often `check`, `loss` and `store` are all that is left to write.

    Attributes
    ----------
    parameter : str
        The constructor argument that holds the strength of the decay.
    reciprocal : bool
        Whether that argument is 1 / alpha.
    multi_output : bool
        Whether y may have several columns.

    See Also
    --------
    register : Lets an adapter serve an estimator class.

    Examples
    --------
    A ridge regression whose author calls the decay `strength`:

    >>> from sklearn.linear_model import Ridge
    >>> from skhyper.adapters import RidgeAdapter, adapter_for, register
    >>> class StrongRidge(Ridge):
    ...     def __init__(self, strength=1.0, fit_intercept=True, solver="auto", positive=False):
    ...         super().__init__(strength, fit_intercept=fit_intercept, solver=solver, positive=positive)
    ...         self.strength = strength
    >>> class StrongRidgeAdapter(RidgeAdapter):
    ...     parameter = "strength"
    >>> register(StrongRidge, StrongRidgeAdapter())
    >>> adapter_for(StrongRidge()).parameter
    'strength'
    """

    parameter: ClassVar[str] = "alpha"
    reciprocal: ClassVar[bool] = False
    multi_output: ClassVar[bool] = False

    def value(self, alpha: float) -> float:
        """Turn a decay into the estimator's hyperparameter.

        Parameters
        ----------
        alpha : float
            The core's decay, positive.

        Returns
        -------
        value : float
            What the estimator's constructor takes.
        """
        return 1 / alpha if self.reciprocal else alpha

    def alpha(self, value: float) -> float:
        """Turn the estimator's hyperparameter into a decay.

        Parameters
        ----------
        value : float
            What the estimator's constructor takes, positive.

        Returns
        -------
        alpha : float
            The core's decay.
        """
        return 1 / value if self.reciprocal else value

    @abstractmethod
    def check(self, estimator: Any) -> None:
        """Refuse settings that have no differentiable L2 objective.

        Parameters
        ----------
        estimator : estimator
            With its settings.

        Raises
        ------
        TypeError
            With the setting's name, its value, and what to change.
        """

    @abstractmethod
    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Validate training data as the estimator's own fit does.

        Parameters
        ----------
        estimator : estimator
            Gets n_features_in_ and, where X has names, feature_names_in_.
        x : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.

        Returns
        -------
        x : {ndarray, csr matrix} of shape (n_samples, n_features)
            Float data.
        y : ndarray of shape (n_samples,) or (n_samples, n_outputs)
            Targets, or labels as they are.
        """

    @abstractmethod
    def classes(self, estimator: Any, y: Any) -> NDArray[Any] | None:
        """Learn the class labels.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        y : ndarray
            All rows' labels.

        Returns
        -------
        classes : ndarray or None
            Sorted labels; None for a regressor.
        """

    @abstractmethod
    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        """Encode the targets of a fold, and the weights of its training rows.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        y : ndarray of shape (n,) or (n, n_outputs)
            As `read` returned it, all rows.
        classes : ndarray or None
            As `classes` returned it.
        train : ndarray of int
            Rows that the fold trains on; no other row may influence the weights.
        sample_weight : ndarray of shape (n,) or None
            Weights of all rows.

        Returns
        -------
        targets : Targets
            `values` of shape (n, T), and `rows`, the weights c_i of the training rows in the estimator's own unit: a
            mean loss has rows that sum to one.
        """

    @abstractmethod
    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        """Give the loss that the estimator minimises.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        n_outputs : int
            T.

        Returns
        -------
        loss : Loss
            Of the core.
        """

    def own_outer(self, estimator: Any, n_outputs: int) -> Loss:
        """Give the loss of held-out rows where the score has no differentiable twin.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        n_outputs : int
            T.

        Returns
        -------
        loss : Loss
            The estimator's own, unless overridden.
        """
        return self.loss(estimator, n_outputs)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        """Give the scores that have a differentiable twin.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        n_outputs : int
            T.

        Returns
        -------
        twins : mapping of str to Loss
            Scoring name -> loss, which ranks models as the score does.
        """
        return {}

    def outer(self, estimator: Any, n_outputs: int, scoring: str | None) -> Loss:
        """Choose the outer loss for a score.

        Parameters
        ----------
        estimator : estimator
            With its settings.
        n_outputs : int
            T.
        scoring : str or None
            Name of the score that decides, if it has one.

        Returns
        -------
        loss : Loss
            The twin, or the estimator's own.
        """
        twin = self.twins(estimator, n_outputs).get(scoring or "")
        return self.own_outer(estimator, n_outputs) if twin is None else twin

    def column(self, estimator: Any) -> float | None:
        """Give the constant column of an intercept that the estimator penalises.

        Parameters
        ----------
        estimator : estimator
            With its settings.

        Returns
        -------
        value : float or None
            The column's value; None where the intercept carries no decay.
        """
        return None

    def callbacks(self, estimator: Any) -> list[str]:
        """Name the callbacks that the estimator's own fit would call, and a search does not.

        Parameters
        ----------
        estimator : estimator
            With its settings.

        Returns
        -------
        names : list of str
            Names of their classes.
        """
        return [type(callback).__name__ for callback in getattr(estimator, "_skl_callbacks", [])]

    @abstractmethod
    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        """Set the attributes that the estimator's own fit sets.

        Parameters
        ----------
        estimator : estimator
            As `read` left it.
        solution : Solution
            Coefficients (p, T), intercepts (T,), constants (C,) and n_iter.
        x, y : ndarray
            What the estimator would have been fitted to.
        classes : ndarray or None
            As `classes` returned it.
        """


class RegressorAdapter(Adapter):
    """Targets are y itself; each row's weight is its sample weight."""

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        x, y = validate_data(
            estimator,
            x,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            y_numeric=True,
            multi_output=self.multi_output,
        )
        return x, np.asarray(y, dtype=np.float64)

    def classes(self, estimator: Any, y: Any) -> None:
        return None

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        rows = np.ones(len(train)) if sample_weight is None else sample_weight[train]
        return Targets(y.reshape(len(y), -1), rows)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return dict.fromkeys(SQUARED_SCORES, SquaredError())


class ClassifierAdapter(Adapter):
    """Targets are labels, encoded as `codes` does; class weights act as `targets` says."""

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        x, y = validate_data(
            estimator,
            x,
            y,
            accept_sparse="csr",
            dtype=[np.float64, np.float32],
            multi_output=self.multi_output,
        )
        check_classification_targets(y)
        return x, y if self.multi_output and y.ndim == 2 and y.shape[1] > 1 else column_or_1d(y, warn=True)

    def classes(self, estimator: Any, y: Any) -> NDArray[Any]:
        classes = np.unique(y) if y.ndim == 1 else np.arange(y.shape[1])
        if len(classes) < 2:
            name, label = type(estimator).__name__, classes.tolist()[0]
            raise ValueError(f"{name} needs samples of at least 2 classes in y, got one class: {label!r}.")
        return classes


def refuse(estimator: Any, setting: str, reason: str) -> None:
    """Raise the TypeError that names a setting, its value and what to change."""
    name = type(estimator).__name__
    raise TypeError(f"{name}({setting}={getattr(estimator, setting)!r}) cannot be tuned by hypergradients: {reason}")


def one_hot(y: NDArray[Any], classes: NDArray[Any]) -> Array:
    """0/1 targets: (n, 1) for two classes, with 1 for the second; (n, T) for more; multilabel y stays as it is."""
    if y.ndim == 2:
        return np.asarray(y, dtype=np.float64)
    codes = np.searchsorted(classes, y)
    return codes[:, None].astype(np.float64) if len(classes) == 2 else np.eye(len(classes))[codes]


def signs(y: NDArray[Any], classes: NDArray[Any]) -> Array:
    """-1/+1 targets, shaped as in `one_hot`."""
    return 2 * one_hot(y, classes) - 1


def match_dtype(values: Array, x: Any) -> NDArray[Any]:
    """Coefficients in float32 where their estimator would keep X's."""
    return values.astype(np.float32) if x.dtype == np.float32 else values
