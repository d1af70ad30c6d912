"""Hyper-training of networks: one training run in which the decays move, then more steps on all rows.

The stages are those of `procedure.py`: the global alpha first, then finer decays around it. Here a stage is a piece
of training; the second goes on where the first was best. Finer decays are fitted to a part of the held-out rows and
judged by the rest, since they memorise what they are fitted to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .decays import Decays, Hyper
from .hyperoptim import Objective
from .layer_family import LayerFamily
from .loop import Budget, Journal, Observer, OutOfBudget, Stage, run
from .problem import NetworkProblem
from .result import Evaluation, Record, Result, Snapshot, StopReason
from .trained import Penalty, Progress, TrainedResponse, TrainingAlgorithm, accuracy, plain_log_decays, respond
from .training import Trainer
from .walk import Pace, Walk

FIRST_ALPHA = 0.2  # times the outer loss of constant outputs,
FIRST_EVEN_ALPHA = 1e-3  # where decays are not divided by the weight of a batch
LENGTH = 1.0  # epochs of a stage at most,
PATIENCE = 0.07  # and those without a lower held-out loss after which it goes back, of the epochs of a plain fit
JUDGED = 0.4  # share of the held-out rows that judge finer decays
LATEST = 1 / 3  # share of a stage's evaluations after which decays move although the weights have not settled
FAMILY_TAU = 1.0  # of the prior of the family's numbers, in units of log alpha
FURTHER = 1.0  # epochs of the final steps on all rows, of those that the chosen weights took
EXPLODED = 10.0  # training loss of a final epoch in units of the first one's, at which they are undone
ENDED = (StopReason.TIME_LIMIT, StopReason.INTERRUPTED)


@dataclass(frozen=True)
class TrainingPlan:
    """What to tune.

    Parameters
    ----------
    taus : tuple of float
        Standard deviations of the prior of offsets around the global alpha; empty for none.
    exponents : tuple of float or None
        Exponents of the decay family to try, with an alpha of each layer; None: each layer's own, which moves.
    bounds : tuple of float
        Bounds of log alpha.
    log_scale : bool
        Whether the outer loss is a squared loss, whose logarithm is the objective.
    pace : Pace
        Steps of the hyperparameters; its patience is replaced.
    """

    taus: tuple[float, ...] = ()
    exponents: tuple[float | None, ...] = ()
    bounds: tuple[float, float] = (math.log(1e-8), math.log(1e8))
    log_scale: bool = False
    pace: Pace = field(default_factory=Pace)


@dataclass
class Checkpoint:
    """A run when its last stage ended, from which it goes on exactly."""

    snapshots: tuple[Snapshot, ...]  # of the stages before
    stage: tuple[str, int, float]  # name, number of hyperparameters, tau
    walk: Walk
    end: Stage
    s2: Tensor
    records: tuple[Record, ...]
    family: LayerFamily | None = None


class Trained(NamedTuple):
    """A final network on all rows."""

    w: Tensor  # (1, n_weights)
    decays: Tensor  # (n_groups,)
    losses: list[float]  # of every epoch
    epochs: int  # of the run and of the final steps
    tangent: Tensor  # d w / d log alpha, (1, n_weights)


def hyper_train(
    problem: NetworkProblem,
    algorithm: TrainingAlgorithm,
    plan: TrainingPlan,
    budget: Budget,
    seed: int,
    w: Tensor | None = None,
    observer: Observer | None = None,
    checkpoint: Checkpoint | None = None,
) -> Result:
    """Run the stages; a spent budget or an interruption ends them with what there is.

    `w` holds initial weights, (1, n_weights) or (K, n_weights); they are drawn without. With a checkpoint its last
    stage goes on for as many evaluations as the budget allows.
    """
    return _HyperTraining(problem, algorithm, plan, Journal(budget, observer), seed, w).run(checkpoint)


def global_decays(decays: Decays) -> Decays:
    """One decay for all weights that have one."""
    return Decays((decays.index < 0).to(torch.int8).neg_())


def judged_rows(problem: NetworkProblem, seed: int) -> Tensor:
    """Which held-out rows judge finer decays: a random share of the rows that have weight, (n,) bool."""
    generator = torch.Generator().manual_seed(seed)
    exists = ((problem.train > 0) | (problem.validation > 0)).any(0)
    drawn = torch.rand(int(exists.sum()), generator=generator, dtype=torch.float64)
    return torch.zeros_like(exists).masked_scatter(exists, drawn < JUDGED)


def judged_losses(problem: NetworkProblem, snapshots: Sequence[Snapshot], seed: int) -> Tensor:
    """Held-out losses of single rows, which the paired rule reads: (snapshots, rows).

    With several snapshots the rows are those that judge. Each is weighted by its share of its fold's outer loss.
    """
    held = problem.validation > 0
    if len(snapshots) > 1 and bool((held & judged_rows(problem, seed)).any()):
        held = held & judged_rows(problem, seed)
    weight = problem.validation[held] / problem.validation[held].mean()
    losses = [problem.outer_loss.value(problem.outputs(s.w), problem.y)[held] * weight for s in snapshots]
    return torch.stack(losses)


class _HyperTraining:
    """One run: its parts, and the snapshots so far."""

    def __init__(
        self,
        problem: NetworkProblem,
        algorithm: TrainingAlgorithm,
        plan: TrainingPlan,
        journal: Journal,
        seed: int,
        w: Tensor | None,
    ):
        self.problem, self.algorithm, self.plan, self.journal = problem, algorithm, plan, journal
        self.seed, self.w = seed, w
        self.s2 = torch.ones(problem.n_folds, dtype=torch.float64)
        self.snapshots: list[Snapshot] = []
        self.response = self._bind(problem.with_decays(global_decays(problem.decays)))

    def run(self, checkpoint: Checkpoint | None) -> Result:
        """Global, then finer, or what a checkpoint left to do; then the result."""
        reason = StopReason.CONVERGED
        try:
            if checkpoint is not None:
                self._resume(checkpoint)
            else:
                self._global()
                self._families()
                self._finer()
        except OutOfBudget as stop:
            reason = stop.reason
        except FloatingPointError:
            reason = StopReason.DIVERGED
            if not self.snapshots:
                raise
        except KeyboardInterrupt:
            reason = StopReason.INTERRUPTED
            if not self.snapshots:
                raise
        if reason not in (*ENDED, StopReason.DIVERGED):
            reason = self.snapshots[-1].stop_reason
        records = tuple(self.journal.records)
        return Result(tuple(self.snapshots), self.s2, records, reason, self.response, self._checkpoint(records))

    def _checkpoint(self, records: tuple[Record, ...]) -> Checkpoint:
        return Checkpoint(tuple(self.snapshots[:-1]), *self.ended, self.s2, records, self.snapshots[-1].family)

    def _resume(self, checkpoint: Checkpoint) -> None:
        """The last stage goes on; its patience begins anew where it had run out."""
        self.snapshots, self.s2 = list(checkpoint.snapshots), checkpoint.s2
        self.journal.records = list(checkpoint.records)
        self.stage, self.walk, self.end = checkpoint.stage, checkpoint.walk, checkpoint.end
        fitted = replace(self._fitted_part(), family=checkpoint.family)
        response = self._bind(fitted) if self.snapshots else self.response
        over = self.walk.resume()
        if self.end.best is not None and (over or self.end.last is None):
            self.end.last = response.again(self.end.best.state)
        limit = self.end.n_iter + self.journal.budget.max_iter
        self.end.stop_reason = StopReason.MAX_ITER
        self._run(response, limit)

    def _bind(self, problem: NetworkProblem) -> TrainedResponse:
        return self.algorithm.bind(problem)

    def _global(self) -> None:
        hyper = Hyper(self._first_alpha(), torch.tensor(2.0, dtype=torch.float64))
        self.end = Stage(last=self.response.begin(self.seed, self.w))
        self.w = None  # memory
        self._stage("global alpha", self.response, hyper, 1, math.inf)
        self.s2 = self.problem.decays.scale(self.snapshots[0].w)

    def _families(self) -> None:
        start, problem, cap = self.snapshots[0], self.problem, self.response.trainer.steepest
        for exponent in self.plan.exponents:
            family = LayerFamily.at(problem.decays, problem.network.layer(), start.w, exponent, cap)
            hyper = start.hyper._replace(offsets=torch.zeros(family.n_numbers, dtype=torch.float64))
            response = self._bind(replace(self._fitted_part(), family=family))
            self.end = Stage(last=response.onwards(start.state, self.end.last))
            name = "family, q of each layer" if exponent is None else f"family, q = {exponent:g}"
            self._stage(name, response, hyper, 1 + family.n_numbers, FAMILY_TAU)

    def _finer(self) -> None:
        start: Progress = self.snapshots[0].state
        hyper = self.snapshots[0].hyper._replace(offsets=torch.zeros(self.problem.decays.n_groups, dtype=torch.float32))
        count = 1 + self.problem.decays.n_groups
        if not self.plan.taus:
            return
        self.response = self._bind(self._fitted_part())
        for tau in self.plan.taus:
            self.end = Stage(last=self.response.onwards(start, self.end.last))
            self._stage(f"finer decays, tau = {tau:g}", self.response, hyper, count, tau)

    def _first_alpha(self) -> Tensor:
        """A share of the outer loss of the best constant: log-losses and squared losses of any unit."""
        problem = self.problem
        f = problem.loss.start(problem.y, problem.train)
        f = f.expand(problem.n_folds, -1)[:, None, :]
        loss = (problem.validation * problem.outer_loss.value(f, problem.y)).sum(-1).mean()
        share = FIRST_EVEN_ALPHA if problem.recipe.even_decay else FIRST_ALPHA
        return (share * loss).clamp(min=1e-300).log().clamp(*self.plan.bounds)

    def _fitted_part(self) -> NetworkProblem:
        """The problem with those held-out rows alone that do not judge."""
        problem = self.problem
        rows = torch.where(judged_rows(problem, self.seed), 0.0, problem.validation)
        if not bool((rows > 0).any(-1).all()):
            return problem
        return replace(problem, validation=rows / rows.sum(-1, keepdim=True))

    def _stage(self, name: str, response: TrainedResponse, hyper: Hyper, count: int, tau: float) -> None:
        """One run of the loop from the last progress, and its snapshot."""
        self._leave()
        problem, trainer, plan = response.problem, response.trainer, self.plan
        recipe = trainer.recipe
        per_epoch = trainer.steps_per_epoch / response.interval
        limit = min(self.journal.budget.max_iter, max(1, math.ceil(LENGTH * recipe.max_epochs * per_epoch)))
        patience = PATIENCE * recipe.max_epochs if recipe.patience is None else recipe.patience
        # Finer decays begin where the weights have answered to the global one.
        settling = plan.pace.settling if hyper.offsets is None else 0
        patience = max(5, math.ceil(patience * per_epoch))
        pace = replace(plan.pace, patience=patience, settling=settling, latest=limit * LATEST)
        objective = Objective(plan.log_scale, problem.n_validation, tau if hyper.offsets is not None else 1.0)
        self.stage = (name, count, tau)
        limits = None if problem.family is None else problem.family.limits()
        self.walk = Walk(hyper, objective, plan.bounds, pace, moves_alpha=hyper.offsets is None, limits=limits)
        self._run(response, limit)

    def _run(self, response: TrainedResponse, limit: int) -> None:
        """The loop, until `limit` evaluations of the stage in all; then its snapshot."""
        name, count, _ = self.stage
        walk = self.walk
        end = run(
            response,
            walk,
            walk.objective,
            self.s2,
            self.journal,
            stage=name,
            w=self.end.last,
            tol=0.0,
            max_iter=limit,
            end=self.end,
        )
        if end.stop_reason is StopReason.MAX_ITER and end.n_iter < self.journal.budget.max_iter:
            end.stop_reason = StopReason.FULL_LENGTH
        snapshot = end.snapshot(name, count, self.journal.budget.seconds)
        assert end.best is not None
        best = self._with_moments(end.best)
        if snapshot.hyper.offsets is None:
            # Weights are best before they memorise; what decay keeps them from it is known later.
            snapshot = replace(snapshot, hyper=walk.hyper)
        family = response.problem.family
        if family is not None:
            mean = family.exponents(snapshot.hyper).mean()
            snapshot = replace(snapshot, hyper=snapshot.hyper._replace(exponent=mean), family=family)
        problem = self.problem
        judging = response.judged_by(replace(response.problem, validation=problem.validation))
        curve = judging.curve(best.state, snapshot.hyper)
        cosine, error = accuracy(response, best)
        losses = judging.fold_losses(snapshot.w)
        # Weights of its own, since the best ones may be a part of what generates them.
        state = snapshot.state._replace(training=snapshot.state.training._replace(w=snapshot.w.clone()), memory=None)
        snapshot = replace(snapshot, w=state.training.w, state=state)
        self.snapshots.append(replace(snapshot, fold_losses=losses, curve=curve, cosine=cosine, error=error))
        self.ended = self.stage, self.walk, self.end
        if end.stop_reason in ENDED:
            raise OutOfBudget(end.stop_reason)

    def _leave(self) -> None:
        """Of the stage before, which a run would go on with if the next one diverged, its best weights alone."""
        if not self.snapshots:
            return
        stage, walk, end = self.ended
        assert end.best is not None
        best = end.best._replace(w=self.snapshots[-1].w, state=self.snapshots[-1].state)
        self.ended = stage, walk, replace(end, best=best, last=None)

    def _with_moments(self, best: Evaluation) -> Evaluation:
        """An evaluation that was kept, with the moments of the run."""
        progress: Progress = best.state
        training = progress.training._replace(moments=self.end.last.training.moments)
        return best._replace(state=progress._replace(training=training))


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
