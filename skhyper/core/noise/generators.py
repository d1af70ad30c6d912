"""Generators: noise z -> the weights of the main network, one set for each draw.

Shapes: M members, G draws (groups of rows that share a draw), R rows in a group, d entries of noise, H features of the
last hidden layer. A hidden network turns z into features h, (M, G, H), and the weights of a layer are affine in h:

    full        W = W0 + sum_k h_k D_k           D_k of the shape of W0
    low_rank    W = W0 + U diag(h C) V           r directions in each layer
    point       W = W0                           no noise: the plain network

W0 is the residual base, drawn as the main network would be; without it W0 = 0 and D (or U, V) is drawn so that the
weights have the variance that W0 would have had. With a base h is multiplied by exp(rho) in each layer, and rho is
fitted to held-out rows: the spread is as large as helps there.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .layout import Block, Parts

# softplus(SOFTPLUS_ONE) = 1.
SOFTPLUS_ONE = 0.5413248546129181


class Draws(NamedTuple):
    """What one forward pass knows of its noise."""

    features: Tensor  # (M, G, H)


class LayerShape(NamedTuple):
    """A layer of the main network."""

    n_in: int
    n_out: int
    gain: float  # standard deviation of its weights, times sqrt(n_in)


@dataclass(frozen=True)
class Generator(ABC):
    """From noise to weights.

    Parameters
    ----------
    noise_dim : int
        d, entries of z ~ N(0, I).
    hidden : tuple of int
        Sizes of the hidden layers (ReLU) between z and the last features; empty: the features are z.
    dropout : float
        Share of the hidden units that is dropped in training.
    residual : bool
        Whether there is a base W0.
    scale_input : bool
        Whether z is multiplied by a learned softplus scale that starts at 1.
    spread : float
        Standard deviation over draws of a weight at the start, as a share of that of W0; only with a base.
    spread_rate : float
        Learning rate of the perturbation relative to the base's.
    factor_rate : float
        Learning rate of rho.
    """

    noise_dim: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    residual: bool = True
    scale_input: bool = False
    spread: float = 0.3
    spread_rate: float = 1.0
    factor_rate: float = 0.3

    @property
    def n_features(self) -> int:
        """H."""
        return (self.noise_dim, *self.hidden)[-1]

    @property
    def stochastic(self) -> bool:
        """Whether draws differ."""
        return True

    def blocks(self) -> dict[str, Block]:
        """Parameters of the hidden network."""
        sizes = (self.noise_dim, *self.hidden)
        blocks = {"noise.scale": Block((), center=SOFTPLUS_ONE)} if self.scale_input else {}
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            blocks[f"noise.{i}.w"] = Block((n_in, n_out), std=sqrt(2 / n_in), rate=1 / sqrt(n_in), precision=n_in)
            blocks[f"noise.{i}.b"] = Block((n_out,), rate=0.1)
        return blocks

    def draws(self, parts: Parts, z: Tensor, dropout: torch.Generator | None = None) -> Draws:
        """The features of noise z, (M, G, d); `dropout` is given in training only."""
        h = z
        if self.scale_input:
            h = h * functional.softplus(parts["noise.scale"])[:, None, None]
        for i in range(len(self.hidden)):
            h = torch.relu(h @ parts[f"noise.{i}.w"] + parts[f"noise.{i}.b"][:, None])
            if dropout is not None and self.dropout:
                keep = torch.rand(h.shape, generator=dropout, dtype=h.dtype, device=h.device) >= self.dropout
                h = h * keep / (1 - self.dropout)
        return Draws(h)

    def layer_blocks(self, name: str, shape: LayerShape) -> dict[str, Block]:
        """Parameters of one layer: the base, and what the perturbation needs."""
        blocks = {}
        if self.residual and self.stochastic:
            blocks[f"{name}.rho"] = Block((), rate=self.factor_rate, held=True)
        if self.residual:
            std, rate = shape.gain / sqrt(shape.n_in), 1 / sqrt(shape.n_in)
            blocks[f"{name}.w"] = Block((shape.n_in, shape.n_out), std, rate=rate, precision=shape.n_in)
            blocks[f"{name}.b"] = Block((shape.n_out,), std=0.3 * shape.gain, rate=0.3)
        return blocks | dict(self.perturbation_blocks(name, shape))

    @abstractmethod
    def perturbation_blocks(self, name: str, shape: LayerShape) -> Mapping[str, Block]:
        """Parameters of W - W0 in one layer."""

    @abstractmethod
    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> Tensor:
        """x W + b for rows x, (M, G or 1, R, n_in) -> (M, G, R, n_out)."""

    @abstractmethod
    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """The weights themselves: (M, G, n_in, n_out) and (M, G, n_out)."""

    def scaled(self, parts: Parts, name: str, draws: Draws) -> Tensor:
        """The features times the factor of a layer, (M, G, H)."""
        if not self.residual:
            return draws.features
        return draws.features * torch.exp(parts[f"{name}.rho"])[:, None, None]

    def _relative_spread(self) -> float:
        return self.spread if self.residual else 1.0


def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x W + b for all groups at once: (M, G, R, i) and (M, i, o), (M, o) -> (M, G, R, o)."""
    return (x.flatten(1, 2) @ w + b[:, None]).unflatten(1, x.shape[1:3])


