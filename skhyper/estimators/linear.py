"""What HyperTrainedRidge and its kin share: a search over one linear model, and its result as their own attributes."""

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, _fit_context
from sklearn.metrics import get_scorer, get_scorer_names
from sklearn.utils._metadata_requests import _raise_for_params, _routing_enabled
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.metadata_routing import UNUSED, MetadataRouter, MethodMapping, process_routing
from sklearn.utils.validation import _num_samples, check_is_fitted, validate_data

from ..adapters.registry import adapter_for
from ..core.problem import Problem
from ..core.procedure import Plan
from ..core.refit import AVERAGE, average
from ..core.result import Result
from .all_or_nothing import all_or_nothing, forget
from .judging import LOSS
from .plan import AVERAGED_EXPONENTS
from .search import HyperTrainingSearchCV

# Parameters that mean the same as HyperTrainingSearchCV's.
SHARED = (
    "granularity",
    "decay_groups",
    "cv",
    "guard_cv",
    "alpha_bounds",
    "max_iter",
    "tol",
    "time_limit",
    "n_jobs",
    "random_state",
    "verbose",
)
# Attributes of a fitted search that are theirs, too.
LEARNT = (
    "alphas_",
    "exponent_",
    "shrinkage_",
    "n_hyperparameters_",
    "best_index_",
    "best_score_",
    "baseline_score_",
    "guard_score_",
    "guard_scores_",
    "guard_reason_",
    "cv_results_",
    "history_",
    "n_iter_",
    "stop_reason_",
    "hypergradient_error_",
    "refit_time_",
    "n_features_in_",
)


class AveragingSearch(HyperTrainingSearchCV):
    """A search with one more row: the average over exponents that predicts held-out rows best.

    Where free decays were fitted, their rows compete instead.
    """

    _auto_exponents = AVERAGED_EXPONENTS

    def _rows(self, problem: Problem, result: Result) -> Result:
        if len(result.snapshots) == 1 or result.snapshots[-1].hyper.offsets is not None:
            return result
        result = average(problem, result)
        exponents = [float(row.hyper.exponent) for row in result.snapshots]
        self.exponent_weights_ = dict(zip(exponents, result.snapshots[-1].mixture, strict=False))
        return result

    def _choose(self, result: Result, plan: Plan, metric: str) -> int:
        """The average, which is drawn back to row 0 already; row 0 where nothing is left of it."""
        weights = getattr(self, "exponent_weights_", None)
        if weights is None:
            return super()._choose(result, plan, metric)
        return len(result.snapshots) - 1 if weights[2.0] < 1 else 0


class HyperTrainedLinear(BaseEstimator, ABC):
    """A linear model with tuned decays."""

    __metadata_request__fit: ClassVar[dict[str, str]] = {"groups": UNUSED}  # the splitter's, not the model's
    _own_scoring: ClassVar[str]  # where `scoring` is None

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{name: HyperTrainingSearchCV._parameter_constraints[name] for name in (*SHARED, "exponent", "shrinkage")},
        "guard_cv": [StrOptions({"auto"}), "cv_object"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "fit_intercept": ["boolean"],
    }

    @abstractmethod
    def _search(self, y: Any) -> HyperTrainingSearchCV:
        """The search that fits this model to targets y."""

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=True)
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        **params: Any,
    ) -> Self:
        """Tune the decays and fit the coefficients to all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,) or float, default=None
            Weights of the rows, in training and in the loss of held-out rows.
        groups : array-like of shape (n_samples,), default=None
            Handed to the splitter.
        **params : dict
            Where metadata routing is on: what else the splitter and the scorer request.

        Returns
        -------
        self : estimator
            Fitted.
        """
        forget(self)
        _raise_for_params(params, self, "fit")
        if isinstance(sample_weight, Real):
            sample_weight = np.full(_num_samples(X), sample_weight)
        given = {"sample_weight": sample_weight, "groups": groups, **params}
        given = {name: value for name, value in given.items() if value is not None}
        search = self._search(y)
        if _routing_enabled():
            process_routing(self, "fit", **given)
            search.estimator.set_fit_request(sample_weight=True)
            search.scoring = self._scorer()
        search.fit(X, y, **given)
        for name in LEARNT:
            setattr(self, name, getattr(search, name))
        self.selection_metric_ = search.selection_metric_ if self.scoring is not None else LOSS
        if hasattr(search, "feature_names_in_"):
            self.feature_names_in_ = search.feature_names_in_
        model = search.best_estimator_
        self.coef_, self.intercept_ = model.coef_, model.intercept_
        decays = np.array(list(search.alphas_.values()))
        self.alpha_ = float(decays[0]) if self.granularity == "global" else decays
        adapter, rows = adapter_for(model), search.cv_results_["params"]
        self.family_alpha_, self.baseline_alpha_ = (adapter.alpha(*rows[i].values()) for i in (self.best_index_, 0))
        averaged = search.cv_results_["snapshot"][self.best_index_] == AVERAGE
        self.exponent_weights_ = search.exponent_weights_ if averaged else {self.exponent_: 1.0}
        self.total_time_ = search.total_time_
        self._keep(search)
        return self

    def get_metadata_routing(self) -> MetadataRouter:
        """Metadata routing of this object: weights for itself, the splitter's metadata, and the scorer's.

        Returns
        -------
        routing : MetadataRouter
            Which metadata `fit` hands to whom.
        """
        router = MetadataRouter(owner=self).add_self_request(self)
        router.add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))
        return router.add(scorer=self._scorer(), method_mapping=MethodMapping().add(caller="fit", callee="score"))

    def _scorer(self) -> Any:
        """The scorer, with what it requests; one that nobody named is weighted as the fit is."""
        scorer = get_scorer(self.scoring or self._own_scoring)
        return scorer if self.scoring is not None else scorer.set_score_request(sample_weight=True)

    def _keep(self, search: HyperTrainingSearchCV) -> None:
        """Attributes that only some of the models have."""

    def _decision(self, X: ArrayLike) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse="csr", dtype=[np.float64, np.float32], reset=False)
        return safe_sparse_dot(X, self.coef_.T, dense_output=True) + self.intercept_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
