"""The main network: a multilayer perceptron whose weights come from a generator.

    f(x; z) = MLP(s * x; W(z)) + x A + prior_scale * prior(x)

s are learnt scales of the features, A a linear skip, and prior a fixed random function that each member draws once:
where there are no data, members go on disagreeing as their priors do. Shapes as in `generators.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from .generators import Draws, Generator, LayerShape, LayerTape
from .layout import Block, Layout, Parts
from .point_generator import PointGenerator

# Of layers without noise.
PLAIN = PointGenerator(1)

# Cosines in a random prior function.
N_WAVES = 64


class Activation(NamedTuple):
    """A nonlinearity and its derivative.

    Parameters
    ----------
    apply : callable
        t -> h.
    pull : callable
        (g, t, h) -> g dh / dt.
    """

    apply: Callable[[Tensor], Tensor]
    pull: Callable[[Tensor, Tensor, Tensor], Tensor]


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(torch.relu, lambda g, t, h: g * (t > 0)),
    "silu": Activation(functional.silu, lambda g, t, h: torch.ops.aten.silu_backward(g, t)),
    "tanh": Activation(torch.tanh, lambda g, t, h: torch.ops.aten.tanh_backward(g, h)),
    "gelu": Activation(functional.gelu, lambda g, t, h: torch.ops.aten.gelu_backward(g, t)),
}


class Layer(NamedTuple):
    """A layer of the main network, and where its weights come from."""

    name: str
    shape: LayerShape
    generator: Generator


class Tape(NamedTuple):
    """What the derivatives need of a forward pass."""

    outputs: Tensor  # (M, G, R, O)
    x: Tensor  # (M, G or 1, R, p), with the noise in it
    disturbance: Tensor | None  # that noise, before its scale
    draws: Draws
    layers: list[LayerTape]
    hidden: list[tuple[Tensor, Tensor]]  # hidden units before and after the activation


@dataclass(frozen=True)
class StochasticMLP:
    """Outputs of every member for every draw.

    Parameters
    ----------
    n_features, n_outputs : int
        p and O, columns of the input and of the output.
    hidden : tuple of int
        Units of the hidden layers.
    activation : str
        A key of `ACTIVATIONS`.
    generator : Generator
        Where the weights come from.
    feature_scales : bool
        Whether the features have learnt scales.
    skip : bool
        Whether there is a linear skip.
    input_noise : float
        Start of the learned scale of the Gaussian noise that is added to x in training; 0: none.
    prior_scale : float
        Standard deviation of the prior functions.
    prior_width : float
        Length scale of the prior functions, in units of sqrt(p).
    first_gain : float
        Standard deviation of the first layer's weights at the start, times sqrt(p), where hidden layers follow: how
        rough the functions are from which training starts.
    last_only : bool
        Whether the noise enters the last layer alone, so that all draws share the hidden units.
    """

    n_features: int
    n_outputs: int
    hidden: tuple[int, ...]
    activation: str
    generator: Generator
    feature_scales: bool = True
    skip: bool = True
    input_noise: float = 0.0
    prior_scale: float = 0.0
    prior_width: float = 1.0
    first_gain: float = 1.0
    last_only: bool = False

    @cached_property
    def layers(self) -> list[Layer]:
        """From the input to the output."""
        sizes = (self.n_features, *self.hidden, self.n_outputs)
        last = len(sizes) - 2
        gains = [1.0 if self.activation == "tanh" else sqrt(2.0)] * len(sizes)
        gains[0], gains[last] = self.first_gain, 1.0
        layers = []
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            generator = PLAIN if self.last_only and i < last else self.generator
            layers.append(Layer(f"layer.{i}", LayerShape(n_in, n_out, gains[i]), generator))
        return layers

    @property
    def n_weights(self) -> int:
        """Weights and biases of all layers."""
        return sum((shape.n_in + 1) * shape.n_out for _, shape, _ in self.layers)

    def blocks(self) -> dict[str, Block]:
        """All parameters."""
        p, outputs = self.n_features, self.n_outputs
        blocks = dict(self.generator.blocks())
        for name, shape, generator in self.layers:
            blocks |= generator.layer_blocks(name, shape)
        if self.feature_scales:
            blocks["scales"] = Block((p,), center=1.0)
        if self.skip:
            blocks["skip"] = Block((p, outputs), rate=1 / sqrt(p), precision=float(p))
        if self.input_noise:
            blocks["input_noise"] = Block((), center=_inverse_softplus(self.input_noise))
        return blocks

    @property
    def layout(self) -> Layout:
        """Where they lie."""
        return Layout(self.blocks())

    def draw_prior(self, n_members: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor] | None:
        """The members' fixed random functions, or None: frequencies (M, p, J), phases (M, J), amplitudes (M, J, O)."""
        if not self.prior_scale:
            return None
        shapes = [(n_members, self.n_features, N_WAVES), (n_members, N_WAVES), (n_members, N_WAVES, self.n_outputs)]
        normal = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in (shapes[0], shapes[2])]
        phases = 2 * torch.pi * torch.rand(shapes[1], generator=generator, dtype=torch.float64)
        scale = self.prior_scale * sqrt(2 / N_WAVES)
        return normal[0] / (self.prior_width * sqrt(self.n_features)), phases, normal[1] * scale

    def prior(self, waves: tuple[Tensor, Tensor, Tensor] | None, x: Tensor) -> Tensor | None:
        """Values of the prior functions at x, (M or 1, R, p) -> (M, R, O)."""
        if waves is None:
            return None
        frequencies, phases, amplitudes = waves
        return torch.cos(x @ frequencies + phases[:, None]) @ amplitudes

    def forward(
        self, parts: Parts, x: Tensor, z: Tensor, prior: Tensor | None, noise: torch.Generator | None = None
    ) -> Tape:
        """Outputs, and what `pull` needs.

        Parameters
        ----------
        parts : the blocks
        x : Tensor of shape (M, G or 1, R, p)
            Rows of each draw; 1: all draws share the rows.
        z : Tensor of shape (M, G, n_entries)
            Noise.
        prior : Tensor of shape (M, G or 1, R, O), or None
            The prior functions at x.
        noise : torch.Generator or None
            Of the input noise; given in training only.
        """
        draws = self.generator.draws(parts, z)
        disturbance = None
        if noise is not None and self.input_noise:
            disturbance = torch.randn(x.shape, generator=noise, dtype=x.dtype, device=x.device)
            x = x + functional.softplus(parts["input_noise"])[:, None, None, None] * disturbance
        h = x * parts["scales"][:, None, None] if self.feature_scales else x
        activate = ACTIVATIONS[self.activation].apply
        layers: list[LayerTape] = []
        hidden: list[tuple[Tensor, Tensor]] = []
        for name, _, generator in self.layers:
            h, layer = generator.apply(parts, name, h, draws)
            layers.append(layer)
            if len(hidden) < len(self.hidden):
                t, h = h, activate(h)
                hidden.append((t, h))
        if self.skip:
            h = h + (x.flatten(1, 2) @ parts["skip"]).unflatten(1, x.shape[1:3])
        outputs = h if prior is None else h + prior
        return Tape(outputs, x, disturbance, draws, layers, hidden)

    @property
    def lowest_noisy(self) -> int:
        """The number of the first layer that has noise."""
        return len(self.hidden) if self.last_only else 0

    def pull(self, parts: Parts, tape: Tape, g: Tensor, spread: bool = False, lowest: int = 0) -> dict[str, Tensor]:
        """The gradients of a loss by the blocks, from that by the outputs, (M, G, R, O).

        Parameters
        ----------
        spread : bool
            Whether the factors rho of the noise are wanted; where they are not, they may be missing.
        lowest : int
            The first layer whose gradients are wanted; above 0 only those of the layers are given.
        """
        wanted = spread or self.generator.learns_features
        pull_activation = ACTIVATIONS[self.activation].pull
        found: dict[str, Tensor] = {}
        by_features, by_h = None, g
        for i, (name, _, generator) in reversed(list(enumerate(self.layers))):
            pulled = generator.pull(parts, name, tape.layers[i], by_h, wanted)
            found |= pulled.parts
            if 0 < i == lowest:
                return found
            if pulled.features is not None:
                by_features = pulled.features if by_features is None else by_features + pulled.features
            by_h = pull_activation(pulled.x, *tape.hidden[i - 1]) if i else pulled.x
        if by_features is not None:
            found |= self.generator.pull_draws(parts, tape.draws, by_features)
        if self.feature_scales:
            found["scales"] = (by_h * tape.x).sum((1, 2))
        by_skip = g.sum(1, keepdim=True) if tape.x.shape[1] < g.shape[1] else g
        if self.skip:
            found["skip"] = tape.x.flatten(1, 2).mT @ by_skip.flatten(1, 2)
        if tape.disturbance is not None:
            by_x = by_h * parts["scales"][:, None, None] if self.feature_scales else by_h
            if self.skip:
                by_x = by_x + by_skip @ parts["skip"][:, None].mT
            found["input_noise"] = (by_x * tape.disturbance).sum((1, 2, 3)) * torch.sigmoid(parts["input_noise"])
        return found

    def outputs(self, parts: Parts, x: Tensor, z: Tensor, waves: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """Outputs of every draw at the same rows, (M or 1, R, p) -> (M, G, R, O)."""
        return self.same_rows(parts, x, z, waves).outputs

    def same_rows(self, parts: Parts, x: Tensor, z: Tensor, waves: tuple[Tensor, Tensor, Tensor] | None) -> Tape:
        """The forward pass of every draw at the same rows, (M or 1, R, p)."""
        prior = self.prior(waves, x)
        x = x.expand(z.shape[0], -1, -1)
        return self.forward(parts, x[:, None], z, None if prior is None else prior[:, None])


def _inverse_softplus(value: float) -> float:
    return float(torch.expm1(torch.tensor(value, dtype=torch.float64)).log())
