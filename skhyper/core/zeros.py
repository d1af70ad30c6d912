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

FINE_EPS = 1e-20
DROP = 1e-4  # groups with m_g / s^2 below leave the support of the smoothed solution at q = 1,
FINE_DROP = 1e-10  # and of the fine one
PINNED = 1e12  # decay of a group that is held at zero, in units of the loss's curvature
SLACK = 1e-7  # relative, of the optimality conditions
KICK = 1e-3  # length of the step with which groups are taken back, in units of s
MAX_ROUNDS = 100


def exact_zeros(response: BestResponse, hyper: Hyper, s2: Tensor, w: Tensor, tol: float) -> Tensor:
    """The solution without smoothing next to w, of one fold: (1, n_weights).

    A group that was taken back may leave again, but does not come back twice, so that the search ends where columns
    are copies of each other.
    """
    fine = replace(response.problem.decays, eps=FINE_EPS)
    plain = torch.zeros(fine.n_groups, dtype=torch.bool) if fine.plain is None else fine.plain
    support, returned = plain | _supported(response, fine, hyper, s2, w), plain
    for _ in range(MAX_ROUNDS):
        w = _solve(response, fine, hyper, s2, w, tol, support)
        kept = plain | (support & (fine.relative(w, s2) > FINE_DROP)[0])
        w = _keep(fine, kept, w)
        if bool((kept == support).all()):
            slope = response.problem.loss_gradient(w)
            back = _violated(fine, hyper, s2, w, slope) & ~support & ~returned
            if float(hyper.exponent) < 1 or not bool(back.any()):
                return w
            direction = fine.spread(back.to(w)) * slope
            w = w - direction * (KICK * s2.sqrt() / direction.abs().max())
            kept, returned = kept | back, returned | back
        support = kept
    w = _solve(response, fine, hyper, s2, w, tol, support)
    return _keep(fine, plain | (support & (fine.relative(w, s2) > FINE_DROP)[0]), w)


def _supported(response: BestResponse, decays: Decays, hyper: Hyper, s2: Tensor, w: Tensor) -> Tensor:
    """Groups whose weights may be nonzero without smoothing.

    At q = 1 those that are not small. Below, a nonzero minimum needs a loss that is more curved than the penalty is
    concave, (1 - q) a_g; where a few weights are far larger than others, small ones can be such minima.
    """
    if float(hyper.exponent) == 1:
        return (decays.relative(w, s2) > DROP)[0]
    curvature = torch.zeros_like(w)
    curvature[..., : response.curvatures.shape[-1]] = response.curvatures
    decay = decays.log_decays(w, hyper, s2).exp()
    return ((1 - hyper.exponent) * decay <= decays.group_sums(curvature) / decays.sizes.to(w))[0]


def _solve(
    response: BestResponse, decays: Decays, hyper: Hyper, s2: Tensor, w: Tensor, tol: float, support: Tensor
) -> Tensor:
    """The solution on the support. A group off it has a plain, huge decay: it stays at the zero that it starts from."""
    problem = response.problem
    offsets = torch.zeros(decays.n_groups, dtype=w.dtype) if hyper.offsets is None else hyper.offsets
    pin = math.log(PINNED * problem.loss_curvature()) - hyper.log_alpha
    plain = ~support if decays.plain is None else decays.plain | ~support
    on_support = problem.with_decays(replace(decays, plain=plain))
    held = hyper._replace(offsets=torch.where(support, offsets, pin))
    return replace(response, problem=on_support).solve(held, s2, _keep(decays, support, w), tol)


def _violated(decays: Decays, hyper: Hyper, s2: Tensor, w: Tensor, slope: Tensor) -> Tensor:
    """Groups whose slope at zero exceeds what their decay holds, by more than the slopes on the support are off."""
    offsets = 0.0 if hyper.offsets is None else hyper.offsets
    level = (hyper.log_alpha + offsets).exp() * (s2 * decays.sizes.to(w)).sqrt()
    pull = decays.spread(decays.log_decays(w, hyper, s2).exp()) * w
    off = torch.where(w != 0, slope + pull, 0.0)[..., decays.decayed].abs().max()
    return decays.group_sums(slope**2).sqrt()[0] > level * (1 + SLACK) + 10 * off


def _keep(decays: Decays, support: Tensor, w: Tensor) -> Tensor:
    """The weights with those off the support at zero; weights without decay stay."""
    return torch.where((decays.spread(support.to(w)) > 0) | (decays.index < 0), w, 0.0)
