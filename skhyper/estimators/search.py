"""HyperTrainingSearchCV: GridSearchCV's place, with hypergradients instead of a grid."""

import time
from copy import deepcopy
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from sklearn.base import _fit_context, is_classifier
from sklearn.model_selection._search import BaseSearchCV
from sklearn.utils import get_tags, indexable
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _check_method_params

from ..adapters.network import NetworkAdapter
from ..adapters.self_trained import SelfTrainedAdapter
from ..adapters.task import Task, make_task
from ..algorithms import NAMES, Algorithm, resolve
from ..boundary import GRANULARITIES, Split, plain_targets, to_numpy, torch_session
from ..core.algorithms.base import Algorithm as CoreAlgorithm
from ..core.hypertraining import TrainingPlan
from ..core.loop import Budget
from ..core.problem import NetworkProblem, Problem
from ..core.procedure import Plan, tune
from ..core.refit import refit
from ..core.result import Result, StopReason
from .all_or_nothing import all_or_nothing, forget
from .checks import check_data, check_fit_params, tell_callbacks, tell_missing
from .continued_search import ContinuedSearch
from .endings import ending, tell_end
from .fitted_search import FittedSearch
from .guarding import guard_search
from .hypernet_adapters import HypernetAdapter as HypernetAdapter  # imported, so that they are registered
from .job import Job
from .judging import LOSS, FoldJudge, metric_name, stands_for, twin_name
from .networks import (
    PRECISIONS,
    Halves,
    check_precision,
    in_precision,
    make_training_plan,
    refit_network,
    same_columns,
    tune_network,
)
from .plan import EXPONENTS, TUNED, check_bounds, check_exponents, check_shrinkage, make_plan, resolve_granularity
from .progress import Watch
from .scoring import Scoring
from .search_results import SearchResults
from .self_trained import (
    missing_classes,
    refit_self_trained,
    refuse_settings,
    scan,
    scanned_curve,
    score_folds,
    stage_columns,
)
from .splits import resolve_cv, split_rows, two_halves

# Private attributes of a fitted search.
PRIVATE = ("_checkpoint", "_curve", "_feature_decays", "_moved", "_n_rows", "_seed", "_splits")


