"""The cross-validated loss of a linear model as a function of one alpha, by two routes that know nothing of skhyper.

`NewtonPath` solves the penalised problem of every fold for a whole path of alphas by a plain Newton's method in numpy;
`by_scikit_learn` fits scikit-learn's own estimator at one alpha. In the estimators' scales both minimise

    sum_i c_i loss(f_i, y_i) + alpha / 2 |w|^2
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve
from scipy.special import expit, logsumexp
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

EPSILON = 0.1  # of LinearSVR
# Newton's decrement relative to the objective at which it ends, and which it has to reach.
EXACT, CLOSE = 1e-11, 1e-8


class Curve(NamedTuple):
    """A loss of one output with its first two derivatives, (f, y) -> arrays."""

    value: Callable
    gradient: Callable
    hessian: Callable


def _tweedie(power):
    a, b = 1 - power, 2 - power

    def value(f, y):
        if power == 1:
            return np.exp(f) - y * f + np.where(y > 0, y * np.log(np.maximum(y, 1e-300)) - y, 0.0)
        if power == 2:
            return f + y * np.exp(-f) - np.log(y) - 1
        return np.exp(b * f) / b - y * np.exp(a * f) / a + y**b / (a * b)

    return Curve(
        value,
        lambda f, y: np.exp(b * f) - y * np.exp(a * f),
        lambda f, y: b * np.exp(b * f) - a * y * np.exp(a * f),
    )


SQUARED = Curve(lambda f, y: (f - y) ** 2 / 2, lambda f, y: f - y, lambda f, y: np.ones_like(f))
LOG = Curve(lambda f, y: np.logaddexp(0, f) - y * f, lambda f, y: expit(f) - y, lambda f, y: expit(f) * expit(-f))
HINGE = Curve(
    lambda f, y: np.maximum(1 - y * f, 0) ** 2,
    lambda f, y: -2 * y * np.maximum(1 - y * f, 0),
    lambda f, y: 2.0 * (1 - y * f > 0),
)
INSENSITIVE = Curve(
    lambda f, y: np.maximum(np.abs(f - y) - EPSILON, 0) ** 2,
    lambda f, y: 2 * np.sign(f - y) * np.maximum(np.abs(f - y) - EPSILON, 0),
    lambda f, y: 2.0 * (np.abs(f - y) > EPSILON),
)


class Model(NamedTuple):
    """An estimator to tune, and the loss that it stands for.

    `target` is what `right_data.draw` draws, `curve` the loss of one output ("softmax" and "huber" have routines of
    their own), `mean` whether row weights are 1 / n, `penalised` whether the intercept is, `own` the deterministic
    estimator of the same objective at alpha and a number of training rows.
    """

    estimator: object
    target: str
    curve: object
    mean: bool
    penalised: bool
    own: Callable


def _logistic(alpha, n):
    return LogisticRegression(C=1 / alpha, solver="newton-cholesky", tol=1e-10, max_iter=1000)


GLM = {"solver": "newton-cholesky", "tol": 1e-10, "max_iter": 1000}
SVM = {"dual": False, "tol": 1e-10, "max_iter": 100_000}
MODELS = {
    "Ridge": Model(Ridge(), "real", SQUARED, False, False, lambda a, n: Ridge(a, solver="svd")),
    "RidgeClassifier": Model(
        RidgeClassifier(), "binary", SQUARED, False, False, lambda a, n: RidgeClassifier(a, solver="svd")
    ),
    "LogisticRegression, 2": Model(LogisticRegression(), "binary", LOG, False, False, _logistic),
    "LogisticRegression, 3": Model(LogisticRegression(), "three", "softmax", False, False, _logistic),
    "LinearSVC": Model(LinearSVC(), "binary", HINGE, False, True, lambda a, n: LinearSVC(C=1 / a, **SVM)),
    "LinearSVR": Model(
        LinearSVR(epsilon=EPSILON, loss="squared_epsilon_insensitive"),
        "real",
        INSENSITIVE,
        False,
        True,
        lambda a, n: LinearSVR(C=1 / a, epsilon=EPSILON, loss="squared_epsilon_insensitive", **SVM),
    ),
    "PoissonRegressor": Model(
        PoissonRegressor(), "counts", _tweedie(1), True, False, lambda a, n: PoissonRegressor(alpha=a, **GLM)
    ),
    "GammaRegressor": Model(
        GammaRegressor(), "positive", _tweedie(2), True, False, lambda a, n: GammaRegressor(alpha=a, **GLM)
    ),
    "TweedieRegressor": Model(
        TweedieRegressor(power=1.5),
        "mixed",
        _tweedie(1.5),
        True,
        False,
        lambda a, n: TweedieRegressor(power=1.5, alpha=a, **GLM),
    ),
    "HuberRegressor": Model(
        HuberRegressor(),
        "real",
        "huber",
        False,
        False,
        lambda a, n: HuberRegressor(alpha=a, tol=1e-8, max_iter=10_000),
    ),
    "SGDClassifier": Model(
        SGDClassifier(loss="log_loss"), "binary", LOG, True, False, lambda a, n: _logistic(a * n, n)
    ),
    "SGDRegressor": Model(SGDRegressor(), "real", SQUARED, True, False, lambda a, n: Ridge(a * n, solver="svd")),
}


def targets(model, y):
    """Targets as the loss reads them."""
    if (model.curve is SQUARED and model.target == "binary") or model.curve is HINGE:
        return 2.0 * y - 1
    return y.astype(float)


class NewtonPath:
    """Held-out losses of all folds along descending alphas, each solved from the one before."""

    def __init__(self, model, X, y, folds):
        self.model, self.folds = model, folds
        shift = 0.0 if model.penalised else X.mean(axis=0)
        self.X = np.column_stack([X - shift, np.ones(len(X))])
        self.y = targets(model, y)

    def __call__(self, alphas):
        """Mean held-out loss at each alpha."""
        return np.mean([self._fold(*fold, alphas) for fold in self.folds], axis=0)

    @property
    def constant(self):
        """The mean held-out loss of the constant model."""
        return float(self(np.array([1e12 * self.largest]))[0])

    @property
    def largest(self):
        """The largest curvature of a fold's training loss that a direction of the columns can have, a bound."""
        found = []
        for train, _ in self.folds:
            X = self.X[train, :-1] - self.X[train, :-1].mean(axis=0)
            found.append(np.linalg.norm(X, 2) ** 2 * self._row_curvature(train))
        return max(found)

    def _row_curvature(self, train):
        y, c, curve = self.y[train], 1 / len(train) if self.model.mean else 1.0, self.model.curve
        if curve == "softmax":
            return 0.5 * c
        if curve == "huber":
            return c / max(np.std(y), 1e-12)
        start = _constant(curve, y)
        return c * float(np.max(curve.hessian(np.full_like(y, start), y)))

    def _fold(self, train, held, alphas):
        X, y, curve = self.X[train], self.y[train], self.model.curve
        c = 1 / len(train) if self.model.mean else 1.0
        if curve is SQUARED:
            return _squared_path(X, y, self.X[held], self.y[held], alphas / c)
        if curve == "softmax":
            return _path(_Softmax(X, y, c), alphas, lambda v: _Softmax(self.X[held], self.y[held], 1.0).held_out(v))
        if curve == "huber":
            return _path(_Huber(X, y, c), alphas, lambda v: _Huber(self.X[held], self.y[held], 1.0).held_out(v))
        one = _One(X, y, c, curve, self.model.penalised)
        return _path(one, alphas, lambda v: curve.value(self.X[held] @ v, self.y[held]).mean())


