"""Squared loss where direct factorisation is dear: conjugate gradients for all folds and outputs, one factor for all.

Decays that differ by output or by fold make each (fold, output) a system of its own, X_k'X_k + diag(a_kt). All are
close to their mean, and what makes them differ most, decays that dwarf the curvature, is mended by scaling: with G the
mean of X_k'X_k and c the geometric mean of all diagonals added,

    M_kt = S_kt (G + diag c) S_kt,    S_kt^2 = (diag G + a_kt) / (diag G + c),

costs one Cholesky factor, which serves while c moves little, and leaves a handful of steps. They run in single
precision and their residuals are formed in double precision, so that the solution is as accurate as its tolerance says.

The family's decays are solved for by Newton's method with the penalty's gradient as a variable of its own, each step as
accurate as it pays.
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse, hypergradient
from .cg import conjugate_gradients
from .decays import Decays, Hyper
from .losses import Loss, Rescaled, SquaredError
from .moments import FoldMoments, Sums
from .problem import Problem
from .result import Evaluation

LEAST_COLUMNS = 256
PRODUCTS = 40  # operations for each entry of the matrix in one evaluation
MAX_STEPS = 100
MAX_IDLE = 3  # steps in a row that no longer reduce the residual, after which the solution is as good as it gets
CG_MAX_ITER = 200
FORCING = 0.1  # reduction of the residual in one of Newton's steps,
SINGLE = 1e-4  # the most that single precision is trusted with
MAX_HALVINGS = 30
DRIFT = 0.5  # mean change of the log decays after which the factor is renewed
ROUNDING = 3e-14  # relative error of the objective, generously
CANCELLATION = 1e-6  # validation loss relative to the mean square of y below which moments do not give it


def iteration_pays(problem: Problem) -> bool:
    """Whether factorising for every fold, and output where decays differ, costs more than iterating with one factor."""
    n_folds, p, n_outputs = problem.n_folds, problem.design.n_columns, problem.network.n_outputs
    if p < LEAST_COLUMNS or problem.design.n_rows < p:
        return False
    own = 1 if problem.decays.restrict(p * n_outputs).shared_by_outputs(n_outputs) else n_outputs
    direct, iterative = n_folds * own * p / 3, p / 3 + PRODUCTS * n_folds * n_outputs
    return direct > 2 * iterative


@dataclass
class Memory:
    """What one solution leaves to the next: it changes how long a solution takes, never where it ends."""

    log_c: Tensor | None = None  # (p,)
    factor: Tensor | None = None  # of G + diag c, single precision
    adjoint: Tensor | None = None  # (K, T, p)


class Curvature(NamedTuple):
    """The penalty's Hessian diag(a) - sum_g b_g w_g w_g' of every fold, in the layout of coefficients (K, T, p)."""

    a: Tensor  # (K, T, p)
    diagonal: Tensor  # (K, T, p), b included
    b: Tensor | None  # (K, n_groups), where groups couple weights
    w: Tensor  # (K, p * T)


@dataclass(frozen=True)
class IterativeResponse(BestResponse):
    """Best response through the moments of the folds; coefficients are (K, T, p) inside."""

    moments: FoldMoments
    sums: Sums | None = None
    memory: Memory = field(default_factory=Memory)

    @property
    def capacity(self) -> int:
        """One candidate at a time."""
        return 1

    @property
    def scans(self) -> bool:
        """No: a candidate costs as much as a step by hypergradient."""
        return False

    def take_folds(self, which: Tensor) -> "IterativeResponse":
        """Share the moments that are there."""
        return IterativeResponse(self.problem.take_folds(which), self.moments.take(which))

    def all_rows(self, problem: Problem) -> "IterativeResponse | None":
        """The best response of the final fit, if the sums that are there give it."""
        moments = None if self.sums is None else self.sums.all_rows(problem)
        return None if moments is None else IterativeResponse(problem, moments)

    def solve(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Tensor:
        """Candidates one after the other, each from the one before where there is no other start."""
        if not hyper.log_alpha.ndim:
            start = None if w is None else self._matrix(w)
            return self._join(self._minimise(hyper, s2, start, tol))
        found: list[Tensor] = []
        for i in range(len(hyper.log_alpha)):
            log_alpha, exponent, offsets = hyper
            one = Hyper(log_alpha[i], exponent.expand(log_alpha.shape)[i], None if offsets is None else offsets[i])
            warm = found[-1] if found else None
            found.append(self.solve(one, s2, warm if w is None else w[i % len(w)], tol))
        return torch.stack(found)

    def adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float = 1e-8) -> tuple[Tensor, float]:
        """H^-1 v; the intercepts are eliminated."""
        layers = self.problem.network.split(v)
        coefficients = layers.coefficients[:, self.moments.columns].mT
        centred = coefficients - layers.intercepts[..., None] * self.moments.x[:, None]
        u, error = self._adjoint(w, hyper, s2, centred, tol)
        intercepts = layers.intercepts / self.moments.total[:, None] - self._products(u, self.moments.x)
        return self._joined(u, intercepts), error

    def fold_losses(self, w: Tensor) -> Tensor:
        """Validation losses from moments, unless they cancel or the outer loss is another."""
        if self._outer is None:
            return super().fold_losses(w)
        losses = torch.stack([self._held(self._matrix(one)).losses for one in w.reshape(-1, *w.shape[-2:])])
        return super().fold_losses(w) if self._cancel(losses) else losses.reshape(w.shape[:-1])

    def evaluate(self, hyper: Hyper, s2: Tensor, w: Tensor | None = None, tol: float = 1e-8) -> Evaluation:
        """Weights, validation losses and hypergradient; one product with the held-out moments gives both of these."""
        w = self.solve(hyper, s2, w, tol)
        held = None if self._outer is None else self._held(self._matrix(w))
        if held is None or self._cancel(held.losses):
            u, error = self.adjoint(w, hyper, s2, self.problem.outer_gradient(w), tol)
            losses = self.problem.fold_losses(w)
        else:
            u, error = self._adjoint(w, hyper, s2, held.gradient / self.problem.n_folds, tol)
            u, losses = self._flat(u), held.losses
            w_decayed = w[..., : self._n_decayed]
            return Evaluation(hyper, w, losses, hypergradient(self._decays, w_decayed, hyper, s2, u), error)
        return Evaluation(hyper, w, losses, hypergradient(self.problem.decays, w, hyper, s2, u), error)

    # Layouts.

    @property
    def _n_decayed(self) -> int:
        return self.problem.network.n_coefficients

    @cached_property
    def _decays(self) -> Decays:
        return self.problem.decays.restrict(self._n_decayed)

    def _matrix(self, w: Tensor) -> Tensor:
        """Flat weights -> coefficients (K, T, p) of the columns that vary."""
        network = self.problem.network
        matrix = w[..., : self._n_decayed].unflatten(-1, (network.n_features, network.n_outputs))
        return matrix[:, self.moments.columns].mT.contiguous()

    def _flat(self, v: Tensor) -> Tensor:
        """Coefficients (K, T, p) -> flat weights without intercepts, zeros where columns are constant."""
        flat = v.new_zeros(len(v), self.problem.network.n_features, v.shape[1])
        return flat.index_copy_(1, self.moments.columns, v.mT).flatten(-2)

    def _join(self, v: Tensor) -> Tensor:
        return self._joined(v, self.moments.y - self._products(v, self.moments.x))

    def _joined(self, v: Tensor, intercepts: Tensor) -> Tensor:
        if not self.problem.network.intercept:
            return self._flat(v)
        return torch.cat([self._flat(v), intercepts], -1)

    @staticmethod
    def _products(v: Tensor, x: Tensor) -> Tensor:
        """(K, T, p), (K, p) -> (K, T)."""
        return (v @ x[..., None])[..., 0]

    # Validation.

    @cached_property
    def _outer(self) -> float | None:
        """The factor of the outer loss, if it is a squared error."""
        return squared_factor(self.problem.outer_loss)

    def _held(self, v: Tensor) -> "Held":
        moments, factor = self.moments, self._outer or 1.0
        product = v @ moments.held_gram
        losses = (v * (product / 2 - moments.held_rhs)).sum((-1, -2)) + moments.held_square / 2
        return Held(factor * losses, factor * (product - moments.held_rhs))

    def _cancel(self, losses: Tensor) -> bool:
        return not bool((losses.abs() > CANCELLATION * (self._outer or 1.0) * self.moments.held_square).all())

    # The inner problem.

    def _minimise(self, hyper: Hyper, s2: Tensor, v: Tensor | None, tol: float) -> Tensor:
        """The solution from v (K, T, p): Newton's method; one step where decays do not depend on the weights."""
        quadratic = bool(hyper.exponent == 2)
        if v is None:
            v = torch.zeros_like(self.moments.rhs)
            if not quadratic:
                v = self._minimise(hyper._replace(exponent=torch.full_like(hyper.exponent, 2.0)), s2, v, tol)
        product = self._product(v, tol)
        gradient: Tensor | None = None  # of the penalty, as a variable of its own
        idle, least, size = 0, torch.inf, None
        for _ in range(MAX_STEPS):
            w = self._flat(v)
            curvature, gradient = self._curvature(w, hyper, s2, gradient, quadratic)
            residual = self.moments.rhs - product - curvature.a * v
            precondition = self._preconditioner(curvature)
            size = _norm(self.moments.rhs, precondition) if size is None else size
            left = _norm(residual, precondition) / size
            if bool((left <= tol).all()) or idle == MAX_IDLE:
                break
            idle = idle + 1 if float(left.max()) > 0.5 * least else 0
            least = min(least, float(left.max()))
            wanted = tol / left
            d, _ = self._correct(curvature, precondition, residual, wanted.clamp(SINGLE if quadratic else FORCING, 0.5))
            if quadratic and bool((wanted >= SINGLE).all()):
                return v + d
            dg = self._product(d, tol)
            if not quadratic:
                t = self._line_search(hyper, s2, v, d, product, dg, curvature)[:, None, None]
                gradient = self._turn(gradient, curvature, d, t)
                d, dg = t * d, t * dg
            v, product = v + d, product + dg
        return v

    def _curvature(
        self, w: Tensor, hyper: Hyper, s2: Tensor, gradient: Tensor | None, quadratic: bool
    ) -> tuple[Curvature, Tensor]:
        """The penalty's Hessian, b_g scaled by the share of `gradient` along a_g w_g, cut to be positive definite."""
        decays = self._decays
        r = decays.relative(w, s2)
        a_g = decays.log_decays_at(r, hyper).exp()
        a = decays.spread(a_g)
        if quadratic:
            a = self._matrix(a)
            return Curvature(a, a, None, w), w
        gradient = a * w if gradient is None else gradient
        along, across = decays.group_sums(gradient * w), a_g * decays.group_sums(w**2)
        share = torch.where(across > 0, along / across, 1.0).clamp(min=0)
        r_smooth = (r - decays.eps).clamp(min=torch.finfo(r.dtype).tiny)
        b = decays.concavity_at(r, a_g, hyper, s2) * torch.minimum(share, (r / r_smooth).sqrt())
        b = b / (2 - hyper.exponent).clamp(min=1)
        b = torch.minimum(b, a_g / decays.group_sums(w**2).clamp(min=torch.finfo(w.dtype).tiny))
        return self._bent(w, a, b), gradient

    def _bent(self, w: Tensor, a: Tensor, b: Tensor) -> Curvature:
        decays = self._decays
        diagonal = a - decays.spread(b) * w**2
        return Curvature(self._matrix(a), self._matrix(diagonal), None if decays.single else b, w)

    def _turn(self, gradient: Tensor, curvature: Curvature, d: Tensor, t: Tensor) -> Tensor:
        """The gradient variable after a step: what the linearised equation makes of it."""
        w, step, a = curvature.w, self._flat(d), self._flat(curvature.a)
        bend = self._flat(curvature.a - curvature.diagonal) * step
        if curvature.b is not None:
            decays = self._decays
            bend = decays.spread(curvature.b * decays.group_sums(w * step)) * w
        return gradient + t[:, 0] * (a * (w + step) - bend - gradient)

    def _line_search(
        self, hyper: Hyper, s2: Tensor, v: Tensor, d: Tensor, product: Tensor, dg: Tensor, curvature: Curvature
    ) -> Tensor:
        """The first of the steps 1, 1/2 ... that lowers the objective of a fold enough: (K,)."""
        rhs, decays = self.moments.rhs, self._decays
        first, bend = ((product - rhs) * d).sum((-1, -2)), (d * dg).sum((-1, -2))
        slope = first + (curvature.a * v * d).sum((-1, -2))
        w, step = self._flat(v), self._flat(d)
        start = decays.penalty(w, hyper, s2)
        size = (v * product).sum((-1, -2)) / 2 + (v * rhs).sum((-1, -2)).abs() + start
        t = torch.ones_like(slope)
        for _ in range(MAX_HALVINGS):
            change = decays.penalty(w + t[:, None] * step, hyper, s2) - start + t * (first + t * bend / 2)
            enough = change <= 1e-4 * t * slope + ROUNDING * size
            if bool(enough.all()):
                break
            t = torch.where(enough, t, t / 2)
        return t

    # Linear systems.

    def _adjoint(self, w: Tensor, hyper: Hyper, s2: Tensor, v: Tensor, tol: float) -> tuple[Tensor, float]:
        """H^-1 v for coefficients (K, T, p), and the relative residual that is left."""
        flat, decays = w[..., : self._n_decayed], self._decays
        a = decays.log_decays(flat, hyper, s2).exp()
        curvature = self._bent(flat, decays.spread(a), decays.concavity(flat, hyper, s2))
        precondition = self._preconditioner(curvature)
        u = self.memory.adjoint
        u = torch.zeros_like(v) if u is None or u.shape != v.shape else u
        size = _norm(v, precondition).clamp(min=torch.finfo(v.dtype).tiny)
        before = torch.inf
        for _ in range(MAX_STEPS):
            residual = v - self._product(u, tol) - self._bend(u, curvature)
            error = _norm(residual, precondition) / size
            if bool((error <= tol).all()) or float(error.max()) > 0.5 * before:
                break
            before, wanted = float(error.max()), tol / error
            d, reduced = self._correct(curvature, precondition, residual, wanted.clamp(SINGLE, 0.5))
            u, error = u + d, error * reduced
            if bool((wanted >= SINGLE).all()) and bool((error <= tol).all()):
                break
        self.memory.adjoint = u
        return u, float(error.max())

    def _product(self, v: Tensor, tol: float) -> Tensor:
        """V X'X of every fold, in single precision where the accuracy that is asked for allows it."""
        if tol < SINGLE:
            return v @ self.moments.gram
        size = v.abs().max().clamp(min=torch.finfo(v.dtype).tiny)
        return ((v / size).float() @ self._low_gram).double() * (size * self._unit)

    def _bend(self, u: Tensor, curvature: Curvature) -> Tensor:
        """The penalty's Hessian times u."""
        if curvature.b is None:
            return curvature.diagonal * u
        decays, w = self._decays, curvature.w.to(u)
        flat = self._flat(u)
        return curvature.a * u - self._matrix(w * decays.spread(curvature.b * decays.group_sums(w * flat)))

    def _correct(
        self, curvature: Curvature, precondition: "Preconditioner", r: Tensor, tol: Tensor
    ) -> tuple[Tensor, Tensor]:
        """H^-1 r in single precision, to a reduction of the residual by `tol` (K,); and what it is reduced to."""
        unit, shape = self._unit, r.shape
        size = r.abs().amax((-1, -2), keepdim=True).clamp(min=torch.finfo(r.dtype).tiny)
        b = None if curvature.b is None else (curvature.b / unit).float()
        a, diagonal = ((t / unit).float() for t in (curvature.a, curvature.diagonal))
        low = Curvature(a, diagonal, b, curvature.w.float())

        def product(p: Tensor) -> Tensor:
            p = p.unflatten(-1, shape[1:])
            return (p @ self._low_gram + self._bend(p, low)).flatten(1)

        found = conjugate_gradients(
            product,
            lambda p: precondition.low(p.unflatten(-1, shape[1:])).flatten(1),
            (r / size).float().flatten(1),
            tol.float(),
            CG_MAX_ITER,
        )
        return found.x.unflatten(-1, shape[1:]).double() * size / unit, found.residual.double()

    @cached_property
    def _unit(self) -> float:
        """What the moments are divided by in single precision."""
        return float(self._mean_diagonal.mean().clamp(min=torch.finfo(torch.float32).tiny))

    @cached_property
    def _low_gram(self) -> Tensor:
        return (self.moments.gram / self._unit).float()

    @cached_property
    def _mean_gram(self) -> Tensor:
        return self.moments.gram.mean(0)

    @cached_property
    def _mean_diagonal(self) -> Tensor:
        return self._mean_gram.diagonal().clone()

    def _preconditioner(self, curvature: Curvature) -> "Preconditioner":
        """The shared factor, renewed where decays have drifted, scaled to this Hessian's diagonal."""
        added = torch.maximum(curvature.diagonal, 1e-3 * curvature.a)
        log_c, memory = added.log().mean((0, 1)), self.memory
        if memory.log_c is None or memory.factor is None or float((log_c - memory.log_c).abs().mean()) > DRIFT:
            memory.log_c = log_c
            matrix = self._mean_gram / self._unit
            matrix.diagonal().add_(log_c.exp() / self._unit)
            memory.factor, info = torch.linalg.cholesky_ex(matrix.float())
            if bool(info):
                memory.factor = torch.linalg.cholesky_ex(matrix)[0].float()
        scale = ((self._mean_diagonal + memory.log_c.exp()) / (self._mean_diagonal + added)).sqrt()
        return Preconditioner(memory.factor, scale.float(), self._unit)


