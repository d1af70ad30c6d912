"""Which rows a member trains on, which it is stopped by, and how a minibatch meets the draws."""

from collections.abc import Iterator
from enum import Enum
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .rows import Data

# Rows are dealt to at most so many folds, unless next to none or next to all are held out.
MOST_FOLDS = 100
# Copies that are dealt one by one; of more they are dealt in packs.
MOST_COPIES = 10**8


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


class MembersRows(NamedTuple):
    """The rows that each member trains on, and those that it holds out."""

    data: Data  # the rows that the numbers are of
    train: Tensor  # (M, n_train)
    held: Tensor | None  # (M, n_val)
    n_judges: float  # rows that a factor of sigma is fitted to, as many as weigh as much if they are weighted


def effective(weight: Tensor) -> float:
    """How many rows of equal weight say as much as these."""
    return float(weight.sum() ** 2 / weight.square().sum())


def members_folds(n_members: int, share: float, n_free: int) -> tuple[Tensor, int]:
    """The folds that each member holds out, (M, a few), and how many there are: together `share` of them.

    A member's folds follow those of the member before.
    """
    ratio = Fraction(share).limit_denominator(max(2, min(MOST_FOLDS, n_free)))
    own, n_folds = ratio.numerator, ratio.denominator
    if n_folds == 1:  # next to nothing, or next to everything
        n_folds = max(2, min(n_free, round(1 / min(share, 1 - share))))
        own = 1 if share < 0.5 else n_folds - 1
    return torch.arange(n_members * own).reshape(n_members, own) % n_folds, n_folds


def hold_out(
    n_members: int, share: float, strata: Tensor, keep: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Training rows (M, n_train) and held-out rows (M, n_val) of each member.

    Rows are shuffled, ordered by stratum, and dealt to folds; a member holds out one fold, or as many as make up its
    share, the next member the next. All folds are cut to the same size.

    Parameters
    ----------
    n_members : int
    share : float
        In (0, 1).
    strata : Tensor of shape (n,)
        Classes, or the target itself: held-out rows are spread evenly over its order.
    keep : Tensor of bool of shape (n,)
        Rows that are never held out; at least two others must be left.
    generator : torch.Generator
    """
    n = len(strata)
    order = torch.randperm(n, generator=generator)
    order = order[torch.argsort(strata[order], stable=True)]
    free = order[~keep[order]]
    own, n_folds = members_folds(n_members, share, len(free))
    n_val = len(free) // n_folds
    columns = free[: n_val * n_folds].reshape(n_val, n_folds)
    # Within each run of n_folds neighbours the fold of a row is random.
    shuffle = torch.rand(columns.shape, generator=generator).argsort(1)
    held = columns.gather(1, shuffle).T[own].flatten(1)  # (M, folds of each, n_val)
    mask = torch.ones(n_members, n, dtype=torch.bool)
    mask.scatter_(1, held, False)
    return torch.arange(n).expand(n_members, n)[mask].reshape(n_members, n - held.shape[1]), held


def hold_out_copies(n_members: int, share: float, data: Data, keep: Tensor, generator: torch.Generator) -> MembersRows:
    """The same where rows are distinct and their weights count copies: it is copies that are dealt to folds.

    Each member has all distinct rows twice, with the weight that it trains on and the weight that it holds out. What a
    weight has beyond a whole number is trained on, and so is one copy of the rows to keep.
    """
    unit = max(1.0, float(data.weight.sum()) / MOST_COPIES)
    left = ((data.weight / unit).floor() - keep.to(data.weight)).clamp_min(0.0).long().numpy()
    own, n_folds = members_folds(n_members, share, int(left.sum()))
    random = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    folds = []
    for k in range(n_folds):  # all of one size: none is empty
        folds.append(random.multivariate_hypergeometric(left, left.sum() // (n_folds - k), method="marginals"))
        left = left - folds[-1]
    dealt = unit * torch.from_numpy(np.stack(folds)).to(data.weight)  # (n_folds, n)
    held = dealt[own].sum(1)
    weight = torch.stack([data.weight - held, held], 1)  # (M, 2, n)
    numbers = torch.arange(weight.numel()).reshape(weight.shape)
    copies = 2 * n_members
    rows = Data(data.x.repeat(copies, 1), data.y.repeat(copies, 1), weight.flatten())
    return MembersRows(rows, numbers[:, 0], numbers[:, 1], float(dealt[own.unique()].sum()))


def minibatches(rows: Tensor, batch: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless minibatches, (M, batch): each member goes through its rows in an order of its own, epoch after epoch."""
    m, n = rows.shape
    device = rows.device
    while True:
        order = torch.rand(m, n, generator=generator, device=device).argsort(1)
        shuffled = rows.gather(1, order)
        for start in range(0, n - batch + 1, batch):
            yield shuffled[:, start : start + batch]
