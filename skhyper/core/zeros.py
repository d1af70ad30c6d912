"""Exact zeros at q <= 1: from the smoothed solution to one that meets the optimality conditions of the family itself.

At q <= 1 the family without smoothing (eps = 0) has a kink at zero. Weights below a threshold leave the support, the
problem is solved on the support with vanishing eps, and at q = 1 every group g that is zero must satisfy

    ||gradient of the loss with respect to w_g|| <= alpha exp(z_g) s sqrt(p_g);

groups that do not are taken back. For q < 1 zero is always a local minimum of a group, and nothing comes back.
"""

from dataclasses import replace

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper

FINE_EPS = 1e-14
DROP = 1e-4  # groups with m_g / s^2 below leave the support of the smoothed solution,
FINE_DROP = 1e-10  # and of the fine one
PINNED = 40.0  # offset of the log-decays that hold a group at zero
MAX_ROUNDS = 30


def exact_zeros(response: BestResponse, hyper: Hyper, s2: Tensor, w: Tensor, tol: float) -> Tensor:
    """The solution without smoothing next to w, of one fold: (1, n_weights)."""
    decays = response.problem.decays
    fine = replace(decays, eps=FINE_EPS)
    response = replace(response, problem=response.problem.with_decays(fine))
    offsets = torch.zeros(decays.n_groups, dtype=w.dtype) if hyper.offsets is None else hyper.offsets
    level = hyper.log_alpha.exp() * offsets.exp() * (s2 * decays.sizes.to(w)).sqrt()
    support = (fine.relative(w, s2) > DROP)[0]
    for _ in range(MAX_ROUNDS):
        pinned = torch.where(support, offsets, offsets + PINNED)
        w = response.solve(hyper._replace(offsets=pinned), s2, w, tol)
        kept = support & (fine.relative(w, s2) > FINE_DROP)[0]
        w = torch.where(fine.spread(kept.to(w)) + (fine.index < 0) > 0, w, 0.0)
        slope = response.problem.loss_gradient(w)
        violated = ~kept & (fine.group_sums(slope**2).sqrt()[0] > level * (1 + 1e-7))
        if fine.plain is not None:
            violated |= fine.plain & ~kept
        if float(hyper.exponent) < 1:
            violated &= False
        if bool((kept == support).all()) and not bool(violated.any()):
            break
        back = fine.spread(violated.to(w)) * slope
        w = w - back * (0.1 * s2.sqrt() / back.abs().max().clamp(min=1e-300))
        support = kept | violated
    return w
