"""Where a score decides: of the points that the loss has led to, the one that a judge prefers.

The outer loss proposes: the points of a scan, and the minimum that was refined from them. A judge scores them, and
further points beside the best ones. Most such scores are step functions of log alpha with noise on their steps, so that
intervals are halved beside several of the best points, and of points with the same score the one with the lowest outer
loss is taken.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper
from .hyperoptim import Objective
from .loop import Journal, OutOfBudget
from .result import Snapshot, StopReason
from .scan import Points

# Hyperparameters (C,) and weights (C, K, n_weights) -> the score of each fold, (C, K): higher is better, nan is none.
# K may be less than the number of folds: the first ones then.
Judge = Callable[[Hyper, Tensor], Tensor]

TOL = 1e-4  # relative accuracy of the weights that are scored; those of the winner are as accurate as the stage's
ROUNDS = 6  # of looks between points
BEYOND = 1.5  # the step beyond an end that has the best score
TIE = 1e-9  # relative difference of equal scores
FEW = 5  # points of a scan of one fold that are scored on all folds


@dataclass(frozen=True)
class Care:
    """How closely a judge looks: intervals beside so many leaders are halved, down to this width in log alpha."""

    leaders: int
    finest: float


THOROUGH = Care(leaders=8, finest=0.05)  # one alpha, as a grid would be searched for it
COARSE = Care(leaders=2, finest=0.3)  # a row of the family, of which there are several


@dataclass(frozen=True)
class Court:
    """What it takes to judge a stage.

    Parameters
    ----------
    response : BestResponse
        Of all folds.
    judge : Judge
    objective : Objective
        The unit of the history.
    bounds : tuple of float
        Bounds of log alpha.
    s2 : Tensor, shape (K,)
        The family's constant in each fold.
    tol : float
        Relative accuracy of the winner's weights.
    care : Care
    """

    response: BestResponse
    judge: Judge
    objective: Objective
    bounds: tuple[float, float]
    s2: Tensor
    tol: float
    care: Care

    def prefer(self, points: Points, end: Snapshot, journal: Journal) -> Snapshot:
        """The end of a stage, or a point with a better score in its place.

        A spent budget or an interruption ends this with what was found by then, and is the snapshot's reason to stop.
        """
        field = self._scored(points.join(Points(end.hyper.log_alpha[None], end.w[None])), end)
        reason = None
        try:
            journal.budget.check()
            for _ in range(ROUNDS):
                log_alpha = field.beside(self.bounds, self.care)
                if not len(log_alpha):
                    break
                near = field.points.w[(log_alpha[:, None] - field.points.log_alpha).abs().argmin(1)]
                new = self._scored(Points(log_alpha, near), end)
                field = field.join(new)
                values = torch.tensor([self.objective.value(float(x), None) for x in new.loss], dtype=new.loss.dtype)
                journal.scanned(f"{end.name}, by score", log_alpha, new.loss, values, float(end.hyper.exponent))
        except OutOfBudget as stop:
            reason = stop.reason
        except KeyboardInterrupt:
            reason = StopReason.INTERRUPTED
        chosen = self._accurate(field, end)
        return chosen if reason is None else replace(chosen, stop_reason=reason)

    def _scored(self, points: Points, end: Snapshot) -> "_Field":
        """Points with weights that are accurate enough for a score, the scores, and the losses."""
        parts = []
        for part in torch.arange(len(points.log_alpha)).split(self.response.capacity):
            log_alpha, w = points.take(part)
            hyper = Hyper(log_alpha, end.hyper.exponent.expand(len(log_alpha)))
            parts.append(self.response.look(hyper, self.s2, w, TOL))
        w, losses = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
        scores = self.judge(Hyper(points.log_alpha, end.hyper.exponent.expand(len(w))), w)
        return _Field(Points(points.log_alpha, w), scores.mean(-1), losses.mean(-1))

    def _accurate(self, field: "_Field", end: Snapshot) -> Snapshot:
        """The best point with weights as accurate as the end's, unless its score is then no better than that."""
        best = field.order()[0]
        hyper = end.hyper._replace(log_alpha=field.points.log_alpha[best])
        (own,) = self.judge(Hyper(end.hyper.log_alpha[None], end.hyper.exponent[None]), end.w[None]).mean(-1)
        if not _better(float(field.score[best]), float(own)):
            return end
        point = self.response.evaluate(hyper, self.s2, field.points.w[best], self.tol)
        (score,) = self.judge(Hyper(hyper.log_alpha[None], hyper.exponent[None]), point.w[None]).mean(-1)
        if not _better(float(score), float(own)):
            return end
        reason = StopReason.AT_BOUND if float(hyper.log_alpha) in self.bounds else StopReason.SCANNED
        found = replace(end, hyper=hyper, w=point.w, fold_losses=point.fold_losses, error=point.error)
        return replace(found, stop_reason=reason)


class _Field(NamedTuple):
    """Points that were scored: mean scores and losses over folds."""

    points: Points
    score: Tensor  # (P,)
    loss: Tensor  # (P,)

    def join(self, other: "_Field") -> "_Field":
        """Those of both, log alpha ascending."""
        points, score, loss = self.points.join(other.points), *map(torch.cat, zip(self[1:], other[1:], strict=True))
        order = points.log_alpha.argsort()
        return _Field(points.take(order), score[order], loss[order])

    def order(self) -> list[int]:
        """Best score first; of equal scores the lowest loss."""
        keys = [(_rounded(float(s)), float(v.nan_to_num(math.inf))) for s, v in zip(self.score, self.loss, strict=True)]
        return sorted(range(len(keys)), key=lambda i: (-keys[i][0], keys[i][1]))

    def beside(self, bounds: tuple[float, float], care: Care) -> Tensor:
        """Where to look next: halfway to the neighbours of the leaders, and beyond an end that leads."""
        x = self.points.log_alpha.sort().values
        leaders = torch.stack([self.points.log_alpha[i] for i in self.order()[: care.leaders]])
        at = torch.searchsorted(x, leaders)
        left, right = at[at > 0] - 1, at[at < len(x) - 1]
        lower = torch.cat([left, right]).unique()
        halves = (x[lower] + x[lower + 1]) / 2
        new = [halves[x[lower + 1] - x[lower] > care.finest]]
        if int(at[0]) == 0:
            new.append((x[:1] - BEYOND).clamp(min=bounds[0]))
        if int(at[0]) == len(x) - 1:
            new.append((x[-1:] + BEYOND).clamp(max=bounds[1]))
        found = torch.cat(new).unique()
        return found[~torch.isin(found, x)]


def _rounded(score: float) -> float:
    """The score without its rounding error; -inf where there is none."""
    if not math.isfinite(score):
        return -math.inf
    return float(f"{score:.{-round(math.log10(TIE))}g}")


def _better(score: float, other: float) -> bool:
    """Whether a score is higher by more than its rounding error."""
    return _rounded(score) > _rounded(other)


def leading(points: Points, judge: Judge, exponent: Tensor, n: int = FEW) -> Points:
    """The points of a scan of the first fold that have the best scores there, with weights for every other fold too."""
    scores = judge(Hyper(points.log_alpha, exponent.expand(len(points.log_alpha))), points.w).mean(-1)
    best = scores.nan_to_num(-math.inf, math.inf, -math.inf).argsort(descending=True, stable=True)[:n]
    return points.take(best.sort().values)
