"""HyperTrainedRidge under leave-one-out, GCV and evidence, and with an alpha a target: against scikit-learn and scipy.

The criteria themselves are in core/test_criteria.py.
"""

import numpy as np
import pytest
from scipy import sparse
from scipy.optimize import minimize_scalar
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.linear_model import BayesianRidge, Ridge, RidgeCV
from sklearn.model_selection import KFold, cross_val_score

from skhyper import HyperTrainedRidge

SHAPES = {"tall": (80, 12), "wide": (30, 45)}
CRITERIA = ("loo", "gcv", "evidence")


def data(shape="tall", n_targets=1, seed=0):
    n, p = SHAPES[shape]
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, p)) + 1.0
    Y = X @ rng.standard_normal((p, n_targets)) * 0.4 + 2 * rng.standard_normal((n, n_targets)) + 3.0
    return X, Y[:, 0] if n_targets == 1 else Y


def gcv(X, y, alpha):
    """n RSS / (n - tr H)^2 from the definition."""
    Xc = X - X.mean(axis=0)
    s = np.linalg.svd(Xc, compute_uv=False)
    residual = y - Ridge(alpha, solver="svd").fit(X, y).predict(X)
    return (residual**2).mean() / (1 - (1 + (s**2 / (s**2 + alpha)).sum()) / len(y)) ** 2


