"""Leave-one-out, GCV and evidence: values against brute force, hypergradients against finite differences.

The estimator around them is in tests/test_criteria.py.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge
from squared import hyper, problem, regression, tensor

from skhyper.core.algorithms.analytic import Analytic
from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.criteria import Evidence, GeneralisedCrossValidation, LeaveOneOut
from skhyper.core.leverage import Dual, Primal, Spectral, training_rows
from skhyper.core.losses import Huber

SHAPES = {"primal": (30, 8), "dual": (12, 20)}
CRITERIA = {"loo": LeaveOneOut(), "gcv": GeneralisedCrossValidation(), "evidence": Evidence()}
ONE = torch.ones(1, dtype=torch.float64)


def response(criterion, shape="primal", granularity="feature", *, weighted=False, intercept=True, n_outputs=2):
    n, p = SHAPES[shape]
    x, y = regression(n, p, n_outputs, correlation=0.3)
    c = np.random.default_rng(1).exponential(size=n) if weighted else None
    prob = problem(x + 1.0, y, granularity, k=0, sample_weight=c, intercept=intercept)
    return Analytic(CRITERIA[criterion], ClosedForm()).bind(prob)


def offsets(r, seed=0):
    return np.random.default_rng(seed).standard_normal(r.problem.decays.n_groups)


def decays(r, log_alpha, z):
    """a (p, T)."""
    network = r.problem.network
    index = r.problem.decays.index[: network.n_coefficients].numpy()
    return np.exp(log_alpha + (0 if z is None else z[index]) * np.ones(len(index))).reshape(-1, network.n_outputs)


def ridge_predictions(x, y, c, a, rows, intercept):
    """Of one output: scikit-learn's Ridge(1) on columns x_j / a_j^(1/2), fitted to `rows`, for all rows."""
    model = Ridge(1.0, fit_intercept=intercept, solver="svd").fit(x[rows] / np.sqrt(a), y[rows], c[rows])
    return model.predict(x / np.sqrt(a))


def data(r):
    p = r.problem
    return p.design.x.numpy(), p.y.numpy(), p.train[0].numpy(), p.network.intercept


def evaluate(r, log_alpha, z=None):
    return r.evaluate(hyper(log_alpha, 2.0, z), ONE)


CASES = list(product(SHAPES, ("feature", "output", "weight", None), (True, False), (True, False)))


@pytest.mark.parametrize(("shape", "granularity", "weighted", "intercept"), CASES)
def test_left_out_predictions_are_those_of_models_without_the_row(shape, granularity, weighted, intercept):
    """None: equal decays."""
    r = response("loo", shape, granularity or "global", weighted=weighted, intercept=intercept)
    z = offsets(r) if granularity else None
    x, y, c, intercept = data(r)
    a, rows = decays(r, 0.5, z), np.arange(len(x))
    expected = np.array(
        [[ridge_predictions(x, y[:, t], c, a[:, t], rows != i, intercept)[i] for t in range(y.shape[1])] for i in rows]
    )
    h = hyper(0.5, 2.0, z)
    np.testing.assert_allclose(r.left_out(h), expected, rtol=1e-9, atol=1e-10)
    loss = (c[:, None] * (y - expected) ** 2).sum() / c.sum() / 2
    assert float(r.evaluate(h, ONE).fold_losses) == pytest.approx(loss, rel=1e-10)


