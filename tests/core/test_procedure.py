"""Tuning and the final fit as a whole: known optima, invariances, honest losses, and every way to end early."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Lasso, Ridge
from squared import hyper, kfold, problem, regression, tensor

from skhyper.core.algorithms.closed_form import ClosedForm, ClosedFormResponse
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.loop import Budget
from skhyper.core.procedure import Plan, tune
from skhyper.core.refit import refit
from skhyper.core.result import StopReason

FAMILY = (1.5, 1.0, 0.75, 0.5)
GLOBAL = Plan(tol=1e-10)
ALGORITHMS = {"closed form": ClosedForm(), "implicit": Implicit()}


def go(prob, plan=GLOBAL, algorithm=None, budget=None, observer=None):
    return tune(prob, algorithm or ClosedForm(), plan, budget or Budget(), observer)


def cv_loss(x, y, log_alpha, k, c, intercept):
    """Weighted mean squared error of scikit-learn's Ridge on held-out rows, the mean over folds, halved."""
    losses = []
    for fold in range(k):
        held = np.arange(len(x)) % k == fold
        ridge = Ridge(math.exp(log_alpha), fit_intercept=intercept, solver="svd").fit(x[~held], y[~held], c[~held])
        errors = ((ridge.predict(x[held]).reshape(-1, y.shape[1]) - y[held]) ** 2).sum(1)
        losses.append(np.average(errors, weights=c[held]) / 2)
    return np.mean(losses)


