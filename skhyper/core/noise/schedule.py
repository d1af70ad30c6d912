"""The learning rate over the steps of a run: up, level, and down to zero along a line."""

from dataclasses import dataclass


@dataclass
class Schedule:
    """How fast to learn, and until when; a run may change its mind.

    Parameters
    ----------
    height : float
        The level rate.
    warmup : float
        Steps over which the rate rises to it.
    share : float
        Share of the steps after which it falls; 1: it stays.
    n_steps : int
        Updates.
    """

    height: float
    warmup: float
    share: float
    n_steps: int

    def __post_init__(self) -> None:
        self.falls_from = self.share * self.n_steps

    def rate(self, step: int) -> float:
        """The learning rate of a step."""
        rise = min(1.0, (step + 1) / max(1.0, self.warmup))
        fall = 1.0
        if self.falls_from < self.n_steps:
            fall = min(1.0, (self.n_steps - step) / (self.n_steps - self.falls_from))
        return self.height * rise * fall

    def falls(self, step: int) -> bool:
        """Whether the rate has begun to fall."""
        return step >= self.falls_from

    def stretch(self, step: int, factor: float) -> None:
        """What is left at a step takes `factor` times as many steps."""
        self.n_steps = step + round(factor * (self.n_steps - step))
        self.falls_from = self.share * self.n_steps

    def fall(self, step: int, length: int) -> None:
        """The rate falls from now on, and `length` steps are left."""
        self.falls_from, self.n_steps = float(step), step + length
