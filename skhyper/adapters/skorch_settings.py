"""A skorch net's settings: what they are in the core's recipe, and what is refused."""

from typing import Any

import skorch
import torch
from skorch.callbacks import EarlyStopping, GradientNormClipping, LRScheduler, ParamMapper
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..core.recipe import Adam, Descent, Momentum
from .base import refuse

# Callbacks whose effect on training the search would lack.
CHANGING = (GradientNormClipping, LRScheduler, ParamMapper)
# Methods that say what is minimised and how: with their own version a class trains something else.
TRAINING = ("fit_loop", "get_dataset", "get_iterator", "get_loss", "infer", "run_single_epoch", "train_step")
TRAINING += ("train_step_single", "initialize_optimizer")
# Options of optimizers that do not change what they compute.
INDIFFERENT = ("capturable", "differentiable", "foreach", "fused")


def check_training(estimator: Any, served: type) -> None:
    """Refuse what a net would train in another way than the search."""
    own = [name for name in TRAINING if getattr(type(estimator), name) is not getattr(served, name)]
    if own:
        raise TypeError(
            f"{type(estimator).__name__} overrides {own[0]}, and the search trains by itself; it can tune classes "
            f"that keep {served.__name__}.{own[0]}."
        )
    if estimator.iterator_train is not DataLoader:
        refuse(estimator, "iterator_train", "the search deals the rows itself; keep torch's DataLoader.")
    if estimator.dataset is not skorch.dataset.Dataset:
        refuse(estimator, "dataset", "the search reads X as an array; keep skorch's Dataset.")
    if torch.device(estimator.device).type != "cpu":
        refuse(estimator, "device", "the search trains on the CPU; set device='cpu'.")
    loading = loading_of(estimator)
    for name in ("batch_sampler", "collate_fn", "drop_last", "sampler"):
        if loading.get(name):
            refuse(estimator, f"iterator_train__{name}", "the search deals all rows itself; leave it out.")


def descent_of(estimator: Any) -> Descent:
    """The optimizer as a rule of the core."""
    options = {"lr": estimator.lr, **estimator.get_params_for("optimizer")}
    options = {k: v for k, v in options.items() if k not in (*INDIFFERENT, "weight_decay", "param_groups")}
    rate = float(options.pop("lr"))
    if not rate > 0:
        raise ValueError(f"lr must be > 0, got {rate!r}.")
    if estimator.optimizer is torch.optim.SGD:
        momentum, nesterov = float(options.pop("momentum", 0.0)), bool(options.pop("nesterov", False))
        descent: Descent = Momentum(rate, momentum, nesterov)
    elif estimator.optimizer is torch.optim.Adam:
        beta_1, beta_2 = options.pop("betas", (0.9, 0.999))
        descent = Adam(rate, beta_1, beta_2, float(options.pop("eps", 1e-8)), corrected=True)
    elif estimator.optimizer is torch.optim.AdamW:
        refuse(estimator, "optimizer", "its weight_decay is no penalty of the loss; set torch.optim.Adam.")
    else:
        refuse(estimator, "optimizer", "set torch.optim.SGD or torch.optim.Adam.")
    for name, value in options.items():
        if value:
            refuse(estimator, f"optimizer__{name}", "the search's own steps lack it; leave it out.")
    return descent


def criterion_of(estimator: Any, kinds: tuple[type[nn.Module], ...]) -> nn.Module:
    """The criterion, whose settings are those that the core's losses have."""
    criterion = estimator.initialized_instance(estimator.criterion, estimator.get_params_for("criterion"))
    if type(criterion) not in kinds:  # a subclass may compute something else
        names = ", ".join(f"torch.nn.{kind.__name__}" for kind in kinds)
        refuse(estimator, "criterion", f"set one of {names}.")
    plain = {"reduction": "mean", "weight": None, "pos_weight": None, "label_smoothing": 0.0, "full": False}
    plain |= {"ignore_index": -100, "log_input": True}
    for name, value in plain.items():
        found = getattr(criterion, name, value)
        if found is not value and (isinstance(found, Tensor) or found != value):
            raise TypeError(
                f"{type(estimator).__name__}(criterion__{name}={found!r}) cannot be tuned by hypergradients: the "
                f"search's losses have {value!r} alone."
            )
    return criterion


def undecayed(estimator: Any) -> tuple[str, ...]:
    """Patterns of the parameters whose group has a weight_decay of 0.

    Raises
    ------
    TypeError
        If a group says anything else.
    """
    groups = estimator.get_params_for("optimizer").get("param_groups", [])
    if any(dict(options) != {"weight_decay": 0} for _, options in groups):
        raise TypeError(
            f"{type(estimator).__name__}(optimizer__param_groups={groups!r}) cannot be tuned by hypergradients: groups "
            "can have weight_decay=0, parameters without decay, and nothing else of their own."
        )
    return tuple(pattern for pattern, _ in groups)


def early_stopping(estimator: Any) -> int | None:
    """The patience of EarlyStopping, where it is among the callbacks.

    Raises
    ------
    TypeError
        If a callback changes the training.
    """
    patience = None
    for callback, kind in _callbacks(estimator):
        if issubclass(kind, CHANGING):
            raise TypeError(
                f"{type(estimator).__name__}(callbacks={kind.__name__}) cannot be tuned by hypergradients: it changes "
                "the training, and the search trains by itself; leave it out."
            )
        if issubclass(kind, EarlyStopping):
            patience = int(kind().patience if isinstance(callback, type) else callback.patience)
    return patience


def uncalled(estimator: Any, served: type) -> list[str]:
    """Names of the callbacks that a search does not heed, methods of the class among them."""
    methods = [name for name in dir(served) if name.startswith("on_")]
    own = [f"{name}()" for name in methods if getattr(type(estimator), name) is not getattr(served, name)]
    return own + [kind.__name__ for _, kind in _callbacks(estimator) if not issubclass(kind, EarlyStopping)]


def _callbacks(estimator: Any) -> list[tuple[Any, type]]:
    """The user's callbacks, which may be classes, and their classes."""
    entries = estimator.callbacks if isinstance(estimator.callbacks, list | tuple) else []
    callbacks = [entry[1] if isinstance(entry, tuple) else entry for entry in entries]
    return [(callback, callback if isinstance(callback, type) else type(callback)) for callback in callbacks]


def loading_of(estimator: Any) -> dict[str, Any]:
    """How rows come in batches."""
    return {"batch_size": estimator.batch_size, **estimator.get_params_for("iterator_train")}
