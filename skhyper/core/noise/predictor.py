"""Outputs of fitted members for the draws of a noise bank: explicit weights, blocks of draws and of rows.

The weights of a draw are formed once and serve all rows: a prediction does not depend on what else is predicted.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from .objective import Model, Waves

# Numbers in the weights of a block of draws.
MAX_WEIGHTS = 2**24
# Numbers in the activations of a block of rows: a core's caches hold them.
MAX_ACTIVATIONS = 2**18
# Draws that share the product of the first layer where no other hidden layer follows; else draws go one by one.
FUSED_DRAWS = 20

# The activations, in place where they can be.
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu_,
    "silu": partial(functional.silu, inplace=True),
    "tanh": torch.tanh_,
    "gelu": functional.gelu,
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
        m, s = self.bank.shape[:2]
        out, scratch = x.new_empty(m, s, len(x), self.model.network.n_outputs), Scratch.like(x)
        for member in range(m):
            for networks in self.functions(member):
                for rows in self.blocks(len(x)):
                    for draws, call in networks:
                        out[member, draws, rows] = call(x[rows], scratch)
            for rows, prior in self.priors(x, member):
                out[member, :, rows] += prior
        return out

    @torch.no_grad()
    def mean(self, x: Tensor, n_outputs: int) -> Tensor:
        """The first `n_outputs` outputs averaged over members and draws: scaled rows (n, p) -> (n, n_outputs)."""
        m, s = self.bank.shape[:2]
        total, scratch = x.new_zeros(len(x), n_outputs), Scratch.like(x)
        for member in range(m):
            for networks in self.functions(member):
                for rows in self.blocks(len(x)):
                    part, own = total[rows], x[rows]
                    for _, call in networks:
                        call.add_to(part, own, scratch)
                for _, call in networks:
                    call.add_linear(total, x)
            for rows, prior in self.priors(x, member):
                total[rows] += s * prior[:, :n_outputs]
        return total / (m * s)

    def work(self, n: int) -> float:
        """Multiplications for n rows, at most."""
        shared, layers = self.model.network.lowest_noisy, self.model.network.layers
        sizes = [shape.n_in * shape.n_out for _, shape, _ in layers]
        return float(n * len(self.bank) * (sum(sizes[:shared]) + self.bank.shape[1] * sum(sizes[shared:])))

    @property
    def fused(self) -> int:
        """Draws that share the product of the first layer."""
        if self.model.network.last_only:
            return self.bank.shape[1]
        return FUSED_DRAWS if len(self.model.network.hidden) < 2 else 1

    def blocks(self, n: int) -> Iterator[slice]:
        """Blocks of rows."""
        network = self.model.network
        widest = max(network.hidden, default=1)
        width = max(widest, self.fused * network.n_outputs) if network.last_only else self.fused * widest
        size = max(16, MAX_ACTIVATIONS // width)
        return (slice(start, start + size) for start in range(0, n, size))

    def priors(self, x: Tensor, member: int) -> Iterator[tuple[slice, Tensor]]:
        """Values of a member's prior function, (R, O), by blocks of rows."""
        waves = members_waves(self.waves, member)
        for rows in self.blocks(len(x)):
            prior = self.model.network.prior(waves, x[None, rows])
            if prior is not None:
                yield rows, prior[0]

    def functions(self, member: int) -> Iterator[list[tuple[slice, "Functions"]]]:
        """A member's draws as functions of rows, without the prior: as many at a time as memory is for weights."""
        network = self.model.network
        own = network.layers[-1:] if network.last_only else network.layers
        size = max(1, MAX_WEIGHTS // sum((shape.n_in + 1) * shape.n_out for _, shape, _ in own))
        n_draws = self.bank.shape[1]
        for start in range(0, n_draws, size):
            stop = min(start + size, n_draws)
            starts = range(start, stop, self.fused)
            slices = [slice(first, min(first + self.fused, stop)) for first in starts]
            yield [(draws, self.networks(member, draws)) for draws in slices]

    def networks(self, member: int, draws: slice) -> "Functions":
        """The explicit networks of some draws."""
        network = self.model.network
        parts = self.model.layout.split(self.flat[member : member + 1])
        noise = network.generator.draws(parts, self.bank[member : member + 1, draws])
        layers = [generator.weights(parts, name, noise) for name, _, generator in network.layers]
        scales = parts["scales"][0] if network.feature_scales else None
        skip = parts["skip"][0] if network.skip else None
        kind = Heads if network.last_only and network.hidden else Networks
        return kind([(w[0], b[0]) for w, b in layers], scales, skip, network.activation)


def members_waves(waves: Waves | None, member: int) -> Waves | None:
    """The prior function of one member."""
    if waves is None:
        return None
    frequencies, phases, amplitudes = (part[member : member + 1] for part in waves)
    return frequencies, phases, amplitudes


@dataclass
class Scratch:
    """Two buffers that all blocks write to in turn: memory that is asked for anew is slow to touch."""

    buffers: list[Tensor]

    @classmethod
    def like(cls, x: Tensor) -> "Scratch":
        """Empty ones."""
        return cls([x.new_empty(0), x.new_empty(0)])

    def matrix(self, n_rows: int, n_columns: int) -> Tensor:
        """The buffer that was not given last, as a matrix."""
        self.buffers.reverse()
        if self.buffers[0].numel() < n_rows * n_columns:
            self.buffers[0] = self.buffers[0].new_empty(n_rows * n_columns)
        return self.buffers[0][: n_rows * n_columns].view(n_rows, n_columns)


class Functions(ABC):
    """G draws as functions of rows (R, p)."""

    @abstractmethod
    def __call__(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Rows (R, p) -> (G, R, O)."""

    @abstractmethod
    def add_to(self, total: Tensor, x: Tensor, scratch: Scratch) -> None:
        """Add what the hidden layers give the first outputs, summed over draws, to `total`, (R, T)."""

    @abstractmethod
    def add_linear(self, total: Tensor, x: Tensor) -> None:
        """Add the rest of that sum."""


class Heads(Functions):
    """Draws that differ in the last layer alone: the hidden units of a row serve all of them."""

    def __init__(
        self, layers: list[tuple[Tensor, Tensor]], scales: Tensor | None, skip: Tensor | None, activation: str
    ) -> None:
        self.body = [(w[0], b[0]) for w, b in layers[:-1]]
        if scales is not None:
            self.body[0] = self.body[0][0] * scales[:, None], self.body[0][1]
        w, b = layers[-1]
        self.n_draws = len(b)
        self.heads = w.movedim(0, 1).flatten(1), b.flatten()  # (H, G O)
        self.sums = w.sum(0), b.sum(0)
        self.skip, self.activation = skip, IN_PLACE[activation]

    def _hidden(self, x: Tensor, scratch: Scratch) -> Tensor:
        for w, b in self.body:
            x = self.activation(torch.addmm(b, x, w, out=scratch.matrix(len(x), len(b))))
        return x

    def __call__(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Rows (R, p) -> (G, R, O)."""
        w, b = self.heads
        out = torch.addmm(b, self._hidden(x, scratch), w).unflatten(1, (self.n_draws, -1)).movedim(1, 0)
        return out if self.skip is None else out + x @ self.skip

    def add_to(self, total: Tensor, x: Tensor, scratch: Scratch) -> None:
        """One product with the sum of the draws' last layers."""
        total.addmm_(self._hidden(x, scratch), self.sums[0][:, : total.shape[1]])

    def add_linear(self, total: Tensor, x: Tensor) -> None:
        """Biases and the skip."""
        n_outputs = total.shape[1]
        total += self.sums[1][:n_outputs]
        if self.skip is not None:
            total.addmm_(x, self.skip[:, :n_outputs], alpha=self.n_draws)


class Networks(Functions):
    """Explicit networks of G draws.

    Activations of all draws lie side by side, (R, G * H): the first layer is one product, and so is the sum over the
    draws of the last one.
    """

    def __init__(
        self, layers: list[tuple[Tensor, Tensor]], scales: Tensor | None, skip: Tensor | None, activation: str
    ) -> None:
        (w, b), self.further = layers[0], layers[1:]
        self.n_draws = len(b)
        w = w if scales is None else w * scales[:, None]
        self.first = w.movedim(0, 1).flatten(1).contiguous(), b.flatten()
        w, b = layers[-1]
        self.last, self.bias = w.flatten(0, 1), b.sum(0)
        self.skip, self.activation = skip, IN_PLACE[activation]

    def __call__(self, x: Tensor, scratch: Scratch) -> Tensor:
        """Rows (R, p) -> (G, R, O)."""
        h = self._first(x, scratch)
        for layer in self.further:
            h = self._each(self.activation(h), *layer, scratch)
        out = h.unflatten(1, (self.n_draws, -1)).movedim(1, 0)
        return out if self.skip is None else out + x @ self.skip

    def add_to(self, total: Tensor, x: Tensor, scratch: Scratch) -> None:
        """Add what the hidden layers give the first outputs, summed over draws, to `total`, (R, T), at rows (R, p)."""
        if not self.further:
            return
        h = self._first(x, scratch)
        for layer in self.further[:-1]:
            h = self._each(self.activation(h), *layer, scratch)
        total.addmm_(self.activation(h), self.last[:, : total.shape[1]])

    def add_linear(self, total: Tensor, x: Tensor) -> None:
        """Add the rest of the sum: biases, the skip, and the first layer where there is no other."""
        n_outputs = total.shape[1]
        if not self.further:
            w = self.first[0].unflatten(1, (self.n_draws, -1)).sum(1)
            total.addmm_(x, w[:, :n_outputs])
        total += self.bias[:n_outputs]
        if self.skip is not None:
            total.addmm_(x, self.skip[:, :n_outputs], alpha=self.n_draws)

    def _first(self, x: Tensor, scratch: Scratch) -> Tensor:
        """The first layer of all draws, (R, G * H)."""
        w, b = self.first
        return torch.addmm(b, x, w, out=scratch.matrix(len(x), len(b)))

    def _each(self, h: Tensor, w: Tensor, b: Tensor, scratch: Scratch) -> Tensor:
        """The layer of each draw on its own columns: (R, G * a) -> (R, G * b)."""
        n_in, n_out = w.shape[1:]
        out = scratch.matrix(len(h), self.n_draws * n_out)
        for k in range(self.n_draws):
            own = slice(k * n_in, (k + 1) * n_in)
            torch.addmm(b[k], h[:, own], w[k], out=out[:, k * n_out : (k + 1) * n_out])
        return out
