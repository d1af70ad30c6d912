"""Training of a hypernetwork in the place of the weights: what joint, simplified and global hyper-training share.

A step draws log-decays lambda, generates weights w(lambda), takes the gradient of the penalised training loss at w
under the decays lambda, and pulls it back to the hypernetwork's parameters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .decays import Decays, Hyper
from .hypernets import Hypernet
from .problem import NetworkProblem
from .recipe import Moments
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
        """One that later steps do not write to."""
        moments = Moments(self.moments.first.clone(), self.moments.second.clone(), self.moments.t)
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

    def log_decays(self, hyper: Hyper) -> Tensor:
        """The log-decays of hyperparameters with exponent 2: (n_groups,)."""
        zeros = torch.zeros(self.problem.decays.n_groups, dtype=hyper.log_alpha.dtype)
        return hyper.log_alpha + (zeros if hyper.offsets is None else hyper.offsets)

    def begin_learning(self, training: State, origin: Tensor) -> Learnt:
        """A hypernetwork that generates the weights of a run that begins."""
        phi = self.hypernet.start(training.w, seeded(training))
        return Learnt(phi, Moments(torch.zeros_like(phi), torch.zeros_like(phi)), origin)

    def follow(self, learnt: Learnt, at: Tensor) -> Learnt:
        """The hypernetwork centred at decays that have moved."""
        shift = (at - learnt.origin).expand(self.problem.n_folds, -1)
        return learnt._replace(phi=self.hypernet.recentre(learnt.phi, shift), origin=at)

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

        They are drawn with standard deviation `scale`, for every step or once for all. Where the hypernetwork settles,
        the rate falls to zero in the second half of the steps.
        """
        trainer, generator, at = self.trainer, seeded(training), self.log_decays(hyper)
        total = training.w.new_zeros(self.problem.n_folds)
        phi, moments, origin, age = learnt.copy()
        x = centre = (at - origin).expand(self.problem.n_folds, -1)
        for step in range(n_steps):
            training, batch = trainer.next_batch(training)
            if scale and not (once and step):
                x = centre + scale * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            decay = self.problem.decays.spread((x + origin).exp())
            w = self.hypernet.weights(phi, x)
            value, g = penalised_gradient(self.problem.network, self.problem.loss, w, batch, decay)
            share = min(1.0, 2 * (1 - step / n_steps)) if settling else 1.0
            moments = trainer.recipe.descent.step(phi, self.hypernet.pullback(phi, x, g)[0], moments, share)
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
        by_decay = self.hypernet.pullback(learnt.phi, x, v)[1]
        return by_decay - self.problem.decays.group_sums(decay * products), float("nan"), learnt

    def along(self, progress: Progress, hyper: Hyper, s2: Tensor, shifts: Tensor) -> Tensor:
        """The hypernetwork's weights at shifted log-decays, fine-tuning apart; plain training has none to ask."""
        learnt = progress.memory
        if learnt is None:
            return super().along(progress, hyper, s2, shifts)
        x = (self.log_decays(hyper) - learnt.origin).expand(self.problem.n_folds, -1)
        return torch.stack([self.hypernet.weights(learnt.phi, x + shift) for shift in shifts])
