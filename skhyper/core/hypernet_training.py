"""Training of a hypernetwork in the place of the weights: what joint, simplified and global hyper-training share.

A step draws log-decays lambda, generates weights w(lambda), takes the gradient of the penalised training loss at w
under the decays lambda, and pulls it back to the hypernetwork's parameters.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decays import Decays, Hyper
from .hypernets import Hypernet
from .problem import NetworkProblem
from .recipe import Moments
from .result import Evaluation
from .trained import Progress, TrainedResponse, TrainingAlgorithm, parts, seeded
from .training import Rows, State, Trainer, penalised_gradient
from .unroll import Step, reverse, unrolled_steps

Maker = Callable[[Decays, torch.Generator], Hypernet]


class Learnt(NamedTuple):
    """A hypernetwork in training."""

    phi: Tensor  # (K, n_parameters)
    moments: Moments
    origin: Tensor  # log-decays at x = 0, (n_groups,)
    age: int = 0  # evaluations since it began

    def copy(self) -> "Learnt":
        """One that later steps do not write to; they go on with the moments."""
        return self._replace(phi=self.phi.clone())

    def again(self) -> "Learnt":
        """The same hypernetwork with no past."""
        moments = Moments(torch.zeros_like(self.phi), torch.zeros_like(self.phi))
        return self._replace(phi=self.phi.clone(), moments=moments)


class Memory(NamedTuple):
    """What an evaluation remembers until its hypergradient is taken."""

    learnt: Learnt
    steps: list[Step]  # of the fine-tuning


@dataclass(frozen=True)
class Generating(TrainingAlgorithm):
    """An algorithm that trains a hypernetwork.

    Parameters
    ----------
    hypernet : callable
        (decays, generator) -> Hypernet.
    interval : int or None
        Training steps between two hypergradients; None: by the length of the training.
    fine_tuning : int
        Unrolled training steps from the generated weights, which the hypergradient goes through.
    seed : int
        Of a hypernetwork's random initial parameters.
    """

    hypernet: Maker
    interval: int | None = None
    fine_tuning: int = 0
    seed: int = 0

    def parts(self, problem: NetworkProblem) -> tuple[NetworkProblem, Trainer, Rows, int, Hypernet, int]:
        """What every response is made of."""
        hypernet = self.hypernet(problem.decays, torch.Generator().manual_seed(self.seed))
        return *parts(problem, self.interval), hypernet, self.fine_tuning


@dataclass(frozen=True)
class GeneratingResponse(TrainedResponse):
    """Weights that a hypernetwork generates."""

    hypernet: Hypernet
    fine_tuning: int

    def keep(self, evaluation: Evaluation) -> Evaluation:
        kept, learnt = super().keep(evaluation), evaluation.state.memory
        return kept._replace(state=kept.state._replace(memory=learnt and learnt.copy()))

    def again(self, state: Any) -> Progress:
        begin, learnt = super().again(state), state.memory
        return begin._replace(memory=learnt and learnt.again())

    def log_decays(self, hyper: Hyper) -> Tensor:
        return super().log_decays(hyper).to(self.problem.y)

    def begin_learning(self, training: State, origin: Tensor) -> Learnt:
        """A hypernetwork that generates the weights of a run that begins."""
        phi = self.hypernet.start(training.w, seeded(training))
        return Learnt(phi, Moments(torch.zeros_like(phi), torch.zeros_like(phi)), origin)

    def follow(self, learnt: Learnt, at: Tensor) -> Learnt:
        """The hypernetwork centred at decays that have moved."""
        shift = (at - learnt.origin).expand(self.problem.n_folds, -1)
        self.hypernet.recentre(learnt.phi, shift)
        return learnt._replace(origin=at)

    def learn(
        self,
        training: State,
        learnt: Learnt,
        hyper: Hyper,
        n_steps: int,
        scale: float = 0.0,
        *,
        once: bool = False,
        settling: bool = False,
    ) -> tuple[State, Tensor, Memory]:
        """Steps at log-decays drawn about the present ones; then the weights for these.

        They are drawn with standard deviation `scale`, for every step or once for all; every second draw is the first
        one's mirror image. Where the hypernetwork settles,
        the rate falls to zero in the second half of the steps.
        """
        trainer, generator, at = self.trainer, seeded(training), self.log_decays(hyper)
        total = training.w.new_zeros(self.problem.n_folds)
        phi, moments, origin, age = learnt
        x = centre = (at - origin).expand(self.problem.n_folds, -1)
        for step in range(n_steps):
            training, batch = trainer.next_batch(training)
            if scale and not (once and step):
                if step % 2 == 0:
                    drawn = scale * torch.randn(x.shape, generator=generator, dtype=torch.float32)
                x = torch.add(centre, drawn, alpha=1 - 2 * (step % 2))
            decay = self.problem.decays.spread((x + origin).exp_())
            w = self.hypernet.weights(phi, x)
            value, g = penalised_gradient(self.problem.network, self.problem.loss, w, batch, decay)
            share = min(1.0, 2 * (1 - step / n_steps)) if settling else 1.0
            moments = trainer.recipe.descent.step(phi, self.hypernet.to_parameters(phi, x, g), moments, share)
            total += value
        w = self.hypernet.weights(phi, centre)
        training = training._replace(w=w, moments=training.moments._replace(t=training.moments.t + n_steps + 1))
        training, steps = self._fine_tuned(training, moments, at)
        return training, total / max(n_steps, 1), Memory(Learnt(phi, moments, origin, age + 1), steps)

    def _fine_tuned(self, training: State, moments: Moments, at: Tensor) -> tuple[State, list[Step]]:
        """A few unrolled steps from the generated weights; the rule's metric is that of the hypernetwork's b."""
        if not self.fine_tuning:
            return training, []
        n = self.problem.network.n_weights
        metric = self.trainer.recipe.descent.safe_metric(
            Moments(moments.first[:, :n], moments.second[:, :n], moments.t)
        )
        decay = self.problem.decays.spread(at.exp()).expand_as(training.w)
        training, _, steps = unrolled_steps(self.trainer, training, decay, self.fine_tuning, metric)
        return training, steps

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Memory) -> tuple[Tensor, float, Any]:
        """Through the fine-tuning steps, and then through the hypernetwork."""
        learnt, steps = memory
        decay = self.problem.decays.spread(self.log_decays(hyper).exp()).expand_as(v)
        v, products = reverse(self.trainer, steps, decay, v)
        x = (self.log_decays(hyper) - learnt.origin).expand(self.problem.n_folds, -1)
        by_decay = self.hypernet.to_decays(learnt.phi, x, v)
        return by_decay - self.problem.decays.group_sums(decay * products), float("nan"), learnt

    def along(self, progress: Progress, hyper: Hyper, shifts: Tensor) -> Iterator[Tensor]:
        """The hypernetwork's weights at shifted log-decays, fine-tuning apart; plain training has none to ask."""
        learnt = progress.memory
        if learnt is None:
            yield from super().along(progress, hyper, shifts)
            return
        x = (self.log_decays(hyper) - learnt.origin).expand(self.problem.n_folds, -1)
        for shift in shifts:
            yield self.hypernet.weights(learnt.phi, x + shift)
