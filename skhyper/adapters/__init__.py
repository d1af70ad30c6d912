"""scikit-learn estimators -> problems, tuned weights -> fitted estimators; one file a family."""

from .base import Adapter
from .base import ClassifierAdapter as ClassifierAdapter
from .base import RegressorAdapter as RegressorAdapter
from .base import Solution as Solution
from .base import Targets as Targets
from .encode import LinearEncoding as LinearEncoding
from .encode import encode_linear as encode_linear
from .glm import GlmAdapter as GlmAdapter
from .huber import HuberAdapter as HuberAdapter
from .logistic import LogisticAdapter as LogisticAdapter
from .mlp import MLPClassifierAdapter as MLPClassifierAdapter
from .mlp import MLPRegressorAdapter as MLPRegressorAdapter
from .registry import adapter_for, register, supported
from .ridge import RidgeAdapter as RidgeAdapter
from .ridge import RidgeClassifierAdapter as RidgeClassifierAdapter
from .sgd import SGDClassifierAdapter as SGDClassifierAdapter
from .sgd import SGDRegressorAdapter as SGDRegressorAdapter
from .svm import LinearSVCAdapter as LinearSVCAdapter
from .svm import LinearSVRAdapter as LinearSVRAdapter

# What an extension needs; the families are importable by name, too.
__all__ = ["Adapter", "adapter_for", "register", "supported"]