class HyperTrainingSearchCV(ContinuedSearch, FittedSearch, SearchResults, BaseSearchCV):
    """Tune L2 decays, as fine as they pay, by the gradient of the held-out loss.

    Takes GridSearchCV's place: ``HyperTrainingSearchCV(Ridge())`` for ``GridSearchCV(Ridge(), {"alpha": ...})``. The
    estimator's training loss with the penalty ``1/2 sum_j alpha_j w_j^2`` is minimised in every fold, and the decays
    go down the gradient of the mean validation loss over folds, through those minimisers. First the one global alpha
    (row 0), then the family

        alpha_g = alpha (mean_g(w^2) / s^2 + eps)^((q - 2) / 2)

    with few fitted numbers (alpha, q): q = 2 is ridge, q = 1 the (group) Lasso; then, where asked for, free decays
    around it. Row 0 is left only for a clear gain over the folds.

    The one alpha of HypernetRegressor and HypernetClassifier is scanned instead: each fold trains several alphas as
    members of one batch, decades around the estimator's own, further ones while the best is at an end, and half decades
    beside the best. Held-out likelihood decides, or the score that `scoring` names; the best alpha is fitted to all
    rows by the estimator itself. Then `granularity`, `algorithm`, `exponent` and `shrinkage` stay as they are.

    Parameters
    ----------
    estimator : estimator
        Ridge, RidgeClassifier, LogisticRegression, LinearSVC, LinearSVR, PoissonRegressor, GammaRegressor,
        TweedieRegressor, HuberRegressor, SGDRegressor, SGDClassifier, MLPRegressor, MLPClassifier, HypernetRegressor
        or HypernetClassifier, or skorch's NeuralNetRegressor, NeuralNetClassifier or NeuralNetBinaryClassifier, alone,
        at the end of a Pipeline or in a TransformedTargetRegressor; its loss and penalty must be smooth. Samplers in a
        pipeline of imbalanced-learn resample the training rows of each fold, never held-out rows.
    granularity : {"auto", "global", "layer", "output", "feature", "weight"}, default="auto"
        Which weights share a decay: all; those of a layer; those of an output; those of a feature, for all outputs;
        none. "auto" is "feature". In a neural network an output is a unit or filter of any layer, a feature is what a
        unit reads, and "auto" is "global".
    decay_groups : array-like of shape (n_features,) or dict, default=None
        Features with equal entries share a decay. The features are those that the final estimator sees; a dict maps
        their names to groups.
    algorithm : str or Algorithm, default="auto"
        How weights and hypergradients are computed; see `skhyper.algorithms`. "auto" takes the closed form for
        squared losses, else implicit differentiation. Linear models: "closed_form", "implicit". Neural networks:
        "implicit", "joint", "simplified", "global", "unrolled", "t1t2".
    cv : int, float, splitter, iterable or None, default=None
        As GridSearchCV's; None is 5 folds, or as many as the smallest class fills, at least 2, and for neural networks
        random splits of 20 % (one, two of fewer than 2,000 rows, three of fewer than 1,000), and two halves that hold
        out each other for the global alpha where weights memorise early; a float holds out this share once.
    scoring : str, callable, list, tuple, dict or None, default=None
        As GridSearchCV's: scores the rows of `cv_results_`. Decays go down the differentiable twin of the score that
        decides (mean squared error, log-loss, deviances), or the estimator's own loss where it has none. For a linear
        model such a score then chooses among all alphas that were tried, and among the rows; of equal scores the lowest
        loss. None: the estimator's own `score` is reported, and the loss decides.
    refit : bool, str or callable, default=True
        As GridSearchCV's.
    exponent : "auto", "tuned", float or array-like of float, default="auto"
        The exponent q, between 0.5 and 2. "auto" tries 1.5, 1, 0.75 and 0.5; an array its values; a number fixes q.
        In a neural network q is at least 1, every layer has an alpha of its own beside it, and "tuned" moves a q of
        each layer. "auto" is "tuned" there, if a layer has several decays, each of several weights, and the algorithm
        is "implicit" or "t1t2".
    shrinkage : "auto", float, array-like of float or None, default="auto"
        Standard deviation, in units of log alpha, of the prior that pulls free decays to the family. A number fits
        free decays and keeps them; an array tries its values; infinity is no prior; "auto" and None fit none, but for
        neural networks with several decays and no family, where "auto" is 1.
    alpha_bounds : "auto" or tuple of (float, float), default="auto"
        Smallest and largest alpha, in the estimator's own unit; of 1 / C for estimators with a C. "auto" is relative to
        the data: from where all weights are shrunk to nothing to where none is shrunk any more. Give numbers only to
        keep alpha away from values that the data would choose; a warning says so where the answer lies on a bound.
    guard_cv : "auto", int, splitter, iterable or None, default="auto"
        Outer folds that rerun the whole search for `guard_score_`. "auto": the folds of `cv`, if free decays are
        fitted, but none where a neural network's rows are held out at random; None: no guard.
    max_iter : int, default=200
        Most hypergradient steps of a stage, or alphas of a scan. The length of a neural network's training follows from
        its own max_iter.
    tol : float, default=1e-6
        Hypergradient at which a stage ends, in units of the log of a squared loss or of the loss itself. Where alphas
        of an exponent are scanned, its own is the vertex of a parabola, whatever the tolerance.
    time_limit : float or None, default=None
        Seconds after which the best model so far is kept; a batch of alphas that is being trained is finished first.
    n_jobs : int or None, default=None
        Folds preprocessed, and guard folds run, at once.
    dtype : {"float64", "float32"}, default="float64"
        Precision of the training steps of neural networks; "float32" is faster where layers are wide. All else is in
        float64, as linear models are.
    random_state : int, RandomState instance or None, default=None
        Of the random splits when `cv` is a float, and of neural networks whose own random_state is None.
    verbose : int, default=0
        1 prints a line a stage, 2 a line a step.
    error_score : "raise" or float, default=nan
        The score where scoring fails. With "raise", a class without training rows in a fold is an error too, else a
        warning.
    return_train_score : bool, default=False
        Whether `cv_results_` holds training scores.

    Attributes
    ----------
    best_estimator_ : estimator
        The user's own class with the tuned weights, fitted on all rows.
    best_params_ : dict
        The global equivalent, with nested names: for granularity="global" fitting the estimator with it gives
        `best_estimator_`. Of a family it is its alpha, which may be far from the decays themselves: these are in
        `alphas_` and in `refit_estimator()`.
    best_score_, best_index_, cv_results_, scorer_, n_splits_, refit_time_, multimetric_
        As GridSearchCV's; a row of `cv_results_` is a stage of the search, row 0 the tuned global alpha.
    classes_, n_features_in_, feature_names_in_
        Of `best_estimator_`.
    alphas_ : dict of str to float
        Decay of each feature, output, group or weight; infinite where the weights are exact zeros. Names are strings:
        "all", a feature's, an output's (a class label or target as text), a group's, or "feature[output]" for a single
        weight where there are several outputs. In an MLP they are parts of `coefs_` ("coefs_[0]", a unit
        "coefs_[0][:, 3]", what a unit reads "coefs_[1][3]", a weight "coefs_[0][1, 3]"), in a module of torch those of
        its parameters ("0.weight[3]").
    exponent_, shrinkage_ : float
        q of the chosen row, and the prior of its free decays (0: none).
    n_hyperparameters_ : int
        Numbers that were fitted to held-out loss.
    baseline_score_ : float
        Score of the tuned global alpha.
    selection_metric_ : str
        What decided: the name of a score that `scoring` names, or "loss", the outer loss: where `scoring` is None or
        names several scores and `refit` none of them, where no row has a finite score, for a neural network's score
        without a differentiable twin, and where free decays are kept because `shrinkage` is a number.
    guard_score_, guard_scores_, guard_reason_ : float, ndarray, str
        Mean score over outer folds in which the whole search was rerun, each fold's, and why there is none.
    n_iter_, history_, stop_reason_ : int, dict of lists, str
        Evaluations, each of them, and why the search ended.
    hypergradient_error_ : float
        Relative residual of the inner problem at the chosen row: its gradient over that of the constant model, in the
        norm of the inverse curvature; or of the adjoint equation if that is larger. For neural networks the relative
        error of the hypergradient against one by many steps of conjugate gradients at the same weights; nan after a
        scan.
    hypergradient_cosine_ : float
        The cosine of these two; for neural networks only.
    response_range_ : tuple of (float, float)
        Alphas that `validation_curve` and `best_response` know.
    total_time_ : float
        Seconds.

    Raises
    ------
    TypeError
        If the estimator or one of its settings has no differentiable L2 objective.
    ValueError
        If data, folds or parameters cannot be used; the message names parameter, rule and value.

    Warns
    -----
    ConvergenceWarning
        If the answer lies on a bound that was given, if `max_iter` ended a stage, if the weights of an inner problem
        did not converge, or if a held-out loss was not finite. Of neural networks: if alpha was still moving at the
        end, or if the final steps on all rows diverged and were undone. The message names the parameter to change.

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> from sklearn.linear_model import Ridge
    >>> from skhyper import HyperTrainingSearchCV
    >>> X, y = load_diabetes(return_X_y=True)
    >>> search = HyperTrainingSearchCV(Ridge(), granularity="global").fit(X, y)
    >>> print(search.best_estimator_)
    Ridge(alpha=0.00049...)
    """

    _auto_exponents: ClassVar[tuple[float, ...]] = EXPONENTS

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "estimator": [HasMethods(["fit"])],
        "granularity": [StrOptions({"auto", "layer", *GRANULARITIES})],
        "decay_groups": ["array-like", dict, None],
        "algorithm": [StrOptions(set(NAMES)), Algorithm],
        "cv": ["cv_object", Interval(Real, 0, 1, closed="neither")],
        "scoring": BaseSearchCV._parameter_constraints["scoring"],
        "refit": ["boolean", str, callable],
        "exponent": [StrOptions({"auto", TUNED}), Interval(Real, 0.5, 2, closed="both"), "array-like"],
        "shrinkage": [StrOptions({"auto"}), Interval(Real, 0, np.inf, closed="right"), "array-like", None],
        "alpha_bounds": [StrOptions({"auto"}), "array-like"],
        "guard_cv": [StrOptions({"auto"}), "cv_object"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "time_limit": [Interval(Real, 0, None, closed="neither"), None],
        "n_jobs": [Integral, None],
        "dtype": [StrOptions(set(PRECISIONS))],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
        "error_score": [StrOptions({"raise"}), Real],
        "return_train_score": ["boolean"],
    }

    def __init__(
        self,
        estimator,
        *,
        granularity="auto",
        decay_groups=None,
        algorithm="auto",
        cv=None,
        scoring=None,
        refit=True,
        exponent="auto",
        shrinkage="auto",
        alpha_bounds="auto",
        guard_cv="auto",
        max_iter=200,
        tol=1e-6,
        time_limit=None,
        n_jobs=None,
        dtype="float64",
        random_state=None,
        verbose=0,
        error_score=np.nan,
        return_train_score=False,
    ):
        self.estimator = estimator
        self.granularity = granularity
        self.decay_groups = decay_groups
        self.algorithm = algorithm
        self.cv = cv
        self.scoring = scoring
        self.refit = refit
        self.exponent = exponent
        self.shrinkage = shrinkage
        self.alpha_bounds = alpha_bounds
        self.guard_cv = guard_cv
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        self.error_score = error_score
        self.return_train_score = return_train_score

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags = deepcopy(get_tags(self.estimator).target_tags)
        tags.array_api_support = False
        return tags

    @all_or_nothing
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Tune on the folds of `cv`, choose a row, and fit it to all rows.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Training data; for skorch's nets an array of shape (n_samples, ...) as their modules read it.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        **params : dict
            As GridSearchCV's: `groups` for the splitter, `sample_weight` and others for the estimator; routed where
            metadata routing is on.

        Returns
        -------
        self : HyperTrainingSearchCV
            Fitted.
        """
        forget(self, *PRIVATE)
        budget = Budget(np.inf if self.time_limit is None else self.time_limit, self.max_iter)
        job = self._check(X, y, params)
        self.selection_metric_ = job.selection
        watch = Watch(self, X, y, self.verbose)
        if isinstance(job.target.adapter, SelfTrainedAdapter):
            reason = self._scan(job, budget, watch)
            self._store_guard(guard_search(self, job, False, budget, reason))
        else:
            with torch_session(job.work):
                task = self._encode(job, job.splits)
                algorithm = self._resolve(task.encoding.problem)
                plan = self._plan(task, algorithm)
                if isinstance(plan, Plan) and not job.by_loss:
                    plan = replace(plan, judge=FoldJudge(task, job.splits, job.scoring, self.refit))
                self._check_columns(job, task)
                result = self._rows(task.encoding.problem, self._tune(job, task, algorithm, plan, budget, watch))
                reason = self._finish(job, task, algorithm, result, plan, budget)
            self._store_guard(guard_search(self, job, bool(plan.taus), budget, reason))
        self.total_time_ = budget.seconds
        watch.end()
        return self

    def _finish(self, job: Job, task: Task, algorithm: Any, result: Result, plan: Any, budget: Budget) -> StopReason:
        """From the stages' rows to fitted attributes; why all of it ended."""
        self._score(job, task, result, plan)
        self._select(job, task, result, plan)
        if not isinstance(task.encoding.problem, NetworkProblem) and hasattr(self, "best_index_"):
            result = replace(result, stop_reason=ending(self, result, self.best_index_, algorithm))
        tell_end(self, job.target, result.stop_reason)
        cut_short = self._refit(job, task, algorithm, result, budget) if self.refit else None
        if cut_short is not None:
            tell_end(self, job.target, cut_short)
            result = replace(result, stop_reason=cut_short)
        self._store(job, result)
        return result.stop_reason

    def _scan(self, job: Job, budget: Budget, watch: Watch) -> StopReason:
        """The alpha of an estimator that trains itself: scan, score, refit, store."""
        refuse_settings(self)
        tell_missing(missing_classes(job), self.error_score)
        scanned = scan(self, job, budget, watch)
        out = score_folds(job, scanned, self.return_train_score)
        self._format(job, out, [scanned.alpha], stage_columns(scanned))
        if not self.multimetric_ or self.refit:
            self._keep(job, 0)
        if self.refit:
            start = time.perf_counter()
            self.best_estimator_ = refit_self_trained(job, scanned)
            self.refit_time_ = time.perf_counter() - start
            self._names()
        self.alphas_, self._feature_decays = {"all": scanned.alpha}, None
        self._store_run(job, scanned.journal.records, scanned.stop_reason)
        if hasattr(self, "best_index_"):
            self._store_choice(scanned_curve(scanned), 2.0, 0.0, 1, np.nan)
        return scanned.stop_reason

    def _tune(self, job: Job, task: Task, algorithm: Any, plan: Any, budget: Budget, watch: Watch) -> Result:
        """The stages of the search."""
        if not isinstance(task.encoding.problem, NetworkProblem):
            return tune(task.encoding.problem, algorithm, plan, budget, watch)
        result, self._seed = tune_network(task, algorithm, plan, budget, self.random_state, watch, self._halves(job))
        return result

    def _halves(self, job: Job) -> Halves:
        """A network's problem with two folds that hold out each other, where the folds are the search's own choice."""

        def encoded() -> NetworkProblem | None:
            splits = two_halves(job.y, job.sample_weight, is_classifier(self.estimator), self.random_state, job.x)
            if splits is None:
                return None
            problem = self._encode(job, splits).encoding.problem
            assert isinstance(problem, NetworkProblem)
            return problem

        return encoded if self.cv is None else None

    def _check(self, X: Any, y: Any, params: dict[str, Any], splits: list[Split] | None = None) -> Job:
        """Everything that can be wrong with data and parameters, before any work; folds are those of `cv` or given."""
        check_bounds(self.alpha_bounds)
        check_exponents(self.exponent)
        check_shrinkage(self.shrinkage)
        self._granularity(False)
        scorers, metric = self._get_scorers()
        X, y = indexable(X, plain_targets(y))
        target, sample_weight = check_data(self.estimator, X, y, params)
        params = _check_method_params(X, params=params)
        routed = self._get_routed_params_for_fit(params)
        check_fit_params(target, routed.estimator.fit)
        check_precision(self.dtype, target.adapter)
        tell_callbacks(target)
        network = isinstance(target.adapter, NetworkAdapter | SelfTrainedAdapter)
        classifier = is_classifier(self.estimator)
        cv = resolve_cv(self.cv, y, classifier=classifier, random_state=self.random_state, network=network)
        splits = split_rows(cv, X, y, routed.splitter.split, sample_weight) if splits is None else splits
        scoring = Scoring(scorers, X, y, routed.scorer.score, self.error_score)
        twin, selection = twin_name(target, y, self.scoring, self.refit), metric_name(self.scoring, self.refit)
        by_loss = selection == LOSS or stands_for(target, twin) or isinstance(target.adapter, NetworkAdapter)
        if not stands_for(target, twin) and (by_loss or isinstance(self.shrinkage, Real)):
            selection = LOSS
        return Job(X, y, params, routed, target, sample_weight, cv, splits, scoring, metric, twin, selection, by_loss)

    def _granularity(self, network: bool) -> str:
        return resolve_granularity(self.granularity, self.decay_groups, network)

    def _encode(self, job: Job, splits: list[Split] | None) -> Task:
        task = make_task(
            job.target,
            job.x,
            job.y,
            splits,
            granularity=self._granularity(isinstance(job.target.adapter, NetworkAdapter)),
            decay_groups=self.decay_groups,
            sample_weight=job.sample_weight,
            params=job.routed.estimator.fit,
            scoring=job.twin,
            n_jobs=self.n_jobs,
        )
        tell_missing(task.encoding.missing, self.error_score)
        return in_precision(task, self.dtype)

    def _plan(self, task: Task, algorithm: Any) -> Plan | TrainingPlan:
        taus = check_shrinkage(self.shrinkage)
        if taus and task.columns is not None:
            raise ValueError(
                f"shrinkage={self.shrinkage!r} fits free decays, which all folds share, but preprocessing gives folds "
                "different columns; set shrinkage=None."
            )
        bounds = check_bounds(self.alpha_bounds)
        if isinstance(task.encoding.problem, NetworkProblem):
            return make_training_plan(task.encoding.problem, algorithm, self.exponent, self.shrinkage, taus, bounds)
        if isinstance(self.exponent, str) and self.exponent == TUNED:
            raise ValueError(f"exponent={TUNED!r} is for neural networks; give a linear model numbers, or 'auto'.")
        competes = not isinstance(self.shrinkage, Real)
        exponents = check_exponents(self.exponent)
        return make_plan(task.encoding.problem, exponents, taus, bounds, self.tol, competes, self._auto_exponents)

    def _check_columns(self, job: Job, task: Task) -> None:
        """Decays of a network's columns need the columns that the final network will have."""
        of_columns = self.decay_groups is not None or self.granularity in ("feature", "weight")
        if not isinstance(task.encoding.problem, NetworkProblem) or not job.target.leaf.path or not of_columns:
            return
        if self.refit and not np.array_equal(task.names, self._encode(job, None).names):
            raise ValueError(
                f"granularity={self.granularity!r} gives columns decays, but preprocessing gives all rows other "
                "columns than the folds of cv; use transformers whose columns do not depend on the rows, or a coarser "
                "granularity."
            )

    def _resolve(self, problem: Problem) -> CoreAlgorithm:
        """The core's algorithm."""
        return resolve(self.algorithm, problem)

    def _rows(self, problem: Problem, result: Result) -> Result:
        """What selection chooses from: every stage's snapshot."""
        return result

    def _refit(
        self, job: Job, tuned: Task, algorithm: CoreAlgorithm, result: Result, budget: Budget
    ) -> StopReason | None:
        """The chosen row on all rows; what cut the training of a network short."""
        start, cut_short = time.perf_counter(), None
        task = self._encode(job, None)
        alpha = self._alpha(result.snapshots[self.best_index_])
        if isinstance(task.encoding.problem, NetworkProblem):
            how = budget, same_columns(tuned, task, job.x, job.y, job.splits[0]), self.random_state
            final = refit_network(task, result, self.best_index_, alpha, *how)
            self.best_estimator_, self._moved, found, cut_short = final
        else:
            refitted = refit(task.encoding.problem, algorithm, result, self.best_index_)
            self.best_estimator_ = task.fitted(0, refitted.w, alpha, len(result.history))
            found = refitted.decays
        decays = to_numpy(found)
        self.alphas_ = dict(zip(task.decay_names, decays.tolist(), strict=False))
        self._feature_decays = task.feature_decays(decays)
        self.refit_time_ = time.perf_counter() - start
        self._names()
        return cut_short
