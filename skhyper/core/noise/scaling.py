"""Scaling of features and targets by weighted statistics.

Robust scaling with a smooth clip: t = (x - median) / (interquartile range / 1.349), then t / sqrt(1 + (t / 3)^2), so
that no value is further out than 3 (Holzmueller et al., "Better by default", 2024). Where the interquartile range is
zero the range takes its place; constant columns become zero.
"""

from typing import NamedTuple

import torch
from torch import Tensor

CLIP = 3.0
CONSTANT = 1e-6
FURTHEST = 1e100  # beyond it squares overflow


class Scaling(NamedTuple):
    """t = (x - center) * factor, smoothly clipped at `clip` (infinite: not at all)."""

    center: Tensor
    factor: Tensor
    clip: float

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled values."""
        t = (x - self.center) * self.factor
        if self.clip == torch.inf:
            return t
        t = t.clamp(-FURTHEST, FURTHEST)
        return t / torch.sqrt(1 + (t / self.clip) ** 2)


def weighted_quantile(x: Tensor, weight: Tensor, q: float) -> Tensor:
    """Quantiles of columns, (p,): the smallest value up to which lies the share q of the weight."""
    order = x.argsort(0)
    share = weight[order].cumsum(0) / weight.sum()
    rank = (share < q - 1e-12).sum(0, keepdim=True).clamp_max(len(x) - 1)
    return x.gather(0, order).gather(0, rank)[0]


def moments(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of columns; constant columns have deviation 0 exactly."""
    share = weight / weight.sum()
    mean = share @ x
    deviation = torch.sqrt(share @ (x - mean).square())
    constant = x.amax(0) == x.amin(0)
    mean = torch.where(constant, x[0], mean)
    return mean, torch.where(constant, torch.zeros_like(deviation), deviation)


def robust_scaling(x: Tensor, weight: Tensor) -> Scaling:
    """Median, interquartile range, smooth clip."""
    median, low, high = (weighted_quantile(x, weight, q) for q in (0.5, 0.25, 0.75))
    iqr, width = (high - low) / 1.349, (x.amax(0) - x.amin(0)) / 2
    scale = torch.where(iqr > 0, iqr, width)
    return Scaling(median, _inverse(scale), CLIP)


def standard_scaling(x: Tensor, weight: Tensor) -> Scaling:
    """Mean and standard deviation."""
    mean, deviation = moments(x, weight)
    return Scaling(mean, _inverse(deviation), torch.inf)


def no_scaling(x: Tensor, weight: Tensor) -> Scaling:
    """As it is."""
    return Scaling(torch.zeros(x.shape[1], dtype=x.dtype), torch.ones(x.shape[1], dtype=x.dtype), torch.inf)


def target_scaling(y: Tensor, weight: Tensor) -> Scaling:
    """Mean 0 and standard deviation 1; of constant targets the unit is a millionth of their size."""
    mean, deviation = moments(y, weight)
    size = CONSTANT * torch.where(mean == 0, 1.0, mean.abs())
    return Scaling(mean, 1 / torch.where(deviation > 0, deviation, size), torch.inf)


def identity(n: int) -> Scaling:
    """Of one-hot targets."""
    return Scaling(torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64), torch.inf)


def _inverse(scale: Tensor) -> Tensor:
    return torch.where(scale > 0, 1 / scale.where(scale > 0, torch.ones_like(scale)), torch.zeros_like(scale))
