"""Which score decides: the user's, where it was named and the outer loss does not stand for it; else the loss."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.dummy import DummyRegressor
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics._scorer import _BaseScorer
from sklearn.pipeline import Pipeline
from torch import Tensor

from ..adapters.task import Target, Task
from ..boundary import Split
from ..core.decays import Hyper
from .scoring import Scoring, scoring_name

LOSS = "loss"
# Scores that are no mean over a fold's rows: their twin ranks models on one fold, but not by the mean over folds.
OF_A_FOLD = ("r2", "neg_root_mean_squared_error", "explained_variance")


def metric_name(scoring: Any, refit: Any) -> str:
    """What a fitted search calls the score that decides; "loss" where none was named.

    Parameters
    ----------
    scoring : None, str, callable, list, tuple, set or dict
        As GridSearchCV's.
    refit : bool, str or callable
        Of several scores, the name of the one that decides.
    """
    if scoring is None or (isinstance(scoring, list | tuple | set | dict) and not isinstance(refit, str)):
        return LOSS
    if isinstance(refit, str):
        return refit
    known = scoring_name(scoring, refit)
    if known is not None:
        return known
    function = scoring._score_func if isinstance(scoring, _BaseScorer) else scoring
    return str(getattr(function, "__name__", type(function).__name__))


def twin_name(target: Target, y: Any, scoring: Any, refit: Any) -> str | None:
    """The name of the score that decides, for the look-up of its twin; None where the target changes its shape."""
    name = scoring_name(scoring, refit)
    return name if name is None or _common_factor(target.estimator, y) else None


def stands_for(target: Target, twin: str | None) -> bool:
    """Whether the outer loss ranks models as the score of this name does, on one fold and in the mean over folds."""
    transformed = any(one.transformer is not None or one.func is not None for one in _target_transformers(target))
    if twin is None or twin in OF_A_FOLD or transformed:
        return False
    n_outputs = max(1, len(target.output_names))
    return twin in target.adapter.twins(target.leaf.estimator, n_outputs)


def _target_transformers(target: Target) -> list[TransformedTargetRegressor]:
    """Those around the estimator that is tuned, the outermost first."""
    found, estimator = [], target.estimator
    while isinstance(estimator, Pipeline | TransformedTargetRegressor):
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
        else:
            found.append(estimator)
            estimator = estimator.regressor
    return found


def _common_factor(estimator: Any, y: Any) -> bool:
    """Whether all that is done to the targets is to shift them and to multiply them by one number."""
    values = y
    while isinstance(estimator, Pipeline | TransformedTargetRegressor):
        if isinstance(estimator, Pipeline):
            estimator = estimator.steps[-1][1]
            continue
        if estimator.transformer is not None or estimator.func is not None:
            before = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
            alone = TransformedTargetRegressor(
                DummyRegressor(),
                transformer=estimator.transformer,
                func=estimator.func,
                inverse_func=estimator.inverse_func,
                check_inverse=False,
            ).fit(np.zeros((len(before), 1)), values)
            after = np.asarray(alone.transformer_.transform(before), dtype=np.float64).reshape(len(before), -1)
            if after.shape != before.shape or not _is_shifted_multiple(before, after):
                return False
            values = after if np.ndim(values) > 1 else after[:, 0]
        estimator = estimator.regressor
    return True


def _is_shifted_multiple(before: Any, after: Any) -> bool:
    """Whether after = factor * before + shifts, one shift a column."""
    before, after = before - before.mean(axis=0), after - after.mean(axis=0)
    size = float((before**2).sum())
    if not np.isfinite(after).all() or size == 0:
        return False
    factor = float((before * after).sum()) / size
    return bool(np.linalg.norm(after - factor * before) <= 1e-9 * np.linalg.norm(after))


class FoldJudge:
    """Scores of weights on every fold's own validation rows, by scikit-learn's scorer: the core's `Judge`."""

    def __init__(self, task: Task, splits: Sequence[Split], scoring: Scoring, refit: Any):
        self._task, self._refit = task, refit
        self._folds = [scoring.take(split.validation) for split in splits]

    def __call__(self, hyper: Hyper, w: Tensor) -> Tensor:
        """(C,) hyperparameters and (C, K, n_weights) weights -> (C, K) scores."""
        out = torch.full(w.shape[:2], torch.nan, dtype=torch.float64)
        sound = w.isfinite().all(-1)
        alphas = hyper.log_alpha.exp().tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UndefinedMetricWarning)  # of points that nobody may choose
            for k in range(w.shape[1]):
                rows = sound[:, k].nonzero()[:, 0].tolist()
                fitted = [self._task.fitted(k, w[i], alphas[i], 0) for i in rows]
                if fitted:
                    scores = [one_of(score, self._refit) for score in self._folds[k].of_all(fitted)]
                    out[rows, k] = torch.tensor(scores, dtype=torch.float64)
        return out


def one_of(score: Any, refit: Any) -> float:
    """The score that decides, of those that a scorer gives; nan where nobody said which."""
    if isinstance(score, dict):
        return float(score[refit]) if isinstance(refit, str) else np.nan
    return float(score)
