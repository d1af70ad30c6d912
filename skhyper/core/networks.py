"""Main networks: flat weights <-> layers.

Weights are flat, (..., n_weights); leading axes are folds, candidates, restarts. A linear network with p features and
T outputs lays them out as

    coefficients (p * T, feature-major), intercepts (T, if any), constants (C)

where a constant is an output that is the same for every row: the concomitant scale of the Huber loss.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .designs import Design


class Layers(NamedTuple):
    """The parts of a linear network's flat weights."""

    coefficients: Tensor  # (..., p, T)
    intercepts: Tensor  # (..., T), zeros where there is none
    constants: Tensor  # (..., C)


@dataclass(frozen=True)
class LinearNetwork:
    """outputs_k = [X_k coefficients + intercepts, constants]: T + C outputs a row."""

    n_features: int
    n_outputs: int = 1
    intercept: bool = True
    n_constants: int = 0

    @property
    def n_coefficients(self) -> int:
        """Number of weights that decays can act on, p * T."""
        return self.n_features * self.n_outputs

    @property
    def n_weights(self) -> int:
        """Length of the flat weights."""
        return self.n_coefficients + self.n_outputs * self.intercept + self.n_constants

    def split(self, w: Tensor) -> Layers:
        """Flat weights -> coefficients, intercepts, constants."""
        m, end = self.n_coefficients, w.shape[-1] - self.n_constants
        coefficients = torch.unflatten(w[..., :m], -1, (self.n_features, self.n_outputs))
        intercepts = w[..., m:end] if self.intercept else w.new_zeros(*w.shape[:-1], self.n_outputs)
        return Layers(coefficients, intercepts, w[..., end:])

    def join(self, layers: Layers) -> Tensor:
        """The inverse of `split`."""
        parts = [layers.coefficients.flatten(-2), layers.constants]
        if self.intercept:
            parts.insert(1, layers.intercepts)
        return torch.cat(parts, -1)

    def outputs(self, w: Tensor, design: Design) -> Tensor:
        """Predictions of every fold's network on its own rows: (..., K, n_weights) -> (..., K, n, T + C)."""
        layers = self.split(w)
        f = design.matvec(layers.coefficients) + layers.intercepts[..., None, :]
        if not self.n_constants:
            return f
        return torch.cat([f, layers.constants[..., None, :].expand(*f.shape[:-1], -1)], -1)

    def pullback(self, u: Tensor, design: Design) -> Tensor:
        """The transpose of `outputs`: d sum(u * outputs) / d w, (..., K, n, T + C) -> (..., K, n_weights)."""
        rows, constants = u[..., : self.n_outputs], u[..., self.n_outputs :]
        return self.join(Layers(design.rmatvec(rows), rows.sum(-2), constants.sum(-2)))
