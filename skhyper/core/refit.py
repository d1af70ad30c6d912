"""The final fit on all rows, and the average of several snapshots.

Hyperparameters are kept as they were tuned; weights and the family's decays are found anew.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import Algorithm, BestResponse
from .decays import Hyper
from .inner import InnerObjective
from .problem import Problem
from .result import Result, Snapshot
from .selection import confidence, stacking_weights
from .wide import unit_scale
from .zeros import FINE_EPS, exact_zeros

AVERAGE = "average over exponents"

# Relative accuracy of the weights on the way down through the exponents, and of the members of an average.
FINAL_TOL, DEAR_FINAL_TOL = 1e-10, 1e-8
WAY_TOL = 1e-3
AVERAGE_TOL = 1e-6


def average(problem: Problem, result: Result) -> Result:
    """The result with one more snapshot: the average of the others that predicts held-out rows best.

    Its weights over snapshots minimise the squared error of the averaged held-out predictions (`stacking_weights`),
    and are then drawn back to the tuned global alpha as far as the gain over it is not certain (`confidence`). Outputs
    of a linear network are linear in its weights, so that averaging one averages the other. The hyperparameters it
    reports are those of its best member.
    """
    members = [s for s in result.snapshots if bool(torch.isfinite(s.w).all())]
    held_out = problem.validation > 0
    c = problem.validation[held_out]
    y = problem.y.expand(problem.n_folds, -1, -1)[held_out]
    predictions = torch.stack([problem.outputs(s.w)[held_out] for s in members])
    weights = stacking_weights(predictions.numpy(), y.numpy(), c.numpy())
    stacked = torch.stack([s.w for s in members])
    w = torch.einsum("m,mkj->kj", torch.from_numpy(weights), stacked)
    weights *= confidence((members[0].fold_losses - problem.fold_losses(w)).numpy())
    weights[0] += 1 - weights.sum()
    w = torch.einsum("m,mkj->kj", torch.from_numpy(weights), stacked)
    used = [s for s, weight in zip(members, weights, strict=True) if weight > 0]
    best = min(used, key=lambda s: float(s.fold_losses.mean()))
    count = sum(s.n_hyperparameters for s in used) + len(used) - 1
    mixture = tuple(float(weights[members.index(s)]) if s in members else 0.0 for s in result.snapshots)
    mean = replace(
        best,
        name=AVERAGE,
        w=w,
        fold_losses=problem.fold_losses(w),
        n_hyperparameters=count,
        mixture=mixture,
    )
    return replace(result, snapshots=(*result.snapshots, mean))


class Fitted(NamedTuple):
    """A final fit on all rows."""

    w: Tensor  # (1, n_weights)
    decays: Tensor  # (n_groups,), infinite where all weights of a decay are exact zeros


def refit(problem: Problem, algorithm: Algorithm, result: Result, index: int, tol: float | None = None) -> Fitted:
    """Weights on all rows (a problem of one fold) at the hyperparameters of a snapshot.

    The hyperparameters are kept; the family's decays follow the new weights, and its constant s^2 the global solution
    on these rows. Weights that vanish at q <= 1 are exact zeros, except in an average.
    """
    assert isinstance(result.response, BestResponse)
    response = result.response.all_rows(problem) or algorithm.bind(problem)
    tol = tol or (FINAL_TOL if response.scans else DEAR_FINAL_TOL)
    start = response.solve(result.unit.hyper, torch.ones(1, dtype=torch.float64), None, tol)
    s2 = unit_scale(result.response.problem, result.unit, start)
    chosen = result.snapshots[index]
    if chosen.mixture:
        return _refit_average(response, result, chosen, s2, start)
    w = start if chosen is result.unit else _refit_one(response, chosen, s2, start, tol)
    family = problem.decays if chosen.hyper.exponent > 1 else replace(problem.decays, eps=FINE_EPS)
    decays = family.log_decays(w, chosen.hyper, s2).exp()
    vanished = (problem.decays.group_sums(w**2) == 0) & (chosen.hyper.exponent < 2)
    return Fitted(w, torch.where(vanished, torch.inf, decays)[0])


def _refit_one(response: BestResponse, chosen: Snapshot, s2: Tensor, start: Tensor, tol: float) -> Tensor:
    """Below q = 1 there are many minima: the lower of two, from the ridge solution and from the folds' mean weights.

    The folds came down along their own scans. From the ridge solution alone, at one alpha for all exponents, weights
    that matter may be lost on the way where columns have different units or are nearly the same.
    """
    hyper = chosen.hyper
    w = descend(response, hyper, s2, start, tol)
    if float(hyper.exponent) < 1 and chosen.w.shape[-1] == w.shape[-1]:
        other = response.solve(hyper, s2, chosen.w.mean(0, keepdim=True), tol)
        objective = InnerObjective(response.problem, hyper, s2)
        w = min(w, other, key=lambda weights: float(objective.at(response.problem.outputs(weights), weights).value))
    return exact_zeros(response, hyper, s2, w, tol) if float(hyper.exponent) <= 1 else w


def _refit_average(response: BestResponse, result: Result, chosen: Snapshot, s2: Tensor, start: Tensor) -> Fitted:
    """Each member from the mean of its folds' weights, as many at once as fit; decays are those of the best member.

    Folds of wide data agree too little for that: below q = 1 their mean may lead to a bad minimum, so that members come
    down through the exponents.
    """
    decays, total = response.problem.decays, chosen.mixture[0] * start
    log_decays = decays.log_decays(start, chosen.hyper, s2)
    family = zip(result.snapshots[1:], chosen.mixture[1:], strict=False)
    members = [(member, weight) for member, weight in family if weight > 0]
    for i in range(0, len(members), response.capacity):
        part, weights = zip(*members[i : i + response.capacity], strict=True)
        if response.problem.wide:
            w = torch.stack([descend(response, member.hyper, s2, start, AVERAGE_TOL) for member in part])
        else:
            log_alpha, exponent = (torch.stack(t) for t in zip(*(member.hyper[:2] for member in part), strict=True))
            at_folds = torch.stack([member.w.mean(0, keepdim=True) for member in part])
            w = response.solve(Hyper(log_alpha, exponent), s2, at_folds, AVERAGE_TOL)
        total = total + torch.einsum("m,mkj->kj", w.new_tensor(weights), w)
        for member, own in zip(part, w, strict=True):
            if member.hyper is chosen.hyper:
                log_decays = decays.log_decays(own, chosen.hyper, s2)
    return Fitted(total, log_decays[0].exp())


def descend(response: BestResponse, hyper: Hyper, s2: Tensor, w: Tensor, tol: float) -> Tensor:
    """Solve from the ridge solution down through the exponents: for q < 1 there are many minima."""
    convex = float(hyper.exponent) >= 1
    for q in () if convex and not response.scans else (1.5, 1.0):
        if float(hyper.exponent) < q:
            w = response.solve(hyper._replace(exponent=torch.tensor(q, dtype=w.dtype)), s2, w, WAY_TOL)
    return response.solve(hyper, s2, w, tol)
