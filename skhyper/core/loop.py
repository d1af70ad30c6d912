"""The one loop: ask for hyperparameters, evaluate, tell; with a budget, a history, and an orderly end."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .algorithms.base import Response
from .hyperoptim import Objective, Proposals
from .result import Evaluation, Record, Snapshot, StopReason

SHARE = 0.1  # of the slope of the objective that evaluations may be wrong by, roughly

Observer = Callable[[Record], None]


class OutOfBudget(Exception):
    """Raised between evaluations; carries the reason."""

    def __init__(self, reason: StopReason):
        super().__init__(reason.value)
        self.reason = reason


@dataclass
class Budget:
    """What a run may spend, and what it has spent: `time_limit` in seconds, `max_iter` evaluations a stage."""

    time_limit: float = float("inf")
    max_iter: int = 200
    started: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def check(self) -> None:
        """Raise OutOfBudget when the time is up."""
        if self.seconds > self.time_limit:
            raise OutOfBudget(StopReason.TIME_LIMIT)


@dataclass
class Journal:
    """The history of a run and the one who watches it."""

    budget: Budget
    observer: Observer | None = None
    records: list[Record] = field(default_factory=list)

    def evaluated(self, stage: str, evaluation: Evaluation, objective: float) -> None:
        """Note an evaluation with its hypergradient."""
        gradient = evaluation.gradient
        norms = [float(part.norm()) for part in (gradient.log_alpha, gradient.offsets) if part is not None]
        point = (float(evaluation.hyper.log_alpha), float(evaluation.hyper.exponent))
        self._write(stage, evaluation.value, objective, *point, math.hypot(*norms), evaluation.error)
        self.budget.check()

    def scanned(self, stage: str, log_alpha: Tensor, losses: Tensor, objectives: Tensor, exponent: float) -> None:
        """Note points of a scan, which have no hypergradient."""
        for x, loss, objective in zip(log_alpha.tolist(), losses.tolist(), objectives.tolist(), strict=True):
            self._write(stage, loss, objective, x, exponent, math.nan, 0.0)
        self.budget.check()

    def _write(
        self, stage: str, value: float, objective: float, log_alpha: float, exponent: float, norm: float, error: float
    ) -> None:
        numbers = (value, objective, log_alpha, exponent, norm, error)
        record = Record(stage, len(self.records), *numbers, self.budget.seconds)
        self.records.append(record)
        if self.observer is not None:
            self.observer(record)


@dataclass
class Stage:
    """What a stage has reached when it ends, in whatever way."""

    best: Evaluation | None = None
    value: float = float("inf")
    n_iter: int = 0
    stop_reason: StopReason = StopReason.MAX_ITER
    last: Any = None  # where the next evaluation would have started; without progress, where the last one ended

    def snapshot(self, name: str, n_hyperparameters: int, seconds: float) -> Snapshot:
        """The best evaluation as a candidate for selection."""
        if self.best is None:
            raise FloatingPointError(f"{name}: The outer loss was not finite for any alpha; no model was fitted.")
        hyper, w, fold_losses, _, error, state = self.best
        return Snapshot(name, hyper, w, fold_losses, n_hyperparameters, self.stop_reason, error, seconds, state=state)


def run(
    response: Response,
    proposals: Proposals,
    objective: Objective,
    s2: Tensor,
    journal: Journal,
    *,
    stage: str,
    w: Any,
    tol: float,
    loosest: float = 0.0,
    max_iter: float | None = None,
    known: Evaluation | None = None,
    end: Stage | None = None,
) -> Stage:
    """Evaluate what is proposed until nothing is left, the budget is spent, or the user interrupts.

    Weights are solved for to a relative accuracy of `tol`, or of a share of the objective's slope while that is more,
    but not more than `loosest`. An evaluation of the first proposal may be `known` already.

    `w` is the first warm start; the proposals say where later evaluations start. `end` is a stage to go on with.

    The best evaluation is returned in every case; an interruption before the first one is raised.
    """
    end = Stage() if end is None else end
    try:
        while end.n_iter < (journal.budget.max_iter if max_iter is None else max_iter):
            hyper = proposals.propose()
            if hyper is None:
                end.stop_reason = proposals.stop_reason or StopReason.CONVERGED
                break
            accuracy = max(tol, min(SHARE * proposals.slope, loosest))
            evaluation, known = known or response.evaluate(hyper, s2, w, accuracy), None
            value = objective.value(evaluation.value, hyper.offsets)
            end.n_iter += 1
            proposals.observe(evaluation, accuracy)
            # Of two that are as good but for their error, the one where the search stands is more accurate.
            if value < end.value or proposals.accepted:
                end.best, end.value = response.keep(evaluation), value
            if proposals.stop_reason is StopReason.NO_PROGRESS:
                end.last = evaluation.state
            elif end.best is not None:
                w = proposals.start(end.best, evaluation)
                if w is end.best.state:
                    w = response.again(w)
                end.last = w
            journal.evaluated(stage, evaluation, value)
            del evaluation  # memory
    except OutOfBudget as stop:
        end.stop_reason = stop.reason
    except KeyboardInterrupt:
        end.stop_reason = StopReason.INTERRUPTED
        if end.best is None:
            raise
    return end
