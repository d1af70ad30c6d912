"""HyperTrainedRidge: ridge regression whose decays are as fine as pays."""

from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.utils._param_validation import StrOptions

from .criteria import SEARCHES, check_criterion
from .linear import SHARED, AveragingSearch, HyperTrainedLinear
from .search import HyperTrainingSearchCV

# No prior, and in a list, so that the row competes with the global alpha.
UNSHRUNK = (np.inf,)


class HyperTrainedRidge(RegressorMixin, MultiOutputMixin, HyperTrainedLinear):
    """Ridge regression with tuned decays: one for all weights, for each feature, each target or each weight.

    The inner problem of a fold is

        sum_i s_i (y_i - x_i w - b)^2 + sum_j a_j w_j^2

    and the decays a_j are tuned on held-out rows. They follow a family with two hyperparameters, alpha and q,

        a_g = alpha (m_g / s^2 + eps)^((q - 2) / 2),

    m_g the mean of w^2 over the weights that share decay g and s^2 its mean under the tuned global alpha: q = 2 is
    ridge regression, q = 1 the Lasso (group Lasso), q < 1 sparser still. By default alpha is tuned for several q and
    the coefficients are averaged over q by weights that predict held-out rows best; where that gains nothing clear
    over the tuned global alpha (the paired rule), the global alpha is kept.

    Parameters
    ----------
    granularity : {"global", "output", "feature", "weight"}, default="feature"
        Which weights share a decay. "global": one alpha, the optimum of RidgeCV's criterion without a grid;
        "output": one for each target (RidgeCV's `alpha_per_target`), each tuned as if its target were alone; a target
        keeps the global alpha where its own does not clearly pay; "feature": one for each feature, shared by all
        targets; "weight": one for each coefficient.
    decay_groups : array-like of shape (n_features,) or dict, default=None
        Group of each feature, or a mapping from feature name to group; features of a group share a decay. Needs
        `granularity="feature"`.
    criterion : {"cv", "loo", "gcv", "evidence"}, default="cv"
        What is minimised: the mean squared error of held-out folds, or of left-out rows (exact, from one
        factorisation), generalised cross-validation, or the negative log evidence. The last three need a dense X and
        take all rows at once; `cv` is then read by `guard_cv="auto"` alone. Only "cv" goes with exponents other than
        2: the family's decays would be fitted to the rows that are left out. See Notes.
    cv : int, float, splitter or iterable, default=None
        Held-out rows; None is 5 folds, a float the share of one random split.
    exponent : "auto", float or sequence of float, default="auto"
        The values of q in [0.5, 2] to try beside 2. "auto" is (1.3, 0.8, 0.5) where they are averaged over and
        (1.5, 1, 0.75, 0.5) where one is chosen; 2 alone where there is one decay or the criterion is not "cv".
    shrinkage : "auto", None, float or sequence of float, default="auto"
        Free decays: standard deviation in (0, inf] of the prior that pulls log-decays to the family; infinity is no
        prior. A number keeps the free decays, several compete with the tuned global alpha on held-out folds (so that
        they need `criterion="cv"`). None and "auto" fit no free decays, but for `granularity="output"` and several
        targets, where "auto" is (inf,). Without a prior targets are problems of their own, and are tuned apart.
    average_exponents : bool, default=True
        Average the coefficients over q (only where `exponent="auto"` and `scoring=None`). `alpha_` and `exponent_`
        then describe the best member, and `coef_` has no exact zeros.
    guard_cv : int, splitter or None, default=None
        Outer folds on which the whole procedure is rerun for `guard_score_`; "auto": the folds of `cv`, when free
        decays are fitted.
    alpha_bounds : "auto" or tuple of (float, float), default="auto"
        Smallest and largest alpha. "auto" is relative to the data; a warning says where the answer lies on a bound that
        was given.
    fit_intercept : bool, default=True
        Whether to fit an intercept, which carries no decay.
    scoring : str, callable or None, default=None
        Score that chooses among all alphas that were tried and among the tuned rows, and that every `*_score_` is in;
        None is "neg_mean_squared_error". Decays are tuned to squared error in any case, and by it alone where
        `criterion` is not "cv".
    max_iter : int, default=200
        Most evaluations of the hypergradient in one stage.
    tol : float, default=1e-6
        Tolerance of the hypergradient of the log validation loss with respect to log alpha. Below q = 2 alpha is the
        vertex of a parabola through scanned ones, whatever the tolerance.
    time_limit : float or None, default=None
        Seconds after which the search ends with the best so far.
    n_jobs : int or None, default=None
        Outer folds of the guard at once.
    random_state : int, RandomState instance or None, default=None
        Of the one random split where `cv` is a float.
    verbose : int, default=0
        1: a line for each stage; 2: for each evaluation.

    Attributes
    ----------
    coef_ : ndarray of shape (n_features,) or (n_targets, n_features)
        Coefficients.
    intercept_ : float or ndarray of shape (n_targets,)
        Intercepts; 0.0 without.
    alpha_ : float or ndarray of shape (n_decays,)
        Decays in Ridge's unit; infinite where all weights of a decay are exactly zero.
    alphas_ : dict of str to float
        The same by name: of a feature, an output or a group, or "feature[output]".
    baseline_alpha_ : float
        The tuned global alpha.
    family_alpha_ : float
        alpha of the chosen row's family.
    exponent_ : float
        q of the chosen row, or of the best member of an average.
    exponent_weights_ : dict of float to float
        Weight of each q in the average; that of `exponent_` is 1 without averaging.
    shrinkage_ : float
        tau of the chosen row; 0 for the family alone, infinity for free decays without a prior.
    n_hyperparameters_ : int
        Number of values that were fitted to held-out loss, or to the criterion, for the chosen row. Of
        `granularity="output"`: the targets with an alpha of their own, and the global alpha if a target keeps it.
    best_score_ : float
        Mean held-out score of the chosen row, on the rows that chose it. With another criterion than "cv": the score
        of left-out rows (leave-one-out) under the chosen decays, whatever the criterion; half of the criterion (of the
        evidence over n) is in `history_`. One alpha fitted to it flatters no more than RidgeCV's own; free decays were
        fitted to all rows, those left out among them, and their `best_score_` is no estimate: see `guard_score_`.
    baseline_score_ : float
        The same of the tuned global alpha.
    selection_metric_ : str
        What decided: the name of the score that `scoring` names, or "loss".
    guard_score_ : float
        Mean score of the whole procedure on outer folds that no decision saw; nan where there is no guard, and
        `guard_reason_` says why.
    guard_scores_ : ndarray of shape (n_outer_folds,)
        The score of each outer fold.
    guard_reason_ : str
        Why there is no guard; empty where there is one.
    cv_results_ : dict of ndarrays
        What selection chose from, with GridSearchCV's keys, one entry a row: name (`snapshot`), exponent, alpha, mean
        and standard deviation of the held-out score, number of fitted hyperparameters. Row 0 is the tuned global alpha.
    best_index_ : int
        The chosen row.
    history_ : dict of lists
        All evaluations.
    n_iter_ : int
        Number of evaluations.
    stop_reason_ : str
        Why the search ended.
    hypergradient_error_ : float
        Relative residual of the inner problem, or of the adjoint equation if that is larger, at the chosen row.
    total_time_, refit_time_ : float
        Seconds of the whole fit, and of the final one on all rows.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string names.

    Raises
    ------
    ValueError
        If a parameter is out of range or does not go with another; if X or y hold NaN or infinity; if sample weights
        are negative or all zero; if a fold is empty.
    TypeError
        If X or y are masked arrays or hold dates.

    See Also
    --------
    HyperTrainingSearchCV : The same for other estimators and for pipelines.
    sklearn.linear_model.RidgeCV : One alpha from a grid.

    Notes
    -----
    Cost: forming the normal equations takes O(n p^2), each evaluation one batch of Cholesky factorisations of order
    min(n, p) over folds. Features should be on comparable scales, as for every ridge regression and Lasso, and so
    should targets that share decays: the loss is their mean squared error.

    With C = diag(sample_weight), H the hat matrix (intercept included), e the residuals, and S the minimum of the
    objective above, the criteria are, summed over targets,

        loo       sum_i c_i (e_i / (1 - h_ii))^2 / sum c
        gcv       sum_i c_i e_i^2 / sum c / (1 - tr H / n)^2
        evidence  m log(2 pi S / m) + m + log|X'CX + A| - log|A| - sum log c + log(sum c / n),

    X centred, m = n - 1: the Gaussian likelihood of y with w ~ N(0, s^2 A^-1), noise of variance s^2 / c_i, a flat
    prior on the intercept, and s^2 at its best for each target; without an intercept, X as it is, m = n and no last
    term. Leave-one-out leaves out a row with all of its weight, and the evidence takes weights as relative
    precisions, so that in neither an integer weight equals repeated rows: copies of a left-out row would stay, and
    are further observations. gcv is unreliable with more columns than rows, where it can be lowest at alpha = 0. After
    one singular value decomposition an evaluation takes O(n min(n, p)); with free decays O(n p min(n, p)).

    References
    ----------
    .. [1] Y. Grandvalet, "Least absolute shrinkage is equivalent to quadratic penalization", ICANN 1998.
    .. [2] L. Breiman, "Stacked regressions", Machine Learning 24, 1996.
    .. [3] J. Lorraine and D. Duvenaud, "Stochastic hyperparameter optimization through hypernetworks", 2018.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from skhyper import HyperTrainedRidge
    >>> X, y = make_regression(n_samples=100, n_features=20, n_informative=3, noise=1.0, random_state=0)
    >>> model = HyperTrainedRidge().fit(X, y)
    >>> model.alpha_.shape
    (20,)
    >>> bool(model.best_score_ > model.baseline_score_)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **HyperTrainedLinear._parameter_constraints,
        "granularity": [StrOptions({"global", "output", "feature", "weight"})],
        "criterion": [StrOptions({"cv", "loo", "gcv", "evidence"})],
        "average_exponents": ["boolean"],
    }

    _own_scoring = "neg_mean_squared_error"

    def __init__(
        self,
        granularity: str = "feature",
        *,
        decay_groups: Any = None,
        criterion: str = "cv",
        cv: Any = None,
        exponent: Any = "auto",
        shrinkage: Any = "auto",
        average_exponents: bool = True,
        guard_cv: Any = None,
        alpha_bounds: str | tuple[float, float] = "auto",
        fit_intercept: bool = True,
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
        self.criterion = criterion
        self.cv = cv
        self.exponent = exponent
        self.shrinkage = shrinkage
        self.average_exponents = average_exponents
        self.guard_cv = guard_cv
        self.alpha_bounds = alpha_bounds
        self.fit_intercept = fit_intercept
        self.scoring = scoring
        self.max_iter = max_iter
        self.tol = tol
        self.time_limit = time_limit
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    def _search(self, y: Any) -> HyperTrainingSearchCV:
        check_criterion(self.criterion, self.exponent, self.shrinkage)
        analytic = self.criterion != "cv"
        averaged = self.average_exponents and isinstance(self.exponent, str) and self.scoring is None
        free = (
            self.granularity == "output" and isinstance(self.shrinkage, str) and np.ndim(y) == 2 and np.shape(y)[1] > 1
        )
        kind = AveragingSearch if averaged and not free else HyperTrainingSearchCV
        return SEARCHES.get(self.criterion, kind)(
            Ridge(fit_intercept=self.fit_intercept),
            **{name: getattr(self, name) for name in SHARED},
            exponent=2 if (free or analytic) and isinstance(self.exponent, str) else self.exponent,
            shrinkage=UNSHRUNK if free else self.shrinkage,
            scoring=self.scoring or self._own_scoring,
        )

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """Predict targets.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        y : ndarray of shape (n_samples,) or (n_samples, n_targets)
            Predictions.
        """
        return self._decision(X)
