"""The bilevel problem: K folds of one network, trained as one batch.

    inner_k(w, a) = sum_i train_ki loss(f_i, y_i) + 1/2 sum_j a_j w_j^2
    outer(w_1 ... w_K) = mean_k sum_i validation_ki outer_loss(f_i, y_i)

Folds share hyperparameters, never weights. A fold sees its training rows through its row weights only, so that no
rows are copied; a row of weight zero in both does not exist for it.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from .decays import Decays
from .designs import Design
from .layer_family import LayerFamily
from .losses import Loss
from .main_network import MainNetwork
from .networks import Layers, LinearNetwork
from .recipe import Recipe


@dataclass(frozen=True)
class Folds:
    """What a fold minimises, and what its weights are judged by.

    Parameters
    ----------
    design : Design
        n rows, p columns; the rows of all folds.
    y : Tensor, shape (n, T) or (K, n, T)
        Targets.
    train : Tensor, shape (K, n)
        Weight of each row in each fold's inner problem, in the estimator's own unit (a mean loss has rows that sum
        to one).
    validation : Tensor, shape (K, n)
        Weight of each row in each fold's outer loss; the rows sum to one.
    network, loss, outer_loss, decays
        The parts. `outer_loss` is the differentiable twin of the score.
    counts : Tensor, shape (n,), optional
        How many rows each row stands for as evidence; ones if not given.
    """

    design: Design
    y: Tensor
    train: Tensor
    validation: Tensor
    network: Any
    loss: Loss
    outer_loss: Loss
    decays: Decays
    counts: Tensor | None = None

    @property
    def n_folds(self) -> int:
        """K."""
        return len(self.train)

    @property
    def n_validation(self) -> float:
        """Number of rows that some fold is judged by."""
        used = (self.validation > 0).any(0)
        return float(used.sum() if self.counts is None else self.counts[used].sum())

    def outputs(self, w: Tensor) -> Tensor:
        """Every fold's outputs on all rows: (..., K, n_weights) -> (..., K, n, T)."""
        return self.network.outputs(w, self.design)

    def fold_losses(self, w: Tensor) -> Tensor:
        """The validation loss of each fold: (..., K, n_weights) -> (..., K)."""
        return weighted_sum(self.validation, self.outer_loss.value(self.outputs(w), self.y))

    def outer(self, w: Tensor) -> Tensor:
        """The mean validation loss over folds: (..., K, n_weights) -> (...)."""
        return self.fold_losses(w).mean(-1)

    def take_folds(self, which: Tensor) -> Self:
        """The problem of some of the folds."""
        y = self.y if self.y.ndim == 2 else self.y[which]
        design = self.design.take_folds(which)
        return replace(self, design=design, y=y, train=self.train[which], validation=self.validation[which])

    def with_decays(self, decays: Decays) -> Self:
        """The same problem at another granularity."""
        return replace(self, decays=decays)


@dataclass(frozen=True)
class Problem(Folds):
    """The bilevel problem of a linear network."""

    network: LinearNetwork

    @cached_property
    def coefficient_decays(self) -> Decays:
        """The decays as those of the coefficients alone, without intercepts."""
        return self.decays.restrict(self.network.n_coefficients)

    def outer_gradient(self, w: Tensor) -> Tensor:
        """d outer / d w: (..., K, n_weights)."""
        gradient = self.outer_loss.gradient(self.outputs(w), self.y)
        return self.network.pullback(weighted(self.validation / self.n_folds, gradient), self.design)

    def loss_gradient(self, w: Tensor) -> Tensor:
        """d (inner loss without penalty) / d w: (..., K, n_weights)."""
        return self.network.pullback(self.train[..., None] * self.loss.gradient(self.outputs(w), self.y), self.design)

    def constant_model(self) -> Tensor:
        """No coefficients, and the intercepts and constants that the loss suggests: (K, n_weights)."""
        outputs, (p, n_outputs) = self.loss.start(self.y, self.train), (self.network.n_features, self.network.n_outputs)
        outputs = outputs.expand(self.n_folds, -1)
        coefficients = outputs.new_zeros(self.n_folds, p, n_outputs)
        return self.network.join(Layers(coefficients, outputs[:, :n_outputs], outputs[:, n_outputs:]))

    def column_squares(self, c: Tensor) -> Tensor:
        """sum_i c_i (x_ij - mean)^2, of the columns themselves where there is no intercept: (K, n) -> (K, p)."""
        return self.design.centred_squares(c) if self.network.intercept else self.design.squares(c)

    def curvature(self) -> float:
        """Mean over folds and columns of sum_i train_i (x_ij - mean)^2: the unit of alpha."""
        return float(self.column_squares(self.train).mean())

    def loss_curvature(self) -> float:
        """The same with rows weighted by the second derivative of their loss at the constant model.

        In the unit of alpha whatever the unit of the targets: a fitted scale divides a loss's second derivative.
        """
        return float(self.column_squares(self.row_curvatures()).mean())

    def row_curvatures(self) -> Tensor:
        """Weights of rows in the Hessian of the training loss at the constant model, mean over outputs: (K, n)."""
        curvature = self.loss.curvature(self.outputs(self.constant_model()), self.y)
        return weighted(self.train, curvature[..., : self.network.n_outputs]).clamp(min=0.0).mean(-1)

    @property
    def columns_a_row(self) -> float:
        """Columns for each training row of the largest fold."""
        return self.design.n_columns / int((self.train > 0).sum(-1).max())

    @property
    def wide(self) -> bool:
        """Whether every fold has more columns than training rows."""
        return self.columns_a_row > 1

    def take_output(self, t: int) -> Self:
        """The problem of one output under one decay."""
        network = replace(self.network, n_outputs=1)
        index = torch.full((network.n_weights,), -1).index_fill(0, torch.arange(network.n_coefficients), 0)
        return replace(self, y=self.y[..., t : t + 1], network=network, decays=Decays(index, eps=self.decays.eps))


@dataclass(frozen=True)
class NetworkProblem(Folds):
    """The bilevel problem of a network that is trained step by step, whose rows come in batches.

    With m batches an epoch, `train` holds sample weights divided by m: then the decays are per unit of a batch's
    weight (`core/training.py`). With a `family` the decays follow the weights, and offsets are its numbers.
    Training has the precision `dtype`, that of its batches; weights and what judges them stay in double precision.
    Rows with the same number in `kinds` (n,) are copies of one another; None: there are none.
    """

    network: MainNetwork
    family: LayerFamily | None = None
    recipe: Recipe = field(default_factory=Recipe)
    dtype: torch.dtype = torch.float64
    kinds: Tensor | None = None


def weighted(c: Tensor, values: Tensor) -> Tensor:
    """c_i v_i; rows of weight zero count for nothing even where v is not finite: (K, n), (..., K, n, T)."""
    c = c[..., None]
    return torch.where(c != 0, c * values, 0.0)


def weighted_sum(c: Tensor, values: Tensor) -> Tensor:
    """sum_i c_i v_i over rows; rows of weight zero count for nothing even where v is not finite."""
    return (c * torch.where(c != 0, values, 0.0)).sum(-1)