def _squared_path(X, y, X_held, y_held, alphas):
    means, centre = X[:, :-1].mean(axis=0), y.mean()
    u, s, vt = np.linalg.svd(X[:, :-1] - means, full_matrices=False)
    s = np.where(s > 1e-13 * s.max(initial=0), s, 0.0)
    weights = vt.T @ (s / (s**2 + alphas[:, None]) * (u.T @ (y - centre))).T
    return ((centre + (X_held[:, :-1] - means) @ weights - y_held[:, None]) ** 2).mean(axis=0) / 2


def _constant(curve, y):
    f = 0.0
    for _ in range(100):
        step = curve.gradient(np.full_like(y, f), y).sum() / max(curve.hessian(np.full_like(y, f), y).sum(), 1e-300)
        f -= np.clip(step, -1, 1)
    return f


class _One:
    """A loss of one output; the last column is the intercept's."""

    def __init__(self, X, y, c, curve, penalised):
        self.X, self.y, self.c, self.curve = X, y, c, curve
        self.mask = np.ones(X.shape[1])
        self.mask[-1] = penalised

    def start(self):
        v = np.zeros(self.X.shape[1])
        v[-1] = 0.0 if self.mask[-1] else _constant(self.curve, self.y)
        return v

    def value(self, v, alpha):
        return self.c * self.curve.value(self.X @ v, self.y).sum() + alpha / 2 * (self.mask * v * v).sum()

    def derivatives(self, v, alpha):
        f = self.X @ v
        gradient = self.c * self.X.T @ self.curve.gradient(f, self.y) + alpha * self.mask * v
        hessian = self.c * (self.X.T * self.curve.hessian(f, self.y)) @ self.X
        return gradient, hessian + np.diag(alpha * self.mask)


class _Softmax:
    """Multinomial log-loss, v is (p + 1, classes) flat."""

    def __init__(self, X, y, c):
        self.X, self.y, self.c, self.hot = X, y, c, np.eye(3)[y.astype(int)]
        self.mask = np.ones((X.shape[1], 3))
        self.mask[-1] = 0

    def start(self):
        v = np.zeros((self.X.shape[1], 3))
        logs = np.log(self.hot.mean(axis=0))
        v[-1] = logs - logs.mean()
        return v.ravel()

    def held_out(self, v):
        f = self.X @ v.reshape(-1, 3)
        return (logsumexp(f, axis=1) - (f * self.hot).sum(axis=1)).mean()

    def value(self, v, alpha):
        return self.c * len(self.y) * self.held_out(v) + alpha / 2 * (self.mask.ravel() * v * v).sum()

    def derivatives(self, v, alpha):
        f = self.X @ v.reshape(-1, 3)
        p = np.exp(f - logsumexp(f, axis=1, keepdims=True))
        gradient = self.c * self.X.T @ (p - self.hot)
        n, m = self.X.shape
        hessian = np.empty((m, 3, m, 3))
        for s in range(3):
            for t in range(3):
                hessian[:, s, :, t] = self.c * (self.X.T * (p[:, s] * ((s == t) - p[:, t]))) @ self.X
        # The mean intercept is free: held where it is.
        hessian[-1, :, -1, :] += self.c * n / 9
        flat = hessian.reshape(3 * m, 3 * m) + np.diag(alpha * self.mask.ravel())
        return (gradient + alpha * self.mask * v.reshape(-1, 3)).ravel(), flat


