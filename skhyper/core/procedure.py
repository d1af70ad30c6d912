"""The whole procedure: the tuned global alpha first, then the family, then free decays around it.

Each stage leaves snapshots. Selection among them is not made here: it belongs to whoever knows the score.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, reduce

import torch
from torch import Tensor

from .algorithms.base import Algorithm, BestResponse
from .decays import Hyper
from .grid import alpha_range
from .hyperoptim import Objective, QuasiNewton
from .judging import COARSE, THOROUGH, Court, Judge, leading
from .loop import Budget, Journal, Observer, OutOfBudget, Stage, run
from .losses import SquaredError
from .outputs import outputs_apart, tune_outputs
from .problem import Problem
from .result import ENDED, Evaluation, Result, Snapshot, StopReason
from .scan import KINKED_TOL, TOL, Grid, Points, Scan, Valley, scan
from .selection import STANDARD_ERRORS
from .wide import first_alphas, shrunk, unit_scale

GLOBAL_STEP = 1.5  # between the points of a scan of the global alpha, in log alpha,
COARSE_STEP = 2.0  # and where they are dear
MOST_VALLEYS = 4  # of its curve that are refined
NEGLIGIBLE = 1e-12  # of the constant model's loss: losses of data without noise are not tuned below this
# The family's grid is relative to the tuned global alpha, descending. A minimum at an end moves the grid on until it
# lies inside or at a bound.
FAMILY_GRID = (2.25, 1.5, 0.75, 0.0, -0.75)
FAMILY_PATIENCE = 1.5  # two points beyond the lowest, where they are solved one after the other: weak decays are dear
STEP_TOL = 1e-8  # relative accuracy of the weights in a step of the proposals;
DEAR_STEP_TOL = 1e-5  # where evaluations are dear this at the end,
LOOSEST = 1e-4  # and this at first
FAMILY_TOL = 1.0  # gradient to which a row of the family is tuned: the vertex of the scan as a rule
FAMILY_STEP_TOL = 1e-4  # and the accuracy of its weights
MANY = 3.0  # columns for each training row
VALLEY = 0.01  # relative change of the held-out loss about the global alpha of wide data from which it means something
FIRST_EXPONENT = 1.75  # where the exponent starts if it is tuned by hypergradient,
EXPONENT_STEP_TOL = 3e-3  # the accuracy of its weights,
FIRST_STEP = 0.25  # the length of its first step,
EXPONENT_TOL = 2e-3  # and the gradient to which it is
BESIDE = (-1.5, -0.75, 0.75, 1.5)  # of log alpha: where a judge looks about the end of a stage without a scan


@dataclass(frozen=True)
class Plan:
    """What to tune.

    Parameters
    ----------
    exponents : tuple of float
        Values of q to try beside 2, descending; empty for the global alpha alone.
    taus : tuple of float
        Standard deviations of the prior of free residual decays, descending stiffness; empty for none. Infinity is no
        prior: outputs that have one decay each are then tuned apart.
    bounds : tuple of float, optional
        Bounds of log alpha; those of the problem's own range if not given.
    log_scale : bool
        Whether the outer loss has a unit, as squared losses have, so that its logarithm is the objective.
    tol : float
        Tolerance of the hypergradient.
    competes : bool
        Whether free decays compete with other snapshots. Their losses are then those of folds that their offsets did
        not see; this takes as many fits as there are folds.
    standard_errors : float
        The gain for which the paired rule leaves the tuned global alpha.
    judge : callable, optional
        Where a score decides: the point of a stage that it prefers takes the place of the minimum of the loss.
    """

    exponents: tuple[float, ...] = ()
    taus: tuple[float, ...] = ()
    bounds: tuple[float, float] | None = None
    log_scale: bool = True
    tol: float = 1e-6
    competes: bool = True
    standard_errors: float = STANDARD_ERRORS
    judge: Judge | None = None


def tune(
    problem: Problem, algorithm: Algorithm, plan: Plan, budget: Budget, observer: Observer | None = None
) -> Result:
    """Run the stages of the plan; a spent budget or an interruption ends it with what there is."""
    return _Procedure(algorithm.bind(problem), plan, Journal(budget, observer)).run()


class _Procedure:
    """One run: its parts, and the snapshots so far."""

    def __init__(self, response: BestResponse, plan: Plan, journal: Journal):
        self.response, self.plan, self.journal = response, plan, journal
        self.problem = response.problem
        self.n = self.problem.n_validation
        self.range = alpha_range(self.problem)
        self.family_bounds = plan.bounds or self.range.rough_bounds
        exact = plan.bounds or self.range.bounds
        self.bounds = exact if self.problem.loss == SquaredError() else self.family_bounds
        self.s2 = torch.ones(self.problem.n_folds, dtype=torch.float64)
        self.snapshots: list[Snapshot] = []
        self.ends: list[Snapshot] = []  # where the loss is lowest, whatever a judge prefers
        self.curvature = 0.0  # of the objective in log alpha
        self.diverged = False

    def run(self) -> Result:
        """Global, family, free; then the result."""
        reason = StopReason.CONVERGED
        try:
            for stage in (self._global, self._family, self._free):
                stage()
        except OutOfBudget as stop:
            reason = stop.reason
        except FloatingPointError:
            self.diverged = True
            if not self.snapshots:
                raise
        except KeyboardInterrupt:
            reason = StopReason.INTERRUPTED
            if not self.snapshots:
                raise
        if reason not in ENDED:
            reason = StopReason.DIVERGED if self.diverged else self.snapshots[-1].stop_reason
        reference = self.ends[0] if self.plan.judge is not None else None
        records = tuple(self.journal.records)
        return Result(tuple(self.snapshots), self.s2, records, reason, self.response, reference=reference)

    def _global(self) -> None:
        found = self._look(self.response)
        self.curvature = found.lowest.curvature
        try:
            self._keep(
                "global alpha", self._refine(self.response, "global alpha", found, self._step_tol), 1, found.points
            )
        finally:
            if self.ends:
                self.s2 = unit_scale(self.problem, self.ends[0], self.ends[0].w)

    def _look(self, response: BestResponse, suffix: str = "") -> Scan:
        """The curve of the global alpha over all of its range."""
        if response.scans:
            return self._scan("scan" + suffix, self.range.points(GLOBAL_STEP), 2.0, response=response)
        pilot = response.take_folds(torch.arange(response.problem.n_folds) < 1)
        found = self._scan("scan of one fold" + suffix, self.range.points(COARSE_STEP), 2.0, response=pilot)
        n_folds = response.problem.n_folds
        return found._replace(valleys=[valley._replace(w=valley.w.expand(n_folds, -1)) for valley in found.valleys])

    def _refine(self, response: BestResponse, name: str, found: Scan, accuracy: float) -> Stage:
        """From each valley of the global alpha that may be the lowest down to its minimum; the lowest of these.

        The first evaluations show which valleys there are: a scan's weights are rough.
        """
        objective, best = self._objective(response), Stage()
        for value, known, valley in self._starts(response, objective, found.valleys[:MOST_VALLEYS], accuracy):
            there = value <= valley.value + valley.error  # else the scan's weights were too rough, and it is not
            if value - (valley.reach if there else 0.0) > best.value:
                continue
            proposals = QuasiNewton(known.hyper, objective, self.bounds, self.plan.tol, valley.curvature)
            end = self._run(response, name, proposals, objective, valley.w, accuracy, known=known)
            if best.best is None or end.value < best.value:
                best = end
            if end.stop_reason in ENDED:
                best.stop_reason = end.stop_reason
                break
        return best

    def _starts(
        self, response: BestResponse, objective: Objective, valleys: list[Valley], accuracy: float
    ) -> list[tuple[float, Evaluation, Valley]]:
        """The minima of valleys by interpolation, or their lowest points where these are lower; ascending in value."""
        two, s2 = torch.tensor(2.0, dtype=torch.float64), self.s2[: response.problem.n_folds]

        def evaluated(log_alpha: Tensor, valley: Valley) -> tuple[float, Evaluation, Valley]:
            known = response.evaluate(Hyper(log_alpha, two), s2, valley.w, accuracy)
            value = objective.value(known.value, None)
            return value if math.isfinite(value) else math.inf, known, valley

        starts = []
        for valley in valleys:
            start = evaluated(valley.log_alpha, valley)
            if start[0] > valley.value + valley.error:
                start = min(start, evaluated(two.new_tensor(valley.point), valley), key=lambda each: each[0])
            starts.append(start)
        return sorted(starts, key=lambda each: each[0])

    @property
    def _step_tol(self) -> float:
        return STEP_TOL if self.response.scans else DEAR_STEP_TOL

    @cached_property
    def _pilot(self) -> BestResponse:
        """One fold, which finds the neighbourhood for all where evaluations are dear."""
        return self.response.take_folds(torch.arange(self.problem.n_folds) < 1)

    def _family(self) -> None:
        if not self.plan.exponents or not float(self.s2.min()) > 1e-200:
            return
        if not self.response.scans:
            self._descend_family()
            return
        scans: list[Scan] = []
        stopped: BaseException | None = None
        try:
            self._scan_family(scans)
        except (OutOfBudget, KeyboardInterrupt) as stop:
            stopped = stop
        self._refine_family(scans)
        if stopped is not None:
            raise stopped

    def _scan_family(self, scans: list[Scan]) -> None:
        """A scan for each exponent, each from the weights of the one before it; q = 2 only leads the way.

        Of wide data the tuned global alpha may say nothing: its curve is flat where ridge regression interpolates, and
        where it has shrunk all weights. So there a scan begins where the first weights leave zero; and another one
        about the global alpha, unless there are many more columns than rows and that has no valley.
        """
        row = self.ends[0].hyper.log_alpha
        centre = float(row - shrunk(self.problem, row))
        tops = first_alphas(self.response, self.s2) if self.problem.wide else None
        lead = self._scan_around(2.0, centre)
        least = VALLEY * (1.0 if self.plan.log_scale else abs(float(self.ends[0].fold_losses.mean())))
        path, valley = lead.path, self.problem.columns_a_row < MANY or lead.relief > least
        for q in self.plan.exponents:
            self.journal.budget.check()
            found = [self._scan_around(q, centre, path)] if valley else []
            path = found[0].path if valley else None
            if tops is not None:
                found.append(self._scan_around(q, tops(q) - FAMILY_GRID[0]))
            scans.append(found[0] if len(found) == 1 else self._lower(q, found))

    def _lower(self, q: float, scans: list[Scan]) -> Scan:
        """Of several scans of an exponent the one whose lowest point is lower by an evaluation, and weights of that."""
        known = self._evaluated([q] * len(scans), scans)
        best = min(range(len(scans)), key=lambda i: known[i].value if math.isfinite(known[i].value) else math.inf)
        lowest = scans[best].lowest._replace(w=known[best].w)
        kept = [scan.points for scan in scans if scan.points is not None]
        points = reduce(Points.join, kept) if kept else None
        return scans[best]._replace(valleys=[lowest, *scans[best].valleys[1:]], points=points)

    def _evaluated(self, exponents: Sequence[float], scans: list[Scan]) -> list[Evaluation]:
        """The lowest points of scans, as one batch."""
        lowest = [found.lowest for found in scans]
        log_alpha, w = torch.stack([low.log_alpha for low in lowest]), torch.stack([low.w for low in lowest])
        hyper = Hyper(log_alpha, torch.tensor(exponents, dtype=torch.float64))
        return self.response.evaluate_all(hyper, self.s2, w, FAMILY_STEP_TOL)

    def _scan_around(self, q: float, centre: float, path: Tensor | None = None) -> Scan:
        points = [centre + x for x in FAMILY_GRID]
        return self._scan(f"family, q = {q:g}", points, q, path, patience=FAMILY_PATIENCE)

    def _refine_family(self, scans: list[Scan]) -> None:
        """From the lowest point of each scan to the minimum: the first evaluations of all as one batch."""
        if not scans:
            return
        first = self._evaluated(self.plan.exponents[: len(scans)], scans)
        objective = self._objective()
        ends = {}
        for known, lowest in zip(first, (found.lowest for found in scans), strict=True):
            name = f"family, q = {float(known.hyper.exponent):g}"
            proposals = QuasiNewton(known.hyper, objective, self.family_bounds, FAMILY_TOL, lowest.curvature)
            ends[name] = self._run(self.response, name, proposals, objective, lowest.w, FAMILY_STEP_TOL, known=known)
        for (name, end), found in zip(ends.items(), scans, strict=True):
            if end.stop_reason is StopReason.CONVERGED and self.plan.tol < FAMILY_TOL:
                end.stop_reason = StopReason.SCANNED
            self._keep(name, end, 2, found.points)

    def _descend_family(self) -> None:
        """Log alpha and the exponent by hypergradient, the exponent between the plan's lowest and 2."""
        exponents, start = self.plan.exponents, self.ends[0]
        bounds = (exponents[-1], 2.0) if len(exponents) > 1 else None
        q = max(FIRST_EXPONENT, exponents[-1]) if bounds else exponents[0]
        hyper = start.hyper._replace(exponent=torch.tensor(q, dtype=torch.float64))
        objective = self._objective()
        search = partial(
            QuasiNewton, bounds=self.family_bounds, tol=EXPONENT_TOL, exponents=bounds, first_step=FIRST_STEP
        )
        first = search(hyper, objective)
        lead = self._run(self._pilot, "family of one fold", first, objective, start.w[:1], EXPONENT_STEP_TOL)
        if lead.best is None or lead.stop_reason in ENDED:
            raise OutOfBudget(lead.stop_reason)
        then = search(lead.best.hyper, objective, learnt=first)
        w = start.w + (lead.best.w - start.w[:1])
        self._keep("family", self._run(self.response, "family", then, objective, w, EXPONENT_STEP_TOL), 2, None)

    def _free(self) -> None:
        apart = outputs_apart(self.response) if math.inf in self.plan.taus else None
        start = min(self.ends, key=lambda snapshot: float(snapshot.fold_losses.mean()))
        offsets = torch.zeros(self.problem.decays.n_groups, dtype=torch.float64)
        hyper, w = start.hyper._replace(offsets=offsets), start.w
        for tau in self.plan.taus:
            if apart is not None and tau == math.inf:
                self._tune_outputs(apart)
                continue
            name = f"free decays, tau = {tau:g}"
            end = self._descend_offsets(name, self.response, hyper, w, self.s2, tau)
            if self.plan.competes and self.problem.n_folds > 1:
                self._raise_if_ended(end)
                unseen = self._cross_fitted(name, end, tau)
                end = replace(
                    end, fold_losses=self.response.fold_losses(unseen), scores=self._scores(end.hyper, unseen)
                )
            self.snapshots.append(end)
            self._raise_if_ended(end)
            hyper, w = end.hyper, end.w

    def _tune_outputs(self, parts: list[BestResponse]) -> None:
        """The global alpha of each output by itself."""
        name, shared = "a decay for each output", self.ends[0]
        reasons = [StopReason.CONVERGED]

        def tune_one(part: BestResponse, t: int, start: Tensor | None) -> Tensor:
            if start is None:
                end = self._refine(part, f"{name}: {t}", self._look(part, f", output {t}"), STEP_TOL)
            else:
                hyper, objective = shared.hyper._replace(log_alpha=start), self._objective(part)
                proposals = QuasiNewton(hyper, objective, self.bounds, self.plan.tol, self.curvature)
                s2 = self.s2[: part.problem.n_folds]
                end = run(part, proposals, objective, s2, self.journal, stage=f"{name}: {t}", w=None, tol=STEP_TOL)
            tuned = end.snapshot(name, 1, self.journal.budget.seconds)
            self._raise_if_ended(tuned)
            if tuned.stop_reason != StopReason.CONVERGED:
                reasons.append(tuned.stop_reason)
            return tuned.hyper.log_alpha

        alphas = tune_outputs(parts, shared.hyper.log_alpha, tune_one, self.plan.competes)
        by_fold = [shared.hyper._replace(offsets=x - shared.hyper.log_alpha) for x in alphas.by_fold]
        hyper = shared.hyper._replace(offsets=alphas.log_alpha - shared.hyper.log_alpha)
        end = self.response.evaluate(hyper, self.s2, shared.w, self._step_tol)
        self.journal.evaluated(name, end, self._objective().value(end.value, None))
        losses, scores = end.fold_losses, None
        if self.plan.competes and len(by_fold) > 1:
            unseen = torch.cat([self._fold_weights(each, k) for k, each in enumerate(by_fold)])
            losses, scores = self.response.fold_losses(unseen), self._scores(hyper, unseen)
        count, seconds = min(alphas.n_own + 1, len(parts)), self.journal.budget.seconds
        row = Snapshot(name, hyper, end.w, losses, count, reasons[-1], end.error, seconds, scores=scores)
        self.snapshots.append(row)

    def _fold_weights(self, hyper: Hyper, k: int) -> Tensor:
        """The weights of one fold, (1, n_weights)."""
        this = torch.arange(self.problem.n_folds) == k
        return self.response.take_folds(this).solve(hyper, self.s2[this], self.ends[0].w[this], self._step_tol)

    def _scores(self, hyper: Hyper, w: Tensor) -> Tensor | None:
        """What the judge says of the weights of all folds, (K,)."""
        if self.plan.judge is None:
            return None
        return self.plan.judge(Hyper(hyper.log_alpha[None], hyper.exponent[None]), w[None])[0]

    def _cross_fitted(self, name: str, end: Snapshot, tau: float) -> Tensor:
        """Each fold's weights under offsets that were fitted to the other folds: offsets memorise what they see."""
        weights, folds = [], torch.arange(self.problem.n_folds)
        for k in folds:
            others, own = self.response.take_folds(folds != k), self.response.take_folds(folds == k)
            start = end.hyper
            if self.response.scans:
                start = start._replace(offsets=torch.zeros(self.problem.decays.n_groups, dtype=torch.float64))
            fitted = self._descend_offsets(name, others, start, end.w[folds != k], self.s2[folds != k], tau)
            self._raise_if_ended(fitted)
            weights.append(own.solve(fitted.hyper, self.s2[folds == k], end.w[folds == k], self._step_tol))
        return torch.cat(weights)

    def _descend_offsets(
        self, name: str, response: BestResponse, hyper: Hyper, w: Tensor, s2: Tensor, tau: float
    ) -> Snapshot:
        objective = self._objective(response, tau)
        proposals = QuasiNewton(hyper, objective, self.bounds, self.plan.tol, self.curvature)
        count = 1 + bool(self.plan.exponents) + self.problem.decays.n_groups
        end = self._run(response, name, proposals, objective, w, self._step_tol, s2)
        return end.snapshot(name, count, self.journal.budget.seconds)

    def _keep(self, name: str, end: Stage, count: int, points: Points | None) -> None:
        """A snapshot of where a stage ended; none where it never had a finite loss and others have."""
        if end.best is None and self.snapshots:
            self.diverged = True
            return
        self.ends.append(end.snapshot(name, count, self.journal.budget.seconds))
        self.snapshots.append(self.ends[-1])
        self._raise_if_ended(self.ends[-1])
        if self.plan.judge is not None:
            self.snapshots[-1] = self._judged(self.plan.judge, self.ends[-1], points)
            self._raise_if_ended(self.snapshots[-1])

    def _judged(self, judge: Judge, end: Snapshot, points: Points | None) -> Snapshot:
        """The point of a stage that a judge prefers to its end, if there is one.

        Where no points were scanned, these are points beside the end; where one fold was scanned, those that are best
        on it.
        """
        if points is None:
            log_alpha = (
                (end.hyper.log_alpha + end.w.new_tensor(BESIDE))
                .clamp(*self._bounds_at(float(end.hyper.exponent)))
                .unique()
            )
            points = Points(log_alpha, end.w.expand(len(log_alpha), *end.w.shape))
        elif points.w.shape[1] < self.problem.n_folds:
            points = leading(points, judge, end.hyper.exponent)
            points = Points(points.log_alpha, points.w.expand(-1, self.problem.n_folds, -1))
        objective = self._objective()
        accuracy, care = (self._step_tol, THOROUGH) if end is self.ends[0] else (FAMILY_STEP_TOL, COARSE)
        court = Court(
            self.response, judge, objective, self._bounds_at(float(end.hyper.exponent)), self.s2, accuracy, care
        )
        return court.prefer(points, end, self.journal)

    def _bounds_at(self, q: float) -> tuple[float, float]:
        return self.bounds if q == 2 else self.family_bounds

    def _raise_if_ended(self, end: Snapshot) -> None:
        """Leave all stages where one was cut short."""
        if end.stop_reason in ENDED:
            raise OutOfBudget(end.stop_reason)

    def _run(
        self,
        response: BestResponse,
        name: str,
        proposals: QuasiNewton,
        objective: Objective,
        w: Tensor,
        accuracy: float,
        s2: Tensor | None = None,
        known: Evaluation | None = None,
    ) -> Stage:
        """The loop; where evaluations are dear, they are as accurate as the hypergradient's size asks for."""
        loosest = 0.0 if accuracy <= STEP_TOL else LOOSEST
        s2 = self.s2[: response.problem.n_folds] if s2 is None else s2
        return run(
            response,
            proposals,
            objective,
            s2,
            self.journal,
            stage=name,
            w=w,
            tol=accuracy,
            loosest=loosest,
            known=known,
        )

    def _objective(self, response: BestResponse | None = None, tau: float = 1.0) -> Objective:
        """What is lowered, on the rows that judge a best response."""
        problem = self.problem if response is None else response.problem
        return Objective(self.plan.log_scale, problem.n_validation, tau, self._floor)

    @cached_property
    def _floor(self) -> float:
        """A loss that is as good as zero."""
        constant = float(self.problem.fold_losses(self.problem.constant_model()).mean())
        return NEGLIGIBLE * constant if self.plan.log_scale and math.isfinite(constant) else 0.0

    def _scan(
        self,
        stage: str,
        points: list[float],
        q: float,
        path: Tensor | None = None,
        response: BestResponse | None = None,
        patience: float = math.inf,
    ) -> Scan:
        response = response or self.response
        objective = self._objective(response)
        judged = self.plan.judge is not None
        bounds = self._bounds_at(q)
        tol = TOL if self.problem.loss.smooth else KINKED_TOL
        grid = Grid(points, bounds, q, path, math.inf if judged else patience, judged, tol)
        return scan(response, objective, self.s2[: response.problem.n_folds], self.journal, stage, grid)
