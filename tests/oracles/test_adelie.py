"""The family at an exponent of 1 as adelie's group lasso, whose block coordinate descent shares nothing with ours.

With p_g coefficients in group g, s^2 the mean square of the coefficients under the tuned global alpha (those of
scikit-learn's own estimator), and c the sample weights, the family minimises

    sum_i c_i loss_i + alpha s sum_g sqrt(p_g) ||w_g||;

adelie takes the mean of the losses over rows and, of K outputs, over these too.
"""

from typing import NamedTuple

import numpy as np
import pytest
from scipy import sparse
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhyper import HyperTrainedRidge, HyperTrainingSearchCV

adelie = pytest.importorskip("adelie")

# Some tests hold alpha at its bounds on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

GROUPS = {
    "features": np.arange(12),
    "groups of three": np.arange(12) // 3,
    "unequal groups": np.repeat(range(3), (1, 4, 7)),
}


class Case(NamedTuple):
    """An estimator that converges, its family in adelie, and what its alpha is called and counts in."""

    estimator: object
    family: object
    n_outputs: int = 1
    sums: bool = True  # whether its loss is a sum over rows, and no weighted mean


CASES = {
    "ridge": Case(Ridge(tol=1e-12, solver="svd"), adelie.glm.gaussian),
    "ridge of three targets": Case(Ridge(solver="svd"), adelie.glm.multigaussian, 3),
    "logistic": Case(LogisticRegression(tol=1e-12, max_iter=10**5, solver="newton-cholesky"), adelie.glm.binomial),
    "multinomial": Case(
        LogisticRegression(tol=1e-12, max_iter=10**5, solver="newton-cholesky"), adelie.glm.multinomial, 3
    ),
    "poisson": Case(
        PoissonRegressor(tol=1e-13, max_iter=10**5, solver="newton-cholesky"), adelie.glm.poisson, 1, False
    ),
}
EVERY = pytest.mark.parametrize("name", CASES)


def data(name, n_rows=120, n_columns=12, seed=0):
    """Rows, targets as the estimator and as adelie reads them, and sample weights; six columns matter."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n_rows, n_columns)) + 0.5 * rng.standard_normal((n_rows, 1))
    w = np.zeros((n_columns, 3))
    w[:6] = rng.standard_normal((6, 3)) / 2
    f = x @ w + 0.3
    if name == "multinomial":
        y = (f + rng.gumbel(size=f.shape)).argmax(1)
        theirs = np.eye(3)[y]
    else:
        y = theirs = {
            "ridge": lambda: f[:, 0] + rng.standard_normal(n_rows),
            "ridge of three targets": lambda: f + rng.standard_normal(f.shape),
            "logistic": lambda: (f[:, 0] > rng.logistic(size=n_rows)).astype(float),
            "poisson": lambda: rng.poisson(np.exp(f[:, 0])).astype(float),
        }[name]()
    return x, y, theirs, rng.exponential(size=n_rows)


def of_adelie(case, x, y, groups, level, c=None, *, penalty=None, alpha=1.0, fit_intercept=True):
    """Coefficients (n_outputs, p) and intercepts at alpha s = `level`, in the unit of a sum over rows."""
    c = np.ones(len(x)) if c is None else c
    sizes = np.bincount(groups) * case.n_outputs
    state = adelie.grpnet(
        np.asfortranarray(x),
        case.family(np.asfortranarray(y) if case.n_outputs == 1 else y, weights=c / c.sum()),
        groups=np.r_[0, np.flatnonzero(np.diff(groups)) + 1],
        penalty=np.sqrt(sizes) if penalty is None else penalty,
        alpha=alpha,
        lmda_path=[level / c.sum() / case.n_outputs],
        intercept=fit_intercept,
        tol=1e-30,
        irls_tol=1e-28,
        newton_tol=1e-15,
        early_exit=False,
        progress_bar=False,
    )
    w = state.betas.toarray()[0]
    return w.reshape(-1, case.n_outputs).T, np.ravel(state.intercepts[0])


def searched(case, x, y, c, estimator=None, **settings):
    """A search at an exponent of 1, and alpha s in the unit of a sum over rows."""
    unit = x.shape[0] if c is None else c.sum()
    factor = unit if case.sums else 1.0
    settings = {"alpha_bounds": (0.1 * factor, 0.3 * factor), "exponent": 1.0, "guard_cv": None} | settings
    search = HyperTrainingSearchCV(case.estimator if estimator is None else estimator, **settings)
    search.set_params(refit=lambda results: len(results["snapshot"]) - 1)
    search.fit(x, y, **({} if c is None else {"sample_weight": c}))
    return search


def level_of(search, case, x, y, c):
    """alpha s, with s from scikit-learn's estimator at the tuned global alpha."""
    (first, *_, last) = search.cv_results_["params"]
    (name,) = first
    plain = clone(case.estimator).set_params(fit_intercept=search.estimator.get_params().get("fit_intercept", True))
    coef = plain.set_params(**{name.split("__")[-1]: first[name]}).fit(x, y, c).coef_
    alpha = 1 / last[name] if name.endswith("C") else last[name]
    unit = 1.0 if case.sums else (len(x) if c is None else c.sum())
    return alpha * np.sqrt((coef**2).mean()) * unit


