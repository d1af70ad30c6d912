"""Whether and on which folds a search is guarded."""

import warnings
from copy import copy
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier

from ..adapters.network import NetworkAdapter
from ..core.loop import Budget
from ..core.result import StopReason
from ..guard import (
    HOLD_OUTS,
    INTERRUPTED,
    NO_REFIT,
    NO_TIME,
    NOT_NEEDED,
    ONE_SPLIT,
    SWITCHED_OFF,
    Guard,
    guard,
    inner_folds,
)
from .scoring import OneScore
from .splits import resolve_cv, split_rows


def guard_search(search: Any, job: Any, free: bool, budget: Budget, reason: StopReason) -> Guard:
    """Run the guard of a fitted search, if there is one to run.

    Parameters
    ----------
    search : HyperTrainingSearchCV
        Fitted, guard apart.
    job : Job
        What it was fitted to.
    free : bool
        Whether free decays were fitted.
    budget : Budget
        Of the search; the guard has what is left of its time.
    reason : StopReason
        Why the search ended: there is no guard after an interruption.
    """
    if reason is StopReason.INTERRUPTED:
        return Guard.without(INTERRUPTED)
    if search.guard_cv is None:
        return Guard.without(SWITCHED_OFF)
    automatic = isinstance(search.guard_cv, str)
    if automatic and not free:
        return Guard.without(NOT_NEEDED)
    if not search.refit or (search.multimetric_ and not isinstance(search.refit, str)):
        return Guard.without(NO_REFIT)
    if automatic and len(job.splits) == 1:
        return Guard.without(ONE_SPLIT)
    if automatic and search.cv is None and isinstance(job.target.adapter, NetworkAdapter):
        return Guard.without(HOLD_OUTS)
    left = budget.time_limit - budget.seconds
    if left <= 0:
        return Guard.without(NO_TIME)
    outer = job.splits
    if not automatic:
        cv = resolve_cv(search.guard_cv, job.y, classifier=is_classifier(search.estimator))
        outer = split_rows(cv, job.x, job.y, job.routed.splitter.split, job.sample_weight)
    numbers = range(len(outer)) if automatic else [None] * len(outer)
    given = None if search.cv is None else job.cv
    folds = [(split, inner_folds(given, job.splits, split, k)) for k, split in zip(numbers, outer, strict=True)]
    limit = search.time_limit if np.isinf(left) else left / len(outer)
    bare = copy(search).set_params(cv=None, guard_cv=None)  # which may be generators, and have no clone
    rerun = clone(bare).set_params(time_limit=limit, n_jobs=None, verbose=0)
    score = OneScore(job.scoring, search.refit if search.multimetric_ else None)
    try:
        return guard(rerun, job.x, job.y, job.params, folds, score, search.n_jobs)
    except (ValueError, ArithmeticError) as error:
        if search.error_score == "raise":
            raise
        warnings.warn(f"The guard failed, guard_score_ is nan: {error}", UserWarning, stacklevel=4)
        return Guard.without(f"The guard failed: {error}")
