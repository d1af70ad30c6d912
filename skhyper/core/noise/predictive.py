"""Predictive distributions of a regression: mixtures of Gaussians, one component for each member and draw.

Shapes: D components of equal weight, n rows, T targets; everything is per target unless it says joint.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import log, pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .likelihood import LOG_2PI

SQRT_2, SQRT_2PI = sqrt(2.0), sqrt(2 * pi)

# Numbers in the largest array of differences between components.
MAX_PAIRS = 2**23
QUANTILE_STEPS = 100
# Of a quantile, relative to the narrowest component; and relative error of its level that rounding leaves.
QUANTILE_TOL, CDF_ROUNDING = 1e-14, 2e-15
TINY = torch.finfo(torch.float64).tiny
# Points of the grid of log factors, parabolas after it, and how much closer together the points of each are.
N_GRID, N_PARABOLAS, CLOSER = 13, 3, 4.0


class Components(NamedTuple):
    """Parts of a mixture."""

    weight: Tensor  # (D, n, 1) or a number of one entry
    mean: Tensor  # (D, n, T)
    variance: Tensor  # (D, n, T)


class Distribution(ABC):
    """A mixture for each row."""

    @abstractmethod
    def components(self) -> Components:
        """Weights, means and variances."""

    @abstractmethod
    def cdf(self, y: Tensor) -> Tensor:
        """P(Y <= y), (n, T)."""

    @abstractmethod
    def density(self, y: Tensor) -> Tensor:
        """p(y), (n, T)."""

    @abstractmethod
    def log_density(self, y: Tensor) -> Tensor:
        """Joint log density of the targets of a row, (n,): targets are independent given the draw."""

    @abstractmethod
    def bracket(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values between which the quantiles of levels q (T,) lie, and how narrow the narrowest component is."""

    @abstractmethod
    def take(self, rows: Tensor) -> "Distribution":
        """Of some of the rows."""

    @abstractmethod
    def support(self) -> tuple[Tensor, Tensor]:
        """The values beyond which there are none, (T,) or (): quantiles of the levels 0 and 1."""

    @abstractmethod
    def crps(self, y: Tensor) -> Tensor:
        """Continuous ranked probability score E|Y - y| - E|Y - Y'| / 2, (n, T)."""

    @abstractmethod
    def draw(self, level: Tensor, noise: Tensor) -> Tensor:
        """Observations (S, n, T) from uniform numbers (S,), which choose a component, and normal noise (S, n, T)."""

    def expectation(self) -> Tensor:
        """Mean, (n, T)."""
        weight, mean, _ = self.components()
        return (weight * mean).sum(0)

    def variance(self) -> Tensor:
        """Mean of the variances plus variance of the means, (n, T)."""
        weight, mean, variance = self.components()
        return (weight * (variance + (mean - (weight * mean).sum(0)).square())).sum(0)

    def quantile(self, q: float | Tensor, tol: float = QUANTILE_TOL) -> Tensor:
        """The solution of cdf(y) = q, (n, T): Newton's steps, kept inside a bracket that bisection narrows.

        Of the levels 0 and 1 it is an end of the support.
        """
        q = torch.as_tensor(q, dtype=torch.float64)
        low, high, width = self.bracket(q)
        law, y, part = self, (low + high) / 2, (low + high) / 2
        rows, close = torch.arange(len(y)), tol * width
        done = torch.zeros_like(y, dtype=torch.bool)  # values wait where they have arrived: none moves another
        for _ in range(QUANTILE_STEPS):
            excess = law.cdf(part) - q
            low, high = torch.where(excess < 0, part, low), torch.where(excess > 0, part, high)
            step = part - excess / law.density(part).clamp_min(TINY)
            inside = (step > low) & (step < high)
            done = done | (excess.abs() <= CDF_ROUNDING * q)
            new = torch.where(done, part, torch.where(inside, step, (low + high) / 2))
            done = done | ((new - part).abs() <= close + 1e-15 * new.abs())
            y[rows] = part = new
            left = (~done.all(1)).nonzero()[:, 0]
            if not len(left):
                break
            if 2 * len(left) <= len(rows):
                law, rows, part, done = law.take(left), rows[left], part[left], done[left]
                low, high, close = low[left], high[left], close[left]
        least, most = self.support()
        return torch.where(q <= 0, least, torch.where(q >= 1, most, y))


