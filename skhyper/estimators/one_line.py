"""What the one-line classifiers share: a search over one linear model, whose findings become their own attributes."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import sklearn
from sklearn.base import BaseEstimator, _fit_context
from sklearn.linear_model._base import LinearClassifierMixin
from sklearn.metrics import get_scorer_names
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.validation import validate_data

from ..adapters.class_weights import class_weights
from ..adapters.registry import adapter_for
from .search import HyperTrainingSearchCV

# Parameters that are handed on to the search.
SHARED = (
    "granularity",
    "decay_groups",
    "cv",
    "exponent",
    "shrinkage",
    "alpha_bounds",
    "guard_cv",
    "max_iter",
    "tol",
    "time_limit",
    "n_jobs",
    "random_state",
    "verbose",
)

# Findings of a search that a one-line estimator keeps under the same name.
KEPT = (
    "alphas_",
    "baseline_score_",
    "best_estimator_",
    "best_score_",
    "cv_results_",
    "exponent_",
    "guard_reason_",
    "guard_score_",
    "history_",
    "hypergradient_error_",
    "n_hyperparameters_",
    "n_iter_",
    "shrinkage_",
    "stop_reason_",
    "total_time_",
)


class OneLineClassifier(LinearClassifierMixin, BaseEstimator, ABC):
    """A linear classifier that tunes its own decays."""

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **{name: HyperTrainingSearchCV._parameter_constraints[name] for name in SHARED},
        "scoring": [StrOptions(set(get_scorer_names())), callable, None],
        "fit_intercept": ["boolean"],
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        granularity: str = "auto",
        *,
        decay_groups: Any = None,
        cv: Any = None,
        scoring: Any = None,
        exponent: Any = "auto",
        shrinkage: Any = "auto",
        alpha_bounds: Any = (1e-8, 1e8),
        guard_cv: Any = "auto",
        fit_intercept: bool = True,
        class_weight: Any = None,
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
        self.scoring = scoring
        self.exponent = exponent
        self.shrinkage = shrinkage
        self.alpha_bounds = alpha_bounds
        self.guard_cv = guard_cv
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @abstractmethod
    def _model(self, class_weight: Any) -> Any:
        """The scikit-learn estimator whose decay is tuned."""

    def _all_rows_class_weight(self, y: Any, sample_weight: Any) -> Any:
        """`class_weight`, with "balanced" read off all rows, the same for every fold."""
        labels = np.asarray(y)
        labels = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
        if self.class_weight != "balanced" or labels.ndim != 1:
            return self.class_weight
        classes = np.unique(labels)
        return dict(zip(classes, class_weights("balanced", classes, labels, sample_weight), strict=True))

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> "OneLineClassifier":
        """Tune the decays on the folds of `cv` and fit all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,)
            Class labels.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows, in training and in validation.
        groups : array-like of shape (n_samples,), default=None
            Handed to the splitter.

        Returns
        -------
        self : estimator
            Fitted.
        """
        settings = {name: getattr(self, name) for name in (*SHARED, "scoring")}
        given = {"sample_weight": sample_weight, "groups": groups}
        with sklearn.config_context(enable_metadata_routing=False):
            model = self._model(self._all_rows_class_weight(y, sample_weight))
            search = HyperTrainingSearchCV(model, **settings)
            search.fit(X, y, **{name: value for name, value in given.items() if value is not None})
        validate_data(self, X, skip_check_array=True)
        for name in KEPT:
            setattr(self, name, getattr(search, name))
        best = search.best_estimator_
        self.classes_, self.coef_, self.intercept_ = best.classes_, best.coef_, best.intercept_
        adapter = adapter_for(best)
        self.alpha_ = adapter.alpha(*search.best_params_.values())
        self.baseline_alpha_ = adapter.alpha(*search.cv_results_["params"][0].values())
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
