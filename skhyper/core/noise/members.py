"""Where a run stands, member by member: parameters, moments, averages, and what was best so far."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .layout import Layout

# A member that diverges goes on from its best weights with its learning rate times this.
ROLLBACK_RATE = 0.3


def pooled(losses: Tensor, n_fits: int) -> Tensor:
    """For each member the mean over those of its fit whose loss is a number, (M,)."""
    return losses.unflatten(0, (n_fits, -1)).nanmean(1).repeat_interleave(len(losses) // n_fits)


@dataclass
class Walk:
    """Parameters, the optimiser's moments, and each member's best so far."""

    flat: Tensor
    parts: dict[str, Tensor]  # its blocks, as views
    first: Tensor
    second: Tensor
    done: int
    average: Tensor  # of the parameters
    best: Tensor
    best_loss: Tensor  # (M,), of all members of the fit
    factor: Tensor  # (M, 1), of the learning rate
    total: Tensor  # (M,), losses since the last evaluation
    n_rollbacks: Tensor  # (M,)
    held_gradient: Tensor  # of the hyperparameters, when held-out rows were last looked at
    best_step: int = 0  # of any fit, the latest

    @classmethod
    def begin(cls, start: Tensor, layout: Layout, optimizer: tuple[Tensor, Tensor, int] | None) -> "Walk":
        """At `start`, with moments of an earlier run or none."""
        first, second, done = optimizer or (torch.zeros_like(start), torch.zeros_like(start), 0)
        first, second = first.to(start), second.to(start)
        m = len(start)
        losses, factor = start.new_full((m,), torch.inf), start.new_ones(m, 1)
        flat = start.clone()
        count = torch.zeros(m, dtype=torch.int64, device=start.device)
        total, held = start.new_zeros(m), start.new_zeros(m, int(layout.spread("held").sum()))
        average, best = start.clone(), start.clone()
        parts = layout.split(flat)
        return cls(flat, parts, first, second, done, average, best, losses, factor, total, count, held)

    def settle(self, held: Tensor, n_fits: int, judged: bool, step: int) -> None:
        """Keep what is best; members whose loss is not finite go back to it, more slowly from then on."""
        sound = torch.isfinite(self.total) & torch.isfinite(self.flat).all(1)
        if judged:
            sound &= torch.isfinite(held)
        common = pooled(torch.where(sound, held, torch.nan), n_fits)
        better = sound & (common < self.best_loss) if judged else sound
        self.best[better] = self.average[better]
        self.best_loss[better] = common[better]
        if bool(better.any()):
            self.best_step = step
        self.total.zero_()
        lost = ~sound
        if bool(lost.any()):
            self.n_rollbacks += lost
            self.flat[lost] = self.average[lost] = self.best[lost]
            self.first[lost], self.second[lost] = 0.0, 0.0
            self.factor[lost] *= ROLLBACK_RATE

    def go_back(self) -> None:
        """To the best weights."""
        self.flat.copy_(self.best)
        self.average.copy_(self.best)
