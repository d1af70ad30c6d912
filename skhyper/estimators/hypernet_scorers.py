"""Scores of predictive distributions, for `scoring=` in cross-validation and searches."""

from copy import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils.metadata_routing import MetadataRequest

from ..adapters.unwrap import inner_with


class DistributionScorer:
    """A score of predictive distributions; higher is better.

    Called as ``scorer(estimator, X, y, sample_weight=None)`` with a fitted HypernetRegressor, or a pipeline or a search
    that ends in one; the score is the mean over rows, and over targets where each has a value of its own.

    Parameters
    ----------
    method : {"log_prob", "crps"}
        The regressor's method that gives the values of rows.
    sign : {1, -1}
        -1 where lower values are better.
    meaning : str
        The documentation of this score.

    Examples
    --------
    >>> from sklearn.datasets import make_regression
    >>> from sklearn.model_selection import cross_val_score
    >>> from skhyper import HypernetRegressor, crps_scorer, log_prob_scorer
    >>> X, y = make_regression(60, 3, noise=10.0, random_state=0)
    >>> cross_val_score(HypernetRegressor(random_state=0), X, y, cv=2, scoring=log_prob_scorer).shape
    (2,)
    """

    def __init__(self, method: str, sign: int, meaning: str) -> None:
        self.method = method
        self.sign = sign
        self.__doc__ = meaning
        self._weighted: bool | str | None = None

    def __call__(self, estimator: Any, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Score a fitted estimator on rows; a TypeError says where there is no density."""
        inner, x = inner_with(estimator, X, self.method)
        values = np.asarray(getattr(inner, self.method)(x, y))
        return self.sign * float(np.average(values.reshape(len(values), -1).mean(1), weights=sample_weight))

    def __repr__(self) -> str:
        return f"{self.method}_scorer"

    def set_score_request(self, *, sample_weight: bool | str | None) -> "DistributionScorer":
        """Give a copy that asks for sample weights, where metadata routing is on.

        Parameters
        ----------
        sample_weight : bool, str or None
            True to be sent them, False not to be, a name under which they are passed; None, as at first, is an error
            where they are passed.

        Returns
        -------
        scorer : DistributionScorer
            The copy; `log_prob_scorer` and `crps_scorer`, which everyone shares, stay as they are.
        """
        asking = copy(self)
        asking._weighted = sample_weight
        asking.get_metadata_routing()  # refuses what is no request
        return asking

    def get_metadata_routing(self) -> MetadataRequest:
        """Give what the scorer asks for, as scikit-learn's routing reads it.

        Returns
        -------
        routing : MetadataRequest
            The request for sample weights.
        """
        request = MetadataRequest(owner=repr(self))
        request.score.add_request(param="sample_weight", alias=self._weighted)
        return request

    def _accept_sample_weight(self) -> bool:
        """Say to searches without routing that weights of fit can go to the scorer."""
        return True


log_prob_scorer = DistributionScorer(
    "log_prob",
    1,
    """Mean log density of held-out targets in their own unit, for `scoring=`; higher is better.

    ``log_prob_scorer(estimator, X, y, sample_weight=None)`` gives ``sum_i s_i log p(y_i | x_i) / sum_i s_i`` of a
    fitted HypernetRegressor, or of a pipeline or a search that ends in one; of several targets p is the joint density.
    A TypeError says where there is none. With metadata routing,
    ``log_prob_scorer.set_score_request(sample_weight=True)`` is a copy that is sent the weights s_i.
    """,
)

crps_scorer = DistributionScorer(
    "crps",
    -1,
    """Minus the mean continuous ranked probability score in the unit of y, for `scoring=`; higher is better.

    ``crps_scorer(estimator, X, y, sample_weight=None)`` gives ``-sum_i s_i crps_i / sum_i s_i`` with ``crps_i`` the
    integral of ``(F(t | x_i) - 1[t >= y_i])^2`` over t, its mean over targets where there are several, of a fitted
    HypernetRegressor, or of a pipeline or a search that ends in one. A TypeError says where there is none. With
    metadata routing, ``crps_scorer.set_score_request(sample_weight=True)`` is a copy that is sent the weights s_i.
    """,
)