def assert_same(model, expected, rtol=1e-9):
    """Coefficients to a share of the largest, the same zeros; intercepts up to a shift that softmax does not see."""
    coef, intercept = expected
    found = np.atleast_2d(model.coef_)
    np.testing.assert_array_equal(found == 0, coef == 0)
    np.testing.assert_allclose(found, coef, rtol=0, atol=rtol * np.abs(coef).max())
    difference = np.ravel(model.intercept_) - intercept
    if isinstance(model, LogisticRegression) and len(difference) > 1:
        difference = difference - difference.mean()
    np.testing.assert_allclose(difference, 0, atol=rtol * (1 + np.abs(intercept).max()))


@EVERY
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("weighted", [False, True])
def test_an_exponent_of_one_is_the_group_lasso_of_adelie(name, groups, weighted):
    case, groups = CASES[name], GROUPS[groups]
    x, y, theirs, c = data(name)
    c = c if weighted else None
    search = searched(case, x, y, c, decay_groups=groups)
    assert search.exponent_ == 1.0
    expected = of_adelie(case, x, theirs, groups, level_of(search, case, x, y, c), c)
    assert_same(search.best_estimator_, expected)


@pytest.mark.parametrize("name", ["ridge", "ridge of three targets", "logistic"])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_so_it_is_with_more_columns_than_rows_and_without_an_intercept(name, fit_intercept):
    case, groups = CASES[name], np.arange(60) // 2
    x, y, theirs, c = data(name, 40, 60)
    estimator = clone(case.estimator).set_params(fit_intercept=fit_intercept)
    search = searched(case, x, y, c, estimator, decay_groups=groups)
    level = level_of(search, case, x, y, c)
    assert_same(search.best_estimator_, of_adelie(case, x, theirs, groups, level, c, fit_intercept=fit_intercept))


@EVERY
def test_so_it_is_behind_a_scaler_of_a_sparse_x(name):
    case, groups = CASES[name], np.arange(12) // 3
    x, y, theirs, _ = data(name)
    x = x * 3.0 ** np.arange(-6, 6) * (np.abs(x) > 0.5)
    scaler = StandardScaler(with_mean=False)
    pipeline = make_pipeline(scaler, case.estimator)
    search = searched(case, sparse.csr_array(x), y, None, pipeline, decay_groups=groups)
    scaled = scaler.fit_transform(x)
    expected = of_adelie(case, scaled, theirs, groups, level_of(search, case, scaled, y, None))
    assert_same(search.best_estimator_[-1], expected)


@pytest.mark.parametrize("weighted", [False, True])
def test_hyper_trained_ridge_at_an_exponent_of_one_is_the_group_lasso_of_adelie(weighted):
    case, groups = CASES["ridge"], np.arange(12) // 3
    x, y, _, c = data("ridge")
    c = c if weighted else None
    model = HyperTrainedRidge(decay_groups=groups, exponent=1.0).fit(x, y, c)
    assert model.exponent_ == 1.0
    scale = np.sqrt((Ridge(model.baseline_alpha_, solver="svd").fit(x, y, c).coef_ ** 2).mean())
    assert_same(model, of_adelie(case, x, y, groups, model.family_alpha_ * scale, c))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("exponent", "shrinkage"), [(2, 1.0), (1.5, None), (0.5, None)])
def test_decays_of_features_are_ridge_penalties_of_the_multinomial_model(exponent, shrinkage, fit_intercept, weighted):
    """adelie's elastic net without its lasso: lambda sum_g omega_g / 2 ||w_g||^2, over three classes."""
    case, features = CASES["multinomial"], np.arange(12)
    x, y, theirs, c = data("multinomial")
    c = c if weighted else None
    estimator = clone(case.estimator).set_params(fit_intercept=fit_intercept)
    alphas = (40.0, 50.0) if exponent == 0.5 else (0.2, 50.0)
    search = searched(
        case, x, y, c, estimator, exponent=exponent, shrinkage=shrinkage, alpha_bounds=alphas, granularity="feature"
    )
    decays = np.array(list(search.alphas_.values()))
    kept = np.isfinite(decays)
    assert len(set(decays)) > 1
    assert kept.all() == (exponent > 1)
    part, intercept = of_adelie(
        case,
        x[:, kept],
        theirs,
        features[: kept.sum()],
        1.0,
        c,
        penalty=decays[kept],
        alpha=0.0,
        fit_intercept=fit_intercept,
    )
    coef = np.zeros((3, 12))
    coef[:, kept] = part
    assert_same(search.best_estimator_, (coef, intercept))
