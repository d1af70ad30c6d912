"""Algorithm 4 of Lorraine and Duvenaud (2018): Algorithm 3 without sampling.

The hypernetwork is trained at the present decays alone; what it knows of others is what it learnt on the way. So it
begins after a warm-up of plain training, when changes of the weights are answers to changes of the decays, and its
origin stays close to the decays of that moment: with J the true Jacobian, decays that have moved by d leave it with
J d d' / (1 + d'd), which has the right sign along d and knows nothing across it.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from skhyper.core.decays import Hyper
from skhyper.core.hypernet_training import Generating, GeneratingResponse
from skhyper.core.hypernets import Elementwise
from skhyper.core.problem import NetworkProblem
from skhyper.core.trained import Progress
from skhyper.core.training import State

BELOW = 0.01  # of the first decays is the origin: at x = 0 there would be no first step


@dataclass(frozen=True)
class Simplified(Generating):
    """Joint training without sampling.

    Parameters
    ----------
    warm_up : int
        Evaluations before the hypernetwork begins.
    """

    warm_up: int = 5

    def bind(self, problem: NetworkProblem) -> "SimplifiedResponse":
        parts = self.parts(problem)
        if isinstance(parts[-2], Elementwise):
            raise ValueError(
                "the elementwise hypernetwork is centred at the present decays and learns from sampled ones: "
                "use it with joint training, or train a linear one"
            )
        return SimplifiedResponse(*parts, self.warm_up)


@dataclass(frozen=True)
class SimplifiedResponse(GeneratingResponse):
    """The response that `Simplified` binds."""

    warm_up: int

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        training = progress.training
        if len(progress.losses) < self.warm_up:
            decay = self.decay(training.w, hyper, s2)
            return *self.trainer.run(training, decay, self.interval), None
        learnt = progress.memory or self.begin_learning(training, self.log_decays(hyper) - BELOW)
        return self.learn(training, learnt, hyper, 0.0, self.interval)

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        if memory is None:
            return v.new_zeros(len(v), self.problem.decays.n_groups), float("nan"), None
        return super().pull(training, hyper, s2, v, memory)
