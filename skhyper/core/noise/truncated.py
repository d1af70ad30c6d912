"""Predictive distributions of targets with bounded support: a mixture of Gaussians, given that all targets of a row lie
within their bounds.

    p(y) = sum_k N(y; mean_k, std_k^2) / sum_k Z_k ,    Z_k = prod_t P_k(low_t <= Y_t <= high_t)

Masses are kept as logarithms, so that components far outside the bounds do no harm.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from .likelihood import LOG_2PI
from .predictive import Components, Distribution, Mixture

# Levels of the quantiles between which the score is integrated, by Gauss and Legendre's rule with so many nodes.
LEVELS = (1e-7, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-4, 1 - 1e-7)
NODES = 16
# Standard deviations beyond which a component is taken for zero.
REACH = 40.0


@dataclass(frozen=True)
class Truncated(Distribution):
    """A mixture given its bounds."""

    mixture: Mixture
    low: Tensor  # (T,); minus infinity: none
    high: Tensor  # (T,)

    @cached_property
    def ends(self) -> tuple[Tensor, Tensor]:
        """The bounds in standard deviations from each component's mean, (D, n, T)."""
        mean, std = self.mixture.mean, self.mixture.std
        return (self.low - mean) / std, (self.high - mean) / std

    @cached_property
    def log_mass(self) -> Tensor:
        """log P_k(low <= Y <= high) of each target, (D, n, T)."""
        return log_between(*self.ends)

    @cached_property
    def log_weight(self) -> Tensor:
        """Of the components, (D, n, 1)."""
        return torch.log_softmax(self.log_mass.sum(-1, keepdim=True), 0)

    def components(self) -> Components:
        """Moments of truncated Gaussians."""
        mean, std = self.mixture.mean, self.mixture.std
        a, b = self.ends
        at_a, at_b = (torch.exp(-0.5 * (t * t + LOG_2PI) - self.log_mass) for t in (a, b))
        shift = at_a - at_b
        slope = torch.where(torch.isinf(a), 0.0, a * at_a) - torch.where(torch.isinf(b), 0.0, b * at_b)
        centre = (mean + std * shift).clamp(self.low, self.high)
        shrink = (1 + slope - shift * shift).clamp(0.0, 1.0)
        return Components(self.log_weight.exp(), centre, std.square() * shrink)

    def cdf(self, y: Tensor) -> Tensor:
        """P(Y <= y), (n, T)."""
        y = y.clamp(self.low, self.high)
        t = (y - self.mixture.mean) / self.mixture.std
        below = log_between(self.ends[0], t)
        return torch.exp(self.log_weight + below - self.log_mass).sum(0).clamp(0.0, 1.0)

    def density(self, y: Tensor) -> Tensor:
        """p(y), (n, T); zero outside the bounds."""
        t = (y - self.mixture.mean) / self.mixture.std
        log_p = -0.5 * (t * t + LOG_2PI) - self.mixture.std.log() - self.log_mass
        inside = (y >= self.low) & (y <= self.high)
        return torch.where(inside, torch.exp(self.log_weight + log_p).sum(0), 0.0)

    def log_density(self, y: Tensor) -> Tensor:
        """Joint log density, (n,); minus infinity outside the bounds."""
        log_p = torch.logsumexp(self.mixture.log_components(y), 0) - torch.logsumexp(self.log_mass.sum(-1), 0)
        inside = ((y >= self.low) & (y <= self.high)).all(-1)
        return torch.where(inside, log_p, -torch.inf)

    def bracket(self, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The bounds, or what lies far from the point of each component that is nearest to its mean."""
        nearest, reach = self.mixture.mean.clamp(self.low, self.high), REACH * self.mixture.std
        low, high = (
            torch.maximum((nearest - reach).amin(0), self.low),
            torch.minimum((nearest + reach).amax(0), self.high),
        )
        return low, high, self.mixture.std.amin(0)

    def crps(self, y: Tensor) -> Tensor:
        """The integral of (F(u) - 1{u >= y})^2 between quantiles and y."""
        knots = torch.stack([self.quantile(level) for level in LEVELS] + [y]).sort(0).values
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        total = torch.zeros_like(y)
        for left, right in pairwise(knots):
            half, middle = (right - left) / 2, (right + left) / 2
            for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
                u = middle + half * node
                total += weight * half * (self.cdf(u) - (u >= y).to(u)).square()
        return total

    def draw(self, level: Tensor, noise: Tensor) -> Tensor:
        """By the inverse distribution function; rows in which components weigh the same get the same component."""
        mean, std = self.mixture.mean, self.mixture.std
        share = self.log_weight[..., 0].exp().cumsum(0).T.contiguous()  # (n, D)
        chosen = torch.searchsorted(share, level.expand(len(share), -1).contiguous())
        chosen = chosen.clamp_max(len(mean) - 1).T[..., None].expand(noise.shape)
        a, b = (end.gather(0, chosen) for end in self.ends)
        flip = a > 0  # accurate in the lower tail
        a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
        u = torch.special.ndtr(noise)
        below, above = torch.special.ndtr(a), torch.special.ndtr(b)
        t = torch.special.ndtri(below + u * (above - below)).clamp(a, b)
        values = mean.gather(0, chosen) + std.gather(0, chosen) * torch.where(flip, -t, t)
        return values.clamp(self.low, self.high)


def log_between(a: Tensor, b: Tensor) -> Tensor:
    """log P(a <= N(0, 1) <= b), accurate in both tails."""
    flip = a > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return torch.where(b > a, log_b + torch.log1p(-torch.exp(log_a - log_b)), -torch.inf)
