"""Scores of snapshots: scikit-learn's scorers on each fold's own validation rows, as GridSearchCV would have them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.metrics._scorer import _BaseScorer
from sklearn.model_selection._validation import _score
from sklearn.utils import _safe_indexing
from sklearn.utils.validation import _check_method_params

from ..adapters.task import Task
from ..boundary import Split, users_torch
from ..core.result import Result, Snapshot
from .batched_metrics import batched


def scoring_name(scoring: Any, refit: Any) -> str | None:
    """The name of the score that decides, if it has one: it may have a differentiable twin.

    Parameters
    ----------
    scoring : None, str, callable, list, tuple or dict
        As GridSearchCV's.
    refit : bool, str or callable
        Of several scores, the name of the one that decides.
    """
    if isinstance(scoring, dict):
        scoring = scoring.get(refit) if isinstance(refit, str) else None
    elif isinstance(scoring, list | tuple | set):
        scoring = refit if isinstance(refit, str) else None
    if isinstance(scoring, str) or not isinstance(scoring, _BaseScorer):
        return scoring if isinstance(scoring, str) else None
    return next((name for name in get_scorer_names() if repr(get_scorer(name)) == repr(scoring)), None)


class Scoring(NamedTuple):
    """A scorer and the data it reads."""

    scorer: Callable[..., Any]
    x: Any
    y: Any
    params: Mapping[str, Any]
    error_score: Any

    def take(self, rows: NDArray[np.int64]) -> "Scoring":
        """The same on some of the rows."""
        x, y = _safe_indexing(self.x, rows), _safe_indexing(self.y, rows)
        return self._replace(x=x, y=y, params=_check_method_params(self.x, self.params, rows))

    def __call__(self, fitted: Any) -> Any:
        """The score, or a dict of scores, of a fitted estimator."""
        with users_torch():
            return _score(fitted, self.x, self.y, self.scorer, self.params, self.error_score)

    def of_all(self, fitted: Sequence[Any]) -> list[Any]:
        """The score of each, in one call where there is a way to."""
        scores, y = batched(self.scorer, fitted[0], self.params), np.asarray(self.y)
        if scores is not None and y.ndim == 1:
            with users_torch():
                found = scores(fitted, self.x, y)
            if found is not None:
                return list(found.tolist())
        return [self(one) for one in fitted]


class OneScore(NamedTuple):
    """Of a scorer that gives several scores, the one of a name."""

    scoring: Scoring
    name: str | None

    def __call__(self, fitted: Any, rows: NDArray[np.int64]) -> float:
        """The score of a fitted estimator on some rows."""
        scores = self.scoring.take(rows)(fitted)
        return float(scores[self.name] if isinstance(scores, dict) else scores)


def alpha_of(snapshot: Snapshot) -> float:
    """The global alpha of a snapshot."""
    return float(snapshot.hyper.log_alpha.exp())


def score_snapshots(
    task: Task, result: Result, splits: Sequence[Split], scoring: Scoring, *, train: bool, n_iter: int
) -> list[dict[str, Any]]:
    """One entry for each snapshot and fold, in the form from which GridSearchCV makes its `cv_results_`."""
    by_fold = []
    for k, split in enumerate(splits):
        fitted = [task.fitted(k, snapshot.w, alpha_of(snapshot), n_iter) for snapshot in result.snapshots]
        start = time.perf_counter()
        columns = {"test_scores": scoring.take(split.validation).of_all(fitted)}
        columns["score_time"] = [(time.perf_counter() - start) / len(fitted)] * len(fitted)
        columns["fit_time"] = [snapshot.seconds / len(splits) for snapshot in result.snapshots]
        columns["n_test_samples"] = [len(split.validation)] * len(fitted)
        if train:
            columns["train_scores"] = scoring.take(split.train).of_all(fitted)
        by_fold.append([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)])
    return [entry for row in zip(*by_fold, strict=True) for entry in row]


def row_columns(result: Result, taus: Sequence[float]) -> dict[str, list[Any]]:
    """What `cv_results_` says of each row beside parameters, times and scores."""
    stiffness = iter(taus)
    rows = result.snapshots
    return {
        "snapshot": [row.name for row in rows],
        "exponent": [float(row.hyper.exponent) for row in rows],
        "shrinkage": [next(stiffness) if row.family is None and row.hyper.offsets is not None else 0.0 for row in rows],
        "n_hyperparameters": [row.n_hyperparameters for row in rows],
        "mean_outer_loss": [float(row.fold_losses.mean()) for row in rows],
    }
