"""What an adapter of a neural network knows beyond its loss and targets, and networks as problems."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, from_numpy

from ..boundary import Granularity, Split, make_design, to_tensor
from ..core.decays import Decays
from ..core.losses import Loss
from ..core.main_network import MainNetwork
from ..core.mlp import MLP
from ..core.problem import NetworkProblem
from ..core.recipe import Recipe
from ..core.training import n_batches
from .base import Adapter, Array
from .encode import encode_rows

# Entries of a sparse matrix that are turned into a dense one: networks are trained on dense batches.
MAX_DENSE = 2**28


class NetworkAdapter(Adapter, ABC):
    """An adapter of a network that is trained step by step."""

    fixed_columns: ClassVar[bool] = False  # whether the number of columns is the network's own
    length: ClassVar[str] = "max_iter"  # the estimator's parameter for the epochs of a plain fit,
    rate: ClassVar[str] = "learning_rate_init"  # and for the rate of its steps

    @abstractmethod
    def network(self, estimator: Any, n_features: int, n_outputs: int) -> MainNetwork:
        """The main network, of at least `n_outputs` outputs; `estimator` as `read` left it."""

    @abstractmethod
    def granularity(self, estimator: Any, of_features: Granularity) -> Any:
        """Which weights share a decay: `index(network)`, `names(features, outputs)`, `feature_decays(...)`."""

    @abstractmethod
    def solution(
        self, network: Any, w: Tensor, n_iter: int, columns: NDArray[np.int64] | None, losses: Sequence[float]
    ) -> Any:
        """Flat weights of one network, (n_weights,), as what `store` reads."""

    @abstractmethod
    def blend(self, fitted: Any, other: Any, share: float) -> None:
        """Move a fitted estimator's weights by a share of the way to another's."""

    def work(self, estimator: Any, n_features: int) -> float:
        """Multiplications in a layer of a training step."""
        return np.inf

    @abstractmethod
    def recipe(self, estimator: Any) -> Recipe:
        """How the estimator trains it."""

    def losses(self, estimator: Any, y: Any, n_outputs: int, scoring: str | None) -> tuple[Loss, Loss]:
        """Of training rows, and of held-out ones; y as `read` returned it."""
        return self.loss(estimator, n_outputs), self.outer(estimator, n_outputs, scoring)

    @abstractmethod
    def start(self, estimator: Any, network: Any, random_state: np.random.RandomState) -> Array:
        """Initial weights as the estimator's own fit draws them, (n_weights,)."""


@dataclass(frozen=True)
class NetworkGranularity:
    """Which weights of a multilayer perceptron share a decay.

    Parameters
    ----------
    of_features : Granularity
        The name of the granularity, and labels of the features' groups.
    hidden : tuple of int
        Units of the hidden layers.
    """

    of_features: Granularity
    hidden: tuple[int, ...]

    def index(self, network: MLP) -> Tensor:
        """The decay of each weight, -1 for intercepts: (n_weights,)."""
        decayed, name = network.layer() >= 0, self.of_features.name
        if self.of_features.labels is not None:
            start, end, _ = network.spans[0]
            index = network.layer()
            groups = from_numpy(self.of_features.index(network.sizes[0], network.sizes[1]))
            index[end:] += int(groups.max()) * (index[end:] >= 0)
            index[start:end] = groups
            return index
        maps = {
            "global": lambda: torch.where(decayed, 0, -1),
            "layer": network.layer,
            "output": network.unit,
            "feature": network.fan_in,
            "weight": lambda: torch.where(decayed, decayed.cumsum(0) - 1, -1),
        }
        return maps[name]()

    def names(self, features: Sequence[Any], outputs: Sequence[Any]) -> list[str]:
        """What each decay is called: a feature, an output, or the part of the fitted network's `coefs_`."""
        name, labels = self.of_features
        sizes = (len(features), *self.hidden, len(outputs))
        layers = range(len(sizes) - 1)
        if labels is not None:
            return [*map(str, dict.fromkeys(labels)), *(f"coefs_[{l}]" for l in layers[1:])]
        if name == "global":
            return ["all"]
        if name == "layer":
            return [f"coefs_[{l}]" for l in layers]
        if name == "output":
            return [f"coefs_[{l}][:, {j}]" for l in layers[:-1] for j in range(sizes[l + 1])] + [*map(str, outputs)]
        if name == "feature":
            return [*map(str, features)] + [f"coefs_[{l}][{i}]" for l in layers[1:] for i in range(sizes[l])]
        return [f"coefs_[{l}][{i}, {j}]" for l in layers for i in range(sizes[l]) for j in range(sizes[l + 1])]

    def feature_decays(self, decays: Array, n_features: int, n_outputs: int) -> Array | None:
        """None: no column scaling keeps the decays of a network."""
        return None


@dataclass(frozen=True)
class NetworkEncoding:
    """A network's problem, and the way back from its weights."""

    problem: NetworkProblem
    missing: dict[int, list[Any]]
    adapter: NetworkAdapter

    def solution(
        self,
        w: Tensor,
        n_iter: int = 0,
        columns: NDArray[np.int64] | None = None,
        losses: Sequence[float] = (),
    ) -> Any:
        """Flat weights of one fold, (n_weights,), as arrays; of some of the columns where a fold has not all."""
        return self.adapter.solution(self.problem.network, w, n_iter, columns, losses)


def encode_network(
    adapter: NetworkAdapter,
    estimator: Any,
    x: Any,
    y: Any,
    splits: Sequence[Split] | None = None,
    *,
    granularity: Any,
    sample_weight: Array | Sequence[Array] | None = None,
    scoring: str | None = None,
    classes: NDArray[Any] | None = None,
) -> NetworkEncoding:
    """The bilevel problem of a network; parameters are those of `encode_linear`."""
    rows = encode_rows(adapter, estimator, x, y, splits, sample_weight, classes)
    matrices = [_dense(m) for m in rows.matrices]
    design = make_design(matrices if isinstance(x, list) else matrices[0])
    network = adapter.network(estimator, design.n_columns, rows.targets.shape[-1])
    n_outputs = network.n_outputs
    more = [(0, 0)] * (rows.targets.ndim - 1) + [(0, n_outputs - rows.targets.shape[-1])]
    recipe = adapter.recipe(estimator)
    batches = n_batches(int((rows.train > 0).sum(axis=1).max()), recipe.batch_size)
    loss, outer_loss = adapter.losses(estimator, y[0] if isinstance(y, list) else y, n_outputs, scoring)
    problem = NetworkProblem(
        design=design,
        y=to_tensor(np.pad(rows.targets, more)),
        train=from_numpy(rows.train) / batches,
        validation=from_numpy(rows.validation),
        network=network,
        loss=loss,
        outer_loss=outer_loss,
        decays=Decays(granularity.index(network)),
        counts=rows.counts,
        recipe=recipe,
    )
    return NetworkEncoding(problem, rows.missing, adapter)


def _dense(x: Any) -> Any:
    if not sparse.issparse(x):
        return x
    if x.shape[0] * x.shape[1] > MAX_DENSE:
        raise ValueError(
            f"Networks are trained on dense batches, and X has {x.shape[0]} x {x.shape[1]} entries, more than "
            f"{MAX_DENSE}; reduce its columns first, with TruncatedSVD for example."
        )
    return x.toarray()
