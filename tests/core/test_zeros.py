"""Exact zeros at q <= 1, against scikit-learn's Lasso and MultiTaskLasso and by the optimality conditions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso
from squared import hyper, problem, regression, tensor

from skhyper.core import zeros
from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.refit import descend
from skhyper.core.zeros import exact_zeros

ALGORITHMS = {"closed form": ClosedForm(), "implicit": Implicit()}
ONE = torch.ones(1, dtype=torch.float64)


def solve(algorithm, prob, log_alpha, q, offsets=None, tol=1e-11):
    """Smoothed solution and the one with exact zeros, as `refit` finds them; s^2."""
    response = algorithm.bind(prob)
    h = hyper(log_alpha, q, offsets)
    start = response.solve(hyper(log_alpha), ONE, None, tol)
    s2 = prob.decays.scale(start)
    smooth = descend(response, h, s2, start, tol)
    return smooth, exact_zeros(response, h, s2, smooth, tol), s2


def sharp_objective(prob, w, log_alpha, q, s2, offsets=0.0):
    """The inner objective with eps = 0, from its formula."""
    loss = (prob.train[..., None] * (prob.outputs(w) - prob.y) ** 2).sum() / 2
    d = prob.decays
    m = d.group_sums(w**2)[0] / d.sizes
    weights = torch.exp(tensor(log_alpha) + tensor(offsets)) * d.sizes
    return float(loss + (weights * (m / s2) ** (q / 2)).sum() * s2 / q)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.95])
@pytest.mark.parametrize("shape", [(90, 25), (40, 60)])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_q_of_1_is_the_lasso_with_the_same_zeros(algorithm, correlation, shape, n_outputs):
    """MultiTaskLasso where all outputs of a feature share a decay. Three alphas, from nearly empty to nearly full."""
    n, _ = shape
    x, y = regression(*shape, n_outputs, correlation=correlation, sparse=6)
    prob = problem(x, y, "feature", k=0)
    for log_ratio in (-5.0, -3.0, -1.0):
        log_alpha = np.log(n) + log_ratio
        _, w, s2 = solve(ALGORITHMS[algorithm], prob, log_alpha, 1.0)
        level = np.exp(log_alpha) * np.sqrt(float(s2) * n_outputs) / n
        lasso = (Lasso if n_outputs == 1 else MultiTaskLasso)(level, tol=1e-14, max_iter=10**6).fit(x, y)
        got, expected = prob.network.split(w).coefficients[0].numpy(), np.atleast_2d(lasso.coef_).T
        np.testing.assert_array_equal(got != 0, expected != 0)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7 * abs(expected).max())
        np.testing.assert_allclose(prob.network.split(w).intercepts[0], lasso.intercept_, rtol=1e-6)


@pytest.mark.parametrize("intercept", [True, False])
def test_weighted_rows_and_offsets_are_a_lasso_on_rescaled_columns(intercept):
    """exp(z_j) scales the level of feature j."""
    x, y = regression(60, 15, correlation=0.5, sparse=4)
    rng = np.random.default_rng(0)
    c, z = rng.exponential(size=60), rng.standard_normal(15)
    prob = problem(x, y, "feature", k=0, sample_weight=c, intercept=intercept)
    _, w, s2 = solve(ClosedForm(), prob, 1.0, 1.0, z)
    lasso = Lasso(np.exp(1.0) * float(s2) ** 0.5 / c.sum(), tol=1e-14, max_iter=10**6, fit_intercept=intercept)
    lasso.fit(x / np.exp(z), y, sample_weight=c)
    expected = lasso.coef_ / np.exp(z)
    np.testing.assert_array_equal(w[0, :15] != 0, expected != 0)
    np.testing.assert_allclose(w[0, :15], expected, rtol=1e-6, atol=1e-8)
    assert 0 < (expected != 0).sum() < 15


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("granularity", ["groups", "output", "weight"])
def test_q_of_1_meets_the_conditions_of_the_group_lasso(granularity, n_outputs):
    """-gradient = alpha s p_g^(1/2) w_g / |w_g| on the support, and no longer than that off it."""
    prob = problem(*regression(60, 18, n_outputs, correlation=0.5, sparse=5), granularity, k=0)
    log_alpha = np.log(60) - 1
    _, w, s2 = solve(ClosedForm(), prob, log_alpha, 1.0)
    slope, d = prob.loss_gradient(w), prob.decays
    level = np.exp(log_alpha) * (float(s2) * d.sizes).sqrt()
    norm = d.group_sums(w**2).sqrt()[0]
    inside = norm > 0
    assert granularity == "output" or 0 < int(inside.sum()) < d.n_groups
    pull = d.spread((level / norm.clamp(min=1e-300))[None]) * w
    on = d.spread(inside.double()[None]) > 0
    assert float((slope + pull)[on].abs().max()) < 1e-7 * float(level.max())
    assert bool((d.group_sums(slope**2).sqrt()[0][~inside] <= level[~inside] * (1 + 1e-6)).all())


@pytest.mark.parametrize("q", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("granularity", ["feature", "groups"])
@pytest.mark.parametrize("n", [90, 25])
def test_q_below_1_gives_a_local_minimum_with_exact_zeros(n, granularity, correlation, q):
    """Stationary on the support, with positive curvature, and no worse than the smoothed solution cut at zero."""
    prob = problem(*regression(n, 30, correlation=correlation, sparse=6), granularity, k=0)
    counts = []
    for log_ratio in (-3.0, -1.0, 0.0):
        log_alpha = np.log(n) + log_ratio
        smooth, w, s2 = solve(ClosedForm(), prob, log_alpha, q)
        support = (w[0] != 0) | (prob.decays.index < 0)
        counts.append(int(support[:30].sum()))

        def objective(v, w=w, support=support, log_alpha=log_alpha, s2=s2):
            full = torch.zeros_like(w).index_put((torch.tensor([0]), support.nonzero()[:, 0]), v)
            loss = (prob.train[..., None] * (prob.outputs(full) - prob.y) ** 2).sum() / 2
            sharp = replace(prob.decays, eps=1e-14)
            return loss + sharp.penalty(full, hyper(log_alpha, q), s2).sum()

        v = w[0, support]
        curvature = torch.autograd.functional.hessian(objective, v)
        slope = torch.autograd.functional.jacobian(objective, v)
        step = torch.linalg.solve(curvature, slope)
        assert float(step.norm() / v.norm()) < 1e-8
        assert float(torch.linalg.eigvalsh(curvature).min()) > 0
        cut = torch.where(w != 0, smooth, 0.0)
        cut[:, 30:] = smooth[:, 30:]
        assert sharp_objective(prob, w, log_alpha, q, s2) <= sharp_objective(prob, cut, log_alpha, q, s2) + 1e-9
    assert 30 > counts[-1] > 0


@pytest.mark.parametrize("granularity", ["feature", "groups"])
def test_the_way_down_through_the_exponents_lowers_the_objective(granularity):
    """The result at q < 1 is no worse than the ridge, the q = 1.5 and the q = 1 solution that it comes from."""
    prob = problem(*regression(60, 20, correlation=0.5, sparse=5), granularity, k=0)
    response = ClosedForm().bind(prob)
    for log_alpha in (1.0, 3.0):
        _, w, s2 = solve(ClosedForm(), prob, log_alpha, 0.7)
        for q in (2.0, 1.5, 1.0):
            start = response.solve(hyper(log_alpha, q), s2)
            assert sharp_objective(prob, w, log_alpha, 0.7, s2) <= sharp_objective(prob, start, log_alpha, 0.7, s2)


def test_groups_that_were_dropped_by_mistake_come_back():
    """From a start where all weights are zero."""
    prob = problem(*regression(60, 12, sparse=5), "feature", k=0)
    expected, w, s2 = solve(ClosedForm(), prob, 2.0, 1.0)
    found = exact_zeros(ClosedForm().bind(prob), hyper(2.0, 1.0), s2, 0 * expected, 1e-11)
    torch.testing.assert_close(found, w, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("q", [0.7, 1.0])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_huge_alpha_leaves_the_intercept_alone(algorithm, q):
    x, y = regression(40, 6)
    prob = problem(x, y, "feature", k=0)
    response = ALGORITHMS[algorithm].bind(prob)
    s2 = prob.decays.scale(response.solve(hyper(0.0), ONE))
    start = response.solve(hyper(20.0, q), s2)
    w = exact_zeros(response, hyper(20.0, q), s2, start, 1e-10)
    assert not bool(w[0, :6].any())
    assert float(w[0, 6]) == pytest.approx(y.mean())


def test_plain_decays_never_vanish():
    """A penalised intercept keeps its decay and its weight, however small."""
    x, y = regression(60, 8, sparse=3)
    prob = problem(x, y - y.mean() + 1e-3, "feature", k=0)
    index = torch.arange(9)
    prob = prob.with_decays(replace(prob.decays, index=index, plain=index == 8))
    response = Implicit().bind(prob)
    s2 = prob.decays.scale(response.solve(hyper(2.0), ONE))
    h = hyper(3.0, 1.0)
    w = exact_zeros(response, h, s2, descend(response, h, s2, response.solve(hyper(3.0), ONE), 1e-11), 1e-11)
    residual = prob.outputs(w)[0, :, 0] - prob.y[:, 0]
    assert 0 < int((w == 0).sum()) < 8
    assert float(w[0, 8]) != 0
    assert float(residual.sum() + np.exp(3.0) * w[0, 8]) == pytest.approx(0, abs=1e-8)


def copies_of_columns():
    x, y = regression(50, 6, sparse=3)
    return np.hstack([x, x, -x, x + 1e-9 * x[:, ::-1]]), y


@pytest.mark.parametrize("log_alpha", [-18.0, -8.0, 0.0, 3.0])
def test_copies_of_columns_end_in_a_lasso_solution(log_alpha):
    """Which copy takes the weight is open; the objective is not, and the search does not turn in circles."""
    x, y = copies_of_columns()
    prob = problem(x, y, "feature", k=0)
    _, w, s2 = solve(ClosedForm(), prob, log_alpha, 1.0)
    lasso = Lasso(np.exp(log_alpha) * float(s2) ** 0.5 / 50, tol=1e-12, max_iter=10**5)
    lasso.fit(x[:, :6], y)  # the copies add nothing
    expected = torch.zeros_like(w)
    expected[0, :6], expected[0, -1] = tensor(lasso.coef_), float(lasso.intercept_)
    got, best = (sharp_objective(prob, v, log_alpha, 1.0, s2) for v in (w, expected))
    assert got <= best * (1 + 1e-8)


def test_a_search_that_is_cut_short_is_still_a_solution_on_its_support(monkeypatch):
    monkeypatch.setattr(zeros, "MAX_ROUNDS", 1)
    prob = problem(*regression(60, 12, sparse=5), "feature", k=0)
    expected, _, s2 = solve(ClosedForm(), prob, 2.0, 1.0)
    w = exact_zeros(ClosedForm().bind(prob), hyper(2.0, 1.0), s2, 0 * expected, 1e-11)
    slope = prob.loss_gradient(w)[0]
    on = w[0] != 0
    on[12] = False
    np.testing.assert_allclose(slope[on], -np.exp(2.0) * float(s2) ** 0.5 * w[0, on].sign(), rtol=1e-6)
    assert float(slope[12]) == pytest.approx(0, abs=1e-4)
