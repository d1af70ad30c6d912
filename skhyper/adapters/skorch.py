"""skorch's NeuralNetRegressor, NeuralNetClassifier and NeuralNetBinaryClassifier, with any module.

On a batch b the objective is the criterion's mean over b + alpha/2 |w|^2 with alpha = `optimizer__weight_decay`, over
all parameters, biases too, as torch has it; parameters in `optimizer__param_groups` with a weight_decay of 0 have no
decay. The net's own settings hold while decays are tuned: module, criterion, optimizer and rate, batches, max_epochs.

Callbacks are not called, which a warning says; EarlyStopping's patience holds, and those that change the training are
refused.
`train_split` holds out nothing: the search has its own held-out rows, and the final network sees all.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
import skorch
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import clone
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from torch import Tensor, nn

from ..boundary import Granularity, users_torch
from ..core.losses import Huber, LogLoss, Loss, MultinomialLogLoss, Rescaled, SquaredError, TweedieLog
from ..core.module_network import ModuleNetwork
from ..core.recipe import Recipe
from ..core.training import n_batches
from .base import SQUARED_SCORES, Array, Targets, one_hot
from .module import ModuleGranularity, ModuleSolution, module_network, trained_parameters
from .network import NetworkAdapter
from .skorch_settings import check_training, criterion_of, descent_of, early_stopping, loading_of, uncalled, undecayed

WHOLE = 2**31  # rows of a batch of size -1
ROWS = 2  # on which a module is tried


class SkorchAdapter(NetworkAdapter):
    """What the three have in common."""

    parameter = "optimizer__weight_decay"
    fixed_columns = True
    length, rate = "max_epochs", "lr"
    served: ClassVar[type]  # the class of skorch
    criteria: ClassVar[tuple[type[nn.Module], ...]]

    def check(self, estimator: Any) -> None:
        check_training(estimator, self.served)
        criterion_of(estimator, self.criteria)
        descent_of(estimator)
        undecayed(estimator)
        early_stopping(estimator)
        if not isinstance(estimator.max_epochs, Integral) or estimator.max_epochs < 1:
            raise ValueError(f"max_epochs must be an integer >= 1, got {estimator.max_epochs!r}.")
        size = loading_of(estimator)["batch_size"]
        if not isinstance(size, Integral) or (size < 1 and size != -1):
            raise ValueError(f"batch_size must be an integer >= 1, or -1 for all rows, got {size!r}.")

    def recipe(self, estimator: Any) -> Recipe:
        loading = loading_of(estimator)
        size = WHOLE if loading["batch_size"] == -1 else int(loading["batch_size"])
        return Recipe(
            descent_of(estimator),
            size,
            int(estimator.max_epochs),
            early_stopping(estimator),
            bool(loading.get("shuffle", False)),
            even_decay=True,
        )

    def callbacks(self, estimator: Any) -> list[str]:
        return uncalled(estimator, self.served)

    def read(self, estimator: Any, x: Any, y: Any) -> tuple[Any, Any]:
        """Rows as flat ones; the estimator gets `input_rows_`, some rows as its module reads them."""
        name = type(estimator).__name__
        if not hasattr(x, "__array__") or sparse.issparse(x) or hasattr(x, "columns"):
            hint = "; pass X.to_numpy() instead" if hasattr(x, "to_numpy") else ""
            raise TypeError(f"X must be an array for {name}, as its module reads it, got {type(x).__name__}{hint}.")
        x = check_array(x, dtype="numeric", allow_nd=True, input_name="X", estimator=estimator)
        estimator.input_rows_ = np.array(x[:ROWS] if len(x) >= ROWS else np.repeat(x[:1], ROWS, axis=0))
        y = self.read_target(estimator, y)
        check_consistent_length(x, y)
        return x.reshape(len(x), -1), y

    @abstractmethod
    def read_target(self, estimator: Any, y: Any) -> Any:
        """Y as an array, checked."""

    def network(self, estimator: Any, n_features: int, n_outputs: int) -> ModuleNetwork:
        log_link = None
        if isinstance(criterion_of(estimator, self.criteria), nn.NLLLoss):
            log_link = float(torch.finfo(torch.float32).eps)
        network = module_network(_initialised(estimator), estimator.input_rows_, log_link)
        self.check_outputs(estimator, network.n_outputs, n_outputs)
        return network

    def check_outputs(self, estimator: Any, found: int, needed: int) -> None:
        """Raise ValueError if the module's outputs do not fit the targets."""
        if found != needed:
            raise ValueError(f"The module must return {needed} outputs, one for each column of y, got {found}.")

    def granularity(self, estimator: Any, of_features: Granularity) -> ModuleGranularity:
        return ModuleGranularity(of_features, estimator.input_rows_, undecayed(estimator))

    def start(self, estimator: Any, network: Any, random_state: np.random.RandomState) -> Array:
        seed = int(random_state.randint(np.iinfo(np.int32).max))
        module = _initialised(estimator, seed)
        parts = [p.detach().flatten().to(torch.float64) for p in trained_parameters(module)]
        return torch.cat(parts).numpy()

    def solution(
        self, network: Any, w: Tensor, n_iter: int, columns: NDArray[np.int64] | None, losses: Sequence[float]
    ) -> ModuleSolution:
        return ModuleSolution([part.clone() for part in network.split(w)], list(losses), n_iter)

    def store(self, estimator: Any, solution: Any, x: Any, y: Any, classes: Any) -> None:
        trained: ModuleSolution = solution
        # A copy of the settings of its own: callbacks and modules that are instances are not shared.
        settings = vars(clone(estimator))
        vars(estimator).clear()
        vars(estimator).update(settings)
        _initialise(estimator)
        with torch.no_grad():
            for p, value in zip(trained_parameters(estimator.module_), trained.parameters, strict=True):
                p.copy_(value)
        for loss in trained.losses:
            estimator.history.new_epoch()
            estimator.history.record("epoch", len(estimator.history))
            estimator.history.record("train_objective", loss)

    def blend(self, fitted: Any, other: Any, share: float) -> None:
        with torch.no_grad():
            for here, there in zip(*(trained_parameters(net.module_) for net in (fitted, other)), strict=True):
                here.add_(there - here, alpha=share)


