"""Which adapter serves which estimator class."""

import sys
from importlib import import_module
from typing import Any

from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    RidgeClassifier,
    SGDClassifier,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.svm import LinearSVC, LinearSVR

from .base import Adapter
from .glm import GlmAdapter
from .huber import HuberAdapter
from .logistic import LogisticAdapter
from .mlp import MLPClassifierAdapter, MLPRegressorAdapter
from .ridge import RidgeAdapter, RidgeClassifierAdapter
from .sgd import SGDClassifierAdapter, SGDRegressorAdapter
from .svm import LinearSVCAdapter, LinearSVRAdapter

# By class, and scikit-learn's own classes by name: libraries that patch scikit-learn put other classes in their places,
# before this module is imported or after, and may take them away again.
_ADAPTERS: dict[type | str, Adapter] = {}

# Classes of libraries that are not imported for them: the module here that registers their adapter.
_ELSEWHERE = {
    "skorch.regressor.NeuralNetRegressor": "skorch",
    "skorch.classifier.NeuralNetClassifier": "skorch",
    "skorch.classifier.NeuralNetBinaryClassifier": "skorch",
}


def register(estimator_class: type, adapter: Adapter) -> None:
    """Let an adapter serve an estimator class and its subclasses.

    Parameters
    ----------
    estimator_class : type
        A scikit-learn estimator class. The nearest registered class of an estimator's MRO serves it.
    adapter : Adapter
        What it knows about the class.

    Raises
    ------
    TypeError
        If `estimator_class` is no class or `adapter` is no instance of Adapter.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> from skhyper.adapters import register, RidgeAdapter
    >>> class MyRidge(Ridge):
    ...     pass
    >>> register(MyRidge, RidgeAdapter())
    """
    if not isinstance(estimator_class, type):
        raise TypeError(f"estimator_class must be a class, got {estimator_class!r}.")
    if not isinstance(adapter, Adapter):
        raise TypeError(f"adapter must be an instance of skhyper.adapters.Adapter, got {adapter!r}.")
    for cls in (estimator_class, _replaced_by(estimator_class)):
        _ADAPTERS[_key(cls)] = adapter


def _key(cls: type) -> type | str:
    """What a class is known by."""
    return f"{cls.__module__}.{cls.__qualname__}" if cls.__module__.startswith("sklearn.") else cls


def _replaced_by(cls: type) -> type:
    """The class of scikit-learn in whose place its public module now gives this one; itself where there is none."""
    for base in cls.__mro__[1:]:
        public = sys.modules.get(base.__module__.partition("._")[0])
        if base.__module__.startswith("sklearn.") and getattr(public, base.__name__, None) is cls:
            return base
    return cls


def supported() -> list[str]:
    """List the estimator classes that have an adapter.

    Returns
    -------
    names : list of str
        Class names.

    Examples
    --------
    >>> from skhyper.adapters import supported
    >>> "Ridge" in supported()
    True
    """
    names = [key if isinstance(key, str) else key.__name__ for key in [*_ADAPTERS, *_ELSEWHERE]]
    return list(dict.fromkeys(name.rpartition(".")[2] for name in names))


def adapter_for(estimator: Any) -> Adapter:
    """Find the adapter of an estimator and check the estimator's settings.

    Parameters
    ----------
    estimator : estimator
        No Pipeline: what is inside.

    Returns
    -------
    adapter : Adapter
        That of the nearest registered class of its MRO.

    Raises
    ------
    TypeError
        If no class of its MRO has an adapter, or one of its settings has no differentiable L2 objective.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skhyper.adapters import adapter_for
    >>> adapter_for(LogisticRegression()).value(alpha=4.0)
    0.25
    """
    for cls in type(estimator).__mro__:
        elsewhere = _ELSEWHERE.get(f"{cls.__module__}.{cls.__qualname__}")
        if elsewhere and cls not in _ADAPTERS:
            import_module(f".{elsewhere}", __package__).register_all(register)
        adapter = _ADAPTERS.get(_key(cls))
        if adapter is not None:
            adapter.check(estimator)
            return adapter
    raise TypeError(
        f"{estimator!r} cannot be tuned by hypergradients. Supported are {', '.join(supported())}, each alone, at the "
        "end of a Pipeline or in a TransformedTargetRegressor. Other estimators with a differentiable training loss "
        "and an L2 penalty: skhyper.adapters.register(estimator_class, adapter)."
    )


for _cls, _adapter in (
    (Ridge, RidgeAdapter()),
    (RidgeClassifier, RidgeClassifierAdapter()),
    (LogisticRegression, LogisticAdapter()),
    (PoissonRegressor, GlmAdapter(power=1)),
    (GammaRegressor, GlmAdapter(power=2)),
    (TweedieRegressor, GlmAdapter()),
    (HuberRegressor, HuberAdapter()),
    (LinearSVC, LinearSVCAdapter()),
    (LinearSVR, LinearSVRAdapter()),
    (SGDRegressor, SGDRegressorAdapter()),
    (SGDClassifier, SGDClassifierAdapter()),
    (MLPRegressor, MLPRegressorAdapter()),
    (MLPClassifier, MLPClassifierAdapter()),
):
    register(_cls, _adapter)
