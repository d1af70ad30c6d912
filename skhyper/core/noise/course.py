"""One run of training: it goes on to any step, and ends with the best weights."""

from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .members import Walk

if TYPE_CHECKING:
    from .training import Trainer

# Length of the running average in steps so far.
AVERAGED = 0.1


class Record(NamedTuple):
    """One line of the curves, a number for each member."""

    step: int
    loss: Tensor
    held_out: Tensor
    spread: Tensor


Watch = Callable[[Record], None]


class Trained(NamedTuple):
    """What training leaves."""

    flat: Tensor  # (M, P)
    curve: list[Record]
    n_rollbacks: Tensor  # (M,)
    optimizer: tuple[Tensor, Tensor, int]  # moments and number of steps, where another run may go on
    n_steps: int
    dropped: bool  # whether the noise was
    interrupted: bool  # by the user, who gets the best weights so far


class Course:
    """Where a run of a trainer stands.

    Parameters
    ----------
    trainer : Trainer
        Of this run alone: its schedule may change.
    start : Tensor of shape (M, P)
    optimizer : moments and number of steps, or None
        Where an earlier run left them.
    """

    def __init__(self, trainer: "Trainer", start: Tensor, optimizer: tuple[Tensor, Tensor, int] | None = None) -> None:
        self.trainer = trainer
        self.walk = Walk.begin(start, trainer.layout, optimizer)
        self.batches, self.phase = trainer.batches(), trainer.noisy()
        self.curve: list[Record] = []
        self.step, self.due, self.interrupted = 0, trainer.next_look(0), False
        self.averaged = 0.0 if trainer.held_rows is None else AVERAGED

    @property
    def looked(self) -> int:
        """The step of the last look at held-out rows."""
        return self.curve[-1].step if self.curve else 0

    @property
    def over(self) -> bool:
        """Whether there are no more steps."""
        return self.interrupted or self.step >= self.trainer.schedule.n_steps

    @property
    def falls(self) -> bool:
        """Whether the rate falls, or training is over."""
        return self.over or self.trainer.schedule.falls(self.step)

    @torch.inference_mode()
    def go(self, watch: Watch = lambda record: None, until: float = inf) -> None:
        """To the end, or to the first look from step `until` on.

        Raises
        ------
        KeyboardInterrupt
            If training is interrupted before the first step; later it only ends, with a look if there was none.
        """
        try:
            while not self.over and self.looked < until:
                self.advance(watch)
        except KeyboardInterrupt:
            self.interrupted = True
            if not self.step:
                raise
            if not self.curve:
                self.look(watch)

    def advance(self, watch: Watch) -> None:
        """One step, and a look where it is due."""
        trainer, walk = self.trainer, self.walk
        trainer.advance(walk, next(self.batches), self.phase, self.step)
        self.step += 1
        walk.average.lerp_(walk.flat, 1 / max(1.0, self.averaged * self.step))
        if self.step >= min(self.due, trainer.schedule.n_steps):
            self.look(watch)

    def look(self, watch: Watch) -> None:
        """Look at held-out rows, keep the best weights, and see how training goes on."""
        trainer, walk = self.trainer, self.walk
        record = trainer.look(walk, self.phase, self.step, self.step - self.looked)
        self.curve.append(record)
        self.due = trainer.next_look(self.step)
        watch(record)
        if trainer.held_rows is not None and not trainer.schedule.falls(self.step):
            self.phase = trainer.reconsider(walk, self.phase, trainer.held_rows, self.curve)

    def finish(self) -> Trained:
        """The best weights."""
        walk, phase = self.walk, self.phase
        if not phase.noisy:
            walk.best[:, self.trainer.perturbs] = 0.0
        moments = walk.first, walk.second, walk.done
        return Trained(walk.best, self.curve, walk.n_rollbacks, moments, self.step, not phase.noisy, self.interrupted)


def progress(curve: Sequence[Record], factor: float) -> float:
    """What held-out rows have gained since there were `factor` times fewer steps."""
    last = curve[-1]
    before = [record for record in curve if record.step * factor <= last.step]
    return float((before[-1].held_out - last.held_out).nanmean()) if before else 0.0
