"""Independent routes to the same numbers: the algorithms among each other, and the estimators against scikit-learn.

The core's own oracles, data set by data set, are in core/; what is left here needs several parts at once.
"""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.linear_model import Lasso, LogisticRegression, MultiTaskLasso, Ridge
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score
from squared import GRANULARITIES, hyper, problem, regression, tensor

from skhyper import HyperTrainedLogisticRegression, HyperTrainedRidge, HyperTrainingSearchCV
from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.iterative import IterativeResponse
from skhyper.core.moments import fold_moments

# Routes to the best response of a squared loss and to its hypergradient.
ROUTES = {
    "Cholesky": lambda p: ClosedForm().bind(p),
    "one factor for all": lambda p: IterativeResponse(p, *fold_moments(p)),
    "Newton": lambda p: Implicit().bind(p),
    "Newton by conjugate gradients": lambda p: Implicit(dense_limit=0).bind(p),
}


@pytest.mark.parametrize("route", list(ROUTES)[1:])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("q", [0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_all_routes_give_the_same_weights_losses_and_hypergradients(granularity, q, weighted, route):
    x, y = regression(80, 12, 2, correlation=0.3, sparse=4)
    c = np.random.default_rng(0).exponential(size=80) if weighted else None
    prob = problem(x, y, granularity, k=4, sample_weight=c)
    one, other = (ROUTES[name](prob) for name in ("Cholesky", route))
    s2 = prob.decays.scale(one.solve(hyper(1.0), torch.ones(4, dtype=torch.float64)))
    h = hyper(2.0, q, 0.3 * np.random.default_rng(1).standard_normal(prob.decays.n_groups))
    start = one.solve(hyper(2.0, max(q, 1.0), h.offsets), s2, tol=1e-10)
    start = one.solve(h, s2, start, tol=1e-5)  # for q < 1 there are many minima
    a, b = (route.evaluate(h, s2, start, tol=1e-10) for route in (one, other))
    size = float(a.w.abs().max())
    torch.testing.assert_close(b.w, a.w, rtol=1e-6, atol=1e-8 * size)
    torch.testing.assert_close(b.fold_losses, a.fold_losses, rtol=1e-8, atol=0)
    largest = max(float(part.abs().max()) for part in a.gradient)
    for mine, theirs in zip(a.gradient, b.gradient, strict=True):
        torch.testing.assert_close(theirs, mine, rtol=1e-5, atol=1e-6 * largest)


# HyperTrainedRidge and HyperTrainedLogisticRegression against scikit-learn.


def cross_validated(model, x, y, cv, scoring):
    """Minimum over log alpha of a scikit-learn model's cross-validated score."""

    def loss(t):
        return -cross_val_score(model(math.exp(t)), x, y, cv=cv, scoring=scoring).mean()

    near = min(np.linspace(-4, 8, 25), key=loss)
    return math.exp(minimize_scalar(loss, bounds=(near - 0.5, near + 0.5), method="bounded").x)


def test_one_alpha_is_that_of_a_grid_search_without_a_grid():
    x, y = regression(60, 10, noise=4.0)
    ours = HyperTrainedRidge("global", tol=1e-9).fit(x, y)
    alpha = cross_validated(Ridge, x, y, KFold(5), "neg_mean_squared_error")
    assert ours.alpha_ == pytest.approx(alpha, rel=1e-4)
    theirs = Ridge(ours.alpha_).fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-9)
    assert ours.intercept_ == pytest.approx(theirs.intercept_, rel=1e-9)


def test_one_alpha_a_target_is_what_each_target_gets_alone():
    x, y = regression(60, 10, 3, noise=4.0)
    y = y * [1.0, 5.0, 0.2]
    together = HyperTrainedRidge("output", tol=1e-8).fit(x, y)
    for t in range(3):
        alone = HyperTrainedRidge("global", tol=1e-8).fit(x, y[:, t])
        assert together.alpha_[t] == pytest.approx(alone.alpha_, rel=1e-3)
        np.testing.assert_allclose(together.coef_[t], alone.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("n_targets", [1, 2])
@pytest.mark.parametrize("shape", [(80, 20), (40, 60)])
def test_an_exponent_of_one_is_the_lasso(shape, n_targets):
    x, y = regression(*shape, n_targets, correlation=0.4, sparse=5, noise=2.0)
    ours = HyperTrainedRidge(exponent=1.0).fit(x, y)
    assert ours.exponent_ == 1.0
    start = Ridge(ours.baseline_alpha_, tol=1e-12).fit(x, y)
    s = np.sqrt((start.coef_**2).mean())
    level = ours.family_alpha_ * s * n_targets**0.5 / len(x)
    theirs = (Lasso if n_targets == 1 else MultiTaskLasso)(level, tol=1e-13, max_iter=10**6).fit(x, y)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-8)
    assert (ours.coef_ == 0).any()


def test_groups_of_features_vanish_together():
    x, y = regression(80, 20, sparse=5, noise=2.0)
    groups = np.arange(20) // 5
    ours = HyperTrainedRidge(decay_groups=groups, exponent=1.0).fit(x, y)
    gone = ours.coef_.reshape(4, 5) == 0
    assert (gone.all(1) | ~gone.any(1)).all()
    assert gone.all(1).any()
    assert (ours.coef_[:5] != 0).all()


def test_an_exponent_of_one_is_the_l1_penalty_of_logistic_regression():
    x, f = regression(150, 12, correlation=0.3, sparse=4, noise=3.0)
    y = f > np.median(f)
    ours = HyperTrainedLogisticRegression(exponent=1.0, scoring="neg_log_loss").fit(x, y)
    assert ours.exponent_ == 1.0
    start = LogisticRegression(C=1 / ours.baseline_alpha_, tol=1e-12, max_iter=10**4).fit(x, y)
    level = ours.family_alpha_ * np.sqrt((start.coef_**2).mean())
    theirs = LogisticRegression(C=1 / level, l1_ratio=1.0, solver="saga", tol=1e-12, max_iter=10**6)
    if "penalty" in theirs.get_params() and theirs.penalty != "deprecated":
        theirs.set_params(penalty="l1", l1_ratio=None)
    theirs.fit(x, y)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(ours.coef_ == 0, theirs.coef_ == 0)
    assert (ours.coef_ == 0).any()


def test_one_c_is_the_minimiser_of_the_cross_validated_log_loss():
    x, f = regression(120, 6, noise=4.0)
    y = f > np.median(f)
    ours = HyperTrainedLogisticRegression("global", tol=1e-8).fit(x, y)

    def model(alpha):
        return LogisticRegression(C=1 / alpha, tol=1e-10, max_iter=10**4)

    assert ours.alpha_ == pytest.approx(cross_validated(model, x, y, StratifiedKFold(5), "neg_log_loss"), rel=1e-3)


# Invariances of the whole estimator, with its defaults: exponents, averaging, the paired rule.


@pytest.mark.parametrize(("x_unit", "y_unit"), [(1.0, 1e4), (1.0, 1e-5), (100.0, 1.0), (0.01, 1.0)])
@pytest.mark.parametrize("granularity", ["global", "feature"])
def test_units_change_predictions_by_themselves(granularity, x_unit, y_unit):
    x, y = regression(80, 15, correlation=0.3, sparse=4, noise=2.0)
    settings = {"granularity": granularity, "alpha_bounds": (1e-12, 1e12)}
    one = HyperTrainedRidge(**settings).fit(x, y)
    other = HyperTrainedRidge(**settings).fit(x_unit * x, y_unit * y)
    assert other.baseline_alpha_ == pytest.approx(x_unit**2 * one.baseline_alpha_, rel=1e-4)
    assert other.best_index_ == one.best_index_
    np.testing.assert_allclose(other.predict(x_unit * x), y_unit * one.predict(x), rtol=1e-4, atol=1e-4 * y_unit)


@pytest.mark.parametrize("granularity", ["global", "feature"])
def test_weights_of_two_are_two_rows(granularity):
    x, y = regression(60, 10, sparse=3, noise=2.0)
    counts = np.random.default_rng(0).integers(0, 4, 60)
    copies, fold = np.repeat(np.arange(60), counts), np.arange(60) % 4

    def fit(x, y, fold, weights=None):
        cv = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)]
        return HyperTrainedRidge(granularity, cv=cv).fit(x, y, sample_weight=weights)

    weighted, repeated = fit(x, y, fold, counts), fit(x[copies], y[copies], fold[copies])
    assert weighted.best_index_ == repeated.best_index_
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(weighted.baseline_alpha_, repeated.baseline_alpha_, rtol=1e-5)


