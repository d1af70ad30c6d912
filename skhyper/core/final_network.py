"""The final network of hyper-training: more steps on all rows, from the tuned weights under the tuned decays."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .loop import Budget
from .problem import NetworkProblem
from .recipe import Moments
from .result import Record, Snapshot, StopReason
from .trained import Penalty, Progress, plain_log_decays, respond
from .training import State, Trainer

# Final epochs on all rows are as many as led to the weights; where held-out loss had hardly fallen in their last half,
# no more than a plain fit has left, or this share of them.
FURTHER = 0.25
LEARNING = 1.2  # held-out loss when half of the epochs were left, over the best, above which it had
EXPLODED = 10.0  # training loss of a final epoch in units of the first one's, at which they are undone


class Trained(NamedTuple):
    """A final network on all rows."""

    w: Tensor  # (1, n_weights)
    decays: Tensor  # (n_groups,)
    losses: list[float]  # of every epoch
    epochs: int  # of the run and of the final steps
    tangent: Tensor  # d w / d log alpha, (1, n_weights)
    ended: StopReason | None  # an interruption or a divergence that cut the steps short


def still_learning(history: Sequence[Record], stage: str) -> bool:
    """Whether held-out loss fell by much in the last half of the evaluations that led to the best one of a stage."""
    values = [record.value for record in history if record.stage == stage and math.isfinite(record.value)]
    best = min(range(len(values)), key=values.__getitem__)
    return values[best] <= 0 or values[best // 2] > LEARNING * values[best]


def train_on(
    problem: NetworkProblem, snapshot: Snapshot, budget: Budget, learning: bool = True, w: Tensor | None = None
) -> Trained:
    """More steps on all rows (a problem of one fold) from a snapshot's weights, at its decays.

    The decays of a network belong to weights of one initialisation, and to where training has brought them: so the
    final network goes on from them, for as many epochs as led to them if it was still learning, else as far as a plain
    fit has these or a little beyond. Of several folds the first one's network goes on. Where weights would mean
    something else on these rows, initial ones are given, w (1, n_weights), and all epochs are taken from there.

    After an interruption the weights are those of the last whole epoch. Steps that diverge are undone: tuned weights
    are kept as they are, of initial ones the epoch with the lowest training loss.

    Raises
    ------
    FloatingPointError
        If the first epoch from initial weights diverges: no network is trained.
    """
    progress: Progress = snapshot.state
    done = progress.epochs
    trainer = Trainer(problem)
    decays, hyper, family = problem.decays, snapshot.hyper, snapshot.family
    if family is not None:
        family = family.first_fold(decays)

    def log_decays(w: Tensor) -> Tensor:
        """Of every group, (1, n_groups)."""
        return plain_log_decays(decays, hyper)[None] if family is None else family.log_decays(w, hyper)

    start = (snapshot.w[:1] if w is None else w).to(problem.y)
    further = done if learning else min(done, max(problem.recipe.max_epochs - done, math.ceil(FURTHER * done)))
    most = further if w is None else done + further
    state = trainer.start(done, start)
    losses: list[float] = []
    lowest: tuple[float, State] | None = None  # of what is trained from initial weights
    ended: StopReason | None = None
    for _ in range(most):
        before = state._replace(w=state.w.clone())
        try:
            state, loss = trainer.run(state, decays.spread(log_decays(state.w).exp()), trainer.steps_per_epoch)
        except KeyboardInterrupt:
            state, ended = before, StopReason.INTERRUPTED
            break
        losses.append(float(loss))
        if exploded(losses, state):
            ended = StopReason.UNDONE
            break
        if w is not None and (lowest is None or losses[-1] < lowest[0]):
            lowest = losses[-1], copied(state)
        if budget.seconds > budget.time_limit:
            break
    if ended is StopReason.UNDONE:
        if w is not None and lowest is None:
            raise FloatingPointError("The final training on all rows diverged; lower the network's learning rate.")
        state = trainer.start(done, start) if lowest is None else lowest[1]
        losses = [] if lowest is None else losses[: losses.index(lowest[0]) + 1]
    found = log_decays(state.w).exp()
    concavity = None if family is None else family.concavity(state.w, hyper)
    try:
        moved = respond(problem, trainer, state, Penalty(decays.spread(found), concavity))
    except KeyboardInterrupt:
        moved, ended = state.w.new_zeros(state.w.shape), StopReason.INTERRUPTED
    return Trained(state.w, found[0], losses, len(losses) + (done if w is None else 0), moved, ended)


def copied(state: State) -> State:
    """A state that later steps, which are taken in place, leave alone."""
    first, second, t = state.moments
    return state._replace(w=state.w.clone(), moments=Moments(first.clone(), second.clone(), t))


def exploded(losses: list[float], state: State) -> bool:
    """Whether the last of some epochs' training losses is no number or many times the first, or weights are none."""
    tame = losses[-1] - losses[0] <= (EXPLODED - 1) * abs(losses[0])
    return not tame or not bool(state.w.isfinite().all())
