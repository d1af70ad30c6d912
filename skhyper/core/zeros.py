"""Exact zeros at q <= 1: from the smoothed solution to one that meets the optimality conditions of the family itself.

At q <= 1 the family without smoothing (eps = 0) has a kink at zero. Weights below a threshold leave the support, the
problem is solved on the support with vanishing eps, and at q = 1 every group g that is zero must satisfy

    ||gradient of the loss with respect to w_g|| <= alpha exp(z_g) s sqrt(p_g);

groups that do not are taken back. For q < 1 zero is always a local minimum of a group, and nothing comes back.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Decays, Hyper

FINE_EPS = 1e-14
DROP = 1e-4  # groups with m_g / s^2 below leave the support of the smoothed solution,
FINE_DROP = 1e-10  # and of the fine one
PINNED = 1e12  # decay of a group that is held at zero, in units of the data's curvature
SLACK = 1e-7  # of the optimality condition, relative
RETURN = 0.1  # size of a group that comes back, in units of s
SLACK = 1e-7  # relative, of the optimality conditions
KICK = 1e-3  # length of the step with which groups are taken back, in units of s
MAX_ROUNDS = 100


def exact_zeros(response: BestResponse, hyper: Hyper, s2: Tensor, w: Tensor, tol: float) -> Tensor:
    """The solution without smoothing next to w, of one fold: (1, n_weights)."""
    problem = response.problem
    fine = replace(problem.decays, eps=FINE_EPS)
    plain = torch.zeros(fine.n_groups, dtype=torch.bool) if fine.plain is None else fine.plain
    offsets = torch.zeros(fine.n_groups, dtype=w.dtype) if hyper.offsets is None else hyper.offsets
    level = hyper.log_alpha.exp() * offsets.exp() * (s2 * fine.sizes.to(w)).sqrt()
    pin = math.log(PINNED * problem.curvature()) - hyper.log_alpha
    support = plain | (fine.relative(w, s2) > DROP)[0]
    for _ in range(MAX_ROUNDS):
        # A group off the support has a plain, huge decay: it stays at the zero that it starts from.
        held = hyper._replace(offsets=torch.where(support, offsets, pin))
        on_support = problem.with_decays(replace(fine, plain=plain | ~support))
        w = replace(response, problem=on_support).solve(held, s2, _keep(fine, support, w), tol)
        kept = plain | (support & (fine.relative(w, s2) > FINE_DROP)[0])
        w = _keep(fine, kept, w)
        slope = problem.loss_gradient(w)
        steep = fine.group_sums(slope**2).sqrt()[0] > level * (1 + SLACK)
        violated = ~kept & steep & (hyper.exponent == 1)
        if bool((kept == support).all()) and not bool(violated.any()):
            break
        back = fine.spread(violated.to(w)) * slope
        w = w - back * (RETURN * s2.sqrt() / back.abs().max().clamp(min=torch.finfo(w.dtype).tiny))
        support = kept | violated
    return w


def _keep(decays: Decays, support: Tensor, w: Tensor) -> Tensor:
    """The weights with those off the support at zero; weights without decay stay."""
    return torch.where((decays.spread(support.to(w)) > 0) | (decays.index < 0), w, 0.0)
