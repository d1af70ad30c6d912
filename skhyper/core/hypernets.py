"""Hypernetworks from log-decays to weights: a best response that is learnt.

All are written as w = b + r(x), r(0) = 0 at the start, with x the log-decays relative to an origin and b weights of the
main network: the generated network starts as the main network would. Parameters are flat, (K, n_parameters), one set
a fold; x is (K, n_decays), w is (K, n_weights). The first n_weights parameters are b.

A *centred* hypernetwork has its origin at the present decays. When these move, `recentre` absorbs the shift into b.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .decays import Decays


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

    @abstractmethod
    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of sum(g * w) with respect to phi."""

    @abstractmethod
    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        """The gradient of sum(g * w) with respect to x."""

    def recentre(self, phi: Tensor, shift: Tensor) -> None:
        """Move the origin by `shift` (K, n_decays), in place: the same weights there."""
        phi[:, : self.n_weights] += self.weights(phi, shift) - self.weights(phi, torch.zeros_like(shift))


@dataclass(frozen=True)
class Elementwise(Hypernet):
    """w_j = b_j (1 + c_j x_g(j)): a diagonal Jacobian, one number c for each weight."""

    @property
    def n_parameters(self) -> int:
        return 2 * self.n_weights

    def start(self, w: Tensor, generator: torch.Generator) -> Tensor:
        return torch.cat([w, torch.zeros_like(w)], -1)

    def weights(self, phi: Tensor, x: Tensor) -> Tensor:
        b, c = phi[:, : self.n_weights], phi[:, self.n_weights :]
        return torch.addcmul(b, b * c, self.decays.spread(x))

    def to_parameters(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        b, c = phi[:, : self.n_weights], phi[:, self.n_weights :]
        by_phi = torch.empty_like(phi)
        by_b, by_c = by_phi[:, : self.n_weights], by_phi[:, self.n_weights :]
        moved = torch.mul(g, self.decays.spread(x), out=by_c)
        torch.addcmul(g, moved, c, out=by_b)
        moved.mul_(b)
        return by_phi

    def to_decays(self, phi: Tensor, x: Tensor, g: Tensor) -> Tensor:
        b, c = phi[:, : self.n_weights], phi[:, self.n_weights :]
        return self.decays.group_sums((g * b).mul_(c))


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
        v = torch.randn(len(w), self.rank * n_groups, generator=generator, dtype=w.dtype) / n_groups**0.5
        return torch.cat([w, w.new_zeros(len(w), self.n_weights * self.rank), v], -1)

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
