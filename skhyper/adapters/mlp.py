"""MLPRegressor and MLPClassifier: on a batch b, (sum_{i in b} s_i l_i + alpha/2 |w|^2) / sum_{i in b} s_i.

Their own settings hold while decays are tuned: hidden layers, activation, the rule of the steps with its rates,
batch_size and shuffle; max_iter is the number of epochs from which a run's length follows. Training ends by the
held-out loss. The `lbfgs` solver has no steps during which decays could move and is refused, and the schedules
"invscaling" and "adaptive" of `sgd` are those of a fit whose end is known.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d
from torch import Tensor

from ..boundary import Granularity, to_numpy
from ..core.losses import LogLoss, Loss, MultinomialLogLoss, SquaredError, TweedieLog
from ..core.mlp import IDENTITY, LOGISTIC, MLP, RELU, TANH
from ..core.recipe import Adam, Momentum, Recipe
from .base import SQUARED_SCORES, Array, ClassifierAdapter, RegressorAdapter, Targets, match_dtype, one_hot, refuse
from .network import NetworkAdapter, NetworkGranularity

ACTIVATIONS = {"identity": IDENTITY, "logistic": LOGISTIC, "tanh": TANH, "relu": RELU}
AUTO_BATCH = 200


class NetworkSolution(NamedTuple):
    """Tuned weights of one network, and how it was trained."""

    coefficients: list[Array]  # (fan_in, fan_out) of each layer
    intercepts: list[Array]  # (fan_out,)
    losses: list[float]  # of every epoch
    n_iter: int  # epochs


class _MLPAdapter(NetworkAdapter):
    """MLPRegressor and MLPClassifier have all of this in common."""

    weighs_copies = True

    def check(self, estimator: Any) -> None:
        estimator._validate_params()
        if estimator.solver == "lbfgs":
            refuse(estimator, "solver", "decays move between steps on batches; set solver='adam' or 'sgd'.")
        if estimator.solver == "sgd" and estimator.learning_rate != "constant":
            refuse(estimator, "learning_rate", "its schedule needs an end that is known; set 'constant'.")
        if min(self.hidden_sizes(estimator), default=1) <= 0:
            raise ValueError(f"hidden_layer_sizes must be > 0, got {estimator.hidden_layer_sizes!r}.")

    def hidden_sizes(self, estimator: Any) -> tuple[int, ...]:
        """Units of the hidden layers."""
        return tuple(int(size) for size in np.atleast_1d(np.asarray(estimator.hidden_layer_sizes, dtype=np.int64)))

    def network(self, estimator: Any, n_features: int, n_outputs: int) -> MLP:
        return MLP((n_features, *self.hidden_sizes(estimator), n_outputs), ACTIVATIONS[estimator.activation])

    def granularity(self, estimator: Any, of_features: Granularity) -> NetworkGranularity:
        return NetworkGranularity(of_features, self.hidden_sizes(estimator))

    def work(self, estimator: Any, n_features: int) -> float:
        return float(n_features) * self.recipe(estimator).batch_size * max((1, *self.hidden_sizes(estimator)))

    def solution(
        self, network: MLP, w: Tensor, n_iter: int, columns: NDArray[np.int64] | None, losses: Sequence[float]
    ) -> NetworkSolution:
        layers = network.split(w)
        coefficients = [to_numpy(layer.coefficients) for layer in layers]
        if columns is not None:
            coefficients[0] = coefficients[0][columns]
        return NetworkSolution(coefficients, [to_numpy(layer.intercepts) for layer in layers], list(losses), n_iter)

    def blend(self, fitted: Any, other: Any, share: float) -> None:
        for name in ("coefs_", "intercepts_"):
            pairs = zip(getattr(fitted, name), getattr(other, name), strict=True)
            setattr(fitted, name, [here + share * (there - here) for here, there in pairs])

    def recipe(self, estimator: Any) -> Recipe:
        rate = float(estimator.learning_rate_init)
        if estimator.solver == "adam":
            descent: Any = Adam(rate, estimator.beta_1, estimator.beta_2, estimator.epsilon)
        else:
            descent = Momentum(rate, float(estimator.momentum), bool(estimator.nesterovs_momentum))
        batch_size = AUTO_BATCH if estimator.batch_size == "auto" else int(estimator.batch_size)
        patience = int(min(estimator.n_iter_no_change, estimator.max_iter)) if estimator.early_stopping else None
        return Recipe(descent, batch_size, estimator.max_iter, patience, bool(estimator.shuffle))

    def start(self, estimator: Any, network: MLP, random_state: np.random.RandomState) -> Array:
        parts = []
        for fan_in, fan_out in zip(network.sizes, network.sizes[1:], strict=False):
            bound = np.sqrt(network.activation.gain / (fan_in + fan_out))
            parts += [
                random_state.uniform(-bound, bound, fan_in * fan_out),
                random_state.uniform(-bound, bound, fan_out),
            ]
        return np.concatenate(parts)

    def store(self, estimator: Any, solution: Any, x: Any, y: Any, classes: Any) -> None:
        trained: NetworkSolution = solution
        estimator.coefs_ = [match_dtype(c, x) for c in trained.coefficients]
        estimator.intercepts_ = [match_dtype(c, x) for c in trained.intercepts]
        estimator.n_layers_ = len(estimator.coefs_) + 1
        estimator.n_outputs_ = len(estimator.intercepts_[-1])
        estimator.n_iter_ = trained.n_iter
        estimator.t_ = trained.n_iter * x.shape[0]
        estimator.loss_curve_ = list(trained.losses)
        estimator.loss_ = trained.losses[-1] if trained.losses else np.nan
        estimator.best_loss_ = None if estimator.early_stopping else min(trained.losses, default=np.inf)
        estimator.validation_scores_ = [] if estimator.early_stopping else None
        estimator.best_validation_score_ = -np.inf if estimator.early_stopping else None
        estimator._no_improvement_count = 0
        estimator._random_state = np.random.RandomState(trained.n_iter)
        estimator._best_coefs = [c.copy() for c in estimator.coefs_]
        estimator._best_intercepts = [c.copy() for c in estimator.intercepts_]


class MLPRegressorAdapter(_MLPAdapter, RegressorAdapter):
    """MLPRegressor; squared error summed over outputs, or Poisson with a log link."""

    multi_output = True

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        x, y = super().read(estimator, x, y)
        return x, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return TweedieLog(1.0) if self._poisson(estimator) else SquaredError()

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        if self._poisson(estimator):
            return {"neg_mean_poisson_deviance": TweedieLog(1.0), **dict.fromkeys(SQUARED_SCORES, TweedieLog(0.0))}
        return super().twins(estimator, n_outputs)

    def store(self, estimator: Any, solution: Any, x: Any, y: Any, classes: Any) -> None:
        super().store(estimator, solution, x, y, classes)
        estimator.out_activation_ = "exp" if self._poisson(estimator) else "identity"

    def _poisson(self, estimator: Any) -> bool:
        return estimator.loss == "poisson"


class MLPClassifierAdapter(_MLPAdapter, ClassifierAdapter):
    """MLPClassifier; log-loss of two classes, of several, or of each label."""

    multi_output = True

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        rows = np.ones(len(train)) if sample_weight is None else sample_weight[train]
        return Targets(one_hot(y, classes), rows)

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return LogLoss() if n_outputs == 1 else MultinomialLogLoss()

    def losses(self, estimator: Any, y: Any, n_outputs: int, scoring: str | None) -> tuple[Loss, Loss]:
        several_labels = y.ndim == 2 and y.shape[1] > 1
        return (LogLoss(), LogLoss()) if several_labels else super().losses(estimator, y, n_outputs, scoring)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return {"neg_log_loss": self.loss(estimator, n_outputs)}

    def store(self, estimator: Any, solution: Any, x: Any, y: Any, classes: NDArray[Any]) -> None:
        super().store(estimator, solution, x, y, classes)
        estimator._label_binarizer = LabelBinarizer().fit(classes if y.ndim == 1 else y)
        estimator.classes_ = estimator._label_binarizer.classes_
        estimator.out_activation_ = "softmax" if estimator._label_binarizer.y_type_ == "multiclass" else "logistic"
