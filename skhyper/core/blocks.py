"""Slices of long vectors, so that what is computed along them needs no memory of their size."""

from collections.abc import Iterator

from torch import Tensor

BLOCK = 2**16  # of weights


def blocks(n: int) -> Iterator[slice]:
    """The slices of a vector of length n."""
    return (slice(start, start + BLOCK) for start in range(0, n, BLOCK))


def dot(a: Tensor, b: Tensor) -> Tensor:
    """sum_j a_j b_j along the last axis: (..., n), (..., n) -> (...)."""
    if a.shape[-1] <= BLOCK:
        return (a * b).sum(-1)
    total = a.new_zeros(a.shape[:-1])
    for block in blocks(a.shape[-1]):
        total += (a[..., block] * b[..., block]).sum(-1)
    return total
