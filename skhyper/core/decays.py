"""L2 decays: which weights share one, and the family that ties them to the weights.

The penalty of every problem is 1/2 sum_j a_j w_j^2. A granularity is an index map weight -> decay; decay g has p_g
weights. With m_g the mean of w^2 over them and s^2 a constant of the fold, the family is

    a_g = alpha exp(z_g) (m_g / s^2 + eps)^((q - 2) / 2)

(q = 2: equal decays; q = 1: Lasso, or group Lasso; q < 1: sparser). Weights that solve the problem under their own
decays are stationary points of the loss plus

    P(w) = (alpha s^2 / q) sum_g p_g exp(z_g) (m_g / s^2 + eps)^(q / 2),    dP/dw_j = a_g(j) w_j.

Shapes: weights (..., n_weights), decays (..., n_groups), s^2 (...,) with the same leading axes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

# Smoothing of the family, in units of s^2.
EPS = 1e-6


class Hyper(NamedTuple):
    """The hyperparameters that folds share; a leading axis carries several candidates.

    `offsets` are the free residuals z_g around the family; None stands for zeros.
    """

    log_alpha: Tensor  # ()
    exponent: Tensor  # ()
    offsets: Tensor | None = None  # (n_groups,)


@dataclass(frozen=True)
class Decays:
    """The index map weight -> decay.

    Parameters
    ----------
    index : Tensor of int64, shape (n_weights,)
        The decay of each weight; -1 for weights without decay.
    plain : Tensor of bool, shape (n_groups,), optional
        Decays that stay at alpha whatever the exponent (an intercept that its estimator penalises).
    eps : float
        Smoothing of the family, in units of s^2.
    """

    index: Tensor
    plain: Tensor | None = None
    eps: float = EPS

    @cached_property
    def n_groups(self) -> int:
        """Number of decays."""
        return int(self.index.max()) + 1

    @cached_property
    def decayed(self) -> Tensor:
        """Positions of the weights that have a decay."""
        return (self.index >= 0).nonzero()[:, 0]

    @cached_property
    def groups(self) -> Tensor:
        """The decay of each decayed weight."""
        return self.index[self.decayed]

    @cached_property
    def sizes(self) -> Tensor:
        """p_g, the number of weights of each decay."""
        return torch.bincount(self.groups, minlength=self.n_groups).to(torch.get_default_dtype())

    @cached_property
    def single(self) -> bool:
        """Whether no two weights share a decay."""
        return len(self.groups) == self.n_groups

    def group_sums(self, v: Tensor) -> Tensor:
        """Sums over the weights of each decay: (..., n_weights) -> (..., n_groups)."""
        v = v[..., self.decayed]
        sums = v.new_zeros(*v.shape[:-1], self.n_groups)
        return sums.index_add_(-1, self.groups, v)

    def spread(self, a: Tensor) -> Tensor:
        """Decays -> a decay for each weight, 0 where there is none: (..., n_groups) -> (..., n_weights)."""
        out = a.new_zeros(*a.shape[:-1], len(self.index))
        out[..., self.decayed] = a[..., self.groups]
        return out

    def scale(self, w: Tensor) -> Tensor:
        """s^2: the mean of w^2 over the decayed weights, (..., n_weights) -> (...,)."""
        return (w[..., self.decayed] ** 2).mean(-1)

    def relative(self, w: Tensor, s2: Tensor) -> Tensor:
        """m_g / s^2 + eps, and 1 where the decay is plain: (..., n_groups)."""
        m = self.group_sums(w**2) / self.sizes.to(w)
        ratio = m / s2[..., None] + self.eps
        return ratio if self.plain is None else torch.where(self.plain, 1.0, ratio)

    def log_decays(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """log a_g at the weights w: (..., n_groups)."""
        shift = hyper.log_alpha[..., None] if hyper.offsets is None else hyper.log_alpha[..., None] + hyper.offsets
        return shift + (hyper.exponent[..., None] - 2) / 2 * self.relative(w, s2).log()

    def penalty(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """P(w), whose gradient is a * w: (...,)."""
        q = hyper.exponent[..., None]
        r = self.relative(w, s2)
        terms = self.sizes.to(w) * s2[..., None] / q * r ** (q / 2)
        if self.plain is not None:
            terms = torch.where(self.plain, self.group_sums(w**2) / 2, terms)
        if hyper.offsets is not None:
            terms = terms * hyper.offsets.exp()
        return hyper.log_alpha.exp() * terms.sum(-1)
