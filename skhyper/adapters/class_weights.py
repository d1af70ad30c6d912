"""class_weight as the estimators read it: by the training rows of a fold alone."""

from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.class_weight import compute_class_weight

_READS_SAMPLE_WEIGHT = "sample_weight" in signature(compute_class_weight).parameters


def class_weights(
    class_weight: Any, classes: NDArray[Any], y: NDArray[Any], sample_weight: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """A weight for each class, shape (n_classes,); 1 for a class that has no training rows of positive weight.

    Parameters
    ----------
    class_weight : dict, "balanced" or None
    classes : array of all class labels
    y : array of the training rows' labels
    sample_weight : array, optional
        Counts in "balanced", where the installed scikit-learn lets it count.
    """
    if sample_weight is not None:
        y, sample_weight = y[sample_weight > 0], sample_weight[sample_weight > 0]
    weights = np.ones(len(classes))
    present = np.isin(classes, y)
    if class_weight == "balanced":
        extra = {"sample_weight": sample_weight} if _READS_SAMPLE_WEIGHT else {}
        weights[present] = compute_class_weight("balanced", classes=classes[present], y=y, **extra)
        return weights
    return compute_class_weight(class_weight, classes=classes, y=y)
