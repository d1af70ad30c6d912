"""`cv` as GridSearchCV reads it, and two things more: folds that the smallest class can fill, and random splits.

Splits of our own (random shares, two halves) keep copies of a row together (`skhyper/copies.py`).
"""

import math
from collections.abc import Iterable, Mapping
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import (
    BaseShuffleSplit,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    StratifiedShuffleSplit,
    check_cv,
)
from sklearn.utils import _safe_indexing
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import _num_samples

from ..boundary import Split, check_splits
from ..copies import Copies, find_copies

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
    stratify = classifier and type_of_target(y) in ("binary", "multiclass")
    if cv is None and network:
        stratify = "where possible" if stratify else "no"
        return RandomSplits(HELD_OUT, stratify=stratify, n_splits=None, random_state=random_state)
    if cv is None:
        return check_cv(default_folds(y, classifier), y, classifier=classifier)
    if isinstance(cv, Real) and not isinstance(cv, Integral):
        return RandomSplits(float(cv), stratify="always" if stratify else "no", random_state=random_state)
    return check_cv(cv, y, classifier=classifier)


class RandomSplits(BaseShuffleSplit):
    """Random splits, in which copies of a row are on one side.

    Parameters
    ----------
    test_size : float
        The share of the different rows that is held out.
    stratify : {"no", "where possible", "always"}
        Whether classes have the same share on both sides; "where possible": where each class has rows for both, and
        with copies "always" is that too.
    n_splits : int or None
        None: one, or up to `MOST_SPLITS` where they hold out fewer than `ENOUGH_ROWS` different rows together.
    random_state : int, RandomState or None
    """

    def __init__(self, test_size: float, *, stratify: str = "no", n_splits: int | None = 1, random_state: Any = None):
        super().__init__(n_splits=n_splits, test_size=test_size, random_state=random_state)
        self.stratify = stratify

    def get_n_splits(self, X: Any = None, y: Any = None, groups: Any = None) -> int:
        """The number of splits of these rows."""
        return self.n_splits or len(self.of(X, y))

    def _iter_indices(self, X: Any, y: Any = None, groups: Any = None) -> Any:
        return iter(self.of(X, y))

    def of(self, x: Any, y: Any, weight: NDArray[np.float64] | None = None) -> list[Split]:
        """The splits of these rows; those of weight zero are on neither side."""
        rows, copies = _kinds(x, y, weight)
        labels = np.asarray(y)[rows][copies.first]
        splitter = StratifiedShuffleSplit if self._stratifies(labels, copies) else ShuffleSplit
        n_splits = self.n_splits or min(MOST_SPLITS, math.ceil(ENOUGH_ROWS / math.ceil(self.test_size * len(labels))))
        drawn = splitter(n_splits=n_splits, test_size=self.test_size, random_state=self.random_state)
        return _as_rows(rows, copies, drawn.split(labels, labels))

    def _stratifies(self, labels: NDArray[Any], copies: Copies) -> bool:
        if self.stratify == "no":
            return False
        if self.stratify == "always" and len(labels) == len(copies.index):
            return True
        counts = np.unique(labels, return_counts=True)[1]
        n_held = math.ceil(self.test_size * len(labels))
        return bool(counts.min() >= 2 and len(counts) <= min(n_held, len(labels) - n_held))


def _kinds(x: Any, y: Any, weight: NDArray[np.float64] | None) -> tuple[NDArray[np.intp], Copies]:
    """Numbers of the rows that have weight, and what of them is held out together."""
    rows = np.arange(_num_samples(y)) if weight is None else np.flatnonzero(weight)
    own = [_safe_indexing(values, rows) for values in (x, y)]
    return rows, find_copies(own[:1], own[1:], None if weight is None else weight[rows]).together()


def _as_rows(rows: NDArray[np.intp], copies: Copies, splits: Iterable[Any]) -> list[Split]:
    """Splits of kinds as splits of all their rows; in the order of the kinds where each has one row."""

    def members(kinds: NDArray[np.intp]) -> NDArray[np.int64]:
        return rows[kinds] if copies.none else rows[copies.members(kinds)]

    return [Split(members(train), members(held)) for train, held in splits]


def two_halves(y: Any, weight: Any, classifier: bool, random_state: Any, x: Any = None) -> list[Split] | None:
    """Random halves of the rows that have weight, which hold out each other, stratified where there are classes.

    None where a half would have no rows, or none of a class: it would have nothing to be fitted to. Rows are copies of
    others if they have their features as well; without `x` none are.
    """
    rows, copies = _kinds(np.arange(_num_samples(y)) if x is None else x, y, weight)
    stratified = classifier and type_of_target(y) in ("binary", "multiclass")
    strata = np.asarray(y)[rows][copies.first] if stratified else np.zeros(len(copies.first))
    if np.unique(strata, return_counts=True)[1].min() < 2:
        return None
    splitter = (StratifiedKFold if stratified else KFold)(2, shuffle=True, random_state=random_state)
    return _as_rows(rows, copies, splitter.split(strata, strata))


def default_folds(y: Any, classifier: bool) -> int:
    """The number of folds when nobody says."""
    smallest = _num_samples(y)
    if classifier and type_of_target(y) in ("binary", "multiclass"):
        smallest = np.unique(np.asarray(y), return_counts=True)[1].min()
    return int(max(2, min(DEFAULT_FOLDS, smallest)))


def split_rows(
    cv: Any, x: Any, y: Any, params: Mapping[str, Any], weight: NDArray[np.float64] | None = None
) -> list[Split]:
    """The folds of a splitter, checked; of our own one those of the rows that have weight."""
    if isinstance(cv, RandomSplits):
        return check_splits(cv.of(x, y, weight), _num_samples(x))
    n_splits = cv.get_n_splits(x, y, **params)
    splits = check_splits(list(cv.split(x, y, **params)), _num_samples(x))
    if len(splits) != n_splits:
        raise ValueError(
            f"cv.split and cv.get_n_splits return inconsistent results. Expected {n_splits} splits, got {len(splits)}"
        )
    return splits
