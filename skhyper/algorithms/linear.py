"""Algorithms for linear models: the best response is solved for."""

from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.utils._param_validation import Interval

from ..core.algorithms.base import Algorithm as CoreAlgorithm
from ..core.algorithms.closed_form import ClosedForm as CoreClosedForm
from ..core.algorithms.implicit import Implicit as CoreImplicit
from ..core.designs import DenseDesign
from ..core.losses import SquaredError
from ..core.problem import Problem
from .base import Algorithm

# Above this many numbers in the folds' normal equations, a squared loss is left to conjugate gradients.
MAX_NUMBERS = 2**27


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


class Automatic(Algorithm):
    """The closed form where the loss is squared and its matrices fit into memory, else implicit differentiation."""

    def _resolve(self, problem: Problem) -> CoreAlgorithm:
        n, p = problem.design.n_rows, problem.design.n_columns
        dual = isinstance(problem.design, DenseDesign) and n < p
        fits = problem.n_folds * (n * p if dual else p * p) <= MAX_NUMBERS
        return CoreClosedForm() if fits and problem.loss == SquaredError() else CoreImplicit()
