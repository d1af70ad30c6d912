"""Noise models, and the likelihood of a row marginalised over draws.

Outputs are (M, G, R, O), targets (M, G or 1, R, T); a log density is that of a row: summed over its targets. The loss
of a row with the weight v is v (penalty - importance * log density), and importance has no derivative.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import log, pi
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Block, Parts

LOG_2PI = log(2 * pi)


def marginal(log_p: Tensor, exponent: float, dim: int = 1) -> Tensor:
    """log-mean-exp over draws with an exponent: (1/a) log mean_k exp(a log p_k); the mean for a = 0."""
    if not exponent:
        return log_p.mean(dim)
    return (torch.logsumexp(exponent * log_p, dim) - log(log_p.shape[dim])) / exponent


class Scored(NamedTuple):
    """What a noise model says of rows, and what its derivatives need."""

    log_p: Tensor  # (M, G, R)
    penalty: Tensor  # (M, G, R) or (1, 1, 1)
    importance: Tensor  # the same
    own: tuple[Tensor, ...]  # of the model


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
    def score(self, parts: Parts, outputs: Tensor, y: Tensor) -> Scored:
        """log p(y | x, z), and what the loss of a row has beside it."""

    @abstractmethod
    def pull(self, parts: Parts, scored: Scored, g: Tensor, by_penalty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The gradients of a loss by the outputs and by the parameters, from those by log_p and penalty, (M, G, R)."""


def unweighted(log_p: Tensor, *own: Tensor) -> Scored:
    """No penalty, and all rows of the same importance."""
    return Scored(log_p, log_p.new_zeros(1, 1, 1), log_p.new_ones(1, 1, 1), own)


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

    def score(self, parts: Parts, outputs: Tensor, y: Tensor) -> Scored:
        """Gaussian."""
        log_sigma = self.log_sigma(parts, outputs)
        return unweighted(*gaussian(y - outputs, log_sigma))

    def mean_error(self, scored: Scored) -> tuple[Tensor, Tensor]:
        """(y - m)^2 / (2 v) summed over targets, (M, 1, R), and its slope by m, (M, 1, R, T).

        m and v are the mean and the variance of the mixture over draws that see the same rows; v is held constant.
        """
        r, inverse = scored.own[:2]
        sigma = 1 / inverse
        return error_of_mean(r * sigma, sigma.square())

    def pull(self, parts: Parts, scored: Scored, g: Tensor, by_penalty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """d log p / d mean = r / sigma and d log p / d log sigma = r^2 - 1, r the residual over sigma."""
        by_mean, by_log_sigma = pull_gaussian(g, *scored.own)
        free = parts["log_sigma"] >= self.log_floor
        return by_mean, {"log_sigma": by_log_sigma.sum((1, 2)) * free}


def gaussian(residual: Tensor, log_sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log N(residual; 0, sigma^2) summed over targets, r = residual / sigma, and 1 / sigma."""
    inverse = torch.exp(-log_sigma)
    r = residual * inverse
    return -(0.5 * (r * r + LOG_2PI) + log_sigma).sum(-1), r, inverse


def error_of_mean(residual: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """`Homoscedastic.mean_error`, from the residuals of the draws and their variances, (M, G, R, T)."""
    error = residual.mean(1, keepdim=True)
    slope = -error / ((residual - error).square() + variance).mean(1, keepdim=True)
    return -0.5 * (slope * error).sum(-1), slope


def pull_gaussian(g: Tensor, r: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients by mean and log sigma, from that by the log density."""
    g = g[..., None]
    by_r = g * r
    return by_r * inverse, by_r * r - g


@dataclass(frozen=True)
class FixedScale(Homoscedastic):
    """Gaussian with sigma = 1 / sqrt 2, and no constant: -log p is the squared error."""

    def blocks(self) -> Mapping[str, Block]:
        """None are learned."""
        return {}

    def log_sigma(self, parts: Parts, outputs: Tensor) -> Tensor:
        """0: the scale is found after training."""
        return outputs.new_zeros(1, 1, 1, 1)

    def score(self, parts: Parts, outputs: Tensor, y: Tensor) -> Scored:
        """Minus the squared error."""
        residual = y - outputs
        return unweighted(-residual.square().sum(-1), residual)

    def mean_error(self, scored: Scored) -> tuple[Tensor, Tensor]:
        """With the variance 1/2 of a draw."""
        (residual,) = scored.own
        return error_of_mean(residual, torch.full_like(residual, 0.5))

    def pull(self, parts: Parts, scored: Scored, g: Tensor, by_penalty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Twice the residual."""
        (residual,) = scored.own
        return 2 * g[..., None] * residual, {}


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

    def score(self, parts: Parts, outputs: Tensor, y: Tensor) -> Scored:
        """Gaussian, the shrinkage, and (sigma(x) / sigma)^(2 evenness)."""
        offset = self.offset(outputs)
        log_sigma = parts["log_sigma"][:, None, None] + offset
        free = log_sigma >= self.log_floor
        log_p, r, inverse = gaussian(y - outputs[..., : self.n_targets], log_sigma.clamp_min(self.log_floor))
        importance = torch.exp(2 * self.evenness * offset.detach().mean(-1))
        return Scored(log_p, self.shrinkage * offset.square().sum(-1), importance, (r, inverse, offset, free))

    def pull(self, parts: Parts, scored: Scored, g: Tensor, by_penalty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """As for one sigma; the offset has the derivative 1 - (offset / width)^2 by its output."""
        r, inverse, offset, free = scored.own
        by_mean, by_log_sigma = pull_gaussian(g, r, inverse)
        by_log_sigma = by_log_sigma * free
        by_offset = by_log_sigma + (2 * self.shrinkage) * by_penalty[..., None] * offset
        by_output = by_offset * (1 - (offset / self.width).square())
        return torch.cat([by_mean, by_output], -1), {"log_sigma": by_log_sigma.sum((1, 2))}


@dataclass(frozen=True)
class Categorical(NoiseModel):
    """Classes; targets are one-hot rows."""

    def score(self, parts: Parts, outputs: Tensor, y: Tensor) -> Scored:
        """Log-softmax at the target."""
        log_q = torch.log_softmax(outputs, -1)
        return unweighted((log_q * y).sum(-1), log_q, y)

    def pull(self, parts: Parts, scored: Scored, g: Tensor, by_penalty: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Target less probability."""
        log_q, y = scored.own
        return g[..., None] * (y - torch.exp(log_q)), {}
