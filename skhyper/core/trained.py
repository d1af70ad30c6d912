"""Networks whose weights follow the hyperparameters step by step: what the algorithms for them share.

Between two evaluations the weights take some training steps under the present decays; then d outer / d w is pulled
back to the decays. `PlainlyTrained` is the formula of `algorithms/base.py` with an approximation of H^-1 d outer / d w
in the place of the exact solution.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .algorithms.base import Response
from .cg import conjugate_gradients
from .decays import Hyper
from .problem import NetworkProblem
from .result import Curve, Evaluation
from .training import Batch, Rows, State, Trainer

FEWEST, MOST = 60, 150  # hypergradients in as many epochs as a plain fit may take,
INTERVALS = (5, 20)  # as far as this many training steps between two allow it
REACH = 1.0  # units of log alpha in which a tangent is trusted,
CURVE_POINTS = 41  # points of a curve in both directions,
ACCURATE_ROWS, ACCURATE_STEPS = 1024, 50  # rows and steps of conjugate gradients where it is taken with care
VALIDATION_ROWS = 512  # of a fold that a hypergradient reads


class Progress(NamedTuple):
    """Where a run goes on."""

    training: State
    memory: Any = None  # the algorithm's own
    losses: tuple[float, ...] = ()  # training loss of every evaluation so far, mean over folds

    @property
    def epochs(self) -> int:
        """Passes over the rows, the present one included."""
        return self.training.epoch + 1


@dataclass(frozen=True)
class TrainedResponse(Response):
    """The weights of every fold while they are trained."""

    problem: NetworkProblem
    trainer: Trainer
    validation: Rows
    interval: int

    @abstractmethod
    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        """Train on from a state that may be written to: the new one, the training loss (K,), and what to remember."""

    @abstractmethod
    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        """d outer / d log-decays (K, n_groups) from v = d outer / d w, its relative error, and what to remember."""

    def begin(self, seed: int, w: Tensor | None = None) -> Progress:
        """A new run, from drawn or given weights."""
        return Progress(self.trainer.start(seed, w))

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Any = None, tol: float = 1e-8) -> Evaluation:
        """Train on from the `Progress` w, then look at the held-out rows."""
        progress: Progress = w
        training, loss, memory = self.advance(hyper, s2, progress._replace(training=progress.training.copy()))
        fold_losses, v = self.held_out(training)
        by_decay, error, memory = self.pull(training, hyper, s2, v, memory)
        progress = Progress(training, memory, (*progress.losses, float(loss.mean())))
        return Evaluation(hyper, training.w, fold_losses, as_hyper(hyper, by_decay), error, progress)

    @property
    def reach(self) -> float:
        """Units of log alpha within which the best response is to be trusted."""
        return REACH

    def along(self, progress: Progress, hyper: Hyper, s2: Tensor, shifts: Tensor) -> Tensor:
        """The best response where log alpha is shifted: (points,) -> (points, K, n_weights); to first order here."""
        training = progress.training
        moved = tangent(self.problem, self.trainer, training, self.decay(training.w, hyper, s2))
        return training.w + shifts[:, None, None] * moved

    def curve(self, progress: Progress, hyper: Hyper, s2: Tensor) -> Curve:
        """The outer loss along log alpha, within reach."""
        shifts = torch.linspace(-self.reach, self.reach, CURVE_POINTS, dtype=torch.float64)
        losses = torch.stack([self.problem.outer(w) for w in self.along(progress, hyper, s2, shifts)])
        return Curve(hyper.log_alpha + shifts, losses)

    def decay(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """The decay of each weight, (K, n_weights)."""
        decays = self.problem.decays
        return decays.spread(decays.log_decays(w, hyper, s2).exp())

    def held_out(self, training: State) -> tuple[Tensor, Tensor]:
        """Outer losses of the folds (K,), and d outer / d w (K, n_weights), the latter from a sample of the rows."""
        network, loss, w = self.problem.network, self.problem.outer_loss, training.w
        rows = self.validation.everything()
        tape = network.forward(w, rows.x)
        fold_losses = (rows.c * loss.value(tape.f, rows.y)).sum(-1)
        if self.validation.n_rows > VALIDATION_ROWS:
            rows = self.validation.sample(VALIDATION_ROWS, seeded(training))
            tape = network.forward(w, rows.x)
        gradient = rows.c[..., None] * loss.gradient(tape.f, rows.y) / self.problem.n_folds
        return fold_losses, network.backward(w, tape, gradient)


@dataclass(frozen=True)
class PlainlyTrained(TrainedResponse):
    """Weights that take the recipe's own steps; what differs is the approximation of H^-1 v."""

    @abstractmethod
    def adjoint(self, training: State, decay: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        """About H^-1 v at the present weights, its relative error where known, and what to remember."""

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        decay = self.decay(progress.training.w, hyper, s2)
        training, loss = self.trainer.run(progress.training, decay, self.interval)
        return training, loss, progress.memory

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        decay = self.decay(training.w, hyper, s2)
        u, error, memory = self.adjoint(training, decay, v, memory)
        return -self.problem.decays.group_sums(decay * u * training.w), error, memory


def as_hyper(hyper: Hyper, by_decay: Tensor) -> Hyper:
    """The hypergradient from that of each fold's log-decays, (K, n_groups); the exponent's is not followed."""
    total = by_decay.sum(0)
    return Hyper(total.sum(), torch.zeros_like(hyper.exponent), None if hyper.offsets is None else total)


class TrainingAlgorithm(ABC):
    """A configuration for networks; `bind` prepares what all evaluations of one problem share."""

    @abstractmethod
    def bind(self, problem: NetworkProblem) -> TrainedResponse:
        """The response of this problem's folds."""


def seeded(training: State) -> torch.Generator:
    """Random numbers that depend on the state of a run alone, and leave it as it is."""
    generator = torch.Generator()
    generator.set_state(training.generator)
    return generator.manual_seed(int(generator.initial_seed()) + training.moments.t)


def gauss_newton(problem: NetworkProblem, w: Tensor, rows: Batch, diagonal: Tensor) -> Any:
    """v -> (J' diag(c_i l''_i) J + diagonal) v, J the derivative of the outputs of these rows."""
    network = problem.network
    tape = network.forward(w, rows.x)
    curve = problem.loss.hessian_product(tape.f, rows.y)

    def product(v: Tensor) -> Tensor:
        pulled = network.backward(w, tape, rows.c[..., None] * curve(network.push(w, tape, v)))
        return pulled.addcmul_(diagonal, v)

    return product


def tangent(problem: NetworkProblem, trainer: Trainer, training: State, decay: Tensor) -> Tensor:
    """d w / d log alpha of weights that have answered to their decays: -(H + damping)^-1 (a w), (K, n_weights)."""
    return respond(problem, trainer, training, decay, -decay * training.w)


def respond(problem: NetworkProblem, trainer: Trainer, training: State, decay: Tensor, v: Tensor) -> Tensor:
    """(H + damping)^-1 v with more rows and steps than during training; damped by all the steps so far."""
    rows = trainer.rows.sample(ACCURATE_ROWS, seeded(training))
    rows = rows._replace(c=rows.c / trainer.steps_per_epoch)
    metric = trainer.recipe.descent.metric(training.moments)
    steps = max(training.moments.t, trainer.steps_per_epoch)
    diagonal = decay + metric * (rows.c.sum(-1, keepdim=True) / steps)
    product = gauss_newton(problem, training.w, rows, diagonal)
    needed = torch.full_like(training.w[:, 0], 1e-4)
    return conjugate_gradients(product, lambda r: r / diagonal, v, needed, ACCURATE_STEPS).x


class Accuracy(NamedTuple):
    """How a hypergradient compares with that of an accurate implicit differentiation at the same weights."""

    cosine: float
    error: float  # relative


def accuracy(response: TrainedResponse, evaluation: Evaluation, s2: Tensor) -> Accuracy:
    """Compare the hypergradient of an evaluation, over the offsets or log alpha alone."""
    training, hyper = evaluation.state.training, evaluation.hyper
    decay = response.decay(training.w, hyper, s2)
    _, v = response.held_out(training)
    u = respond(response.problem, response.trainer, training, decay, v)
    exact = as_hyper(hyper, -response.problem.decays.group_sums(decay * u * training.w))
    pairs = [(g.log_alpha if g.offsets is None else g.offsets).flatten() for g in (evaluation.gradient, exact)]
    ours, theirs = pairs
    size = float(theirs.norm())
    cosine = float(ours @ theirs) / (float(ours.norm()) * size) if size and bool(ours.any()) else float("nan")
    return Accuracy(cosine, float((ours - theirs).norm()) / size if size else float("nan"))


def parts(problem: NetworkProblem, interval: int | None) -> tuple[NetworkProblem, Trainer, Rows, int]:
    """What every response of a problem is made of; without an interval, one that fits the length of the training."""
    trainer = Trainer(problem)
    if interval is None:
        steps = problem.recipe.max_epochs * trainer.steps_per_epoch
        interval = min(max(steps // FEWEST, INTERVALS[0]), max(INTERVALS[1], steps // MOST))
    return problem, trainer, Rows.validation(problem), interval
