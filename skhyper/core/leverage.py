"""Ridge regression on all rows as a linear smoother: its leverages, determinants, and their derivatives.

With C the row weights, X~ and y~ centred by weighted means where there is an intercept, and

    Z = C^1/2 X~,   t = C^1/2 y~,   M = Z'Z + diag(a),   u = (c / sum c)^1/2 (0 without an intercept),

the weights are w = M^-1 Z't, the residuals e = t - Zw, and the hat matrix H = Z M^-1 Z' + uu', so that the intercept is
part of it. With the gain G = Z M^-1 (n, p) the derivatives with respect to log a_j are

    d e_i = G_ij a_j w_j,   d (1 - h_ii) = a_j G_ij^2,   d (log|M| - log|A|) = -(Z'G)_jj,   d (e'e + w'Aw) = a_j w_j^2.

`Spectral` serves equal decays through one singular value decomposition, `Primal` and `Dual` any decays by a Cholesky
factor of p x p or n x n.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .designs import DenseDesign
from .problem import Problem

VANISHED = 1e-12  # a leverage this close to one is one


@dataclass(frozen=True)
class Rows:
    """Z and u of a problem of one fold, and what all decays share."""

    z: Tensor  # (n, p)
    u: Tensor  # (n,)
    c: Tensor  # (n,)
    x_mean: Tensor  # (p,), zeros without an intercept

    @cached_property
    def used(self) -> Tensor:
        """The rows of positive weight, (n,)."""
        return self.c > 0

    @cached_property
    def n_used(self) -> int:
        """Their number."""
        return int(self.used.sum())

    @cached_property
    def intercept(self) -> bool:
        """Whether means were taken out."""
        return bool(self.u.any())

    @cached_property
    def gram(self) -> Tensor:
        """Z'Z."""
        return self.z.mT @ self.z

    @cached_property
    def decomposition(self) -> "Decomposition":
        """Z = U diag(s) V'."""
        return Decomposition.of(self)


class Targets(NamedTuple):
    """t of a problem of one fold, and the means that were taken out."""

    t: Tensor  # (n, T)
    mean: Tensor  # (T,)

    def take_output(self, t: int) -> "Targets":
        """One target."""
        return Targets(self.t[:, t : t + 1], self.mean[t : t + 1])


def training_rows(problem: Problem) -> tuple[Rows, Targets]:
    """Centre and weigh the rows of a problem of one fold.

    Raises
    ------
    ValueError
        If there are several folds, or X is sparse.
    """
    if problem.n_folds != 1 or not isinstance(problem.design, DenseDesign):
        raise ValueError("leverages need a problem of one fold with a dense X")
    x, y, c = (v[0] if v.ndim > d else v for v, d in ((problem.design.x, 2), (problem.y, 2), (problem.train, 1)))
    share = (c / c.sum())[:, None] * problem.network.intercept
    x_mean, y_mean = (share * x).sum(0), (share * y).sum(0)
    root = c.sqrt()[:, None]
    return Rows(root * (x - x_mean), share[:, 0].sqrt(), c, x_mean), Targets(root * (y - y_mean), y_mean)


class Smoother(ABC):
    """Ridge regression with decays `a` (q,) in the coordinates of `z` (n, q)."""

    a: Tensor

    @property
    @abstractmethod
    def z(self) -> Tensor:
        """Z in these coordinates."""

    @property
    @abstractmethod
    def free(self) -> Tensor:
        """1 - h_ii of each row, (n,)."""

    @property
    @abstractmethod
    def log_determinant(self) -> Tensor:
        """log|M| - log|A|."""

    @property
    @abstractmethod
    def effective(self) -> Tensor:
        """The diagonal of Z'G: the effective number of parameters of each coordinate, (q,)."""

    @property
    @abstractmethod
    def gain(self) -> Tensor:
        """G = Z M^-1, (n, q)."""

    @abstractmethod
    def weights(self, t: Tensor) -> Tensor:
        """M^-1 Z't = G't: (n, T) -> (q, T)."""

    def residuals(self, t: Tensor) -> Tensor:
        """t - Zw: (n, T) -> (n, T)."""
        return t - self.z @ self.weights(t)

    def in_features(self, w: Tensor) -> Tensor:
        """Weights of these coordinates as coefficients of the columns of X: (q, T) -> (p, T)."""
        return w


