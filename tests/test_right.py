"""The tuned global alpha is that of a thorough grid whatever the units of the columns; where it is not, users hear."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from sklearn.datasets import make_classification
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeCV,
    SGDClassifier,
)
from sklearn.metrics import log_loss
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_score

from skhyper import HyperTrainedLogisticRegression, HyperTrainedRidge, HyperTrainingSearchCV
from skhyper.algorithms import ImplicitDifferentiation
from skhyper.core.result import StopReason


def classes_of_three_columns(seed, factor, n=400):
    """Labels that three of six columns explain; the last column is noise in another unit."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 6))
    y = (X[:, :3].sum(1) + rng.standard_normal(n) > 0).astype(int)
    X[:, 5] *= factor
    return X, y


def grid_loss(make, X, y, folds, alphas, scoring):
    """The lowest mean held-out loss of scikit-learn's own estimator along a grid."""
    return min(-cross_val_score(make(alpha), X, y, cv=folds, scoring=scoring).mean() for alpha in alphas)


@pytest.mark.parametrize("factor", [10, 100, 1000])
def test_a_column_of_noise_in_another_unit_does_not_hide_the_others(factor):
    X, y = classes_of_three_columns(0, factor)
    X_new, y_new = classes_of_three_columns(1, factor)
    for granularity in ("global", "feature"):
        ours = HyperTrainedLogisticRegression(granularity).fit(X, y)
        assert ours.score(X_new, y_new) > 0.83


@pytest.mark.parametrize("seed", range(4))
def test_the_log_loss_is_that_of_a_grid_where_a_column_has_another_unit(seed):
    X, y = classes_of_three_columns(seed, 1000, 200)
    folds = list(StratifiedKFold(5).split(X, y))
    search = HyperTrainingSearchCV(LogisticRegression(), granularity="global", cv=folds, scoring="neg_log_loss")
    search.fit(X, y)
    grid = grid_loss(
        lambda a: LogisticRegression(C=1 / a, solver="newton-cholesky"),
        X,
        y,
        folds,
        np.logspace(-4, 8, 40),
        "neg_log_loss",
    )
    assert -search.best_score_ <= 1.001 * grid


def test_counts_and_outliers_and_stochastic_descent_find_the_columns_too():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((200, 5))
    line, rate = X @ [1, 2, 3, 0, 0] + 0.1 * rng.standard_normal(200), np.exp(X[:, :3] @ [0.5, 0.5, -0.5])
    counts = rng.poisson(rate)
    X[:, 4] *= 1000
    assert HyperTrainingSearchCV(HuberRegressor(), granularity="global").fit(X, line).best_score_ > 0.99
    poisson = HyperTrainingSearchCV(PoissonRegressor(), granularity="global").fit(X, counts)
    alphas = np.logspace(-6, 6, 30)
    grid = max(cross_val_score(PoissonRegressor(alpha=a, solver="newton-cholesky"), X, counts).mean() for a in alphas)
    assert poisson.best_score_ > grid - 0.002
    X, y = classes_of_three_columns(0, 1000)
    assert HyperTrainingSearchCV(SGDClassifier(loss="log_loss"), granularity="global").fit(X, y).best_score_ > 0.8


def milliseconds():
    """A column of times beside three of deviation .1 that explain the target."""
    rng = np.random.default_rng(0)
    Z = 0.1 * rng.standard_normal((200, 3))
    return np.column_stack([rng.uniform(1.70e12, 1.73e12, 200), Z]), 10 * Z @ [2, -1, 1] + 0.5 * rng.standard_normal(
        200
    )


def test_a_column_of_milliseconds_does_not_hide_the_others():
    X, y = milliseconds()
    folds = KFold(5, shuffle=True, random_state=0)
    search = HyperTrainingSearchCV(Ridge(), granularity="global", cv=folds).fit(X, y)
    grid = max(cross_val_score(Ridge(a, solver="svd"), X, y, cv=folds).mean() for a in np.logspace(-8, 24, 100))
    assert search.best_score_ > grid - 1e-4 > 0.9


