"""Algorithm 4 of Lorraine and Duvenaud (2018): Algorithm 3 without a draw for every step.

The hypernetwork is trained at the decays where the search stands; what it knows of others is what it learnt on the way:
with J the true Jacobian, decays that have moved by d leave it with J d d' / (1 + d'd), right along d and ignorant
across it. So the present decays are dithered: moved a little, once an evaluation, about where the search stands. It
begins after a warm-up of plain training, when changes of the weights are answers to changes of the decays.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.hypernet_training import Generating, GeneratingResponse
from skhyper.core.hypernets import Elementwise
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import REACH, Progress
from skhyper.core.training import State

BELOW = 0.01  # of the first decays is the origin where nothing is dithered: at x = 0 there would be no first step


@dataclass(frozen=True)
class Simplified(Generating):
    """Joint training without a draw for every step.

    Parameters
    ----------
    warm_up : int
        Evaluations before the hypernetwork begins.
    dither : float
        Standard deviation of what is added to the log-decays, once for all steps of an evaluation; 0 is the algorithm
        of the paper.
    """

    warm_up: int = 5
    dither: float = 0.3

    def bind(self, problem: NetworkProblem) -> "SimplifiedResponse":
        parts = self.parts(problem)
        *_, hypernet, _, _ = parts
        if isinstance(hypernet, Elementwise) and not self.dither:
            raise ValueError(
                "the elementwise hypernetwork is centred at the present decays and learns from sampled ones: "
                "use it with joint training, or train a linear one"
            )
        return SimplifiedResponse(*parts, self)


@dataclass(frozen=True)
class SimplifiedResponse(GeneratingResponse):
    """The response that `Simplified` binds."""

    algorithm: Simplified

    @property
    def reach(self) -> float:
        return 2 * self.algorithm.dither or REACH

    def onwards(self, start: Any, end: Progress) -> Progress:
        """With weights and moments for plain steps, which a warm-up may still have to take."""
        return self.again(start)._replace(memory=None)

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        training, dither = progress.training, self.algorithm.dither
        if len(progress.losses) < self.algorithm.warm_up:
            decay = self.decay(hyper, training.w)
            return *self.trainer.run(training, decay, self.interval), None
        first = hyper if dither else hyper._replace(log_alpha=hyper.log_alpha - BELOW)
        learnt = progress.memory or self.begin_learning(training, first)
        if dither:
            learnt = self.follow(learnt, hyper)
        return self.learn(training, learnt, hyper, self.interval, dither, once=True)

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        if memory is None:
            return v.new_zeros(len(v), self.problem.decays.n_groups), float("nan"), None
        return super().pull(training, hyper, s2, v, memory)
