"""The final network of hyper-training: more steps on all rows, from the tuned weights under the tuned decays."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from .loop import Budget
from .problem import NetworkProblem
from .result import Record, Snapshot
from .trained import Penalty, Progress, plain_log_decays, respond
from .training import Trainer

# Final epochs on all rows are as many as led to the weights; where held-out loss had hardly fallen in their last half,
# no more than a plain fit has left, or this share of them.
FURTHER = 0.25
LEARNING = 1.3  # held-out loss when half of the epochs were left, over the best, above which it had
EXPLODED = 10.0  # training loss of a final epoch in units of the first one's, at which they are undone


class Trained(NamedTuple):
    """A final network on all rows."""

    w: Tensor  # (1, n_weights)
    decays: Tensor  # (n_groups,)
    losses: list[float]  # of every epoch
    epochs: int  # of the run and of the final steps
    tangent: Tensor  # d w / d log alpha, (1, n_weights)
    interrupted: bool  # then the weights are those of the last whole epoch


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
    fit has these or a little beyond. Of several folds the first one's network goes on. Steps that diverge are undone.
    Where weights would mean something else on these rows, initial ones are given, w (1, n_weights), and all epochs are
    taken from there.
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
    interrupted = False
    for _ in range(most):
        before = state._replace(w=state.w.clone())
        try:
            state, loss = trainer.run(state, decays.spread(log_decays(state.w).exp()), trainer.steps_per_epoch)
        except KeyboardInterrupt:
            state, interrupted = before, True
            break
        losses.append(float(loss))
        if budget.seconds > budget.time_limit or exploded(losses):
            break
    if losses and (exploded(losses) or not bool(state.w.isfinite().all())):
        state, losses = trainer.start(done, start), []
    found = log_decays(state.w).exp()
    concavity = None if family is None else family.concavity(state.w, hyper)
    moved = respond(problem, trainer, state, Penalty(decays.spread(found), concavity))
    return Trained(state.w, found[0], losses, len(losses) + (done if w is None else 0), moved, interrupted)


def exploded(losses: list[float]) -> bool:
    """Whether the last of some epochs' training losses is no number or many times the first."""
    return not losses[-1] - losses[0] <= (EXPLODED - 1) * abs(losses[0])
