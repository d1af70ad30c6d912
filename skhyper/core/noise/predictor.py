"""Outputs of fitted members for the draws of a noise bank: explicit weights, blocks of draws and of rows.

The weights of a draw are formed once and serve all rows: a prediction does not depend on what else is predicted.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .network import ACTIVATIONS
from .training import Model, Waves

# Numbers in the weights of a block of draws, and in the activations of a block of rows.
MAX_WEIGHTS = 2**24
MAX_ACTIVATIONS = 2**18

# The activations, in place where they can be.
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    **ACTIVATIONS,
    "relu": torch.relu_,
    "silu": partial(functional.silu, inplace=True),
    "tanh": torch.tanh_,
}


@dataclass(frozen=True)
class Predictor:
    """Fitted members: parameters (M, P), noise bank (M, S, d), prior functions."""

    model: Model
    flat: Tensor
    bank: Tensor
    waves: Waves | None

    @torch.no_grad()
    def outputs(self, x: Tensor) -> Tensor:
        """Scaled rows (n, p) -> (M, S, n, O)."""
        network = self.model.network
        m, s = self.bank.shape[:2]
        out = x.new_empty(m, s, len(x), network.n_outputs)
        for member in range(m):
            waves = members_waves(self.waves, member)
            for draws, call in self.functions(member):
                widest = max(network.hidden, default=1) * (draws.stop - draws.start)
                rows = max(16, MAX_ACTIVATIONS // widest)
                for start in range(0, len(x), rows):
                    block = x[start : start + rows]
                    prior = network.prior(waves, block[None])
                    out[member, draws, start : start + rows] = call(block) if prior is None else call(block) + prior
        return out

    def functions(self, member: int) -> Iterator[tuple[slice, "Block"]]:
        """Blocks of a member's draws, as functions of rows without the prior."""
        network = self.model.network
        parts = self.model.layout.split(self.flat[member : member + 1])
        size = max(1, MAX_WEIGHTS // network.n_weights)
        for start in range(0, self.bank.shape[1], size):
            z = self.bank[member : member + 1, start : start + size]
            draws = network.generator.draws(parts, z)
            layers = [network.generator.weights(parts, f"layer.{i}", draws) for i in range(len(network.shapes))]
            scales = parts["scales"][0] if network.feature_scales else None
            skip = parts["skip"][0] if network.skip else None
            block = Block([(w[0], b[0]) for w, b in layers], scales, skip, network.activation)
            yield slice(start, start + z.shape[1]), block


def members_waves(waves: Waves | None, member: int) -> Waves | None:
    """The prior function of one member."""
    if waves is None:
        return None
    frequencies, phases, amplitudes = (part[member : member + 1] for part in waves)
    return frequencies, phases, amplitudes


@dataclass(frozen=True)
class Block:
    """Explicit networks of some draws."""

    layers: list[tuple[Tensor, Tensor]]
    scales: Tensor | None
    skip: Tensor | None
    activation: str

    def __call__(self, x: Tensor) -> Tensor:
        """Rows (R, p) -> (G, R, O); all draws are one product in the first layer."""
        activation, (w, b) = IN_PLACE[self.activation], self.layers[0]
        h = x if self.scales is None else x * self.scales
        h = torch.addmm(b.flatten(), h, w.movedim(0, 1).flatten(1)).unflatten(1, b.shape).transpose(0, 1)
        for w, b in self.layers[1:]:
            h = torch.baddbmm(b[:, None], activation(h), w)
        return h if self.skip is None else h + x @ self.skip
