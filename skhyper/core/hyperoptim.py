"""Proposals: where to evaluate next. Each is asked (`propose`) and told (`observe`) in turn, and never evaluates.

The objective that they lower is in a unit of its own, the same for all stages:

    log(outer + floor) + sum_g z_g^2 / (n tau^2)   for losses with a unit (n validation rows: (n/2) log loss is a NLL)
    outer + sum_g z_g^2 / (2 n tau^2)              for negative log-likelihoods and other losses without one
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .blocks import dot
from .decays import Hyper
from .result import Evaluation, StopReason

MEMORY = 20  # pairs that the quasi-Newton matrix remembers
FIRST_STEP = 0.5  # length of the first step in log-decay units
MAX_STEP = 3.0
ARMIJO = 1e-4
VALUE_ERROR = 0.1  # of the objective, in units of the relative accuracy of the weights
SHALLOWER = 0.9  # slope at the end of a step, relative to its beginning, that is accepted where values say nothing
MAX_BACKTRACKS = 25
MAX_IDLE = 3  # steps that lower neither the objective beyond its rounding error nor the gradient, and then the end
ROUNDING = 1e-14  # relative error of the outer loss at best,
NOISE = 1e-6  # and where it is the small difference of large numbers (data without noise): slopes decide below this
LEAST_STEP = 0.1  # in units of tol: shorter steps do not change the gradient by tol, so that none is tried
TINY = 1e-300


@dataclass(frozen=True)
class Objective:
    """The outer loss and the prior of the free offsets, in the unit that proposals lower.

    `tau` is the prior's standard deviation in log-decay units, `n` the number of validation rows. Losses far below
    `floor` are as good as zero: without one, the logarithm of data without noise falls for as long as decays do.
    """

    log_scale: bool
    n: float
    tau: float = 1.0
    floor: float = 0.0

    def value(self, outer: float, offsets: Tensor | None) -> float:
        """The objective from the outer loss."""
        data = math.log(max(outer + self.floor, TINY)) if self.log_scale and outer == outer else outer
        return data if offsets is None else data + self._weight * float(dot(offsets, offsets))

    def gradient(self, evaluation: Evaluation) -> Hyper:
        """The objective's gradient from the outer loss's."""
        factor = 1 / max(evaluation.value + self.floor, TINY) if self.log_scale else 1.0
        log_alpha, exponent, offsets = evaluation.gradient
        if offsets is not None and evaluation.hyper.offsets is not None:
            offsets = (2 * self._weight * evaluation.hyper.offsets).add_(offsets, alpha=factor)
        return Hyper(factor * log_alpha, factor * exponent, offsets)

    @property
    def prior_curvature(self) -> float:
        """The second derivative of the prior of an offset."""
        return 2 * self._weight

    @property
    def _weight(self) -> float:
        return (1.0 if self.log_scale else 0.5) / (self.n * self.tau**2)


class Proposals(ABC):
    """A source of hyperparameters to evaluate."""

    stop_reason: StopReason | None = None
    # The largest component of the objective's gradient, as far as it is known: how accurate evaluations need to be.
    slope: float = 0.0
    # Whether the last evaluation is where the search now stands.
    accepted: bool = False

    @abstractmethod
    def propose(self) -> Hyper | None:
        """The next hyperparameters; None when there is nothing left to try, with `stop_reason` set."""

    @abstractmethod
    def observe(self, evaluation: Evaluation, accuracy: float = 0.0) -> None:
        """What came of the last proposal, its weights this accurate; a loss that is not finite shortens the step."""

    def start(self, best: Evaluation, last: Evaluation) -> Any:
        """Where the next evaluation starts: at the weights of the best one so far."""
        return best.w


class QuasiNewton(Proposals):
    """Projected L-BFGS with backtracking over log alpha, the offsets, and the exponent if it has room to move.

    Parameters
    ----------
    start : Hyper
        Where to begin.
    objective : Objective
        The unit to lower.
    bounds : tuple of float
        Bounds of log alpha.
    tol : float
        The objective's projected gradient at which to stop, largest component.
    curvature : float
        Second derivative of the objective in log alpha, for the first step; 0 where it is not known.
    exponents : tuple of float, optional
        Bounds of the exponent, which stays as it is without.
    first_step : float
        Length of the first step where no curvature is known.
    learnt : QuasiNewton, optional
        A search over the same hyperparameters that knows about their curvature.
    """

    def __init__(
        self,
        start: Hyper,
        objective: Objective,
        bounds: tuple[float, float],
        tol: float,
        curvature: float = 0.0,
        exponents: tuple[float, float] | None = None,
        first_step: float = FIRST_STEP,
        learnt: "QuasiNewton | None" = None,
    ):
        self.objective, self.tol, self._start, self._curvature = objective, tol, start, curvature
        self._moves, self._first_step = exponents is not None, first_step
        self._x = self._pack(start)
        self._lower = torch.full_like(self._x, -torch.inf)
        self._upper = -self._lower
        self._lower[0], self._upper[0] = bounds
        if exponents is not None:
            self._lower[1], self._upper[1] = exponents
        self._metric = self._second_derivatives()
        self._x = self._x.clamp(self._lower, self._upper)
        self._trial, self._value, self._gradient = self._x, float("inf"), torch.zeros_like(self._x)
        self._direction, self._length, self._backtracks = torch.zeros_like(self._x), 1.0, 0
        self._idle, self._least = 0, math.inf
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(() if learnt is None else learnt._pairs, maxlen=MEMORY)
        self._accuracy, self.slope = 0.0, math.inf

    def propose(self) -> Hyper | None:
        """The trial point of the current line search."""
        return None if self.stop_reason else self._unpack(self._trial)

    def observe(self, evaluation: Evaluation, accuracy: float = 0.0) -> None:
        """Accept the trial point and turn, or shorten the step."""
        value = self.objective.value(evaluation.value, evaluation.hyper.offsets)
        gradient = self._pack(self.objective.gradient(evaluation))
        finite = math.isfinite(value) and bool(gradient.isfinite().all())
        if self._value == math.inf and not finite:
            self.stop_reason = StopReason.DIVERGED
        elif finite and self._lower_enough(value, gradient, self._error(max(accuracy, self._accuracy))):
            self._accept(self._trial - self._x, value, gradient)
            self._accuracy, self.accepted = accuracy, True
            return
        elif self._backtracks >= MAX_BACKTRACKS:
            self.stop_reason = StopReason.NO_PROGRESS
        else:
            self._backtracks += 1
            self._length *= 0.3
            self._trial = (self._x + self._length * self._direction).clamp(self._lower, self._upper)
            if float((self._trial - self._x).abs().max()) <= LEAST_STEP * self.tol:
                self.stop_reason = StopReason.NO_PROGRESS
        self.accepted = False

    def _error(self, accuracy: float) -> float:
        """How far two values may be apart and say nothing, at this accuracy of the weights."""
        size = abs(self._value) + self.objective.log_scale if self._value < math.inf else 0.0
        return max(VALUE_ERROR * accuracy, NOISE * size)

    def _lower_enough(self, value: float, gradient: Tensor, error: float) -> bool:
        """Armijo's condition; where values are the same but for their error, slopes decide (Hager and Zhang, 2005)."""
        step = self._trial - self._x
        slope = float(self._gradient @ step)
        if value <= self._value + min(ARMIJO * slope, 0.0) + self._rounding:
            return True
        return value <= self._value + error and slope < 0 and abs(float(gradient @ step)) <= -SHALLOWER * slope

    def _accept(self, step: Tensor, value: float, gradient: Tensor) -> None:
        change = gradient - self._gradient
        idle = value >= self._value - self._rounding
        if self._value < math.inf and float(step @ change) > 1e-12 * float(step.norm() * change.norm()):
            self._pairs.append((step, change))
        self._x, self._value, self._gradient = self._trial, value, gradient
        blocked = ((self._x <= self._lower) & (gradient > 0)) | ((self._x >= self._upper) & (gradient < 0))
        free = torch.where(blocked, 0.0, gradient)
        self.slope = size = float(free.abs().max())
        if size <= self.tol:
            self.stop_reason = StopReason.AT_BOUND if bool(blocked.any()) else StopReason.CONVERGED
            return
        self._idle = self._idle + 1 if idle and size > self._least / 2 else 0
        self._least = min(self._least, size)
        if self._idle >= MAX_IDLE:
            self.stop_reason = StopReason.NO_PROGRESS
            return
        direction = -torch.where(blocked, 0.0, self._multiply(free))
        if float(direction @ free) >= 0:
            self._pairs.clear()
            direction = -self._multiply(free)
        longest = float(direction.abs().max())
        self._direction = direction * min(1.0, MAX_STEP / longest)
        self._length, self._backtracks = 1.0, 0
        self._trial = (self._x + self._direction).clamp(self._lower, self._upper)

    def _second_derivatives(self) -> Tensor:
        """A guess at the diagonal of the objective's Hessian; all ones where only its shape is known."""
        metric = torch.ones_like(self._x)
        if self._curvature > 0 and self._start.offsets is not None:
            n = len(self._start.offsets)
            metric *= self._curvature
            metric[-n:] = self._curvature / n + self.objective.prior_curvature
        elif self._curvature > 0:
            metric *= self._curvature
        return metric

    @property
    def _rounding(self) -> float:
        # A logarithm has the relative rounding error of its argument.
        return ROUNDING * (abs(self._value) + self.objective.log_scale) if self._value < math.inf else 0.0

    def _multiply(self, g: Tensor) -> Tensor:
        """The two-loop recursion; before the first pair a step by the curvature or of fixed length."""
        if not self._pairs:
            return g / self._metric if self._curvature > 0 else g * (self._first_step / float(g.abs().max()))
        weights = []
        for s, y in reversed(self._pairs):
            weights.append((s @ g) / (s @ y))
            g = g - weights[-1] * y
        s, y = self._pairs[-1]
        g = g / self._metric * ((s @ y) / (y @ (y / self._metric)))
        for (s, y), weight in zip(self._pairs, reversed(weights), strict=True):
            g = g + (weight - (y @ g) / (s @ y)) * s
        return g

    def _pack(self, hyper: Hyper) -> Tensor:
        parts = [hyper.log_alpha.reshape(1)]
        if self._moves:
            parts.append(hyper.exponent.reshape(1))
        if hyper.offsets is not None:
            parts.append(hyper.offsets)
        return torch.cat(parts)

    def _unpack(self, x: Tensor) -> Hyper:
        n = 1 + self._moves
        return Hyper(
            x[0], x[1] if self._moves else self._start.exponent, None if self._start.offsets is None else x[n:]
        )