def test_free_decays_count_a_weight_of_two_as_two_rows_of_evidence():
    """The prior of free decays weighs against the number of held-out rows, whichever way they are repeated."""
    x, y = regression(60, 10, sparse=3, noise=2.0)
    copies, fold = np.repeat(np.arange(60), 2), np.arange(60) % 4

    def fit(x, y, fold, weights=None):
        cv = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(4)]
        search = HyperTrainingSearchCV(Ridge(), exponent=2, shrinkage=1.0, cv=cv, guard_cv=None)
        return np.array(list(search.fit(x, y, sample_weight=weights).alphas_.values()))

    weighted, repeated = fit(x, y, fold, np.full(60, 2.0)), fit(x[copies], y[copies], fold[copies])
    assert np.ptp(np.log(weighted)) > 0.1
    np.testing.assert_allclose(weighted, repeated, rtol=1e-3)


def test_a_row_of_weight_zero_does_not_exist():
    x, y = regression(60, 10, noise=2.0)
    fold = np.arange(60) % 4
    kept = fold != 3
    y[~kept] = 1e6
    cv = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    own = [(np.flatnonzero(fold[kept] != k), np.flatnonzero(fold[kept] == k)) for k in range(3)]
    one = HyperTrainedRidge(cv=cv).fit(x, y, sample_weight=kept.astype(float))
    other = HyperTrainedRidge(cv=own).fit(x[kept], y[kept])
    np.testing.assert_allclose(one.coef_, other.coef_, rtol=1e-6)


def test_the_best_score_is_that_of_the_chosen_row():
    """Recomputed from the core's weights: minus twice the outer loss, the mean over folds."""
    x, y = regression(80, 15, sparse=4, noise=2.0)
    ours = HyperTrainedRidge("global").fit(x, y)
    losses = problem(x, y, "global", splits=contiguous(80, 5)).fold_losses(
        ClosedForm().bind(problem(x, y, "global", splits=contiguous(80, 5))).solve(
            hyper(math.log(ours.alpha_)), torch.ones(5, dtype=torch.float64)
        )
    )
    assert ours.best_score_ == pytest.approx(-2 * float(losses.mean()), rel=1e-10)


def contiguous(n, k):
    """KFold's splits as row weights."""
    train, held = (np.zeros((k, n)) for _ in range(2))
    for i, (a, b) in enumerate(KFold(k).split(np.zeros((n, 1)))):
        train[i, a], held[i, b] = 1, 1
    return tensor(train), tensor(held)
