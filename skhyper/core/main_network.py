"""What training and its algorithms ask of a main network with flat weights.

Weights are (..., n_weights); leading axes are folds, restarts, draws of the decays. Rows are flat too: (n, p), shared,
or (..., n, p) with the weights' leading axes. Outputs have the precision of the rows, gradients that of what is pulled
back.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor

from .designs import DenseDesign, Design


class MainNetwork(ABC):
    """A network that is trained step by step, with its outputs and their first derivatives."""

    @property
    @abstractmethod
    def n_weights(self) -> int:
        """Length of the flat weights."""

    @property
    @abstractmethod
    def n_outputs(self) -> int:
        """T."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Numbers in the widest layer of a row, roughly."""

    @abstractmethod
    def layer(self) -> Tensor:
        """For each weight the number of its layer, -1 for intercepts that never have a decay; (n_weights,)."""

    @abstractmethod
    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Initial weights of n networks, (n, n_weights)."""

    @abstractmethod
    def forward(self, w: Tensor, x: Tensor, noise: int | None = None) -> Any:
        """A pass over rows x: its outputs `f`, (..., n, T), and what `backward` and `push` need.

        `noise` is the seed of what is random in a training step (dropout); without it nothing is.
        """

    @abstractmethod
    def backward(self, w: Tensor, tape: Any, u: Tensor, onto: Tensor | None = None) -> Tensor:
        """d sum(u * outputs) / d w: (..., n, T) -> (..., n_weights); added to `onto` in place where that is given."""

    @abstractmethod
    def push(self, w: Tensor, tape: Any, v: Tensor) -> Tensor:
        """The outputs' derivative along v: (..., n_weights) -> (..., n, T)."""

    def predict(self, w: Tensor, x: Tensor) -> Tensor:
        """The outputs alone: (..., n, T)."""
        return self.forward(w, x).f

    def outputs(self, w: Tensor, design: Design) -> Tensor:
        """Predictions of every fold's network on all rows: (..., K, n_weights) -> (..., K, n, T)."""
        return self.predict(w, rows_of(design))


def rows_of(design: Design) -> Tensor:
    """The matrix of a dense design, (n, p) or (K, n, p)."""
    if not isinstance(design, DenseDesign):
        raise TypeError("networks need a dense matrix")
    return design.x
