"""Hyper-training of networks: one training run in which the decays move, then more steps on all rows.

The stages are those of `procedure.py`: the global alpha first, then finer decays around it. Here a stage is a piece
of training; the second goes on where the first was best. Finer decays are fitted to a part of the held-out rows and
judged by the rest, since they memorise what they are fitted to.

Weights that memorise early are those that the global alpha matters to, and few held-out rows do not find it. Their
search has epochs to spare: alpha is then walked to once more, by two networks that each hold out the other's half.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from .decays import Decays, Hyper
from .hyperoptim import Objective
from .layer_family import LayerFamily
from .loop import Budget, Journal, Observer, OutOfBudget, Stage, run
from .problem import NetworkProblem
from .result import ENDED, MOVING, Curve, Evaluation, Record, Result, Snapshot, StopReason
from .trained import PRECISION, Progress, TrainedResponse, TrainingAlgorithm, accuracy
from .walk import Pace, Walk

FIRST_DECAY = 5e-3  # times the outer loss of constant outputs and the weight of a batch,
FIRST_EVEN_DECAY = 1e-3  # times that loss alone where decays are not divided by the weight of a batch
FURTHEST = math.log(1e8)  # how far log alpha may move from there, if no bounds are given
LENGTH = 1.0  # epochs of a stage at most,
FURTHER = 0.5  # as many again, relative, while alpha is not found,
PATIENCE = 0.07  # and those without a lower held-out loss after which it goes back, of the epochs of a plain fit
JUDGED = 0.4  # share of the held-out rows that judge finer decays
EARLY = 0.6  # share of the epochs of a plain fit within which weights are best that memorise early
LATEST = 1 / 3  # share of a stage's evaluations after which decays move although the weights have not settled
FAMILY_TAU = 1.0  # of the prior of the family's numbers, in units of log alpha


@dataclass(frozen=True)
class TrainingPlan:
    """What to tune.

    Parameters
    ----------
    taus : tuple of float
        Standard deviations of the prior of offsets around the global alpha; empty for none.
    exponents : tuple of float or None
        Exponents of the decay family to try, with an alpha of each layer; None: each layer's own, which moves.
    bounds : tuple of float, optional
        Bounds of log alpha; if not given, `FURTHEST` to either side of where the search begins.
    log_scale : bool
        Whether the outer loss is a squared loss, whose logarithm is the objective.
    pace : Pace
        Steps of the hyperparameters; its patience is replaced.
    """

    taus: tuple[float, ...] = ()
    exponents: tuple[float | None, ...] = ()
    bounds: tuple[float, float] | None = None
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
    w: Tensor | None = None  # initial weights, for as long as the halves have not had their say
    crossed: bool = True


def hyper_train(
    problem: NetworkProblem,
    algorithm: TrainingAlgorithm,
    plan: TrainingPlan,
    budget: Budget,
    seed: int,
    w: Tensor | None = None,
    observer: Observer | None = None,
    checkpoint: Checkpoint | None = None,
    halves: Callable[[], NetworkProblem | None] | None = None,
) -> Result:
    """Run the stages; a spent budget or an interruption ends them with what there is.

    `w` holds initial weights, (1, n_weights) or (K, n_weights); they are drawn without. With a checkpoint its last
    stage goes on for as many evaluations as the budget allows. `halves` makes the same problem with two folds that
    hold out each other's training rows, for weights that memorise early, or None where there are none.
    """
    return _HyperTraining(problem, algorithm, plan, Journal(budget, observer), seed, w, halves).run(checkpoint)


def global_decays(decays: Decays) -> Decays:
    """One decay for all weights that have one."""
    return Decays((decays.index < 0).to(torch.int8).neg_())


def judged_rows(problem: NetworkProblem, seed: int) -> Tensor:
    """Which held-out rows judge finer decays: a random share of them, (n,) bool; copies of a row do or do not.

    At least one judges and one does not, so that none does where a single row is held out.
    """
    generator = torch.Generator().manual_seed(seed)
    exists = ((problem.train > 0) | (problem.validation > 0)).any(0)
    n_kinds = int(exists.sum() if problem.kinds is None else problem.kinds.max() + 1)
    drawn = torch.rand(n_kinds, generator=generator, dtype=torch.float64)
    if problem.kinds is None:
        place = torch.full_like(exists, torch.inf, dtype=torch.float64).masked_scatter(exists, drawn)
    else:
        place = drawn[problem.kinds]
    place[~(problem.validation > 0).any(0)] = torch.inf
    n_held, n_drawn = int(place.isfinite().sum()), int((place < JUDGED).sum())
    first = place.argsort(stable=True)[: min(max(n_drawn, 1), n_held - 1)]
    return torch.zeros_like(exists).index_fill(0, first, True)


def judged_losses(problem: NetworkProblem, snapshots: Sequence[Snapshot], seed: int) -> Tensor:
    """Held-out losses of single rows, which the paired rule reads: (snapshots, rows).

    With several snapshots the rows are those that judge; where there are none, all snapshots are as good. Each is
    weighted by its share of its fold's outer loss.
    """
    held = problem.validation > 0
    if len(snapshots) > 1:
        held = held & judged_rows(problem, seed)
        if not bool(held.any()):
            return problem.validation.new_zeros(len(snapshots), 1)
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
        halves: Callable[[], NetworkProblem | None] | None,
    ):
        self.problem, self.algorithm, self.plan, self.journal = problem, algorithm, plan, journal
        self.seed, self.w, self.halves, self.most = seed, w, halves, journal.budget.max_iter
        self.s2 = torch.ones(problem.n_folds, dtype=torch.float64)
        self.snapshots: list[Snapshot] = []
        self.open: TrainedResponse | None = None  # of a stage that has begun and has no snapshot
        self.response = self._bind(problem.with_decays(global_decays(problem.decays)))
        first = float(self._unit_alpha(self.response))
        self.bounds = plan.bounds or (first - FURTHEST, first + FURTHEST)

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
            if self.open is not None and self.end.best is not None:
                self.end.stop_reason = reason
                self._append(self._snapshot(self.open))
            if not self.snapshots:
                raise
        if reason not in (*ENDED, StopReason.DIVERGED):
            moving = (s.stop_reason for s in self.snapshots if s.stop_reason in MOVING.values())
            reason = next(moving, self.snapshots[-1].stop_reason)
        records = tuple(self.journal.records)
        return Result(tuple(self.snapshots), self.s2, records, reason, self.response, self._checkpoint(records))

    def _checkpoint(self, records: tuple[Record, ...]) -> Checkpoint:
        crossed, family = self.halves is None, self.snapshots[-1].family
        start = None if crossed else self.w
        return Checkpoint(tuple(self.snapshots[:-1]), *self.ended, self.s2, records, family, start, crossed)

    def _resume(self, checkpoint: Checkpoint) -> None:
        """The last stage goes on; its patience begins anew where it had run out."""
        self.snapshots, self.s2 = list(checkpoint.snapshots), checkpoint.s2
        self.journal.records = list(checkpoint.records)
        self.stage, self.walk, self.end = checkpoint.stage, checkpoint.walk, checkpoint.end
        self.halves, self.w = None if checkpoint.crossed else self.halves, checkpoint.w
        fitted = replace(self._fitted_part(), family=checkpoint.family)
        response = self._bind(fitted) if self.snapshots else self.response
        over = self.walk.resume()
        if self.end.best is not None and (over or self.end.last is None):
            self.end.last = response.again(self.end.best.state)
        limit = self.most = self.end.n_iter + self.journal.budget.max_iter
        self.end.stop_reason, self.open = StopReason.MAX_ITER, response
        self._run(response, limit)
        if not self.snapshots:
            self._cross()
        self._conclude(response)

    def _bind(self, problem: NetworkProblem) -> TrainedResponse:
        return self.algorithm.bind(problem)

    def _global(self) -> None:
        hyper = Hyper(self._first_alpha(self.response), torch.tensor(2.0, dtype=torch.float64))
        self.end = Stage(last=self.response.begin(self.seed, self.w))
        self._stage("global alpha", self.response, hyper, 1, math.inf)
        self._cross()
        self._conclude(self.response)
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
            self._conclude(response)

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
            self._conclude(self.response)

    def _first_alpha(self, response: TrainedResponse) -> Tensor:
        """Where log alpha begins."""
        return self._unit_alpha(response).clamp(*self.bounds)

    def _unit_alpha(self, response: TrainedResponse) -> Tensor:
        """The log of a share of the outer loss of the best constant: log-losses and squared losses of any unit.

        Where a step divides decays by the weight of its batch, alpha has the unit of that too.
        """
        problem = response.problem
        f = problem.loss.start(problem.y, problem.train)
        f = f.expand(problem.n_folds, -1)[:, None, :]
        loss = (problem.validation * problem.outer_loss.value(f, problem.y)).sum(-1).mean()
        # In single precision, since rows of weight zero and copies of rows change the rounding of sums.
        log_loss = loss.abs().clamp(min=1e-300).log().to(PRECISION).to(loss)
        trainer = response.trainer
        weight = (trainer.weight / trainer.steps_per_epoch).to(PRECISION).to(loss)
        share = weight.new_tensor(FIRST_EVEN_DECAY) if problem.recipe.even_decay else FIRST_DECAY * weight
        return log_loss + share.log()

    def _fitted_part(self) -> NetworkProblem:
        """The problem with those held-out rows alone that do not judge."""
        problem = self.problem
        rows = torch.where(judged_rows(problem, self.seed), 0.0, problem.validation)
        weight = rows.sum(-1, keepdim=True)
        # A fold whose rows all judge has no part in the mean over folds.
        share = problem.n_folds / (weight > 0).sum()
        return replace(problem, validation=share * rows / weight.clamp(min=torch.finfo(rows.dtype).tiny))

    def _cross(self) -> None:
        """Where weights memorise early, the alpha of two halves that hold out each other, from the initial weights.

        Decays wait there until weights memorise: before, less decay is what they lack, and the derivative by log alpha
        is proportional to an alpha that has become small. A penalty per row weighs as a prior does if it falls with
        the number of rows, so alpha is taken to the rows of the first walk.
        """
        walk, end, stage, first, halves = self.walk, self.end, self.stage, self.response, self.halves
        early = end.best is not None and end.best.state.epochs <= EARLY * first.trainer.recipe.max_epochs
        if halves is None or not early or end.stop_reason is not StopReason.NO_PROGRESS:
            return
        self.halves, problem = None, halves()
        if problem is None:
            return
        response = self._bind(problem.with_decays(global_decays(problem.decays)))
        same = self.w is not None and self.w.shape[-1] == problem.network.n_weights  # preprocessing may not give it
        try:
            self.end = Stage(last=response.begin(self.seed, self.w if same else None))
            hyper = walk.hyper._replace(log_alpha=self._first_alpha(response))
            self._stage(f"{stage[0]}, halves", response, hyper, 1, math.inf, latest=math.inf)
        except KeyboardInterrupt:
            self.end.stop_reason = StopReason.INTERRUPTED
        if self.walk is not walk and self.walk.moving:
            log_alpha = self.walk.hyper.log_alpha + (response.trainer.weight / first.trainer.weight).log()
            walk.hyper = walk.hyper._replace(log_alpha=log_alpha.clamp(*self.bounds))
            if self.end.stop_reason in MOVING.values():
                end.stop_reason = self.end.stop_reason
        if self.end.stop_reason in ENDED:
            end.stop_reason = self.end.stop_reason
        self.walk, self.end, self.stage, self.open = walk, end, stage, first

    def _stage(
        self, name: str, response: TrainedResponse, hyper: Hyper, count: int, tau: float, latest: float = LATEST
    ) -> None:
        """One run of the loop from the last progress; decays wait for the weights, but not beyond a share of it."""
        self._leave()
        problem, trainer, plan = response.problem, response.trainer, self.plan
        recipe = trainer.recipe
        per_epoch = trainer.steps_per_epoch / response.interval
        full = max(1, math.ceil(LENGTH * recipe.max_epochs * per_epoch))
        limit = min(self.most, full)
        patience = PATIENCE * recipe.max_epochs if recipe.patience is None else recipe.patience
        # Finer decays begin where the weights have answered to the global one.
        settling = plan.pace.settling if hyper.offsets is None else 0
        patience = max(5, math.ceil(patience * per_epoch))
        pace = replace(plan.pace, patience=patience, settling=settling, latest=full * latest)
        objective = Objective(plan.log_scale, problem.n_validation, tau if hyper.offsets is not None else 1.0)
        self.stage = (name, count, tau)
        limits = None if problem.family is None else problem.family.limits()
        self.walk = Walk(hyper, objective, self.bounds, pace, moves_alpha=hyper.offsets is None, limits=limits)
        self.open = response
        self._run(response, limit)
        if self.end.stop_reason is StopReason.MOVING and self.walk.moving:
            self.end.stop_reason = StopReason.MAX_ITER
            self._run(response, min(self.most, math.ceil((1 + FURTHER) * full)))

    def _run(self, response: TrainedResponse, limit: int) -> None:
        """The loop, until `limit` evaluations of the stage in all."""
        walk = self.walk
        end = run(
            response,
            walk,
            walk.objective,
            self.s2,
            self.journal,
            stage=self.stage[0],
            w=self.end.last,
            tol=0.0,
            max_iter=limit,
            end=self.end,
        )
        if end.stop_reason is StopReason.MAX_ITER and end.n_iter < self.journal.budget.max_iter:
            end.stop_reason = StopReason.FULL_LENGTH
        if walk.unfinished:
            end.stop_reason = MOVING.get(end.stop_reason, end.stop_reason)

    def _conclude(self, response: TrainedResponse) -> None:
        """The snapshot of a stage, with what the best response and an accurate hypergradient say at its end."""
        snapshot, best = self._snapshot(response), self.end.best
        assert best is not None
        best = self._with_moments(best)
        curve = self._judging(response).curve(best.state, snapshot.hyper)
        cosine, error = accuracy(response, best)
        self._append(replace(snapshot, curve=curve, cosine=cosine, error=error))
        if self.end.stop_reason in ENDED:
            raise OutOfBudget(self.end.stop_reason)

    def _snapshot(self, response: TrainedResponse) -> Snapshot:
        """Where a stage ended; nothing is known beside it, and no hypergradient was compared with an accurate one."""
        (name, count, _), walk, end = self.stage, self.walk, self.end
        snapshot = end.snapshot(name, count, self.journal.budget.seconds)
        if snapshot.hyper.offsets is None:
            # Weights are best before they memorise; what decay keeps them from it is known later.
            snapshot = replace(snapshot, hyper=walk.hyper)
        family = response.problem.family
        if family is not None:
            mean = family.exponents(snapshot.hyper).mean()
            snapshot = replace(snapshot, hyper=snapshot.hyper._replace(exponent=mean), family=family)
        losses = self._judging(response).fold_losses(snapshot.w)
        # Weights of its own, since the best ones may be a part of what generates them.
        state = snapshot.state._replace(training=snapshot.state.training._replace(w=snapshot.w.clone()), memory=None)
        curve = Curve(snapshot.hyper.log_alpha.reshape(1), losses.mean().reshape(1))
        snapshot = replace(snapshot, w=state.training.w, state=state, fold_losses=losses)
        return replace(snapshot, curve=curve, cosine=math.nan, error=math.nan)

    def _judging(self, response: TrainedResponse) -> TrainedResponse:
        """The response, held out by all the rows that the folds hold out."""
        return response.judged_by(replace(response.problem, validation=self.problem.validation))

    def _append(self, snapshot: Snapshot) -> None:
        self.ended, self.open = (self.stage, self.walk, self.end), None
        self.snapshots.append(snapshot)

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
