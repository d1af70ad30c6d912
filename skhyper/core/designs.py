"""X as an operator: products with a matrix that all folds share or that each fold has for itself.

Shapes: K folds, n rows, p columns, T outputs. Leading axes of weights broadcast, so that several candidates can be
carried at once: weights are (..., K, p, T) and predictions (..., K, n, T). Row weights are (K, n).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

# A column whose Gram entry loses more than this share by subtraction is summed again from its rows.
CANCELLATION = 1e-6
# What is left of a constant column by rounding is below this times its size, in units of the arithmetic's precision.
CONSTANT = 100.0
# Rows are taken in blocks whose weighted copies stay below this many entries.
BLOCK = 1 << 22


class Design(ABC):
    """The matrices X_1 ... X_K of a problem, known only through their products."""

    @property
    @abstractmethod
    def n_rows(self) -> int:
        """Number of rows, n."""

    @property
    @abstractmethod
    def n_columns(self) -> int:
        """Number of columns, p."""

    @property
    @abstractmethod
    def n_stored(self) -> int:
        """Entries of a fold's matrix that are stored."""

    @abstractmethod
    def matvec(self, v: Tensor) -> Tensor:
        """X_k v_k: (..., K, p, T) -> (..., K, n, T)."""

    @abstractmethod
    def rmatvec(self, u: Tensor) -> Tensor:
        """X_k' u_k: (..., K, n, T) -> (..., K, p, T)."""

    @abstractmethod
    def gram(self, c: Tensor) -> Tensor:
        """X_k' diag(c_k) X_k: (K, n) -> (K, p, p)."""

    @abstractmethod
    def grams(self, c: Tensor) -> Tensor:
        """X_k' diag(c_kt) X_k, for weights that all differ: (..., K, n, T) -> (..., K, T, p, p)."""

    @abstractmethod
    def square_rmatvec(self, u: Tensor) -> Tensor:
        """(X_k * X_k)' u_k: (..., K, n, T) -> (..., K, p, T); the diagonals of `grams(u)`."""

    @abstractmethod
    def squares(self, c: Tensor) -> Tensor:
        """The diagonals of `gram(c)`: (K, n) -> (K, p)."""

    @abstractmethod
    def take_folds(self, which: Tensor) -> "Design":
        """The matrices of some of the folds."""

    def column_sums(self, c: Tensor) -> Tensor:
        """X_k' c_k: (K, n) -> (K, p)."""
        return self.rmatvec(c[..., None])[..., 0]

    def centred_squares(self, c: Tensor) -> Tensor:
        """sum_i c_ki (x_ij - mean_kj)^2 with the weighted means, zero where a column is constant: (K, n) -> (K, p)."""
        squares = self.squares(c)
        rest = squares - self.column_sums(c) ** 2 / _positive(c.sum(-1, keepdim=True))
        return torch.where(rest > CONSTANT * torch.finfo(c.dtype).eps * squares, rest, 0.0)


@dataclass(frozen=True)
class DenseDesign(Design):
    """One dense matrix (n, p) that all folds share, or K of them (K, n, p)."""

    x: Tensor

    @property
    def n_rows(self) -> int:
        return self.x.shape[-2]

    @property
    def n_columns(self) -> int:
        return self.x.shape[-1]

    @property
    def n_stored(self) -> int:
        return self.n_rows * self.n_columns

    @property
    def shared(self) -> bool:
        """Whether all folds have the same matrix."""
        return self.x.ndim == 2

    def matvec(self, v: Tensor) -> Tensor:
        return _shared_product(self.x, v) if self.shared else _product_by_fold(self.x, v)

    def rmatvec(self, u: Tensor) -> Tensor:
        return _shared_product(self.x.mT, u) if self.shared else _product_by_fold(self.x.mT, u)

    def gram(self, c: Tensor) -> Tensor:
        """X_k' diag(c_k) X_k; where folds share X by subtracting what a fold leaves out from the total."""
        if not self.shared:
            return self.x.mT @ (c[..., None] * self.x)
        total = c.amax(0)
        left_out = [(total - c_k).nonzero()[:, 0] for c_k in c]
        if len(c) == 1 or sum(map(len, left_out)) > (len(c) - 1) * self.n_rows:
            return torch.stack([_weighted_gram(self.x, c_k) for c_k in c])
        whole = _weighted_gram(self.x, total)
        parts = []
        for c_k, rows in zip(c, left_out, strict=True):
            part = whole - _weighted_gram(self.x[rows], (total - c_k)[rows])
            lost = part.diagonal() <= CANCELLATION * whole.diagonal()
            parts.append(_weighted_gram(self.x, c_k) if lost.any() else part)
        return torch.stack(parts)

    def take_folds(self, which: Tensor) -> "DenseDesign":
        return self if self.shared else DenseDesign(self.x[which])

    def grams(self, c: Tensor) -> Tensor:
        n, p = self.x.shape[-2:]
        if self.shared:
            columns = c.movedim(-2, 0).flatten(1).contiguous()  # (n, all other axes of c)
            out = self.x.new_zeros(p, columns.shape[1] * p)
            for rows in _blocks(n, columns.shape[1] * p):
                x = self.x[rows]
                out.addmm_(x.mT, (columns[rows, :, None] * x[:, None, :]).flatten(1))
            return out.reshape(p, *c.shape[:-2], c.shape[-1], p).movedim(0, -2)
        columns = c.movedim((-3, -2), (0, 1)).flatten(2).contiguous()  # (K, n, all other axes of c)
        out = self.x.new_zeros(len(self.x), p, columns.shape[2] * p)
        for rows in _blocks(n, columns[:, 0].numel() * p):
            x = self.x[:, rows]
            out.baddbmm_(x.mT, (columns[:, rows, :, None] * x[:, :, None, :]).flatten(2))
        return out.reshape(len(self.x), p, *c.shape[:-3], c.shape[-1], p).movedim((0, 1), (-4, -2))

    def square_rmatvec(self, u: Tensor) -> Tensor:
        total = u.new_zeros(*u.shape[:-2], self.n_columns, u.shape[-1])
        for rows in _blocks(self.n_rows, self.x[..., :1, :].numel()):
            total += DenseDesign(self.x[..., rows, :] ** 2).rmatvec(u[..., rows, :])
        return total

    def squares(self, c: Tensor) -> Tensor:
        return self.square_rmatvec(c[..., None])[..., 0]

    def centred_squares(self, c: Tensor) -> Tensor:
        """From columns whose overall means are subtracted first, so that offsets do not cancel."""
        shift = self.x.mean(-2, keepdim=True)
        sums, squares = c.new_zeros(len(c), self.n_columns), c.new_zeros(len(c), self.n_columns)
        for rows in _blocks(self.n_rows, self.x[..., :1, :].numel()):
            part = DenseDesign(self.x[..., rows, :] - shift)
            sums += part.column_sums(c[:, rows])
            squares += part.squares(c[:, rows])
        rest = squares - sums**2 / _positive(c.sum(-1, keepdim=True))
        size = torch.finfo(c.dtype).eps * self.x.abs().amax(-2)
        return torch.where(rest > CONSTANT * size**2 * c.sum(-1, keepdim=True), rest, 0.0)


