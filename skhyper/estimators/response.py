"""The best response as a product: fitted estimators and held-out losses at other alphas, without any training."""

import warnings
from copy import deepcopy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from ..adapters.network import NetworkAdapter
from ..adapters.registry import adapter_for
from ..adapters.unwrap import final_estimator
from ..core.result import Result

Array = NDArray[np.float64]


# Stages whose evaluations are those of one global alpha on all folds.
GLOBAL = ("scan", "global alpha")


def response_curve(result: Result, index: int) -> tuple[Array, Array]:
    """Log alpha, ascending, and the mean outer loss there: of the chosen row, if nothing but alpha moved in its stage.

    Else, where decays or the exponent moved as well, it is that of the global alpha.
    """
    chosen = result.snapshots[index]
    if chosen.curve is not None:
        return chosen.curve.log_alpha.numpy().copy(), chosen.curve.loss.numpy().copy()
    own = _points(result, (chosen.name,)) if chosen.hyper.offsets is None and chosen.name not in GLOBAL else {}
    points = own if len(own) > 1 else _points(result, GLOBAL)
    ascending = sorted(points)
    return np.array(ascending), np.array([points[x] for x in ascending])


def _points(result: Result, stages: tuple[str, ...]) -> dict[float, float]:
    """The outer loss by log alpha in some stages; none if the exponent moved as well."""
    records = [r for r in result.history if r.stage in stages and np.isfinite(r.value)]
    return {r.log_alpha: r.value for r in records} if len({r.exponent for r in records}) == 1 else {}


def check_alphas(alphas: Any, bounds: tuple[float, float]) -> Array:
    """Positive numbers, with a warning where one lies outside the range of the best response.

    Raises
    ------
    ValueError
        If one is not positive and finite.
    """
    values = np.atleast_1d(np.asarray(alphas, dtype=np.float64))
    if not (np.isfinite(values) & (values > 0)).all():
        raise ValueError(f"alphas must be positive and finite, got {alphas!r}.")
    low, high = bounds
    outside = values[(values < low * (1 - 1e-9)) | (values > high * (1 + 1e-9))]
    if len(outside):
        warnings.warn(
            f"alpha={outside[0]:g} lies outside response_range_ ({low:g}, {high:g}), where the best response is an "
            "extrapolation.",
            UserWarning,
            stacklevel=3,
        )
    return values


def interpolate(curve: tuple[Array, Array], log_alpha: Array) -> Array:
    """The outer loss between the points of a curve: its logarithm, where it has one, by monotone cubics in log alpha.

    Beyond its ends it is that of the end.
    """
    points, losses = curve
    if len(points) < 2:
        return np.interp(log_alpha, points, losses)
    inside = np.clip(log_alpha, points[0], points[-1])
    if losses.min() <= 0:
        return np.asarray(PchipInterpolator(points, losses)(inside))
    return np.exp(PchipInterpolator(points, np.log(losses))(inside))


def moved_estimator(fitted: Any, moved: Any, shift: float) -> Any:
    """The fitted network with its weights `shift` times as far towards those of `moved`."""
    estimator = deepcopy(fitted)
    here, there = (final_estimator(e) for e in (estimator, moved))
    adapter = adapter_for(here)
    assert isinstance(adapter, NetworkAdapter)
    adapter.blend(here, there, shift)
    return estimator
