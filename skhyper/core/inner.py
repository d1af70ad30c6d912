"""The inner problem as a function of the weights: training loss plus penalty, with what Newton's method needs of it."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .decays import Hyper
from .problem import Problem, weighted, weighted_sum


class Point(NamedTuple):
    """Weights, and what the objective knows there."""

    w: Tensor  # (..., K, n_weights)
    f: Tensor  # outputs, (..., K, n, T + C)
    a: Tensor  # decays, (..., K, n_weights)
    value: Tensor  # the objective, (..., K)
    size: Tensor  # the sum of its terms' sizes, (..., K)

    def take(self, rows: Tensor) -> "Point":
        """The point of some of the candidates."""
        return Point(*(part[rows] for part in self))


@dataclass(frozen=True)
class InnerObjective:
    """Training loss plus penalty, for every fold and candidate."""

    problem: Problem
    hyper: Hyper
    s2: Tensor

    @cached_property
    def quadratic(self) -> bool:
        """Whether the penalty is quadratic, all exponents being 2."""
        return bool((self.hyper.exponent == 2).all())

    @cached_property
    def _constant_decays(self) -> Tensor:
        decays, network = self.problem.decays, self.problem.network
        zeros = self.s2.new_zeros(*self.hyper.log_alpha.shape, self.problem.n_folds, network.n_weights)
        return decays.spread(decays.log_decays(zeros, self.hyper, self.s2).exp())

    def take(self, rows: Tensor) -> "InnerObjective":
        """The objective of some of the candidates."""
        log_alpha, exponent, offsets = self.hyper
        hyper = Hyper(log_alpha[rows], exponent[rows], None if offsets is None else offsets[rows])
        return replace(self, hyper=hyper)

    def at(self, f: Tensor, w: Tensor) -> Point:
        """The objective at weights w with outputs f."""
        decays = self.problem.decays
        losses = self.problem.loss.value(f, self.problem.y)
        if self.quadratic:
            a = self._constant_decays
            penalty = (a * w * w).sum(-1) / 2
        else:
            r = decays.relative(w, self.s2)
            a_g = decays.log_decays_at(r, self.hyper).exp()
            a, penalty = decays.spread(a_g), decays.penalty_at(r, a_g, w, self.hyper, self.s2)
        total = weighted_sum(self.problem.train, losses)
        return Point(w, f, a, total + penalty, weighted_sum(self.problem.train, losses.abs()) + penalty)

    def gradient(self, point: Point) -> Tensor:
        """d objective / d w: (..., K, n_weights)."""
        rows = weighted(self.problem.train, self.problem.loss.gradient(point.f, self.problem.y))
        return self.problem.network.pullback(rows, self.problem.design) + point.a * point.w

    def concavity(self, point: Point, v: Tensor) -> Tensor | None:
        """b_g scaled by the share of v_g along a_g w_g, but not beyond a_g (2 - q); None where all are zero."""
        if self.quadratic:
            return None
        decays, w = self.problem.decays, point.w
        r = decays.relative(w, self.s2)
        b = decays.concavity_at(r, decays.log_decays_at(r, self.hyper).exp(), self.hyper, self.s2)
        along, length = decays.group_sums(v * w), decays.group_sums(point.a * w**2)
        share = torch.where(length > 0, along / length, 1.0).clamp(min=0)
        return b * torch.minimum(share, (r / at_least_tiny(r - decays.eps)).sqrt())

    def bend(self, point: Point, b: Tensor, d: Tensor) -> Tensor:
        """sum_g b_g w_g w_g' d: (..., K, n_weights)."""
        decays = self.problem.decays
        return decays.spread(b * decays.group_sums(point.w * d)) * point.w

    def clipped(self, b: Tensor) -> Tensor:
        """`concavity`, made small enough for a positive definite Hessian whatever the exponent."""
        q = self.hyper.exponent
        return b / (2 - q.reshape(q.shape + (1,) * (b.ndim - q.ndim))).clamp(min=1)


def at_least_tiny(x: Tensor) -> Tensor:
    """x, kept from zero as a divisor."""
    return x.clamp(min=torch.finfo(x.dtype).tiny)
