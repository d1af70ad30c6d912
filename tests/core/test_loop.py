"""The loop: what it keeps, what it notes, and why it ends. Proposals and responses are stand-ins."""

import math

import pytest
import torch
from squared import hyper, tensor

from skhyper.core.algorithms.base import Response
from skhyper.core.decays import Hyper
from skhyper.core.hyperoptim import Objective, Proposals, QuasiNewton
from skhyper.core.loop import Budget, Journal, OutOfBudget, run
from skhyper.core.result import Evaluation, StopReason

PLAIN = Objective(log_scale=False, n=1)
S2 = torch.ones(2, dtype=torch.float64)


class Planned(Proposals):
    """log alpha = 0, 1, 2 ... as many as are told; notes what it observes."""

    def __init__(self, n, stop_reason=StopReason.CONVERGED):
        self.left, self.observed, self._end = list(range(n)), [], stop_reason

    def propose(self):
        if not self.left:
            self.stop_reason = self._end
            return None
        return hyper(float(self.left.pop(0)))

    def observe(self, evaluation, accuracy=0.0):
        self.observed.append(evaluation.value)


class Told(Response):
    """The losses that are told, for two folds; an exception is raised. Notes the warm starts."""

    def __init__(self, *losses):
        self.losses, self.starts = list(losses), []

    def evaluate(self, h, s2, w, tol):
        loss = self.losses[len(self.starts)]
        self.starts.append(None if w is None else float(w))
        if isinstance(loss, BaseException):
            raise loss
        folds = tensor([loss - 1, loss + 1])
        return Evaluation(h, h.log_alpha, folds, Hyper(tensor(3.0), tensor(0.0)), 0.125)


def go(response, proposals, budget=None, observer=None):
    journal = Journal(budget or Budget(), observer)
    return run(response, proposals, PLAIN, S2, journal, stage="name", w=None, tol=1e-3), journal


def test_the_best_evaluation_is_kept_and_is_the_next_warm_start():
    response = Told(5.0, 3.0, 4.0, 2.0, 6.0)
    end, _ = go(response, Planned(5))
    assert end.value == end.best.value == 2
    assert float(end.best.hyper.log_alpha) == 3
    assert response.starts == [None, 0, 1, 1, 3]
    assert end.n_iter == 5


@pytest.mark.parametrize("reason", [StopReason.CONVERGED, StopReason.AT_BOUND, StopReason.NO_PROGRESS])
def test_the_reason_is_that_of_the_proposals(reason):
    end, _ = go(Told(5.0), Planned(1, reason))
    assert end.stop_reason is reason


def test_max_iter_ends_a_stage():
    proposals = Planned(9)
    end, journal = go(Told(*[1.0] * 9), proposals, Budget(max_iter=4))
    assert end.stop_reason is StopReason.MAX_ITER
    assert end.n_iter == len(journal.records) == len(proposals.observed) == 4


def test_the_history_is_complete():
    """Every evaluation in turn, with everything that is known of it, also to the observer."""
    seen = []
    _, journal = go(Told(5.0, 3.0, math.nan), Planned(3), observer=seen.append)
    assert seen == journal.records
    assert [r.iteration for r in seen] == [0, 1, 2]
    assert [r.log_alpha for r in seen] == [0, 1, 2]
    assert [r.value for r in seen][:2] == [5, 3]
    assert math.isnan(seen[2].value)
    assert {(r.stage, r.exponent, r.gradient_norm, r.error) for r in seen} == {("name", 2.0, 3.0, 0.125)}
    assert sorted(r.seconds for r in seen) == [r.seconds for r in seen]


def test_points_of_a_scan_are_all_noted_before_a_spent_budget_is_told():
    journal = Journal(Budget(time_limit=-1.0))
    with pytest.raises(OutOfBudget) as caught:
        journal.scanned("scan", tensor([2.0, 1.0]), tensor([5.0, 6.0]), tensor([7.0, 8.0]), 1.5)
    assert caught.value.reason is StopReason.TIME_LIMIT
    assert [(r.log_alpha, r.value, r.objective) for r in journal.records] == [(2, 5, 7), (1, 6, 8)]


def test_a_time_limit_keeps_the_evaluation_that_was_under_way():
    end, journal = go(Told(5.0, 3.0), Planned(2), Budget(time_limit=-1.0))
    assert end.stop_reason is StopReason.TIME_LIMIT
    assert end.best.value == 5
    assert len(journal.records) == 1


def test_the_clock_starts_with_the_budget():
    budget = Budget(time_limit=1e6)
    assert 0 <= budget.seconds < 100
    budget.check()


def test_an_interrupt_keeps_what_there_is():
    end, journal = go(Told(5.0, KeyboardInterrupt()), Planned(2))
    assert end.stop_reason is StopReason.INTERRUPTED
    assert end.best.value == 5
    assert len(journal.records) == 1


def test_an_interrupt_in_the_observer_keeps_the_evaluation_that_it_was_told_of():
    def observer(record):
        raise KeyboardInterrupt

    end, journal = go(Told(5.0), Planned(1), observer=observer)
    assert end.stop_reason is StopReason.INTERRUPTED
    assert end.best.value == 5
    assert len(journal.records) == 1


def test_an_interrupt_before_the_first_evaluation_is_raised():
    with pytest.raises(KeyboardInterrupt):
        go(Told(KeyboardInterrupt()), Planned(1))


def test_another_error_is_raised():
    with pytest.raises(ZeroDivisionError):
        go(Told(5.0, ZeroDivisionError()), Planned(2))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_values_that_are_not_finite_are_told_but_never_kept(bad):
    proposals = Planned(3)
    end, _ = go(Told(bad, 5.0, bad), proposals)
    assert end.best.value == 5
    assert len(proposals.observed) == 3


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_stage_that_never_had_a_finite_value_has_no_snapshot(bad):
    proposals = QuasiNewton(hyper(0.0), PLAIN, (-9.0, 9.0), 1e-6)
    end, journal = go(Told(*[bad] * 300), proposals)
    assert end.stop_reason is StopReason.DIVERGED
    assert len(journal.records) == 1
    with pytest.raises(FloatingPointError, match=r"name: The outer loss was not finite"):
        end.snapshot("name", 1, 0.0)


def test_a_snapshot_is_the_best_evaluation():
    end, _ = go(Told(5.0, 3.0, 4.0), Planned(3))
    snapshot = end.snapshot("row", 7, 1.5)
    assert (snapshot.name, snapshot.n_hyperparameters, snapshot.seconds) == ("row", 7, 1.5)
    assert snapshot.fold_losses.tolist() == [2, 4]
    assert float(snapshot.hyper.log_alpha) == float(snapshot.w) == 1
    assert snapshot.error == 0.125
    assert snapshot.stop_reason is StopReason.CONVERGED
