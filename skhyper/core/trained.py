"""Networks whose weights follow the hyperparameters step by step: what the algorithms for them share.

Between two evaluations the weights take some training steps under the present decays; then d outer / d w is pulled
back to the decays. `PlainlyTrained` is the formula of `algorithms/base.py` with an approximation of H^-1 d outer / d w
in the place of the exact solution.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from .algorithms.base import Response
from .blocks import blocks, dot
from .cg import Solution, conjugate_gradients
from .decays import Decays, Hyper
from .losses import Loss
from .problem import NetworkProblem
from .recipe import Moments
from .result import Curve, Evaluation
from .training import Rows, State, Trainer

FEWEST, MOST = 60, 150  # hypergradients in as many epochs as a plain fit may take,
INTERVALS = (5, 20)  # as far as this many training steps between two allow it
REACH = 1.0  # units of log alpha in which a tangent is trusted,
CURVE_POINTS = 41  # points of a curve in both directions,
ACCURATE_ROWS, ACCURATE_STEPS = 1024, 50  # rows and steps of conjugate gradients where it is taken with care
AT_ONCE = 2**17  # numbers of a layer's activations in a product with the Hessian
VALIDATION_ROWS = 512  # of a fold that a hypergradient reads
# Of what is remembered beside the weights: the past of the descent.
PRECISION = torch.float32


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
        """d outer / d log-decays (K, n_groups) from v = d outer / d w, its relative error, and what to remember.

        It may write to v and to the memory.
        """

    @property
    def precision(self) -> torch.dtype:
        """Of d outer / d w."""
        return torch.float64

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
        """With weights of its own, as exact as they are trained; the moments are left to the run, whose last ones do
        as well.

        Of the hypergradient there are eight bits of each offset's: it is compared with another one and no more.
        """
        progress: Progress = evaluation.state
        single = PRECISION in (self.problem.dtype, evaluation.w.dtype)
        w = evaluation.w.to(PRECISION if single else torch.float64, copy=True)
        gradient = evaluation.gradient
        if gradient.offsets is not None:
            gradient = gradient._replace(offsets=gradient.offsets.to(torch.bfloat16))
        training = progress.training._replace(w=w, moments=Moments.none(w[:, :0], PRECISION))
        return evaluation._replace(w=w, gradient=gradient, state=progress._replace(training=training, memory=None))

    def again(self, state: Any) -> Progress:
        """A start at weights that were kept, with no past: that of a divergence would be of no use."""
        progress: Progress = state
        w = progress.training.w.to(self.problem.y, copy=True)
        return progress._replace(training=progress.training._replace(w=w, moments=Moments.none(w, PRECISION)))

    def by_decay(self, training: State, hyper: Hyper, u: Tensor) -> Tensor:
        """The hypergradient of each fold from u = H^-1 d outer / d w, which stays as it is: (K, n_groups)."""
        products = u.neg()
        for block in blocks(u.shape[-1]):
            products[..., block] *= training.w[..., block]
        return self.problem.decays.group_sums(products.mul_(self.decay(hyper, training.w).to(u)))

    def onwards(self, start: Any, end: Progress) -> Progress:
        """A stage that begins at weights that were kept, after one that ended there."""
        begin = self.again(start)
        return begin._replace(training=begin.training._replace(moments=end.training.moments), memory=None)

    @property
    def reach(self) -> float:
        """Units of log alpha within which the best response is to be trusted."""
        return REACH

    def along(self, progress: Progress, hyper: Hyper, shifts: Tensor) -> Iterator[Tensor]:
        """The best response where log alpha is shifted, (K, n_weights) for each shift; to first order here."""
        training = progress.training
        moved = respond(self.problem, self.trainer, training, self.penalty(hyper, training.w))
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
        return plain_log_decays(self.problem.decays, hyper)

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
        family, total = self.problem.family, by_decay.sum(0) if len(by_decay) > 1 else by_decay[0]
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
        return fold_losses, network.backward(w, tape.to(self.precision), gradient.to(self.precision))

    def fold_losses(self, w: Tensor) -> Tensor:
        """The outer loss of each fold, (K, n_weights) -> (K,)."""
        network, loss = self.problem.network, self.problem.outer_loss
        parts = self.validation.parts(VALIDATION_ROWS)
        return torch.stack([(b.c * loss.value(network.predict(w, b.x), b.y)).sum(-1) for b in parts]).sum(0)


@dataclass(frozen=True)
class PlainlyTrained(TrainedResponse):
    """Weights that take the recipe's own steps; what differs is the approximation of H^-1 v."""

    @abstractmethod
    def adjoint(self, training: State, hyper: Hyper, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        """About H^-1 v at the present weights, its relative error where known, and what to remember."""

    def advance(self, hyper: Hyper, s2: Tensor, progress: Progress) -> tuple[State, Tensor, Any]:
        decay = self.decay(hyper, progress.training.w)
        training, loss = self.trainer.run(progress.training, decay, self.interval)
        return training, loss, progress.memory

    def pull(self, training: State, hyper: Hyper, s2: Tensor, v: Tensor, memory: Any) -> tuple[Tensor, float, Any]:
        u, error, memory = self.adjoint(training, hyper, v, memory)
        return self.by_decay(training, hyper, u), error, memory


def plain_log_decays(decays: Decays, hyper: Hyper) -> Tensor:
    """The log-decays of hyperparameters with exponent 2: (n_groups,)."""
    if hyper.offsets is None:
        return hyper.log_alpha.expand(decays.n_groups)
    return hyper.log_alpha + hyper.offsets


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
        metric = trainer.recipe.descent.metric(training.moments).to(dtype)
        self.diagonal = metric.mul_((c.sum(-1, keepdim=True) / steps).to(dtype)).add_(penalty.decay.to(dtype))
        self.decays = problem.decays
        self.concavity = None if penalty.concavity is None else penalty.concavity.to(dtype)
        self.network, self.w = problem.network, training.w
        n_rows = max(1, AT_ONCE // self.network.width)
        split = (part.to(dtype).split(n_rows, -2) for part in (rows.x, rows.y, c[..., None]))
        self.parts = [self._part(problem.loss, *part) for part in zip(*split, strict=True)]

    def _part(self, loss: Loss, x: Tensor, y: Tensor, c: Tensor) -> tuple[Any, Callable[[Tensor], Tensor]]:
        """Some rows: the network there, and tangents of its outputs to weighted changes of the loss's gradient."""
        tape = self.network.forward(self.w, x)
        curve = loss.hessian_product(tape.f, y)
        return tape, lambda v: c * curve(v)

    def product(self, v: Tensor) -> Tensor:
        """The matrix times v, (K, n_weights)."""
        total: Tensor | None = None
        for tape, curve in self.parts:
            pulled = curve(self.network.push(self.w, tape, v))
            total = self.network.backward(self.w, tape, pulled, total)
        assert total is not None
        total.addcmul_(self.diagonal, v)
        if self.concavity is None:
            return total
        w = self.w.to(v)
        return total.addcmul_(self.decays.spread(self.concavity * self.decays.group_sums(w * v)), w, value=-1)

    def solve(self, v: Tensor, tol: float, max_iter: int, near: Tensor | None = None) -> Solution:
        """Conjugate gradients from what is near the solution, the diagonal as preconditioner; writes to both."""
        v = v.to(self.diagonal)
        if near is not None:
            v.sub_(self.product(near))
        needed = torch.full_like(v[:, 0], tol)
        return conjugate_gradients(
            self.product, lambda r: r / self.diagonal, v, needed, max_iter, into=near, overwrite_b=True
        )


def respond(
    problem: NetworkProblem, trainer: Trainer, training: State, penalty: Penalty, v: Tensor | None = None
) -> Tensor:
    """(H + damping)^-1 v with more rows and steps than during training; damped by all the steps so far.

    It may write to v. Without, v = -a w: d w / d log alpha of weights that have answered to their decays.
    """
    steps = (training.epoch + 1) * trainer.steps_per_epoch
    system = System(problem, trainer, training, penalty, ACCURATE_ROWS, steps, torch.float32)
    if v is None:
        v = -penalty.decay * training.w
    del penalty  # memory
    return system.solve(v, 1e-4, ACCURATE_STEPS).x


class Accuracy(NamedTuple):
    """How a hypergradient compares with that of an accurate implicit differentiation at the same weights."""

    cosine: float
    error: float  # relative


def accuracy(response: TrainedResponse, evaluation: Evaluation) -> Accuracy:
    """Compare the hypergradient of an evaluation, over the offsets or log alpha alone."""
    training, hyper = evaluation.state.training, evaluation.hyper
    _, v = response.held_out(training)
    u = respond(response.problem, response.trainer, training, response.penalty(hyper, training.w), v)
    exact = response.as_hyper(hyper, training.w, response.by_decay(training, hyper, u))
    pairs = [g.log_alpha if g.offsets is None else g.offsets for g in (evaluation.gradient, exact)]
    ours, theirs = (part.flatten().to(exact.log_alpha) for part in pairs)
    size, norm = float(theirs.norm()), float(ours.norm())
    cosine = float(dot(ours, theirs)) / (norm * size) if size and norm else float("nan")
    return Accuracy(cosine, float((ours - theirs).norm()) / size if size else float("nan"))


def parts(problem: NetworkProblem, interval: int | None) -> tuple[NetworkProblem, Trainer, Rows, int]:
    """What every response of a problem is made of; without an interval, one that fits the length of the training."""
    trainer = Trainer(problem, PRECISION)
    if interval is None:
        steps = problem.recipe.max_epochs * trainer.steps_per_epoch
        interval = min(max(steps // FEWEST, INTERVALS[0]), max(INTERVALS[1], steps // MOST))
    return problem, trainer, Rows.validation(problem), interval
