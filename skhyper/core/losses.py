"""Losses per row, with their derivatives with respect to the network's outputs.

Shapes: outputs f (..., n, T), targets y broadcastable to (..., n, T). A loss has three functions: `value` (..., n),
`gradient` (..., n, T) and `hessian` (..., n, T, T). All are convex in f (Tweedie of power > 2 excepted) and
scaled so that the inner objective of every estimator reads

    sum_i c_i loss(f_i, y_i) + 1/2 sum_j a_j w_j^2

`start` gives outputs to begin a search at, the same for every row: (K, T) for targets (n, T) or (K, n, T) and row
weights (K, n).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# How far the logit of a class that a fold lacks lies below those of others.
ABSENT = 30.0


class Loss(ABC):
    """A differentiable loss of the outputs of one row."""

    n_constants = 0
    # Whether adding the same number to all outputs changes nothing, so that the Hessian is singular.
    shift_invariant = False
    # Whether the Hessian is continuous in the outputs.
    smooth = True

    @property
    def separable(self) -> bool:
        """Whether the loss is a sum over outputs, so that its Hessian is diagonal."""
        return False

    @abstractmethod
    def value(self, f: Tensor, y: Tensor) -> Tensor:
        """The loss of each row: (..., n, T) -> (..., n)."""

    @abstractmethod
    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        """d value / d f: (..., n, T)."""

    @abstractmethod
    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        """d^2 value / d f^2: (..., n, T, T)."""

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        """The diagonal of the Hessian: (..., n, T)."""
        return self.hessian(f, y).diagonal(dim1=-2, dim2=-1)

    def hessian_product(self, f: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        """v -> hessian v, (..., n, T) -> (..., n, T), with what all v share computed once."""
        hessian = self.hessian(f, y)
        return lambda v: (hessian @ v[..., None])[..., 0]

    def reach(self, f: Tensor, df: Tensor) -> Tensor | None:
        """How many times df can be added to f before the loss is infinite, (...); None where it never is."""
        return None

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        """Constant outputs near the best ones: zeros unless the loss knows better."""
        return torch.zeros_like(_mean(y, c))


class SeparableLoss(Loss):
    """A loss that is a sum over outputs, so that its Hessian is diagonal."""

    @property
    def separable(self) -> bool:
        return True

    @abstractmethod
    def each(self, f: Tensor, y: Tensor) -> Tensor:
        """The loss of each output."""

    @abstractmethod
    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        """The second derivative of each output's loss."""

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        return self.each(f, y).sum(-1)

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        return torch.diag_embed(self.curvature(f, y))

    def hessian_product(self, f: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        curvature = self.curvature(f, y)
        return lambda v: curvature * v


@dataclass(frozen=True)
class SquaredError(SeparableLoss):
    """(f - y)^2 / 2."""

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        return (f - y) ** 2 / 2

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return f - y

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return torch.ones_like(f)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        return _mean(y, c)


@dataclass(frozen=True)
class LogLoss(SeparableLoss):
    """log(1 + exp(f)) - y f, for y in {0, 1} (or probabilities)."""

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        return torch.log1p(torch.exp(-f.abs())) + (f.clamp(min=0) - y * f)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        # The difference of a probability and a label has no digits left where they are nearly the same.
        return (1 - y) * torch.sigmoid(f) - y * torch.sigmoid(-f)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return torch.sigmoid(f) * torch.sigmoid(-f)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        return torch.logit(_mean(y, c), eps=1e-3)


@dataclass(frozen=True)
class MultinomialLogLoss(Loss):
    """log sum_t exp(f_t) - sum_t y_t f_t, for one-hot y.

    A fold may lack classes. Their targets are minus infinity, and the sum over t leaves out their outputs: the loss
    does not depend on them, and its curvature along them is set to one, so that they stay where they are.
    """

    shift_invariant = True

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        f, y, _ = _of_present(f, y)
        return torch.logsumexp(f - (torch.where(y != 0, y * f, 0.0)).sum(-1, keepdim=True), -1)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        f, y, _ = _of_present(f, y)
        others = (1 - y) * torch.softmax(f, -1)  # as in `LogLoss`
        return others - y * others.sum(-1, keepdim=True)

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        f, _, absent = _of_present(f, y)
        p = torch.softmax(f, -1)
        return torch.diag_embed(p + absent) - p[..., :, None] * p[..., None, :]

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        f, _, absent = _of_present(f, y)
        p = torch.softmax(f, -1)
        return p * (1 - p) + absent

    def hessian_product(self, f: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        f, _, absent = _of_present(f, y)
        p = torch.softmax(f, -1)
        return lambda v: p * (v - (p * v).sum(-1, keepdim=True)) + absent * v

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        means = _mean(y.nan_to_num(neginf=0.0), c)
        logs = means.clamp(min=1e-3).log() - ABSENT * (y == -torch.inf).any(-2).to(means)
        return logs - logs.mean(-1, keepdim=True)


def _of_present(f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor | float]:
    """Outputs and targets, minus infinity and 0 for classes that a fold lacks, and where these are."""
    absent = y == -torch.inf
    if not bool(absent.any()):
        return f, y, 0.0
    return torch.where(absent, -torch.inf, f), torch.where(absent, 0.0, y), absent.to(f)


@dataclass(frozen=True)
class TweedieLog(SeparableLoss):
    """Half the unit Tweedie deviance of the given power, log link.

    power 0 is the normal, 1 the Poisson, 2 the gamma, 3 the inverse Gaussian distribution. The first is a squared loss,
    whose logarithm searches lower.
    """

    power: float = 1.0

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        if self.power == 0:
            return (torch.exp(f) - y).square() / 2
        if self.power == 1:
            return torch.exp(f) - y * f + (torch.xlogy(y, y) - y)
        if self.power == 2:
            return f + y * torch.exp(-f) - (y.log() + 1)
        a, b = 1 - self.power, 2 - self.power
        return torch.exp(b * f) / b - y * torch.exp(a * f) / a + y**b / (a * b)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return torch.exp((2 - self.power) * f) - y * torch.exp((1 - self.power) * f)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        a, b = 1 - self.power, 2 - self.power
        return b * torch.exp(b * f) - a * y * torch.exp(a * f)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        mean = _mean(y, c)  # zero in a fold without events
        size = mean.max()
        return mean.clamp(min=1e-8 * float(size) if size > 0 else 1e-8).log()


@dataclass(frozen=True)
class Huber(SeparableLoss):
    """r^2 / 2 for |r| <= epsilon, epsilon |r| - epsilon^2 / 2 beyond, r = f - y."""

    epsilon: float = 1.0
    smooth = False

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        r = (f - y).abs()
        return torch.where(r <= self.epsilon, r**2 / 2, self.epsilon * r - self.epsilon**2 / 2)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return (f - y).clamp(-self.epsilon, self.epsilon)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return ((f - y).abs() <= self.epsilon).to(f)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        return _median(y, c)


@dataclass(frozen=True)
class ConcomitantHuber(Loss):
    """Half of HuberRegressor's loss, sigma + sigma H((f - y) / sigma); the second output is the scale sigma > 0.

    H(z) = z^2 for |z| <= epsilon and 2 epsilon |z| - epsilon^2 beyond; infinite where sigma <= 0.
    """

    epsilon: float = 1.35
    n_constants = 1
    smooth = False

    def _parts(self, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        sigma = f[..., 1]
        z = (f[..., 0] - y[..., 0]) / sigma
        return z, sigma, z.abs() <= self.epsilon

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        z, sigma, inside = self._parts(f, y)
        h = torch.where(inside, z**2, 2 * self.epsilon * z.abs() - self.epsilon**2)
        return torch.where(sigma > 0, sigma * (1 + h) / 2, torch.inf)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        z, _, _ = self._parts(f, y)
        clipped = z.clamp(-self.epsilon, self.epsilon)
        return torch.stack([clipped, (1 - clipped**2) / 2], -1)

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        z, sigma, inside = self._parts(f, y)
        direction = torch.stack([torch.ones_like(z), -z], -1) * (inside / sigma)[..., None]
        return direction[..., :, None] * torch.stack([torch.ones_like(z), -z], -1)[..., None, :]

    def reach(self, f: Tensor, df: Tensor) -> Tensor:
        sigma, change = f[..., 1], df[..., 1]
        return torch.where(change < 0, -sigma / change, torch.inf).amin(-1)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        centre = _median(y, c)
        sigma = 1.5 * _median((y - centre[..., None, :]).abs(), c)
        spread = _mean((y - centre[..., None, :]) ** 2, c).sqrt()
        sigma = torch.where(sigma > 0.01 * spread, sigma, spread)
        return torch.cat([centre, torch.where(sigma > 0, sigma, 1.0)], -1)


@dataclass(frozen=True)
class SquaredHinge(SeparableLoss):
    """max(0, 1 - y f)^2, for y in {-1, 1}."""

    smooth = False

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        return (1 - y * f).clamp(min=0) ** 2

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return -2 * y * (1 - y * f).clamp(min=0)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return 2 * ((1 - y * f) > 0).to(f)


@dataclass(frozen=True)
class ModifiedHuber(SeparableLoss):
    """max(0, 1 - y f)^2 for y f >= -1 and -4 y f beyond, for y in {-1, 1}."""

    smooth = False

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        z = y * f
        return torch.where(z >= -1, (1 - z).clamp(min=0) ** 2, -4 * z)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return -2 * y * (1 - y * f).clamp(0, 2)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        z = y * f
        return 2 * ((z >= -1) & (z < 1)).to(f)


@dataclass(frozen=True)
class SquaredEpsilonInsensitive(SeparableLoss):
    """max(0, |f - y| - epsilon)^2."""

    epsilon: float = 0.0
    smooth = False

    def each(self, f: Tensor, y: Tensor) -> Tensor:
        return ((f - y).abs() - self.epsilon).clamp(min=0) ** 2

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        r = f - y
        return 2 * r.sign() * (r.abs() - self.epsilon).clamp(min=0)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return 2 * ((f - y).abs() > self.epsilon).to(f)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        return _mean(y, c)


@dataclass(frozen=True)
class Rescaled(Loss):
    """factor * loss: sets an estimator's own unit, or the unit of a score.

    What other losses know as constants of their class depends on the loss here, hence the overrides by properties.
    """

    loss: Loss
    factor: float

    @property
    def n_constants(self) -> int:  # type: ignore[override]  # a class variable elsewhere
        """Constants of the loss that is rescaled."""
        return self.loss.n_constants

    @property
    def shift_invariant(self) -> bool:  # type: ignore[override]  # a class variable elsewhere
        """As the loss that is rescaled."""
        return self.loss.shift_invariant

    @property
    def smooth(self) -> bool:  # type: ignore[override]  # a class variable elsewhere
        """As the loss that is rescaled."""
        return self.loss.smooth

    @property
    def separable(self) -> bool:
        return self.loss.separable

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        return self.factor * self.loss.value(f, y)

    def gradient(self, f: Tensor, y: Tensor) -> Tensor:
        return self.factor * self.loss.gradient(f, y)

    def hessian(self, f: Tensor, y: Tensor) -> Tensor:
        return self.factor * self.loss.hessian(f, y)

    def curvature(self, f: Tensor, y: Tensor) -> Tensor:
        return self.factor * self.loss.curvature(f, y)

    def hessian_product(self, f: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        product = self.loss.hessian_product(f, y)
        return lambda v: self.factor * product(v)

    def start(self, y: Tensor, c: Tensor) -> Tensor:
        return self.loss.start(y, c)


def _mean(y: Tensor, c: Tensor) -> Tensor:
    return (c[..., None] * y).sum(-2) / c.sum(-1)[..., None]


def _median(y: Tensor, c: Tensor) -> Tensor:
    return torch.where(c[..., None] > 0, y, torch.nan).nanmedian(-2).values
