"""Criteria that judge a ridge regression by its own training rows, with no row held out.

A criterion is a function of four quantities of a smoother (`leverage`): the residuals e (n, T), what the leverages
leave 1 - h (n, T), the penalised residual sum of squares S = e'e + w'Aw (T,), and log|M| - log|A| (T,). It returns its
value and its derivative with respect to each. The targets' values add up.

They hold for decays that do not depend on the weights. Those of the family with q < 2 are functions of the rows that
are left out: with them frozen, all three would be optimistic.
"""

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from .leverage import Rows

TINY = 1e-300


class Quantities(NamedTuple):
    """What a criterion depends on; also its derivatives with respect to them."""

    residuals: Tensor  # (n, T)
    free: Tensor  # (n, T)
    penalised: Tensor  # (T,)
    log_determinant: Tensor  # (T,)


class Criterion(ABC):
    """A number to minimise, in the unit of a squared loss or of a negative log-likelihood."""

    # Whether it is a squared loss, whose logarithm is the objective.
    log_scale = True

    @abstractmethod
    def __call__(self, q: Quantities, rows: Rows) -> tuple[Tensor, Quantities]:
        """The value () and its derivatives."""


class LeaveOneOut(Criterion):
    """Half the weighted mean squared error of left-out rows, exactly:

        (1 / 2 sum c) sum_i (e_i / (1 - h_ii))^2,

    a row being left out with all of its weight, from the means behind the intercept too.
    """

    def __call__(self, q: Quantities, rows: Rows) -> tuple[Tensor, Quantities]:
        """Value and derivatives."""
        total = rows.c.sum()
        left_out = q.residuals / q.free
        value = (left_out**2).sum() / (2 * total)
        by_residual = left_out / (q.free * total)
        return value, _only(q, residuals=by_residual, free=-by_residual * left_out)


class GeneralisedCrossValidation(Criterion):
    """Half the mean squared residual, inflated by the effective number of parameters:

        (1 / 2 sum c) sum_i e_i^2 / (1 - tr H / n)^2

    with n the number of rows of positive weight, and H with the intercept in it.
    """

    def __call__(self, q: Quantities, rows: Rows) -> tuple[Tensor, Quantities]:
        """Value and derivatives."""
        left = q.free[rows.used].sum(0)
        scale = (rows.n_used / left) ** 2 / rows.c.sum()
        each = scale * (q.residuals**2).sum(0) / 2
        by_free = (-2 * each / left).expand_as(q.free) * rows.used[:, None]
        return each.sum(), _only(q, residuals=scale * q.residuals, free=by_free)


class Evidence(Criterion):
    """Negative log marginal likelihood a row (type II maximum likelihood, Gaussian), the noise variance profiled out.

    For each target y ~ N(b 1, s^2 (C^-1 + X A^-1 X')), so that a row's weight is its precision relative to the
    others', and an a_j is s^2 over the prior variance of w_j. The intercept b has a flat prior: the density is that of
    the m = n - 1 orthonormal contrasts of y (m = n without an intercept). At s^2 = S / m,

        2 nll = m log(2 pi S / m) + m + log|M| - log|A| - sum_i log c_i + log(sum_i c_i / n).
    """

    log_scale = False

    def __call__(self, q: Quantities, rows: Rows) -> tuple[Tensor, Quantities]:
        """Value and derivatives."""
        n, m = rows.n_used, rows.n_used - rows.intercept
        penalised = q.penalised.clamp(min=TINY)
        constant = float(math.log(rows.c.sum() / n)) * rows.intercept - float(rows.c[rows.used].log().sum())
        each = m * ((2 * math.pi * penalised / m).log() + 1) + q.log_determinant + constant
        by_determinant = torch.full_like(each, 1 / (2 * n))
        return each.sum() / (2 * n), _only(q, penalised=m * by_determinant / penalised, log_determinant=by_determinant)


def _only(q: Quantities, **derivatives: Tensor) -> Quantities:
    """Derivatives, zero for the quantities that are not named."""
    return Quantities(*map(torch.zeros_like, q))._replace(**derivatives)
