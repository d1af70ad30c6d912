"""Any torch module as a main network: its parameters as flat weights, derivatives by autograd.

Each leading index of the weights is a pass of its own. Batching them (vmap) makes a convolution a grouped one, which
takes longer than the passes one by one, and asks of a module that its flow does not depend on its data.

Derivatives along weights are those of the pullback: with g(u) = J'u, linear in u, J v = (dg/du)' v. Beside forward
mode this saves a forward pass for each product, and works wherever a module can be differentiated twice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from .main_network import MainNetwork

BLOCK = 512  # rows of a pass without derivatives


class Parameter(NamedTuple):
    """A trained parameter, and where it is in the flat weights."""

    name: str
    shape: torch.Size
    dtype: torch.dtype
    start: int
    end: int


class Pass:
    """The outputs of one network, and its parameters as leaves of their graph."""

    def __init__(self, leaves: list[Tensor], f: Tensor):
        self.leaves, self.f = leaves, f

    @cached_property
    def pullback(self) -> tuple[Tensor, list[Tensor | None]]:
        """U, and J'u as a function of it that can be differentiated."""
        u = torch.zeros_like(self.f, requires_grad=True)
        pulled = torch.autograd.grad(self.f, self.leaves, u, create_graph=True, allow_unused=True)
        return u, list(pulled)


class ModuleTape(NamedTuple):
    """A forward pass of every network."""

    f: Tensor  # (..., n, T)
    passes: list[Pass]

    def to(self, dtype: torch.dtype) -> "ModuleTape":
        """In another precision; derivatives are taken in the module's own."""
        return self._replace(f=self.f.to(dtype))


@dataclass(frozen=True, eq=False)
class ModuleNetwork(MainNetwork):
    """A torch module.

    Parameters
    ----------
    module : nn.Module
        Its parameters that require gradients are the weights, in their order; all else stays as it is. It returns
        (n, T) or (n,). It belongs to this network: its mode is switched.
    shape : tuple of int
        Of a row as the module reads it; p is the product.
    n_outputs : int
        T.
    dtype : torch.dtype
        Of the rows as the module reads them.
    log_link : float or None
        Outputs p become log(p + this): of modules that return probabilities.
    """

    module: nn.Module
    shape: tuple[int, ...]
    n_outputs: int = 1
    dtype: torch.dtype = torch.float32
    log_link: float | None = None

    @cached_property
    def parameters(self) -> list[Parameter]:
        """The trained parameters in the order of the flat weights."""
        found, start = [], 0
        for name, p in self.module.named_parameters():
            if p.requires_grad:
                found.append(Parameter(name, p.shape, p.dtype, start, start + p.numel()))
                start += p.numel()
        return found

    @property
    def n_weights(self) -> int:
        return self.parameters[-1].end

    @property
    def width(self) -> int:
        """Of a row as the module reads it: what its layers hold is not known."""
        return max(prod(self.shape), self.n_outputs)

    def layer(self) -> Tensor:
        """For each weight the number of the module that it belongs to."""
        owners = [p.name.rpartition(".")[0] or p.name for p in self.parameters]
        numbers = {owner: number for number, owner in enumerate(dict.fromkeys(owners))}
        sizes = torch.tensor([p.end - p.start for p in self.parameters])
        return torch.tensor([numbers[owner] for owner in owners]).repeat_interleave(sizes)

    def start(self, n: int, generator: torch.Generator) -> Tensor:
        """The module's own parameters, for all n."""
        trained = [p.detach().flatten().to(torch.float64) for p in self.module.parameters() if p.requires_grad]
        return torch.cat(trained).expand(n, -1).clone()

    def split(self, w: Tensor) -> list[Tensor]:
        """Flat weights of one network as parameters, in their own dtype."""
        return [w[p.start : p.end].to(p.dtype).view(p.shape) for p in self.parameters]

    def forward(self, w: Tensor, x: Tensor, noise: int | None = None) -> ModuleTape:
        with torch.enable_grad(), self._mode(noise), sdpa_kernel(SDPBackend.MATH):
            passes = [self._pass(one, rows) for one, rows in _pairs(w, x)]
        f = torch.stack([p.f.detach() for p in passes]).to(x)
        return ModuleTape(f.reshape(*w.shape[:-1], *f.shape[-2:]), passes)

    def _pass(self, w: Tensor, x: Tensor) -> Pass:
        leaves = [part.detach().requires_grad_() for part in self.split(w)]
        return Pass(leaves, self._outputs(leaves, x))

    def _outputs(self, parameters: list[Tensor], x: Tensor) -> Tensor:
        named = {p.name: value for p, value in zip(self.parameters, parameters, strict=True)}
        f: Tensor = functional_call(self.module, named, (x.to(self.dtype).unflatten(-1, self.shape),))
        f = f.reshape(len(x), self.n_outputs)
        return f if self.log_link is None else (f + self.log_link).log()

    def predict(self, w: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad(), self._mode(None):
            found = []
            for one, rows in _pairs(w, x):
                parameters = self.split(one)
                found.append(torch.cat([self._outputs(parameters, part) for part in rows.split(BLOCK)]))
        f = torch.stack(found).to(x)
        return f.reshape(*w.shape[:-1], *f.shape[-2:])

    def backward(self, w: Tensor, tape: ModuleTape, u: Tensor, onto: Tensor | None = None) -> Tensor:
        gradient = torch.zeros_like(w, dtype=u.dtype) if onto is None else onto
        flat, back = gradient.view(-1, self.n_weights), u.reshape(-1, *u.shape[-2:])
        for into, one, by_output in zip(flat, tape.passes, back, strict=True):
            pulled = torch.autograd.grad(one.f, one.leaves, by_output.to(one.f), retain_graph=True, allow_unused=True)
            for p, part in zip(self.parameters, pulled, strict=True):
                if part is not None:
                    into[p.start : p.end] += part.flatten()
        return gradient

    def push(self, w: Tensor, tape: ModuleTape, v: Tensor) -> Tensor:
        found = []
        for one, along in zip(tape.passes, v.reshape(-1, self.n_weights), strict=True):
            u, pulled = one.pullback
            pairs = [
                (part, direction.to(part))
                for part, direction in zip(pulled, self.split(along), strict=True)
                if part is not None and part.requires_grad
            ]
            parts, directions = zip(*pairs, strict=True)
            (moved,) = torch.autograd.grad(parts, u, directions, retain_graph=True)
            found.append(moved)
        f = torch.stack(found).to(v)
        return f.reshape(*w.shape[:-1], *f.shape[-2:])

    @contextmanager
    def _mode(self, noise: int | None) -> Iterator[None]:
        """The module's mode, its default dtype, and random numbers of its own."""
        if self.module.training != (noise is not None):
            self.module.train(noise is not None)
        generator, dtype = torch.default_generator, torch.get_default_dtype()
        state = generator.get_state()
        try:
            torch.set_default_dtype(self._float)
            if noise is not None:
                generator.manual_seed(noise)
            yield
        finally:
            torch.set_default_dtype(dtype)
            generator.set_state(state)

    @cached_property
    def _float(self) -> torch.dtype:
        return self.parameters[0].dtype


def _pairs(w: Tensor, x: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each network's flat weights with its rows."""
    flat = w.reshape(-1, w.shape[-1])
    rows = x.expand(*w.shape[:-1], *x.shape[-2:]).reshape(len(flat), *x.shape[-2:]) if x.ndim > 2 else [x] * len(flat)
    return zip(flat, rows, strict=True)
