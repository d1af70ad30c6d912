"""One decay for each output: each output's alpha is what it gets alone, in every form of the best response.

Against scikit-learn's folds: tests/test_criteria.py.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from squared import problem, regression

from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.iterative import IterativeResponse
from skhyper.core.loop import Budget
from skhyper.core.outputs import one_decay_each, outputs_apart
from skhyper.core.procedure import Plan, tune
from skhyper.core.result import StopReason

APART = Plan(taus=(math.inf,), competes=False, tol=1e-9, bounds=(math.log(1e-10), math.log(1e10)))


def outputs(n=60, p=10, unit=1.0, n_outputs=3):
    """Targets of different signal and scale."""
    x, y = regression(n, p, n_outputs, noise=2.0, sparse=0 if n > p else 5, seed=1)
    y[:, 1] += 20 * np.random.default_rng(0).standard_normal(n)
    y[:, 2] *= unit
    return x, y


def tuned(result, index=-1):
    hyper = result.snapshots[index].hyper
    return (hyper.log_alpha + (0 if hyper.offsets is None else hyper.offsets)).numpy()


@pytest.mark.parametrize("unit", [1.0, 1e-5, 1e5])
@pytest.mark.parametrize("shape", [(60, 10), (24, 70)])
def test_each_output_gets_the_alpha_that_it_gets_alone(shape, unit):
    x, y = outputs(*shape, unit=unit)
    result = tune(problem(x, y, "output"), ClosedForm(), APART, Budget())
    alone = [tune(problem(x, y[:, t], "global"), ClosedForm(), APART, Budget()) for t in range(3)]
    expected = np.array([float(tuned(a, 0)) for a in alone])
    inside = expected > -10  # beyond, the loss is flat
    assert inside.sum() >= 2
    np.testing.assert_allclose(tuned(result)[inside], expected[inside], atol=1e-6)
    row = result.snapshots[-1]
    assert (row.name, row.n_hyperparameters) == ("a decay for each output", 3)
    losses = sum(a.snapshots[0].fold_losses for a in alone)
    tolerance = 1e-7 if inside.all() else 1e-3  # and with next to no decay its factors lose digits
    torch.testing.assert_close(row.fold_losses, losses, rtol=tolerance, atol=0)


def test_moments_serve_one_output_as_they_serve_all():
    """Where factorising for every output would be dear, and the response iterates."""
    x, y = outputs(400, 300, n_outputs=6)
    prob = problem(x, y, "output")
    response = ClosedForm().bind(prob)
    assert isinstance(response, IterativeResponse)
    result = tune(prob, ClosedForm(), APART, Budget())
    alone = [tune(problem(x, y[:, t], "global"), ClosedForm(), APART, Budget()) for t in range(6)]
    np.testing.assert_allclose(tuned(result), [float(tuned(a, 0)) for a in alone], atol=1e-5)


def test_rows_that_compete_have_losses_of_folds_that_their_alphas_did_not_see():
    x, y = outputs()
    prob = problem(x, y, "output")
    fitted = tune(prob, ClosedForm(), APART, Budget()).snapshots[-1]
    competing = tune(prob, ClosedForm(), replace(APART, competes=True), Budget()).snapshots[-1]
    left = competing.hyper.offsets != 0
    assert competing.n_hyperparameters == 3
    assert left.tolist() == [True, False, True]
    torch.testing.assert_close(competing.hyper.offsets[left], fitted.hyper.offsets[left])
    assert float(competing.fold_losses.mean()) > float(fitted.fold_losses.mean())


def test_an_output_that_gains_nothing_keeps_the_shared_alpha():
    x, y = outputs()
    same = np.stack([y[:, 0], y[:, 0]], axis=1)
    result = tune(problem(x, same, "output"), ClosedForm(), replace(APART, competes=True), Budget())
    assert result.snapshots[-1].n_hyperparameters == 1
    assert not result.snapshots[-1].hyper.offsets.any()


def test_only_decays_of_outputs_come_apart():
    x, y = outputs()
    for granularity in ("global", "feature", "weight", "groups", "output"):
        prob = problem(x, y, granularity)
        assert one_decay_each(prob) == (granularity == "output")
        assert (outputs_apart(ClosedForm().bind(prob)) is not None) == (granularity == "output")
    assert outputs_apart(ClosedForm().bind(problem(x, y[:, 0], "output"))) is None


def test_a_spent_budget_leaves_the_shared_alpha():
    x, y = outputs()
    budget = Budget(time_limit=1e9)

    def stop(record):
        if "output 1" in record.stage:
            budget.time_limit = 0.0

    result = tune(problem(x, y, "output"), ClosedForm(), APART, budget, stop)
    assert [row.name for row in result.snapshots] == ["global alpha"]
    assert result.stop_reason is StopReason.TIME_LIMIT
