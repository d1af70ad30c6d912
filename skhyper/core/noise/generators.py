"""Generators: noise z -> the weights of the main network, one set for each draw.

Shapes: M members, G draws (groups of rows that share a draw), R rows in a group, d entries of noise, H features of the
last hidden layer. A hidden network turns z into features h, (M, G, H), and the weights of a layer are affine in h:

    full        W = W0 + sum_k h_k D_k           D_k of the shape of W0 (full_generator.py)
    low_rank    W = W0 + U diag(h C) V           r directions in each layer (low_rank_generator.py)
    point       W = W0                           no noise: the plain network (point_generator.py)

W0 is the residual base, drawn as the main network would be; without it W0 = 0 and D (or U, V) is drawn so that the
weights have the variance that W0 would have had. With a base h is multiplied by exp(rho) in each layer, and rho is
fitted to held-out rows: the spread is as large as helps there.

Derivatives are by hand (`pull`): the networks are small, and recording operations takes several times as long as they.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
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
    """The features of a forward pass, and what their derivatives need."""

    features: Tensor  # (M, G, H)
    z: Tensor  # (M, G, d), the Gaussian entries of the noise
    inputs: list[Tensor]  # of each layer of the hidden network
    slopes: list[Tensor]  # of its units: ReLU's, times what dropout multiplied them by


class LayerTape(NamedTuple):
    """What a layer's derivatives need of its forward pass."""

    x: Tensor  # (M, G or 1, R, n_in)
    draws: Draws
    own: tuple[Tensor, ...]  # of the kind of generator


