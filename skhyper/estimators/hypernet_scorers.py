"""Scores of predictive distributions, for `scoring=` in cross-validation and searches."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..adapters.unwrap import inner_with


def log_prob_scorer(estimator: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Give the mean log density of held-out targets, in their own unit; higher is better.

    Parameters
    ----------
    estimator : estimator
        Fitted: a HypernetRegressor, or a pipeline or a search that ends in one.
    X : array-like of shape (n_samples, n_features)
        Data.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observations.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    score : float
        Mean log density.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.model_selection import cross_val_score
    >>> from skhyper import HypernetRegressor, log_prob_scorer
    >>> X, y = make_regression(60, 3, noise=10.0, random_state=0)
    >>> cross_val_score(HypernetRegressor(random_state=0), X, y, cv=2, scoring=log_prob_scorer).shape
    (2,)
    """
    inner, x = inner_with(estimator, X, "log_prob")
    return float(np.average(inner.log_prob(x, y), weights=sample_weight))


def crps_scorer(estimator: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Give minus the mean continuous ranked probability score; higher is better.

    Parameters
    ----------
    estimator : estimator
        Fitted: a HypernetRegressor, or a pipeline or a search that ends in one.
    X : array-like of shape (n_samples, n_features)
        Data.
    y : array-like of shape (n_samples,) or (n_samples, n_targets)
        Observations.
    sample_weight : array-like of shape (n_samples,), default=None
        Weights of the rows.

    Returns
    -------
    score : float
        Minus the mean score over rows and targets.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.model_selection import cross_val_score
    >>> from skhyper import HypernetRegressor, crps_scorer
    >>> X, y = make_regression(60, 3, noise=10.0, random_state=0)
    >>> cross_val_score(HypernetRegressor(random_state=0), X, y, cv=2, scoring=crps_scorer).shape
    (2,)
    """
    inner, x = inner_with(estimator, X, "crps")
    scores = np.asarray(inner.crps(x, y))
    return -float(np.average(scores.reshape(len(scores), -1).mean(1), weights=sample_weight))
