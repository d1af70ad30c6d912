"""Rows for split conformal intervals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import check_random_state


def set_aside(rows: NDArray[np.intp], share: float, random_state: Any) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Split numbers of rows into those to train on and a random share for conformal scores, both ascending.

    Raises
    ------
    ValueError
        If fewer than 2 rows are left to train on.
    """
    n = int(np.ceil(share * len(rows)))
    if n > len(rows) - 2:
        raise ValueError(f"conformal_fraction must leave at least 2 rows to train on, got {share} of {len(rows)} rows.")
    order = check_random_state(random_state).permutation(rows)
    return np.sort(order[n:]), np.sort(order[:n])