class _Huber:
    """Half of HuberRegressor's loss; v is (coefficients, intercept, sigma)."""

    epsilon = 1.35

    def __init__(self, X, y, c):
        self.X, self.y, self.c = X, y, c
        self.mask = np.ones(X.shape[1] + 1)
        self.mask[-2:] = 0

    def start(self):
        v = np.zeros(self.X.shape[1] + 1)
        v[-2], v[-1] = np.median(self.y), max(np.std(self.y), 1e-6)
        return v

    def held_out(self, v):
        z, sigma = self._parts(v)
        h = np.where(np.abs(z) <= self.epsilon, z**2, 2 * self.epsilon * np.abs(z) - self.epsilon**2)
        return sigma * (1 + h.mean()) / 2

    def _parts(self, v):
        return (self.X @ v[:-1] - self.y) / v[-1], v[-1]

    def value(self, v, alpha):
        if v[-1] <= 0:
            return np.inf
        return self.c * len(self.y) * self.held_out(v) + alpha / 2 * (self.mask * v * v).sum()

    def derivatives(self, v, alpha):
        z, sigma = self._parts(v)
        clipped, inside = np.clip(z, -self.epsilon, self.epsilon), np.abs(z) <= self.epsilon
        gradient = np.append(self.X.T @ clipped, ((1 - clipped**2) / 2).sum())
        wide = np.column_stack([self.X, -z])[inside]
        hessian = self.c * wide.T @ wide / sigma + np.diag(alpha * self.mask)
        return self.c * gradient + alpha * self.mask * v, hessian


def _path(problem, alphas, held_out):
    """Newton's method with backtracking for each alpha in turn; nan where it did not converge."""
    v, losses = problem.start(), []
    for alpha in alphas:
        v, converged = _newton(problem, v, alpha)
        losses.append(held_out(v) if converged else np.nan)
    return np.array(losses)


def _newton(problem, v, alpha, max_iter=100):
    value = problem.value(v, alpha)
    for _ in range(max_iter):
        gradient, hessian = problem.derivatives(v, alpha)
        scale = 1 / np.sqrt(np.maximum(hessian.diagonal(), 1e-300))
        scaled = hessian * scale[:, None] * scale
        step = -scale * _solve(scaled, scale * gradient)
        slope = gradient @ step
        if -slope <= EXACT * abs(value):
            return v, True
        t = 1.0
        while t > 1e-12:
            with np.errstate(over="ignore", invalid="ignore"):
                new = problem.value(v + t * step, alpha)
            if new <= value + 1e-4 * t * slope:
                break
            t /= 2
        else:
            return v, -slope <= CLOSE * abs(value)
        v, value = v + t * step, new
    return v, False


def _solve(matrix, right):
    try:
        return cho_solve(cho_factor(matrix, check_finite=False), right, check_finite=False)
    except LinAlgError:
        return np.linalg.lstsq(matrix, right, rcond=1e-15)[0]


def by_scikit_learn(model, X, y, folds, alpha):
    """The mean held-out loss of scikit-learn's own estimator at an alpha, and whether all of its fits converged."""
    losses, signed = [], targets(model, y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for train, held in folds:
            fitted = model.own(alpha, len(train)).fit(X[train], y[train])
            losses.append(_held_out(model, fitted, X[held], y[held], signed[held]))
    return float(np.mean(losses)), not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _held_out(model, fitted, X, y, signed):
    if model.curve == "softmax":
        f = fitted.decision_function(X)
        return (logsumexp(f, axis=1) - f[np.arange(len(y)), y]).mean()
    if model.curve == "huber":
        z = np.abs(fitted.predict(X) - y) / fitted.scale_
        h = np.where(z <= fitted.epsilon, z**2, 2 * fitted.epsilon * z - fitted.epsilon**2)
        return fitted.scale_ * (1 + h.mean()) / 2
    if hasattr(fitted, "decision_function"):
        f = fitted.decision_function(X)
    elif hasattr(fitted, "_get_loss"):  # the log link
        f = X @ fitted.coef_ + fitted.intercept_
    else:
        f = fitted.predict(X)
    return model.curve.value(f, signed).mean()


def fresh_loss(model, fitted, task):
    """The loss on fresh rows."""
    return float(_held_out(model, fitted, task.X_fresh, task.y_fresh, targets(model, task.y_fresh)))
