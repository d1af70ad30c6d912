"""Predictive distributions of targets with bounded support: a mixture of Gaussians, given that all targets of a row lie
within their bounds.

    p(y) = sum_k N(y; mean_k, std_k^2) / sum_k Z_k ,    Z_k = prod_t P_k(low_t <= Y_t <= high_t)

Masses are kept as logarithms. In units of its standard deviation the bound that is nearer to the mean of a component
far outside lies at beta from it, and what the component has inside lies within some 1 / beta of that bound: so there
moments and draws are those of the distance e from the bound, whose density is exp(-beta e - e^2 / 2).
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from scipy.special import ndtri_exp
from torch import Tensor

from .likelihood import LOG_2PI
from .predictive import Components, Distribution, Mixture

# Levels of the quantiles between which the score is integrated, by Gauss and Legendre's rule with so many nodes.
LEVELS = (1e-7, 1e-4, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1 - 1e-4, 1 - 1e-7)
NODES = 16
KNOT_TOL = 1e-3  # of these quantiles, relative to the narrowest component
# Standard deviations beyond which a component is taken for zero.
REACH = 40.0
# Distance of the bound beyond which a component counts as far outside, and beyond which its tail is an exponential one;
# the width between bounds below which moments cancel as well. All in standard deviations.
FAR, EXPONENTIAL, NARROW = 8.0, 1e5, 0.1
TINY, EPS = torch.finfo(torch.float64).tiny, torch.finfo(torch.float64).eps
# Ends of the panels in which moments of the distance from the bound are integrated, as shares of its reach.
PANELS = (0.0, 0.02, 0.06, 0.15, 0.4, 1.0)


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

    def take(self, rows: Tensor) -> "Truncated":
        """Of some of the rows."""
        return Truncated(self.mixture.take(rows), self.low, self.high)

    def support(self) -> tuple[Tensor, Tensor]:
        """The bounds."""
        return self.low, self.high

    def components(self) -> Components:
        """Moments of truncated Gaussians."""
        mean, std = self.mixture.mean, self.mixture.std
        a, b = self.ends
        at_a, at_b = (torch.exp(-0.5 * (t * t + LOG_2PI) - self.log_mass) for t in (a, b))
        shift = at_a - at_b
        slope = torch.where(torch.isinf(a), 0.0, a * at_a) - torch.where(torch.isinf(b), 0.0, b * at_b)
        centre = (mean + std * shift).clamp(self.low, self.high)
        shrink = (1 + slope - shift * shift).clamp(0.0, 1.0)
        below, beta, width = nearer_bound(a, b)
        apart = (beta > FAR) | (width < NARROW)
        if bool(apart.any()):
            distance, variance = moments_of_distance(beta[apart], width[apart])
            bound, sign = torch.where(below, self.low, self.high)[apart], torch.where(below, 1.0, -1.0)[apart]
            centre[apart] = bound + sign * std[apart] * distance
            centre, shrink = centre.clamp(self.low, self.high), shrink.masked_scatter(apart, variance)
        return Components(self.log_weight.exp(), centre, std.square() * shrink)

    def cdf(self, y: Tensor) -> Tensor:
        """P(Y <= y), (n, T); 0 and 1 at the bounds exactly."""
        t = (y.clamp(self.low, self.high) - self.mixture.mean) / self.mixture.std
        below = log_between(self.ends[0], t)
        p = torch.exp(self.log_weight + below - self.log_mass).sum(0).clamp(0.0, 1.0)
        return torch.where(y >= self.high, 1.0, p)

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
        knots = torch.stack([self.quantile(level, KNOT_TOL) for level in LEVELS] + [y]).sort(0).values
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
        mean, std = mean.gather(0, chosen), std.gather(0, chosen)
        a, b = (end.gather(0, chosen) for end in self.ends)
        below, beta, width = nearer_bound(a, b)
        u = torch.special.ndtr(noise).clamp(TINY, 1 - EPS)
        t = quantile_between(torch.where(below, -b, a), torch.where(below, -a, b), torch.where(below, 1 - u, u))
        values = mean + std * torch.where(below, -t, t)
        tail = torch.log1p(u * torch.expm1(-beta * width)) / -beta  # the distance of an exponential tail
        bound = torch.where(below, self.low, self.high)
        values = torch.where(beta > EXPONENTIAL, bound + torch.where(below, 1.0, -1.0) * std * tail, values)
        return values.clamp(self.low, self.high)


def nearer_bound(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Whether the lower bound is nearer to the mean, how far beyond the mean the nearer one is, and the width.

    Bounds are in standard deviations from the mean, a < b; what lies between them is on the mean's side where the
    second is negative.
    """
    below = a > -b
    return below, torch.where(below, a, -b), b - a


def moments_of_distance(beta: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of e in [0, width] with the density exp(-beta e - e^2 / 2), by Gauss and Legendre's rule."""
    reach = torch.minimum(width, REACH / beta.clamp_min(1.0))
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    zero = torch.zeros_like(beta)
    mass, first, second = zero, zero, zero
    for left, right in pairwise(PANELS):
        for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            e = reach * ((left + right) / 2 + (right - left) / 2 * node)
            p = 0.5 * (right - left) * weight * torch.exp(-beta * e - 0.5 * e * e)
            mass, first, second = mass + p, first + p * e, second + p * e * e
    mean = first / mass
    return mean, (second / mass - mean.square()).clamp_min(0.0)


def quantile_between(a: Tensor, b: Tensor, u: Tensor) -> Tensor:
    """The u-quantile of N(0, 1) between a and b, by logarithms: accurate in the lower tail."""
    log_p = torch.logaddexp(torch.special.log_ndtr(a) + torch.log1p(-u), torch.special.log_ndtr(b) + torch.log(u))
    return torch.from_numpy(ndtri_exp(log_p.numpy())).clamp(a, b)


def log_between(a: Tensor, b: Tensor) -> Tensor:
    """log P(a <= N(0, 1) <= b), accurate in both tails."""
    flip = a > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
    return torch.where(b > a, log_b + torch.log1p(-torch.exp(log_a - log_b)), -torch.inf)
