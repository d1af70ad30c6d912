"""Algorithms for neural networks that differentiate the training itself."""

from typing import Any, ClassVar

from ..core.algorithms.gauss_newton import GaussNewton as CoreGaussNewton
from ..core.algorithms.t1t2 import T1T2 as CoreT1T2
from ..core.algorithms.unrolled import Unrolled as CoreUnrolled
from ..core.problem import Folds
from .base import COUNT, POSITIVE, NetworkAlgorithm


class ImplicitHyperTraining(NetworkAlgorithm):
    """Implicit differentiation of a network in training, by damped Gauss-Newton systems.

    Every so many training steps a few steps of conjugate gradients, from the last solution, give the hypergradient.

    Parameters
    ----------
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.
    cg_max_iter : int, default=3
        Steps of conjugate gradients for each.
    cg_tol : float, default=1e-3
        Relative residual at which they end.
    n_rows : int, default=256
        Training rows that a Hessian is taken from.
    horizon : float, default=100.0
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
        "interval": [COUNT, None],
        "cg_max_iter": [COUNT],
        "cg_tol": [POSITIVE],
        "n_rows": [COUNT],
        "horizon": [POSITIVE],
    }

    def __init__(
        self,
        *,
        interval: int | None = None,
        cg_max_iter: int = 3,
        cg_tol: float = 1e-3,
        n_rows: int = 256,
        horizon: float = 100.0,
    ) -> None:
        self.interval = interval
        self.cg_max_iter = cg_max_iter
        self.cg_tol = cg_tol
        self.n_rows = n_rows
        self.horizon = horizon

    def _resolve(self, problem: Folds) -> CoreGaussNewton:
        return CoreGaussNewton(**self.get_params())


class T1T2(NetworkAlgorithm):
    """The Hessian is taken to be the identity: cheap, and often wrong by much.

    Parameters
    ----------
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.

    References
    ----------
    .. [1] J. Luketina, M. Berglund, K. Greff, T. Raiko, "Scalable gradient-based tuning of continuous regularization
       hyperparameters", ICML 2016.

    Examples
    --------
    >>> from skhyper.algorithms import T1T2
    >>> T1T2()
    T1T2()
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"interval": [COUNT, None]}

    def __init__(self, *, interval: int | None = None) -> None:
        self.interval = interval

    def _resolve(self, problem: Folds) -> CoreT1T2:
        return CoreT1T2(**self.get_params())


class Unrolled(NetworkAlgorithm):
    """Reverse mode through the last training steps.

    Parameters
    ----------
    n_steps : int, default=10
        Steps that are differentiated through; memory is as many copies of the weights.
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.

    References
    ----------
    .. [1] D. Maclaurin, D. Duvenaud, R. Adams, "Gradient-based hyperparameter optimization through reversible
       learning", ICML 2015.

    Examples
    --------
    >>> from skhyper.algorithms import Unrolled
    >>> Unrolled(n_steps=20)
    Unrolled(n_steps=20)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {"n_steps": [COUNT], "interval": [COUNT, None]}

    def __init__(self, *, n_steps: int = 10, interval: int | None = None) -> None:
        self.n_steps = n_steps
        self.interval = interval

    def _resolve(self, problem: Folds) -> CoreUnrolled:
        return CoreUnrolled(**self.get_params())
