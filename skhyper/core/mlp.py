"""Multilayer perceptrons with flat weights, batched over leading axes, and their first derivatives by hand.

Weights are flat, (..., n_weights); leading axes are folds, restarts, draws of the decays. They are laid out layer by
layer, coefficients (fan_in * fan_out, input-major) and then intercepts (fan_out), so that a network without hidden
layers has the layout of `LinearNetwork`. The output is linear: what links it to targets belongs to the loss.

Rows are (n, p), shared, or (..., n, p) with the weights' leading axes. Arithmetic has the precision of the rows:
weights of another one are converted layer by layer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from .main_network import MainNetwork


@dataclass(frozen=True)
class Activation:
    """A hidden layer's nonlinearity.

    Parameters
    ----------
    apply : callable
        z -> h; may write to z.
    slope : callable
        h -> dh / dz, as a function of the output.
    gain : float
        Initial weights are uniform within sqrt(gain / (fan_in + fan_out)) (Glorot and Bengio, 2010).
    """

    apply: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    gain: float = 6.0


def _step(h: Tensor) -> Tensor:
    return (h > 0).to(h)


RELU = Activation(torch.relu_, _step)
TANH = Activation(torch.tanh_, lambda h: 1 - h * h)
LOGISTIC = Activation(torch.sigmoid_, lambda h: h * (1 - h), gain=2.0)
IDENTITY = Activation(lambda z: z, torch.ones_like)


class Layer(NamedTuple):
    """The weights of one layer."""

    coefficients: Tensor  # (..., fan_in, fan_out)
    intercepts: Tensor  # (..., fan_out)


class Tape(NamedTuple):
    """A forward pass: each layer's input, and the outputs."""

    inputs: list[Tensor]  # (..., n, fan_in)
    f: Tensor  # (..., n, T)

    def to(self, dtype: torch.dtype) -> "Tape":
        """In another precision."""
        return Tape([h.to(dtype) for h in self.inputs], self.f.to(dtype))


@dataclass(frozen=True)
class MLP(MainNetwork):
    """A multilayer perceptron.

    Parameters
    ----------
    sizes : tuple of int
        Units of each layer, inputs and outputs included; two numbers are a linear network.
    activation : Activation
        Of all hidden layers.
    """

    sizes: tuple[int, ...]
    activation: Activation = RELU

    @property
    def n_layers(self) -> int:
        """Layers with weights."""
        return len(self.sizes) - 1

    @property
    def width(self) -> int:
        return max(self.sizes)

    @property
    def n_outputs(self) -> int:
        """T."""
        return self.sizes[-1]

    @cached_property
    def spans(self) -> tuple[tuple[int, int, int], ...]:
        """Where each layer's coefficients begin, where they end, and where its intercepts end."""
        spans, start = [], 0
        for fan_in, fan_out in zip(self.sizes, self.sizes[1:], strict=False):
            middle = start + fan_in * fan_out
            spans.append((start, middle, middle + fan_out))
            start = middle + fan_out
        return tuple(spans)

    @property
    def n_weights(self) -> int:
        """Length of the flat weights."""
        return self.spans[-1][2]

    def split(self, w: Tensor) -> list[Layer]:
        """Flat weights -> layers; views."""
        shapes = zip(self.sizes, self.sizes[1:], strict=False)
        return [
            Layer(w[..., start:middle].unflatten(-1, shape), w[..., middle:end])
            for (start, middle, end), shape in zip(self.spans, shapes, strict=True)
        ]

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """Initial weights of n networks, (n, n_weights): uniform, intercepts too."""
        w = torch.rand(n, self.n_weights, generator=generator, dtype=torch.float64) * 2 - 1
        for (start, _, end), fan_in, fan_out in zip(self.spans, self.sizes, self.sizes[1:], strict=False):
            w[:, start:end] *= math.sqrt(self.activation.gain / (fan_in + fan_out))
        return w

    def forward(self, w: Tensor, x: Tensor, noise: int | None = None) -> Tape:
        """Outputs for rows x, with what `backward` and `push` need; nothing in it is random."""
        inputs, h = [], x
        for depth, layer in enumerate(self.split(w)):
            if depth:
                h = self.activation.apply(h)
            inputs.append(h)
            h = _affine(layer, h)
        return Tape(inputs, h)

    def backward(self, w: Tensor, tape: Tape, u: Tensor, onto: Tensor | None = None) -> Tensor:
        """d sum(u * outputs) / d w: (..., n, T) -> (..., n_weights).

        It is added to `onto` in place, (n_weights,) or (K, n_weights), where that is given.
        """
        layers = self.split(w)
        gradient = torch.empty_like(w, dtype=u.dtype) if onto is None else onto
        into = self.split(gradient)
        for depth in reversed(range(self.n_layers)):
            h = tape.inputs[depth]
            coefficients, intercepts = into[depth]
            if onto is None:
                torch.matmul(h.mT, u, out=coefficients)
                torch.sum(u, -2, out=intercepts)
            else:
                (coefficients.addmm_ if w.ndim == 1 else coefficients.baddbmm_)(h.mT, u)
                intercepts.add_(u.sum(-2))
            if depth:
                u = (u @ _as(layers[depth].coefficients, u).mT).mul_(self.activation.slope(h))
        return gradient

    def push(self, w: Tensor, tape: Tape, v: Tensor) -> Tensor:
        """The outputs' derivative along v: (..., n_weights) -> (..., n, T)."""
        tangent: Tensor | None = None
        for depth, (layer, along) in enumerate(zip(self.split(w), self.split(v), strict=True)):
            h = tape.inputs[depth]
            moved = _affine(along, h)
            if tangent is not None:
                moved = moved.add_((tangent * self.activation.slope(h)) @ _as(layer.coefficients, h))
            tangent = moved
        assert tangent is not None
        return tangent

    def unit(self) -> Tensor:
        """For each weight the output unit of its layer, counted over all layers; (n_weights,)."""
        return self._numbers(lambda fan_in, fan_out: torch.arange(fan_out).expand(fan_in, -1), lambda _, out: out)

    def layer(self) -> Tensor:
        """For each weight the number of its layer; (n_weights,)."""
        return self._numbers(lambda fan_in, fan_out: torch.zeros(fan_in, fan_out), lambda _, __: 1)

    def fan_in(self) -> Tensor:
        """For each weight the unit that it reads, counted over all layers; (n_weights,)."""
        return self._numbers(lambda fan_in, fan_out: torch.arange(fan_in)[:, None].expand(-1, fan_out), lambda i, _: i)

    def _numbers(self, inside: Callable[[int, int], Tensor], count: Callable[[int, int], int]) -> Tensor:
        """Group numbers of all weights: those inside a layer, shifted by the counts before; -1 for intercepts."""
        index, before = torch.full((self.n_weights,), -1), 0
        for (start, middle, _), *shape in zip(self.spans, self.sizes, self.sizes[1:], strict=False):
            index[start:middle] = inside(*shape).flatten().long() + before
            before += count(*shape)
        return index


def _affine(layer: Layer, h: Tensor) -> Tensor:
    coefficients, intercepts = _as(layer.coefficients, h), _as(layer.intercepts, h)
    if coefficients.ndim == 2:
        return torch.addmm(intercepts, h, coefficients)
    return (h @ coefficients).add_(intercepts[..., None, :])


def _as(w: Tensor, rows: Tensor) -> Tensor:
    """In the precision of the rows; `Tensor.to` takes its time even where there is nothing to do."""
    return w if w.dtype == rows.dtype else w.to(rows)