def optimum(value, near):
    """The logarithm of the alpha at which `value` is lowest, close to `near`."""
    bounds = np.log(near) - 2, np.log(near) + 2
    return minimize_scalar(
        lambda x: np.log(value(np.exp(x))), bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weighted", [False, True])
def test_leave_one_out_is_the_optimum_of_the_criterion_of_ridge_cv(shape, weighted):
    X, y = data(shape)
    c = np.random.default_rng(1).uniform(0.2, 2, len(y)) if weighted else None
    model = HyperTrainedRidge("global", criterion="loo", tol=1e-9).fit(X, y, sample_weight=c)
    found = optimum(lambda alpha: -RidgeCV([alpha]).fit(X, y, c).best_score_, model.alpha_)
    np.testing.assert_allclose(np.log(model.alpha_), found.x, atol=1e-5 if shape == "wide" else 1e-6)
    at_optimum = RidgeCV([model.alpha_]).fit(X, y, c)
    np.testing.assert_allclose(model.coef_, at_optimum.coef_, rtol=1e-6)
    np.testing.assert_allclose(model.intercept_, at_optimum.intercept_, rtol=1e-6)
    if not weighted:
        assert model.best_score_ == pytest.approx(at_optimum.best_score_, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_gcv_is_the_optimum_of_its_definition(shape):
    X, y = data(shape)
    model = HyperTrainedRidge("global", criterion="gcv", tol=1e-9).fit(X, y)
    found = optimum(lambda alpha: gcv(X, y, alpha), model.alpha_)
    np.testing.assert_allclose(np.log(model.alpha_), found.x, atol=1e-5)
    np.testing.assert_allclose(model.coef_, Ridge(model.alpha_).fit(X, y).coef_, rtol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_evidence_is_the_optimum_of_bayesian_ridge(shape):
    """alpha is the precision of the weights over that of the noise; without an intercept the models are the same."""
    X, y = data(shape)
    X, y = X - 1.0, y - 3.0
    model = HyperTrainedRidge("global", criterion="evidence", fit_intercept=False, tol=1e-9).fit(X, y)
    flat = dict.fromkeys(("alpha_1", "alpha_2", "lambda_1", "lambda_2"), 0.0)
    peer = BayesianRidge(**flat, tol=1e-13, max_iter=10000, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(model.alpha_, peer.lambda_ / peer.alpha_, rtol=1e-5)
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_score_is_that_of_left_out_rows_whatever_the_criterion(criterion):
    X, y = data()
    model = HyperTrainedRidge("global", criterion=criterion).fit(X, y)
    folds = cross_val_score(Ridge(model.alpha_), X, y, cv=len(y), scoring="neg_mean_squared_error")
    assert model.best_score_ == model.baseline_score_ == pytest.approx(folds.mean(), rel=1e-8)
    assert model.n_hyperparameters_ == 1
    other = HyperTrainedRidge("global", criterion=criterion, scoring="neg_mean_absolute_error").fit(X, y)
    assert other.alpha_ == model.alpha_
    assert other.best_score_ == pytest.approx(
        cross_val_score(Ridge(model.alpha_), X, y, cv=len(y), scoring="neg_mean_absolute_error").mean(), rel=1e-8
    )


@pytest.mark.parametrize("criterion", CRITERIA)
def test_auto_keeps_the_global_alpha_and_free_decays_are_fitted_when_asked_for(criterion):
    X, y = data()
    auto = HyperTrainedRidge(criterion=criterion).fit(X, y)
    assert auto.exponent_ == 2
    assert len(set(auto.alpha_)) == 1
    assert auto.n_hyperparameters_ == 1
    free = HyperTrainedRidge(criterion=criterion, shrinkage=0.5, guard_cv="auto").fit(X, y)
    assert len(set(free.alpha_)) == X.shape[1]
    assert free.n_hyperparameters_ == X.shape[1] + 1
    assert free.cv_results_["mean_outer_loss"][1] < free.cv_results_["mean_outer_loss"][0]
    assert len(free.guard_scores_) == 5


def test_the_guard_reruns_the_criterion_on_outer_folds():
    X, y = data()
    folds = KFold(4)
    model = HyperTrainedRidge(criterion="evidence", shrinkage=1.0, guard_cv=folds).fit(X, y)
    inner = HyperTrainedRidge(criterion="evidence", shrinkage=1.0)
    expected = cross_val_score(inner, X, y, cv=folds, scoring="neg_mean_squared_error")
    np.testing.assert_allclose(model.guard_scores_, expected, rtol=1e-7)


def test_free_decays_of_the_evidence_find_the_columns_that_matter():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 10))
    y = 3 * X[:, 0] - 2 * X[:, 1] + rng.standard_normal(200)
    model = HyperTrainedRidge(criterion="evidence", shrinkage=10.0).fit(X, y)
    assert model.alpha_[:2].max() < 0.1 * model.alpha_[2:].min()


def test_several_targets_are_judged_together_or_apart():
    X, Y = data(n_targets=2)
    Y[:, 1] *= 100
    together = HyperTrainedRidge("global", criterion="loo").fit(X, Y)
    assert together.coef_.shape == (2, X.shape[1])
    apart = HyperTrainedRidge("output", criterion="loo", tol=1e-9).fit(X, Y)
    alone = [HyperTrainedRidge("global", criterion="loo", tol=1e-9).fit(X, y).alpha_ for y in Y.T]
    np.testing.assert_allclose(apart.alpha_, alone, rtol=1e-6)
    assert apart.n_hyperparameters_ == 2


@pytest.mark.parametrize("criterion", CRITERIA)
def test_what_a_criterion_does_not_go_with_is_refused_before_any_work(criterion):
    X, y = data()
    with pytest.raises(ValueError, match=rf"criterion='{criterion}' needs exponent=2 or 'auto', got exponent=1"):
        HyperTrainedRidge(criterion=criterion, exponent=1).fit(X, y)
    with pytest.raises(ValueError, match=rf"criterion='{criterion}' needs one number, None or 'auto' as shrinkage"):
        HyperTrainedRidge(criterion=criterion, shrinkage=[1.0, 2.0]).fit(X, y)
    with pytest.raises(ValueError, match=rf"criterion='{criterion}' needs a dense X"):
        HyperTrainedRidge(criterion=criterion).fit(sparse.csr_array(X), y)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_target_without_variance_ends_at_a_bound(criterion):
    X, _ = data()
    model = HyperTrainedRidge("global", criterion=criterion).fit(X, np.full(len(X), 2.0))
    np.testing.assert_allclose(model.predict(X), 2.0)


def alpha_by_target(X, y, cv):
    """The alpha at which the folds' mean squared error is lowest: a grid, then scipy."""

    def loss(log_alpha):
        return -cross_val_score(Ridge(np.exp(log_alpha)), X, y, cv=cv, scoring="neg_mean_squared_error").mean()

    grid = np.linspace(-8, 16, 49)
    best = grid[np.argmin([loss(x) for x in grid])]
    return minimize_scalar(loss, bounds=(best - 0.5, best + 0.5), method="bounded", options={"xatol": 1e-9}).x


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_unshrunk_alphas_of_targets_are_those_of_each_target_alone(unit):
    """Whatever the targets' units: the loss of all targets together would not see the small one's."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((120, 15))
    y = X @ rng.standard_normal(15) + rng.standard_normal(120)
    Y = np.column_stack([y, unit * (0.3 * y + 5 * rng.standard_normal(120)), unit * rng.uniform(size=120) ** 8])
    cv = KFold(4)
    model = HyperTrainedRidge("output", cv=cv, shrinkage=np.inf, tol=1e-8).fit(X, Y)
    for t in range(2):
        assert np.log(model.alpha_[t]) == pytest.approx(alpha_by_target(X, Y[:, t], cv), abs=1e-5)
    assert model.n_hyperparameters_ == 3
    assert model.exponent_ == 2
    assert model.shrinkage_ == np.inf


def test_targets_of_very_different_signal_get_alphas_of_their_own():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 15))
    y = X @ rng.standard_normal(15) + rng.standard_normal(200)
    model = HyperTrainedRidge("output").fit(X, np.column_stack([y, y**2, 100 * rng.standard_normal(200)]))
    assert model.alpha_[0] < 10
    assert min(model.alpha_[1:]) > 100
    assert model.best_score_ > model.baseline_score_
    assert list(model.cv_results_["snapshot"]) == ["global alpha", "a decay for each output"]


def test_a_target_keeps_the_shared_alpha_where_its_own_does_not_pay():
    X, Y = data(n_targets=3, seed=3)
    model = HyperTrainedRidge("output").fit(X, np.column_stack([Y[:, 0], 2 * Y[:, 0], -Y[:, 0]]))
    np.testing.assert_allclose(model.alpha_, model.baseline_alpha_)
    assert model.n_hyperparameters_ == 1


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_fitted_model_survives_clone_and_weights(criterion):
    X, y = data()
    model = HyperTrainedRidge(criterion=criterion)
    first = model.fit(X, y, sample_weight=np.ones(len(y))).coef_
    np.testing.assert_allclose(clone(model).fit(X, y).coef_, first, rtol=1e-9)


def test_one_weight_for_all_rows_is_that_weight_of_each():
    x, y = make_regression(40, 3, noise=5.0, random_state=0)
    one, each = (HyperTrainedRidge().fit(x, y, sample_weight=weight) for weight in (2.0, np.full(40, 2.0)))
    np.testing.assert_array_equal(one.coef_, each.coef_)