class NeuralNetRegressorAdapter(SkorchAdapter):
    """NeuralNetRegressor: means over rows and outputs."""

    served = skorch.NeuralNetRegressor
    criteria = (nn.MSELoss, nn.HuberLoss, nn.SmoothL1Loss, nn.PoissonNLLLoss)
    multi_output = True

    def read_target(self, estimator: Any, y: Any) -> Any:
        y = check_array(y, dtype="numeric", ensure_2d=False, input_name="y", estimator=estimator)
        return np.asarray(y, dtype=np.float64)

    def classes(self, estimator: Any, y: Any) -> None:
        return None

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        return Targets(y.reshape(len(y), -1), _shares(estimator, train, sample_weight))

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        criterion = criterion_of(estimator, self.criteria)
        if isinstance(criterion, nn.MSELoss):
            return Rescaled(SquaredError(), 2 / n_outputs)
        if isinstance(criterion, nn.HuberLoss):
            return Rescaled(Huber(criterion.delta), 1 / n_outputs)
        if isinstance(criterion, nn.SmoothL1Loss):
            return Rescaled(Huber(criterion.beta), 1 / (criterion.beta * n_outputs))
        return Rescaled(TweedieLog(1.0), 1 / n_outputs)

    def own_outer(self, estimator: Any, n_outputs: int) -> Loss:
        squared = isinstance(criterion_of(estimator, self.criteria), nn.MSELoss)
        return SquaredError() if squared else self.loss(estimator, n_outputs)

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        poisson = isinstance(criterion_of(estimator, self.criteria), nn.PoissonNLLLoss)
        return {} if poisson else dict.fromkeys(SQUARED_SCORES, SquaredError())


