"""From the rows of a search to its fitted attributes: scores, the row to keep, what was learnt."""

import pickle
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from ..adapters.task import Task
from ..core.problem import NetworkProblem
from ..core.procedure import Plan
from ..core.result import Record, Result, Snapshot, StopReason
from ..core.selection import choose, choose_by_score
from ..guard import Guard
from .job import Job
from .judging import LOSS
from .networks import choose_row
from .plan import check_bounds
from .progress import as_columns
from .response import response_curve
from .scoring import alpha_of, row_columns, score_snapshots


class SearchResults:
    """What a search does with its rows, beside what GridSearchCV's base does."""

    def _score(self, job: Job, task: Task, result: Result, plan: Plan) -> None:
        """`cv_results_`, with GridSearchCV's keys."""
        n_iter = len(result.history)
        out = score_snapshots(task, result, job.splits, job.scoring, train=self.return_train_score, n_iter=n_iter)
        self._format(job, out, [self._alpha(row) for row in result.snapshots], row_columns(result, plan.taus))

    def _format(self, job: Job, out: list[dict[str, Any]], alphas: list[float], columns: dict[str, list[Any]]) -> None:
        """`cv_results_` from the scores of every row and fold."""
        first = out[0]["test_scores"]
        self.multimetric_ = isinstance(first, dict)
        if callable(self.scoring) and self.multimetric_:
            self._check_refit_for_multimetric(first)
        candidates = [{job.target.parameter: job.target.adapter.value(alpha)} for alpha in alphas]
        self.n_splits_ = len(job.splits)
        self.cv_results_ = self._format_results(candidates, self.n_splits_, out, columns)

    def _select(self, job: Job, task: Task, result: Result, plan: Plan) -> None:
        """The row to keep: by the paired rule, unless one was asked for."""
        if self.multimetric_ and not self.refit:
            return
        metric = self.refit if self.multimetric_ else job.metric
        if callable(self.refit):
            index = self._select_best_index(self.refit, metric, self.cv_results_)
        elif isinstance(self.shrinkage, Real) or (isinstance(self.exponent, Real) and not plan.taus):
            index = len(result.snapshots) - 1
        elif isinstance(task.encoding.problem, NetworkProblem):
            index = choose_row(task.encoding.problem, result, self._seed)
        else:
            index = self._choose(result, plan, metric)
        self._keep(job, index)

    def _keep(self, job: Job, index: int) -> None:
        """A row of `cv_results_` as the one to keep."""
        metric = self.refit if self.multimetric_ else job.metric
        self.best_index_ = index
        if not callable(self.refit):
            means = self.cv_results_[f"mean_test_{metric}"]
            self.best_score_, self.baseline_score_ = means[self.best_index_], means[0]
        self.best_params_ = self.cv_results_["params"][self.best_index_]

    def _choose(self, result: Result, plan: Plan, metric: str) -> int:
        """The paired rule: by the outer losses, or by the score that decides, whose ties the losses break.

        Scores of free decays in `cv_results_` flatter them; here they are those of folds that these did not see.
        """
        losses = result.losses.numpy()
        if plan.judge is None:
            return choose(losses, plan.standard_errors)
        scores = np.stack([self.cv_results_[f"split{k}_test_{metric}"] for k in range(self.n_splits_)], axis=1)
        for i, row in enumerate(result.snapshots):
            if row.scores is not None:
                scores[i] = row.scores.numpy()
        if not np.isfinite(scores).all(axis=1).any():
            self.selection_metric_ = LOSS
        return choose_by_score(scores, losses, plan.standard_errors)

    def _alpha(self, row: Snapshot) -> float:
        """A row's alpha; the way through its logarithm does not lead out of the bounds."""
        given = check_bounds(self.alpha_bounds) is not None
        return float(np.clip(alpha_of(row), *self.alpha_bounds)) if given else alpha_of(row)

    def _names(self) -> None:
        """Names of the features, where the estimator has them."""
        if hasattr(self.best_estimator_, "feature_names_in_"):
            self.feature_names_in_ = self.best_estimator_.feature_names_in_

    def _store_run(self, job: Job, history: Sequence[Record], reason: StopReason) -> None:
        """Who judged, every evaluation, and why there were no more."""
        scorers = job.scoring.scorer
        self.scorer_ = getattr(scorers, "_scorers", scorers) if self.multimetric_ else scorers
        self.history_ = as_columns(tuple(history))
        self.n_iter_ = len(history)
        self.stop_reason_ = reason.value

    def _store_choice(self, curve: Any, exponent: float, shrinkage: float, n_fitted: int, error: float) -> None:
        """What was fitted to held-out rows, and the loss along alpha."""
        self._curve = curve
        self.response_range_ = tuple(np.exp(curve[0][[0, -1]]).tolist())
        self.exponent_, self.shrinkage_ = exponent, shrinkage
        self.n_hyperparameters_, self.hypergradient_error_ = n_fitted, error

    def _store(self, job: Job, result: Result) -> None:
        """What the search learnt, in plain types."""
        self._store_run(job, result.history, result.stop_reason)
        if result.checkpoint is not None:
            self._checkpoint, self._splits = pickle.dumps(result.checkpoint), job.splits
            self._n_rows = len(job.y)
        if hasattr(self, "best_index_"):
            chosen = result.snapshots[self.best_index_]
            curve, shrinkage = response_curve(result, self.best_index_), self.cv_results_["shrinkage"][self.best_index_]
            exponent = float(chosen.hyper.exponent)
            self._store_choice(curve, exponent, shrinkage, chosen.n_hyperparameters, chosen.error)
            if chosen.cosine is not None:
                self.hypergradient_cosine_ = chosen.cosine

    def _store_guard(self, guard: Guard) -> None:
        self.guard_score_, self.guard_scores_, self.guard_reason_ = guard
