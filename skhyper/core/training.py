"""Training of networks: batches dealt per fold, steps on flat weights, and a state from which it resumes exactly.

The inner objective of fold k is sum_i c_ki loss_i + 1/2 sum_j a_j w_j^2. An epoch deals the rows into m batches of
equal size but for the last, c_ki = s_i / m with s the sample weights, and a batch b has the gradient

    (sum_{i in b} s_i loss_i' + a w) / sum_{i in b} s_i,

which is scikit-learn's. Torch's, sum_{i in b} s_i loss_i' / sum_{i in b} s_i + a w, differs where batches differ in
their weight (`Recipe.even_decay`).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import blocks
from .losses import Loss
from .main_network import MainNetwork, rows_of
from .problem import NetworkProblem
from .recipe import Moments, Recipe

SEEDS = 2**31 - 1  # steps of a run between those of two neighbouring seeds


class Batch(NamedTuple):
    """Rows of every fold."""

    x: Tensor  # (K, b, p)
    y: Tensor  # (K, b, T)
    c: Tensor  # weights, (K, b)
    unit: Tensor  # what a step divides the decays by, (K,)
    noise: int | None = None  # seed of what is random in a training step

    def to(self, dtype: torch.dtype) -> "Batch":
        """In another precision."""
        return Batch(self.x.to(dtype), self.y.to(dtype), self.c.to(dtype), self.unit.to(dtype), self.noise)


@dataclass(frozen=True)
class Rows:
    """Some rows of every fold by number, padded with rows of weight zero."""

    x: Tensor  # all rows, (n, p) or (K, n, p)
    y: Tensor
    index: Tensor  # (K, n_rows)
    c: Tensor  # weights, (K, n_rows)
    counts: tuple[int, ...]  # rows of each fold without padding

    @classmethod
    def training(cls, problem: NetworkProblem) -> "Rows":
        """Those with weight in the folds' inner problems."""
        return cls._where(problem, problem.train)

    @classmethod
    def validation(cls, problem: NetworkProblem) -> "Rows":
        """Those with weight in the folds' outer losses."""
        return cls._where(problem, problem.validation)

    @classmethod
    def _where(cls, problem: NetworkProblem, weights: Tensor) -> "Rows":
        counts = tuple((weights > 0).sum(-1).tolist())
        index = (weights > 0).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, : max(counts)]
        return cls(rows_of(problem.design), problem.y, index, weights.gather(-1, index), counts)

    @property
    def n_rows(self) -> int:
        """Rows of the largest fold."""
        return self.c.shape[-1]

    def take(self, which: Tensor) -> Batch:
        """The rows with these of the numbers, (K, b)."""
        return self._gather(self.index.gather(-1, which), self.c.gather(-1, which))

    def parts(self, n: int) -> Iterator[Batch]:
        """All rows, at most n at a time."""
        for index, c in zip(self.index.split(n, -1), self.c.split(n, -1), strict=True):
            yield self._gather(index, c)

    def _gather(self, index: Tensor, c: Tensor) -> Batch:
        return Batch(_rows(self.x, index), _rows(self.y, index), c, c.sum(-1))

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        """At most n rows drawn from each fold's, their weights scaled up to the fold's total."""
        if self.n_rows <= n:
            return self._gather(self.index, self.c)
        drawn = torch.rand(self.c.shape, generator=generator, dtype=torch.float64)
        batch = self.take((drawn + (self.c == 0)).argsort(dim=-1)[:, :n])
        drawn_weight = batch.c.sum(-1).clamp(min=torch.finfo(batch.c.dtype).tiny)  # of a fold without rows
        return batch._replace(c=batch.c * (self.c.sum(-1) / drawn_weight)[:, None])


def _rows(part: Tensor, index: Tensor) -> Tensor:
    """The rows (K, b) of (n, ...) or (K, n, ...)."""
    if len(index) == 1:
        return part.reshape(-1, *part.shape[-1:]).index_select(0, index[0])[None]
    return part[index] if part.ndim == 2 else part[torch.arange(len(index))[:, None], index]


class State(NamedTuple):
    """A training run at the end of an epoch or between two steps: all that is needed to go on exactly."""

    w: Tensor  # (K, n_weights)
    moments: Moments
    generator: Tensor  # state of the random numbers that deal the rows
    order: Tensor  # (K, n_rows), this epoch's
    position: int = 0  # rows of this epoch that are done
    epoch: int = 0
    seed: int = 0  # of the random numbers of training steps


