"""HypernetClassifier: classification by networks whose weights come from noise."""

from numbers import Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..core.noise.likelihood import Categorical, NoiseModel
from ..core.noise.rows import Data
from ..core.noise.scaling import Scaling, identity
from .all_or_nothing import all_or_nothing
from .classification_predictions import PredictsProbabilities
from .hypernet_options import PAPER


class HypernetClassifier(ClassifierMixin, PredictsProbabilities):
    """Classification by networks whose weights are generated from noise.

    A hypernetwork g turns noise z ~ N(0, I) into the weights of a main network f, and each of M members minimises

        (1/n) sum_i s_i [-(1/a) log (1/K) sum_k softmax(f(x_i; g(z_k)))_{y_i}^a] + alpha / (2 n) sum_j c_j w_j^2

    over its training rows, with K draws a step, s_i the weights of rows, n their sum and c_j the number of inputs of
    the layer that w_j belongs to: weights count as copies of rows. Probabilities are the mean of the softmaxes over
    members and over draws of a noise bank that is fixed at fit: predictions are deterministic and do not depend on the
    other rows. By default a minibatch is dealt out over the draws, each row sees one of them, and the loss is that of a
    = 0; what keeps the spread of the weights from vanishing is that it follows held-out rows.

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
    noise_layers : {"last", "all"}, default="all"
        Which layers have noise. "last": the last alone, so that all draws share the hidden units, and many draws cost
        little more than one; "all": every layer.
    noise_trial : float, default=0.0
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
    objective : float, default=0.5
        The exponent a in [0, 1]. 1 is the marginal likelihood of each row, 0 the mean log likelihood over draws,
        whose optimum is a single weight vector.
    n_train_samples : int, default=4
        K, draws of the weights in a training step.
    draws : {"shared", "dealt", "row"}, default="dealt"
        "shared": each of the K draws sees the whole minibatch; "dealt": the minibatch is dealt out over them; "row":
        each row has a draw of its own. The last two leave one draw a row, so that `objective` has no say.
    n_samples : int, default=16
        Draws of each member that predictions average, at least 1; made once, at fit.
    class_weight : {"balanced"}, dict or None, default=None
        Weights of the classes, which multiply those of rows. "balanced": inversely proportional to their weight in y.
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
    n_frequencies : int or "auto", default=0
        Frequencies of the sinusoids, cosines and sines of its scaled value, that the network sees of each feature with
        more than 8 distinct values. "auto": 4 where held-out rows prove their use, else 0: after 1,500 updates (a fifth
        of few) with none, if that run still learns, as many with sinusoids, which go on if their held-out loss is lower
        by more than the other gained since there were four times fewer updates. If it is lower by less, both go on, to
        a fifth of all. 0 without held-out rows, with at most 100 distinct rows, and where there would be more than 512
        sinusoids.
    preprocessing : {"robust", "standard"} or None, default="robust"
        Scaling of X. "robust": median, interquartile range, and a smooth clip at 3; "standard": mean and standard
        deviation; None: X as it is.
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
    classes_ : ndarray of shape (n_classes,)
        The classes.
    loss_curve_ : ndarray of shape (n_evaluations,)
        Training loss, mean over members and over the steps since the last evaluation.
    validation_loss_curve_ : ndarray of shape (n_evaluations,)
        Negative log likelihood of held-out rows, with the factor of sigma (of the logits) that they ask for at that
        moment; mean over members, nan without any.
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
    HypernetRegressor : For numbers.

    Notes
    -----
    Copies, rows with equal features and an equal target, are one row with the sum of their weights: no member is judged
    by copies of what it was trained on, and integer weights equal repeated rows exactly. Rows with equal features and
    different targets are held out each by itself. Where equal rows are cells of categorical features (at most three
    quarters as many different X as different rows, and at most that many different y) they are independent, and each
    member holds out some rows of a cell instead of whole cells.

    With at most 100 distinct rows training is full batch (unless `batch_size` says otherwise) with draws shared, on
    sorted rows: then the order of rows has no influence.

    The noise is multiplied by a factor in each layer, which follows the likelihood of held-out rows while the weights
    follow that of the training rows: weights spread as far as helps on rows they have not seen. Without held-out rows
    the factors stay at one.

    The spread of one member's weights does not shrink with the number of rows: under the likelihood it is part of the
    noise model. Only what members disagree about is epistemic.

    One training step costs about M K times that of the main network with shared draws, at most 2 M times
    with dealt ones.

    References
    ----------
    .. [1] A.-S. Sheikh, K. Rasul, A. Merentitis and U. Bergmann, "Stochastic maximum likelihood optimization via
       hypernetworks", 2017.
    .. [2] I. Osband, J. Aslanides and A. Cassirer, "Randomized prior functions for deep reinforcement learning", 2018.
    .. [3] D. Holzmueller, L. Grinsztajn and I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees
       on tabular data", 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from skhyper import HypernetClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = HypernetClassifier(n_estimators=2, max_iter=50, random_state=0).fit(X, y)
    >>> model.predict_proba(X).shape
    (150, 3)
    >>> float(model.score(X, y)) > 0.9
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **PredictsProbabilities._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }
    _y_numeric = False

    def __init__(
        self,
        hidden_layer_sizes: Any = (50,),
        *,
        activation: str = "silu",
        generator: str = "auto",
        noise_layers: str = "all",
        noise_trial: float = 0.0,
        residual: bool = True,
        noise_dim: int = 8,
        hypernet_hidden_layer_sizes: Any = (),
        hypernet_dropout: float = 0.0,
        input_noise: float = 0.0,
        objective: float = 0.5,
        n_train_samples: int = 4,
        draws: str = "dealt",
        n_samples: int = 16,
        class_weight: Any = None,
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
        n_frequencies: Any = 0,
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
        self.n_train_samples = n_train_samples
        self.draws = draws
        self.n_samples = n_samples
        self.class_weight = class_weight
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

    @classmethod
    def from_paper(cls, **overrides: Any) -> Self:
        """Give the settings of Sheikh et al. (2017), as far as they are printed.

        One weight draw for each row, a hypernetwork with dropout 0.5 and no residual base, learned softplus scales on
        its input noise (start 1) and on Gaussian input noise (start 0.5), cross-entropy, minibatches of 256 rows,
        2,000 epochs, no early stopping; for MNIST with two hidden layers a hypernetwork with hidden layers of 100 and
        50. It leaves open the noise dimension, the optimiser and its learning rate, the number of draws at prediction
        and whether units are dropped in these as well (they are); the values here are ours.

        Parameters
        ----------
        **overrides : dict
            Other parameters of the constructor, or other values.

        Returns
        -------
        model : HypernetClassifier
            Unfitted.
        """
        return cls(**{**PAPER, "batch_size": 256, "hidden_layer_sizes": (400, 400), "preprocessing": None, **overrides})

    @all_or_nothing
    def partial_fit(
        self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None, sample_weight: ArrayLike | None = None
    ) -> Self:
        """Go once through some rows; the first call also fixes the classes and the scaling of X.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Training data.
        y : array-like of shape (n_samples,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever be seen; needed in the first call where y does not hold them all.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        self : estimator
            Fitted.
        """
        self._given_classes = None if classes is None else np.unique(classes)
        again = self._given_classes is not None and hasattr(self, "_state")
        if again and not np.array_equal(self._given_classes, self.classes_):
            raise ValueError(f"classes must be those of the first call, {self.classes_}, got {self._given_classes}.")
        try:
            return self._partial_fit(X, y, sample_weight)
        finally:
            del self._given_classes

    def _noise_model(self, n_targets: int) -> NoiseModel:
        return Categorical(n_targets)

    def _encode_targets(self, y: Any, reset: bool) -> NDArray[np.float64]:
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        if reset:
            given = getattr(self, "_given_classes", None)
            self.classes_ = np.unique(y) if given is None else given
            if len(self.classes_) < 2:
                raise ValueError(
                    f"{type(self).__name__} needs at least 2 classes in y, got 1 class: {self.classes_.tolist()}."
                )
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"y must hold labels of the first fit, {self.classes_}, got {unknown}.")
        return np.eye(len(self.classes_))[np.searchsorted(self.classes_, y)]

    def _row_weights(self, y: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.class_weight is None:
            return weights
        y = column_or_1d(y)
        present = np.unique(y)
        index = np.searchsorted(present, y)
        if isinstance(self.class_weight, dict):
            self._check_class_weight(self.class_weight)
            factors = np.array([self.class_weight.get(label, 1.0) for label in present])
        else:  # "balanced", where sample weights count as repetitions
            factors = weights.sum() / (len(present) * np.bincount(index, weights))
        return weights * factors[index]

    def _check_class_weight(self, weights: dict[Any, Any]) -> None:
        """Labels of y, and positive numbers."""
        unknown = [label for label in weights if label not in self.classes_.tolist()]
        if unknown:
            raise ValueError(f"class_weight must have the classes {self.classes_.tolist()} as keys, got {unknown}.")
        wrong = {k: w for k, w in weights.items() if not isinstance(w, Real) or not 0 < w < np.inf}
        if wrong:
            raise ValueError(f"class_weight must hold positive numbers, got {wrong}.")

    def _n_kept(self, data: Data) -> int:
        return data.y.shape[1]

    def _target_scaling(self, data: Data) -> Scaling:
        return identity(data.y.shape[1])
