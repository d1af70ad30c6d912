"""scikit-learn estimators -> problems, tuned weights -> fitted estimators; one file a family."""

from .base import Adapter, ClassifierAdapter, RegressorAdapter, Solution, Targets
from .encode import LinearEncoding, encode_linear
from .glm import GlmAdapter
from .huber import HuberAdapter
from .logistic import LogisticAdapter
from .registry import adapter_for, register, supported
from .ridge import RidgeAdapter, RidgeClassifierAdapter
from .sgd import SGDClassifierAdapter, SGDRegressorAdapter
from .svm import LinearSVCAdapter, LinearSVRAdapter

__all__ = [
    "Adapter",
    "ClassifierAdapter",
    "GlmAdapter",
    "HuberAdapter",
    "LinearEncoding",
    "LinearSVCAdapter",
    "LinearSVRAdapter",
    "LogisticAdapter",
    "RegressorAdapter",
    "RidgeAdapter",
    "RidgeClassifierAdapter",
    "SGDClassifierAdapter",
    "SGDRegressorAdapter",
    "Solution",
    "Targets",
    "adapter_for",
    "encode_linear",
    "register",
    "supported",
]
