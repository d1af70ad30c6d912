"""What can be wrong with the data of a search, said before any work."""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils import check_array
from sklearn.utils.validation import _num_samples

from ..adapters.task import Target, make_target
from ..adapters.unwrap import weight_name
from ..boundary import check_weights, refuse_unreadable


def check_data(estimator: Any, x: Any, y: Any, params: Mapping[str, Any]) -> tuple[Target, NDArray[np.float64] | None]:
    """What is tuned, and the sample weights of its final estimator.

    Where preprocessing comes first, X may hold what it is there for (strings, missing values), and the final
    estimator's features are checked fold by fold.

    Raises
    ------
    TypeError
        If the estimator is not supported, or X or y holds dates or is a masked array.
    ValueError
        If X, y or the weights cannot be used.
    """
    refuse_unreadable(X=x, y=y)
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    n_rows = _num_samples(x)
    if n_rows < 2:
        raise ValueError(f"X must have at least 2 rows to hold some out, got n_samples={n_rows}.")
    check_array(y, ensure_2d=False, dtype=None, input_name="y")
    target = make_target(estimator, y)
    leaf = target.leaf
    if hasattr(leaf.estimator, "_parameter_constraints"):  # scikit-learn's own
        leaf.estimator._validate_params()
    if not leaf.path:
        target.adapter.read(clone(leaf.estimator), x, y)
    return target, check_weights(params.get(weight_name(leaf)), x)


def check_fit_params(target: Target, fit_params: Mapping[str, Any]) -> None:
    """The final estimator's fit is not called: all that it can be given is sample_weight.

    Raises
    ------
    TypeError
        If the estimator stands alone and fit was given anything else.
    """
    unknown = sorted(set(fit_params) - {"sample_weight"})
    if not target.leaf.path and unknown:
        raise TypeError(f"fit() got unexpected keyword arguments {unknown}; it reads sample_weight and groups.")


def tell_callbacks(target: Target) -> None:
    """Warn of callbacks of the final estimator, whose fit is not called."""
    estimator = target.leaf.estimator
    names = target.adapter.callbacks(estimator)
    if names:
        warnings.warn(
            f"Callbacks of {type(estimator).__name__} are not called, because the search trains it in another way: "
            f"{', '.join(names)}. Leave them out, or use callbacks of the search itself.",
            UserWarning,
            stacklevel=4,
        )


def tell_missing(missing: Mapping[int, list[Any]], error_score: Any) -> None:
    """Warn of classes without training rows, by fold.

    Raises
    ------
    ValueError
        If they are an error.
    """
    if not missing:
        return
    message = f"Classes without training rows, by fold of cv: {missing}."
    if error_score == "raise":
        raise ValueError(message)
    warnings.warn(f"{message} Their validation rows do not count there.", UserWarning, stacklevel=4)
