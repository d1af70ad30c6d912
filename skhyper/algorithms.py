"""How weights follow hyperparameters, as objects to pass to an estimator's `algorithm`.

A name is an object with default settings: `algorithm="implicit"` is `algorithm=ImplicitDifferentiation()`. At fit each
resolves to a configuration of the core.
"""

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from .core.algorithms.base import Algorithm as CoreAlgorithm
from .core.algorithms.closed_form import ClosedForm as CoreClosedForm
from .core.algorithms.gauss_newton import GaussNewton as CoreGaussNewton
from .core.algorithms.implicit import Implicit as CoreImplicit
from .core.designs import DenseDesign
from .core.losses import SquaredError
from .core.problem import Folds, NetworkProblem, Problem
from .core.trained import TrainingAlgorithm as CoreTrainingAlgorithm

# Above this many numbers in the folds' normal equations, a squared loss is left to conjugate gradients.
MAX_NUMBERS = 2**27


class Algorithm(BaseEstimator, ABC):
    """A way to solve the inner problem and to differentiate through its solution.

    See Also
    --------
    ClosedForm : For squared losses.
    ImplicitDifferentiation : For any smooth loss.

    Examples
    --------
    >>> from skhyper.algorithms import Algorithm, ClosedForm
    >>> isinstance(ClosedForm(), Algorithm)
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {}

    def resolve(self, problem: Folds) -> CoreAlgorithm | CoreTrainingAlgorithm:
        """Give the core's configuration for a problem.

        Parameters
        ----------
        problem : Problem
            Of the core.

        Returns
        -------
        algorithm : Algorithm
            Of the core.

        Raises
        ------
        ValueError
            If a setting is out of range, or the algorithm does not apply to the problem.
        """
        validate_parameter_constraints(self._parameter_constraints, self.get_params(), type(self).__name__)
        return self._resolve(problem)

    @abstractmethod
    def _resolve(self, problem: Any) -> CoreAlgorithm | CoreTrainingAlgorithm:
        """`resolve` with settings that are checked."""


class NetworkAlgorithm(Algorithm):
    """A way to move the decays of a neural network while it is trained.

    See Also
    --------
    ImplicitHyperTraining : The default.

    Examples
    --------
    >>> from skhyper.algorithms import ImplicitHyperTraining, NetworkAlgorithm
    >>> isinstance(ImplicitHyperTraining(), NetworkAlgorithm)
    True
    """


class ClosedForm(Algorithm):
    """Normal equations: exact, for estimators with a squared loss.

    Decays of the family are solved by re-weighting in scans and by Newton's method elsewhere; the hypergradient uses
    the family's own Hessian. Memory: K p^2 numbers, or K n p where there are fewer rows than columns.

    Examples
    --------
    >>> from skhyper.algorithms import ClosedForm
    >>> ClosedForm()
    ClosedForm()
    """

    def _resolve(self, problem: Problem) -> CoreAlgorithm:
        if problem.loss != SquaredError():
            raise ValueError(
                "algorithm='closed_form' must be given a squared loss, got an estimator with the loss "
                f"{type(problem.loss).__name__}; set algorithm='auto'."
            )
        return CoreClosedForm()


class ImplicitDifferentiation(Algorithm):
    """Newton's method for the weights, and its Hessian once more for the hypergradient; any smooth loss.

    Parameters
    ----------
    dense_limit : int, default=1500
        Largest block of the Hessian that is factorised; above, conjugate gradients take products with it.
    dense_cost : float, default=200.0
        Most operations for a factorised Hessian, in products with it.
    max_iter : int, default=200
        Most Newton steps for one set of hyperparameters.
    cg_max_iter : int, default=1000
        Most steps of conjugate gradients for one linear system.

    References
    ----------
    .. [1] F. Pedregosa, "Hyperparameter optimization with approximate gradient", ICML 2016.
    .. [2] J. Lorraine, P. Vicol, D. Duvenaud, "Optimizing millions of hyperparameters by implicit differentiation",
       AISTATS 2020.

    Examples
    --------
    >>> from skhyper.algorithms import ImplicitDifferentiation
    >>> ImplicitDifferentiation(max_iter=50)
    ImplicitDifferentiation(max_iter=50)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "dense_limit": [Interval(Integral, 0, None, closed="left")],
        "dense_cost": [Interval(Real, 0, None, closed="left")],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "cg_max_iter": [Interval(Integral, 1, None, closed="left")],
    }

    def __init__(
        self, *, dense_limit: int = 1500, dense_cost: float = 200.0, max_iter: int = 200, cg_max_iter: int = 1000
    ) -> None:
        self.dense_limit = dense_limit
        self.dense_cost = dense_cost
        self.max_iter = max_iter
        self.cg_max_iter = cg_max_iter

    def _resolve(self, problem: Problem) -> CoreAlgorithm:
        return CoreImplicit(**self.get_params())


