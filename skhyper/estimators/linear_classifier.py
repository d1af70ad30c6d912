"""What the one-line classifiers share."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from sklearn.base import clone
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.utils._param_validation import StrOptions

from ..adapters.class_weights import class_weights
from ..adapters.task import make_target
from ..boundary import GRANULARITIES, Split
from .job import Job
from .linear import SHARED, HyperTrainedLinear
from .search import HyperTrainingSearchCV


class BalancedSearch(HyperTrainingSearchCV):
    """A search whose folds share the weights of classes: "balanced" is read off all rows that fit is given.

    The guard's reruns are given, and read, their training rows alone.
    """

    def _check(self, X: Any, y: Any, params: dict[str, Any], splits: list[Split] | None = None) -> Job:
        job = super()._check(X, y, params, splits)
        labels = np.asarray(job.y)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if self.estimator.class_weight != "balanced" or labels.ndim != 1:
            return job
        classes = job.target.classes
        weights = dict(zip(classes, class_weights("balanced", classes, labels, job.sample_weight), strict=True))
        return job._replace(target=make_target(clone(self.estimator).set_params(class_weight=weights), y))


class HyperTrainedLinearClassifier(LinearClassifierMixin, HyperTrainedLinear):
    """A linear classifier with tuned decays."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **HyperTrainedLinear._parameter_constraints,
        "granularity": [StrOptions(set(GRANULARITIES))],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        granularity: str = "feature",
        *,
        decay_groups: Any = None,
        cv: Any = None,
        exponent: Any = "auto",
        shrinkage: Any = "auto",
        guard_cv: Any = None,
        alpha_bounds: str | tuple[float, float] = "auto",
        fit_intercept: bool = True,
        class_weight: Any = None,
        scoring: Any = None,
        max_iter: int = 200,
        tol: float = 1e-6,
        time_limit: float | None = None,
        n_jobs: int | None = None,
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.granularity = granularity
        self.decay_groups = decay_groups
        self.cv = cv
        self.exponent = exponent
        self.shrinkage = shrinkage
        self.guard_cv = guard_cv
        self.alpha_bounds = alpha_bounds
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.scoring = scoring
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    _own_scoring = "accuracy"

    @abstractmethod
    def _model(self) -> Any:
        """The scikit-learn estimator whose decay is tuned."""

    def _search(self, y: Any) -> HyperTrainingSearchCV:
        names = (*SHARED, "exponent", "shrinkage", "scoring")
        return BalancedSearch(self._model(), **{name: getattr(self, name) for name in names})

    def _keep(self, search: HyperTrainingSearchCV) -> None:
        self.best_estimator_ = search.best_estimator_.set_params(class_weight=self.class_weight)
        self.classes_ = search.classes_
