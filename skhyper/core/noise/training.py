"""Training of all members at once: Adam on the flat parameters, (M, P), down the losses of `objective.py`.

Hyperparameters of the layout follow another loss, the negative log marginal likelihood of held-out rows, averaged over
the members of a fit, with a prior about zero: they move alike in all of its members. Where there are held-out rows,
what they judge, and what is kept, is a running average of the weights over the last tenth of the steps so far; members
of a fit stop alike, where the mean of their calibrated losses is lowest. Once that was long ago training goes back
there, and the rate falls.

Noise may be on trial: where it gains held-out rows no more than the standard error of that gain, or no more than they
gain by the further steps that its time would buy, it is dropped, and the time goes into those steps, which are those of
the plain network, at its price.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import repeat
from math import inf
from typing import NamedTuple

import torch
from torch import Tensor

from .calibration import calibrated_losses, gain_of_noise
from .course import Course, Record, Trained, Watch, progress
from .dealing import Dealing, Groups, arrange, minibatches
from .members import Walk, pooled
from .objective import Model, Objective, Rows, Waves
from .schedule import Schedule

# Steps from one look at held-out rows to the next, and draws in it.
HELD_EVERY, HELD_DRAWS = 8, 4
# Steps whose noise is drawn at once, and numbers in it.
STOCK, MAX_STOCK = 32, 2**20
# Standard deviation of the prior of hyperparameters.
HELD_STD = 1.0
# Held-out rows are looked at first after so many steps, then after so many more, or this share of the steps so far.
FIRST_LOOK, LOOK_SHARE = 20, 1 / 8
# From one trial of the noise to the next no fewer steps than these, or than this share of all: draws learn their use.
TRIAL_STEPS, TRIAL_SHARE = 1500, 0.2
# Steps that are always waited for something better, and length of the fall in those that led to the best weights.
GRACE, FALL = 200, 1.5


@dataclass(frozen=True)
class Settings:
    """How to train.

    Parameters
    ----------
    n_steps : int
        Updates.
    batch_size : int
        Rows in a minibatch; as many as there are, or more: full batch.
    learning_rate : float
        Of weights in the scale of their prior.
    warmup : float
        Share of the steps over which the rate rises to its height.
    decay_from : float
        Share of the steps after which it falls to zero along a line; 1: it stays.
    alpha : float
        Precision of the prior.
    exponent : float
        a.
    mean_weight : float
        lambda.
    n_draws : int
        K.
    dealing : Dealing
        How draws and rows meet.
    n_evaluations : int
        Held-out rows are looked at, and the curves have lines, at most n_steps / n_evaluations steps apart.
    n_eval_draws : int
        Draws by which held-out rows are judged.
    trial : float
        Share of the steps between the times at which noise is dropped that held-out rows see no use for; 0: it stays.
    spared : float
        Steps for each one that was left, where noise is dropped.
    patience : float
        The rate falls once there were so many times the steps that led to the best weights; inf: as `decay_from` says.
    optimizer : str
        "adam", or "sgd": with momentum beta1.
    beta1, beta2 : float
        Decay of the moments.
    """

    n_steps: int
    batch_size: int
    learning_rate: float = 0.05
    warmup: float = 0.02
    decay_from: float = 0.4
    alpha: float = 1.0
    exponent: float = 0.5
    mean_weight: float = 0.0
    n_draws: int = 8
    dealing: Dealing = Dealing.SHARED
    n_evaluations: int = 50
    n_eval_draws: int = 16
    trial: float = 0.0
    spared: float = 1.0
    patience: float = inf
    optimizer: str = "adam"
    beta1: float = 0.9
    beta2: float = 0.98


class Phase(NamedTuple):
    """Steps with noise or without."""

    objective: Objective
    groups: Groups
    noises: Iterator[Tensor]  # z of each step
    rates: Tensor  # (P,)
    decay: Tensor  # (1 or M, P)
    z_eval: Tensor  # draws by which held-out rows are judged
    z_spread: Tensor  # and by which the spread is measured
    noisy: bool  # then hyperparameters follow held-out rows


class Pace(NamedTuple):
    """Numbers that change from step to step; tensors without a dimension will do."""

    rate: float | Tensor  # of learning
    first: float | Tensor  # 1 - beta1^t, what the average of t gradients has of their mean
    second: float | Tensor  # 1 - beta2^t


@dataclass
class Trainer:
    """Trains parameters (M, P) on rows; `run` does it."""

    model: Model
    rows: Rows
    train_rows: Tensor  # (M, n_train)
    held_rows: Tensor | None  # (M, n_val)
    waves: Waves | None
    settings: Settings
    generator: torch.Generator
    n_effective: float  # n of the prior: the sum of the training rows' weights
    alphas: Tensor | None = None  # (M,), of the members, in the place of the settings' one
    n_fits: int = 1  # members of different fits share no hyperparameter

    def __post_init__(self) -> None:
        settings, like = self.settings, self.rows.x
        self.objective = Objective(
            self.model, self.rows, self.waves, settings.exponent, settings.mean_weight, self.generator
        )
        self.layout = layout = self.objective.layout
        self.rates = layout.spread("rate").to(like)
        alphas = torch.tensor([settings.alpha], dtype=torch.float64) if self.alphas is None else self.alphas
        self.decay = layout.spread("precision").to(like) * (alphas.to(like)[:, None] / self.n_effective)
        n_train = self.train_rows.shape[1]
        self.full_batch = settings.batch_size >= n_train
        batch = n_train if self.full_batch else settings.batch_size
        self.batch_size = batch
        self.groups: Groups = arrange(settings.dealing, batch, settings.n_draws)
        self.schedule = Schedule(
            settings.learning_rate, settings.warmup * settings.n_steps, settings.decay_from, settings.n_steps
        )
        least = min(TRIAL_STEPS, TRIAL_SHARE * settings.n_steps)
        self.trial = max(settings.trial * settings.n_steps, least) if settings.trial else inf
        self.due = self.trial  # the step of the next trial of the noise
        self.held = layout.spread("held").to(like.device).nonzero()[:, 0]  # columns that follow held-out rows
        self.perturbs = layout.spread("perturbs").to(like.device).nonzero()[:, 0]
        self.held_batches = self.held_minibatches()

    @property
    def n_members(self) -> int:
        """M."""
        return self.train_rows.shape[0]

    def noise(self, n_draws: int) -> Tensor:
        """z of every member, (M, n_draws, d)."""
        return self.objective.noise(self.n_members, n_draws)

    def noises(self, n_draws: int) -> Iterator[Tensor]:
        """z of every member for one step after another; many at once cost little more than one."""
        m, d = self.n_members, self.model.network.generator.n_entries
        stock = max(1, min(STOCK, MAX_STOCK // (m * n_draws * d)))
        while True:
            yield from self.objective.noise(stock * m, n_draws).unflatten(0, (stock, m))

    def noisy(self) -> Phase:
        """Steps with noise."""
        settings = self.settings
        n_eval = settings.n_eval_draws if self.model.network.generator.stochastic else 1
        z_eval, z_spread = self.noise(n_eval), self.noise(10)
        noises = self.noises(self.groups.n_draws)
        return Phase(self.objective, self.groups, noises, self.rates, self.decay, z_eval, z_spread, noisy=True)

    def plain(self) -> Phase:
        """Steps without: all that belongs to the noise stays where it is."""
        objective = copy(self.objective)
        objective.model = self.model.plain
        still = self.rates.new_zeros(self.n_members, 2, self.model.network.generator.n_entries)
        stays = torch.ones_like(self.rates)
        stays[self.perturbs] = stays[self.held] = 0.0
        rates, decay, z = self.rates * stays, self.decay * stays, still[:, :1]
        return Phase(objective, Groups(1, self.batch_size, True), repeat(z), rates, decay, z, still, noisy=False)

    def batches(self) -> Iterator[Tensor]:
        """Rows of each step, (M, B)."""
        if not self.full_batch:
            yield from minibatches(self.train_rows, self.settings.batch_size, self.generator)
        while True:
            yield self.train_rows

    def held_minibatches(self) -> Iterator[Tensor]:
        """Held-out rows that hyperparameters follow, (M, B or fewer); none without any."""
        if self.held_rows is not None:
            yield from minibatches(self.held_rows, min(self.batch_size, self.held_rows.shape[1]), self.generator)

    def penalty(self, flat: Tensor) -> Tensor:
        """Minus the log prior of each member over n, (M,)."""
        return 0.5 * (self.decay * flat.square()).sum(1)

    def held_gradient(self, walk: Walk) -> Tensor:
        """Of the held-out loss by the hyperparameters, the mean over the members of a fit: (M, their number)."""
        if self.held_rows is None or not len(self.held):
            return walk.flat.new_zeros(self.n_members, len(self.held))
        own = self.objective.held_out_slope(walk.parts, self.noise(HELD_DRAWS), next(self.held_batches))
        mean = own.unflatten(0, (self.n_fits, -1)).mean(1, keepdim=True)
        n_rows = self.held_rows.numel() / self.n_fits
        prior = walk.flat[:, self.held] / (HELD_STD**2 * n_rows)
        return mean.repeat_interleave(self.n_members // self.n_fits, 1).flatten(0, 1) + prior

    def run(
        self,
        start: Tensor,
        watch: Watch = lambda record: None,
        optimizer: tuple[Tensor, Tensor, int] | None = None,
    ) -> Trained:
        """Train from `start`, (M, P); `optimizer` is where an earlier run left it."""
        course = Course(self, start, optimizer)
        course.go(watch)
        return course.finish()

    def look(self, walk: Walk, phase: Phase, step: int, n_steps: int) -> Record:
        """What the averaged weights are worth after some more steps; the best are kept."""
        held = self.judged(walk.average, phase.z_eval)
        spread = self.objective.spread(self.layout.split(walk.average), phase.z_spread)
        record = Record(step, walk.total / n_steps + self.penalty(walk.flat), held, spread)
        walk.settle(held, self.n_fits, self.held_rows is not None, step)
        return record

    def reconsider(self, walk: Walk, phase: Phase, held: Tensor, curve: Sequence[Record]) -> Phase:
        """Whether training goes on as it did: with noise, and at the level rate.

        Members of all fits decide together about noise: they share the draws of a step.
        """
        step, spared = curve[-1].step, self.settings.spared
        tired = step > self.settings.patience * walk.best_step + GRACE
        if phase.noisy and self.trial < inf and (tired or step >= self.due):
            self.due += self.trial
            flat, bought = (walk.best, 0.0) if tired else (walk.average, progress(curve, spared))
            gain = gain_of_noise(self.model, flat, phase.z_eval, self.waves, self.rows, held)
            earns = gain.mean > max(gain.error, bought)
            if not earns:
                phase = self.plain()
                walk.best_loss = pooled(self.judged(walk.best, phase.z_eval), self.n_fits)
                self.schedule.stretch(step, spared)
        if tired:
            walk.go_back()
            self.schedule.fall(step, round(FALL * walk.best_step))
        return phase

    def next_look(self, step: int) -> int:
        """The step at which held-out rows are looked at next: more often at first, since some fits end there."""
        every = max(1, self.settings.n_steps // self.settings.n_evaluations)
        return step + (every if self.held_rows is None else min(every, max(FIRST_LOOK, int(LOOK_SHARE * step))))

    def judged(self, flat: Tensor, z: Tensor) -> Tensor:
        """Calibrated losses of held-out rows, (M,); nan without any."""
        if self.held_rows is None:
            return flat.new_full((self.n_members,), torch.nan)
        return calibrated_losses(self.model, flat, z, self.waves, self.rows, self.held_rows, self.n_fits)

    def advance(self, walk: Walk, index: Tensor, phase: Phase, step: int) -> None:
        """One update of all members on rows (M, B)."""
        z = next(phase.noises)
        if phase.noisy and step % HELD_EVERY == 0:
            walk.held_gradient.copy_(self.held_gradient(walk))
        walk.done += 1
        b1, b2 = self.settings.beta1, self.settings.beta2
        pace = Pace(self.schedule.rate(step), 1 - b1**walk.done, 1 - b2**walk.done)
        self.update(walk, phase, index, z, pace)

    def update(self, walk: Walk, phase: Phase, index: Tensor, z: Tensor, pace: Pace) -> None:
        """The update itself, in place: it reads nothing that changes but the tensors of `walk` and the last three."""
        losses, found = phase.objective.loss(walk.parts, index, phase.groups, z)
        walk.total += losses
        gradient = self.layout.join(found, walk.flat).addcmul_(phase.decay, walk.flat)
        if phase.noisy:
            gradient[:, self.held] = walk.held_gradient
        step_size = phase.rates * (pace.rate * walk.factor)
        walk.flat.addcmul_(step_size, self.direction(gradient, walk, pace), value=-1.0)

    def direction(self, gradient: Tensor, walk: Walk, pace: Pace) -> Tensor:
        """The optimiser's direction; the moments are updated in place."""
        b1, b2 = self.settings.beta1, self.settings.beta2
        if self.settings.optimizer == "sgd":
            return walk.first.mul_(b1).add_(gradient)
        walk.first.lerp_(gradient, 1 - b1)
        walk.second.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        scale = (walk.second / pace.second).sqrt_().add_(1e-8)
        return walk.first / scale / pace.first
