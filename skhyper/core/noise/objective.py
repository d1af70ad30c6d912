"""The losses of all members and their gradients.

The loss of a member is, over its n training rows with weights s_i of mean 1 and draws z_k,

    mean_i s_i [-(1/a) log mean_k exp(a log p(y_i | x_i, z_k))] + alpha / (2 n) sum_j c_j w_j^2

with c_j the number of inputs of the layer that w_j belongs to: a Gaussian prior of variance 1 / (alpha c_j), which
`training.py` adds; there n is the sum of the weights as users give them. Members share no parameter. By log p(y_i |
x_i, z_k) the first term has the derivative -s_i r_k, where r_k = p_k^a / sum_l p_l^a is the responsibility of a draw
for the row. In regression, where draws see the same rows, lambda s_i (y_i - m_i)^2 / (2 v_i) is added, with m_i and v_i
the mean and the variance of the mixture over the draws, v_i held constant: likelihood alone cares little for the mean
of a density that is far from Gaussian.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from .dealing import Groups
from .layout import Layout, Parts
from .likelihood import Homoscedastic, NoiseModel, marginal
from .network import PLAIN, StochasticMLP

Waves = tuple[Tensor, Tensor, Tensor]

# Numbers in the activations of a layer where held-out rows are judged.
MAX_ACTIVATIONS = 2**23


@dataclass(frozen=True)
class Model:
    """The main network and its noise model."""

    network: StochasticMLP
    noise: NoiseModel

    @property
    def layout(self) -> Layout:
        """All parameters of a member."""
        return Layout({**self.network.blocks(), **self.noise.blocks()})

    @property
    def plain(self) -> "Model":
        """The same without noise; it takes the same parts and leaves those of the perturbation aside."""
        return replace(self, network=replace(self.network, generator=PLAIN))


class Rows(NamedTuple):
    """The data: inputs (n, p), targets (n, T), weights of mean 1 (n,)."""

    x: Tensor
    y: Tensor
    weight: Tensor


class Batch(NamedTuple):
    """Rows of each member, (M, B, ...)."""

    x: Tensor
    y: Tensor
    weight: Tensor
    prior: Tensor | None

    def grouped(self, shape: tuple[int, int]) -> "Batch":
        """B split into (G, R)."""
        x, y, weight = (value.unflatten(1, shape) for value in self[:3])
        return Batch(x, y, weight, None if self.prior is None else self.prior.unflatten(1, shape))


@dataclass
class Objective:
    """Losses on rows of the data.

    Parameters
    ----------
    model : Model
    rows : Rows
    waves : Waves or None
        The members' prior functions.
    exponent : float
        a.
    mean_weight : float
        lambda.
    generator : torch.Generator
        Of noise.
    """

    model: Model
    rows: Rows
    waves: Waves | None
    exponent: float
    mean_weight: float
    generator: torch.Generator

    def __post_init__(self) -> None:
        self.layout = self.model.layout
        self.packed = torch.cat([self.rows.x, self.rows.y, self.rows.weight[:, None]], 1)
        self.widths = [self.rows.x.shape[1], self.rows.y.shape[1], 1]
        self.prior = self.model.network.prior(self.waves, self.rows.x[None])  # (M, n, O)
        self.held_names = [name for name, block in self.layout.blocks.items() if block.held]

    def noise(self, n_members: int, n_draws: int) -> Tensor:
        """z, (M, n_draws, d)."""
        return self.model.network.generator.sample(n_members, n_draws, self.generator, self.rows.x)

    def batch(self, index: Tensor) -> Batch:
        """Rows (M, B)."""
        x, y, weight = self.packed[index].split(self.widths, -1)
        prior = None
        if self.prior is not None:
            prior = self.prior.gather(1, index[..., None].expand(-1, -1, self.prior.shape[-1]))
        return Batch(x, y, weight[..., 0], prior)

    def loss(self, parts: Parts, index: Tensor, groups: Groups, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The losses of the members on rows (M, B), (M,), and their gradients by the blocks, all without the prior.

        z is the noise of the groups, (M, G, d).
        """
        g, r, repeated = groups
        network, noise = self.model.network, self.model.noise
        batch = self.batch(index[:, : r if repeated else g * r]).grouped((1, r) if repeated else (g, r))
        tape = network.forward(parts, batch.x, z, batch.prior, self.generator)
        scored = noise.score(parts, tape.outputs, batch.y)
        if repeated:
            share = batch.weight / r
            losses, by_log_p = self._pooled(scored.log_p, share * scored.importance.mean(1, keepdim=True))
            by_penalty = share / g
        else:
            by_penalty = batch.weight / (g * r)
            by_log_p = -by_penalty * scored.importance
            losses = (by_log_p * scored.log_p).sum((1, 2))
        losses = losses + (by_penalty * scored.penalty).sum((1, 2))
        by_outputs, found = noise.pull(parts, scored, by_log_p, by_penalty)
        if self.mean_weight and repeated and g > 1 and isinstance(noise, Homoscedastic):
            error, slope = noise.mean_error(scored)
            weight = self.mean_weight * share * scored.importance.mean(1, keepdim=True)
            losses = losses + (weight * error).sum((1, 2))
            by_outputs[..., : noise.n_targets] += weight[..., None] * slope / g
        return losses, found | network.pull(parts, tape, by_outputs)

    def _pooled(self, log_p: Tensor, share: Tensor, exponent: float | None = None) -> tuple[Tensor, Tensor]:
        """The negative log marginal likelihood of rows with weights (M, 1, R), (M,), and its slope, (M, G, R)."""
        exponent = self.exponent if exponent is None else exponent
        losses = -(share[:, 0] * marginal(log_p, exponent)).sum(1)
        return losses, -share * torch.softmax(exponent * log_p, 1)

    def held_out_slope(self, parts: Parts, z: Tensor, held: Tensor) -> Tensor:
        """The gradient by what follows held-out rows (M, n_val) of their negative log marginal likelihood.

        That of a member is the mean over its rows, by their weights: (M, number of hyperparameters).
        """
        network, noise = self.model.network, self.model.noise
        batch = self.batch(held).grouped((1, held.shape[1]))
        tape = network.forward(parts, batch.x, z, batch.prior)
        scored = noise.score(parts, tape.outputs, batch.y)
        share = batch.weight / batch.weight.sum(2, keepdim=True)
        _, by_log_p = self._pooled(scored.log_p, share, 1.0)
        by_outputs, _ = noise.pull(parts, scored, by_log_p, torch.zeros_like(share))
        found = network.pull(parts, tape, by_outputs, spread=True, lowest=network.lowest_noisy)
        return torch.cat([found[name].reshape(len(held), -1) for name in self.held_names], 1)

    def spread(self, parts: Parts, z: Tensor) -> Tensor:
        """Mean over the weights that the noise moves of their standard deviation over draws, (M,)."""
        network = self.model.network
        draws = network.generator.draws(parts, z)
        moved = [generator.weights(parts, name, draws) for name, _, generator in network.layers if generator.stochastic]
        spreads = [values.flatten(2).std(1) for pair in moved for values in pair]
        return torch.cat(spreads, 1).mean(1) if spreads else z.new_zeros(len(z))


def held_out_outputs(model: Model, x: Tensor, held: Tensor, parts: Parts, z: Tensor, waves: Waves | None) -> Tensor:
    """Outputs at each member's held-out rows, a few draws at a time: (M, G, n_val, O)."""
    network = model.network
    width = max((*network.hidden[network.lowest_noisy :], network.n_outputs))  # of what draws do not share
    size = max(1, MAX_ACTIVATIONS // (held.numel() * width))
    own = x[held]
    return torch.cat([network.outputs(parts, own, draws, waves) for draws in z.split(size, 1)], 1)
