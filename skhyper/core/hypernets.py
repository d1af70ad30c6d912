"""Hypernetworks from log-decays to weights: a best response that is learnt.

All are written as w = b + r(x), r(0) = 0 at the start, with x the log-decays relative to an origin and b weights of the
main network: the generated network starts as the main network would. Parameters are flat, (K, n_parameters), one set
a fold; x is (K, n_decays), w is (K, n_weights). The first n_weights parameters are b.

A *centred* hypernetwork has its origin at the present decays. When these move, `recentre` absorbs the shift into b.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .blocks import blocks
from .decays import Decays
from .recipe import Descent, Moments


@dataclass(frozen=True)
class Hypernet(ABC):
    """A family of maps from log-decays to weights."""

    decays: Decays

    @property
    def n_weights(self) -> int:
        """Weights of the main network."""
        return len(self.decays.index)

    @property
    @abstractmethod
    def n_parameters(self) -> int:
        """Parameters of one fold, b included."""

    @abstractmethod
    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        """Parameters with r = 0 at the origin: (K, n_weights) -> (K, n_parameters)."""

    @abstractmethod
    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        """The generated weights."""

    def at_origin(self, phi: Tensor) -> Tensor:
        """The generated weights at x = 0; may be a view of phi."""
        return self.weights(phi, phi.new_zeros(len(phi), self.decays.n_groups))

    @abstractmethod
    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of sum(g * w) with respect to phi."""

    @abstractmethod
    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of sum(g * w) with respect to x."""

    def recentre(self, phi: Tensor, shift: Tensor) -> None:
        """Move the origin by `shift` (K, n_decays), in place: the same weights there."""
        phi[:, : self.n_weights] += self.weights(phi, shift) - self.at_origin(phi)

    def packed(self, phi: Tensor) -> tuple[Tensor, ...]:
        """A copy of the parameters to remember, in parts of which the first begins with b."""
        return (phi.clone(),)

    def unpacked(self, parts: tuple[Tensor, ...]) -> Tensor:
        """The parameters again, in memory of their own."""
        return parts[0].clone()

    def step(
        self, phi: Tensor, x: Tensor, g: Tensor, descent: Descent, moments: Moments, share: float = 1.0
    ) -> Moments:
        """A step of the parameters, in place, for the gradient g with respect to the weights; may write to g."""
        return descent.step(phi, self.to_parameters(phi, x, g), moments, share)


@dataclass(frozen=True)
class Elementwise(Hypernet):
    """w_j = b_j (1 + c_j x_g(j)): a diagonal Jacobian, one number c for each weight.

    What is remembered of c has eight bits, since a learnt derivative is right to a digit or two.
    """

    @property
    def n_parameters(self) -> int:
        return 2 * self.n_weights

    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([w, torch.zeros_like(w)], -1)

    def at_origin(self, phi: Tensor) -> Tensor:
        return phi[:, : self.n_weights]

    def packed(self, phi: Tensor) -> tuple[Tensor, ...]:
        b, c = phi.split(self.n_weights, -1)
        return b.clone(), c.to(torch.bfloat16)

    def unpacked(self, parts: tuple[Tensor, ...]) -> Tensor:
        b, c = parts
        return torch.cat([b, c.to(b)], -1)

    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        w = torch.empty_like(phi[:, : self.n_weights])
        for part, (b, c) in self._parts(phi):
            torch.addcmul(b, b * c, self.decays.spread_part(x, part), out=w[:, part])
        return w

    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        by_phi = torch.empty_like(phi)
        for (part, (b, c)), (_, (by_b, by_c)) in zip(self._parts(phi), self._parts(by_phi), strict=True):
            self._pull(b, c, self.decays.spread_part(x, part), g[:, part], by_b, by_c)
        return by_phi

    def step(
        self, phi: Tensor, x: Tensor, g: Tensor, descent: Descent, moments: Moments, share: float = 1.0
    ) -> Moments:
        first, second, t = moments
        pasts = zip(self._parts(phi), self._parts(first), self._parts(second), strict=True)
        for (part, (b, c)), (_, firsts), (_, seconds) in pasts:
            by_b, by_c = torch.empty_like(b), torch.empty_like(c)
            self._pull(b, c, self.decays.spread_part(x, part), g[:, part], by_b, by_c)
            descent.move(b, by_b, Moments(firsts[0], seconds[0], t + 1), share)
            descent.move(c, by_c, Moments(firsts[1], seconds[1], t + 1), share)
        return Moments(first, second, t + 1)

    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        products = torch.empty_like(g)
        for part, (b, c) in self._parts(phi):
            torch.mul(g[:, part], b, out=products[:, part]).mul_(c)
        return self.decays.group_sums(products)

    def recentre(self, phi: Tensor, shift: Tensor) -> None:
        for part, (b, c) in self._parts(phi):
            b.addcmul_(b * c, self.decays.spread_part(shift, part))

    def _parts(self, phi: Tensor) -> Iterator[tuple[slice, tuple[Tensor, Tensor]]]:
        """Slices of b and c."""
        b, c = phi[:, : self.n_weights], phi[:, self.n_weights :]
        return ((part, (b[:, part], c[:, part])) for part in blocks(self.n_weights))

    @staticmethod
    def _pull(b: Tensor, c: Tensor, x: Tensor, g: Tensor, by_b: Tensor, by_c: Tensor) -> None:
        """The gradients by b and c, written to the last two."""
        torch.mul(g, x, out=by_c)
        torch.addcmul(g, by_c, c, out=by_b)
        by_c.mul_(b)


@dataclass(frozen=True)
class Linear(Hypernet):
    """w = b + M x: n_weights numbers for each decay."""

    @property
    def n_parameters(self) -> int:
        return self.n_weights * (1 + self.decays.n_groups)

    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([w, w.new_zeros(len(w), self.n_parameters - self.n_weights)], -1)

    def _matrix(self, phi: Tensor) -> Tensor:
        return phi[:, self.n_weights :].unflatten(-1, (self.n_weights, self.decays.n_groups))

    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        return phi[:, : self.n_weights] + (self._matrix(phi) @ x[..., None])[..., 0]

    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return torch.cat([g, (g[..., :, None] * x[..., None, :]).flatten(-2)], -1)

    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return (self._matrix(phi).mT @ g[..., None])[..., 0]


@dataclass(frozen=True)
class LowRank(Hypernet):
    """w = b + U V x, the factorised linear hypernetwork of Lorraine and Duvenaud (2018): `rank` directions in all."""

    rank: int = 10

    @property
    def n_parameters(self) -> int:
        return self.n_weights * (1 + self.rank) + self.rank * self.decays.n_groups

    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        n_groups = self.decays.n_groups
        v = torch.randn(len(w), self.rank * n_groups, generator=generator, dtype=torch.float64) / n_groups**0.5
        return torch.cat([w, w.new_zeros(len(w), self.n_weights * self.rank), v.to(w)], -1)

    def _factors(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        end = self.n_weights * (1 + self.rank)
        u = phi[:, self.n_weights : end].unflatten(-1, (self.n_weights, self.rank))
        return u, phi[:, end:].unflatten(-1, (self.rank, self.decays.n_groups))

    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        u, v = self._factors(phi)
        return phi[:, : self.n_weights] + (u @ (v @ x[..., None]))[..., 0]

    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        u, v = self._factors(phi)
        by_u = g[..., None] @ (v @ x[..., None]).mT
        by_v = (u.mT @ g[..., None]) @ x[..., None, :]
        return torch.cat([g, by_u.flatten(-2), by_v.flatten(-2)], -1)

    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        u, v = self._factors(phi)
        return (v.mT @ (u.mT @ g[..., None]))[..., 0]


@dataclass(frozen=True)
class ModuleHypernet(Hypernet):
    """w = b + module(x) - module(0) at the start: any torch module from (n_decays,) to (n_weights,), by autograd."""

    module: nn.Module

    @cached_property
    def _shapes(self) -> dict[str, torch.Size]:
        return {name: p.shape for name, p in self.module.named_parameters()}

    @property
    def n_parameters(self) -> int:
        return self.n_weights + sum(shape.numel() for shape in self._shapes.values())

    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        n, m = self.decays.n_groups, self.n_weights
        named = {name: p.detach().to(w) for name, p in self.module.named_parameters()}
        try:
            fits = functional_call(self.module, named, (w.new_zeros(n),)).shape == (m,)
        except RuntimeError:
            fits = False
        if not fits:
            raise ValueError(
                f"hypernet must map ({n},) to ({m},), the decays to the weights, of this stage of the search; give a "
                "function (n_decays, n_weights) -> module where stages have different numbers of decays."
            )
        flat = torch.cat([p.detach().to(w).flatten() for p in self.module.parameters()]).expand(len(w), -1)
        phi = torch.cat([w, flat], -1)
        phi[:, : self.n_weights] += w - self.weights(phi, w.new_zeros(len(w), self.decays.n_groups))
        return phi

    def _one(self, phi: Tensor, x: Tensor) -> Tensor:
        named: dict[str, Tensor] = {}
        at = self.n_weights
        for name, shape in self._shapes.items():
            named[name] = phi[at : at + shape.numel()].reshape(shape)
            at += shape.numel()
        out: Any = functional_call(self.module, named, (x,))
        return phi[: self.n_weights] + out

    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.stack([self._one(*pair) for pair in zip(phi, x, strict=True)])

    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return self._pulled(phi, x, g)[0]

    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        return self._pulled(phi, x, g)[1]

    def _pulled(self, phi: Tensor, x: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            phi, x = phi.detach().requires_grad_(), x.detach().requires_grad_()
            w = torch.stack([self._one(*pair) for pair in zip(phi, x, strict=True)])
            by_phi, by_x = torch.autograd.grad(w, (phi, x), g)
        return by_phi, by_x


def multilayer(decays: Decays, hidden: int, generator: torch.Generator) -> ModuleHypernet:
    """One hidden layer of tanh units, as smooth as the best response; its output layer starts small."""
    first, last = nn.Linear(decays.n_groups, hidden), nn.Linear(hidden, len(decays.index))
    with torch.no_grad():
        for layer, size in ((first, 1.0), (last, 0.01)):
            for p in layer.parameters():
                p.copy_(size * (2 * torch.rand(p.shape, generator=generator, dtype=p.dtype) - 1) / p.shape[-1] ** 0.5)
    return ModuleHypernet(decays, nn.Sequential(first, nn.Tanh(), last).to(torch.float64))
