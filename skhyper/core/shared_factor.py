"""(X_k'X_k + C_kt) v = r for all folds k and outputs t by conjugate gradients, with one factor for all of them.

All these systems are close to their mean, and what makes them differ most, additions to the diagonal that dwarf it, is
mended by scaling: with G the mean of X_k'X_k and c the geometric mean of all diagonals added,

    M_kt = S_kt (G + diag c) S_kt,    S_kt^2 = (diag G + diag C_kt) / (diag G + c),

costs one factorised inverse, which serves while c moves little, and leaves a handful of steps. They run in single
precision; residuals are formed in double precision as far as their accuracy asks for it, so that the solution is as
accurate as its tolerance says.

Shapes: right-hand sides and solutions are (K, T, p).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .cg import conjugate_gradients

MAX_ITER = 200
DRIFT = 0.5  # mean change of log c after which the inverse is renewed
UNEVEN = 100.0  # ratio of the largest to the least pivot above which it is formed in double precision
FLOOR = 1e-3  # least addition to the diagonal in the preconditioner, relative to the decay
SINGLE = 1e-4  # reduction of a residual that single precision is trusted with,
SINGLE_ERROR = 1e-5  # and the relative error that its products leave in a solution
TINY = torch.finfo(torch.float64).tiny


class Curvature(NamedTuple):
    """What is added to X'X: a matrix with diagonal `diagonal`."""

    decays: Tensor  # (K, T, p), the positive part of the diagonal
    diagonal: Tensor  # (K, T, p)
    coupling: Callable[[Tensor], Tensor] | None = None  # what it does beside its diagonal, where there is more

    def __call__(self, v: Tensor) -> Tensor:
        """The matrix times v, in v's precision."""
        bent = self.diagonal.to(v) * v
        return bent if self.coupling is None else bent + self.coupling(v)


class Correction(NamedTuple):
    """What conjugate gradients found, and the residual's norm before and after: (K,)."""

    d: Tensor
    before: Tensor
    after: Tensor


class Product(NamedTuple):
    """A product that is known: V X'X."""

    v: Tensor
    of: Tensor


@dataclass
class Memory:
    """What one solution leaves to the next: it changes how long a solution takes, never where it ends."""

    log_c: Tensor | None = None  # (p,)
    inverse: Tensor | None = None  # of G + diag c, in single precision: a product is half the work of two solutions
    size: Tensor | None = None  # (K,), norm of the right-hand side
    known: dict[str, Product] = field(default_factory=dict)


@dataclass(frozen=True)
class SharedFactor:
    """The systems of all folds; `rhs` is what accuracy is relative to."""

    gram: Tensor  # (K, p, p)
    rhs: Tensor  # (K, T, p)
    memory: Memory = field(default_factory=Memory)

    def product(self, v: Tensor, tol: float, name: str) -> Tensor:
        """V X'X; only what is new beside the last product of that name is multiplied where the accuracy allows it."""
        known = self.memory.known.get(name)
        new = v if known is None else v - known.v
        if bool((_norms(new) * SINGLE_ERROR <= tol * _norms(v)).all()):
            product = self.low_product(new)
            product = product if known is None else known.of + product
        else:
            product = v @ self.gram
        self.memory.known[name] = Product(v, product)
        return product

    def low_product(self, v: Tensor) -> Tensor:
        """V X'X in single precision."""
        size = v.abs().max().clamp(min=TINY)
        return ((v / size).float() @ self._low_gram).double() * (size * self._unit)

    def correct(self, curvature: Curvature, r: Tensor, tol: float, enough: Tensor) -> Correction:
        """The solution for r in single precision, its residual reduced by `tol` or no larger than `enough` (K,)."""
        unit, shape, precondition = self._unit, r.shape, self._preconditioner(curvature)
        size = r.abs().max().clamp(min=TINY)
        low = curvature._replace(diagonal=(curvature.diagonal / unit).float())

        def product(p: Tensor) -> Tensor:
            p = p.unflatten(-1, shape[1:])
            bent = low.diagonal * p
            if low.coupling is not None:
                bent = bent + low.coupling(p) / unit
            return (p @ self._low_gram + bent).flatten(1)

        def preconditioned(p: Tensor) -> Tensor:
            return precondition(p.unflatten(-1, shape[1:])).flatten(1)

        scale = size / unit**0.5  # of norms
        right, tols = (r / size).float().flatten(1), torch.full((len(r),), tol)
        found = conjugate_gradients(product, preconditioned, right, tols, MAX_ITER, (enough / scale).float())
        before = found.size.double() * scale
        d = found.x.unflatten(-1, shape[1:]).double() * (size / unit)
        return Correction(d, before, before * found.residual.double())

    def norm(self, r: Tensor, curvature: Curvature) -> Tensor:
        """(r' M^-1 r)^1/2 of every fold: (K,)."""
        size = r.abs().max().clamp(min=TINY)
        low = (r / size).float()
        square = (low * self._preconditioner(curvature)(low)).sum((-1, -2)).double()
        return square.clamp(min=0).sqrt() * (size / self._unit**0.5)

    def size(self, curvature: Curvature) -> Tensor:
        """The norm of `rhs`, with the factor that is there: (K,)."""
        self._preconditioner(curvature)
        if self.memory.size is None:
            self.memory.size = self.norm(self.rhs, curvature).clamp(min=TINY)
        return self.memory.size

    @cached_property
    def _unit(self) -> float:
        """What X'X is divided by in single precision."""
        return float(self._mean_diagonal.mean().clamp(min=torch.finfo(torch.float32).tiny))

    @cached_property
    def _low_gram(self) -> Tensor:
        return (self.gram / self._unit).float()

    @cached_property
    def _mean_gram(self) -> Tensor:
        return self.gram.mean(0)

    @cached_property
    def _mean_diagonal(self) -> Tensor:
        return self._mean_gram.diagonal().clone()

    def _preconditioner(self, curvature: Curvature) -> Callable[[Tensor], Tensor]:
        """r -> M^-1 r in units of the scaled matrices, with the inverse renewed where decays have drifted."""
        added = torch.maximum(curvature.diagonal, FLOOR * curvature.decays)
        log_c, memory = added.log().mean((0, 1)), self.memory
        inverse = memory.inverse
        if inverse is None or memory.log_c is None or float((log_c - memory.log_c).abs().mean()) > DRIFT:
            matrix = self._mean_gram / self._unit
            matrix.diagonal().add_(log_c.exp() / self._unit)
            factor, info = torch.linalg.cholesky_ex(matrix.float())
            pivots = factor.diagonal()
            if bool(info) or float(pivots.max()) > UNEVEN * float(pivots.min()):
                factor = torch.linalg.cholesky_ex(matrix)[0]
            inverse = torch.cholesky_inverse(factor).float()
            memory.log_c, memory.inverse, memory.size = log_c, inverse, None
        assert memory.log_c is not None
        scale = ((self._mean_diagonal + memory.log_c.exp()) / (self._mean_diagonal + added)).sqrt().float()

        def precondition(r: Tensor) -> Tensor:
            return scale * ((scale * r).flatten(0, 1) @ inverse).unflatten(0, r.shape[:2])

        return precondition


def _norms(v: Tensor) -> Tensor:
    """Of every fold: (K, T, p) -> (K,)."""
    return torch.linalg.vector_norm(v, dim=(-1, -2))
