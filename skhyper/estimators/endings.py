"""Why a search ended, and the one warning where it ended without what it was looking for."""

import warnings
from typing import Any

from sklearn.exceptions import ConvergenceWarning

from ..adapters.network import NetworkAdapter
from ..adapters.task import Target
from ..core.algorithms.implicit import Implicit
from ..core.result import ENDED, Result, StopReason

# Relative residual of the inner problem, or of the adjoint equation, from which a linear model's result means little.
UNSOLVED = 1e-2


def ending(search: Any, result: Result, index: int, algorithm: Any) -> StopReason:
    """Why the search over a linear model ended: what cut it short, else how the chosen row was found."""
    if result.stop_reason in (*ENDED, StopReason.DIVERGED):
        return result.stop_reason
    chosen = result.snapshots[index]
    if chosen.error > UNSOLVED and isinstance(algorithm, Implicit):
        return StopReason.UNSOLVED
    if chosen.stop_reason is StopReason.AT_BOUND and isinstance(search.alpha_bounds, str):
        return StopReason.AT_LIMIT
    return chosen.stop_reason


def tell_end(search: Any, target: Target, reason: StopReason) -> None:
    """Warn where the result is not what was looked for, naming the parameter and what to do."""
    message = _of_network(target, reason) if isinstance(target.adapter, NetworkAdapter) else _of_linear(search, reason)
    if message is not None:
        warnings.warn(message, ConvergenceWarning, stacklevel=5)


def _of_linear(search: Any, reason: StopReason) -> str | None:
    said = {
        StopReason.AT_BOUND: f"The best alpha lies on a bound of alpha_bounds={search.alpha_bounds!r}; widen them, or "
        "leave alpha_bounds='auto', if that is not meant.",
        StopReason.MAX_ITER: f"The search had taken all of its steps before alpha was found; raise max_iter="
        f"{search.max_iter}.",
        StopReason.UNSOLVED: "The weights of the inner problem did not converge, so that scores and alpha mean little; "
        "raise max_iter of ImplicitDifferentiation, or scale the columns.",
        StopReason.DIVERGED: "The held-out loss was not finite at some alpha, and the best model so far is kept; scale "
        "the columns and the targets.",
    }
    return said.get(reason)


def _of_network(target: Target, reason: StopReason) -> str | None:
    adapter, name = target.adapter, type(target.leaf.estimator).__name__
    assert isinstance(adapter, NetworkAdapter)
    slower = f"lower {name}'s {adapter.rate}."
    said = {
        StopReason.MOVING: "Alpha was still moving when training had its full length; raise "
        f"{name}'s {adapter.length}, or go on with continue_fit.",
        StopReason.MOVING_AT_MAX_ITER: "Alpha was still moving when the search had taken max_iter steps; raise the "
        "search's max_iter, or go on with continue_fit.",
        StopReason.DIVERGED: f"The held-out loss was not finite, and the best model so far is kept; {slower}",
        StopReason.UNDONE: f"The final training on all rows diverged and was undone; {slower}",
    }
    return said.get(reason)