@dataclass(frozen=True)
class Mixture(Distribution):
    """(1/D) sum_k N(mean_k, std_k^2)."""

    mean: Tensor  # (D, n, T)
    std: Tensor  # (D, n, T)

    def take(self, rows: Tensor) -> "Mixture":
        """Of some of the rows."""
        return Mixture(self.mean[:, rows], self.std[:, rows])

    def support(self) -> tuple[Tensor, Tensor]:
        """All numbers."""
        return self.mean.new_tensor(-torch.inf), self.mean.new_tensor(torch.inf)

    def components(self) -> Components:
        """All weigh the same."""
        return Components(self.mean.new_tensor(1 / len(self.mean)), self.mean, self.std.square())

    def cdf(self, y: Tensor) -> Tensor:
        """P(Y <= y), (n, T)."""
        return normal_cdf((y - self.mean) / self.std).mean(0)

    def density(self, y: Tensor) -> Tensor:
        """p(y), (n, T)."""
        return (torch.exp(-0.5 * ((y - self.mean) / self.std).square()) / (SQRT_2PI * self.std)).mean(0)

    def log_components(self, y: Tensor) -> Tensor:
        """Joint log density of each component, (D, n)."""
        t = (y - self.mean) / self.std
        return -(0.5 * (t * t + LOG_2PI) + self.std.log()).sum(-1)

    def log_density(self, y: Tensor) -> Tensor:
        """Log of the mean over components."""
        log_p = self.log_components(y)
        return torch.logsumexp(log_p, 0) - log(len(log_p))

    def bracket(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The components' own quantiles."""
        own = self.mean + self.std * torch.special.ndtri(q)
        return own.amin(0), own.amax(0), self.std.amin(0)

    def crps(self, y: Tensor) -> Tensor:
        """In closed form."""
        near = mean_absolute(self.mean - y, self.std.square()).mean(0)
        d, n = self.mean.shape[0], max(1, self.mean.shape[1])
        block = max(1, min(n, MAX_PAIRS // (d * d * self.mean.shape[2])))
        first = max(1, min(d, MAX_PAIRS // (d * block * self.mean.shape[2])))
        own = []
        for mean, std in zip(self.mean.split(block, 1), self.std.split(block, 1), strict=True):
            v, total = std.square(), torch.zeros_like(mean[0])
            for some, its in zip(mean.split(first), v.split(first), strict=True):
                total += mean_absolute(some[:, None] - mean, its[:, None] + v).sum((0, 1))
            own.append(total / d**2)
        return near - 0.5 * torch.cat(own)

    def draw(self, level: Tensor, noise: Tensor) -> Tensor:
        """The same component for all rows of a draw."""
        component = (level * len(self.mean)).long()
        return self.mean[component] + self.std[component] * noise


def normal_cdf(t: Tensor) -> Tensor:
    """P(N(0, 1) <= t), accurate in the lower tail too."""
    return 0.5 * torch.special.erfc(-t / SQRT_2)


def mean_absolute(mean: Tensor, variance: Tensor) -> Tensor:
    """E|N(mean, variance)|."""
    std = variance.sqrt()
    t = mean / std
    return std * (2 / SQRT_2PI) * torch.exp(-0.5 * t * t) + mean * torch.special.erf(t / SQRT_2)


class Parts(NamedTuple):
    """Total uncertainty and its two parts, each (n, T) or (n,)."""

    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def variance_parts(distribution: Distribution, n_members: int) -> Parts:
    """Variances: within members on average, and between the members' means."""
    weight, mean, variance = distribution.components()
    weight = weight.expand(mean.shape).unflatten(0, (n_members, -1))
    mean, variance = mean.unflatten(0, (n_members, -1)), variance.unflatten(0, (n_members, -1))
    share = weight.sum(1)
    own = (weight * mean).sum(1) / share
    within = (weight * (variance + (mean - own[:, None]).square())).sum((0, 1))
    between = (share * (own - (share * own).sum(0)).square()).sum(0)
    return Parts(within + between, within, between)


def entropy_parts(probabilities: Tensor) -> Parts:
    """Entropies in nats from (M, n, C): of the mean, mean of the members', and the difference, mutual information."""
    total, own = entropy(probabilities.mean(0)), entropy(probabilities).mean(0)
    return Parts(total, own, (total - own).clamp_min(0.0))


def entropy(p: Tensor) -> Tensor:
    """- sum p log p over the last axis."""
    return -torch.special.xlogy(p, p).sum(-1)


def best_log_factor(score: Callable[[Tensor], Tensor], n_targets: int, prior_std: float = 1.0) -> Tensor:
    """The c that maximises score(c) - c^2 / (2 prior_std^2) for each target, (T,), on [-3, 3].

    By a grid, and then the tops of parabolas through three points, ever closer together.

    Parameters
    ----------
    score : callable
        (T,) -> (T,), a log likelihood.
    """

    def penalised(c: Tensor) -> Tensor:
        return score(c) - c.square() / (2 * prior_std**2)

    width = 6.0 / (N_GRID - 1)
    grid = torch.linspace(-3.0, 3.0, N_GRID, dtype=torch.float64)[:, None].expand(-1, n_targets)
    best = torch.stack([penalised(c) for c in grid]).argmax(0)
    center = grid.gather(0, best[None])[0]
    for _ in range(N_PARABOLAS):
        width /= CLOSER
        low, middle, high = (penalised(center + offset) for offset in (-width, 0.0, width))
        slope, bend = (high - low) / 2, (low - 2 * middle + high).clamp_max(-torch.finfo(torch.float64).tiny)
        reach = CLOSER / 2  # as far as the points before left open
        center = (center - width * (slope / bend).clamp(-reach, reach)).clamp(-3.0, 3.0)
    return center
