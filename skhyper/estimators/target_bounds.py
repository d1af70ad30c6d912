"""Bounds of targets, as users give them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def resolve_bounds(bounds: Any, targets: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower and upper bounds of each target, (T,) each; infinite where there is none.

    Parameters
    ----------
    bounds : pair of number, array-like of shape (T,) or None
    targets : ndarray of shape (n, T)
        They must lie within.

    Raises
    ------
    ValueError
        If the pair is none, has another shape or the wrong order, or a target lies outside.
    """
    if len(bounds) != 2:
        raise ValueError(f"bounds must be a pair (low, high), got {bounds!r}.")
    n_targets = targets.shape[1]
    infinite = (-np.inf, np.inf)
    try:
        low, high = (
            np.broadcast_to(np.asarray(default if end is None else end, dtype=np.float64), n_targets).copy()
            for end, default in zip(bounds, infinite, strict=True)
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"bounds must hold numbers, None or arrays of shape ({n_targets},), got {bounds!r}."
        ) from error
    if not (low < high).all():
        raise ValueError(f"bounds must have low < high, got {bounds!r}.")
    if (targets < low).any() or (targets > high).any():
        raise ValueError(
            f"y must lie within bounds={bounds!r}, got values from {targets.min():g} to {targets.max():g}."
        )
    return low, high
