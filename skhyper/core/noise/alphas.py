"""Which alphas to train a network at: decades around a start, further ones where the best is at an end, then between.

The weights of a fit are those that held-out rows found best along a noisy run, no minimiser of the penalised loss: no
implicit derivative by alpha exists. But networks of several alphas are members of one batch, and cost little more.
"""

from dataclasses import dataclass, field
from math import log

from ..result import StopReason

DECADE = log(10.0)
REACH = 2  # decades to either side of the start


@dataclass
class AlphaScan:
    """Log-alphas to try, batch by batch.

    Parameters
    ----------
    start : float
        Log alpha in the middle.
    bounds : tuple of float
        Of log alpha.
    """

    start: float
    bounds: tuple[float, float]
    losses: dict[float, float] = field(default_factory=dict)
    refined: bool = False

    def propose(self, most: int) -> list[float]:
        """The next log-alphas, ascending; none when the best one lies between others, or on a bound.

        Of more than `most` those that are nearest to the best one, or to the start.
        """
        centre = self.best if self.losses else self.start
        return sorted(sorted(self._further(), key=lambda value: abs(value - centre))[:most])

    def _further(self) -> list[float]:
        if not self.losses:
            return self._new([self.start + k * DECADE for k in range(-REACH, REACH + 1)])
        low, high, best = min(self.losses), max(self.losses), self.best
        further = [low - 2 * DECADE, low - DECADE] if best == low else [high + DECADE, high + 2 * DECADE]
        if best in (low, high) and (new := self._new(further)):
            return new
        if self.refined:
            return []
        self.refined = True
        return self._new([best - DECADE / 2, best + DECADE / 2])

    def observe(self, log_alpha: float, loss: float) -> None:
        """The held-out loss at a proposed alpha."""
        self.losses[log_alpha] = loss

    @property
    def best(self) -> float:
        """The log alpha of the smallest held-out loss."""
        return min(self.losses, key=self.losses.__getitem__)

    @property
    def stop_reason(self) -> StopReason:
        """Why there is nothing left to propose."""
        return StopReason.AT_BOUND if self.best in self.bounds else StopReason.SCANNED

    def _new(self, values: list[float]) -> list[float]:
        low, high = self.bounds
        clipped = dict.fromkeys(min(max(value, low), high) for value in values)
        return [value for value in clipped if value not in self.losses]
