"""Each adapter's objective is the one that its estimator minimises: our gradient vanishes where scikit-learn converged.

How well hyperparameters are tuned is left to the tests of the core and of the search.
"""

import warnings

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.base import clone, is_classifier
from sklearn.datasets import make_classification, make_regression
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.svm import LinearSVC, LinearSVR

from skhyper.adapters import Solution, adapter_for, encode_linear
from skhyper.boundary import Granularity, torch_session
from skhyper.core.networks import Layers

SGD = {"max_iter": 4000, "tol": None, "average": True, "learning_rate": "invscaling", "eta0": 0.1, "random_state": 0}

GLOBAL = Granularity("global")

EXACT = [
    Ridge(alpha=3.0),
    Ridge(alpha=3.0, fit_intercept=False),
    RidgeClassifier(alpha=2.0),
    RidgeClassifier(alpha=2.0, class_weight="balanced"),
    LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000),
    LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000, class_weight="balanced"),
    LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000, fit_intercept=False, class_weight={0: 2.0, 1: 0.5}),
    PoissonRegressor(alpha=0.1, tol=1e-10, max_iter=10_000),
    GammaRegressor(alpha=0.1, tol=1e-10, max_iter=10_000),
    TweedieRegressor(alpha=0.1, power=1.5, tol=1e-10, max_iter=10_000),
    TweedieRegressor(alpha=0.1, power=0, tol=1e-10, max_iter=10_000),
    TweedieRegressor(alpha=0.1, power=0, link="log", tol=1e-10, max_iter=10_000),
    HuberRegressor(alpha=0.5, tol=1e-10, max_iter=10_000),
    HuberRegressor(alpha=0.5, tol=1e-10, max_iter=10_000, fit_intercept=False),
    LinearSVC(C=0.2, tol=1e-10, dual=False, max_iter=100_000),
    LinearSVC(C=0.2, tol=1e-10, dual=False, max_iter=100_000, intercept_scaling=3.0, class_weight="balanced"),
    LinearSVC(C=0.2, tol=1e-10, dual=False, max_iter=100_000, fit_intercept=False),
    LinearSVR(C=0.2, tol=1e-10, loss="squared_epsilon_insensitive", dual=False, epsilon=0.1, max_iter=100_000),
]
STOCHASTIC = [
    SGDRegressor(alpha=0.1, **SGD),
    SGDRegressor(alpha=0.1, loss="huber", epsilon=0.3, **SGD),
    SGDRegressor(alpha=0.1, loss="squared_epsilon_insensitive", epsilon=0.1, **SGD),
    SGDClassifier(alpha=0.1, loss="log_loss", **SGD),
    SGDClassifier(alpha=0.1, loss="modified_huber", **SGD),
    SGDClassifier(alpha=0.1, loss="squared_hinge", class_weight={0: 1.0, 1: 3.0, 2: 0.5}, **SGD),
    SGDClassifier(alpha=0.1, loss="squared_error", **SGD),
]


def name(estimator):
    return repr(estimator).replace("\n", "").replace(" ", "")[:60]


def data_for(estimator, n_classes=2):
    if is_classifier(estimator):
        X, y = make_classification(80, 6, n_informative=4, n_classes=n_classes, flip_y=0.1, random_state=1)
        return X, y
    X, y = make_regression(80, 6, noise=20.0, random_state=0)
    y = y / y.std()
    positive = not isinstance(estimator, Ridge | HuberRegressor | LinearSVR | SGDRegressor)
    return X, np.exp(0.4 * y) if positive else y


def flat_weights(encoding, estimator):
    """The fitted estimator's weights in the core's layout."""
    network = encoding.problem.network
    coefficients = np.atleast_2d(estimator.coef_).T
    intercepts = np.broadcast_to(np.asarray(estimator.intercept_, dtype=float), (coefficients.shape[1],)).copy()
    if encoding.column is not None:
        coefficients = np.vstack([coefficients, intercepts / encoding.column])
    constants = [getattr(estimator, "scale_", 1.0)] if network.n_constants else []
    parts = (torch.tensor(np.array(part, dtype=float)) for part in (coefficients, intercepts, constants))
    return network.join(Layers(*parts))


def inner_gradient(encoding, w, alpha):
    problem = encoding.problem
    slope = problem.loss.gradient(problem.outputs(w[None]), problem.y)
    loss_part = problem.network.pullback(problem.train[..., None] * slope, problem.design)[0]
    return loss_part + alpha * (problem.decays.index >= 0) * w, loss_part


def gradient_at_fit(estimator, X, y, sample_weight=None):
    """Norm of our gradient at the estimator's own fit, relative to its loss part at zero weights."""
    with warnings.catch_warnings(), torch_session():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = clone(estimator).fit(X, y, sample_weight=sample_weight)
        adapter = adapter_for(estimator)
        shell = clone(estimator)
        x, targets = adapter.read(shell, X, y)
        classes = adapter.classes(shell, targets)
        encoding = encode_linear(
            adapter, shell, x, targets, granularity=GLOBAL, sample_weight=sample_weight, classes=classes
        )
        setting = getattr(estimator, adapter.parameter)
        alpha = 1 / setting if adapter.reciprocal else setting
        assert adapter.value(alpha) == pytest.approx(setting)
        w = flat_weights(encoding, fitted)
        gradient, _ = inner_gradient(encoding, w, alpha)
        start = torch.zeros_like(w)
        if encoding.problem.network.n_constants:
            start[-1] = w[-1]
        scale = inner_gradient(encoding, start, alpha)[1].norm()
        return float(gradient.norm() / scale)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("estimator", EXACT, ids=name)
