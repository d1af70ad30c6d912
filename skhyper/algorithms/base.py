"""What every algorithm object is."""

from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, ClassVar

from sklearn.base import BaseEstimator
from sklearn.utils._param_validation import Interval, validate_parameter_constraints

from ..core.algorithms.base import Algorithm as CoreAlgorithm
from ..core.problem import Folds
from ..core.trained import TrainingAlgorithm as CoreTrainingAlgorithm

COUNT = Interval(Integral, 1, None, closed="left")
COUNT_OR_ZERO = Interval(Integral, 0, None, closed="left")
POSITIVE = Interval(Real, 0, None, closed="neither")
POSITIVE_OR_ZERO = Interval(Real, 0, None, closed="left")


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
