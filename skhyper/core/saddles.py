"""Saddles of the inner problem under a squared loss and the family: where they are, and which way down.

With A = X'CX + diag(a) the Hessian is A - W B W', W one column w_g a decay and B = diag(b). With M = B^1/2 W'A^-1 W
B^1/2 it has a negative curvature if M has an eigenvalue mu > 1: mu (1 - mu) along A^-1 W B^1/2 e, e its eigenvector.

Where a decay is that of one row of coefficients W B W' is block-diagonal, and a row whose b |w|^2 is less than a may go
into A as a - b w w', which stays positive. So only rows far from zero are left for M: for q < 1 these are few, however
many columns there are.
"""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from .linear_systems import Solver, System

NEGATIVE = 1e-6  # curvature below this, relative to that of A, is negative
FOLDED = 0.5  # share of a that may be taken from it
DENSE = 128  # order of M up to which it is formed, for all problems at once
ACCURACY = 1e-4  # of an eigenvalue of larger ones, which is found from below


class Saddles(NamedTuple):
    """Which problems are at one, (B,), and a direction for each of these."""

    found: Tensor
    down: Tensor


def negative(m: Tensor) -> tuple[Tensor, Tensor]:
    """Which of M (B, k, k) have an eigenvalue above 1, and the eigenvector of the largest for these, (found, k)."""
    one = torch.eye(m.shape[-1], dtype=m.dtype)
    found = (torch.linalg.cholesky_ex((1 + NEGATIVE) * one - m).info > 0) & m.isfinite().all((-2, -1))
    if not bool(found.any()):
        return found, m.new_zeros(0, m.shape[-1])
    if m.shape[-1] <= DENSE:
        return found, torch.linalg.eigh(m[found]).eigenvectors[..., -1]
    return found, torch.stack([_largest(own.mv, len(own))[1] for own in m[found]])


def of_rows(system: System, fold: Tensor, w: Tensor, a: Tensor, b: Tensor) -> Saddles:
    """Of problems with a decay for each row of coefficients: fold (B,), w (B, p, T), a and b (B, p)."""
    share = b * w.square().sum(-1) / a
    k = int((share > FOLDED).sum(-1).max())
    if not k:
        return Saddles(torch.zeros_like(fold, dtype=torch.bool), w[:0])
    far = share.topk(k).indices
    columns = (b.sqrt()[..., None] * w).take_along_dim(far[..., None], 1)  # of W B^1/2: a row of each, (B, k, T)
    rest = b.scatter(1, far, 0.0)
    if k > DENSE:
        ones = zip(*(t.split(1) for t in (fold, a, rest, w)), far, columns, strict=True)
        downs = [_down(system.factor_rows(*one[:4]), w.shape[1], *one[4:]) for one in ones]
        found = torch.tensor([down is not None for down in downs])
        return Saddles(found, torch.stack([w[0], *(down for down in downs if down is not None)])[1:])
    full = w.new_zeros(*w.shape, k)
    full.scatter_(1, far[:, None, None].expand(-1, 1, w.shape[-1], -1), columns.mT[:, None])
    solved = system.solve_rows(fold, a, rest, w, full)
    found, e = negative(full.flatten(1, 2).mT @ solved.flatten(1, 2))
    return Saddles(found, (solved[found] @ e[:, None, :, None])[..., 0])


def _down(solve: Solver, n_rows: int, far: Tensor, columns: Tensor) -> Tensor | None:
    """The direction of one problem, (p, T), if it is at a saddle; far (k,), columns (k, T)."""

    def lifted(x: Tensor) -> Tensor:  # A^-1 W B^1/2 x
        r = x.new_zeros(n_rows, columns.shape[1]).index_copy_(0, far, columns * x[:, None])
        return solve(r[None, ..., None])[0, ..., 0]

    mu, e = _largest(lambda x: (columns * lifted(x)[far]).sum(-1), len(far))
    return lifted(e) if mu > 1 + NEGATIVE else None


def _largest(product: Solver, k: int) -> tuple[float, Tensor]:
    """The largest eigenvalue of a symmetric matrix of the order k, and its eigenvector."""
    start = np.random.default_rng(0).standard_normal(k)
    operator = LinearOperator((k, k), matvec=lambda x: product(torch.from_numpy(x.ravel())).numpy(), dtype=float)
    value, vector = eigsh(operator, 1, which="LA", v0=start, tol=ACCURACY)
    return float(value[0]), torch.from_numpy(vector[:, 0])
