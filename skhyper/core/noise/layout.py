"""All parameters of all members as one matrix, (members, n_parameters), and its named parts.

One leaf tensor makes the optimiser a handful of operations, and restoring a member the copy of a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

Parts = Mapping[str, Tensor]


class Block(NamedTuple):
    """A named part: drawn from N(center, std^2), with its own learning rate and its own share of the decay.

    What `perturbs` is multiplied by noise. What is `held` is a hyperparameter: it follows the loss of held-out rows,
    and stays where it is without any.
    """

    shape: tuple[int, ...]
    std: float = 0.0
    center: float = 0.0
    rate: float = 1.0
    precision: float = 0.0  # of its Gaussian prior, in units of alpha
    held: bool = False
    perturbs: bool = False


@dataclass(frozen=True)
class Layout:
    """Where each block lies in a row of the flat parameters."""

    blocks: Mapping[str, Block]

    @cached_property
    def sizes(self) -> list[int]:
        """Numbers in each block."""
        return [prod(block.shape) for block in self.blocks.values()]

    def split(self, flat: Tensor) -> dict[str, Tensor]:
        """(M, P) -> the blocks, each (M, *shape)."""
        pieces = flat.split(self.sizes, dim=-1)
        return {
            name: piece.unflatten(-1, block.shape) if block.shape else piece.squeeze(-1)
            for (name, block), piece in zip(self.blocks.items(), pieces, strict=True)
        }

    def join(self, parts: Parts, like: Tensor) -> Tensor:
        """Blocks -> (M, P), the inverse of `split`; blocks that are missing are zero."""
        pieces = []
        for (name, _), size in zip(self.blocks.items(), self.sizes, strict=True):
            piece = parts.get(name)
            pieces.append(like.new_zeros(len(like), size) if piece is None else piece.reshape(len(like), size))
        return torch.cat(pieces, 1)

    def draw(self, n_members: int, generator: torch.Generator) -> Tensor:
        """Initial parameters, (M, P), in float64."""
        normal = torch.randn(n_members, sum(self.sizes), generator=generator, dtype=torch.float64)
        return normal * self.spread("std") + self.spread("center")

    def spread(self, field: str) -> Tensor:
        """A number of each block, repeated for its entries: (P,)."""
        values = torch.tensor([getattr(block, field) for block in self.blocks.values()], dtype=torch.float64)
        return values.repeat_interleave(torch.tensor(self.sizes))
