"""Decays of features as column scaling: alpha_j w_j^2 = alpha v_j^2 for columns t_j x_j, t_j^2 = alpha / alpha_j."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array, check_is_fitted, validate_data


class ColumnScaling(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    """Multiply each column by a fixed factor; 0 takes a column out.

    Parameters
    ----------
    factors : array-like of shape (n_features,) or None, default=None
        None: ones.

    Attributes
    ----------
    n_features_in_ : int
        Number of columns.

    Examples
    --------
    >>> from skhyper.estimators.scaling import ColumnScaling
    >>> ColumnScaling([1.0, 0.5]).fit_transform([[2.0, 2.0]])
    array([[2., 1.]])
    """

    def __init__(self, factors: ArrayLike | None = None) -> None:
        self.factors = factors

    def fit(self, X: Any, y: Any = None) -> "ColumnScaling":
        """Check the number of columns; nothing is learnt.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.
        y : None
            Ignored.

        Returns
        -------
        self : ColumnScaling
            Itself.

        Raises
        ------
        ValueError
            If `factors` has another length.
        """
        X = validate_data(self, X, accept_sparse=True, dtype=[np.float64, np.float32])
        if self.factors is not None and np.shape(self.factors) != (X.shape[1],):
            raise ValueError(
                f"factors must hold {X.shape[1]} numbers, one a column, got shape {np.shape(self.factors)}."
            )
        return self

    def transform(self, X: Any) -> Any:
        """Scale the columns.

        Parameters
        ----------
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Data.

        Returns
        -------
        scaled : {ndarray, sparse matrix} of shape (n_samples, n_features)
            The columns times their factors.
        """
        check_is_fitted(self)
        X = validate_data(self, X, accept_sparse=True, dtype=[np.float64, np.float32], reset=False)
        if self.factors is None:
            return X
        factors = check_array(self.factors, ensure_2d=False, dtype=X.dtype)
        return X @ sparse.diags_array(factors, format="csr", dtype=X.dtype) if sparse.issparse(X) else X * factors

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def keep_decays(estimator: Any, factors: NDArray[np.float64]) -> Any:
    """The estimator with its columns scaled just before the innermost one; a bare estimator becomes a Pipeline."""
    scaling = ("decays", ColumnScaling(factors))
    if isinstance(estimator, TransformedTargetRegressor):
        return estimator.set_params(regressor=keep_decays(estimator.regressor, factors))
    if not isinstance(estimator, Pipeline):
        return Pipeline([scaling, (type(estimator).__name__.lower(), estimator)])
    name, last = estimator.steps[-1]
    if isinstance(last, Pipeline | TransformedTargetRegressor):
        tail = [(name, keep_decays(last, factors))]
    else:
        tail = [scaling, (name, last)]
    return estimator.set_params(steps=[*estimator.steps[:-1], *tail])
