"""At fixed decays the best response is scikit-learn's estimator.

Decays that differ by feature are given to scikit-learn by rescaled columns: alpha_j w_j^2 is alpha v_j^2 for
v_j = w_j sqrt(alpha_j / alpha), the weight of x_j sqrt(alpha / alpha_j).
"""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    TweedieRegressor,
)
from sklearn.svm import LinearSVC, LinearSVR

from skhyper.core import losses
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.networks import LinearNetwork
from skhyper.core.problem import Problem

N_ROWS, N_FEATURES = 80, 5


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    mixing = np.eye(N_FEATURES) + 0.3 * rng.standard_normal((N_FEATURES, N_FEATURES))
    return rng.standard_normal((N_ROWS, N_FEATURES)) @ mixing


@pytest.fixture
def sample_weight():
    return np.random.default_rng(1).uniform(0.2, 2.0, N_ROWS)


# Decays relative to alpha, one a feature.
RELATIVE = np.array([0.1, 1.0, 3.0, 0.5, 10.0])


def targets(x, kind):
    rng = np.random.default_rng(2)
    f = x @ np.array([1.0, -0.5, 0.3, 0.0, 0.2]) + 0.3
    return {
        "real": f + rng.standard_normal(len(f)),
        "outliers": f + rng.standard_t(1.5, len(f)),
        "counts": rng.poisson(np.exp(0.5 * f)).astype(float),
        "positive": np.exp(0.5 * f) * rng.gamma(2.0, 0.5, len(f)),
        "two": (f + rng.logistic(size=len(f)) > 0).astype(float),
        "three": np.digitize(f + rng.logistic(size=len(f)), [-1.0, 1.5]),
    }[kind]


def best_response(x, y, loss, alpha, row_weights, relative=RELATIVE, intercept=True, intercept_decay=None):
    """Coefficients (p, T), intercepts (T,) and constants of one fold that holds all rows."""
    x, y, c = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y, row_weights))
    y = y.reshape(len(y), -1)
    network = LinearNetwork(x.shape[1], y.shape[1], intercept, loss.n_constants)
    index = torch.arange(network.n_coefficients) // network.n_outputs
    index = torch.cat([index, torch.full((network.n_weights - len(index),), -1)])
    offsets, plain = torch.as_tensor(relative).log(), None
    if intercept_decay is not None:
        index[network.n_coefficients] = x.shape[1]
        offsets = torch.cat([offsets, torch.tensor([np.log(intercept_decay / alpha)])])
        plain = torch.arange(len(offsets)) == x.shape[1]
    problem = Problem(DenseDesign(x), y, c[None], c[None] / c.sum(), network, loss, loss, Decays(index, plain))
    numbers = torch.tensor([np.log(alpha), 2.0], dtype=torch.float64)
    s2 = torch.ones(1, dtype=torch.float64)
    w = Implicit().bind(problem).solve(Hyper(numbers[0], numbers[1], offsets), s2, tol=1e-10)
    return [part[0].numpy() for part in network.split(w)]


def compare(estimator, x, y, loss, alpha, row_weights, target=None, sample_weight=None, **options):
    """Fit scikit-learn's estimator to rescaled columns and compare."""
    scale = 1 / np.sqrt(options.get("relative", RELATIVE))
    estimator.fit(x * scale, y, **({} if sample_weight is None else {"sample_weight": sample_weight}))
    coefficients, intercepts, _ = best_response(x, y if target is None else target, loss, alpha, row_weights, **options)
    expected = (np.atleast_2d(estimator.coef_) * scale).T
    np.testing.assert_allclose(coefficients, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(intercepts, np.atleast_1d(estimator.intercept_), rtol=1e-6, atol=1e-6)


def test_ridge(x, sample_weight):
    y = targets(x, "real")
    compare(Ridge(alpha=2.0), x, y, losses.SquaredError(), 2.0, sample_weight, sample_weight=sample_weight)


def test_logistic_regression_of_two_classes(x, sample_weight):
    y = targets(x, "two")
    estimator = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12)
    compare(estimator, x, y, losses.LogLoss(), 2.0, sample_weight, sample_weight=sample_weight)


@pytest.mark.parametrize("solver", ["newton-cholesky", "lbfgs"])
def test_logistic_regression_of_three_classes(x, sample_weight, solver):
    y = targets(x, "three")
    settings = {"tol": 1e-12} if solver == "newton-cholesky" else {"tol": 1e-9, "max_iter": 10_000}
    estimator = LogisticRegression(C=0.5, solver=solver, **settings)
    loss, one_hot = losses.MultinomialLogLoss(), np.eye(3)[y]
    compare(estimator, x, y, loss, 2.0, sample_weight, one_hot, sample_weight=sample_weight)


