"""Proposals for hyperparameters that move while the weights are trained: steps along noisy hypergradients.

A step divides the objective's gradient by its own recent size (Kingma and Ba, 2015), and by the curvature of the prior
where that is larger: offsets whose gradient is no more than noise stay near the family.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .blocks import blocks
from .decays import Hyper
from .hyperoptim import Objective, Proposals
from .result import Evaluation, StopReason

BETAS = (0.9, 0.99)
MAX_ROLL_BACKS = 5
ROLL_BACK = 0.3  # length of steps after a roll-back, relative
STEEP = 0.01  # of the objective along log alpha: a unit of it would gain about as much


@dataclass(frozen=True)
class Pace:
    """How fast hyperparameters move, and when a walk ends.

    Parameters
    ----------
    step : float
        Length of the first steps in units of log alpha.
    halving : float
        Steps after which their length is half of that; it falls as 1 / (1 + t / halving).
    warm_up : int
        Evaluations before the first step.
    settling : int
        Evaluations without progress before the first step: hypergradients of weights that are still on their way say
        what they lack, and that is less decay. 0: the warm-up alone.
    latest : float
        Evaluations after which steps begin anyway.
    patience : int
        Evaluations without a new lowest smoothed objective after which weights go back to the best ones, with the
        hyperparameters as they are by then: what the weights have memorised since is undone, what the hyperparameters
        have learnt from it is kept.
    returns : int
        How often; then a walk ends.
    smoothing : float
        Share of a new objective in the smoothed one.
    explosion : float
        An objective this much above the lowest one is a divergence and rolled back, in units of the first one.
    """

    step: float = 0.12
    halving: float = 25.0
    warm_up: int = 5
    settling: int = 4
    latest: float = math.inf
    patience: int = 40
    returns: int = 3
    smoothing: float = 0.3
    explosion: float = 3.0


@dataclass
class Walk(Proposals):
    """Adam on log alpha, and on the offsets where there are any; the exponent stays.

    Parameters
    ----------
    hyper : Hyper
        Where to begin; afterwards, where it is.
    objective : Objective
        The unit to lower.
    bounds : tuple of float
        Bounds of log alpha.
    pace : Pace
        Steps and patience.
    moves_alpha : bool
        Whether log alpha moves, or the offsets alone.
    limits : tuple of Tensor, optional
        Bounds of the offsets.
    """

    hyper: Hyper
    objective: Objective
    bounds: tuple[float, float]
    pace: Pace = Pace()
    moves_alpha: bool = True
    limits: tuple[Tensor, Tensor] | None = None
    _n: int = field(default=0, init=False)
    _since: int = field(default=0, init=False)
    _scale: float = field(default=1.0, init=False)
    _roll_backs: int = field(default=0, init=False)
    _moving: bool = field(default=False, init=False)
    _returns: int = field(default=0, init=False)
    _returning: bool = field(default=False, init=False)
    _smoothed: float = field(default=math.inf, init=False)
    _lowest: float = field(default=math.inf, init=False)
    _first: float = field(default=math.nan, init=False)

    def __post_init__(self) -> None:
        size = self._pack(self.hyper)
        self._mean, self._square = torch.zeros_like(size), torch.zeros_like(size)
        self._steps = 0

    def propose(self) -> Hyper | None:
        """Where the last step led."""
        return None if self.stop_reason else self.hyper

    def observe(self, evaluation: Evaluation, accuracy: float = 0.0) -> None:
        """Take a step, or go back to the best weights where the loss has exploded."""
        value = self.objective.value(evaluation.value, evaluation.hyper.offsets)
        gradient = self._pack(self.objective.gradient(evaluation)).to(self._mean)
        self._n += 1
        if self._diverged(value, gradient):
            self._roll_back()
            return
        self._follow(value)
        if self._settled():
            self._step(gradient)
        self._returning = self._since >= self.pace.patience
        if self._returning:
            self._returns, self._since, self._smoothed = self._returns + 1, 0, self._lowest
            self.stop_reason = StopReason.NO_PROGRESS if self._returns > self.pace.returns else None

    @property
    def moving(self) -> bool:
        """Whether the weights have settled, so that steps have begun."""
        return self._moving

    @property
    def unfinished(self) -> bool:
        """Whether alpha is on its way: it has not begun to move, or the objective falls by much where it moves to."""
        if not self.moves_alpha:
            return False
        if not self._moving or not self._steps:
            return True
        slope, log_alpha = float(self._mean[0]) / (1 - BETAS[0] ** self._steps), float(self.hyper.log_alpha)
        return abs(slope) > STEEP and (self.bounds[0] < log_alpha if slope > 0 else log_alpha < self.bounds[1])

    def resume(self) -> bool:
        """Go on where patience had run out; whether it had, so that training goes back once more."""
        over = self.stop_reason is not None
        if over:
            self.stop_reason, self._since, self._returns = None, 0, 0
        return over

    def start(self, best: Evaluation, last: Evaluation) -> Any:
        """Training goes on where it is; after a divergence or without progress, from the best weights."""
        value = self.objective.value(last.value, last.hyper.offsets)
        diverged = self._diverged(value, last.gradient.log_alpha)
        return best.state if diverged or self._returning else last.state

    def _diverged(self, value: float, gradient: Tensor) -> bool:
        if not math.isfinite(value) or not math.isfinite(torch.linalg.vector_norm(gradient, math.inf)):
            return True
        return value > self._lowest + self.pace.explosion * max(abs(self._first), 1.0)

    def _roll_back(self) -> None:
        self._roll_backs += 1
        self._scale *= ROLL_BACK
        self._mean.zero_()
        self._smoothed = self._lowest
        if self._roll_backs > MAX_ROLL_BACKS:
            self.stop_reason = StopReason.DIVERGED

    def _follow(self, value: float) -> None:
        """The smoothed objective, and how long ago it was lowest."""
        if not math.isfinite(self._smoothed):
            self._first = self._smoothed = value
        self._smoothed += self.pace.smoothing * (value - self._smoothed)
        waiting = self._n <= self.pace.warm_up or self._smoothed < self._lowest
        self._since = 0 if waiting else self._since + 1
        self._lowest = min(self._lowest, self._smoothed)

    def _settled(self) -> bool:
        """Whether the weights have answered to the first decays; then once and for all."""
        settled = self._since >= self.pace.settling or self._n > self.pace.latest
        if not self._moving and self._n > self.pace.warm_up and settled:
            self._moving, self._since = True, 0
        return self._moving

    def _step(self, gradient: Tensor) -> None:
        self._steps += 1
        t = self._steps
        length = self._scale * self.pace.step / (1 + t / self.pace.halving)
        x = self._pack(self.hyper).clone()
        for block in blocks(len(x)):
            mean, square, g = self._mean[block], self._square[block], gradient[block]
            mean.lerp_(g, 1 - BETAS[0])
            square.lerp_(g**2, 1 - BETAS[1])
            size = (square / (1 - BETAS[1] ** t)).sqrt() / length
            size[max(0, int(self.moves_alpha) - block.start) :] += self._prior
            step = -(mean / (1 - BETAS[0] ** t)) / size.clamp(min=torch.finfo(size.dtype).tiny)
            x[block] += step.clamp(-length, length)
        self.hyper = self._moved(x)

    @property
    def _prior(self) -> float:
        """The second derivative of the prior of an offset."""
        return 0.0 if self.hyper.offsets is None else self.objective.prior_curvature

    def _pack(self, hyper: Hyper) -> Tensor:
        """What moves, in one vector; the offsets alone without a copy."""
        if hyper.offsets is not None and not self.moves_alpha:
            return hyper.offsets
        return torch.cat([hyper.log_alpha.reshape(1)] + ([] if hyper.offsets is None else [hyper.offsets]))

    def _moved(self, x: Tensor) -> Hyper:
        log_alpha = x[0].clamp(*self.bounds) if self.moves_alpha else self.hyper.log_alpha
        offsets = None if self.hyper.offsets is None else x[int(self.moves_alpha) :]
        if offsets is not None and self.limits is not None:
            offsets = offsets.clamp(*self.limits)
        return Hyper(log_alpha, self.hyper.exponent, offsets)
