"""Networks whose weights follow the hyperparameters step by step: what the algorithms for them share.

Between two evaluations the weights take some training steps under the present decays; then d outer / d w is pulled
back to the decays. `PlainlyTrained` is the formula of `algorithms/base.py` with an approximation of H^-1 d outer / d w
in the place of the exact solution.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .algorithms.base import Response
from .cg import Solution, conjugate_gradients
from .decays import Hyper
from .problem import NetworkProblem
from .recipe import Moments
from .result import Curve, Evaluation
from .training import Rows, State, Trainer

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
        """Train on, in place: the new state, the training loss (K,), and what to remember."""

    @abstractmethod
    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        """d outer / d log-decays (K, n_groups) from v = d outer / d w, its relative error, and what to remember."""

    def begin(self, seed: int, w: Tensor | None = None) -> Progress:
        """A new run, from drawn or given weights."""
        return Progress(self.trainer.start(seed, w))

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Any = None, tol: float = 1e-8) -> Evaluation:
        """Train on from the `Progress` w, whose memory is taken over, then look at the held-out rows."""
        progress: Progress = w
        training, loss, memory = self.advance(hyper, s2, progress)
        fold_losses, v = self.held_out(training)
        by_decay, error, memory = self.pull(training, hyper, s2, v, memory)
        progress = Progress(training, memory, (*progress.losses, float(loss.mean())))
        gradient = self.as_hyper(hyper, training.w, by_decay)
        return Evaluation(hyper, training.w, fold_losses, gradient, error, progress)

    def keep(self, evaluation: Evaluation) -> Evaluation:
        """With weights of its own; the moments remain those of the run, which do as well."""
        progress: Progress = evaluation.state
        training = progress.training._replace(w=evaluation.w.clone())
        return evaluation._replace(w=training.w, state=progress._replace(training=training, memory=None))

    def again(self, state: Any) -> Progress:
        """A start at weights that were kept, with no past: that of a divergence would be of no use."""
        progress: Progress = state
        w = progress.training.w.clone()
        moments = Moments(torch.zeros_like(w), torch.zeros_like(w))
        return progress._replace(training=progress.training._replace(w=w, moments=moments))

    @property
    def reach(self) -> float:
        """Units of log alpha within which the best response is to be trusted."""
        return REACH

    def along(self, progress: Progress, hyper: Hyper, shifts: Tensor) -> Iterator[Tensor]:
        """The best response where log alpha is shifted, (K, n_weights) for each shift; to first order here."""
        training = progress.training
        moved = tangent(self.problem, self.trainer, training, self.penalty(hyper, training.w))
        for shift in shifts:
            yield torch.add(training.w, moved, alpha=float(shift))

    def curve(self, progress: Progress, hyper: Hyper) -> Curve:
        """The outer loss along log alpha, within reach."""
        shifts = torch.linspace(-self.reach, self.reach, CURVE_POINTS, dtype=torch.float64)
        losses = torch.stack([self.fold_losses(w).mean() for w in self.along(progress, hyper, shifts)])
        return Curve(hyper.log_alpha + shifts, losses)

    def judged_by(self, problem: NetworkProblem) -> Self:
        """The same response, held out by another problem's rows."""
        return replace(self, problem=problem, validation=Rows.validation(problem))

    def log_decays(self, hyper: Hyper) -> Tensor:
        """The log-decays where they do not depend on the weights: (n_groups,)."""
        if hyper.offsets is None:
            return hyper.log_alpha.expand(self.problem.decays.n_groups)
        return hyper.log_alpha + hyper.offsets

    def decay(self, hyper: Hyper, w: Tensor) -> Tensor:
        """The decay of each weight, (K, n_weights); folds share the memory where they share the decays."""
        family = self.problem.family
        logs = self.log_decays(hyper) if family is None else family.log_decays(w, hyper)
        return self.problem.decays.spread(logs.exp()).expand(self.problem.n_folds, -1)

    def penalty(self, hyper: Hyper, w: Tensor) -> "Penalty":
        """The penalty about the weights w."""
        family = self.problem.family
        return Penalty(self.decay(hyper, w), None if family is None else family.concavity(w, hyper))

    def as_hyper(self, hyper: Hyper, w: Tensor, by_decay: Tensor) -> Hyper:
        """The hypergradient from that of each fold's log-decays, (K, n_groups)."""
        family, total = self.problem.family, by_decay.sum(0)
        offsets = total if family is None else family.pull(w, by_decay).sum(0)
        return Hyper(total.sum(), torch.zeros_like(hyper.exponent), None if hyper.offsets is None else offsets)

    def held_out(self, training: State) -> tuple[Tensor, Tensor]:
        """Outer losses of the folds (K,), and d outer / d w (K, n_weights), the latter from a sample of the rows."""
        network, loss, w = self.problem.network, self.problem.outer_loss, training.w
        rows = self.validation.sample(VALIDATION_ROWS, seeded(training))
        tape = network.forward(w, rows.x)
        everything = rows.c.shape[-1] == self.validation.n_rows
        fold_losses = (rows.c * loss.value(tape.f, rows.y)).sum(-1) if everything else self.fold_losses(w)
        gradient = rows.c[..., None] * loss.gradient(tape.f, rows.y) / self.problem.n_folds
        return fold_losses, network.backward(w, tape, gradient)

    def fold_losses(self, w: Tensor) -> Tensor:
        """The outer loss of each fold, (K, n_weights) -> (K,)."""
        network, loss = self.problem.network, self.problem.outer_loss
        parts = self.validation.parts(VALIDATION_ROWS)
        return torch.stack([(b.c * loss.value(network.predict(w, b.x), b.y)).sum(-1) for b in parts]).sum(0)


