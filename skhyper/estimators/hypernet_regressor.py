"""HypernetRegressor: regression by networks whose weights come from noise."""

from collections.abc import Sequence
from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import MultiOutputMixin, RegressorMixin, _fit_context
from sklearn.utils import _safe_indexing
from sklearn.utils._param_validation import Interval, StrOptions

from ..boundary import check_weights
from ..copies import find_copies
from ..core.noise.likelihood import FixedScale, Heteroscedastic, Homoscedastic, NoiseModel
from ..core.noise.rows import Data
from ..core.noise.scaling import Scaling, target_scaling
from .all_or_nothing import all_or_nothing
from .conformal import set_aside
from .hypernet_options import PAPER
from .regression_predictions import PredictsDistributions
from .target_bounds import resolve_bounds

# Ranges of y between which squares neither vanish nor overflow.
SMALLEST, LARGEST = 1e-140, 1e140

NOISE_MODELS: dict[str, type[NoiseModel]] = {
    "homoscedastic": Homoscedastic,
    "heteroscedastic": Heteroscedastic,
    "squared": FixedScale,
}


class HypernetRegressor(RegressorMixin, MultiOutputMixin, PredictsDistributions):
    """Regression with predictive distributions, by networks whose weights are generated from noise.

    A hypernetwork g turns noise z into the weights of a main network f, and each of M members minimises

        (1/n) sum_i s_i [-(1/a) log (1/K) sum_k p(y_i | f(x_i; g(z_k)))^a] + alpha / (2 n) sum_j c_j w_j^2

    over its training rows, with K draws a step, p Gaussian, s_i the sample weights, n their sum and c_j the number of
    inputs of the layer that w_j belongs to: weights count as copies of rows. Where draws see the same rows,
    `mean_weight` (1/n) sum_i s_i (y_i - m_i)^2 / (2 v_i) is added, with m_i and v_i the mean and the variance of the
    mixture over draws (v_i held constant): likelihood alone cares little for the mean of a density that is far from
    Gaussian. z has d entries, mean 0 and covariance I: orthogonal pairs of opposite sign, of length sqrt(d), where
    draws are shared in the last layer; else N(0, I). By default the noise moves the last layer alone, means and
    standard deviations alike: densities may be skewed or have heavy tails. The predictive distribution is the mixture
    over members and over draws of a noise bank that is fixed at fit: predictions are deterministic and do not depend on
    the other rows.

    Parameters
    ----------
    hidden_layer_sizes : int or array-like of int, default=(50,)
        Units of the main network's hidden layers, at least 1 each; empty: a linear model.
    activation : {"relu", "silu", "tanh", "gelu"}, default="silu"
        Of the main network's hidden layers.
    generator : {"auto", "full", "low_rank", "none"}, default="auto"
        How noise becomes weights. "full": every weight has its own linear form of the hypernetwork's last features;
        "low_rank": draws differ along `noise_dim` directions in each layer; "auto": "full" as long as that is small;
        "none": no noise, the plain network trained by the same means.
    noise_layers : {"last", "all"}, default="last"
        Which layers have noise. "last": the last alone, so that all draws share the hidden units, and many draws cost
        little more than one; "all": every layer.
    noise_trial : float, default=0.1
        Share of the updates in [0, 1) after which, again and again until the rate falls, noise is dropped that
        held-out rows see no use for: where it gains no more log-likelihood than the standard error of that gain, or
        than they gained since there were 1.8 times fewer updates. With `max_iter="auto"` the updates that are left are
        then 1.8 times as many, which takes as long; else their number stays, and the error alone decides. The share
        is raised to 1,500 updates, or to a fifth of few. 0: noise is never dropped; nor is it with at most 100 distinct
        rows.
    residual : bool, default=True
        Whether weights are a learnt base plus what the noise adds. It also brings learnt scales of the features and a
        linear skip. False: the hypernetwork must make all of the weights.
    noise_dim : int, default=8
        Entries of the noise, at least 1.
    hypernet_hidden_layer_sizes : array-like of int, default=()
        Units of the hidden layers between noise and weights; empty: weights are affine in the noise.
    hypernet_dropout : float, default=0.0
        Share in [0, 1) of these units that is dropped. Which ones is part of the noise, in training and in each draw of
        a prediction.
    input_noise : float, default=0.0
        Start of the learned scale of Gaussian noise on the scaled X in training; 0: none.
    objective : float, default=1.0
        The exponent a in [0, 1]. 1 is the marginal likelihood of each row, 0 the mean log likelihood over draws,
        whose optimum is a single weight vector.
    mean_weight : float, default=2.0
        Weight of the squared error of the mixture's mean beside the likelihood, in [0, inf); only with several draws
        that are shared.
    n_train_samples : int, default=16
        K, draws of the weights in a training step.
    draws : {"shared", "dealt", "row"}, default="shared"
        "shared": each of the K draws sees the whole minibatch; "dealt": the minibatch is dealt out over them; "row":
        each row has a draw of its own. The last two leave one draw a row, so that `objective` has no say.
    n_samples : int, default=16
        Draws of each member that predictions average, at least 1; made once, at fit.
    noise_model : {"homoscedastic", "heteroscedastic", "squared"}, default="heteroscedastic"
        Standard deviation of the Gaussian p. "homoscedastic": one for each target and member; "heteroscedastic": that
        times a function of the row that is shrunk to 1; "squared": squared error, with the standard deviation found
        after training. In the second the loss of a row has its sigma over that of all as a factor, held constant, and
        .05 times the square of their log ratio beside it: rows that fit badly are not given up as noise.
    min_std : float, default=0.0
        Smallest standard deviation of the observation noise, in the unit of y: half the step of a rounded target.
    bounds : (low, high) or None, default=None
        Bounds of y, each a number, an array of shape (n_targets,), or None. Predictions are then those of the mixture
        given that all targets of a row lie within: nothing changes in training. The functions of `sample_functions`
        and members' own means may lie outside.
    conformal_fraction : float or None, default=None
        Share of the distinct rows in (0, 1), each counted once, that is set aside from training, stopping and
        calibration alike. `predict_interval` then gives split conformal intervals.
    n_estimators : int, default=4
        M, members: networks with their own initial weights, held-out rows and prior functions.
    prior_scale : float, default=0.1
        Standard deviation of the members' fixed random prior functions, in units of the scaled target (the logits).
        They keep members apart where there are no data.
    alpha : float, default=0.02
        Precision of the Gaussian prior of the weights, in [0, inf).
    solver : {"adam", "sgd"}, default="adam"
        Optimiser; "sgd" has a momentum of 0.9.
    learning_rate_init : float, default=0.05
        Largest learning rate, of weights in units of their prior's standard deviation at alpha = 1.
    learning_rate : {"trapezoid", "constant"}, default="trapezoid"
        How it goes on: a short rise, level for 40 % of the updates, then down to zero along a line; or level
        throughout.
    batch_size : int or "auto", default="auto"
        Rows of a minibatch, at most the number of rows; of rows with copies it has the same share of the distinct ones.
        "auto": all of them for at most 100 distinct rows, else a power of two from 32 to 256.
    max_iter : int or "auto", default="auto"
        Passes through the rows; `patience` may end them earlier. "auto": 500 updates for at most 100 distinct rows,
        else 300 passes, but no less than 18,000 updates (60 for each row, if that is less) and no more than 36,000.
    early_stopping : bool or "auto", default="auto"
        Whether each member holds out rows, whose likelihood chooses its best weights and rescales its noise (softens
        its probabilities). "auto": from 12 distinct rows on.
    validation_fraction : float or "auto", default="auto"
        Share of rows in (0, 1) that each member holds out. "auto": a tenth; a quarter of at most 100 distinct rows.
    patience : float, default=10.0
        The learning rate falls, and training ends soon, once there were this many times the updates, at least 1, after
        which held-out rows were predicted best; training goes back to those weights. `math.inf`: it takes all of
        `max_iter`. Nothing is cut short with `learning_rate="constant"`.
    n_frequencies : int or "auto", default="auto"
        Frequencies of the sinusoids, cosines and sines of its scaled value, that the network sees of each feature with
        more than 8 distinct values. "auto": 4 where held-out rows prove their use, else 0: after 1,500 updates (a fifth
        of few) with none, if that run still learns, as many with sinusoids, which go on if their held-out loss is lower
        by more than the other gained since there were four times fewer updates. If it is lower by less, both go on, to
        a fifth of all. 0 without held-out rows, with at most 100 distinct rows, and where there would be more than 512
        sinusoids; nor with `learning_rate="constant"`.
    preprocessing : {"robust", "standard"} or None, default="robust"
        Scaling of X. "robust": median, interquartile range, and a smooth clip at 3; "standard": mean and standard
        deviation; None: X as it is. y is always scaled to mean 0 and standard deviation 1.
    device : str, default="cpu"
        Where training runs: "cpu", "cuda", ..., or "auto": CUDA where there is any.
    dtype : {"float64", "float32"}, default="float64"
        Precision of training.
    random_state : int, RandomState instance or None, default=None
        Seed of everything that is drawn, the noise that predictions use included.
    verbose : int, default=0
        1: a line for each evaluation.
    warm_start : bool, default=False
        Whether `fit` goes on from the weights and the scaling of the last one.

    Attributes
    ----------
    loss_curve_ : ndarray of shape (n_evaluations,)
        Training loss, mean over members and over the steps since the last evaluation.
    validation_loss_curve_ : ndarray of shape (n_evaluations,)
        Negative log likelihood of held-out rows, with the factor of sigma (of the logits) that they ask for at that
        moment; mean over members, nan without any.
    conformal_scores_ : ndarray of shape (n_set_aside, n_targets)
        abs(2 F(y) - 1) of the rows set aside, ascending; only with `conformal_fraction`.
    weight_spread_curve_ : ndarray of shape (n_evaluations,)
        Mean over the weights of their standard deviation over 10 draws.
    n_iter_ : int
        Passes: rows seen over the number of rows.
    t_ : int
        Updates.
    n_frequencies_ : int
        Frequencies of the sinusoids that the network sees of each feature; 0: none.
    noise_dropped_ : bool
        Whether noise was dropped (`noise_trial`): the members are plain networks then.
    n_rollbacks_ : int
        How often a member's loss was not finite in the last fit.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the features, where X has string names.

    Raises
    ------
    ValueError
        If a parameter is out of range or does not go with the data, or X or y hold NaN, infinity or strings.
    TypeError
        If X or y are masked arrays or hold dates.

    Warns
    -----
    ConvergenceWarning
        If a member's loss was not finite; it went on from its best weights.

    See Also
    --------
    HypernetClassifier : For labels.

    Notes
    -----
    Copies, rows with equal features and an equal target, are one row with the sum of their weights: no member is judged
    by copies of what it was trained on, and integer weights equal repeated rows exactly. Rows with equal features and
    different targets are held out each by itself. Where equal rows are cells of categorical features (at most three
    quarters as many different X as different rows, and at most that many different y) they are independent, and each
    member holds out some rows of a cell instead of whole cells.

    With at most 100 distinct rows training is full batch (unless `batch_size` says otherwise) with draws shared, on
    sorted rows: then the order of rows has no influence.

    The noise of a layer is multiplied by a factor that follows the likelihood of held-out rows, while the weights
    follow that of the training rows: weights spread as far as helps on rows they have not seen. Without held-out rows
    the factors stay at one.

    The spread of one member's weights does not shrink with the number of rows: under the likelihood it is part of the
    noise model. Only what members disagree about is epistemic.

    One training step costs about 1.9 times that of M plain networks with noise in the last layer; with noise in all of
    them K times as much where draws are shared, twice where they are dealt out.

    Each member's noise is calibrated by itself on its held-out rows; the variance between members, which the mixture
    adds, is taken from it. Few rows leave the factor of sigma uncertain: draws take its logarithm from a normal
    distribution with the standard deviation 2 / sqrt(n), n the number of rows held out, so that tails are heavier.

    References
    ----------
    .. [1] A.-S. Sheikh, K. Rasul, A. Merentitis and U. Bergmann, "Stochastic maximum likelihood optimization via
       hypernetworks", 2017.
    .. [2] I. Osband, J. Aslanides and A. Cassirer, "Randomized prior functions for deep reinforcement learning", 2018.
    .. [3] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
       on tabular data", 2024.

    Examples
    --------
    >>> from sklearn.datasets import make_friedman1
    >>> from skhyper import HypernetRegressor
    >>> X, y = make_friedman1(80, noise=1.0, random_state=0)
    >>> model = HypernetRegressor(random_state=0).fit(X, y)
    >>> mean, std = model.predict(X, return_std=True)
    >>> model.predict_interval(X, coverage=0.9).shape
    (80, 2)
    >>> float(model.score(X, y)) > 0.8
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PredictsDistributions._parameter_constraints,
        "noise_model": [StrOptions(set(NOISE_MODELS))],
        "min_std": [Interval(Real, 0, None, closed="left")],
        "bounds": [tuple, list, None],
        "mean_weight": [Interval(Real, 0, None, closed="left")],
        "conformal_fraction": [Interval(Real, 0, 1, closed="neither"), None],
    }
    _y_numeric = True
    _first_gain = 2.0

    def __init__(
        self,
        hidden_layer_sizes: Any = (50,),
        *,
        activation: str = "silu",
        generator: str = "auto",
        noise_layers: str = "last",
        noise_trial: float = 0.1,
        residual: bool = True,
        noise_dim: int = 8,
        hypernet_hidden_layer_sizes: Any = (),
        hypernet_dropout: float = 0.0,
        input_noise: float = 0.0,
        objective: float = 1.0,
        mean_weight: float = 2.0,
        n_train_samples: int = 16,
        draws: str = "shared",
        n_samples: int = 16,
        noise_model: str = "heteroscedastic",
        min_std: float = 0.0,
        bounds: Any = None,
        conformal_fraction: float | None = None,
        n_estimators: int = 4,
        prior_scale: float = 0.1,
        alpha: float = 0.02,
        solver: str = "adam",
        learning_rate_init: float = 0.05,
        learning_rate: str = "trapezoid",
        batch_size: Any = "auto",
        max_iter: Any = "auto",
        early_stopping: Any = "auto",
        validation_fraction: Any = "auto",
        patience: float = 10.0,
        n_frequencies: Any = "auto",
        preprocessing: str | None = "robust",
        device: str = "cpu",
        dtype: str = "float64",
        random_state: Any = None,
        verbose: int = 0,
        warm_start: bool = False,
    ) -> None:
        self.hidden_layer_sizes = hidden_layer_sizes
        self.activation = activation
        self.generator = generator
        self.noise_layers = noise_layers
        self.noise_trial = noise_trial
        self.residual = residual
        self.noise_dim = noise_dim
        self.hypernet_hidden_layer_sizes = hypernet_hidden_layer_sizes
        self.hypernet_dropout = hypernet_dropout
        self.input_noise = input_noise
        self.objective = objective
        self.mean_weight = mean_weight
        self.n_train_samples = n_train_samples
        self.draws = draws
        self.n_samples = n_samples
        self.noise_model = noise_model
        self.min_std = min_std
        self.bounds = bounds
        self.conformal_fraction = conformal_fraction
        self.n_estimators = n_estimators
        self.prior_scale = prior_scale
        self.alpha = alpha
        self.solver = solver
        self.learning_rate_init = learning_rate_init
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.n_frequencies = n_frequencies
        self.preprocessing = preprocessing
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose
        self.warm_start = warm_start

    @property
    def _mean_weight(self) -> float:
        return self.mean_weight

    @classmethod
    def from_paper(cls, **overrides: Any) -> Self:
        """Give the settings of Sheikh et al. (2017), as far as they are printed.

        One weight draw for each row, a hypernetwork with dropout 0.5 and no residual base, learned softplus scales on
        its input noise (start 1) and on Gaussian input noise (start 0.5), squared error, minibatches of one row, 2,000
        epochs, no early stopping. Above 5,000 rows the paper takes minibatches of 512: pass `batch_size=512`. It
        leaves open the noise dimension, the sizes of the hypernetwork for regression, the optimiser and its learning
        rate, the number of draws at prediction, whether units are dropped in these as well (they are) and the
        activation's scale at the start; the values here are ours.

        Parameters
        ----------
        **overrides : dict
            Other parameters of the constructor, or other values.

        Returns
        -------
        model : HypernetRegressor
            Unfitted.
        """
        return cls(**{**PAPER, "noise_model": "squared", "mean_weight": 0.0, **overrides})

    @_fit_context(prefer_skip_nested_validation=True)
    @all_or_nothing
    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
    ) -> Self:
        """Train all members.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows. Rows of weight zero are dropped.
        X_val, y_val : array-like, default=None
            Rows to stop and to calibrate by, instead of some of X's own.

        Returns
        -------
        self : estimator
            Fitted.

        Raises
        ------
        ValueError
            If a parameter is out of range or does not go with the data, or X or y hold NaN or infinity.
        TypeError
            If X or y are masked arrays or hold dates.
        """
        vars(self).pop("conformal_scores_", None)
        if self.conformal_fraction is None:
            return super().fit(X, y, sample_weight, X_val, y_val)
        self._refuse_conformal(self.warm_start, "warm_start=True: rows set aside now were trained on before")
        rows, aside, weights = self._set_aside(X, y, sample_weight)
        own = [None if values is None else _safe_indexing(values, rows) for values in (X, y, weights)]
        super().fit(*own, X_val, y_val)
        levels = self.cdf(_safe_indexing(X, aside), _safe_indexing(y, aside)).reshape(len(aside), -1)
        self.conformal_scores_ = np.sort(np.abs(2 * levels - 1), axis=0)
        return self

    @all_or_nothing
    def partial_fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Go once through some rows; the first call also fixes the scaling of X and y, and y must vary in it.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Targets.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : estimator
            Fitted.
        """
        self._validate_params()
        self._refuse_conformal(True, "partial_fit, which trains on all rows it is given")
        vars(self).pop("conformal_scores_", None)  # the rows set aside may be among these
        return self._partial_fit(X, y, sample_weight)

    def _check_first_pass(self, data: Data) -> None:
        if bool((data.y.amax(0) == data.y.amin(0)).any()):
            raise ValueError(
                "y must vary in the first call of partial_fit, which fixes its scaling, got a constant target; pass "
                "more rows, or call fit on some of them first."
            )

    def _noise_model(self, n_targets: int) -> NoiseModel:
        return NOISE_MODELS[self.noise_model](n_targets)

    def _encode_targets(self, y: Any, reset: bool) -> NDArray[np.float64]:
        y = np.asarray(y, dtype=np.float64)
        if reset:
            self._vector = y.ndim == 1
            self._n_targets = 1 if y.ndim == 1 else y.shape[1]
        targets = y.reshape(len(y), -1)
        if targets.shape[1] != self._n_targets:
            raise ValueError(f"y must have {self._n_targets} target(s) as in the first fit, got {targets.shape[1]}.")
        with np.errstate(over="ignore"):
            width = np.ptp(targets, axis=0)
        if not (((width > SMALLEST) & (width < LARGEST)) | (width == 0)).all():
            raise ValueError(
                f"y must range over more than {SMALLEST:g} and less than {LARGEST:g}, got {width.tolist()}; change its "
                "unit."
            )
        self._bounds = None if self.bounds is None else resolve_bounds(self.bounds, targets)
        return targets

    def _set_aside(
        self, X: Any, y: Any, sample_weight: Any
    ) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64] | None]:
        """Numbers of the rows to train on and of those for the conformal scores, and all weights; checked first.

        Copies of a row are on one side, and there they give one score.
        """
        x, targets = self._check_rows(X, y, reset=True)
        weights = check_weights(sample_weight, x)
        targets = self._encode_targets(targets, reset=True)
        usable = np.arange(len(x)) if weights is None else np.flatnonzero(weights > 0)
        own_weights = None if weights is None else weights[usable]
        copies = find_copies([x[usable]], [targets[usable]], own_weights).together()
        kinds = np.arange(len(copies.first))
        own, aside = set_aside(kinds, float(self.conformal_fraction or 0), self.random_state)
        return usable[copies.members(own)], usable[copies.first[aside]], weights

    def _refuse_conformal(self, wrong: bool, what: str) -> None:
        if wrong and self.conformal_fraction is not None:
            raise ValueError(f"conformal_fraction must be None with {what}; got {self.conformal_fraction!r}.")

    def _fit_alphas(self, X: Any, y: Any, sample_weight: Any, alphas: Sequence[float]) -> list[Self]:
        self._refuse_conformal(True, "HyperTrainingSearchCV, which trains on all rows")
        return super()._fit_alphas(X, y, sample_weight, alphas)

    def _row_weights(self, y: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return weights

    def _target_scaling(self, data: Data) -> Scaling:
        return target_scaling(data.y, data.weight)
