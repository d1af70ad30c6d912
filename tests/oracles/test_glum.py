"""Decays of features as glum's `P2`: its own solver must find the coefficients that the searches return.

With sample weights s and half-deviances d_i, glum minimises sum_i s_i d_i / sum s + 1/2 sum_j P2_j w_j^2.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import GammaRegressor, LogisticRegression, PoissonRegressor, Ridge, TweedieRegressor
from sklearn.metrics import d2_tweedie_score, log_loss, mean_squared_error
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhyper import HyperTrainedLogisticRegression, HyperTrainedRidge, HyperTrainingSearchCV

glum = pytest.importorskip("glum")

# Some tests hold alpha at its bounds on purpose. Where glum itself did not converge, its coefficients show it.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Case(NamedTuple):
    """An estimator, and what it is called in glum."""

    estimator: object
    family: object
    sums: bool  # whether its loss is a sum over rows, and no weighted mean


CASES = {
    "ridge": Case(Ridge(), "normal", True),
    "logistic": Case(LogisticRegression(), "binomial", True),
    "normal": Case(TweedieRegressor(power=0), "normal", False),
    "poisson": Case(PoissonRegressor(), "poisson", False),
    "tweedie": Case(TweedieRegressor(power=1.5, link="log"), "tweedie", False),
    "gamma": Case(GammaRegressor(), "gamma", False),
}
EVERY = pytest.mark.parametrize("name", CASES)
WEIGHTED = pytest.mark.parametrize("weighted", [False, True])


def data(name, seed=0):
    """Rows, targets of the family, and sample weights; four of ten columns matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((150, 10))
    x[:, 1] += 0.5 * x[:, 0]
    f = x[:, :4] @ [0.8, -0.5, 0.3, -0.2] + 0.5
    targets = {
        "ridge": lambda: f + rng.standard_normal(150),
        "normal": lambda: f + rng.standard_normal(150),
        "logistic": lambda: (f > rng.logistic(size=150)).astype(float),
        "poisson": lambda: rng.poisson(np.exp(f)).astype(float),
        "tweedie": lambda: rng.poisson(np.exp(f)) * rng.uniform(0.5, 1.5, 150),
        "gamma": lambda: rng.gamma(2.0, np.exp(f) / 2),
    }
    y = targets[name]()
    return x, y, rng.exponential(size=150)


def of_glum(case, x, y, decays, s=None, fit_intercept=True):
    """Intercept and coefficients; columns of infinite decay are left out, and have coefficients of zero."""
    family = glum.TweedieDistribution(1.5) if case.family == "tweedie" else case.family
    unit = (len(y) if s is None else s.sum()) if case.sums else 1.0
    kept = np.isfinite(decays)
    model = glum.GeneralizedLinearRegressor(
        alpha=1,
        l1_ratio=0,
        P2=decays[kept] / unit,
        family=family,
        link="auto" if case.family in ("normal", "binomial") else "log",
        fit_intercept=fit_intercept,
        solver="irls-ls",
        gradient_tol=1e-13,
        max_iter=1000,
    )
    model.fit(x[:, kept], y, sample_weight=s)
    coefficients = np.zeros(x.shape[1])
    coefficients[kept] = model.coef_
    return np.append(coefficients, model.intercept_)


def take_the_last_row(cv_results):
    """The finest decays, whatever their score."""
    return len(cv_results["snapshot"]) - 1


def assert_same(model, expected):
    """Coefficients and intercept, to 1e-9 of the largest."""
    found = np.append(np.ravel(model.coef_), model.intercept_)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def decays_of(search):
    """The decay of each feature."""
    return np.array(list(search.alphas_.values()))


def searched(case, x, y, s=None, estimator=None, **settings):
    """A search whose alphas keep to where decays matter."""
    unit = (len(y) if s is None else s.sum()) if case.sums else 1.0
    settings = {"alpha_bounds": (0.02 * unit, 2.0 * unit), "guard_cv": None} | settings
    search = HyperTrainingSearchCV(case.estimator if estimator is None else estimator, **settings)
    return search.fit(x, y, **({} if s is None else {"sample_weight": s}))


@EVERY
@WEIGHTED
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_free_decays_of_features_are_penalties_of_glum(name, weighted, fit_intercept):
    x, y, s = data(name)
    case, s = CASES[name], s if weighted else None
    estimator = clone(case.estimator).set_params(fit_intercept=fit_intercept)
    search = searched(case, x, y, s, estimator, exponent=2, shrinkage=1.0)
    assert np.ptp(np.log(decays_of(search))) > 0.1
    assert_same(search.best_estimator_, of_glum(case, x, y, decays_of(search), s, fit_intercept))


