"""The whole procedure: the tuned global alpha first, then the family, then free decays around it.

Each stage leaves snapshots. Selection among them is not made here: it belongs to whoever knows the score.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .algorithms.base import Algorithm, BestResponse
from .decays import Hyper
from .hyperoptim import Objective, QuasiNewton
from .loop import Budget, Journal, Observer, OutOfBudget, run
from .problem import Problem
from .result import Result, Snapshot, StopReason
from .scan import Grid, Scan, scan

# Grids of the scans in log alpha, descending: the first relative to the curvature of the data, the family's relative
# to the tuned global alpha. A minimum at an end moves the grid on until it lies inside or at a bound.
GLOBAL_GRID = tuple(6.0 - 1.5 * i for i in range(18))
FAMILY_GRID = (2.25, 1.5, 0.75, 0.0, -0.75)
STEP_TOL = 1e-5  # relative accuracy of the weights in a step of the proposals
FAMILY_TOL = 1.0  # gradient to which a row of the family is tuned: the vertex of the scan as a rule
FAMILY_STEP_TOL = 1e-3  # and the accuracy of its weights
ENDED = (StopReason.TIME_LIMIT, StopReason.INTERRUPTED)


@dataclass(frozen=True)
class Plan:
    """What to tune.

    Parameters
    ----------
    exponents : tuple of float
        Values of q to try beside 2, descending; empty for the global alpha alone.
    taus : tuple of float
        Standard deviations of the prior of free residual decays, descending stiffness; empty for none.
    bounds : tuple of float
        Bounds of log alpha.
    log_scale : bool
        Whether the outer loss is a squared loss, whose logarithm is the objective.
    tol : float
        Tolerance of the hypergradient.
    """

    exponents: tuple[float, ...] = ()
    taus: tuple[float, ...] = ()
    bounds: tuple[float, float] = (math.log(1e-8), math.log(1e8))
    log_scale: bool = True
    tol: float = 1e-6


def tune(
    problem: Problem, algorithm: Algorithm, plan: Plan, budget: Budget, observer: Observer | None = None
) -> Result:
    """Run the stages of the plan; a spent budget or an interruption ends it with what there is."""
    return _Procedure(algorithm, algorithm.bind(problem), plan, Journal(budget, observer)).run()


class _Procedure:
    """One run: its parts, and the snapshots so far."""

    def __init__(self, algorithm: Algorithm, response: BestResponse, plan: Plan, journal: Journal):
        self.algorithm, self.response, self.plan, self.journal = algorithm, response, plan, journal
        self.problem = response.problem
        self.n = int((self.problem.validation > 0).any(0).sum())
        self.s2 = torch.ones(self.problem.n_folds, dtype=torch.float64)
        self.snapshots: list[Snapshot] = []
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
        return Result(tuple(self.snapshots), self.s2, tuple(self.journal.records), reason)

    def _global(self) -> None:
        centre = math.log(max(self.problem.curvature(), 1e-300))
        scan = self._scan("scan", [centre + x for x in GLOBAL_GRID], 2.0)
        try:
            self._refine("global alpha", scan, 2.0, 1, self.plan.tol, STEP_TOL)
        finally:
            if self.snapshots:
                self.s2 = self.problem.decays.scale(self.snapshots[0].w)

    def _family(self) -> None:
        if not self.plan.exponents or float(self.s2.min()) <= 1e-200:
            return
        centre = float(self.snapshots[0].hyper.log_alpha)
        path = None
        for q in (2.0, *self.plan.exponents):
            self.journal.budget.check()
            scan = self._scan(f"family, q = {q:g}", [centre + x for x in FAMILY_GRID], q, path)
            path = scan.path
            if q < 2:
                self._refine(f"family, q = {q:g}", scan, q, 2, FAMILY_TOL, FAMILY_STEP_TOL)

    def _free(self) -> None:
        start = min(self.snapshots, key=lambda snapshot: float(snapshot.fold_losses.mean()))
        offsets = torch.zeros(self.problem.decays.n_groups, dtype=torch.float64)
        hyper, w = start.hyper._replace(offsets=offsets), start.w
        for tau in self.plan.taus:
            name = f"free decays, tau = {tau:g}"
            end = self._descend_offsets(name, self.response, hyper, w, self.s2, tau)
            if self.problem.n_folds > 1:
                self._raise_if_ended(end)
                end = replace(end, fold_losses=self._cross_fitted(name, end.hyper, end.w, tau))
            self.snapshots.append(end)
            self._raise_if_ended(end)
            hyper, w = end.hyper, end.w

    def _cross_fitted(self, name: str, hyper: Hyper, w: Tensor, tau: float) -> Tensor:
        """Each fold's loss under offsets that were fitted to the other folds: offsets memorise what they see."""
        n_folds, losses = self.problem.n_folds, []
        for k in range(n_folds):
            others = torch.arange(n_folds) != k
            response = self.algorithm.bind(self.problem.take_folds(others))
            start = hyper._replace(offsets=torch.zeros(self.problem.decays.n_groups, dtype=torch.float64))
            end = self._descend_offsets(name, response, start, w[others], self.s2[others], tau)
            self._raise_if_ended(end)
            refitted = self.response.solve(end.hyper, self.s2, w, STEP_TOL)
            losses.append(self.problem.fold_losses(refitted)[k])
        return torch.stack(losses)

    def _descend_offsets(
        self, name: str, response: BestResponse, hyper: Hyper, w: Tensor, s2: Tensor, tau: float
    ) -> Snapshot:
        objective = Objective(self.plan.log_scale, self.n, tau)
        proposals = QuasiNewton(hyper, objective, self.plan.bounds, self.plan.tol)
        count = 2 + self.problem.decays.n_groups
        end = run(response, proposals, objective, s2, self.journal, stage=name, w=w, tol=STEP_TOL)
        return end.snapshot(name, count, self.journal.budget.seconds)

    def _refine(self, name: str, scan: Scan, q: float, count: int, tol: float, accuracy: float) -> None:
        """From the lowest point of a scan to the minimum, by hypergradient."""
        objective = Objective(self.plan.log_scale, self.n)
        start = Hyper(scan.log_alpha, torch.tensor(q, dtype=torch.float64))
        proposals = QuasiNewton(start, objective, self.plan.bounds, tol, scan.curvature)
        end = run(self.response, proposals, objective, self.s2, self.journal, stage=name, w=scan.w, tol=accuracy)
        if end.best is None and self.snapshots:
            self.diverged = True
            return
        self.snapshots.append(end.snapshot(name, count, self.journal.budget.seconds))
        self._raise_if_ended(self.snapshots[-1])

    def _raise_if_ended(self, end: Snapshot) -> None:
        """Leave all stages where one was cut short."""
        if end.stop_reason in ENDED:
            raise OutOfBudget(end.stop_reason)

    def _scan(self, stage: str, points: list[float], q: float, path: Tensor | None = None) -> Scan:
        objective = Objective(self.plan.log_scale, self.n)
        grid = Grid(points, self.plan.bounds, q, path)
        return scan(self.response, objective, self.s2, self.journal, stage, grid)