@pytest.mark.parametrize("criterion", ["loo", "gcv", "evidence"])
def test_criteria_without_folds_see_past_a_column_of_milliseconds(criterion):
    X, y = milliseconds()
    assert HyperTrainedRidge("global", criterion=criterion).fit(X, y).score(X, y) > 0.95


@pytest.mark.parametrize("seed", [0, 1, 94, 112, 139])
def test_twenty_columns_of_six_decades_end_in_the_lowest_valley(seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((40, 20))
    y = X[:, :6].sum(1) + rng.standard_normal(40)
    X *= 10 ** rng.uniform(-3, 3, 20)
    folds = list(KFold(5).split(X))
    alphas = np.logspace(-9, 12, 211)
    losses = np.mean([_ridge_losses(X[a], y[a], X[b], y[b], alphas) for a, b in folds], axis=0)
    search = HyperTrainingSearchCV(Ridge(), granularity="global", cv=folds, scoring="neg_mean_squared_error").fit(X, y)
    assert -search.best_score_ <= 1.001 * losses.min()


@pytest.mark.parametrize("seed", [0, 22, 55, 63, 95, 112, 130, 142, 178, 189])
def test_columns_that_are_nearly_the_same_end_in_the_lowest_valley(seed):
    rng = np.random.default_rng(100 + seed)
    X = rng.standard_normal((40, 10))
    X = np.hstack([X, X + 10 ** rng.uniform(-6, -2) * rng.standard_normal((40, 10))])
    y = X[:, :5].sum(1) + 10 ** rng.uniform(0, 3) * (X[:, 10] - X[:, 0]) + rng.standard_normal(40)
    folds = list(KFold(5).split(X))
    alphas = np.logspace(-13, 6, 191)
    losses = np.mean([_ridge_losses(X[a], y[a], X[b], y[b], alphas) for a, b in folds], axis=0)
    search = HyperTrainingSearchCV(Ridge(), granularity="global", cv=folds, scoring="neg_mean_squared_error").fit(X, y)
    assert -search.best_score_ <= 1.001 * losses.min()


def _ridge_losses(X, y, X_held, y_held, alphas):
    """Held-out mean squared errors of ridge regression by a singular value decomposition."""
    centre = X.mean(0)
    u, s, vt = np.linalg.svd(X - centre, full_matrices=False)
    weights = vt.T @ (s / (s**2 + alphas[:, None]) * (u.T @ (y - y.mean()))).T
    return ((y.mean() + (X_held - centre) @ weights - y_held[:, None]) ** 2).mean(0)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_automatic_bounds_have_the_unit_of_the_data(unit):
    X, y = classes_of_three_columns(0, 1)
    ours = HyperTrainedLogisticRegression("global").fit(unit * X, y)
    plain = HyperTrainedLogisticRegression("global").fit(X, y)
    assert ours.alpha_ == pytest.approx(unit**2 * plain.alpha_, rel=1e-4)
    assert ours.score(unit * X, y) == plain.score(X, y) > 0.8
    target = X[:, :3].sum(1) + 0.3 * X[:, 3]
    ridge = HyperTrainedRidge().fit(unit * X, target + 0.5 * np.sin(37 * X[:, 4]))
    assert ridge.score(unit * X, target) > 0.9


def test_an_answer_on_a_bound_that_was_given_is_told():
    X, y = classes_of_three_columns(0, 1)
    search = HyperTrainingSearchCV(LogisticRegression(), granularity="global", alpha_bounds=(100.0, 1e4))
    with pytest.warns(ConvergenceWarning, match=r"alpha_bounds=\(100\.0, 10000\.0\)"):
        search.fit(X, y)
    assert search.stop_reason_ == StopReason.AT_BOUND.value
    assert search.best_params_ == {"C": pytest.approx(0.01)}


def test_an_inner_problem_that_was_not_solved_is_told():
    X, y = make_classification(200, 10, random_state=0)
    model = HyperTrainingSearchCV(
        LogisticRegression(), granularity="global", algorithm=ImplicitDifferentiation(max_iter=1)
    )
    with pytest.warns(ConvergenceWarning, match="max_iter of ImplicitDifferentiation"):
        model.fit(X, y)
    assert model.hypergradient_error_ > 0.01
    assert model.stop_reason_ == StopReason.UNSOLVED.value
    right = HyperTrainingSearchCV(LogisticRegression(), granularity="global").fit(X, y)
    assert right.best_params_["C"] == pytest.approx(0.785, abs=0.001)
    assert right.hypergradient_error_ < 1e-6


def test_too_few_steps_of_the_search_are_told():
    X, y = make_classification(200, 10, random_state=0)
    with pytest.warns(ConvergenceWarning, match="raise max_iter=1"):
        search = HyperTrainingSearchCV(LogisticRegression(), granularity="global", max_iter=1).fit(X, y)
    assert search.stop_reason_ == StopReason.MAX_ITER.value


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("n_classes", [3, 4])
def test_a_fold_that_lacks_a_class_is_fitted_as_the_estimator_would_be(n_classes, fit_intercept):
    X, y = make_classification(
        150,
        6,
        n_informative=4,
        n_redundant=0,
        n_classes=n_classes,
        n_clusters_per_class=1,
        class_sep=0.7,
        random_state=3,
    )
    parts = np.array_split(np.random.default_rng(0).permutation(150), 3)
    folds = [(np.setdiff1d(np.arange(150), held), held) for held in parts]
    folds[0] = (folds[0][0][y[folds[0][0]] != 0], folds[0][1])

    def loss(log_c):
        losses = []
        for train, held in folds:
            model = LogisticRegression(
                C=np.exp(log_c), tol=1e-10, max_iter=1000, solver="newton-cholesky", fit_intercept=fit_intercept
            ).fit(X[train], y[train])
            known = held[np.isin(y[held], model.classes_)]
            losses.append(log_loss(y[known], model.predict_proba(X[known]), labels=model.classes_))
        return np.mean(losses)

    search = HyperTrainingSearchCV(LogisticRegression(fit_intercept=fit_intercept), granularity="global", cv=folds)
    with pytest.warns(UserWarning, match="Classes without training rows"):
        search.fit(X, y)
    found = np.log(search.best_params_["C"])
    best = minimize_scalar(loss, bounds=(found - 1, found + 1), method="bounded", options={"xatol": 1e-6})
    assert found == pytest.approx(best.x, abs=1e-4)


def test_leave_one_out_agrees_with_RidgeCV_over_the_whole_range():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((30, 8)) * 10 ** rng.uniform(-3, 3, 8)
    y = X @ (1 / np.abs(X).mean(0)) + rng.standard_normal(30)
    ours = HyperTrainedRidge("global", criterion="loo").fit(X, y)
    theirs = RidgeCV(np.logspace(-10, 10, 400), scoring="neg_mean_squared_error").fit(X, y)
    assert ours.best_score_ >= theirs.best_score_ * (1 + 1e-3)


@pytest.mark.parametrize("exponent", [0.5, 0.75])
def test_the_final_fit_keeps_small_weights_beside_large_ones(exponent):
    """A difference of two columns that are nearly the same has weights ten thousand times those of the others."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 12))
    X[:, 1] = X[:, 0] + 1e-4 * rng.standard_normal(200)
    y = 1e4 * (X[:, 1] - X[:, 0]) + X[:, 2:7].sum(1) + 0.5 * rng.standard_normal(200)
    search = HyperTrainingSearchCV(Ridge(), exponent=exponent, scoring="neg_mean_squared_error").fit(X[:100], y[:100])
    error = np.mean((search.predict(X[100:]) - y[100:]) ** 2)
    assert error < 1.3 * -search.best_score_ < 0.6
