"""What an adapter of a neural network knows beyond its loss and targets, and networks as problems."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, from_numpy

from ..boundary import Granularity, Split, make_design, to_numpy, to_tensor
from ..copies import find_copies
from ..core.decays import Decays
from ..core.losses import Loss
from ..core.main_network import MainNetwork
from ..core.mlp import MLP
from ..core.problem import NetworkProblem
from ..core.recipe import Recipe
from ..core.training import n_batches
from .base import Adapter, Array
from .encode import EncodedRows, encode_rows

# Entries of a sparse matrix that are turned into a dense one: networks are trained on dense batches.
MAX_DENSE = 2**28


class NetworkAdapter(Adapter, ABC):
    """An adapter of a network that is trained step by step."""

    fixed_columns: ClassVar[bool] = False  # whether the number of columns is the network's own
    length: ClassVar[str] = "max_iter"  # the estimator's parameter for the epochs of a plain fit,
    rate: ClassVar[str] = "learning_rate_init"  # and for the rate of its steps
    weighs_copies: ClassVar[bool] = False  # whether a row twice in a batch is the row once, with twice the weight

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
        """Say how the estimator trains the network."""

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
    encoded = encode_rows(adapter, estimator, x, y, splits, sample_weight, classes)
    encoded = encoded._replace(matrices=[_dense(m) for m in encoded.matrices])
    recipe = adapter.recipe(estimator)
    n_rows = _most_rows(encoded.train)
    batches = n_batches(n_rows, recipe.batch_size)
    # Without shuffling, batches are those of the user's own order.
    merges = adapter.weighs_copies and (recipe.shuffle or batches == 1)
    distinct = _distinct(encoded, sample_weight, merges)
    rows = distinct.encoded
    if _most_rows(rows.train) < n_rows:  # as many batches an epoch: with their mean weight alpha keeps its meaning
        recipe = replace(recipe, batch_size=-(-_most_rows(rows.train) // batches))
    design = make_design(rows.matrices if isinstance(x, list) else rows.matrices[0])
    network = adapter.network(estimator, design.n_columns, rows.targets.shape[-1])
    n_outputs = network.n_outputs
    more = [(0, 0)] * (rows.targets.ndim - 1) + [(0, n_outputs - rows.targets.shape[-1])]
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
        counts=None if distinct.counts is None else to_tensor(distinct.counts),
        recipe=recipe,
        kinds=None if distinct.kinds is None else from_numpy(distinct.kinds),
    )
    return NetworkEncoding(problem, rows.missing, adapter)


class Distinct(NamedTuple):
    """Rows of all folds, with or without copies among them.

    `counts` says how many rows each is as evidence (None: one), and `kinds` has equal numbers for copies (None: there
    are none).
    """

    encoded: EncodedRows
    counts: Array | None
    kinds: NDArray[np.intp] | None = None


def _distinct(encoded: EncodedRows, sample_weight: Array | Sequence[Array] | None, merges: bool) -> Distinct:
    """Copies as one row with their weight, in training and in validation; the order as `find_copies` says.

    Unless it `merges`: then copies are numbered. Rows of cells are no copies, and stay as they are.
    """
    matrices, targets, train, validation, counts, missing = encoded
    there = np.flatnonzero((train > 0).any(axis=0) | (validation > 0).any(axis=0))
    given = np.max(sample_weight, axis=0) if isinstance(sample_weight, list) else sample_weight
    weight = np.ones(len(there)) if given is None else given[there]
    parts = [m[there] for m in matrices], [y[there] for y in (targets if targets.ndim == 3 else [targets])]
    copies = find_copies(*parts, weight)
    as_they_are = Distinct(encoded, None if counts is None else to_numpy(counts))
    if copies.none or copies.cells:
        return as_they_are
    if not merges:
        kinds = np.zeros(train.shape[1], dtype=np.intp)
        kinds[there] = copies.index
        return as_they_are._replace(kinds=kinds if len(copies.first) < len(there) else None)
    first = there[copies.first]

    def added(values: Array) -> Array:
        """Of all copies together, the smallest first: sums do not depend on the order of rows."""
        order = values.argsort(kind="stable")
        return np.bincount(copies.index[order], values[order], minlength=len(first))

    by_fold = [np.stack([added(row) for row in part[:, there]]) for part in (train, validation)]
    judged = (validation[:, there] > 0).any(axis=0)
    merged = EncodedRows([m[first] for m in matrices], targets[..., first, :], *by_fold, None, missing)
    return Distinct(merged, added(weight * judged))


def _most_rows(train: Array) -> int:
    """Training rows of the largest fold."""
    return int((train > 0).sum(axis=1).max())


def _dense(x: Any) -> Any:
    if not sparse.issparse(x):
        return x
    if x.shape[0] * x.shape[1] > MAX_DENSE:
        raise ValueError(
            f"Networks are trained on dense batches, and X has {x.shape[0]} x {x.shape[1]} entries, more than "
            f"{MAX_DENSE}; reduce its columns first, with TruncatedSVD for example."
        )
    return x.toarray()