class NeuralNetClassifierAdapter(SkorchAdapter):
    """NeuralNetClassifier: y holds positions among the module's outputs, logits or (NLLLoss) probabilities."""

    served = skorch.NeuralNetClassifier
    criteria = (nn.CrossEntropyLoss, nn.NLLLoss)

    def read_target(self, estimator: Any, y: Any) -> Any:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if y.dtype.kind not in "iub" or y.min() < 0:
            found = f"dtype {y.dtype}" if y.dtype.kind not in "iub" else f"a minimum of {y.min()}"
            raise ValueError(
                f"y of {type(estimator).__name__} must hold integers >= 0, positions among the module's outputs, got "
                f"{found}; encode labels by sklearn.preprocessing.LabelEncoder."
            )
        return y.astype(np.int64)

    def classes(self, estimator: Any, y: Any) -> NDArray[Any]:
        classes = np.unique(self.read_target(estimator, y))
        if len(classes) < 2:
            raise ValueError(
                f"{type(estimator).__name__} needs samples of at least 2 classes in y, got one class: {classes[0]!r}."
            )
        return classes

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        return Targets(np.eye(int(classes.max()) + 1)[y], _shares(estimator, train, sample_weight))

    def check_outputs(self, estimator: Any, found: int, needed: int) -> None:
        if found < needed:
            raise ValueError(f"The module must return an output for each class, {needed} or more, got {found}.")

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return MultinomialLogLoss()

    def twins(self, estimator: Any, n_outputs: int) -> Mapping[str, Loss]:
        return {"neg_log_loss": self.loss(estimator, n_outputs)}

    def store(self, estimator: Any, solution: Any, x: Any, y: Any, classes: Any) -> None:
        super().store(estimator, solution, x, y, classes)
        estimator.classes_inferred_ = classes


class NeuralNetBinaryClassifierAdapter(NeuralNetClassifierAdapter):
    """NeuralNetBinaryClassifier: y in {0, 1}, one logit."""

    served = skorch.NeuralNetBinaryClassifier
    criteria = (nn.BCEWithLogitsLoss,)

    def read_target(self, estimator: Any, y: Any) -> Any:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if not np.isin(np.unique(y), (0, 1)).all():
            raise ValueError(f"y of {type(estimator).__name__} must hold 0 and 1, got {np.unique(y)[:5].tolist()}.")
        return y.astype(np.int64)

    def targets(
        self, estimator: Any, y: Any, classes: Any, train: NDArray[np.int64], sample_weight: Array | None
    ) -> Targets:
        return Targets(one_hot(y, classes), _shares(estimator, train, sample_weight))

    def check_outputs(self, estimator: Any, found: int, needed: int) -> None:
        if found != 1:
            raise ValueError(f"The module must return one output, the logit of class 1, got {found}.")

    def loss(self, estimator: Any, n_outputs: int) -> Loss:
        return LogLoss()


def register_all(register: Callable[[type, Any], None]) -> None:
    """Let the adapters serve skorch's classes."""
    for adapter in (NeuralNetRegressorAdapter(), NeuralNetClassifierAdapter(), NeuralNetBinaryClassifierAdapter()):
        register(adapter.served, adapter)


def _shares(estimator: Any, train: NDArray[np.int64], sample_weight: Array | None) -> Array:
    """Weights of training rows whose sum is the number of batches: a batch's sum is about one."""
    if sample_weight is not None:
        raise ValueError(f"sample_weight must be None: {type(estimator).__name__}.fit reads none.")
    size = loading_of(estimator)["batch_size"]
    return np.full(len(train), n_batches(len(train), WHOLE if size == -1 else int(size)) / len(train))


def _initialise(net: Any, seed: int = 0) -> None:
    """`net.initialize()` with the user's default dtype, and random numbers from a seed of its own."""
    with users_torch():
        torch.manual_seed(seed)
        net.initialize()


def _initialised(estimator: Any, seed: int = 0) -> nn.Module:
    """The module of a copy of the estimator.

    What is not trained comes from the seed 0 always, so that all modules of a search agree in it.
    """
    net = clone(estimator).set_params(compile=False, verbose=0)
    net.callbacks = "disable"  # its set_params looks for callbacks to replace, and fails where there are none
    _initialise(net, seed)
    return net.module_
