"""Normal equations of the folds: (X_k' C_k X_k + diag a) w = r, centred, for a flat batch of problems.

A batch is a vector of fold numbers (B,); decays are (B, p) where all outputs share them, else (B, p, T), and right-hand
sides are (B, p, T). The primal form factorises p x p matrices, the dual form n x n ones by the identity

    (Z'Z + D)^-1 r = D^-1 r - D^-1 Z' (I + Z D^-1 Z')^-1 Z D^-1 r.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .designs import DenseDesign, Design
from .lu import lu_factor
from .problem import Problem

# r -> a solution.
Solver = Callable[[Tensor], Tensor]

# Batched matrices are factorised in parts of at most this many numbers.
MAX_NUMBERS = 2**25

# Rows per column below which the dual form is cheaper.
DUAL = 0.4


class Moments(NamedTuple):
    """First moments of each fold's training rows, which give the intercepts back."""

    total: Tensor  # (K, 1), sum of the row weights
    x: Tensor  # (K, p), zeros where there is no intercept
    y: Tensor  # (K, T)

    def take(self, which: Tensor) -> "Moments":
        """Some of the folds."""
        return Moments(*(t[which] for t in self))


class System(ABC):
    """X_k' C_k X_k of all folds, as something to multiply by and to solve with."""

    @abstractmethod
    def take_folds(self, which: Tensor) -> "System":
        """The matrices of some of the folds."""

    @abstractmethod
    def matvec(self, fold: Tensor, w: Tensor) -> Tensor:
        """X'CX w: (B, p, T) -> (B, p, T)."""

    @abstractmethod
    def _solve(self, fold: Tensor, a: Tensor, r: Tensor) -> Tensor:
        """Solve with decays that all outputs share: a (B, p), r (B, p, m) -> (B, p, m)."""

    @property
    @abstractmethod
    def order(self) -> int:
        """Size of the matrices that are factorised."""

    @property
    @abstractmethod
    def trace(self) -> Tensor:
        """The trace of X'CX of each fold, (K,)."""

    @property
    def capacity(self) -> int:
        """How many matrices fit into one part of a batch."""
        return max(1, MAX_NUMBERS // self.order**2)

    def solve(self, fold: Tensor, a: Tensor, r: Tensor) -> Tensor:
        """(X'CX + diag a)^-1 r; `a` is (B, p), or (B, p, T) where outputs differ in their decays."""
        if a.ndim == 3:
            n_outputs = a.shape[-1]
            args = (fold.repeat_interleave(n_outputs), a.mT.flatten(0, 1), r.mT.flatten(0, 1)[..., None])
            flat = self.solve(*args)
            return flat[..., 0].unflatten(0, (-1, n_outputs)).mT
        parts = zip(*(t.split(self.capacity) for t in (fold, a, r)), strict=True)
        return torch.cat([self._solve(*part) for part in parts])

    @abstractmethod
    def factor_rows(self, fold: Tensor, a: Tensor, c: Tensor, w: Tensor) -> Solver:
        """r -> (X'CX + D)^-1 r with a block a_j - c_j w_j w_j' of D for the row j of the coefficients.

        a and c are (B, p), w (B, p, T), r (B, p, T, m), and so is the solution. The primal form has it for T = 1.
        """

    def solve_rows(self, fold: Tensor, a: Tensor, c: Tensor, w: Tensor, r: Tensor) -> Tensor:
        """`factor_rows` at r."""
        capacity = max(1, MAX_NUMBERS // (self.order**2 * w.shape[-1]))
        parts = zip(*(t.split(capacity) for t in (fold, a, c, w, r)), strict=True)
        return torch.cat([self.factor_rows(*given)(right) for *given, right in parts])

    def inverse(self, fold: Tensor, a: Tensor) -> Tensor:
        """(X'CX + diag a)^-1 itself: (B, p) -> (B, p, p)."""
        return self.solve(fold, a, torch.eye(a.shape[-1], dtype=a.dtype).expand(len(a), -1, -1))


@dataclass(frozen=True)
class Primal(System):
    """The Gram matrices, (K, p, p)."""

    gram: Tensor

    @property
    def order(self) -> int:
        """p."""
        return self.gram.shape[-1]

    @cached_property
    def trace(self) -> Tensor:
        """The sum of the diagonal."""
        return self.gram.diagonal(dim1=-2, dim2=-1).sum(-1)

    def take_folds(self, which: Tensor) -> "Primal":
        """The matrices of some of the folds."""
        return Primal(self.gram[which])

    def matvec(self, fold: Tensor, w: Tensor) -> Tensor:
        """X'CX w."""
        return self.gram[fold] @ w

    def _solve(self, fold: Tensor, a: Tensor, r: Tensor) -> Tensor:
        matrix = self.gram[fold]
        matrix.diagonal(dim1=-2, dim2=-1).add_(a)
        return factor_symmetric(matrix)(r)

    def factor_rows(self, fold: Tensor, a: Tensor, c: Tensor, w: Tensor) -> Solver:
        """Of one output."""
        matrix = self.gram[fold]
        matrix.diagonal(dim1=-2, dim2=-1).add_(a - c * w[..., 0].square())
        inverse = factor_symmetric(matrix)
        return lambda r: inverse(r[..., 0, :])[..., None, :]


@dataclass(frozen=True)
class Dual(System):
    """The rows Z_k = C^1/2 (X - mean), (K, n, p), for fewer rows than columns."""

    rows: Tensor

    @property
    def order(self) -> int:
        """n, or what the copy of the rows takes if that is more."""
        return int((self.rows.shape[-2] * self.rows.shape[-1]) ** 0.5)

    @cached_property
    def trace(self) -> Tensor:
        """The sum of squares."""
        return (self.rows**2).sum((-1, -2))

    def take_folds(self, which: Tensor) -> "Dual":
        """The matrices of some of the folds."""
        return Dual(self.rows[which])

    def matvec(self, fold: Tensor, w: Tensor) -> Tensor:
        """X'CX w."""
        z = self.rows[fold]
        return z.mT @ (z @ w)

    def _solve(self, fold: Tensor, a: Tensor, r: Tensor) -> Tensor:
        z = self.rows[fold]
        scaled = z / a[:, None, :]
        kernel = scaled @ z.mT
        kernel.diagonal(dim1=-2, dim2=-1).add_(1.0)
        return (r - z.mT @ factor_symmetric(kernel)(scaled @ r)) / a[..., None]

    def rows_pay(self, n_outputs: int) -> bool:
        """Whether `solve_rows` of several outputs factorises less than a matrix of the number of columns."""
        return self.rows.shape[-2] * n_outputs < self.rows.shape[-1]

    def factor_rows(self, fold: Tensor, a: Tensor, c: Tensor, w: Tensor) -> Solver:
        """One factorisation of the order n T."""
        z, n_outputs = self.rows[fold], w.shape[-1]
        a, w = a[..., None, None], w[..., None]
        lift = c[..., None, None] / (a - c[..., None, None] * w.square().sum(2, keepdim=True))

        def blocks(v: Tensor) -> Tensor:  # D^-1 v
            return (v + lift * w * (w * v).sum(2, keepdim=True)) / a

        plain = (z / a[:, None, :, 0, 0]) @ z.mT
        plain.diagonal(dim1=-2, dim2=-1).add_(1.0)
        bent = (z[:, :, None] * w[..., 0].mT[:, None]).flatten(1, 2)  # Z w' of each row, (B, n T, p)
        kernel = (bent * (lift / a)[:, None, :, 0, 0]) @ bent.mT
        apart = kernel.view(*plain.shape[:2], n_outputs, -1, n_outputs)
        apart.diagonal(dim1=2, dim2=4).add_(plain[..., None])
        inner = factor_symmetric(kernel)

        def solve(r: Tensor) -> Tensor:
            first = blocks(r)
            dual = inner((z @ first.flatten(2)).reshape(len(z), -1, first.shape[-1]))
            return first - blocks((z.mT @ dual.reshape(*z.shape[:2], -1)).view_as(first))

        return solve


def factor_symmetric(matrix: Tensor) -> Solver:
    """r -> matrix^-1 r: Cholesky for the whole batch, LU for the members that are not positive definite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    bad = info != 0
    indefinite = lu_factor(matrix[bad])

    def solve(r: Tensor) -> Tensor:
        solution = torch.cholesky_solve(r, factor)
        if bool(bad.any()):
            solution[bad] = indefinite.solve(r[bad])
        return solution

    return solve


def normal_equations(problem: Problem) -> tuple[System, Tensor, Moments]:
    """The system of a squared-loss problem, its right-hand side X'C(y - mean) (K, p, T), and the moments."""
    c, network = problem.train, problem.network
    design, shift = _centred(problem.design) if network.intercept else (problem.design, None)
    total = c.sum(-1, keepdim=True)
    y = problem.y.expand(len(c), -1, -1)
    y_mean = torch.einsum("kn,knt->kt", c, y) / total if network.intercept else y.new_zeros(len(c), y.shape[-1])
    x_mean = design.column_sums(c) / total if network.intercept else c.new_zeros(len(c), design.n_columns)
    weighted = c[..., None] * (y - y_mean[:, None])
    rhs = design.rmatvec(weighted) - x_mean[..., None] * weighted.sum(-2, keepdim=True)
    system: System
    # The dual form divides by decays, so that every coefficient needs one.
    decayed = bool((problem.decays.index[: network.n_coefficients] >= 0).all())
    if isinstance(design, DenseDesign) and design.n_rows < DUAL * design.n_columns and decayed:
        system = Dual(_dual_rows(design, c, x_mean))
    else:
        system = Primal(design.gram(c) - total[..., None] * x_mean[..., :, None] * x_mean[..., None, :])
    return system, rhs, Moments(total, x_mean if shift is None else x_mean + shift, y_mean)


def _centred(design: Design) -> tuple[Design, Tensor | None]:
    """Subtract the overall column means, so that fold moments do not cancel; a sparse design stays as it is."""
    if not isinstance(design, DenseDesign):
        return design, None
    shift = design.x.mean(-2, keepdim=True)
    return DenseDesign(design.x - shift), shift.squeeze(-2)


def _dual_rows(design: DenseDesign, c: Tensor, x_mean: Tensor) -> Tensor:
    """C^1/2 (X - mean) for each fold's training rows, zero rows where folds are shorter than the longest."""
    longest = int((c > 0).sum(-1).max())
    order = (c > 0).to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :longest]
    weights = c.gather(-1, order).sqrt()
    x = design.x[order] if design.shared else design.x.take_along_dim(order[..., None], 1)
    return weights[..., None] * (x - x_mean[:, None])
