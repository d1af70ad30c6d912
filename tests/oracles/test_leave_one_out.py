"""Weighted leave-one-out against what it stands for: a refit of scikit-learn's Ridge for each row that is left out."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV
from squared import regression

from skhyper import HyperTrainedRidge

SHAPES = {"tall": (40, 6), "wide": (24, 30)}
# Whether this scikit-learn's GridSearchCV hands sample weights to scorers, and so a search here.
SCORERS_GET_WEIGHTS = hasattr(GridSearchCV, "_check_scorers_accept_sample_weight")
CASES = pytest.mark.parametrize(
    ("shape", "n_targets", "fit_intercept"),
    [("tall", 1, True), ("tall", 1, False), ("tall", 2, True), ("wide", 1, True), ("wide", 2, False)],
)


def data(shape, n_targets):
    """Rows, targets whose best alpha is neither zero nor infinite, and weights of which one is zero."""
    seed = 3 if (shape, n_targets) == ("wide", 1) else 0
    x, y = regression(*SHAPES[shape], n_targets, correlation=0.3, noise=10.0, seed=seed)
    c = np.random.default_rng(1).exponential(size=len(x))
    c[5] = 0.0
    return x, y, c


def left_out(x, y, c, decays, fit_intercept):
    """The prediction of each row by scikit-learn's Ridge that was fitted to the others; sum c r^2 + sum a w^2."""
    z, predictions = x / np.sqrt(decays), []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        model = Ridge(1.0, fit_intercept=fit_intercept, solver="svd").fit(z[others], y[others], c[others])
        predictions.append(model.predict(z[[i]])[0])
    return np.array(predictions)


def weighted_mean(x, y, c, decays, fit_intercept):
    """sum_i c_i e_i^2 / sum c, summed over targets."""
    squares = (y - left_out(x, y, c, decays, fit_intercept)) ** 2
    return c @ squares.reshape(len(y), -1).sum(1) / c.sum()


@CASES
def test_the_criterion_is_the_weighted_mean_of_the_squared_errors_of_refits(shape, n_targets, fit_intercept):
    x, y, c = data(shape, n_targets)
    model = HyperTrainedRidge("global", criterion="loo", fit_intercept=fit_intercept, tol=1e-9).fit(x, y, c)
    decays = np.full(x.shape[1], model.alpha_)
    expected = weighted_mean(x, y, c, decays, fit_intercept)
    assert 2 * model.cv_results_["mean_outer_loss"][0] == pytest.approx(expected, rel=1e-9)
    squares = (y - left_out(x, y, c, decays, fit_intercept)) ** 2
    weights = c if SCORERS_GET_WEIGHTS else None
    assert model.best_score_ == pytest.approx(-np.average(squares, axis=0, weights=weights).mean(), rel=1e-9)


@CASES
def test_the_global_alpha_minimises_the_refits_errors(shape, n_targets, fit_intercept):
    x, y, c = data(shape, n_targets)
    model = HyperTrainedRidge("global", criterion="loo", fit_intercept=fit_intercept, tol=1e-9).fit(x, y, c)

    def loss(log_alpha):
        return np.log(weighted_mean(x, y, c, np.full(x.shape[1], np.exp(log_alpha)), fit_intercept))

    grid = np.linspace(-8.0, 10.0, 37)
    lowest = grid[np.argmin([loss(point) for point in grid])]
    found = minimize_scalar(loss, bounds=(lowest - 0.5, lowest + 0.5), method="bounded", options={"xatol": 1e-9})
    assert np.log(model.alpha_) == pytest.approx(found.x, abs=1e-5)


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_free_decays_are_judged_by_refits_with_the_same_decays(shape, fit_intercept):
    x, y, c = data(shape, 1)
    model = HyperTrainedRidge(criterion="loo", shrinkage=0.5, fit_intercept=fit_intercept).fit(x, y, c)
    assert len(set(model.alpha_)) == x.shape[1]
    expected = weighted_mean(x, y, c, model.alpha_, fit_intercept)
    assert 2 * model.cv_results_["mean_outer_loss"][1] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_targets_own_alpha_minimises_the_errors_of_that_target(shape):
    x, y, c = data(shape, 2)
    model = HyperTrainedRidge("output", criterion="loo", tol=1e-9).fit(x, y, c)
    for target, alpha in zip(y.T, model.alpha_, strict=True):
        step = 1e-3
        low, at, high = (
            np.log(weighted_mean(x, target, c, np.full(x.shape[1], alpha * np.exp(t)), True)) for t in (-step, 0, step)
        )
        assert abs(high - low) / (2 * step) < 1e-6
        assert low + high > 2 * at


def test_ridge_cv_divides_by_the_number_of_rows_where_the_criterion_divides_by_the_weight():
    x, y, c = data("tall", 1)
    model = HyperTrainedRidge("global", criterion="loo").fit(x, y, c)
    theirs = RidgeCV([model.alpha_]).fit(x, y, c)
    assert 2 * model.cv_results_["mean_outer_loss"][0] * c.mean() == pytest.approx(-theirs.best_score_, rel=1e-9)
