"""Torch modules as main networks: what they must fulfil, and which of their weights share a decay."""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from fnmatch import fnmatch
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from ..boundary import Granularity
from ..core.module_network import ModuleNetwork, Parameter

SUM_ERROR = 1e-3  # by which probabilities of a row may miss one


class Column(NamedTuple):
    """The decay of a column of X, by its position or its group's label; all others are called by their names."""

    of: Any


Keys = tuple[list[Any], NDArray[np.int64]]  # of the decays of a parameter, and for each weight the position of its key


class ModuleSolution(NamedTuple):
    """Tuned parameters of one module, and how it was trained."""

    parameters: list[Tensor]
    losses: list[float]  # of every epoch
    n_iter: int  # epochs


def module_network(module: nn.Module, rows: NDArray[Any], log_link: float | None = None) -> ModuleNetwork:
    """A module as a network, tried on a few rows first.

    Parameters
    ----------
    module : nn.Module
        It becomes the network's own.
    rows : ndarray of shape (2, ...)
        As the module reads them.
    log_link : float or None
        The module returns probabilities, whose logarithms (plus this) are the outputs.

    Raises
    ------
    TypeError
        If a module changes its buffers in training, returns no tensor, or cannot be differentiated twice.
    ValueError
        If it cannot read the rows, or does not return one row of outputs for each.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ValueError(f"module={module!r} has no parameters that require gradients, so there is nothing to tune.")
    dtype = trained[0].dtype
    x = torch.from_numpy(np.ascontiguousarray(rows))
    if x.is_floating_point() and x.dtype != dtype:
        name = str(dtype).removeprefix("torch.")
        raise ValueError(f"X must have the dtype of the module, {name}, got {rows.dtype}; pass X.astype(np.{name}).")
    f = _tried(module, x)
    network = ModuleNetwork(module, tuple(rows.shape[1:]), f[0].numel(), x.dtype, log_link)
    if log_link is not None:
        totals = f.reshape(len(f), -1).sum(-1)
        if bool(((totals - 1).abs() > SUM_ERROR).any()) or bool((f < 0).any()):
            raise ValueError(
                "criterion=NLLLoss reads probabilities, so the module must return rows that sum to one, got sums of "
                f"{totals.tolist()}; let it end in a softmax, or set criterion=CrossEntropyLoss for one that does not."
            )
    _differentiate(network, x)
    return network


def _tried(module: nn.Module, x: Tensor) -> Tensor:
    """The outputs of a training step, whose buffers must stay as they are."""
    before = {name: b.detach().clone() for name, b in module.named_buffers()}
    buffers = {name: b.clone() for name, b in before.items()}
    module.train()
    try:
        with torch.no_grad():
            f = functional_call(module, buffers, (x,))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        raise ValueError(f"The module cannot read rows of X of shape {tuple(x.shape[1:])}: {error}") from error
    changed = [name for name, b in before.items() if not torch.equal(b, buffers[name])]
    if changed:
        owner = module.get_submodule(changed[0].rpartition(".")[0])
        raise TypeError(
            f"{type(owner).__name__} changes its buffer {changed[0]!r} in training, and the search trains parameters "
            "alone. After batch normalisation the loss does not depend on the scale of the weights before it, so "
            "that their decay is a learning rate and has no best response. Use GroupNorm or LayerNorm in its place."
        )
    if not isinstance(f, Tensor):
        raise TypeError(f"The module must return one tensor, got {type(f).__name__}.")
    if f.ndim not in (1, 2) or len(f) != len(x):
        raise ValueError(
            f"The module must return outputs of shape (n_samples,) or (n_samples, n_outputs), got {tuple(f.shape)} for "
            f"{len(x)} rows."
        )
    return f


def _differentiate(network: ModuleNetwork, x: Tensor) -> None:
    """Refuse a module that lacks the derivatives that hypergradients are made of."""
    w = network.start(1, torch.Generator())[0]
    rows = x.flatten(1).to(torch.float64)
    try:
        tape = network.forward(w, rows)
        network.push(w, tape, torch.ones_like(w))
    except (RuntimeError, NotImplementedError) as error:  # what torch raises for operations without a derivative
        raise TypeError(f"The module cannot be differentiated twice, as hypergradients need: {error}") from error


@dataclass(frozen=True)
class ModuleGranularity:
    """Which weights of a module share a decay.

    An output is an entry of a parameter's first axis; a bias belongs to the output that it is added to. A feature is
    an entry of the second axis, what a unit or a filter reads; biases have one decay a parameter there.

    Parameters
    ----------
    of_features : Granularity
        The name of the granularity, and labels of the features' groups.
    rows : ndarray of shape (2, ...)
        Some rows of X: the layers that read them as they are have the features.
    undecayed : tuple of str
        Patterns of names of parameters without decay.
    """

    of_features: Granularity
    rows: NDArray[Any]
    undecayed: tuple[str, ...] = ()
    _keys: dict[Any, int] = field(default_factory=dict, repr=False)

    def index(self, network: ModuleNetwork) -> Tensor:
        """The decay of each weight, -1 where there is none: (n_weights,)."""
        self._keys.clear()
        keys_of = self._rule(network)
        parts = []
        for p in network.parameters:
            if any(fnmatch(p.name, pattern) for pattern in self.undecayed):
                parts.append(np.full(p.end - p.start, -1))
                continue
            keys, positions = keys_of(p)
            found = np.array([self._keys.setdefault(key, len(self._keys)) for key in keys])
            parts.append(found[positions].ravel())
        if not self._keys:
            raise ValueError("optimizer__param_groups leave no parameter of the module with a decay to tune.")
        return torch.from_numpy(np.concatenate(parts))

    def names(self, features: Sequence[Any], outputs: Sequence[Any]) -> list[str]:
        """Name each decay by a layer, a parameter or its part (`0.weight[2]`), or a column of X."""
        named = features if self.of_features.labels is None else None
        columns = {key: key.of if named is None else named[key.of] for key in self._keys if isinstance(key, Column)}
        return [str(columns.get(key, key)) for key in self._keys]

    def feature_decays(self, decays: Any, n_features: int, n_outputs: int) -> Any:
        """None: no column scaling keeps the decays of a network."""
        return None

    def _rule(self, network: ModuleNetwork) -> Callable[[Parameter], Keys]:
        """Which weights of a parameter share a decay."""
        name, labels = self.of_features
        if labels is not None or name == "feature":
            groups = [*range(int(np.prod(self.rows.shape[1:])))] if labels is None else list(labels)
            readers = {f"{reader}.weight".removeprefix(".") for reader in self._readers(network)}
            return lambda p: _by_input(p, groups if p.name in readers else None, labels is not None)
        if name == "output":
            return lambda p: _by_output(p, network.parameters)
        if name == "weight":
            return lambda p: ([_entry(p, at) for at in product(*map(range, p.shape))], np.arange(p.end - p.start))
        return lambda p: _one("all" if name == "global" else _layer(p), p)

    def _readers(self, network: ModuleNetwork) -> list[str]:
        """Names of the linear layers that read X as it is."""
        x = torch.from_numpy(np.ascontiguousarray(self.rows))
        found: list[str] = []
        module = deepcopy(network.module).eval()
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear):

                def note(_: nn.Module, read: tuple[Tensor, ...], name: str = name) -> None:
                    if read[0].shape == x.shape and torch.equal(read[0], x):
                        found.append(name)

                layer.register_forward_pre_hook(note)
        if x.ndim == 2:
            with torch.no_grad():
                module(x)
        if not found:
            raise ValueError(
                "granularity='feature' and decay_groups need an nn.Linear that reads X itself, whose columns then have "
                "decays, and the module has none; set granularity='layer', 'output' or 'weight'."
            )
        return found


def _layer(p: Parameter) -> str:
    """The module that a parameter belongs to; the parameter itself where that is the whole."""
    return p.name.rpartition(".")[0] or p.name


def _one(key: str, p: Parameter) -> Keys:
    return [key], np.zeros(p.end - p.start, dtype=np.int64)


def _entry(p: Parameter, at: tuple[int, ...]) -> str:
    """One weight of a parameter, which may be a single number."""
    return f"{p.name}[{', '.join(map(str, at))}]" if at else p.name


def _by_output(p: Parameter, parameters: list[Parameter]) -> Keys:
    owner = p
    if len(p.shape) == 1:
        beside = (q for q in parameters if _layer(q) == _layer(p) and len(q.shape) > 1 and q.shape[0] == p.shape[0])
        owner = next(beside, p)
    if not p.shape:
        return _one(p.name, p)
    positions = np.repeat(np.arange(p.shape[0]), (p.end - p.start) // p.shape[0])
    return [f"{owner.name}[{j}]" for j in range(p.shape[0])], positions


def _by_input(p: Parameter, groups: list[Any] | None, by_layer: bool) -> Keys:
    if groups is not None:
        order = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        one = np.array([order[group] for group in groups])
        return [Column(group) for group in order], np.tile(one, p.shape[0])
    if by_layer or len(p.shape) < 2:
        return _one(_layer(p) if by_layer else p.name, p)
    positions = np.broadcast_to(np.arange(p.shape[1]).reshape(1, -1, *[1] * (len(p.shape) - 2)), p.shape)
    return [f"{p.name}[:, {i}]" for i in range(p.shape[1])], positions.ravel()


def trained_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Those that flat weights hold, in their order."""
    return (p for p in module.parameters() if p.requires_grad)
