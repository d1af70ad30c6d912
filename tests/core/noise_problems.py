"""Small networks that several tests of weights from noise share."""

import torch

from skhyper.core.noise.full_generator import FullGenerator
from skhyper.core.noise.likelihood import Homoscedastic, marginal
from skhyper.core.noise.low_rank_generator import LowRankGenerator
from skhyper.core.noise.network import StochasticMLP
from skhyper.core.noise.objective import Model, held_out_outputs
from skhyper.core.noise.point_generator import PointGenerator

GENERATORS = {
    "full": FullGenerator(noise_dim=3),
    "full, hidden": FullGenerator(noise_dim=3, hidden=(5, 4), scale_input=True),
    "full, no base": FullGenerator(noise_dim=3, hidden=(4,), residual=False),
    "low rank": LowRankGenerator(noise_dim=3, rank=2),
    "low rank, hidden, no base": LowRankGenerator(noise_dim=3, hidden=(4,), residual=False, rank=2),
    "point": PointGenerator(noise_dim=1),
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def make_model(generator, n_features=3, n_outputs=2, hidden=(6, 5), noise=None, **options):
    """A model, and parameters of two members that are all away from zero."""
    noise = noise or Homoscedastic(n_outputs)
    model = Model(StochasticMLP(n_features, noise.n_outputs, hidden, "tanh", generator, **options), noise)
    flat = model.layout.draw(2, seeded(1))
    return model, flat + 0.1 * normal(*flat.shape, seed=2)


def held_out_loss(job, flat, z, rows):
    """Negative log marginal likelihood of rows that the members of a trainer hold out, (M, n_val) -> (M,)."""
    parts, weight = job.layout.split(flat), job.rows.weight[rows]
    outputs = held_out_outputs(job.model, job.rows.x, rows, parts, z, job.waves)
    log_p = marginal(job.model.noise.score(parts, outputs, job.rows.y[rows][:, None]).log_p, 1.0)
    return -(weight * log_p).sum(1) / weight.sum(1)