class Pulled(NamedTuple):
    """Gradients of a loss by what entered a layer."""

    x: Tensor  # (M, G or 1, R, n_in)
    parts: dict[str, Tensor]
    features: Tensor | None  # (M, G, H); None where it was not wanted


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
        Share of the hidden units that is dropped. Which ones is part of the noise, in training and in predictions: the
        weights without any are not those that were trained.
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
    frames : bool
        Whether draws that are made together are orthogonal (`sample`).
    """

    noise_dim: int
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    residual: bool = True
    scale_input: bool = False
    spread: float = 0.3
    spread_rate: float = 1.0
    factor_rate: float = 0.3
    frames: bool = False

    @property
    def n_features(self) -> int:
        """H."""
        return (self.noise_dim, *self.hidden)[-1]

    @property
    def stochastic(self) -> bool:
        """Whether draws differ."""
        return True

    @property
    def n_masks(self) -> int:
        """Hidden units that may be dropped."""
        return sum(self.hidden) if self.dropout else 0

    @property
    def n_entries(self) -> int:
        """Of the noise: d, and what each hidden unit is multiplied by where some are dropped."""
        return self.noise_dim + self.n_masks

    def sample(self, n_members: int, n_draws: int, generator: torch.Generator, like: Tensor) -> Tensor:
        """Noise z, (M, n_draws, d), and masks after it, (M, n_draws, n_masks); z mirrors that of every other draw.

        Either independent pairs from N(0, I), or frames: d pairs along the axes of a random rotation, all at the
        distance sqrt(d) from zero. The draws of whole frames have mean 0 and covariance I exactly, so that sums over
        them vary less.
        """
        d, n_pairs = self.noise_dim, (n_draws + 1) // 2
        normal = partial(torch.randn, generator=generator, dtype=like.dtype, device=like.device)
        if self.frames:
            n_frames = -(-n_pairs // d)
            rotations = torch.linalg.qr(normal((n_members * n_frames, d, d)))[0]
            z = sqrt(d) * rotations.mT.reshape(n_members, n_frames * d, d)[:, :n_pairs]
        else:
            z = normal((n_members, n_pairs, d))
        z = torch.stack([z, -z], 2).flatten(1, 2)[:, :n_draws] if n_draws > 1 else z
        if not self.n_masks:
            return z
        shape = n_members, n_draws, self.n_masks
        kept = torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device) >= self.dropout
        return torch.cat([z, kept.to(z) / (1 - self.dropout)], -1)

    def blocks(self) -> dict[str, Block]:
        """Parameters of the hidden network."""
        sizes = (self.noise_dim, *self.hidden)
        blocks = {"noise.scale": Block((), center=SOFTPLUS_ONE)} if self.scale_input else {}
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            blocks[f"noise.{i}.w"] = Block((n_in, n_out), std=sqrt(2 / n_in), rate=1 / sqrt(n_in), precision=n_in)
            blocks[f"noise.{i}.b"] = Block((n_out,), rate=0.1)
        return blocks

    def draws(self, parts: Parts, z: Tensor) -> Draws:
        """The features of noise, (M, G, n_entries)."""
        z, *masks = z.split([self.noise_dim, *self.hidden] if self.n_masks else [self.noise_dim], -1)
        h = z
        inputs, slopes = [], []
        if self.scale_input:
            h = h * functional.softplus(parts["noise.scale"])[:, None, None]
        for i in range(len(self.hidden)):
            inputs.append(h)
            h = torch.relu(h @ parts[f"noise.{i}.w"] + parts[f"noise.{i}.b"][:, None])
            slope = (h > 0).to(h)
            if masks:
                h, slope = h * masks[i], slope * masks[i]
            slopes.append(slope)
        return Draws(h, z, inputs, slopes)

    @property
    def learns_features(self) -> bool:
        """Whether the features have parameters."""
        return self.scale_input or bool(self.hidden)

    def pull_draws(self, parts: Parts, draws: Draws, g: Tensor) -> dict[str, Tensor]:
        """The gradient by the parameters of the hidden network, from that by the features, (M, G, H)."""
        found = {}
        for i in reversed(range(len(self.hidden))):
            g = g * draws.slopes[i]
            found[f"noise.{i}.w"] = draws.inputs[i].mT @ g
            found[f"noise.{i}.b"] = g.sum(1)
            g = g @ parts[f"noise.{i}.w"].mT
        if self.scale_input:
            found["noise.scale"] = (g * draws.z).sum((1, 2)) * torch.sigmoid(parts["noise.scale"])
        return found

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
    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> tuple[Tensor, LayerTape]:
        """x W + b for rows x, (M, G or 1, R, n_in) -> (M, G, R, n_out)."""

    @abstractmethod
    def pull(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        """The derivative of `apply`, transposed, at g, (M, G, R, n_out); `features`: whether theirs is wanted too."""

    @abstractmethod
    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """The weights themselves: (M, G, n_in, n_out) and (M, G, n_out)."""

    def scaled(self, parts: Parts, name: str, draws: Draws) -> Tensor:
        """The features times the factor of a layer, (M, G, H)."""
        if not self.residual:
            return draws.features
        return draws.features * torch.exp(parts[f"{name}.rho"])[:, None, None]

    def pull_scaled(self, parts: Parts, name: str, h: Tensor, g: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradients by the features and by rho, from that by the scaled features `h`."""
        if not self.residual:
            return g, {}
        return g * torch.exp(parts[f"{name}.rho"])[:, None, None], {f"{name}.rho": (g * h).sum((1, 2))}

    def _relative_spread(self) -> float:
        return self.spread if self.residual else 1.0


def affine(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    """x W + b for all groups at once: (M, G, R, i) and (M, i, o), (M, o) -> (M, G, R, o)."""
    return torch.baddbmm(b[:, None], x.flatten(1, 2), w).unflatten(1, x.shape[1:3])


def pull_affine(x: Tensor, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients by x, W and b, from g, (M, G, R, o); x may be shared by the groups, (M, 1, R, i)."""
    if x.shape[1] < g.shape[1]:
        g = g.sum(1, keepdim=True)
    flat = g.flatten(1, 2)
    return (flat @ w.mT).unflatten(1, g.shape[1:3]), x.flatten(1, 2).mT @ flat, flat.sum(1)
