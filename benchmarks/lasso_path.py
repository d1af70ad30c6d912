"""Cross-validated Lasso and elastic net, converged also where coordinate descent is not.

Degree-2 features are nearly collinear and some sets have almost no noise: the best alpha then is tiny, and coordinate
descent is far from the optimum after 10^5 sweeps while LARS drops columns. So that a peer is not judged by its
solver, the same grid, folds and objective are solved here by an interior-point method, to a certified duality gap.
"""

import warnings

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNetCV, LassoCV
from sklearn.model_selection import KFold

ALPHAS_PER_DECADE = 33
SMALLEST_EPS = 1e-10
GAP = 1e-3  # duality gap allowed, as a share of the best cross-validated error


def elastic_net(gram, moment, l1, *, power, max_gap, max_iter=100):
    """Minimise w'Gw/2 - m'w + l1 |w|_1 by Mehrotra's predictor-corrector; returns w and the gap reached.

    w = u - v with u, v > 0 and multipliers a, b for their signs. `power` is the mean of y^2, the objective's unit.
    """
    p = len(moment)
    u = v = np.full(p, np.sqrt(power) / np.sqrt(np.trace(gram) / p + 1e-300))
    a = b = np.full(p, l1)
    for _ in range(max_iter):
        slope = gram @ (u - v) - moment
        residuals = slope + l1 - a, -slope + l1 - b
        mu = (u @ a + v @ b) / (2 * p)
        infeasible = max(np.abs(residuals[0]).max(), np.abs(residuals[1]).max())
        if 2 * p * mu <= max_gap * power and infeasible <= 1e-8 * max(l1, np.sqrt(max_gap) * np.abs(moment).max()):
            break
        curvature = (a / u) * (b / v) / (a / u + b / v)
        factor = cho_factor(gram + np.diag(curvature), check_finite=False)
        du, dv, da, db = _newton(factor, u, v, a, b, residuals, 0.0, 0.0)
        size = min(_longest(u, du), _longest(v, dv), _longest(a, da), _longest(b, db))
        ahead = ((u + size * du) @ (a + size * da) + (v + size * dv) @ (b + size * db)) / (2 * p)
        centre = mu * min(1.0, (ahead / mu) ** 3)
        du, dv, da, db = _newton(factor, u, v, a, b, residuals, centre - du * da, centre - dv * db)
        size = 0.995 * min(_longest(u, du), _longest(v, dv), _longest(a, da), _longest(b, db))
        u, v, a, b = u + size * du, v + size * dv, a + size * da, b + size * db
    return u - v, 2 * p * mu / power


def _newton(factor, u, v, a, b, residuals, target_u, target_v):
    """Newton's step toward u * a = target_u, v * b = target_v and zero residuals."""
    slope_u, slope_v = a / u, b / v
    r1, r2 = target_u / u - a - residuals[0], target_v / v - b - residuals[1]
    dw = cho_solve(factor, r1 - slope_u * (r1 + r2) / (slope_u + slope_v), check_finite=False)
    du = (slope_v * dw + r1 + r2) / (slope_u + slope_v)
    dv = du - dw
    return du, dv, target_u / u - a - slope_u * du, target_v / v - b - slope_v * dv


def _longest(x, dx):
    """The longest step, at most 1 / 0.995, that keeps x + step dx >= 0."""
    falling = dx < 0
    return min(1 / 0.995, (-x[falling] / dx[falling]).min()) if falling.any() else 1 / 0.995


