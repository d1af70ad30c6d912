"""Methods that change an estimator only if they end well, and estimators that forget what they had learnt."""

from collections.abc import Callable
from functools import wraps
from typing import Any


def all_or_nothing(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that leaves the estimator as it was where it fails."""

    @wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = dict(vars(self))
        try:
            return method(self, *args, **kwargs)
        except BaseException:
            vars(self).clear()
            vars(self).update(before)
            raise

    return wrapped


def forget(estimator: Any, *private: str) -> None:
    """Remove what an earlier fit left: attributes that end in an underscore, and the private ones that are named."""
    for name in list(vars(estimator)):
        if name in private or (name.endswith("_") and not name.startswith("_")):
            delattr(estimator, name)
