"""Preconditioned conjugate gradients for a batch of systems, each with its own end."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import dot


class Solution(NamedTuple):
    """What conjugate gradients reached."""

    x: Tensor  # (..., n)
    residual: Tensor  # (...,), relative to `size`
    size: Tensor  # (...,), of the right-hand side in the norm of the preconditioner, (b' M^-1 b)^1/2
    positive: Tensor  # (...,) bool: no direction of negative curvature was met


def conjugate_gradients(
    product: Callable[[Tensor], Tensor],
    precondition: Callable[[Tensor], Tensor],
    b: Tensor,
    tol: Tensor,
    max_iter: int,
    enough: float | Tensor = 0.0,
    *,
    into: Tensor | None = None,
    overwrite_b: bool = False,
) -> Solution:
    """Solve H x = b for every leading index.

    Parameters
    ----------
    product : callable
        x -> H x, (..., n) -> (..., n); H symmetric.
    precondition : callable
        r -> M^-1 r; M symmetric, positive definite and close to H. It may write to the same memory each time.
    b : Tensor, shape (..., n)
        Right-hand sides.
    tol : Tensor, shape (...,)
        A system ends when r' M^-1 r <= tol^2 b' M^-1 b, or where p' H p <= 0 (then with the x it has; with
        M^-1 b if that is the first direction).
    max_iter : int
        Most products with H.
    enough : float or Tensor, shape (...,)
        A system ends too when (r' M^-1 r)^1/2 is no more than this.
    into : Tensor, shape (..., n), optional
        What the solution is added to, in place: the sum is returned as x.
    overwrite_b : bool
        Whether b's memory may be used.
    """
    x, r = torch.zeros_like(b) if into is None else into, b if overwrite_b else b.clone()
    z = precondition(r)
    p, rho = z.clone(), dot(r, z)
    start = rho
    positive = torch.ones_like(rho, dtype=torch.bool)
    floor = torch.as_tensor(enough, dtype=b.dtype) ** 2
    least = torch.maximum(tol**2 * start, floor)
    active = (rho > 0) & (rho > floor)
    del z  # memory
    for _ in range(max_iter):
        if not active.any():
            break
        hp = product(p)
        curvature = dot(p, hp)
        negative = active & ~(curvature > 0)
        if negative.any():
            x.add_(torch.where((negative & (rho == start) & positive)[..., None], p, 0.0))
            positive, active = positive & ~negative, active & ~negative
        step = torch.where(active, rho / curvature, 0.0)[..., None]
        x.addcmul_(step, p)
        r.addcmul_(step, hp, value=-1)
        del hp  # memory
        z = precondition(r)
        previous, rho = rho, torch.where(active, dot(r, z), rho)
        active = active & (rho > least)
        p.mul_(torch.where(active, rho / previous, 0.0)[..., None]).add_(z)
        del z
    residual = torch.where(start > 0, (rho / start).clamp(min=0).sqrt(), 0.0)
    return Solution(x, residual, start.clamp(min=0).sqrt(), positive)