class Held(NamedTuple):
    """Validation losses (K,) and their gradients with respect to coefficients (K, T, p)."""

    losses: Tensor
    gradient: Tensor


class Preconditioner(NamedTuple):
    """r -> M^-1 r for coefficients (K, T, p)."""

    factor: Tensor
    scale: Tensor
    unit: float

    def low(self, r: Tensor) -> Tensor:
        """In single precision and in units of the scaled moments."""
        scaled = (self.scale * r).flatten(0, 1).mT
        return self.scale * torch.cholesky_solve(scaled, self.factor).mT.unflatten(0, r.shape[:2])

    def __call__(self, r: Tensor) -> Tensor:
        """In double precision outside, in single precision inside."""
        size = r.abs().max().clamp(min=torch.finfo(r.dtype).tiny)
        return self.low((r / size).float()).double() * (size / self.unit)


def _norm(r: Tensor, precondition: Preconditioner) -> Tensor:
    """(r' M^-1 r)^1/2 of every fold."""
    return (r * precondition(r)).sum((-1, -2)).clamp(min=0).sqrt()


def squared_factor(loss: Loss) -> float | None:
    """The factor of a squared error, None for other losses."""
    if isinstance(loss, Rescaled):
        inner = squared_factor(loss.loss)
        return None if inner is None else inner * loss.factor
    return 1.0 if loss == SquaredError() else None