@pytest.mark.parametrize(("shape", "granularity", "weighted", "intercept"), CASES)
def test_gcv_is_the_residual_inflated_by_the_trace_of_the_hat_matrix(shape, granularity, weighted, intercept):
    r = response("gcv", shape, granularity or "global", weighted=weighted, intercept=intercept)
    z = offsets(r) if granularity else None
    x, y, c, intercept = data(r)
    a, rows, expected = decays(r, 0.5, z), np.ones(len(x), dtype=bool), 0.0
    for t in range(y.shape[1]):
        hat = np.stack([ridge_predictions(x, e, c, a[:, t], rows, intercept) for e in np.eye(len(x))], axis=1)
        residual = y[:, t] - hat @ y[:, t]
        expected += (c @ residual**2) / c.sum() / (1 - np.trace(hat) / len(x)) ** 2 / 2
    assert float(evaluate(r, 0.5, z).fold_losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shape", "granularity", "weighted", "intercept"), CASES)
def test_evidence_is_the_dense_gaussian_likelihood_at_its_best_noise_variance(shape, granularity, weighted, intercept):
    """With an intercept, of orthonormal contrasts: what is left of y when its flat prior is integrated out."""
    r = response("evidence", shape, granularity or "global", weighted=weighted, intercept=intercept)
    z = offsets(r) if granularity else None
    x, y, c, intercept = data(r)
    n, a, expected = len(x), decays(r, 0.5, z), 0.0
    contrasts = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, 1:]]))[0][:, 1:] if intercept else np.eye(n)
    for t in range(y.shape[1]):
        covariance = contrasts.T @ (np.diag(1 / c) + (x / a[:, t]) @ x.T) @ contrasts
        v = contrasts.T @ y[:, t]
        noise = v @ np.linalg.solve(covariance, v) / len(v)
        expected -= multivariate_normal(cov=noise * covariance).logpdf(v) / n
        for worse in (0.9, 1.1):
            assert multivariate_normal(cov=noise * covariance).logpdf(v) > multivariate_normal(
                cov=worse * noise * covariance
            ).logpdf(v)
    assert float(evaluate(r, 0.5, z).fold_losses) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("criterion", "shape", "granularity", "weighted"),
    list(product(CRITERIA, SHAPES, ("feature", "groups", "output", "weight", None), (True, False))),
)
def test_the_hypergradient_agrees_with_finite_differences(criterion, shape, granularity, weighted):
    r = response(criterion, shape, granularity or "global", weighted=weighted)
    z, step = offsets(r) if granularity else None, 1e-5
    gradient = evaluate(r, 0.5, z).gradient

    def value(log_alpha, z):
        return float(evaluate(r, log_alpha, z).fold_losses)

    numeric = (value(0.5 + step, z) - value(0.5 - step, z)) / (2 * step)
    assert float(gradient.log_alpha) == pytest.approx(numeric, rel=1e-5, abs=1e-8)
    if z is None:
        assert gradient.offsets is None
        return
    for g, direction in enumerate(np.eye(len(z))):
        numeric = (value(0.5, z + step * direction) - value(0.5, z - step * direction)) / (2 * step)
        assert float(gradient.offsets[g]) == pytest.approx(numeric, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [True, False])
def test_factorisations_agree_where_all_of_them_apply(shape, weighted):
    rows, targets = training_rows(response("loo", shape, weighted=weighted).problem)
    a = tensor(0.3)
    one = Spectral(rows.decomposition, a)
    for kind in (Primal, Dual):
        other = kind(rows, a.expand(rows.z.shape[1]))
        torch.testing.assert_close(one.free, other.free)
        torch.testing.assert_close(one.log_determinant, other.log_determinant)
        torch.testing.assert_close(one.effective.sum(), other.effective.sum())
        torch.testing.assert_close(one.residuals(targets.t), other.residuals(targets.t))
        torch.testing.assert_close(one.in_features(one.weights(targets.t)), other.weights(targets.t))
        torch.testing.assert_close(one.in_features(one.gain.mT), other.gain.mT)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rows_of_weight_zero_do_not_exist(criterion):
    x, y = regression(20, 5)
    c = np.ones(20)
    c[14:] = 0
    with_them = problem(x, y, "feature", k=0, sample_weight=c)
    without = problem(x[:14], y[:14], "feature", k=0)
    z = np.linspace(-1, 1, 5)
    values = [
        float(evaluate(Analytic(CRITERIA[criterion], ClosedForm()).bind(p), 0.3, z).fold_losses)
        for p in (with_them, without)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-12)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_unit_of_weights_is_that_of_alpha(criterion):
    x, y = regression(20, 5)
    c = np.random.default_rng(0).exponential(size=20)
    values = [
        evaluate(Analytic(CRITERIA[criterion], ClosedForm()).bind(problem(x, y, k=0, sample_weight=f * c)), np.log(f))
        for f in (1.0, 3.0)
    ]
    assert float(values[0].fold_losses) == pytest.approx(float(values[1].fold_losses), rel=1e-10)


