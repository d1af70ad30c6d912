"""Searches that judge ridge regression on all rows at once: leave-one-out, GCV, evidence."""

import time
from dataclasses import replace
from numbers import Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, RegressorMixin

from ..adapters.task import Task
from ..algorithms import resolve
from ..boundary import Split, to_numpy
from ..core.algorithms.analytic import Analytic, AnalyticResponse
from ..core.algorithms.base import Algorithm
from ..core.criteria import Criterion, Evidence, GeneralisedCrossValidation, LeaveOneOut
from ..core.problem import Problem
from ..core.procedure import Plan
from ..core.result import Result
from .job import Job
from .judging import LOSS
from .plan import check_exponents
from .scoring import Scoring, row_columns
from .search import HyperTrainingSearchCV


def check_criterion(criterion: str, exponent: Any, shrinkage: Any) -> None:
    """Whether a criterion goes with the exponents and the free decays that are asked for.

    Raises
    ------
    ValueError
        If the family, or several widths of the prior, are asked for beside a criterion without held-out rows.
    """
    if criterion == "cv":
        return
    if check_exponents(exponent):
        raise ValueError(
            f"criterion={criterion!r} needs exponent=2 or 'auto', got exponent={exponent!r}: decays of the family are "
            "fitted to the rows that would be left out; set criterion='cv'."
        )
    if not (shrinkage is None or isinstance(shrinkage, str | Real)):
        raise ValueError(
            f"criterion={criterion!r} needs one number, None or 'auto' as shrinkage, got shrinkage={shrinkage!r}: "
            "there are no held-out rows that could choose among several; set criterion='cv'."
        )


class Predictions(RegressorMixin, BaseEstimator):
    """Predictions in the clothes of a fitted estimator, for scorers: X is what it predicts."""

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, X: Any) -> Any:
        """X.

        Parameters
        ----------
        X : ndarray
            Predictions.

        Returns
        -------
        y : ndarray
            The same.
        """
        return X


class CriterionSearch(HyperTrainingSearchCV):
    """All rows are one fold, whose outer loss is a criterion; scores are those of left-out rows.

    The folds of `cv` are for the guard.
    """

    criterion: ClassVar[Criterion]

    def _check(self, X: Any, y: Any, params: dict[str, Any]) -> Job:
        if sparse.issparse(X):
            name = next(name for name, kind in SEARCHES.items() if isinstance(self, kind))
            raise ValueError(
                f"criterion={name!r} needs a dense X, whose rows' leverages it computes, got a sparse matrix of shape "
                f"{X.shape}; set criterion='cv' or pass X.toarray()."
            )
        return super()._check(X, y, params)._replace(selection=LOSS, by_loss=True)

    def _encode(self, job: Job, splits: list[Split] | None) -> Task:
        return super()._encode(job, None)

    def _resolve(self, problem: Problem) -> Algorithm:
        return Analytic(self.criterion, resolve(self.algorithm, problem))

    def _plan(self, task: Task, algorithm: Any) -> Plan:
        return replace(super()._plan(task, algorithm), log_scale=self.criterion.log_scale)

    def _score(self, job: Job, task: Task, result: Result, plan: Plan) -> None:
        response = result.response
        assert isinstance(response, AnalyticResponse)
        out = []
        for row in result.snapshots:
            start = time.perf_counter()
            left_out = to_numpy(response.left_out(row.hyper))
            score = _score_predictions(job.scoring, left_out[:, 0] if np.ndim(job.y) == 1 else left_out)
            seconds = {"fit_time": row.seconds, "score_time": time.perf_counter() - start}
            out.append({"test_scores": score, "n_test_samples": len(left_out), **seconds})
        adapter = job.target.adapter
        candidates = [{job.target.parameter: adapter.value(self._alpha(row))} for row in result.snapshots]
        self.multimetric_, self.n_splits_ = False, 1
        self.cv_results_ = self._format_results(candidates, 1, out, row_columns(result, plan.taus))


class LeaveOneOutSearch(CriterionSearch):
    """Leave-one-out."""

    criterion = LeaveOneOut()


class GCVSearch(CriterionSearch):
    """Generalised cross-validation."""

    criterion = GeneralisedCrossValidation()


class EvidenceSearch(CriterionSearch):
    """Type II maximum likelihood."""

    criterion = Evidence()


SEARCHES: dict[str, type[CriterionSearch]] = {"loo": LeaveOneOutSearch, "gcv": GCVSearch, "evidence": EvidenceSearch}


def _score_predictions(scoring: Scoring, predictions: NDArray[np.float64]) -> float:
    """The score of predictions of all rows."""
    return float(scoring._replace(x=predictions).take(np.arange(len(predictions)))(Predictions()))
