"""The decay family in a network, layer by layer.

With l the layer of decay g, m_g the mean of w^2 over the weights that share it, and s_l^2 the mean of w^2 over the
layer in the tuned global solution, held constant,

    a_g = alpha exp(z_l) (m_g / s_l^2 + eps)^((q_l - 2) / 2).

It is `decays.py`'s family for each layer by itself. The numbers that move are the offsets of a `Hyper`: z_l of every
layer, then (q_l - 2) / UNIT unless the exponent is fixed; so zeros are the tuned global decay, and one normal prior
draws both to it. q stays between 1 and 2: the penalty is convex there. Decays of weights that vanish end at a cap, that
at which a training step takes all of a weight; beyond it steps would diverge.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from .decays import Decays, Hyper

UNIT = 0.5  # of q in offsets: as far from its prior's centre as a unit of log alpha
LOWEST = 1.0


@dataclass(frozen=True)
class LayerFamily:
    """The family of every layer.

    Parameters
    ----------
    decays : Decays
        Which weights share a decay.
    layers : Tensor of int64, shape (n_groups,)
        The layer of each decay, from 0 on.
    s2 : Tensor, shape (K, n_layers)
        s_l^2 of every fold.
    exponent : float or None
        q of all layers; None: of each layer its own, which moves.
    cap : float
        The largest decay.
    """

    decays: Decays
    layers: Tensor
    s2: Tensor
    exponent: float | None = None
    cap: float = math.inf

    @classmethod
    def at(cls, decays: Decays, layer: Tensor, w: Tensor, exponent: float | None = None, cap: float = math.inf) -> Self:
        """The family around the global solution w, (K, n_weights); `layer` has the layer of every weight."""
        layers = torch.zeros(decays.n_groups, dtype=torch.int64)
        layers[decays.groups] = layer[decays.decayed]
        layers = layers.unique(return_inverse=True)[1]
        n_layers = int(layers.max()) + 1
        sums, counts = w.new_zeros(len(w), n_layers), w.new_zeros(n_layers)
        sums.index_add_(-1, layers, decays.group_sums(w**2))
        counts.index_add_(0, layers, decays.sizes.to(w))
        return cls(decays, layers, (sums / counts).clamp(min=torch.finfo(w.dtype).tiny ** 0.5), exponent, cap)

    @property
    def n_layers(self) -> int:
        """Layers that have decays."""
        return self.s2.shape[-1]

    @property
    def n_numbers(self) -> int:
        """Numbers that move."""
        return self.n_layers * (1 + (self.exponent is None))

    def limits(self) -> tuple[Tensor, Tensor]:
        """Bounds of the numbers."""
        low = torch.full((self.n_numbers,), -torch.inf, dtype=torch.float64)
        high = -low
        low[self.n_layers :], high[self.n_layers :] = (LOWEST - 2) / UNIT, 0.0
        return low, high

    def first_fold(self, decays: Decays) -> Self:
        """The family of the first fold's network, over all rows."""
        return replace(self, decays=decays, s2=self.s2[:1])

    def exponents(self, hyper: Hyper) -> Tensor:
        """q of each layer: (n_layers,)."""
        assert hyper.offsets is not None
        if self.exponent is not None:
            return torch.full((self.n_layers,), self.exponent, dtype=torch.float64)
        return 2 + UNIT * hyper.offsets[self.n_layers :]

    def relative(self, w: Tensor) -> Tensor:
        """r = m_g / s_l^2 + eps: (K, n_groups)."""
        m = self.decays.group_sums(w**2) / self.decays.sizes.to(w)
        return m / self.s2.to(w)[:, self.layers] + self.decays.eps

    def log_decays(self, w: Tensor, hyper: Hyper) -> Tensor:
        """log a_g at the weights w: (K, n_groups)."""
        assert hyper.offsets is not None
        level = hyper.log_alpha + hyper.offsets[: self.n_layers]
        logs = level[self.layers] + (self.exponents(hyper)[self.layers] / 2 - 1) * self.relative(w).log()
        return logs.clamp(max=math.log(self.cap))

    def concavity(self, w: Tensor, hyper: Hyper) -> Tensor:
        """b_g of the penalty's Hessian diag(a) - sum_g b_g w_g w_g': (K, n_groups)."""
        a, r = self.log_decays(w, hyper).exp(), self.relative(w)
        unit = self.decays.sizes.to(w) * self.s2[:, self.layers]
        return (2 - self.exponents(hyper)[self.layers]) * a / (r * unit)

    def pull(self, w: Tensor, by_decay: Tensor) -> Tensor:
        """From d outer / d log a of every decay, (K, n_groups), to the numbers that move: (K, n_numbers)."""
        parts = [by_decay]
        if self.exponent is None:
            parts.append(by_decay * self.relative(w).log() * (UNIT / 2))
        sums = [part.new_zeros(len(part), self.n_layers).index_add_(-1, self.layers, part) for part in parts]
        return torch.cat(sums, -1)
