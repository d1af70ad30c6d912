"""`cv` as GridSearchCV reads it, and two things more: folds that the smallest class can fill, and random splits."""

import math
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.model_selection import KFold, ShuffleSplit, StratifiedKFold, StratifiedShuffleSplit, check_cv
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from ..boundary import Split, check_splits

DEFAULT_FOLDS = 5
HELD_OUT = 0.2
# Random splits of a network's rows: no more than this, and no more than hold out so many rows together.
MOST_SPLITS, ENOUGH_ROWS = 3, 400


def resolve_cv(cv: Any, y: Any, *, classifier: bool, random_state: Any = None, network: bool = False) -> Any:
    """A splitter.

    Parameters
    ----------
    cv : None, int, float, splitter or iterable
        None: `DEFAULT_FOLDS` folds, or as many as the smallest class has members, at least 2. A float: one random
        split that holds out this share. All else as `sklearn.model_selection.check_cv`.
    y : array-like
    classifier : bool
        Whether int and None stratify, and a float too.
    random_state : int, RandomState or None
        Of the one random split.
    network : bool
        Whether None is random splits instead that each hold out `HELD_OUT`: one, or up to `MOST_SPLITS` of few rows.
    """
    if cv is None and network:
        return _random_splits(HELD_OUT, y, classifier, random_state)
    if cv is None:
        return check_cv(default_folds(y, classifier), y, classifier=classifier)
    if isinstance(cv, Real) and not isinstance(cv, Integral):
        stratify = classifier and type_of_target(y) in ("binary", "multiclass")
        splitter = StratifiedShuffleSplit if stratify else ShuffleSplit
        return splitter(n_splits=1, test_size=float(cv), random_state=random_state)
    return check_cv(cv, y, classifier=classifier)


def _random_splits(share: float, y: Any, classifier: bool, random_state: Any) -> Any:
    """Random splits, stratified where every class has rows for both parts."""
    n_rows, splitter = _num_samples(y), ShuffleSplit
    if classifier and type_of_target(y) in ("binary", "multiclass"):
        counts = np.unique(np.asarray(y), return_counts=True)[1]
        n_held = math.ceil(share * n_rows)
        if counts.min() >= 2 and len(counts) <= min(n_held, n_rows - n_held):
            splitter = StratifiedShuffleSplit
    n_splits = min(MOST_SPLITS, math.ceil(ENOUGH_ROWS / math.ceil(share * n_rows)))
    return splitter(n_splits=n_splits, test_size=share, random_state=random_state)


def two_halves(y: Any, weight: Any, classifier: bool, random_state: Any) -> list[Split] | None:
    """Random halves of the rows that have weight, which hold out each other, stratified where there are classes.

    None where a half would have no rows, or none of a class: it would have nothing to be fitted to.
    """
    rows = np.arange(_num_samples(y)) if weight is None else np.flatnonzero(weight)
    stratified = classifier and type_of_target(y) in ("binary", "multiclass")
    strata = np.asarray(y)[rows] if stratified else np.zeros(len(rows))
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return None
    splitter = (StratifiedKFold if stratified else KFold)(2, shuffle=True, random_state=random_state)
    return [Split(rows[train], rows[held]) for train, held in splitter.split(strata, strata)]


def default_folds(y: Any, classifier: bool) -> int:
    """The number of folds when nobody says."""
    smallest = _num_samples(y)
    if classifier and type_of_target(y) in ("binary", "multiclass"):
        smallest = np.unique(np.asarray(y), return_counts=True)[1].min()
    return int(max(2, min(DEFAULT_FOLDS, smallest)))


def split_rows(cv: Any, x: Any, y: Any, params: Mapping[str, Any]) -> list[Split]:
    """The folds of a splitter, checked."""
    n_splits = cv.get_n_splits(x, y, **params)
    splits = check_splits(list(cv.split(x, y, **params)), _num_samples(x))
    if len(splits) != n_splits:
        raise ValueError(
            f"cv.split and cv.get_n_splits return inconsistent results. Expected {n_splits} splits, got {len(splits)}"
        )
    return splits
