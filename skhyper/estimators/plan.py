"""`granularity`, `exponent`, `shrinkage` and `alpha_bounds` -> the core's plan."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..adapters.losses import OfPredictions
from ..boundary import GRANULARITIES
from ..core.decays import Decays
from ..core.losses import (
    ConcomitantHuber,
    Huber,
    Loss,
    Rescaled,
    SquaredEpsilonInsensitive,
    SquaredError,
    TweedieLog,
)
from ..core.problem import Problem
from ..core.procedure import Plan
from ..core.selection import STANDARD_ERRORS, STANDARD_ERRORS_OF_LIKELIHOODS

# The exponents that "auto" tries beside 2, one of which is chosen; and those that it averages over.
EXPONENTS = (1.5, 1.0, 0.75, 0.5)
AVERAGED_EXPONENTS = (1.3, 0.8, 0.5)
LOWEST_EXPONENT = 0.5
AUTO = "auto"
# The exponent of a network's layers that moves by hypergradient.
TUNED = "tuned"


def resolve_granularity(granularity: str, decay_groups: Any, network: bool = False) -> str:
    """A name of `GRANULARITIES`; "auto" is one decay a feature, for neural networks one for all weights.

    Raises
    ------
    ValueError
        If groups of features are given beside a granularity that is not of features.
    """
    if decay_groups is not None and granularity not in ("auto", "feature"):
        raise ValueError(f"granularity={granularity!r} cannot be combined with decay_groups; leave it at 'auto'.")
    if granularity != "auto":
        return granularity
    return "global" if network and decay_groups is None else "feature"


def check_bounds(alpha_bounds: Any) -> tuple[float, float] | None:
    """Bounds of log alpha; None for "auto", the range that the data suggest.

    Raises
    ------
    ValueError
        If the bounds are not two positive numbers in ascending order.
    """
    if isinstance(alpha_bounds, str) and alpha_bounds == AUTO:
        return None
    bounds = _as_array(alpha_bounds)
    if bounds.shape != (2,) or not np.isfinite(bounds).all() or not 0 < bounds[0] < bounds[1]:
        raise ValueError(
            f"alpha_bounds must be 'auto' or two finite numbers (low, high) with 0 < low < high, got {alpha_bounds!r}."
        )
    return math.log(bounds[0]), math.log(bounds[1])


def check_exponents(exponent: Any) -> tuple[float, ...] | None:
    """Exponents to try beside 2, descending; None for "auto".

    Raises
    ------
    ValueError
        If one lies outside [0.5, 2].
    """
    if isinstance(exponent, str):
        return None
    values = sorted(set(_as_array(exponent).ravel().tolist()), reverse=True)
    if np.ndim(exponent) > 1 or not values or not all(LOWEST_EXPONENT <= q <= 2 for q in values):
        raise ValueError(f"exponent must hold values in [{LOWEST_EXPONENT}, 2], got {exponent!r}.")
    return tuple(q for q in values if q < 2)


def check_shrinkage(shrinkage: Any) -> tuple[float, ...]:
    """Standard deviations of the prior of free decays, stiffest first, infinity for no prior; empty for none.

    Raises
    ------
    ValueError
        If one is not positive.
    """
    if shrinkage is None or isinstance(shrinkage, str):
        return ()
    values = sorted(set(_as_array(shrinkage).ravel().tolist()))
    if np.ndim(shrinkage) > 1 or not values or not all(tau > 0 for tau in values):
        raise ValueError(f"shrinkage must hold positive numbers, got {shrinkage!r}.")
    return tuple(values)


def _as_array(value: Any) -> NDArray[np.float64]:
    """Numbers as they are shaped; nan for what is none."""
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return np.array(np.nan)


def n_real_groups(decays: Decays) -> int:
    """How many decays there are, those of penalised intercepts apart."""
    return decays.n_groups if decays.plain is None else int((~decays.plain).sum())


def make_plan(
    problem: Problem,
    exponents: tuple[float, ...] | None,
    taus: tuple[float, ...],
    bounds: tuple[float, float] | None,
    tol: float,
    competes: bool = True,
    auto: tuple[float, ...] = EXPONENTS,
) -> Plan:
    """What to tune.

    Raises
    ------
    ValueError
        If an exponent other than 2, or free decays, are asked for where there is one decay only.
    """
    if n_real_groups(problem.decays) == 1:
        if exponents or taus:
            raise ValueError(
                f"exponent={exponents or 2!r} and shrinkage={taus or None!r} need two decays or more, but there is one "
                "(granularity='global', a single group, or a single feature); set exponent=2 and shrinkage=None."
            )
        exponents = ()
    if exponents is None:
        exponents = auto
    errors = STANDARD_ERRORS if is_squared(problem.outer_loss) else STANDARD_ERRORS_OF_LIKELIHOODS
    log_scale = has_unit(problem.outer_loss)
    return Plan(exponents, taus, bounds, log_scale, tol, competes, standard_errors=errors)


def has_unit(loss: Loss) -> bool:
    """Whether a loss changes with the unit of the targets, so that only its logarithm's changes mean something."""
    inner = loss.loss if isinstance(loss, Rescaled | OfPredictions) else loss
    return isinstance(inner, SquaredError | TweedieLog | Huber | ConcomitantHuber | SquaredEpsilonInsensitive)


def is_squared(loss: Loss) -> bool:
    """Whether a loss is a squared error of predictions."""
    return loss in (SquaredError(), TweedieLog(0), OfPredictions(SquaredError(), 1))


__all__ = ["GRANULARITIES", "check_bounds", "check_exponents", "check_shrinkage", "make_plan", "resolve_granularity"]
