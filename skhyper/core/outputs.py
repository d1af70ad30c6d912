"""One decay for each output and no prior: outputs share nothing but X, so that each has a global alpha of its own.

An objective over all outputs would hide those of small scale behind those of large scale, and has several minima where
an output has; each output by itself is scanned and refined as the global alpha of a problem is.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper
from .problem import Problem
from .selection import choose

# Of one output's best response, its number and where to start (None: from a scan) -> its log alpha.
Tune = Callable[[BestResponse, int, Tensor | None], Tensor]


class Alphas(NamedTuple):
    """What each output's log alpha is, and which one its loss in each fold comes from."""

    log_alpha: Tensor  # (T,)
    by_fold: Tensor  # (K, T)
    n_own: int  # outputs with an alpha of their own


def outputs_apart(response: BestResponse) -> list[BestResponse] | None:
    """The best response of each output, where each has one decay and its problem can be had; else None."""
    n_outputs = response.problem.network.n_outputs
    if n_outputs == 1 or not one_decay_each(response.problem):
        return None
    parts = [response.take_output(t) for t in range(n_outputs)]
    found = [part for part in parts if part is not None]
    return found if len(found) == n_outputs else None


def one_decay_each(problem: Problem) -> bool:
    """Whether the decays are those of the outputs."""
    network, decays = problem.network, problem.decays
    return decays.plain is None and decays.restrict(network.n_coefficients).by_output(network.n_outputs)


def tune_outputs(parts: list[BestResponse], shared: Tensor, tune: Tune, competes: bool) -> Alphas:
    """The tuned log alpha of each output.

    Parameters
    ----------
    parts : list of T BestResponse
        Of one output each.
    shared : Tensor, shape ()
        The tuned global log alpha of all outputs.
    tune : callable
    competes : bool
        Whether an output keeps the shared alpha where its own has no clear gain by the paired rule. Its losses are then
        those of folds that did not see them; with one fold there are none such, and any gain is enough.
    """
    log_alpha, by_fold, n_own = [], [], 0
    for t, part in enumerate(parts):
        folds = torch.arange(part.problem.n_folds)
        own = tune(part, t, None)
        each = own.expand(len(folds))
        pays = True
        if competes and len(folds) > 1:
            each = torch.stack([tune(part.take_folds(folds != k), t, own) for k in folds])
            losses = torch.stack([_fold_losses(part, shared.expand(len(folds))), _fold_losses(part, each)])
            pays = choose(losses.numpy()) == 1
        log_alpha.append(own if pays else shared)
        by_fold.append(each if pays else shared.expand(len(folds)))
        n_own += pays
    return Alphas(torch.stack(log_alpha), torch.stack(by_fold, -1), n_own)


def _fold_losses(part: BestResponse, log_alpha: Tensor) -> Tensor:
    """Each fold's loss at its own log alpha, (K,)."""
    losses = []
    for k, x in enumerate(log_alpha):
        own = part.take_folds(torch.arange(len(log_alpha)) == k)
        losses.append(own.fold_losses(own.solve(Hyper(x, torch.full_like(x, 2.0)), torch.ones(1).to(x))))
    return torch.cat(losses)
