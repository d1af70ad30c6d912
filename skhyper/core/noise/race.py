"""Whether sinusoids are of use: a run without them and one with them, by held-out rows.

The run without goes first. If its rate falls by the time of the race its best weights came early: it has learnt all
that the rows can teach, and finer inputs would only be learnt by heart. Else the run with sinusoids takes as many
steps. If its held-out loss is no lower, the other goes on. If it is lower by more than the other has gained since there
were `FACTOR` times fewer steps, it goes on in the other's place: what more steps will learn anyway needs no sinusoids.
In between both take half as many steps again, up to a share of all; then the run without goes on.
"""

from collections.abc import Callable
from contextlib import suppress

from .course import Course, Watch, progress

# The step of the race, the factor to the next one while it is undecided, and the largest share of all that it may take.
STEPS, LONGER, SHARE = 1500, 1.5, 0.2
FACTOR = 4.0


def race(plain: Course, rival_of: Callable[[], Course], watch: Watch) -> Course:
    """The run that is to go on."""
    last = SHARE * plain.trainer.schedule.n_steps
    step, rival = min(STEPS, last), None
    while True:
        plain.go(watch, step)
        if plain.falls:
            return plain
        rival = rival_of() if rival is None else rival
        with suppress(KeyboardInterrupt):  # before its first step
            rival.go(until=step)
        if rival.interrupted:
            plain.interrupted = True
            return plain
        gain = float((plain.walk.best_loss - rival.walk.best_loss).mean())
        if gain > max(0.0, progress(plain.curve, FACTOR)):
            return rival
        if gain <= 0 or step >= last:
            return plain
        step = min(LONGER * step, last)