@dataclass(frozen=True)
class PlainlyTrained(TrainedResponse):
    """Weights that take the recipe's own steps; what differs is the approximation of H^-1 v."""

    @abstractmethod
    def adjoint(self, training: State, penalty: "Penalty", v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        """About H^-1 v at the present weights, its relative error where known, and what to remember."""

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        decay = self.decay(hyper, progress.training.w)
        training, loss = self.trainer.run(progress.training, decay, self.interval)
        return training, loss, progress.memory

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        penalty = self.penalty(hyper, training.w)
        u, error, memory = self.adjoint(training, penalty, v, memory)
        return self.problem.decays.group_sums((penalty.decay * u).mul_(training.w).neg_()), error, memory


class Penalty(NamedTuple):
    """The penalty at some weights: gradient a w, Hessian diag(a) - sum_g b_g w_g w_g'."""

    decay: Tensor  # a, (K, n_weights)
    concavity: Tensor | None = None  # b, (K, n_groups), where decays follow the weights


class TrainingAlgorithm(ABC):
    """A configuration for networks; `bind` prepares what all evaluations of one problem share."""

    follows_weights = False  # whether the decays may depend on the weights

    @abstractmethod
    def bind(self, problem: NetworkProblem) -> TrainedResponse:
        """The response of this problem's folds."""


def seeded(training: State) -> torch.Generator:
    """Random numbers that depend on the state of a run alone, and leave it as it is."""
    generator = torch.Generator()
    generator.set_state(training.generator)
    return generator.manual_seed(int(generator.initial_seed()) + training.moments.t)


class System:
    """J' diag(c_i l''_i) J + Hess penalty + diag(P / t), J the derivative of the outputs of some training rows.

    Parameters
    ----------
    problem, trainer, training, penalty
        The network, and where it stands.
    n_rows : int
        Training rows of a fold that it is taken from.
    steps : float
        t, steps of the training rule with its present metric P.
    dtype : torch.dtype
        Of the arithmetic.
    """

    def __init__(
        self,
        problem: NetworkProblem,
        trainer: Trainer,
        training: State,
        penalty: Penalty,
        n_rows: int,
        steps: float,
        dtype: torch.dtype,
    ):
        rows = trainer.rows.sample(n_rows, seeded(training))
        c = rows.c / trainer.steps_per_epoch
        metric = trainer.recipe.descent.metric(training.moments)
        self.diagonal = metric.mul_(c.sum(-1, keepdim=True) / steps).add_(penalty.decay).to(dtype)
        self.decays = problem.decays
        self.concavity = None if penalty.concavity is None else penalty.concavity.to(dtype)
        self.network, self.w, self.c = problem.network, training.w.to(dtype), c.to(dtype)
        self.tape = self.network.forward(self.w, rows.x.to(dtype))
        self.curve = problem.loss.hessian_product(self.tape.f, rows.y.to(dtype))

    def product(self, v: Tensor) -> Tensor:
        """The matrix times v, (K, n_weights)."""
        pulled = self.c[..., None] * self.curve(self.network.push(self.w, self.tape, v))
        product = self.network.backward(self.w, self.tape, pulled).addcmul_(self.diagonal, v)
        if self.concavity is None:
            return product
        return product.addcmul_(
            self.decays.spread(self.concavity * self.decays.group_sums(self.w * v)), self.w, value=-1
        )

    def solve(self, v: Tensor, tol: float, max_iter: int) -> Solution:
        """Conjugate gradients, the diagonal as preconditioner."""
        v, scaled = v.to(self.diagonal), torch.empty_like(self.diagonal)
        needed = torch.full_like(v[:, 0], tol)
        return conjugate_gradients(self.product, lambda r: torch.div(r, self.diagonal, out=scaled), v, needed, max_iter)


def tangent(problem: NetworkProblem, trainer: Trainer, training: State, penalty: Penalty) -> Tensor:
    """d w / d log alpha of weights that have answered to their decays: -(H + damping)^-1 (a w), (K, n_weights)."""
    return respond(problem, trainer, training, penalty, -penalty.decay * training.w)


def respond(problem: NetworkProblem, trainer: Trainer, training: State, penalty: Penalty, v: Tensor) -> Tensor:
    """(H + damping)^-1 v with more rows and steps than during training; damped by all the steps so far."""
    steps = max(training.moments.t, trainer.steps_per_epoch)
    system = System(problem, trainer, training, penalty, ACCURATE_ROWS, steps, torch.float32)
    return system.solve(v, 1e-4, ACCURATE_STEPS).x


class Accuracy(NamedTuple):
    """How a hypergradient compares with that of an accurate implicit differentiation at the same weights."""

    cosine: float
    error: float  # relative


def accuracy(response: TrainedResponse, evaluation: Evaluation, s2: Tensor) -> Accuracy:
    """Compare the hypergradient of an evaluation, over the offsets or log alpha alone."""
    training, hyper = evaluation.state.training, evaluation.hyper
    penalty = response.penalty(hyper, training.w)
    _, v = response.held_out(training)
    u = respond(response.problem, response.trainer, training, penalty, v)
    exact = response.as_hyper(hyper, training.w, -response.problem.decays.group_sums(penalty.decay * u * training.w))
    pairs = [g.log_alpha if g.offsets is None else g.offsets for g in (evaluation.gradient, exact)]
    ours, theirs = (part.flatten().double() for part in pairs)
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