class ConvergedElasticNetCV(RegressorMixin, BaseEstimator):
    """LassoCV / ElasticNetCV whose grid is extended until the minimum is inside it, solved to a small duality gap.

    scikit-learn's own estimator is used where it converges on its default grid with the minimum inside.

    Attributes: alpha_, l1_ratio_, coef_, intercept_, at_edge_ (the minimum stayed at the grid's end), gap_ (the worst
    gap among the solves at the chosen alpha, as a share of the mean square of y), solver_.
    """

    def __init__(self, l1_ratios=(1.0,), cv=5, max_iter=20_000):
        self.l1_ratios = l1_ratios
        self.cv = cv
        self.max_iter = max_iter

    def fit(self, X, y):
        if not self._coordinate_descent(X, y):
            self._interior_point(X, y)
        return self

    def predict(self, X):
        return X @ self.coef_ + self.intercept_

    def _coordinate_descent(self, X, y):
        settings = {"cv": self.cv, "max_iter": self.max_iter, "precompute": True, "tol": 1e-5}
        lasso = tuple(self.l1_ratios) == (1.0,)
        model = LassoCV(**settings) if lasso else ElasticNetCV(l1_ratio=list(self.l1_ratios), **settings)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(X, y)
        errors = np.atleast_2d(model.mse_path_.mean(axis=-1))
        inside = 0 < np.unravel_index(errors.argmin(), errors.shape)[1] < errors.shape[1] - 2
        self.gap_ = model.dual_gap_ / np.mean((y - y.mean()) ** 2)
        close = max(self.gap_, settings["tol"]) <= GAP * errors.min() / y.var()
        converged = not any(issubclass(w.category, ConvergenceWarning) for w in caught)
        self.alpha_, self.l1_ratio_ = model.alpha_, 1.0 if lasso else model.l1_ratio_
        self.coef_, self.intercept_ = model.coef_, model.intercept_
        self.at_edge_, self.solver_ = False, "coordinate descent"
        return inside and close and converged

    def _interior_point(self, X, y):
        parts = [_Part(X[train], y[train], X[test], y[test]) for train, test in KFold(self.cv).split(X)]
        whole = _Part(X, y, X, y)
        best = np.inf
        self.at_edge_, self.solver_ = False, "interior point"
        for ratio in self.l1_ratios:
            top = np.abs(whole.moment).max() / ratio
            errors, alphas, gaps, alpha = [], [], [], top
            while True:
                solved = [part.solve(alpha, ratio, GAP * min(best, *errors, 1.0) / 2) for part in parts]
                alphas.append(alpha)
                errors.append(np.mean([error for error, _ in solved]) / y.var())
                gaps.append(max(gap for _, gap in solved))
                decades_since_best = (len(errors) - 1 - int(np.argmin(errors))) / ALPHAS_PER_DECADE
                if decades_since_best > 1.5 or alpha < top * SMALLEST_EPS:
                    break
                alpha *= 10 ** (-1 / ALPHAS_PER_DECADE)
            i = int(np.argmin(errors))
            if errors[i] < best:
                best, self.alpha_, self.l1_ratio_, self.gap_ = errors[i], alphas[i], ratio, gaps[i]
                self.at_edge_ = i >= len(errors) - 2
        self.coef_, gap = whole.coef(self.alpha_, self.l1_ratio_, GAP * best / 2)
        self.gap_ = max(gap, self.gap_)
        self.intercept_ = y.mean() - X.mean(axis=0) @ self.coef_


class _Part:
    """Moments of a training part, and its held-out rows."""

    def __init__(self, X, y, X_test, y_test):
        self.x_mean, self.y_mean = X.mean(axis=0), y.mean()
        X, y = X - self.x_mean, y - self.y_mean
        self.gram, self.moment, self.power = X.T @ X / len(y), X.T @ y / len(y), y @ y / len(y)
        self.X_test, self.y_test = X_test - self.x_mean, y_test - self.y_mean

    def coef(self, alpha, ratio, max_gap):
        ridge = max(alpha * (1 - ratio), 1e-14 * np.trace(self.gram) / len(self.moment))
        gram = self.gram + ridge * np.eye(len(self.moment))
        return elastic_net(gram, self.moment, alpha * ratio, power=self.power, max_gap=max_gap)

    def solve(self, alpha, ratio, max_gap):
        w, gap = self.coef(alpha, ratio, max_gap)
        return np.mean((self.y_test - self.X_test @ w) ** 2), gap
