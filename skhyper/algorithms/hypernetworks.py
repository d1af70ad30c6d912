"""Algorithms for neural networks that learn the best response: hypernetworks from decays to weights."""

from copy import deepcopy
from typing import Any, ClassVar

from sklearn.utils._param_validation import StrOptions
from torch.nn import Module

from ..core.algorithms.global_ import Global as CoreGlobal
from ..core.algorithms.joint import Joint as CoreJoint
from ..core.algorithms.simplified import Simplified as CoreSimplified
from ..core.decays import Decays
from ..core.hypernets import Elementwise, Linear, LowRank, ModuleHypernet, multilayer
from ..core.problem import Folds
from .base import COUNT, COUNT_OR_ZERO, POSITIVE, POSITIVE_OR_ZERO, NetworkAlgorithm

HYPERNETS = ("elementwise", "linear", "low_rank", "mlp")
HIDDEN = 50  # units of "mlp"
MAX_PARAMETERS = 2**25  # of "linear"


class JointHyperTraining(NetworkAlgorithm):
    """A hypernetwork from decays to weights and the decays in one loop: Algorithm 3 of [1]_.

    The hypernetwork is trained at decays drawn near the present ones, and the hypergradient is its derivative.

    Parameters
    ----------
    hypernet : {"elementwise", "linear", "low_rank", "mlp"}, torch.nn.Module or callable, default="elementwise"
        From log-decays to weights. "elementwise" has a diagonal Jacobian; "linear" one column of weights for each
        decay; "low_rank" `rank` directions; "mlp" one hidden layer of 50 tanh units. A module maps (n_decays,) to
        (n_weights,), and what it puts out is added to weights that are trained with it. Where there are finer decays,
        there is one decay at first, and then are several: a function (n_decays, n_weights) -> module makes both.
    sample_scale : float, default=0.5
        Standard deviation of the drawn log-decays.
    rank : int, default=10
        Of "low_rank".
    fine_tuning : int, default=0
        Unrolled training steps from the generated weights, which the hypergradient goes through.
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.

    References
    ----------
    .. [1] J. Lorraine, D. Duvenaud, "Stochastic hyperparameter optimization through hypernetworks", 2018.

    Examples
    --------
    >>> from skhyper.algorithms import JointHyperTraining
    >>> JointHyperTraining(hypernet="low_rank")
    JointHyperTraining(hypernet='low_rank')
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hypernet": [StrOptions(set(HYPERNETS)), Module, callable],
        "sample_scale": [POSITIVE],
        "rank": [COUNT],
        "fine_tuning": [COUNT_OR_ZERO],
        "interval": [COUNT, None],
    }

    def __init__(
        self,
        *,
        hypernet: Any = "elementwise",
        sample_scale: float = 0.5,
        rank: int = 10,
        fine_tuning: int = 0,
        interval: int | None = None,
    ) -> None:
        self.hypernet = hypernet
        self.sample_scale = sample_scale
        self.rank = rank
        self.fine_tuning = fine_tuning
        self.interval = interval

    def _resolve(self, problem: Folds) -> CoreJoint:
        maker = hypernet_maker(self.hypernet, self.rank)
        return CoreJoint(maker, self.interval, self.fine_tuning, sample_scale=self.sample_scale)


class SimplifiedHyperTraining(NetworkAlgorithm):
    """Joint training without a draw for every step: Algorithm 4 of [1]_.

    What the hypernetwork knows of other decays is what it learnt on the way, along the way, and from `dither`.

    Parameters
    ----------
    hypernet : {"linear", "low_rank", "mlp", "elementwise"}, torch.nn.Module or callable, default="linear"
        As in `JointHyperTraining`; "elementwise" is centred at the present decays and raises where these are not
        dithered.
    dither : float, default=0.3
        Standard deviation of what is added to the log-decays, once for all training steps between two hypergradients.
        0 is the algorithm of the paper, which learns one direction.
    rank : int, default=10
        Of "low_rank".
    fine_tuning : int, default=0
        Unrolled training steps from the generated weights, which the hypergradient goes through.
    interval : int or None, default=None
        Training steps between two hypergradients; None is about 20, fewer where training is short.

    References
    ----------
    .. [1] J. Lorraine, D. Duvenaud, "Stochastic hyperparameter optimization through hypernetworks", 2018.

    Examples
    --------
    >>> from skhyper.algorithms import SimplifiedHyperTraining
    >>> SimplifiedHyperTraining()
    SimplifiedHyperTraining()
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hypernet": [StrOptions(set(HYPERNETS)), Module, callable],
        "dither": [POSITIVE_OR_ZERO],
        "rank": [COUNT],
        "fine_tuning": [COUNT_OR_ZERO],
        "interval": [COUNT, None],
    }

    def __init__(
        self,
        *,
        hypernet: Any = "linear",
        dither: float = 0.3,
        rank: int = 10,
        fine_tuning: int = 0,
        interval: int | None = None,
    ) -> None:
        self.hypernet = hypernet
        self.dither = dither
        self.rank = rank
        self.fine_tuning = fine_tuning
        self.interval = interval

    def _resolve(self, problem: Folds) -> CoreSimplified:
        if self.hypernet == "elementwise" and not self.dither:
            raise ValueError(
                "hypernet='elementwise' is centred at the present decays and learns from others, of which there are "
                "none with dither=0; set hypernet='linear'."
            )
        maker = hypernet_maker(self.hypernet, self.rank)
        return CoreSimplified(maker, self.interval, self.fine_tuning, dither=self.dither)