@dataclass(frozen=True)
class SparseDesign(Design):
    """One scipy CSR matrix that all folds share, or a sequence of K; products run in scipy, X stays sparse."""

    matrices: Sequence[Any]

    @property
    def n_rows(self) -> int:
        return int(self.matrices[0].shape[0])

    @property
    def n_columns(self) -> int:
        return int(self.matrices[0].shape[1])

    @property
    def n_stored(self) -> int:
        return max(int(x.nnz) for x in self.matrices)

    @cached_property
    def _transposed(self) -> list[Any]:
        return [x.T for x in self.matrices]

    @cached_property
    def _squared(self) -> list[Any]:
        return [x.__class__((x.data**2, x.indices, x.indptr), shape=x.shape).T for x in self.matrices]

    def _product(self, matrices: Sequence[Any], v: Tensor) -> Tensor:
        if len(matrices) == 1:
            columns = v.reshape(-1, *v.shape[-2:]).movedim(-2, 0)
            flat = matrices[0] @ columns.reshape(len(columns), -1).numpy()
            product = torch.from_numpy(flat).reshape(-1, *columns.shape[1:]).movedim(0, -2)
            return product.reshape(*v.shape[:-2], *product.shape[-2:])
        folds = [self.__class__([x])._product([x], v_k) for x, v_k in zip(matrices, v.unbind(-3), strict=True)]
        return torch.stack(folds, -3)

    def matvec(self, v: Tensor) -> Tensor:
        return self._product(self.matrices, v)

    def rmatvec(self, u: Tensor) -> Tensor:
        return self._product(self._transposed, u)

    def take_folds(self, which: Tensor) -> "SparseDesign":
        if len(self.matrices) == 1:
            return self
        return SparseDesign([x for x, kept in zip(self.matrices, which.tolist(), strict=True) if kept])

    def gram(self, c: Tensor) -> Tensor:
        parts = []
        for k, c_k in enumerate(c.numpy()):
            x = self.matrices[k % len(self.matrices)]
            parts.append(torch.from_numpy(np.asarray((x.T @ x.multiply(c_k[:, None])).todense())))
        return torch.stack(parts)

    def grams(self, c: Tensor) -> Tensor:
        folds = torch.arange(c.shape[-3]).expand(c.shape[:-2])
        parts = []
        for k, c_k in zip(folds.flatten().tolist(), c.flatten(0, -3).numpy(), strict=True):
            x = self.matrices[k % len(self.matrices)]
            parts += [(x.T @ x.multiply(c_kt[:, None]).tocsr()).toarray() for c_kt in c_k.T]
        return torch.from_numpy(np.stack(parts)).reshape(*c.shape[:-2], c.shape[-1], *parts[0].shape)

    def square_rmatvec(self, u: Tensor) -> Tensor:
        return self._product(self._squared, u)

    def squares(self, c: Tensor) -> Tensor:
        return self.square_rmatvec(c[..., None])[..., 0]


def _shared_product(x: Tensor, v: Tensor) -> Tensor:
    """x v for every leading axis of v in one matrix product: (a, b), (..., b, T) -> (..., a, T)."""
    return (v.mT @ x.mT).mT


def _product_by_fold(x: Tensor, v: Tensor) -> Tensor:
    """x_k v_k for every leading axis of v in one product a fold: (K, a, b), (..., K, b, T) -> (..., K, a, T)."""
    if v.ndim == 3:
        return x @ v
    columns = v.movedim((-3, -2), (0, 1))
    product = (x @ columns.flatten(2)).reshape(*x.shape[:2], *columns.shape[2:])
    return product.movedim((0, 1), (-3, -2))


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def _blocks(n_rows: int, entries_per_row: int) -> list[slice]:
    step = max(1, BLOCK // max(1, entries_per_row))
    return [slice(start, start + step) for start in range(0, n_rows, step)]


def _weighted_gram(x: Tensor, c: Tensor) -> Tensor:
    if bool((c == 1).all()):
        return x.mT @ x
    return x.mT @ (c[:, None] * x)
