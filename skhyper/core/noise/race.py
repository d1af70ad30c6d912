"""Whether waves are of use: a run without them and one with them, by held-out rows.

The run without goes first. If its rate falls by the time of the race its best weights came early: it has learnt all
that the rows can teach, and finer inputs would only be learnt by heart. Else the run with waves takes as many steps. It
goes on in the place of the other if its held-out loss is lower by more than the other has gained since there were
`FACTOR` times fewer steps, since what more steps will learn anyway needs no waves.
"""

from collections.abc import Callable
from contextlib import suppress

from .course import Course, Watch, progress

# The step of the race, and the largest share of all that it may take.
STEPS, SHARE = 1500, 0.2
FACTOR = 4.0


def race(plain: Course, waves: Callable[[], Course], watch: Watch) -> Course:
    """The run that is to go on."""
    step = min(STEPS, SHARE * plain.trainer.schedule.n_steps)
    plain.go(watch, step)
    if plain.falls:
        return plain
    rival = waves()
    with suppress(KeyboardInterrupt):  # before its first look
        rival.go(until=step)
    if rival.interrupted:
        plain.interrupted = True
        return plain
    gain = float((plain.walk.best_loss - rival.walk.best_loss).mean())
    return rival if gain > max(0.0, progress(plain.curve, FACTOR)) else plain
