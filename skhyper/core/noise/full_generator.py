"""The full generator: every weight has its own linear form of the features, W = W0 + sum_k h_k D_k."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from .generators import Draws, Generator, LayerShape, LayerTape, Pulled, affine, pull_affine
from .layout import Block, Parts


@dataclass(frozen=True)
class FullGenerator(Generator):
    """Explicit weights where rows share a draw; else sum_k h_k (x D_k), and no weights are ever formed.

    Rows with draws of their own take the sum over k and the inputs at once, or the products x D_k first where these
    are fewer numbers: a row has H n_in of the one and H n_out of the other. The products also serve draws that see the
    same rows, where they are no fewer than the features: they are then those of all draws.
    """

    def perturbation_blocks(self, name: str, shape: LayerShape) -> dict[str, Block]:
        """D, (H, n_in * n_out), and the same for the biases."""
        h, scale = self.n_features, self._relative_spread() * shape.gain
        rate = self.spread_rate / sqrt(shape.n_in * h)
        size, precision = shape.n_in * shape.n_out, shape.n_in * float(h)
        return {
            f"{name}.dw": Block((h, size), scale / sqrt(shape.n_in * h), 0.0, rate, precision, perturbs=True),
            f"{name}.db": Block(
                (h, shape.n_out), 0.3 * scale / sqrt(h), 0.0, 0.3 * self.spread_rate / sqrt(h), h, perturbs=True
            ),
        }

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> tuple[Tensor, LayerTape]:
        """The tape holds the scaled features, and the explicit weights, the products h_k x, or the products x D_k."""
        h = self.scaled(parts, name, draws)
        if self._shares_products(x, h):
            return self._apply_products(parts, name, x, draws, h)
        if x.shape[2] > 1 or x.shape[1] == 1:
            w, b = self._weights(parts, name, h)
            own = x.expand(-1, w.shape[1], -1, -1).flatten(0, 1)
            out = torch.baddbmm(b.flatten(0, 1)[:, None], own, w.flatten(0, 1)).unflatten(0, w.shape[:2])
            return out, LayerTape(x, draws, (h, w))
        if self._narrows(parts, name, x):
            return self._apply_narrow(parts, name, x, draws, h)
        outer = (h[..., None] * x).flatten(2)  # (M, G, H n_in)
        out = outer @ self._tall(parts, name, x) + h @ parts[f"{name}.db"]
        if self.residual:
            out = out + affine(x, parts[f"{name}.w"], parts[f"{name}.b"])[:, :, 0]
        return out[:, :, None], LayerTape(x, draws, (h, outer))

    def pull(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        """By the same route as `apply`."""
        if self._shares_products(tape.x, tape.own[0]):
            return self._pull_products(parts, name, tape, g, features)
        if tape.x.shape[2] > 1 or tape.x.shape[1] == 1:
            return self._pull_weights(parts, name, tape, g, features)
        narrows = self._narrows(parts, name, tape.x)
        return (self._pull_narrow if narrows else self._pull_outer)(parts, name, tape, g, features)

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0 + sum_k h_k D_k."""
        return self._weights(parts, name, self.scaled(parts, name, draws))

    def _weights(self, parts: Parts, name: str, h: Tensor) -> tuple[Tensor, Tensor]:
        dw, db = parts[f"{name}.dw"], parts[f"{name}.db"]
        if not self.residual:
            w, b = h @ dw, h @ db
        else:
            w = torch.baddbmm(parts[f"{name}.w"].flatten(1)[:, None], h, dw)
            b = torch.baddbmm(parts[f"{name}.b"][:, None], h, db)
        return w.unflatten(-1, (-1, b.shape[-1])), b

    def _shares_products(self, x: Tensor, h: Tensor) -> bool:
        """Whether all draws see the same rows, and are many."""
        return self.residual and x.shape[1] == 1 < h.shape[1] and h.shape[2] <= h.shape[1]

    def _wide(self, parts: Parts, name: str) -> Tensor:
        """D transposed, (M, H n_out, n_in)."""
        n_out = parts[f"{name}.db"].shape[-1]
        return parts[f"{name}.dw"].unflatten(-1, (-1, n_out)).mT.flatten(1, 2)

    def _apply_products(self, parts: Parts, name: str, x: Tensor, draws: Draws, h: Tensor) -> tuple[Tensor, LayerTape]:
        m, n_draws, n_features = h.shape
        wide = self._wide(parts, name)
        products = torch.baddbmm(parts[f"{name}.db"].flatten(1)[..., None], wide, x[:, 0].mT)
        products = products.view(m, n_features, -1)  # (M, H, n_out R)
        moved = (h @ products).view(m, n_draws, -1, x.shape[2]).mT
        return moved + affine(x, parts[f"{name}.w"], parts[f"{name}.b"]), LayerTape(x, draws, (h, products, wide))

    def _pull_products(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        h, products, wide = tape.own
        by_moved = g.mT.flatten(2)  # (M, G, n_out R)
        by_products = (h.mT @ by_moved).unflatten(-1, g.shape[:1:-1]).flatten(1, 2)  # (M, H n_out, R)
        by_x, by_w, by_b = pull_affine(tape.x, parts[f"{name}.w"], g)
        by_x = by_x + (by_products.mT @ wide)[:, None]
        by_wide = (by_products @ tape.x[:, 0]).unflatten(1, (h.shape[2], -1))  # (M, H, n_out, n_in)
        found = {
            f"{name}.w": by_w,
            f"{name}.b": by_b,
            f"{name}.dw": by_wide.mT.flatten(2),
            f"{name}.db": by_products.sum(2).unflatten(1, (h.shape[2], -1)),
        }
        if not features:
            return Pulled(by_x, found, None)
        by_features, rho = self.pull_scaled(parts, name, h, by_moved @ products.mT)
        return Pulled(by_x, found | rho, by_features)

    def _narrows(self, parts: Parts, name: str, x: Tensor) -> bool:
        """Whether the layer has fewer outputs than inputs."""
        return parts[f"{name}.db"].shape[-1] < x.shape[-1]

    def _apply_narrow(self, parts: Parts, name: str, x: Tensor, draws: Draws, h: Tensor) -> tuple[Tensor, LayerTape]:
        wide = self._wide(parts, name)
        products = torch.baddbmm(parts[f"{name}.db"].flatten(1)[:, None], x[:, :, 0], wide.mT)
        products = products.unflatten(-1, (h.shape[-1], -1))  # (M, G, H, n_out)
        out = (h[..., None] * products).sum(2)[:, :, None]
        if self.residual:
            out = out + affine(x, parts[f"{name}.w"], parts[f"{name}.b"])
        return out, LayerTape(x, draws, (h, products, wide))

    def _pull_narrow(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        h, products, wide = tape.own
        n_features = h.shape[-1]
        by_products = (h[..., None] * g).flatten(2)  # (M, G, H n_out)
        by_x = (by_products @ wide)[:, :, None]
        by_wide = (by_products.mT @ tape.x[:, :, 0]).unflatten(1, (n_features, -1))  # (M, H, n_out, n_in)
        found = {
            f"{name}.dw": by_wide.mT.flatten(2),
            f"{name}.db": by_products.sum(1).unflatten(-1, (n_features, -1)),
        }
        if self.residual:
            by_base, found[f"{name}.w"], found[f"{name}.b"] = pull_affine(tape.x, parts[f"{name}.w"], g)
            by_x = by_x + by_base
        if not features:
            return Pulled(by_x, found, None)
        by_features, rho = self.pull_scaled(parts, name, h, (products * g).sum(-1))
        return Pulled(by_x, found | rho, by_features)

    def _tall(self, parts: Parts, name: str, x: Tensor) -> Tensor:
        """D as (M, H n_in, n_out)."""
        return parts[f"{name}.dw"].unflatten(-1, (x.shape[-1], -1)).flatten(1, 2)

    def _pull_weights(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        h, w = tape.own
        n_groups = w.shape[1]
        flat = g.flatten(0, 1)
        rows = tape.x.expand(-1, n_groups, -1, -1).flatten(0, 1)
        by_w = torch.bmm(rows.mT, flat).unflatten(0, w.shape[:2]).flatten(2)  # (M, G, n_in n_out)
        by_b = g.sum(2)
        by_x = torch.bmm(flat, w.flatten(0, 1).mT).unflatten(0, w.shape[:2])
        if tape.x.shape[1] < n_groups:
            by_x = by_x.sum(1, keepdim=True)
        found = {f"{name}.dw": h.mT @ by_w, f"{name}.db": h.mT @ by_b}
        if self.residual:
            found |= {f"{name}.w": by_w.sum(1), f"{name}.b": by_b.sum(1)}
        if not features:
            return Pulled(by_x, found, None)
        by_h = by_w @ parts[f"{name}.dw"].mT + by_b @ parts[f"{name}.db"].mT
        by_features, rho = self.pull_scaled(parts, name, h, by_h)
        return Pulled(by_x, found | rho, by_features)

    def _pull_outer(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        h, outer = tape.own
        own = g[:, :, 0]
        by_outer = (own @ self._tall(parts, name, tape.x).mT).unflatten(-1, (h.shape[-1], -1))  # (M, G, H, n_in)
        by_x = (by_outer * h[..., None]).sum(2, keepdim=True)
        found = {f"{name}.dw": (outer.mT @ own).unflatten(1, (h.shape[-1], -1)).flatten(2), f"{name}.db": h.mT @ own}
        if self.residual:
            by_base, found[f"{name}.w"], found[f"{name}.b"] = pull_affine(tape.x, parts[f"{name}.w"], g)
            by_x = by_x + by_base
        if not features:
            return Pulled(by_x, found, None)
        by_h = (by_outer * tape.x).sum(-1) + own @ parts[f"{name}.db"].mT
        by_features, rho = self.pull_scaled(parts, name, h, by_h)
        return Pulled(by_x, found | rho, by_features)
