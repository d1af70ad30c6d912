"""L2 decays: which weights share one, and the family that ties them to the weights.

The penalty of every problem is 1/2 sum_j a_j w_j^2. A granularity is an index map weight -> decay; decay g has p_g
weights. With m_g the mean of w^2 over them and s^2 a constant of the fold, the family is

    a_g = alpha exp(z_g) (m_g / s^2 + eps)^((q - 2) / 2)

(q = 2: equal decays; q = 1: Lasso, or group Lasso; q < 1: sparser). Weights that solve the problem under their own
decays are stationary points of the loss plus

    P(w) = (alpha s^2 / q) sum_g p_g exp(z_g) (m_g / s^2 + eps)^(q / 2),    dP/dw_j = a_g(j) w_j.

Its Hessian is diag(a) - sum_g b_g w_g w_g' with w_g the weights of g alone and

    b_g = (2 - q) a_g / (m_g + s^2 eps) / p_g,

positive definite for q > 1 (q = 1: semi-definite up to eps).

Shapes: weights (..., n_weights), decays (..., n_groups), s^2 (...,) with the same leading axes. Hyperparameters lack
the fold axis: (C,) candidates go with weights (C, K, n_weights).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .blocks import dot

# Smoothing of the family, in units of s^2.
EPS = 1e-6
# Runs of decays that are copied as slices; more are gathered.
MAX_RUNS = 16


class Hyper(NamedTuple):
    """The hyperparameters that folds share; a leading axis carries several candidates.

    `offsets` are the free residuals z_g around the family; None stands for zeros.
    """

    log_alpha: Tensor  # ()
    exponent: Tensor  # ()
    offsets: Tensor | None = None  # (n_groups,)

    def take(self, which: Tensor | int) -> "Hyper":
        """Some of several candidates, or one."""
        offsets = None if self.offsets is None else self.offsets[which]
        return Hyper(self.log_alpha[which], self.exponent[which], offsets)


@dataclass(frozen=True)
class Decays:
    """The index map weight -> decay.

    Parameters
    ----------
    index : Tensor of integers, shape (n_weights,)
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
        return self.index[self.decayed].long()

    @cached_property
    def sizes(self) -> Tensor:
        """p_g, the number of weights of each decay."""
        return torch.bincount(self.groups, minlength=self.n_groups).to(torch.get_default_dtype())

    @cached_property
    def single(self) -> bool:
        """Whether no two weights share a decay."""
        return int((self.index >= 0).sum()) == self.n_groups

    @cached_property
    def _in_order(self) -> bool:
        """Whether decay j is that of weight j and of no other, as far as decays go."""
        return bool((self.index[: self.n_groups] == torch.arange(self.n_groups)).all()) and self.single

    @cached_property
    def _runs(self) -> list[tuple[int, int, int, int]]:
        """The index map as runs of equal or of consecutive numbers, if it has few; without the undecayed weights.

        Each is its first weight, its end, its first decay and the number of its decays, one or one a weight.
        """
        steps = self.index.diff()
        turns = [0, *((steps.diff() != 0).nonzero()[:, 0] + 1).tolist()] if len(steps) else []
        if len(turns) > 4 * MAX_RUNS:
            return []
        runs, at, n = [], 0, len(self.index)
        while at < n:
            step = int(steps[at]) if at < n - 1 else 2
            group = int(self.index[at])
            end = at + 1
            if step == 0 or (step == 1 and group >= 0):
                end = next((turn for turn in turns if turn > at), n - 1) + 1
            if group >= 0:
                runs.append((at, end, group, end - at if step == 1 else 1))
            at = end
        return runs if len(runs) <= MAX_RUNS else []

    @cached_property
    def _from_one(self) -> Tensor:
        """The index map with 0 for weights without decay."""
        return self.index.long() + 1

    def group_sums(self, v: Tensor) -> Tensor:
        """Sums over the weights of each decay: (..., n_weights) -> (..., n_groups)."""
        if self._in_order:
            return v[..., : self.n_groups]
        if self._runs:
            sums = v.new_zeros(*v.shape[:-1], self.n_groups)
            for start, end, group, count in self._runs:
                part = v[..., start:end]
                sums[..., group : group + count] += part if count == end - start else part.sum(-1, keepdim=True)
            return sums
        v = v[..., self.decayed]
        sums = v.new_zeros(*v.shape[:-1], self.n_groups)
        return sums.index_add_(-1, self.groups, v)

    def spread(self, a: Tensor) -> Tensor:
        """Decays -> a decay for each weight, 0 where there is none: (..., n_groups) -> (..., n_weights)."""
        if self._in_order:
            return pad(a, (0, len(self.index) - self.n_groups))
        if self._runs:
            return self.spread_part(a, slice(0, len(self.index)))
        return pad(a, (1, 0)).index_select(-1, self._from_one)

    def spread_part(self, a: Tensor, part: slice) -> Tensor:
        """`spread` of a slice of the weights."""
        n = len(self.index[part])
        if not self._runs:
            return pad(a, (1, 0)).index_select(-1, self._from_one[part])
        spread = a.new_zeros(*a.shape[:-1], n)
        for start, end, group, count in self._runs:
            low, high = max(start, part.start), min(end, part.start + n)
            if low < high:
                first = group + (low - start if count > 1 else 0)
                spread[..., low - part.start : high - part.start] = a[..., first : first + min(count, high - low)]
        return spread

    def scale(self, w: Tensor) -> Tensor:
        """s^2: the mean of w^2 over the weights whose decay is not plain, (..., n_weights) -> (...,)."""
        if self._runs and self.plain is None:
            squares = [dot(w[..., start:end], w[..., start:end]) for start, end, _, _ in self._runs]
            return torch.stack(squares).sum(0) / sum(end - start for start, end, _, _ in self._runs)
        positions = self.decayed if self.plain is None else self.decayed[~self.plain[self.groups]]
        return (w[..., positions] ** 2).mean(-1)

    def relative(self, w: Tensor, s2: Tensor) -> Tensor:
        """r = m_g / s^2 + eps, and 1 where the decay is plain: (..., n_groups)."""
        m = self.group_sums(w**2)
        if not self.single:
            m = m / self.sizes.to(w)
        ratio = m / _positive(s2)[..., None] + self.eps
        return ratio if self.plain is None else torch.where(self.plain, 1.0, ratio)

    def log_decays(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """log a_g at the weights w: (..., n_groups)."""
        return self.log_decays_at(self.relative(w, s2), hyper)

    def log_decays_at(self, r: Tensor, hyper: Hyper) -> Tensor:
        """log a_g where the weights have r = `relative`: (..., n_groups)."""
        log_a = _align(hyper.log_alpha, r) + (_align(hyper.exponent, r) / 2 - 1) * r.log()
        return log_a if hyper.offsets is None else log_a + _align_groups(hyper.offsets, r)

    def restrict(self, n: int) -> "Decays":
        """The decays of the first n weights."""
        return Decays(self.index[:n], self.plain, self.eps)

    def shared_by_outputs(self, n_outputs: int) -> bool:
        """Whether all outputs of a feature have the same decay."""
        rows = self.groups.unflatten(-1, (-1, n_outputs))
        return bool((rows == rows[:, :1]).all())

    def by_output(self, n_outputs: int) -> bool:
        """Whether each output has one decay, and no two outputs share it."""
        rows = self.groups.unflatten(-1, (-1, n_outputs))
        return self.n_groups == n_outputs and bool((rows == torch.arange(n_outputs)).all())

    def penalty(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """P(w), whose gradient is a * w: (...,)."""
        r = self.relative(w, s2)
        return self.penalty_at(r, self.log_decays_at(r, hyper).exp(), w, hyper, s2)

    def penalty_at(self, r: Tensor, a: Tensor, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """P(w) from r = `relative` and the decays a (..., n_groups) at w: (...,)."""
        terms = a * r * (s2[..., None] / _align(hyper.exponent, r))
        if not self.single:
            terms = terms * self.sizes.to(w)
        if self.plain is not None:
            terms = torch.where(self.plain, a * self.group_sums(w**2) / 2, terms)
        return terms.sum(-1)

    def concavity(self, w: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """b_g of the penalty's Hessian diag(a) - sum_g b_g w_g w_g': (..., n_groups)."""
        r = self.relative(w, s2)
        return self.concavity_at(r, self.log_decays_at(r, hyper).exp(), hyper, s2)

    def concavity_at(self, r: Tensor, a: Tensor, hyper: Hyper, s2: Tensor) -> Tensor:
        """b_g from r = `relative` and the decays a (..., n_groups): (..., n_groups)."""
        unit = self.sizes.to(r) * _positive(s2)[..., None]
        b = (2 - _align(hyper.exponent, r)) * a / (r * unit)
        return b if self.plain is None else torch.where(self.plain, 0.0, b)


def _positive(s2: Tensor) -> Tensor:
    """s^2, kept from zero for folds whose weights are all zero."""
    return s2.clamp(min=torch.finfo(s2.dtype).tiny ** 0.75)


def _align(h: Tensor, like: Tensor) -> Tensor:
    """A hyperparameter of each candidate, with axes for folds and decays behind it."""
    return h.reshape(h.shape + (1,) * (like.ndim - h.ndim))


def _align_groups(z: Tensor, like: Tensor) -> Tensor:
    """Offsets (..., n_groups), with an axis for folds before the last."""
    return z.reshape(z.shape[:-1] + (1,) * (like.ndim - z.ndim) + z.shape[-1:])
