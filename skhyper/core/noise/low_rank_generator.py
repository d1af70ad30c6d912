"""The low-rank generator: draws differ along a few directions in each layer, W = W0 + U diag(h C) V."""

from dataclasses import dataclass
from math import sqrt

from torch import Tensor

from .generators import Draws, Generator, LayerShape, LayerTape, Pulled, affine, pull_affine
from .layout import Block, Parts


@dataclass(frozen=True)
class LowRankGenerator(Generator):
    """No weights are ever formed: x W0 + ((x U) * c) V is one pass of the main layer and two thin products.

    Parameters
    ----------
    rank : int
        r.
    """

    rank: int = 10

    def perturbation_blocks(self, name: str, shape: LayerShape) -> dict[str, Block]:
        """C, U, V, and D of the biases."""
        h, r, n = self.n_features, self.rank, shape.n_in
        scale = self._relative_spread() * shape.gain
        rate = self.spread_rate
        return {
            f"{name}.c": Block((h, r), 1 / sqrt(h), rate=rate / sqrt(h), precision=h),
            f"{name}.u": Block((n, r), 1 / sqrt(n), rate=rate / sqrt(n), precision=n),
            f"{name}.v": Block((r, shape.n_out), scale / sqrt(r), 0.0, rate / sqrt(r), r, perturbs=True),
            f"{name}.db": Block((h, shape.n_out), 0.3 * scale / sqrt(h), 0.0, 0.3 * rate / sqrt(h), h, perturbs=True),
        }

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> tuple[Tensor, LayerTape]:
        """The tape holds the scaled features h, c = h C, x U and (x U) * c."""
        h = self.scaled(parts, name, draws)
        c = h @ parts[f"{name}.c"]
        plain = (x.flatten(1, 2) @ parts[f"{name}.u"]).unflatten(1, x.shape[1:3])
        thin = plain * c[:, :, None]
        out = (thin.flatten(1, 2) @ parts[f"{name}.v"]).unflatten(1, thin.shape[1:3])
        out = out + (h @ parts[f"{name}.db"])[:, :, None]
        if self.residual:
            out = out + affine(x, parts[f"{name}.w"], parts[f"{name}.b"])
        return out, LayerTape(x, draws, (h, c, plain, thin))

    def pull(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        """Two thin products by each of x, U and V."""
        x, (h, c, plain, thin) = tape.x, tape.own
        flat = g.flatten(1, 2)
        by_thin = (flat @ parts[f"{name}.v"].mT).unflatten(1, g.shape[1:3])
        by_c, by_b = (by_thin * plain).sum(2), g.sum(2)
        by_plain = by_thin * c[:, :, None]
        if x.shape[1] < g.shape[1]:
            by_plain = by_plain.sum(1, keepdim=True)
        by_plain = by_plain.flatten(1, 2)
        by_x = (by_plain @ parts[f"{name}.u"].mT).unflatten(1, x.shape[1:3])
        found = {
            f"{name}.c": h.mT @ by_c,
            f"{name}.u": x.flatten(1, 2).mT @ by_plain,
            f"{name}.v": thin.flatten(1, 2).mT @ flat,
            f"{name}.db": h.mT @ by_b,
        }
        if self.residual:
            by_base, found[f"{name}.w"], found[f"{name}.b"] = pull_affine(x, parts[f"{name}.w"], g)
            by_x = by_x + by_base
        if not features:
            return Pulled(by_x, found, None)
        by_h = by_c @ parts[f"{name}.c"].mT + by_b @ parts[f"{name}.db"].mT
        by_features, rho = self.pull_scaled(parts, name, h, by_h)
        return Pulled(by_x, found | rho, by_features)

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0 + U diag(h C) V."""
        h = self.scaled(parts, name, draws)
        c = h @ parts[f"{name}.c"]
        w = (parts[f"{name}.u"][:, None] * c[:, :, None]) @ parts[f"{name}.v"][:, None]
        b = h @ parts[f"{name}.db"]
        if not self.residual:
            return w, b
        return parts[f"{name}.w"][:, None] + w, parts[f"{name}.b"][:, None] + b