class GlobalHyperTraining(NetworkAlgorithm):
    """A best response over a broad range of decays first, then the decays: Algorithm 2 of [1]_.

    Parameters
    ----------
    hypernet : {"mlp", "linear", "low_rank", "elementwise"}, torch.nn.Module or callable, default="mlp"
        As in `JointHyperTraining`.
    sample_scale : float, default=1.5
        Standard deviation of the log-decays that the hypernetwork is trained at in the first round.
    n_steps : int or None, default=None
        Training steps of the hypernetwork in all rounds; None: as many as one fit of the network may take.
    rounds : int, default=4
        How often it is trained, each time about the decays as they are then and over a range half as wide. 1 is the
        algorithm of the paper.
    rank : int, default=10
        Of "low_rank".
    fine_tuning : int, default=0
        Unrolled training steps from the generated weights, which the hypergradient goes through.

    References
    ----------
    .. [1] J. Lorraine, D. Duvenaud, "Stochastic hyperparameter optimization through hypernetworks", 2018.

    Examples
    --------
    >>> from skhyper.algorithms import GlobalHyperTraining
    >>> GlobalHyperTraining(sample_scale=1.0)
    GlobalHyperTraining(sample_scale=1.0)
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hypernet": [StrOptions(set(HYPERNETS)), Module, callable],
        "sample_scale": [POSITIVE],
        "n_steps": [COUNT, None],
        "rounds": [COUNT],
        "rank": [COUNT],
        "fine_tuning": [COUNT_OR_ZERO],
    }

    def __init__(
        self,
        *,
        hypernet: Any = "mlp",
        sample_scale: float = 1.5,
        n_steps: int | None = None,
        rounds: int = 4,
        rank: int = 10,
        fine_tuning: int = 0,
    ) -> None:
        self.hypernet = hypernet
        self.sample_scale = sample_scale
        self.n_steps = n_steps
        self.rounds = rounds
        self.rank = rank
        self.fine_tuning = fine_tuning

    def _resolve(self, problem: Folds) -> CoreGlobal:
        maker = hypernet_maker(self.hypernet, self.rank)
        settings: dict[str, Any] = {"sample_scale": self.sample_scale, "n_steps": self.n_steps, "rounds": self.rounds}
        return CoreGlobal(maker, None, self.fine_tuning, **settings)


def linear(decays: Decays) -> Linear:
    """A linear hypernetwork, if it fits into memory.

    Raises
    ------
    ValueError
        If it has too many parameters.
    """
    hypernet = Linear(decays)
    if hypernet.n_parameters > MAX_PARAMETERS:
        raise ValueError(
            f"hypernet='linear' has {len(decays.index)} x {decays.n_groups} parameters, more than {MAX_PARAMETERS}; "
            "set hypernet='low_rank' or 'elementwise', or a coarser granularity."
        )
    return hypernet


def hypernet_maker(hypernet: Any, rank: int) -> Any:
    """(decays, generator) -> a hypernetwork of the core, from a name, a torch module or what makes one."""
    if isinstance(hypernet, Module):
        return lambda decays, _: ModuleHypernet(decays, deepcopy(hypernet))
    if callable(hypernet):
        return lambda decays, _: ModuleHypernet(decays, hypernet(decays.n_groups, len(decays.index)))
    makers: dict[str, Any] = {
        "elementwise": lambda decays, _: Elementwise(decays),
        "linear": lambda decays, _: linear(decays),
        "low_rank": lambda decays, _: LowRank(decays, min(rank, decays.n_groups)),
        "mlp": lambda decays, generator: multilayer(decays, HIDDEN, generator),
    }
    return makers[hypernet]
