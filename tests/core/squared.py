"""Squared-loss problems in a few words, for the tests of the closed form and of the procedure."""

import numpy as np
import torch

from skhyper.core.decays import EPS, Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.losses import SquaredError
from skhyper.core.networks import LinearNetwork
from skhyper.core.problem import Problem

GRANULARITIES = ("global", "output", "feature", "weight", "groups")


def tensor(x):
    """A float64 tensor of whatever."""
    return torch.as_tensor(np.asarray(x), dtype=torch.float64)


def hyper(log_alpha, exponent=2.0, offsets=None):
    """Hyperparameters from numbers."""
    return Hyper(tensor(log_alpha), tensor(exponent), None if offsets is None else tensor(offsets))


def decay_index(granularity, p, n_outputs, extra):
    """Weight -> decay for coefficients that are laid out feature by feature; `extra` weights have none."""
    feature, output = torch.arange(p).repeat_interleave(n_outputs), torch.arange(n_outputs).repeat(p)
    index = {
        "global": torch.zeros_like(feature),
        "output": output,
        "feature": feature,
        "weight": torch.arange(p * n_outputs),
        "groups": feature.flip(0) // 3,
    }[granularity]
    return torch.cat([index, torch.full((extra,), -1)])


def kfold(n, k):
    """Row weights (K, n) of training and validation rows, rows dealt out in turn."""
    held_out = torch.arange(n) % k == torch.arange(k)[:, None]
    return (~held_out).double(), held_out.double()


def problem(x, y, granularity="feature", *, k=5, sample_weight=None, intercept=True, eps=EPS, splits=None):
    """K folds of a ridge problem; k=0 is one fold that trains on all rows (and validates on them)."""
    x, y = tensor(x), tensor(y)
    y = y[:, None] if y.ndim == 1 else y
    train, validation = splits or (kfold(len(x), k) if k else (torch.ones(1, len(x)).double(),) * 2)
    if sample_weight is not None:
        train, validation = train * tensor(sample_weight), validation * tensor(sample_weight)
    validation = validation / validation.sum(-1, keepdim=True)
    n_outputs = y.shape[1]
    network = LinearNetwork(x.shape[-1], n_outputs, intercept)
    decays = Decays(decay_index(granularity, x.shape[-1], n_outputs, n_outputs * intercept), eps=eps)
    loss = SquaredError()
    counts = None if sample_weight is None else tensor(sample_weight)
    return Problem(DenseDesign(x), y, train, validation, network, loss, loss, decays, counts)


def regression(n, p, n_outputs=1, *, correlation=0.0, sparse=0, noise=1.0, seed=0):
    """A design with equally correlated columns and targets; `sparse` columns matter (0: all)."""
    rng = np.random.default_rng(seed)
    x = np.sqrt(1 - correlation) * rng.standard_normal((n, p))
    x += np.sqrt(correlation) * rng.standard_normal((n, 1))
    w = rng.standard_normal((p, n_outputs))
    if sparse:
        w[sparse:] = 0
    y = x @ w + noise * rng.standard_normal((n, n_outputs)) + 2.0
    return x, y[:, 0] if n_outputs == 1 else y