class _Automatic(Algorithm):
    """The closed form where the loss is squared and its matrices fit into memory, else implicit differentiation."""

    def _resolve(self, problem: Problem) -> CoreAlgorithm:
        n, p = problem.design.n_rows, problem.design.n_columns
        dual = isinstance(problem.design, DenseDesign) and n < p
        fits = problem.n_folds * (n * p if dual else p * p) <= MAX_NUMBERS
        return CoreClosedForm() if fits and problem.loss == SquaredError() else CoreImplicit()


class ImplicitHyperTraining(NetworkAlgorithm):
    """Implicit differentiation of a network in training, by damped Gauss-Newton systems.

    Every so many training steps a few steps of conjugate gradients, from the last solution, give the hypergradient.

    Parameters
    ----------
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.
    cg_max_iter : int, default=5
        Steps of conjugate gradients for each.
    cg_tol : float, default=1e-3
        Relative residual at which they end.
    n_rows : int, default=256
        Training rows that a Hessian is taken from.
    horizon : float, default=20.0
        Damping: the epochs within which weights are taken to answer to the decays.

    References
    ----------
    .. [1] J. Lorraine, P. Vicol, D. Duvenaud, "Optimizing millions of hyperparameters by implicit differentiation",
       AISTATS 2020.

    Examples
    --------
    >>> from skhyper.algorithms import ImplicitHyperTraining
    >>> ImplicitHyperTraining(interval=50)
    ImplicitHyperTraining(interval=50)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "interval": [Interval(Integral, 1, None, closed="left"), None],
        "cg_max_iter": [Interval(Integral, 1, None, closed="left")],
        "cg_tol": [Interval(Real, 0, None, closed="neither")],
        "n_rows": [Interval(Integral, 1, None, closed="left")],
        "horizon": [Interval(Real, 0, None, closed="neither")],
    }

    def __init__(
        self,
        *,
        interval: int | None = None,
        cg_max_iter: int = 5,
        cg_tol: float = 1e-3,
        n_rows: int = 256,
        horizon: float = 20.0,
    ) -> None:
        self.interval = interval
        self.cg_max_iter = cg_max_iter
        self.cg_tol = cg_tol
        self.n_rows = n_rows
        self.horizon = horizon

    def _resolve(self, problem: Folds) -> CoreGaussNewton:
        return CoreGaussNewton(**self.get_params())


ALGORITHMS: dict[str, type[Algorithm]] = {
    "auto": _Automatic,
    "closed_form": ClosedForm,
    "implicit": ImplicitDifferentiation,
}

# What names mean where the main network is a neural network.
NETWORK_ALGORITHMS: dict[str, type[NetworkAlgorithm]] = {
    "auto": ImplicitHyperTraining,
    "implicit": ImplicitHyperTraining,
}
NAMES = sorted({*ALGORITHMS, *NETWORK_ALGORITHMS})

__all__ = [
    "ALGORITHMS",
    "NETWORK_ALGORITHMS",
    "Algorithm",
    "ClosedForm",
    "ImplicitDifferentiation",
    "ImplicitHyperTraining",
    "NetworkAlgorithm",
]


def resolve(algorithm: str | Algorithm, problem: Folds) -> Any:
    """The core's configuration for a name or an object.

    Raises
    ------
    ValueError
        If a linear model meets an algorithm for networks, or the other way round.
    """
    network = isinstance(problem, NetworkProblem)
    kinds: dict[str, Any] = NETWORK_ALGORITHMS if network else ALGORITHMS
    if isinstance(algorithm, str) and algorithm in kinds:
        return kinds[algorithm]().resolve(problem)
    if isinstance(algorithm, str) or isinstance(algorithm, NetworkAlgorithm) != network:
        kind = "neural networks" if network else "linear models"
        raise ValueError(f"algorithm={algorithm!r} is not for {kind}; for them there are {sorted(kinds)}.")
    return algorithm.resolve(problem)