def test_more_columns_than_rows_and_next_to_no_decay_leave_the_leverages_accurate():
    """1 - h is of the order of alpha there; the left-out error of the interpolating fit is what it converges to."""
    r = response("loo", "dual", "global")
    errors = [r.problem.y - r.left_out(hyper(np.log(alpha))) for alpha in (1e-9, 1e-12)]
    torch.testing.assert_close(errors[0], errors[1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_exponents_other_than_two_are_refused(criterion):
    with pytest.raises(ValueError, match="decays that do not depend on w"):
        response(criterion).evaluate(hyper(0.0, 1.5), ONE)


def test_problems_that_have_no_leverages_are_refused():
    x, y = regression(20, 3)
    with pytest.raises(ValueError, match="one fold with a dense X"):
        Analytic(LeaveOneOut(), ClosedForm()).bind(problem(x, y, k=5))
    with pytest.raises(ValueError, match="need a squared loss"):
        Analytic(LeaveOneOut(), ClosedForm()).bind(replace(problem(x, y, k=0), loss=Huber()))


def test_the_final_fit_uses_the_normal_equations_that_are_there():
    r = response("loo")
    assert r.all_rows(r.problem) is r.inner
    other = replace(r.problem, y=r.problem.y + 1)
    assert r.all_rows(other) is None


def test_one_output_of_a_response_is_the_response_of_that_output():
    r = response("evidence", granularity="output")
    both = evaluate(r, 0.0, np.array([0.4, -0.7]))
    alone = [evaluate(r.take_output(t), z) for t, z in enumerate((0.4, -0.7))]
    assert float(both.fold_losses) == pytest.approx(sum(float(e.fold_losses) for e in alone), rel=1e-12)
    np.testing.assert_allclose(both.gradient.offsets, [float(e.gradient.log_alpha) for e in alone], rtol=1e-9)
    coefficients = r.problem.network.split(both.w).coefficients[0]
    for t, e in enumerate(alone):
        one = r.take_output(t).problem.network.split(e.w).coefficients[0, :, 0]
        torch.testing.assert_close(coefficients[:, t], one)


def test_a_frozen_hat_matrix_flatters_the_family():
    """Why q < 2 is refused: leave-one-out with the decays of the whole fit held fixed, beside real leave-one-out."""
    x, y = regression(40, 30, noise=3.0, sparse=3)
    fitted = {}
    for k, rows in enumerate([np.arange(40)] + [np.arange(40) != i for i in range(40)]):
        r = ClosedForm().bind(problem(x[rows], y[rows], "feature", k=0))
        s2 = r.problem.decays.scale(r.solve(hyper(2.0), ONE))
        w = r.solve(hyper(2.0, 0.7), s2, tol=1e-8)
        fitted[k] = r.problem.decays.log_decays(w, hyper(2.0, 0.7), s2)[0], r.problem.network.split(w)
    frozen = Analytic(LeaveOneOut(), ClosedForm()).bind(problem(x, y, "feature", k=0))
    frozen = float(frozen.evaluate(hyper(0.0, 2.0, fitted[0][0]), ONE).fold_losses)
    left_out = [
        y[i] - float(tensor(x[i]) @ fitted[i + 1][1].coefficients[0, :, 0] + fitted[i + 1][1].intercepts[0, 0])
        for i in range(40)
    ]
    assert frozen < 0.75 * np.mean(np.square(left_out)) / 2