@dataclass(frozen=True)
class FullGenerator(Generator):
    """Every weight has its own linear form of the features."""

    def perturbation_blocks(self, name: str, shape: LayerShape) -> Mapping[str, Block]:
        """D, (H, n_in * n_out), and the same for the biases."""
        h, scale = self.n_features, self._relative_spread() * shape.gain
        rate = self.spread_rate / sqrt(shape.n_in * h)
        size, precision = shape.n_in * shape.n_out, shape.n_in * float(h)
        return {
            f"{name}.dw": Block((h, size), scale / sqrt(shape.n_in * h), rate=rate, precision=precision),
            f"{name}.db": Block(
                (h, shape.n_out), 0.3 * scale / sqrt(h), rate=0.3 * self.spread_rate / sqrt(h), precision=h
            ),
        }

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> Tensor:
        """Explicit weights where rows share a draw; else sum_k h_k (x D_k), and no weights are ever formed."""
        h = self.scaled(parts, name, draws)
        if x.shape[2] > 1 or x.shape[1] == 1:
            w, b = self.weights(parts, name, draws)
            return x @ w + b[:, :, None]
        dw = parts[f"{name}.dw"].unflatten(-1, (x.shape[-1], -1)).flatten(1, 2)  # (M, H n_in, n_out)
        outer = (h[..., None] * x).flatten(2)  # (M, G, H n_in)
        out = outer @ dw + h @ parts[f"{name}.db"]
        if self.residual:
            out = out + x[:, :, 0] @ parts[f"{name}.w"] + parts[f"{name}.b"][:, None]
        return out[:, :, None]

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0 + sum_k h_k D_k."""
        h = self.scaled(parts, name, draws)
        db = h @ parts[f"{name}.db"]
        dw = (h @ parts[f"{name}.dw"]).unflatten(-1, (-1, db.shape[-1]))
        if not self.residual:
            return dw, db
        return parts[f"{name}.w"][:, None] + dw, parts[f"{name}.b"][:, None] + db


@dataclass(frozen=True)
class LowRankGenerator(Generator):
    """Draws differ along `rank` directions in each layer.

    Parameters
    ----------
    rank : int
        r.
    """

    rank: int = 10

    def perturbation_blocks(self, name: str, shape: LayerShape) -> Mapping[str, Block]:
        """C, U, V, and D of the biases."""
        h, r, n = self.n_features, self.rank, shape.n_in
        scale = self._relative_spread() * shape.gain
        rate = self.spread_rate
        return {
            f"{name}.c": Block((h, r), 1 / sqrt(h), rate=rate / sqrt(h), precision=h),
            f"{name}.u": Block((n, r), 1 / sqrt(n), rate=rate / sqrt(n), precision=n),
            f"{name}.v": Block((r, shape.n_out), scale / sqrt(r), rate=rate / sqrt(r), precision=r),
            f"{name}.db": Block((h, shape.n_out), 0.3 * scale / sqrt(h), rate=0.3 * rate / sqrt(h), precision=h),
        }

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> Tensor:
        """x W0 + ((x U) * c) V: one pass of the main layer and two thin products."""
        h = self.scaled(parts, name, draws)
        u, v = parts[f"{name}.u"], parts[f"{name}.v"]
        c = h @ parts[f"{name}.c"]
        thin = (x.flatten(1, 2) @ u).unflatten(1, x.shape[1:3]) * c[:, :, None]
        out = (thin.flatten(1, 2) @ v).unflatten(1, thin.shape[1:3]) + (h @ parts[f"{name}.db"])[:, :, None]
        if self.residual:
            out = out + affine(x, parts[f"{name}.w"], parts[f"{name}.b"])
        return out

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0 + U diag(h C) V."""
        h = self.scaled(parts, name, draws)
        c = h @ parts[f"{name}.c"]
        w = (parts[f"{name}.u"][:, None] * c[:, :, None]) @ parts[f"{name}.v"][:, None]
        b = h @ parts[f"{name}.db"]
        if not self.residual:
            return w, b
        return parts[f"{name}.w"][:, None] + w, parts[f"{name}.b"][:, None] + b


@dataclass(frozen=True)
class PointGenerator(Generator):
    """No noise: the main network itself, trained by the same means."""

    @property
    def stochastic(self) -> bool:
        """Draws are all the same."""
        return False

    def blocks(self) -> dict[str, Block]:
        """There is no hidden network."""
        return {}

    def draws(self, parts: Parts, z: Tensor, dropout: torch.Generator | None = None) -> Draws:
        """The noise itself, which nothing reads."""
        return Draws(z)

    def perturbation_blocks(self, name: str, shape: LayerShape) -> Mapping[str, Block]:
        """None."""
        return {}

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> Tensor:
        """x W0 + b0."""
        return affine(x, parts[f"{name}.w"], parts[f"{name}.b"])

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0, for every draw."""
        w, b = parts[f"{name}.w"], parts[f"{name}.b"]
        g = draws.features.shape[1]
        return w[:, None].expand(-1, g, -1, -1), b[:, None].expand(-1, g, -1)
