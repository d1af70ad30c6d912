"""No noise: the main network itself, trained by the same means."""

from dataclasses import dataclass

from torch import Tensor

from .generators import Draws, Generator, LayerShape, LayerTape, Pulled, affine, pull_affine
from .layout import Block, Parts


@dataclass(frozen=True)
class PointGenerator(Generator):
    """W = W0."""

    @property
    def stochastic(self) -> bool:
        """Draws are all the same."""
        return False

    @property
    def learns_features(self) -> bool:
        """There are none."""
        return False

    def blocks(self) -> dict[str, Block]:
        """There is no hidden network."""
        return {}

    def draws(self, parts: Parts, z: Tensor) -> Draws:
        """The noise itself, which nothing reads."""
        return Draws(z, z, [], [])

    def perturbation_blocks(self, name: str, shape: LayerShape) -> dict[str, Block]:
        """None."""
        return {}

    def apply(self, parts: Parts, name: str, x: Tensor, draws: Draws) -> tuple[Tensor, LayerTape]:
        """x W0 + b0."""
        return affine(x, parts[f"{name}.w"], parts[f"{name}.b"]), LayerTape(x, draws, ())

    def pull(self, parts: Parts, name: str, tape: LayerTape, g: Tensor, features: bool) -> Pulled:
        """Of a plain layer."""
        by_x, by_w, by_b = pull_affine(tape.x, parts[f"{name}.w"], g)
        return Pulled(by_x, {f"{name}.w": by_w, f"{name}.b": by_b}, None)

    def weights(self, parts: Parts, name: str, draws: Draws) -> tuple[Tensor, Tensor]:
        """W0, for every draw."""
        w, b = parts[f"{name}.w"], parts[f"{name}.b"]
        g = draws.features.shape[1]
        return w[:, None].expand(-1, g, -1, -1), b[:, None].expand(-1, g, -1)
