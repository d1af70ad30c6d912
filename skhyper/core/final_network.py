"""The final network of hyper-training: more steps on all rows, from the tuned weights under the tuned decays."""

import math
from typing import NamedTuple

from torch import Tensor

from .loop import Budget
from .problem import NetworkProblem
from .result import Snapshot
from .trained import Penalty, Progress, plain_log_decays, respond
from .training import Trainer

FURTHER = 1.0  # epochs of the final steps on all rows, of those that the chosen weights took
EXPLODED = 10.0  # training loss of a final epoch in units of the first one's, at which they are undone


class Trained(NamedTuple):
    """A final network on all rows."""

    w: Tensor  # (1, n_weights)
    decays: Tensor  # (n_groups,)
    losses: list[float]  # of every epoch
    epochs: int  # of the run and of the final steps
    tangent: Tensor  # d w / d log alpha, (1, n_weights)


def train_on(problem: NetworkProblem, snapshot: Snapshot, budget: Budget) -> Trained:
    """More steps on all rows (a problem of one fold) from a snapshot's weights, at its decays.

    The decays of a network belong to weights of one initialisation, and to where training has brought them: so the
    final network goes on from them. Of several folds the first one's network goes on. Steps that diverge are undone.
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

    start = snapshot.w[:1].to(problem.y)
    state = trainer.start(done, start)
    losses: list[float] = []
    for _ in range(math.ceil(FURTHER * done)):
        state, loss = trainer.run(state, decays.spread(log_decays(state.w).exp()), trainer.steps_per_epoch)
        losses.append(float(loss))
        if budget.seconds > budget.time_limit or not losses[-1] <= EXPLODED * losses[0]:
            break
    if losses and not (losses[-1] <= EXPLODED * losses[0] and bool(state.w.isfinite().all())):
        state, losses = trainer.start(done, start), []
    found = log_decays(state.w).exp()
    concavity = None if family is None else family.concavity(state.w, hyper)
    moved = respond(problem, trainer, state, Penalty(decays.spread(found), concavity))
    return Trained(state.w, found[0], losses, done + len(losses), moved)
