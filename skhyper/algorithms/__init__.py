"""How weights follow hyperparameters, as objects to pass to an estimator's `algorithm`.

A name is an object with default settings: `algorithm="implicit"` is `algorithm=ImplicitDifferentiation()` for a linear
model and `algorithm=ImplicitHyperTraining()` for a neural network. At fit each resolves to a configuration of the core.
"""

from typing import Any

from ..core.problem import Folds, NetworkProblem
from .base import Algorithm, NetworkAlgorithm
from .hypernetworks import GlobalHyperTraining, JointHyperTraining, SimplifiedHyperTraining
from .linear import Automatic, ClosedForm, ImplicitDifferentiation
from .networks import T1T2, ImplicitHyperTraining, Unrolled

ALGORITHMS: dict[str, type[Algorithm]] = {
    "auto": Automatic,
    "closed_form": ClosedForm,
    "implicit": ImplicitDifferentiation,
}

# What names mean where the main network is a neural network.
NETWORK_ALGORITHMS: dict[str, type[NetworkAlgorithm]] = {
    "auto": ImplicitHyperTraining,
    "implicit": ImplicitHyperTraining,
    "joint": JointHyperTraining,
    "simplified": SimplifiedHyperTraining,
    "global": GlobalHyperTraining,
    "unrolled": Unrolled,
    "t1t2": T1T2,
}
NAMES = sorted({*ALGORITHMS, *NETWORK_ALGORITHMS})

__all__ = [
    "ALGORITHMS",
    "NETWORK_ALGORITHMS",
    "Algorithm",
    "ClosedForm",
    "GlobalHyperTraining",
    "ImplicitDifferentiation",
    "ImplicitHyperTraining",
    "JointHyperTraining",
    "NetworkAlgorithm",
    "SimplifiedHyperTraining",
    "T1T2",
    "Unrolled",
]


def resolve(algorithm: str | Algorithm, problem: Folds) -> Any:
    """The core's configuration for a name or an object.

    Raises
    ------
    ValueError
        If a linear model meets an algorithm for networks, or the other way round.
    """
    network = isinstance(problem, NetworkProblem)
    kinds: dict[str, Any] = NETWORK_ALGORITHMS if network else ALGORITHMS
    if isinstance(algorithm, str) and algorithm in kinds:
        return kinds[algorithm]().resolve(problem)
    if isinstance(algorithm, str) or isinstance(algorithm, NetworkAlgorithm) != network:
        kind = "neural networks" if network else "linear models"
        raise ValueError(f"algorithm={algorithm!r} is not for {kind}; for them there are {sorted(kinds)}.")
    return algorithm.resolve(problem)
