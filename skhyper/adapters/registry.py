"""Which adapter serves which estimator class."""

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

_ADAPTERS: dict[type, Adapter] = {
    Ridge: RidgeAdapter(),
    RidgeClassifier: RidgeClassifierAdapter(),
    LogisticRegression: LogisticAdapter(),
    PoissonRegressor: GlmAdapter(power=1),
    GammaRegressor: GlmAdapter(power=2),
    TweedieRegressor: GlmAdapter(),
    HuberRegressor: HuberAdapter(),
    LinearSVC: LinearSVCAdapter(),
    LinearSVR: LinearSVRAdapter(),
    SGDRegressor: SGDRegressorAdapter(),
    SGDClassifier: SGDClassifierAdapter(),
    MLPRegressor: MLPRegressorAdapter(),
    MLPClassifier: MLPClassifierAdapter(),
}


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
    _ADAPTERS[estimator_class] = adapter


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
    elsewhere = [name.rpartition(".")[2] for name in _ELSEWHERE]
    return list(dict.fromkeys([*(cls.__name__ for cls in _ADAPTERS), *elsewhere]))


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
        if cls in _ADAPTERS:
            adapter = _ADAPTERS[cls]
            adapter.check(estimator)
            return adapter
    raise TypeError(
        f"{estimator!r} cannot be tuned by hypergradients. Supported are {', '.join(supported())}, each alone, at the "
        "end of a Pipeline or in a TransformedTargetRegressor. Other estimators with a differentiable training loss "
        "and an L2 penalty: skhyper.adapters.register(estimator_class, adapter)."
    )