def test_our_gradient_vanishes_where_the_estimator_converged(estimator, weighted):
    X, y = data_for(estimator)
    sample_weight = np.random.default_rng(0).uniform(0.2, 2.0, len(y)) if weighted else None
    if weighted and isinstance(estimator, LinearSVC) and estimator.class_weight == "balanced":
        pytest.skip("versions differ in whether balanced class weights count sample weights")
    assert gradient_at_fit(estimator, X, y, sample_weight) < 3e-5


@pytest.mark.parametrize(
    "estimator",
    [e for e in EXACT if is_classifier(e) and not isinstance(getattr(e, "class_weight", None), dict)],
    ids=name,
)
def test_our_gradient_vanishes_with_three_classes(estimator):
    X, y = data_for(estimator, n_classes=3)
    assert gradient_at_fit(estimator, X, np.array(["a", "b", "c"])[y]) < 3e-5


@pytest.mark.parametrize("estimator", STOCHASTIC, ids=name)
def test_our_gradient_is_small_where_sgd_arrived(estimator):
    X, y = data_for(estimator)
    y = y if is_classifier(estimator) else y - y.mean()
    weights = np.random.default_rng(0).uniform(0.2, 2.0, len(y))
    if isinstance(estimator, SGDClassifier) and isinstance(estimator.class_weight, dict):
        X, y = data_for(estimator, n_classes=3)
    assert gradient_at_fit(estimator, X, y, weights) < 1e-2


def test_our_gradient_vanishes_for_several_targets_and_for_sparse_features():
    X, y = make_regression(60, 5, n_targets=3, noise=5.0, random_state=0)
    assert gradient_at_fit(Ridge(alpha=2.0), X, y) < 1e-8
    X[np.abs(X) < 1] = 0
    assert gradient_at_fit(Ridge(alpha=2.0, solver="lsqr", tol=1e-12), sparse.csr_matrix(X), y) < 1e-6


def test_our_gradient_vanishes_with_a_penalised_logistic_intercept():
    X, y = data_for(LogisticRegression())
    estimator = LogisticRegression(C=0.3, solver="liblinear", intercept_scaling=2.0, tol=1e-10, max_iter=10_000)
    assert gradient_at_fit(estimator, X, y) < 3e-5


FAMILIES = [
    Ridge(),
    RidgeClassifier(),
    LogisticRegression(),
    LogisticRegression(solver="liblinear"),
    PoissonRegressor(),
    GammaRegressor(),
    TweedieRegressor(),
    HuberRegressor(),
    LinearSVC(),
    LinearSVR(loss="squared_epsilon_insensitive"),
    SGDRegressor(),
    SGDRegressor(average=True),
    SGDClassifier(loss="log_loss"),
    SGDClassifier(loss="log_loss", average=True),
]


def variants(estimator):
    X, y = data_for(estimator)
    yield X, y
    if is_classifier(estimator) and getattr(estimator, "solver", None) != "liblinear":
        X, y = data_for(estimator, n_classes=3)
        yield X, np.array(["a", "b", "c"])[y]
    if isinstance(estimator, Ridge):
        yield X, y[:, None]
        yield X, np.c_[y, y**2]
        yield X.astype(np.float32), y


def described(value):
    return type(value).__name__, getattr(value, "shape", None), str(getattr(value, "dtype", ""))


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("estimator", FAMILIES, ids=name)
def test_a_built_estimator_has_what_its_own_fit_sets(estimator, fit_intercept):
    estimator = clone(estimator).set_params(fit_intercept=fit_intercept)
    adapter = adapter_for(estimator)
    for X, y in variants(estimator):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = clone(estimator).fit(X, y)
        built = clone(estimator)
        x, targets = adapter.read(built, X, y)
        coefficients = np.atleast_2d(own.coef_).astype(float).T
        intercepts = np.broadcast_to(np.asarray(own.intercept_, dtype=float), (coefficients.shape[1],))
        scale = np.array([getattr(own, "scale_", 1.0)])
        classes = adapter.classes(built, targets)
        adapter.store(built, Solution(coefficients, intercepts, scale, 3), x, targets, classes)
        fitted = {key: value for key, value in vars(own).items() if key not in estimator.get_params()}
        fitted = {key: value for key, value in fitted.items() if key != "_callback_fit_ctx"}
        assert set(vars(built)) - set(estimator.get_params()) == set(fitted)
        for key, value in fitted.items():
            assert described(getattr(built, key)) == described(value), key
        np.testing.assert_allclose(built.predict(X), own.predict(X), rtol=1e-6) if y.dtype != "<U1" else (
            np.testing.assert_array_equal(built.predict(X), own.predict(X))
        )
        assert built.score(X, y) == pytest.approx(own.score(X, y))