@dataclass(frozen=True)
class Decomposition:
    """Z = U diag(s) V', for all equal decays."""

    left: Tensor  # (n, r)
    s: Tensor  # (r,)
    right: Tensor  # (p, r)
    rest: Tensor  # (n,), the diagonal of I - UU' - uu'

    @classmethod
    def of(cls, rows: Rows) -> "Decomposition":
        """The thin decomposition without directions that are only rounding."""
        left, s, right = torch.linalg.svd(rows.z, full_matrices=False)
        kept = s > max(rows.z.shape) * torch.finfo(s.dtype).eps * s.max()
        left, s, right = left[:, kept], s[kept], right[kept].mT
        rest = 1 - (left**2).sum(-1) - rows.u**2
        spanned = len(s) >= rows.n_used - rows.intercept
        rest = torch.where((rest < VANISHED) | (rows.used & spanned), 0.0, rest)
        return cls(left, s, right, rest)


@dataclass(frozen=True)
class Spectral(Smoother):
    """Equal decays: in the basis of the singular vectors everything is diagonal."""

    parts: Decomposition
    a: Tensor  # ()

    @cached_property
    def z(self) -> Tensor:
        return self.parts.left * self.parts.s

    @cached_property
    def _left_out(self) -> Tensor:
        return self.a / (self.parts.s**2 + self.a)

    @cached_property
    def free(self) -> Tensor:
        return self.parts.rest + (self.parts.left**2) @ self._left_out

    @cached_property
    def log_determinant(self) -> Tensor:
        return torch.log1p(self.parts.s**2 / self.a).sum()

    @cached_property
    def effective(self) -> Tensor:
        return 1 - self._left_out

    @cached_property
    def gain(self) -> Tensor:
        return self.z / (self.parts.s**2 + self.a)

    def weights(self, t: Tensor) -> Tensor:
        return (self.parts.s / (self.parts.s**2 + self.a))[:, None] * (self.parts.left.mT @ t)

    def residuals(self, t: Tensor) -> Tensor:
        inside = self.parts.left.mT @ t
        outside = torch.where((self.parts.rest == 0)[:, None], 0.0, t - self.parts.left @ inside)
        return outside + self.parts.left @ (self._left_out[:, None] * inside)

    def in_features(self, w: Tensor) -> Tensor:
        return self.parts.right @ w


@dataclass(frozen=True)
class Primal(Smoother):
    """The inverse of M, p x p."""

    rows: Rows
    a: Tensor

    @property
    def z(self) -> Tensor:
        return self.rows.z

    @cached_property
    def _factor(self) -> Tensor:
        return _cholesky(self.rows.gram + torch.diag(self.a))

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.cholesky_inverse(self._factor)

    @cached_property
    def free(self) -> Tensor:
        return 1 - self.rows.u**2 - (self.z * self.gain).sum(-1)

    @cached_property
    def log_determinant(self) -> Tensor:
        return 2 * self._factor.diagonal().log().sum() - self.a.log().sum()

    @cached_property
    def effective(self) -> Tensor:
        return 1 - self.a * self._inverse.diagonal()

    @cached_property
    def gain(self) -> Tensor:
        return self.z @ self._inverse

    def weights(self, t: Tensor) -> Tensor:
        return torch.cholesky_solve(self.z.mT @ t, self._factor)


@dataclass(frozen=True)
class Dual(Smoother):
    """The inverse of K = I + Z A^-1 Z' + k uu', n x n: Z is orthogonal to u, and k keeps 1 - h_ii from cancelling."""

    rows: Rows
    a: Tensor

    @property
    def z(self) -> Tensor:
        return self.rows.z

    @cached_property
    def _kernel(self) -> Tensor:
        return (self.z / self.a) @ self.z.mT

    @cached_property
    def _lift(self) -> float:
        return float(self._kernel.diagonal().mean()) if self.rows.intercept else 0.0

    @cached_property
    def _factor(self) -> Tensor:
        eye = torch.eye(len(self.z), dtype=self.z.dtype)
        return _cholesky(eye + self._kernel + self._lift * torch.outer(self.rows.u, self.rows.u))

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.cholesky_inverse(self._factor)

    @cached_property
    def free(self) -> Tensor:
        return self._inverse.diagonal() - self.rows.u**2 / (1 + self._lift)

    @cached_property
    def log_determinant(self) -> Tensor:
        return 2 * self._factor.diagonal().log().sum() - math.log1p(self._lift)

    @cached_property
    def effective(self) -> Tensor:
        return (self.z * self.gain).sum(0)

    @cached_property
    def gain(self) -> Tensor:
        return (self._inverse @ self.z) / self.a

    def weights(self, t: Tensor) -> Tensor:
        return self.z.mT @ self.residuals(t) / self.a[:, None]

    def residuals(self, t: Tensor) -> Tensor:
        return torch.cholesky_solve(t, self._factor)


def _cholesky(matrix: Tensor) -> Tensor:
    """The factor; nan where the matrix is not positive definite, so that a line search comes back."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    return torch.where(info == 0, factor, torch.nan)