SETTINGS = {
    "plain": {},
    "weighted rows": {"weighted": True},
    "three targets": {"n_outputs": 3},
    "no intercept": {"intercept": False},
    "more columns than rows": {"n": 24, "p": 40},
    "columns far from zero": {"shift": 10.0},
    "three folds": {"k": 3},
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_global_alpha_is_the_minimiser_that_scipy_finds_with_scikit_learns_ridge(name, algorithm):
    s = {"n": 50, "p": 8, "n_outputs": 1, "k": 5, "intercept": True, "weighted": False, "shift": 0.0} | SETTINGS[name]
    x, y = regression(s["n"], s["p"], s["n_outputs"], noise=3.0)
    x, y = x + s["shift"], y.reshape(s["n"], -1)
    c = np.random.default_rng(1).exponential(size=s["n"]) if s["weighted"] else np.ones(s["n"])
    prob = problem(x, y, "global", k=s["k"], sample_weight=c, intercept=s["intercept"])
    result = go(prob, algorithm=ALGORITHMS[algorithm])
    row = result.snapshots[0]
    found = float(row.hyper.log_alpha)
    args = (s["k"], c, s["intercept"])
    best = minimize_scalar(
        lambda t: cv_loss(x, y, t, *args), bounds=(found - 1, found + 1), method="bounded", options={"xatol": 1e-9}
    )
    assert result.stop_reason in (StopReason.CONVERGED, StopReason.NO_PROGRESS)
    assert float(row.fold_losses.mean()) == pytest.approx(best.fun, rel=1e-10)
    # A minimiser by values alone is known to the square root of their rounding error: slopes tell more.
    h = 1e-3
    slope, step = ((cv_loss(x, y, found + t, *args) - cv_loss(x, y, found - t, *args)) / (2 * t) for t in (h, 2 * h))
    slope = (4 * slope - step) / 3
    bend = (cv_loss(x, y, found + h, *args) - 2 * best.fun + cv_loss(x, y, found - h, *args)) / h**2
    assert abs(slope / bend) < 1e-6
    everything = problem(x, y, "global", k=0, sample_weight=c, intercept=s["intercept"])
    fitted = refit(everything, ALGORITHMS[algorithm], result, 0)
    ridge = Ridge(math.exp(best.x), fit_intercept=s["intercept"], solver="svd").fit(x, y, c)
    coefficients, intercepts, _ = prob.network.split(fitted.w)
    np.testing.assert_allclose(coefficients[0], ridge.coef_.reshape(-1, s["p"]).T, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(intercepts[0], ridge.intercept_, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(fitted.decays, math.exp(best.x), rtol=1e-6)


def test_the_minimum_over_the_grid_is_the_global_one_where_there_are_two():
    """No point of a fine grid is better, on data with several local minima among them."""
    for seed in range(8):
        x, y = regression(20, 15, noise=5.0, seed=seed)
        prob = problem(x, y, "global", k=4)
        response = ClosedForm().bind(prob)
        grid = response.solve(hyper(np.linspace(-10, 12, 300), np.full(300, 2.0)), torch.ones(4, dtype=torch.float64))
        best = float(go(prob).snapshots[0].fold_losses.mean())
        assert best <= float(prob.outer(grid).min()) * (1 + 1e-6)


@pytest.mark.parametrize("bounds", [(1e-7, 1e-6), (1e5, 1e6)])
def test_bounds_that_exclude_the_optimum_end_at_the_nearer_one(bounds):
    logs = tuple(map(math.log, bounds))
    result = go(problem(*regression(50, 5), "feature"), replace(GLOBAL, bounds=logs, exponents=(1.0,)))
    near = logs[1] if bounds[1] < 1 else logs[0]
    assert float(result.snapshots[0].hyper.log_alpha) == pytest.approx(near)
    assert result.snapshots[0].stop_reason is StopReason.AT_BOUND
    assert all(logs[0] - 1e-12 <= r.log_alpha <= logs[1] + 1e-12 for r in result.history)


def test_alpha_goes_to_its_bound_where_nothing_can_be_learnt():
    """Targets that have nothing to do with X."""
    rng = np.random.default_rng(3)
    prob = problem(rng.standard_normal((40, 30)), rng.standard_normal(40), "feature")
    result = go(prob, replace(GLOBAL, exponents=(1.0,)))
    assert float(result.snapshots[0].hyper.log_alpha) > math.log(40)
    assert all(bool(s.fold_losses.isfinite().all()) for s in result.snapshots)


# The family.


def sparse_case(granularity="feature", n_outputs=1, seed=0, n=60, p=20):
    x, y = regression(n, p, n_outputs, sparse=3, seed=seed, noise=2.0)
    return x, y, problem(x, y, granularity)


def test_the_family_has_a_row_for_each_exponent_and_wins_where_signal_is_sparse():
    _, _, prob = sparse_case(seed=1, p=60)
    result = go(prob, replace(GLOBAL, exponents=FAMILY))
    assert [float(s.hyper.exponent) for s in result.snapshots] == [2.0, *FAMILY]
    assert [s.n_hyperparameters for s in result.snapshots] == [1, 2, 2, 2, 2]
    losses = [float(s.fold_losses.mean()) for s in result.snapshots]
    assert min(losses) < 0.8 * losses[0]
    for s in result.snapshots:
        torch.testing.assert_close(s.fold_losses, prob.fold_losses(s.w))


def test_a_row_of_the_family_is_near_the_best_alpha_of_its_exponent():
    """Within 1 % of the lowest loss on a fine grid, solved accurately."""
    _, _, prob = sparse_case()
    result = go(prob, replace(GLOBAL, exponents=FAMILY))
    response = ClosedForm().bind(prob)
    for row in result.snapshots[1:]:
        q = float(row.hyper.exponent)
        grid = float(result.snapshots[0].hyper.log_alpha) + np.linspace(-1, 3, 33)
        w = response.solve(hyper(grid, np.full(33, max(q, 1.0))), result.s2, tol=1e-3)
        w = response.solve(hyper(grid, np.full(33, q)), result.s2, w, tol=1e-6)
        assert float(row.fold_losses.mean()) < 1.01 * float(prob.outer(w).min())


def test_the_losses_of_a_row_are_those_of_accurate_weights():
    """Rough solutions lead the search; what selection compares differs by less than half a per cent."""
    for seed in range(3):
        _, _, prob = sparse_case(seed=seed, p=60)
        result = go(prob, replace(GLOBAL, exponents=FAMILY))
        response = ClosedForm().bind(prob)
        for row in result.snapshots:
            w = response.solve(row.hyper, result.s2, row.w, tol=1e-10)
            np.testing.assert_allclose(row.fold_losses.mean(), prob.fold_losses(w).mean(), rtol=5e-3)


def test_a_refit_of_q_1_is_scikit_learns_lasso():
    x, y, prob = sparse_case()
    result = go(prob, replace(GLOBAL, exponents=(1.0,)))
    everything = problem(x, y, "feature", k=0)
    ridge, fitted = (refit(everything, ClosedForm(), result, i) for i in (0, 1))
    s = float(everything.decays.scale(ridge.w)) ** 0.5
    alpha = math.exp(float(result.snapshots[1].hyper.log_alpha))
    lasso = Lasso(alpha * s / len(x), tol=1e-14, max_iter=10**6).fit(x, y)
    np.testing.assert_array_equal(fitted.w[0, :-1] == 0, lasso.coef_ == 0)
    np.testing.assert_allclose(fitted.w[0, :-1], lasso.coef_, rtol=1e-5, atol=1e-9)
    np.testing.assert_array_equal(fitted.decays.isinf(), lasso.coef_ == 0)
    on = lasso.coef_ != 0
    np.testing.assert_allclose(fitted.decays[on], alpha * s / abs(lasso.coef_[on]), rtol=1e-5)


@pytest.mark.parametrize("index", range(5))
def test_reported_decays_reproduce_the_coefficients_by_ridge(index):
    """Fixed decays a_j on the columns that are left are scikit-learn's Ridge(1) on x_j / a_j^(1/2)."""
    x, y, prob = sparse_case()
    result = go(prob, replace(GLOBAL, exponents=FAMILY))
    fitted = refit(problem(x, y, "feature", k=0), ClosedForm(), result, index)
    on = fitted.decays.isfinite().numpy()
    scale = fitted.decays[on].sqrt().numpy()
    ridge = Ridge(1.0, solver="svd").fit(x[:, on] / scale, y)
    np.testing.assert_allclose(fitted.w[0, :-1][on], ridge.coef_ / scale, rtol=1e-5, atol=1e-8)
    assert not fitted.w[0, :-1][~on].any()


# Invariances.


def assert_same_tuning(one, other, log_alpha=0.0, rtol=1e-5):
    for a, b in zip(one.snapshots, other.snapshots, strict=True):
        assert float(b.hyper.log_alpha) == pytest.approx(float(a.hyper.log_alpha) + log_alpha, abs=rtol)
        assert float(b.hyper.exponent) == float(a.hyper.exponent)


INVARIANCE = replace(GLOBAL, tol=1e-8, exponents=FAMILY)


@pytest.mark.parametrize(("granularity", "n_outputs"), [("feature", 1), ("weight", 2), ("groups", 2)])
@pytest.mark.parametrize(("x_unit", "y_unit"), [(1.0, 1000.0), (1.0, 1e-6), (50.0, 1.0), (1e-5, 1.0)])
def test_units_of_x_and_y_change_alpha_and_coefficients_by_themselves(granularity, n_outputs, x_unit, y_unit):
    """y -> c y: the same alpha and q, coefficients times c. X -> c X: alpha times c^2, the same predictions."""
    x, y, prob = sparse_case(granularity, n_outputs)
    plan = replace(INVARIANCE, bounds=(-60.0, 60.0))
    one, other = go(prob, plan), go(problem(x_unit * x, y_unit * y, granularity), plan)
    assert_same_tuning(one, other, 2 * math.log(x_unit))
    for i in range(5):
        before = refit(problem(x, y, granularity, k=0), ClosedForm(), one, i).w[0]
        after = refit(problem(x_unit * x, y_unit * y, granularity, k=0), ClosedForm(), other, i).w[0]
        p = 20 * n_outputs
        size = float(before.abs().max())
        np.testing.assert_array_equal(before[:p] == 0, after[:p] == 0)
        np.testing.assert_allclose(after[:p] * x_unit / y_unit, before[:p], rtol=1e-4, atol=1e-5 * size)
        np.testing.assert_allclose(after[p:] / y_unit, before[p:], rtol=1e-4)


def test_a_shift_of_x_and_y_changes_the_intercept_alone():
    x, y, prob = sparse_case()
    one, other = go(prob, INVARIANCE), go(problem(x + 7, y - 100, "feature"), INVARIANCE)
    assert_same_tuning(one, other)
    for a, b in zip(one.snapshots, other.snapshots, strict=True):
        torch.testing.assert_close(a.w[:, :-1], b.w[:, :-1], rtol=1e-4, atol=1e-6)


def test_the_order_of_columns_and_of_rows_changes_nothing():
    x, y, prob = sparse_case()
    columns, rows = np.random.default_rng(0).permutation(20), np.random.default_rng(1).permutation(60)
    splits = tuple(t[:, rows] for t in kfold(60, 5))
    other = go(problem(x[rows][:, columns], y[rows], "feature", splits=splits), INVARIANCE)
    one = go(prob, INVARIANCE)
    assert_same_tuning(one, other)
    for a, b in zip(one.snapshots, other.snapshots, strict=True):
        torch.testing.assert_close(a.w[:, :-1][:, columns], b.w[:, :-1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("granularity", ["global", "feature"])
def test_integer_weights_equal_repeated_rows_whose_copies_stay_together(granularity):
    x, y, _ = sparse_case()
    counts = np.random.default_rng(0).integers(0, 4, 60)
    copies = np.repeat(np.arange(60), counts)
    plan = replace(INVARIANCE, exponents=FAMILY if granularity == "feature" else ())
    weighted = problem(x, y, granularity, sample_weight=counts)
    repeated = problem(x[copies], y[copies], granularity, splits=tuple(t[:, copies] for t in kfold(60, 5)))
    one, other = go(weighted, plan), go(repeated, plan)
    assert_same_tuning(one, other)
    for i, (a, b) in enumerate(zip(one.snapshots, other.snapshots, strict=True)):
        torch.testing.assert_close(a.fold_losses, b.fold_losses, rtol=1e-5, atol=0)
        fitted = refit(problem(x, y, granularity, k=0, sample_weight=counts), ClosedForm(), one, i)
        again = refit(problem(x[copies], y[copies], granularity, k=0), ClosedForm(), other, i)
        torch.testing.assert_close(fitted.w, again.w, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("q", [2.0, 1.0, 0.7])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_folds_decays_ignore_its_validation_rows(algorithm, q):
    """Other validation targets in fold 0: its weights and decays at the same hyperparameters are the same numbers."""
    x, y, prob = sparse_case()
    changed = y.copy()
    changed[np.arange(60) % 5 == 0] += 100
    before, after = (ALGORITHMS[algorithm].bind(problem(x, t, "feature")) for t in (y, changed))
    s2 = prob.decays.scale(before.solve(hyper(2.0), torch.ones(5, dtype=torch.float64)))
    weights = [r.solve(hyper(3.0, q), s2, tol=1e-11)[0] for r in (before, after)]
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-8, atol=1e-10)
    decays = [prob.decays.log_decays(w[None], hyper(3.0, q), s2[:1]) for w in weights]
    torch.testing.assert_close(decays[0], decays[1], rtol=1e-7, atol=1e-7)
    assert float((before.solve(hyper(3.0, q), s2)[1] - after.solve(hyper(3.0, q), s2)[1]).abs().max()) > 0.1


# Free decays.


def free_case():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 20))
    return problem(x, x[:, :3] @ [2.0, -1.0, 0.5] + rng.standard_normal(60), "feature")


def test_free_decays_lower_the_objective_and_end_where_its_gradient_vanishes():
    result = go(free_case(), replace(GLOBAL, tol=1e-5, taus=(0.5, 2.0)))
    assert [s.name for s in result.snapshots[1:]] == ["free decays, tau = 0.5", "free decays, tau = 2"]
    for row in result.snapshots[1:]:
        objectives = [r.objective for r in result.history if r.stage == row.name]
        assert objectives[0] > min(objectives)
        assert row.n_hyperparameters == 21
        assert float(row.hyper.offsets.abs().max()) > 0.1
        assert row.stop_reason is StopReason.CONVERGED
    assert result.snapshots[2].hyper.offsets.abs().max() > result.snapshots[1].hyper.offsets.abs().max()


def test_a_tight_prior_leaves_no_free_decays():
    result = go(free_case(), replace(GLOBAL, taus=(1e-5,)))
    assert float(result.snapshots[1].hyper.offsets.abs().max()) < 1e-6
    torch.testing.assert_close(result.snapshots[1].w, result.snapshots[0].w, rtol=1e-4, atol=1e-5)


def fitted_losses(result, prob, row):
    response = ClosedForm().bind(prob)
    return prob.fold_losses(response.solve(row.hyper, result.s2, row.w, tol=1e-8))


def test_losses_of_free_decays_are_cross_fitted():
    """Each fold is judged under offsets fitted to the other folds alone: on noise the fitted loss falls, this rises."""
    rng = np.random.default_rng(0)
    prob = problem(rng.standard_normal((40, 25)), rng.standard_normal(40), "feature")
    result = go(prob, replace(GLOBAL, tol=1e-5, taus=(3.0,), bounds=(0.0, 5.0)))
    ridge, free = result.snapshots
    fitted = float(fitted_losses(result, prob, free).mean())
    assert fitted < 0.97 * float(ridge.fold_losses.mean())
    assert float(free.fold_losses.mean()) > 1.03 * fitted


def test_cross_fitted_losses_are_those_of_a_search_that_never_saw_the_fold():
    """Tuning on the other folds from nothing, then solving the fold left out: the same loss."""
    prob = free_case()
    plan = replace(GLOBAL, tol=1e-6, taus=(1.0,))
    free = go(prob, plan).snapshots[1]
    s2 = go(prob).s2
    for k in range(5):
        others = torch.arange(5) != k
        alone = go(prob.take_folds(others), plan).snapshots[1]
        own = ClosedForm().bind(prob.take_folds(~others))
        loss = own.fold_losses(own.solve(alone.hyper, s2[k : k + 1]))
        assert float(loss) == pytest.approx(float(free.fold_losses[k]), rel=1e-3)


def test_one_fold_has_the_losses_that_its_free_decays_were_fitted_to():
    prob = free_case()
    result = go(prob.take_folds(torch.arange(5) == 0), replace(GLOBAL, taus=(1.0,)))
    one = prob.take_folds(torch.arange(5) == 0)
    torch.testing.assert_close(result.snapshots[1].fold_losses, fitted_losses(result, one, result.snapshots[1]))


def test_free_decays_start_from_the_best_row():
    _, _, prob = sparse_case(seed=1, p=60)
    result = go(prob, replace(GLOBAL, tol=1e-3, exponents=(1.0,), taus=(0.1,)))
    best = min(result.snapshots[:-1], key=lambda s: float(s.fold_losses.mean()))
    assert float(best.hyper.exponent) == float(result.snapshots[-1].hyper.exponent) == 1.0


# Ends.

EVERYTHING = Plan(exponents=(1.0,), taus=(1.0,), tol=1e-4)


def short_case():
    return problem(*regression(24, 4, noise=2.0), "feature", k=3)


def stages(result):
    return list(dict.fromkeys(r.stage for r in result.history))


def test_the_history_has_every_stage_in_turn():
    result = go(short_case(), EVERYTHING)
    expected = ["scan", "global alpha", "family, q = 2", "family, q = 1", "free decays, tau = 1"]
    assert stages(result) == expected
    assert [r.iteration for r in result.history] == list(range(len(result.history)))
    assert [s.name for s in result.snapshots] == ["global alpha", "family, q = 1", "free decays, tau = 1"]
    seconds = [r.seconds for r in result.history]
    assert seconds == sorted(seconds)


@pytest.mark.parametrize(
    ("stage", "rows"),
    [
        ("global alpha", 1),
        ("family, q = 2", 1),
        ("family, q = 1", 1),
        ("free decays, tau = 1", 2),
    ],
)
def test_an_interrupt_keeps_the_rows_of_the_stages_before_it(stage, rows):
    """Ctrl-C while the first evaluation of a stage is reported: that stage has no row unless it has evaluated."""
    seen = []

    def observer(record):
        seen.append(record)
        if record.stage == stage:
            raise KeyboardInterrupt

    result = go(short_case(), EVERYTHING, observer=observer)
    assert result.stop_reason is StopReason.INTERRUPTED
    assert len(result.snapshots) == rows
    assert len(result.history) == len(seen)
    assert seen[-1].stage == stage
    assert refit(short_case().take_folds(torch.arange(3) == 0), ClosedForm(), result, rows - 1).w.isfinite().all()


def test_an_interrupt_of_the_first_scan_is_raised():
    def observer(record):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(short_case(), EVERYTHING, observer=observer)


@pytest.mark.parametrize("count", range(1, 31))
def test_an_interrupt_inside_any_solution_is_raised_or_keeps_what_there_is(count, monkeypatch):
    """In every solve in turn, in scans, steps and cross-fits; one interrupt is enough."""
    calls = []
    plain = ClosedFormResponse.solve

    def solve(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(ClosedFormResponse, "solve", solve)
    try:
        result = go(short_case(), EVERYTHING)
    except KeyboardInterrupt:
        assert count <= 3  # the first scan, and the first evaluation
        return
    if len(calls) >= count:
        assert result.stop_reason is StopReason.INTERRUPTED
        assert len(calls) == count
    assert 1 <= len(result.snapshots) <= 3
    torch.testing.assert_close(result.s2, short_case().decays.scale(result.snapshots[0].w))


@pytest.mark.parametrize("limit", [-1.0, 0.0, 1e-4])
def test_a_time_limit_of_nothing_leaves_a_tuned_row(limit):
    result = go(short_case(), EVERYTHING, budget=Budget(time_limit=limit))
    assert result.stop_reason is StopReason.TIME_LIMIT
    assert len(result.snapshots) == 1
    assert result.snapshots[0].stop_reason is StopReason.TIME_LIMIT


@pytest.mark.parametrize("stage", ["global alpha", "family, q = 2", "family, q = 1", "free decays, tau = 1"])
def test_a_time_limit_in_any_stage_ends_the_run_soon(stage):
    """At most one more evaluation after the one that is under way."""
    budget = Budget()
    after = []

    def observer(record):
        if budget.time_limit < 0:
            after.append(record)
        if record.stage == stage:
            budget.time_limit = -1.0

    result = go(short_case(), EVERYTHING, budget=budget, observer=observer)
    assert result.stop_reason is StopReason.TIME_LIMIT
    assert len([r for r in after if math.isfinite(r.gradient_norm)]) <= 1
    assert result.snapshots[0].name == "global alpha"


def test_max_iter_is_told_and_leaves_a_row():
    result = go(short_case(), replace(EVERYTHING, tol=1e-12), budget=Budget(max_iter=2))
    reasons = {StopReason.MAX_ITER, StopReason.CONVERGED, StopReason.SCANNED}
    assert {s.stop_reason for s in result.snapshots} <= reasons
    assert result.stop_reason is StopReason.MAX_ITER
    assert len(result.snapshots) == 3


def spoil(monkeypatch, when):
    """Weights that are not a number where `when` says so of the hyperparameters."""
    plain = ClosedFormResponse.solve

    def solve(self, h, *args, **kwargs):
        w = plain(self, h, *args, **kwargs)
        return w * math.nan if when(h) else w

    monkeypatch.setattr(ClosedFormResponse, "solve", solve)


def test_a_family_that_diverges_leaves_the_global_alpha(monkeypatch):
    spoil(monkeypatch, lambda h: bool((h.exponent < 2).any()))
    result = go(short_case(), Plan(exponents=(1.0,)))
    assert [s.name for s in result.snapshots] == ["global alpha"]
    assert result.stop_reason is StopReason.DIVERGED


def test_free_decays_that_diverge_leave_the_rows_before_them(monkeypatch):
    spoil(monkeypatch, lambda h: h.offsets is not None)
    result = go(short_case(), EVERYTHING)
    assert len(result.snapshots) == 2
    assert result.stop_reason is StopReason.DIVERGED


def test_a_run_that_never_had_a_finite_loss_says_so(monkeypatch):
    spoil(monkeypatch, lambda h: True)
    with pytest.raises(FloatingPointError, match="global alpha: The outer loss was not finite"):
        go(short_case(), EVERYTHING)


# Degenerate data.


def degenerate():
    x, y = regression(30, 4, noise=2.0)
    yield "a constant column", np.c_[x, np.full(30, 7.0)], y
    yield "copies of columns", np.c_[x, x, -x], y
    yield "targets that are all zero", x, np.zeros(30)
    yield "targets that are all the same", x, np.full(30, 3.0)
    yield "three rows", x[:3], y[:3]
    yield "one column", x[:, :1], y
    yield "a column of huge scale", x * [1e6, 1, 1, 1], y
    yield "a column of tiny scale", x * [1e-9, 1, 1, 1], y
    yield "columns far from zero", x + 1e5, y
    yield "columns that are all zero", 0 * x, y
    yield "targets without noise", x, x @ np.ones(4)
    yield "more columns than rows, without noise", np.tile(x[:8], (1, 9)), x[:8] @ np.ones(4)
    yield "huge targets", x, 1e150 * y
    yield "tiny targets", x, 1e-150 * y
    yield "one fold's rows all alike", np.where(np.arange(30)[:, None] % 3 == 0, 1.0, x), y


@pytest.mark.parametrize(("x", "y"), [pytest.param(x, y, id=name) for name, x, y in degenerate()])
@pytest.mark.parametrize("granularity", ["feature", "global"])
def test_degenerate_data_is_tuned_and_fitted(x, y, granularity):
    plan = Plan(exponents=(1.5, 1.0, 0.5) if granularity == "feature" else ())
    result = go(problem(x, y, granularity, k=3), plan, budget=Budget(max_iter=50))
    assert len(result.history) < 300
    for i, row in enumerate(result.snapshots):
        assert bool(row.fold_losses.isfinite().all())
        fitted = refit(problem(x, y, granularity, k=0), ClosedForm(), result, i)
        assert bool(fitted.w.isfinite().all())
        residual = problem(x, y, k=0).outputs(fitted.w)[0, :, 0] - tensor(y)
        assert float(residual.abs().max()) <= 1.001 * np.ptp(y) + 1e-6 * abs(y).max()
