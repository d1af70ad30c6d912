"""LU factors of a batch of square matrices, one matrix at a time, with nan for what has no solution.

torch's own batched factorisation is not used: some settings of its threads make it wrong without a word (seen with
torch 2.13 and matrices of some hundred columns).
"""

from typing import NamedTuple

import torch
from torch import Tensor


class LU(NamedTuple):
    """Factors of matrices, (..., n, n)."""

    factor: Tensor
    pivots: Tensor
    regular: Tensor  # bool (...): finite and not singular

    def solve(self, r: Tensor) -> Tensor:
        """matrix^-1 r, nan where that does not exist: (..., n, m) -> the same."""
        x = torch.linalg.lu_solve(self.factor, self.pivots, r)
        return torch.where(self.regular[..., None, None], x, torch.nan)


def lu_factor(matrix: Tensor) -> LU:
    """Factorise: (..., n, n)."""
    flat = matrix.reshape(-1, *matrix.shape[-2:])
    regular = flat.isfinite().flatten(1).all(-1)
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    factor, pivots = torch.empty_like(flat), torch.ones(flat.shape[:-1], dtype=torch.int32)
    for i, one in enumerate(flat):
        factor[i], pivots[i], info = torch.linalg.lu_factor_ex(one if regular[i] else identity)
        regular[i] &= info == 0
    lead = matrix.shape[:-2]
    return LU(factor.reshape(matrix.shape), pivots.reshape(matrix.shape[:-1]), regular.reshape(lead))