@dataclass
class Trainer:
    """Steps of all folds at once.

    Parameters
    ----------
    problem : NetworkProblem
        Rows, network, loss and recipe.
    precision : torch.dtype
        In which the rule of descent remembers gradients.
    """

    problem: NetworkProblem
    precision: torch.dtype = torch.float64
    rows: Rows = field(init=False)

    def __post_init__(self) -> None:
        rows = Rows.training(self.problem)
        self.rows = replace(rows, c=rows.c * n_batches(rows.n_rows, self.recipe.batch_size))
        self._padding = torch.tensor([[k] for k in self.rows.counts]) <= torch.arange(self.rows.n_rows)

    @property
    def network(self) -> MainNetwork:
        """The main network."""
        return self.problem.network

    @property
    def recipe(self) -> Recipe:
        """How it is trained."""
        return self.problem.recipe

    @property
    def batch_size(self) -> int:
        """Rows of a batch."""
        return min(self.recipe.batch_size, self.rows.n_rows)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return n_batches(self.rows.n_rows, self.recipe.batch_size)

    @property
    def weight(self) -> Tensor:
        """Sample weight of a fold's training rows, mean over folds."""
        return self.rows.c.sum(-1).mean()

    @property
    def steepest(self) -> float:
        """The largest decay that steps can take, also with the last and smallest batch of an epoch."""
        smallest = self.rows.n_rows % self.batch_size or self.batch_size
        share = float(self.rows.c.sum(-1).min()) * smallest / self.rows.n_rows
        return self.recipe.descent.steepest * (1.0 if self.recipe.even_decay else share)

    def start(self, seed: int, w: Tensor | None = None) -> State:
        """A new run; all folds start from the same weights, which are drawn unless given."""
        generator = torch.Generator().manual_seed(seed)
        if w is None:
            w = self.network.start(1, generator)
        w = w.expand(self.problem.n_folds, -1).clone()
        moments = Moments.none(w, self.precision)
        return self._deal(State(w, moments, generator.get_state(), torch.empty(0), seed=seed))

    def run(self, state: State, decay: Tensor, n_steps: int) -> tuple[State, Tensor]:
        """Take steps under constant decays (K, n_weights); the mean loss of the batches, penalty included, per fold."""
        w, moments, total = state.w, state.moments, state.w.new_zeros(self.problem.n_folds)
        done = 0
        for _ in range(n_steps):
            state, batch = self.next_batch(state)
            value, g = penalised_gradient(self.network, self.problem.loss, w, batch, decay)
            moments = self.recipe.descent.step(w, g, moments)
            total += value * batch.c.shape[-1]
            done += batch.c.shape[-1]
        return state._replace(moments=moments), total / max(done, 1)

    def next_batch(self, state: State) -> tuple[State, Batch]:
        """The rows of the next step; at the end of an epoch they are dealt anew."""
        if state.position >= self.rows.n_rows:
            state = self._deal(state._replace(epoch=state.epoch + 1))
        index = state.order[:, state.position : state.position + self.batch_size]
        noise = (state.seed * SEEDS + state.epoch * self.rows.n_rows + state.position) % 2**63
        batch = self.rows.take(index)._replace(noise=noise)
        if self.recipe.even_decay:
            batch = batch._replace(unit=torch.ones_like(batch.unit))
        return state._replace(position=state.position + self.batch_size), batch.to(self.problem.dtype)

    def _deal(self, state: State) -> State:
        """The order of a new epoch: a permutation for each fold, padding last."""
        generator = torch.Generator()
        generator.set_state(state.generator)
        order = torch.arange(self.rows.n_rows).expand(self.problem.n_folds, -1)
        if self.recipe.shuffle:
            drawn = torch.rand(self.problem.n_folds, self.rows.n_rows, generator=generator, dtype=torch.float64)
            order = (drawn + self._padding).argsort(dim=-1)
        return state._replace(order=order, position=0, generator=generator.get_state())


def n_batches(n_rows: int, batch_size: int) -> int:
    """Batches of an epoch."""
    return -(-n_rows // min(batch_size, n_rows))


def penalised_gradient(
    network: MainNetwork, loss: Loss, w: Tensor, batch: Batch, decay: Tensor
) -> tuple[Tensor, Tensor]:
    """The penalised loss of a batch, per unit of its weight, and its gradient: (K,), (K, n_weights)."""
    if len(w) == 1:
        one = Batch(batch.x[0], batch.y[0], batch.c[0], batch.unit[0], batch.noise)
        value, g = _one(network, loss, w[0], one, decay[0])
        return value[None], g[None]
    return _one(network, loss, w, batch, decay)


def _one(network: MainNetwork, loss: Loss, w: Tensor, batch: Batch, decay: Tensor) -> tuple[Tensor, Tensor]:
    x, y, c, unit, noise = batch
    tape = network.forward(w, x, noise)
    c = c / c.sum(-1, keepdim=True)
    value = (c * loss.value(tape.f, y)).sum(-1)
    g = network.backward(w, tape, c[..., None] * loss.gradient(tape.f, y))
    for block in blocks(w.shape[-1]):
        pulled = (decay[..., block] * w[..., block]).div_(unit[..., None])
        value += torch.linalg.vecdot(pulled, w[..., block]) / 2
        g[..., block] += pulled
    return value, g