@EVERY
@WEIGHTED
@pytest.mark.parametrize("exponent", [1.5, 1.0, 0.5])
def test_decays_of_the_family_are_penalties_of_glum_and_infinite_ones_drop_columns(name, weighted, exponent):
    x, y, s = data(name)
    case, s = CASES[name], s if weighted else None
    unit = (len(y) if s is None else s.sum()) if case.sums else 1.0
    alphas = (0.27 * unit, 0.3 * unit)
    search = searched(case, x, y, s, exponent=exponent, refit=take_the_last_row, alpha_bounds=alphas)
    decays = decays_of(search)
    assert search.exponent_ == exponent
    np.testing.assert_array_equal(np.isinf(decays), np.ravel(search.best_estimator_.coef_) == 0)
    assert np.isinf(decays).any() == (exponent <= 1)
    assert_same(search.best_estimator_, of_glum(case, x, y, decays, s))


@EVERY
def test_a_sparse_x_and_a_pipeline_are_fitted_alike(name):
    x, y, _ = data(name)
    case = CASES[name]
    x = x * 3.0 ** np.arange(-5, 5) * (np.abs(x) > 0.5)
    scaler = StandardScaler(with_mean=False)
    pipeline = make_pipeline(scaler, case.estimator)
    search = searched(case, sparse.csr_array(x), y, None, pipeline, exponent=2, shrinkage=1.0)
    scaled = scaler.fit_transform(x)
    assert_same(search.best_estimator_[-1], of_glum(case, scaled, y, decays_of(search)))


def score(name, estimator, y, f):
    """The score of linear predictions f, by its metric."""
    if name == "ridge":
        return -mean_squared_error(y, f)
    if name == "logistic":
        return -log_loss(y, 1 / (1 + np.exp(-f)))
    power = getattr(estimator, "power", {"poisson": 1, "gamma": 2}.get(name))
    return d2_tweedie_score(y, np.exp(f) if power else f, power=power)


@EVERY
def test_the_score_of_each_fold_is_that_of_glum_with_the_same_decays(name):
    x, y, _ = data(name)
    case, cv = CASES[name], KFold(3)
    scoring = {"ridge": "neg_mean_squared_error", "logistic": "neg_log_loss"}.get(name)
    search = searched(case, x, y, exponent=2, shrinkage=1.0, cv=cv, scoring=scoring, refit=take_the_last_row)
    for k, (train, held_out) in enumerate(cv.split(x)):
        *w, b = of_glum(case, x[train], y[train], decays_of(search))
        expected = score(name, case.estimator, y[held_out], x[held_out] @ w + b)
        assert search.cv_results_[f"split{k}_test_score"][search.best_index_] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("granularity", ["feature", "weight", "output"])
@WEIGHTED
def test_every_target_has_its_penalties(granularity, weighted):
    x, y, s = data("ridge")
    y = np.stack([y, y @ y / 150 - 2 * y + np.random.default_rng(1).standard_normal(150)], axis=1)
    case, s = CASES["ridge"], s if weighted else None
    exponent = 2 if granularity == "output" else 1.0
    shrinkage = np.inf if granularity == "output" else None
    search = searched(
        case, x, y, s, granularity=granularity, exponent=exponent, shrinkage=shrinkage, refit=take_the_last_row
    )
    a = decays_of(search)
    of_each = {
        "feature": lambda: np.stack([a, a]),
        "weight": lambda: a.reshape(10, 2).T,
        "output": lambda: np.repeat(a[:, None], 10, axis=1),
    }
    for t, own in enumerate(of_each[granularity]()):
        found = np.append(search.best_estimator_.coef_[t], search.best_estimator_.intercept_[t])
        expected = of_glum(case, x, y[:, t], own, s)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("exponent", [2, 1.0])
@WEIGHTED
def test_decays_of_hyper_trained_ridge_are_penalties_of_glum(exponent, weighted):
    x, y, s = data("ridge")
    s = s if weighted else None
    model = HyperTrainedRidge(exponent=exponent, shrinkage=1.0).fit(x, y, s)
    assert model.shrinkage_ == 1.0
    assert_same(model, of_glum(CASES["ridge"], x, y, model.alpha_, s))


@pytest.mark.parametrize("class_weight", [None, {0.0: 1.0, 1.0: 3.0}])
@pytest.mark.parametrize("exponent", [2, 1.0])
def test_decays_of_hyper_trained_logistic_regression_are_penalties_of_glum(exponent, class_weight):
    x, y, s = data("logistic")
    model = HyperTrainedLogisticRegression(exponent=exponent, shrinkage=1.0, class_weight=class_weight).fit(x, y, s)
    assert model.shrinkage_ == 1.0
    weights = s if class_weight is None else s * np.where(y == 1, 3.0, 1.0)
    assert_same(model, of_glum(CASES["logistic"], x, y, model.alpha_, weights))
