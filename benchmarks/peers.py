"""The regression models of the linear benchmark: scikit-learn's, himalaya's, and ours."""

from functools import partial

import numpy as np
from sklearn.cluster import AgglomerativeClustering
from sklearn.linear_model import ARDRegression, LassoCV, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, cross_val_score

from benchmarks.lasso_path import ConvergedElasticNetCV
from benchmarks.runner import Fitted, Model

ALPHAS = np.logspace(-6, 6, 61)
COARSE_ALPHAS = np.logspace(-6, 6, 20)
L1_RATIOS = (0.1, 0.5, 0.9)

# Ours: the constructor's arguments of each variant. The first is the one that the bars are about.
OURS = {
    "ours": {},
    "ours_guard": {"guard_cv": 5},
}


def ours(split, **settings):
    from skhyper import HyperTrainedRidge

    model = HyperTrainedRidge(**settings).fit(split.X_train, split.y_train)
    return Fitted(
        model,
        at_edge=_at_bounds(model),
        n_hyperparameters=getattr(model, "n_hyperparameters_", np.nan),
        guard_score=_scalar(getattr(model, "guard_score_", np.nan)),
    )


def _at_bounds(model):
    """Whether the search says that alpha went to an end of its range."""
    from skhyper.core.result import StopReason

    return model.stop_reason_ in (StopReason.AT_BOUND.value, StopReason.AT_LIMIT.value)


def _scalar(value):
    return float(np.ravel(value)[0])


def _ends(value, grid):
    return bool(np.isclose(value, [np.min(grid), np.max(grid)]).any())


def ridge_cv(split, alphas=ALPHAS):
    model = RidgeCV(alphas).fit(split.X_train, split.y_train)
    return Fitted(model, _ends(model.alpha_, alphas), 1)


def grid_search(split):
    model = GridSearchCV(Ridge(), {"alpha": COARSE_ALPHAS}, cv=5, scoring="neg_mean_squared_error")
    model.fit(split.X_train, split.y_train)
    return Fitted(model, _ends(model.best_params_["alpha"], COARSE_ALPHAS), 1)


def elastic_net(split, l1_ratios=(1.0,)):
    model = ConvergedElasticNetCV(l1_ratios).fit(split.X_train, split.y_train)
    return Fitted(model, model.at_edge_, 1 + (len(l1_ratios) > 1), converged=True)


def lasso_default(split, scored=False):
    """LassoCV(cv=5) as it comes; `scored` adds the outer cross-validation that gives it an honest score."""
    model = LassoCV(cv=5).fit(split.X_train, split.y_train)
    score = cross_val_score(LassoCV(cv=5), split.X_train, split.y_train, cv=5).mean() if scored else np.nan
    return Fitted(model, np.min(model.alphas_) == model.alpha_, 1, guard_score=score)


def ard(split):
    model = ARDRegression(max_iter=1000).fit(split.X_train, split.y_train)
    return Fitted(model, False, split.X_train.shape[1] + 1, converged=model.n_iter_ < 1000)


def group_ridge(split):
    """himalaya: one decay for linear terms, one for squares, one for products; else for four clusters of columns."""
    from himalaya.ridge import GroupRidgeCV

    groups = split.terms
    if len(np.unique(groups)) == 1:
        distance = 1 - np.abs(np.corrcoef(split.X_train, rowvar=False))
        cluster = AgglomerativeClustering(4, metric="precomputed", linkage="complete")
        groups = cluster.fit_predict(np.clip(distance, 0, 1))
    settings = {"n_iter": 100, "alphas": ALPHAS[::2], "progress_bar": False, "warn": False}
    for seed in range(5):
        model = GroupRidgeCV(groups=groups, solver_params=settings, fit_intercept=True, cv=5, random_state=seed)
        try:
            model.fit(split.X_train, split.y_train)
        except np.linalg.LinAlgError:  # some draws of the groups' weights are too far apart for LAPACK's SVD
            continue
        break
    alpha = 1 / np.exp(model.deltas_).sum(axis=0)
    return Fitted(model, _ends(alpha, ALPHAS), len(np.unique(groups)))


MODELS = {
    **{name: Model(partial(ours, **settings), counted=False) for name, settings in OURS.items()},
    "ridge_cv": Model(ridge_cv),
    "lasso_cv": Model(elastic_net),
    "elastic_net_cv": Model(partial(elastic_net, l1_ratios=L1_RATIOS)),
    "ard": Model(ard),
    "grid_search_ridge": Model(grid_search),
    "group_ridge_cv": Model(group_ridge),
    "ridge_cv_default": Model(partial(ridge_cv, alphas=(0.1, 1.0, 10.0)), counted=False),
    "lasso_cv_default": Model(lasso_default, counted=False),
    "lasso_cv_default_scored": Model(partial(lasso_default, scored=True), counted=False),
}


def mse_ratio(estimator, split):
    """Test mean squared error as a share of the variance of the test targets."""
    error = np.ravel(estimator.predict(split.X_test)) - split.y_test
    return float(np.mean(error**2) / np.var(split.y_test))