def test_logistic_regression_without_intercept(x):
    y = targets(x, "two")
    estimator = LogisticRegression(C=0.5, solver="newton-cholesky", tol=1e-12, fit_intercept=False)
    compare(estimator, x, y, losses.LogLoss(), 2.0, np.ones(N_ROWS), intercept=False)


@pytest.mark.parametrize(
    ("estimator", "power", "kind"),
    [
        (PoissonRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-12), 1.0, "counts"),
        (GammaRegressor(alpha=0.1, solver="newton-cholesky", tol=1e-12), 2.0, "positive"),
        (TweedieRegressor(power=1.5, alpha=0.1, link="log", solver="newton-cholesky", tol=1e-12), 1.5, "counts"),
        (TweedieRegressor(power=0.0, alpha=0.1, link="log", solver="newton-cholesky", tol=1e-12), 0.0, "positive"),
        (
            TweedieRegressor(power=3.0, alpha=0.1, link="log", solver="lbfgs", tol=1e-10, max_iter=10_000),
            3.0,
            "positive",
        ),
    ],
    ids=["Poisson", "gamma", "Tweedie 1.5", "Tweedie 0", "Tweedie 3"],
)
def test_generalised_linear_models(x, sample_weight, estimator, power, kind):
    row_weights = sample_weight / sample_weight.sum()
    y = targets(x, kind)
    compare(estimator, x, y, losses.TweedieLog(power), 0.1, row_weights, sample_weight=sample_weight)


@pytest.mark.parametrize("alpha", [1e-4, 1.0])
def test_huber_regressor_with_its_scale(x, sample_weight, alpha):
    """HuberRegressor stops early whatever its tol, so that its objective is minimised once more from where it stops."""
    y = targets(x, "outliers")
    estimator = HuberRegressor(alpha=alpha, epsilon=1.35, max_iter=10_000).fit(x, y, sample_weight)

    def objective(parameters):
        p = torch.tensor(parameters, requires_grad=True)
        r = ((torch.tensor(x) @ p[:-2] + p[-2] - torch.tensor(y)) / p[-1]).abs()
        h = torch.where(r <= 1.35, r**2, 2 * 1.35 * r - 1.35**2)
        value = (torch.tensor(sample_weight) * p[-1] * (1 + h)).sum() + alpha * (p[:-2] ** 2).sum()
        value.backward()
        return float(value.detach()), p.grad.numpy()

    start = np.concatenate([estimator.coef_, [estimator.intercept_, estimator.scale_]])
    exact = minimize(objective, start, jac=True, method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(start, exact, rtol=1e-2)
    found = best_response(x, y, losses.ConcomitantHuber(1.35), alpha, sample_weight, np.ones(N_FEATURES))
    np.testing.assert_allclose(np.concatenate([part.ravel() for part in found]), exact, rtol=1e-6)


def test_linear_svc_without_intercept(x, sample_weight):
    y = targets(x, "two")
    estimator = LinearSVC(C=0.7, fit_intercept=False, tol=1e-12, max_iter=1_000_000, dual=False)
    signs, weights = 2 * y - 1, 0.7 * sample_weight
    compare(estimator, x, y, losses.SquaredHinge(), 1.0, weights, signs, sample_weight=sample_weight, intercept=False)


@pytest.mark.parametrize("intercept_scaling", [1.0, 5.0])
def test_linear_svc_penalises_its_intercept(x, intercept_scaling):
    y = targets(x, "two")
    estimator = LinearSVC(C=0.7, intercept_scaling=intercept_scaling, tol=1e-12, max_iter=1_000_000)
    weights = np.full(N_ROWS, 0.7)
    decay = 1 / intercept_scaling**2
    compare(estimator, x, y, losses.SquaredHinge(), 1.0, weights, 2 * y - 1, intercept_decay=decay)


def test_linear_svr_with_squared_loss(x, sample_weight):
    y = targets(x, "real")
    estimator = LinearSVR(
        C=0.7, epsilon=0.2, loss="squared_epsilon_insensitive", tol=1e-12, max_iter=1_000_000, dual=False
    )
    loss = losses.SquaredEpsilonInsensitive(0.2)
    weights = 0.7 * sample_weight
    compare(estimator, x, y, loss, 1.0, weights, sample_weight=sample_weight, intercept_decay=1.0)
