"""The honest score: the whole procedure, selection included, rerun without the rows that judge it.

`best_score_` is the score of the row that won, on the rows that chose it. The guard repeats tuning and selection on the
training rows of each outer fold and scores the result on rows that took no part; no decision reads it.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import PredefinedSplit, TimeSeriesSplit
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params

from .boundary import Split

NOT_NEEDED = "guard_cv='auto' runs no guard: no free decays were fitted, so best_score_ is as honest as GridSearchCV's."
SWITCHED_OFF = "guard_cv=None runs no guard."
ONE_SPLIT = "cv gives one split, which leaves no rows to rerun the search on; set guard_cv."
HOLD_OUTS = "cv=None holds out random rows of a network, which are no folds to rerun the search on; set guard_cv."
NO_TIME = "The time limit left no time for the guard."
NO_REFIT = "The guard scores refitted models; it needs refit=True or the name of a score."
INTERRUPTED = "The search or the guard was interrupted."


class Guard(NamedTuple):
    """What the guard found: the mean score and each outer fold's, or nan and the reason why."""

    score: float
    scores: NDArray[np.float64]
    reason: str = ""

    @classmethod
    def without(cls, reason: str) -> "Guard":
        """No score."""
        return cls(np.nan, np.empty(0), reason)


def inner_folds(cv: Any, splits: Sequence[Split], outer: Split, k: int | None) -> Any:
    """What plays the part of `cv` inside an outer fold.

    Parameters
    ----------
    cv : splitter or None
        As `check_cv` returns it; None if the search chooses its folds by itself.
    splits : sequence of Split
        The folds of `cv`.
    outer : Split
        The outer fold.
    k : int or None
        Its number among `splits`; None if it is not one of them.

    Returns
    -------
    inner : splitter or list of (train, validation)
        A splitter again, where it can split any rows; else those of `splits` that remain, cut to the outer training
        rows: all but k, and for TimeSeriesSplit the earlier ones.
    """
    in_time = isinstance(cv, TimeSeriesSplit)
    if not in_time and not _knows_its_rows(cv):
        return cv
    remaining = [split for j, split in enumerate(splits) if k is None or (j < k if in_time else j != k)]
    position = {row: i for i, row in enumerate(outer.train.tolist())}
    inner = [tuple(np.array([position[r] for r in part.tolist() if r in position]) for part in s) for s in remaining]
    return [(train, held) for train, held in inner if len(train) and len(held)]


def _knows_its_rows(cv: Any) -> bool:
    """Whether a splitter is a list of row numbers in disguise."""
    return isinstance(cv, PredefinedSplit) or type(cv).__name__ == "_CVIterableWrapper"


def guard(
    search: Any,
    x: Any,
    y: Any,
    params: Mapping[str, Any],
    folds: Sequence[tuple[Split, Any]],
    score: Callable[[Any, NDArray[np.int64]], float],
    n_jobs: int | None = None,
) -> Guard:
    """Rerun a search on each outer fold and score what it chose.

    Parameters
    ----------
    search : estimator
        Unfitted, with `cv` among its parameters and without a guard of its own.
    x, y : array-like
    params : mapping
        All parameters of `search.fit`.
    folds : sequence of (Split, cv)
        Outer folds and the inner `cv` of each.
    score : callable
        (fitted best estimator, rows) -> score.
    n_jobs : int, optional
        Outer folds at once; the backend is joblib's current one.
    """
    folds = [(outer, cv) for outer, cv in folds if not isinstance(cv, list) or cv]
    if not folds:
        return Guard.without(ONE_SPLIT)
    jobs = (delayed(_rerun)(search, x, y, params, outer, cv, score) for outer, cv in folds)
    try:
        scores = np.array(Parallel(n_jobs=n_jobs)(jobs))
    except KeyboardInterrupt:
        return Guard.without(INTERRUPTED)
    return Guard(float(scores.mean()), scores)


def _rerun(search: Any, x: Any, y: Any, params: Mapping[str, Any], outer: Split, cv: Any, score: Any) -> float:
    part = [_safe_indexing(values, outer.train) for values in (x, y)]
    rerun = clone(search).set_params(cv=cv)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the search itself has said it
        rerun.fit(*part, **_check_method_params(x, params, outer.train))
    return float(score(rerun.best_estimator_, outer.validation))
