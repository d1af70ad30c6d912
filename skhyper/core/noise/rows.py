"""The rows of a fit, before any training: what weights mean, and when data are small."""

from typing import NamedTuple

import torch
from torch import Tensor


class Data(NamedTuple):
    """Rows as they come: inputs (n, p), targets (n, T), weights (n,)."""

    x: Tensor
    y: Tensor
    weight: Tensor

    def distinct(self) -> "Data":
        """Each row once, sorted, its weights added up: repeated rows and integer weights become the same numbers."""
        rows, index = torch.unique(torch.cat([self.x, self.y], 1), dim=0, return_inverse=True)
        order = torch.argsort(self.weight, stable=True)  # sums do not depend on the order of rows
        weight = self.weight.new_zeros(len(rows)).index_add_(0, index[order], self.weight[order])
        return Data(rows[:, : self.x.shape[1]], rows[:, self.x.shape[1] :], weight)

    def compact(self, limit: int) -> tuple["Data", bool]:
        """Distinct rows and True if there are at most `limit` of them, else the rows as they are and False."""
        if len(self.x) > 10 * limit and len(Data(*(v[: 10 * limit] for v in self)).distinct().x) > limit:
            return self, False
        distinct = self.distinct()
        return (distinct, True) if len(distinct.x) <= limit else (self, False)
