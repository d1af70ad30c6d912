"""How a network is trained: rules of descent on flat weights, and the recipe that a problem comes with."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import BLOCK, blocks


class Moments(NamedTuple):
    """What a rule of descent remembers of past gradients, and how many steps it took."""

    first: Tensor  # (..., n_weights)
    second: Tensor
    t: int = 0

    @classmethod
    def none(cls, w: Tensor, dtype: torch.dtype) -> "Moments":
        """No past; the dtype is that in which moments are kept."""
        return cls(torch.zeros_like(w, dtype=dtype), torch.zeros_like(w, dtype=dtype))


class Descent(ABC):
    """A rule that turns gradients into steps of the weights, in place."""

    def step(self, w: Tensor, g: Tensor, moments: Moments, share: float = 1.0) -> Moments:
        """Move w at a share of the rate; may write to w, g and the moments."""
        first, second, t = moments
        after = Moments(first, second, t + 1)
        if w.shape[-1] <= BLOCK:
            self.move(w, g, after, share)
            return after
        for block in blocks(w.shape[-1]):
            self.move(w[..., block], g[..., block], Moments(first[..., block], second[..., block], t + 1), share)
        return after

    @abstractmethod
    def move(self, w: Tensor, g: Tensor, moments: Moments, share: float) -> None:
        """The step of some of the weights, in place; the moments count the present step."""

    @property
    def steepest(self) -> float:
        """The curvature beyond which steps overshoot; infinite where they have a length of their own."""
        return math.inf

    @abstractmethod
    def metric(self, moments: Moments) -> Tensor:
        """Gradient over step, for each weight: the reciprocal of its present rate."""

    def safe_metric(self, moments: Moments) -> Tensor:
        """The metric for steps under which it stays constant: no rate beyond the reciprocal of its mean."""
        metric = self.metric(moments)
        return metric + metric.mean(-1, keepdim=True)


@dataclass(frozen=True)
class Adam(Descent):
    """Kingma and Ba (2015).

    `corrected` says whether epsilon is added to the root that is corrected for the start, as torch does; scikit-learn
    adds it to the root before its correction.
    """

    rate: float = 1e-3
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    corrected: bool = False

    def move(self, w: Tensor, g: Tensor, moments: Moments, share: float) -> None:
        first, second, t = moments
        g = g.to(first.dtype)
        first.lerp_(g, 1 - self.beta_1)
        second.mul_(self.beta_2).addcmul_(g, g, value=1 - self.beta_2)
        correction = (1 - self.beta_2**t) ** 0.5
        rate = share * self.rate * correction / (1 - self.beta_1**t)
        size = torch.sqrt(second, out=g).add_(self.epsilon * correction if self.corrected else self.epsilon)
        if w.dtype == g.dtype:
            w.addcdiv_(first, size, value=-rate)
        else:
            w.sub_(torch.div(first, size, out=size).mul_(rate))

    def metric(self, moments: Moments) -> Tensor:
        size = moments.second / (1 - self.beta_2 ** max(moments.t, 1))
        return size.sqrt().add_(self.epsilon).div_(self.rate)


@dataclass(frozen=True)
class Momentum(Descent):
    """Gradient descent with momentum, Nesterov's or plain, as scikit-learn writes it."""

    rate: float = 1e-3
    momentum: float = 0.9
    nesterov: bool = True

    def move(self, w: Tensor, g: Tensor, moments: Moments, share: float) -> None:
        rate = share * self.rate
        velocity = moments.first.mul_(self.momentum).add_(g, alpha=-rate)
        w.add_(velocity)
        if self.nesterov:
            w.add_(velocity, alpha=self.momentum - 1).add_(g, alpha=-rate)

    @property
    def steepest(self) -> float:
        return 1 / self.rate

    def safe_metric(self, moments: Moments) -> Tensor:
        return self.metric(moments)

    def metric(self, moments: Moments) -> Tensor:
        return torch.full_like(moments.first, (1 - self.momentum) / self.rate)


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    descent : Descent
        The rule of the steps.
    batch_size : int
        Rows of a batch; fewer where a fold has fewer.
    max_epochs : int
        Passes over the rows that a plain fit may take.
    patience : int or None
        Epochs without a lower held-out loss after which training ends; None: the procedure's own.
    shuffle : bool
        Whether every epoch deals the rows anew.
    even_decay : bool
        Whether decays act on every step alike; else a step divides them by the weight of its batch.
    """

    descent: Descent = Adam()
    batch_size: int = 200
    max_epochs: int = 200
    patience: int | None = None
    shuffle: bool = True
    even_decay: bool = False
