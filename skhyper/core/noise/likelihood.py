"""Noise models, and the likelihood of a row marginalised over draws.

Outputs are (M, G, R, O), targets (M, G or 1, R, T); a log density is that of a row: summed over its targets.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, pi

import torch
from torch import Tensor

from .layout import Block, Parts

LOG_2PI = log(2 * pi)


def marginal(log_p: Tensor, exponent: float, dim: int = 1) -> Tensor:
    """log-mean-exp over draws with an exponent: (1/a) log mean_k exp(a log p_k); the mean for a = 0."""
    if not exponent:
        return log_p.mean(dim)
    return (torch.logsumexp(exponent * log_p, dim) - log(log_p.shape[dim])) / exponent


@dataclass(frozen=True)
class NoiseModel(ABC):
    """From outputs to the density of targets.

    Parameters
    ----------
    n_targets : int
        T, targets of a regression or classes.
    """

    n_targets: int

    @property
    def n_outputs(self) -> int:
        """O, columns that the main network must have."""
        return self.n_targets

    def blocks(self) -> Mapping[str, Block]:
        """Its own parameters."""
        return {}

    @abstractmethod
    def log_density(self, parts: Parts, outputs: Tensor, y: Tensor) -> Tensor:
        """log p(y | x, z), (M, G, R)."""

    def penalty(self, parts: Parts, outputs: Tensor) -> Tensor:
        """What is added to the loss of a row: (M, G, R), or (1, 1, 1)."""
        return outputs.new_zeros(1, 1, 1)

    def importance(self, outputs: Tensor) -> Tensor:
        """What the loss of a row is multiplied by, without a gradient: (M, G, R), or (1, 1, 1)."""
        return outputs.new_ones(1, 1, 1)


@dataclass(frozen=True)
class Homoscedastic(NoiseModel):
    """Gaussian, one learned standard deviation for each target."""

    log_floor: float = -12.0

    def blocks(self) -> Mapping[str, Block]:
        """log sigma, (T,)."""
        return {"log_sigma": Block((self.n_targets,), rate=0.5)}

    def log_sigma(self, parts: Parts, outputs: Tensor) -> Tensor:
        """log sigma, broadcast to (M, G, R, T)."""
        return parts["log_sigma"].clamp_min(self.log_floor)[:, None, None]

    def log_density(self, parts: Parts, outputs: Tensor, y: Tensor) -> Tensor:
        """Gaussian."""
        log_sigma = self.log_sigma(parts, outputs)
        r = (y - outputs[..., : self.n_targets]) * torch.exp(-log_sigma)
        return -(0.5 * (r * r + LOG_2PI) + log_sigma).sum(-1)


@dataclass(frozen=True)
class FixedScale(Homoscedastic):
    """Gaussian with sigma = 1 / sqrt 2, and no constant: -log p is the squared error."""

    def blocks(self) -> Mapping[str, Block]:
        """None are learned."""
        return {}

    def log_sigma(self, parts: Parts, outputs: Tensor) -> Tensor:
        """0: the scale is found after training."""
        return outputs.new_zeros(1, 1, 1, 1)

    def log_density(self, parts: Parts, outputs: Tensor, y: Tensor) -> Tensor:
        """Minus the squared error."""
        return -(y - outputs).square().sum(-1)


@dataclass(frozen=True)
class Heteroscedastic(Homoscedastic):
    """Gaussian whose log sigma is the learned one plus a function of the row, shrunk to zero.

    Parameters
    ----------
    shrinkage : float
        Weight of the mean square of that function in the loss.
    width : float
        It is width * tanh(output / width): within a factor exp(width) of the learned sigma.
    evenness : float
        The loss of a row is multiplied by (sigma(x) / sigma)^(2 evenness), held constant: 0 is the likelihood, under
        which rows that fit badly are given up as noise; 1 gives all residuals the weight that they have in least
        squares (Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", 2022).
    """

    shrinkage: float = 0.05
    width: float = 2.0
    evenness: float = 0.5

    @property
    def n_outputs(self) -> int:
        """Means and offsets of log sigma."""
        return 2 * self.n_targets

    def offset(self, outputs: Tensor) -> Tensor:
        """What the row adds to log sigma."""
        return self.width * torch.tanh(outputs[..., self.n_targets :] / self.width)

    def log_sigma(self, parts: Parts, outputs: Tensor) -> Tensor:
        """log sigma of each row and draw."""
        return (parts["log_sigma"][:, None, None] + self.offset(outputs)).clamp_min(self.log_floor)

    def importance(self, outputs: Tensor) -> Tensor:
        """(sigma(x) / sigma)^(2 evenness)."""
        return torch.exp(2 * self.evenness * self.offset(outputs.detach()).mean(-1))

    def penalty(self, parts: Parts, outputs: Tensor) -> Tensor:
        """The shrinkage."""
        return self.shrinkage * self.offset(outputs).square().sum(-1)


@dataclass(frozen=True)
class Categorical(NoiseModel):
    """Classes; targets are one-hot rows."""

    def log_density(self, parts: Parts, outputs: Tensor, y: Tensor) -> Tensor:
        """Log-softmax at the target."""
        return (torch.log_softmax(outputs, -1) * y).sum(-1)
