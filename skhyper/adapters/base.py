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
    """An estimator class as an inner objective and back.

    Attributes
    ----------
    parameter : str
        The constructor argument that holds the strength of the decay.
    reciprocal : bool
        Whether that argument is 1 / alpha.
    twins : mapping of str to Loss
        For scoring names, the loss that is their differentiable twin.
    """

    parameter: ClassVar[str] = "alpha"
    reciprocal: ClassVar[bool] = False
    multi_output: ClassVar[bool] = False

    def value(self, alpha: float) -> float:
        """The estimator's hyperparameter for a decay."""
        return 1 / alpha if self.reciprocal else alpha

    def alpha(self, value: float) -> float:
        """The decay for a value of the estimator's hyperparameter."""
        return 1 / value if self.reciprocal else value

    @abstractmethod
    def check(self, estimator: Any) -> None:
        """Raise TypeError for a setting without a differentiable L2 objective: its name, its value, what to change."""

    @abstractmethod
    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Validate the training data; leaves n_features_in_ and feature_names_in_ on the estimator."""

    @abstractmethod
    def classes(self, estimator: Any, y: Any) -> NDArray[Any] | None:
        """The class labels in y; None for a regressor."""

    @abstractmethod
    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        """The targets of a fold that trains on the rows `train` of y.

        Parameters
        ----------
        estimator : estimator
            Its settings.
        y : array of shape (n,) or (n, T)
            As `read` returned it.
        classes : array or None
            As `classes` returned it, for all rows.
        train : array of int
            Rows that the fold trains on; only they may influence its weights.
        sample_weight : array of shape (n,) or None
        """

    @abstractmethod
    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        """The inner loss."""

    def own_outer(self, estimator: Any, n_outputs: int) -> Loss:
        """The loss of held-out rows where the score has no differentiable twin."""
        return self.loss(estimator, n_outputs)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        """Scoring name -> the loss that is its differentiable twin."""
        return {}

    def outer(self, estimator: Any, n_outputs: int, scoring: str | None) -> Loss:
        """The outer loss for a score."""
        twin = self.twins(estimator, n_outputs).get(scoring or "")
        return self.own_outer(estimator, n_outputs) if twin is None else twin

    def column(self, estimator: Any) -> float | None:
        """The constant column of an intercept that the estimator penalises; None elsewhere."""
        return None

    @abstractmethod
    def store(self, estimator: Any, solution: Solution, x: Any, y: Any, classes: Any) -> None:
        """Set the attributes that the estimator's own fit sets, on the data that it would have been fitted to."""


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
