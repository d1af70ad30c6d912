"""Which rows a member trains on, which it is stopped by, and how a minibatch meets the draws."""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor


class Dealing(Enum):
    """How draws and rows of a minibatch meet."""

    SHARED = "shared"  # every draw sees the whole batch
    DEALT = "dealt"  # the batch is dealt out over the draws
    ROW = "row"  # every row has a draw of its own


class Groups(NamedTuple):
    """G groups of R rows; `repeated` where each of G draws sees the same rows."""

    n_draws: int
    n_rows: int
    repeated: bool


def arrange(dealing: Dealing, batch: int, n_draws: int) -> Groups:
    """The groups of a minibatch; dealing out leaves over what does not fill every draw's hand."""
    if dealing is Dealing.SHARED:
        return Groups(n_draws, batch, True)
    if dealing is Dealing.ROW:
        return Groups(batch, 1, False)
    n_draws = min(n_draws, batch)
    return Groups(n_draws, batch // n_draws, False)


def hold_out(
    n_members: int, share: float, strata: Tensor, keep: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Training rows (M, n_train) and held-out rows (M, n_val) of each member.

    Rows are shuffled, ordered by stratum, and dealt to round(1 / share) folds; a member holds out one fold, the next
    member the next. All folds are cut to the same size.

    Parameters
    ----------
    n_members : int
    share : float
        In (0, 1).
    strata : Tensor of shape (n,)
        Classes, or the target itself: held-out rows are spread evenly over its order.
    keep : Tensor of bool of shape (n,)
        Rows that are never held out.
    generator : torch.Generator
    """
    n = len(strata)
    order = torch.randperm(n, generator=generator)
    order = order[torch.argsort(strata[order], stable=True)]
    free = order[~keep[order]]
    n_folds = max(2, round(1 / share))
    n_val = len(free) // n_folds
    columns = free[: n_val * n_folds].reshape(n_val, n_folds)
    # Within each run of n_folds neighbours the fold of a row is random.
    shuffle = torch.rand(columns.shape, generator=generator).argsort(1)
    folds = columns.gather(1, shuffle).T  # (n_folds, n_val)
    held = torch.stack([folds[m % n_folds] for m in range(n_members)])
    mask = torch.ones(n_members, n, dtype=torch.bool)
    mask.scatter_(1, held, False)
    return torch.arange(n).expand(n_members, n)[mask].reshape(n_members, n - n_val), held


def minibatches(rows: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless minibatches, (M, batch): each member goes through its rows in an order of its own, epoch after epoch."""
    m, n = rows.shape
    device = rows.device
    while True:
        order = torch.rand(m, n, generator=generator, device=device).argsort(1)
        shuffled = rows.gather(1, order)
        for start in range(0, n - batch + 1, batch):
            yield shuffled[:, start : start + batch]
