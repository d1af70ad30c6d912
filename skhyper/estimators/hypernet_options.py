"""From the words of HypernetRegressor and HypernetClassifier to configurations of the core."""

from collections.abc import Callable
from itertools import pairwise
from math import inf
from numbers import Integral
from typing import Any

import numpy as np
import torch

from ..core.noise.dealing import Dealing
from ..core.noise.full_generator import FullGenerator
from ..core.noise.generators import Generator
from ..core.noise.inputs import Inputs, periodic_inputs, plain_inputs
from ..core.noise.likelihood import NoiseModel
from ..core.noise.low_rank_generator import LowRankGenerator
from ..core.noise.network import ACTIVATIONS as ACTIVATIONS
from ..core.noise.network import StochasticMLP
from ..core.noise.point_generator import PointGenerator
from ..core.noise.rows import Data
from ..core.noise.scaling import Scaling, no_scaling, robust_scaling, standard_scaling
from ..core.noise.training import Settings

# At most this many distinct rows: full batch, and weights equal repeated rows exactly.
SMALL_ROWS = 100
SMALL_STEPS = 500

# Shares of the rows that each member holds out, and the number of rows below which none are.
SHARE, SMALL_SHARE = 0.1, 0.25
LEAST_ROWS = 12
# Held-out rows without which "auto" holds out none.
LEAST_HELD = 2

# Copies of cells are held out one by one where weights say how many there are: where they are whole numbers, or so many
# times the number of cells; other weights may be precisions.
COPIES = 4.0

# Numbers in a full generator above which "auto" takes low rank.
MAX_FULL = 2**19

# Passes of "auto", and the bounds of its updates; the lower one is smaller for few rows.
PASSES = 300
MIN_STEPS, MAX_STEPS, STEPS_PER_ROW = 18000, 36000, 60

# Frequencies of "auto", and the most sinusoids that it considers.
N_FREQUENCIES, MAX_SINUSOIDS = 4, 512

# Steps without noise that cost as much as one with it.
SPARED = 1.8

SCALINGS: dict[str | None, Callable[[torch.Tensor, torch.Tensor], Scaling]] = {
    "robust": robust_scaling,
    "standard": standard_scaling,
    None: no_scaling,
}

# The settings of Sheikh et al. (2017) that regression and classification share, and what they leave open.
PAPER: dict[str, Any] = {
    "activation": "relu",
    "generator": "full",
    "noise_layers": "all",
    "noise_trial": 0.0,
    "residual": False,
    "noise_dim": 20,
    "hypernet_hidden_layer_sizes": (100, 50),
    "hypernet_dropout": 0.5,
    "input_noise": 0.5,
    "objective": 0.0,
    "n_train_samples": 1,
    "draws": "row",
    "n_samples": 100,
    "n_estimators": 1,
    "prior_scale": 0.0,
    "alpha": 0.0,
    "learning_rate_init": 0.01,
    "learning_rate": "constant",
    "batch_size": 1,
    "max_iter": 2000,
    "early_stopping": False,
    "n_frequencies": 0,
    "preprocessing": "standard",
}


def layer_sizes(values: Any, name: str) -> tuple[int, ...]:
    """Sizes of hidden layers, checked.

    Raises
    ------
    ValueError
        If one of them is no positive integer.
    """
    sizes = np.atleast_1d(np.asarray(values, dtype=object)).tolist()
    if not all(isinstance(size, Integral) and size > 0 for size in sizes):
        raise ValueError(f"{name} must hold positive integers, got {values!r}.")
    return tuple(int(size) for size in sizes)


def resolve_generator(estimator: Any, sizes: tuple[int, ...]) -> Generator:
    """The generator of weights.

    Parameters
    ----------
    estimator : BaseHypernet
    sizes : tuple of int
        Of all layers of the main network, input and output among them.
    """
    hidden = layer_sizes(estimator.hypernet_hidden_layer_sizes, "hypernet_hidden_layer_sizes")
    kind = estimator.generator
    if kind == "auto":
        generated = list(pairwise(sizes))[-1:] if estimator.noise_layers == "last" else pairwise(sizes)
        n_weights = sum((a + 1) * b for a, b in generated)
        kind = "full" if n_weights * (int(estimator.noise_dim), *hidden)[-1] <= MAX_FULL else "low_rank"
    if kind == "none":
        return PointGenerator(1)
    common = {
        "noise_dim": int(estimator.noise_dim),
        "hidden": hidden,
        "dropout": float(estimator.hypernet_dropout),
        "residual": bool(estimator.residual),
        "scale_input": not estimator.residual,
        "frames": estimator.draws == "shared" and estimator.noise_layers == "last",
    }
    if kind == "full":
        return FullGenerator(**common)
    return LowRankGenerator(**common, rank=int(estimator.noise_dim))


def resolve_network(estimator: Any, n_features: int, noise: NoiseModel) -> StochasticMLP:
    """The main network."""
    hidden = layer_sizes(estimator.hidden_layer_sizes, "hidden_layer_sizes")
    return StochasticMLP(
        n_features,
        noise.n_outputs,
        hidden,
        estimator.activation,
        resolve_generator(estimator, (n_features, *hidden, noise.n_outputs)),
        feature_scales=bool(estimator.residual),
        skip=bool(estimator.residual),
        input_noise=float(estimator.input_noise),
        prior_scale=float(estimator.prior_scale),
        first_gain=estimator._first_gain if estimator.residual else 1.0,
        last_only=estimator.noise_layers == "last",
    )


def resolve_inputs(estimator: Any, data: Data, chooses: bool) -> list[Inputs]:
    """What the network sees of the rows; two of them where held-out rows are to choose."""
    scaling = SCALINGS[estimator.preprocessing](data.x, data.weight)
    plain, count = plain_inputs(scaling), estimator.n_frequencies
    if count != "auto":
        return [periodic_inputs(scaling, data.x, int(count)) if count else plain]
    if not chooses:
        return [plain]
    periodic = periodic_inputs(scaling, data.x, N_FREQUENCIES)
    n_sinusoids = periodic.n_columns - plain.n_columns
    return [plain, periodic] if 0 < n_sinusoids <= MAX_SINUSOIDS else [plain]


def resolve_settings(
    estimator: Any, small: bool, n_rows: int, n_given: int | None = None, one_pass: bool = False
) -> Settings:
    """How to train on n_rows distinct rows, where n_given came; a batch has the same share of both.

    Raises
    ------
    ValueError
        If the batch size exceeds the number of rows.
    """
    batch, n_given = estimator.batch_size, n_rows if n_given is None else n_given
    if batch == "auto":
        batch = n_rows if small else auto_batch(n_rows)
    elif batch > n_given and not one_pass:
        kind = "distinct training rows" if small and n_rows == n_given else "training rows"
        raise ValueError(f"batch_size must be at most the number of {kind}, {n_given}, got {batch}.")
    elif n_rows < n_given:
        batch = max(1, round(batch * n_rows / n_given))
    batch = min(int(batch), n_rows)
    per_pass = max(1, n_rows // batch)
    if one_pass:
        n_steps = per_pass
    elif estimator.max_iter == "auto":
        n_steps = (
            SMALL_STEPS if small else int(np.clip(PASSES * per_pass, min(MIN_STEPS, STEPS_PER_ROW * n_rows), MAX_STEPS))
        )
    else:
        n_steps = int(estimator.max_iter) * per_pass
    stochastic = estimator.generator != "none"
    trial = stochastic and estimator.residual and not small and not one_pass
    level = one_pass or estimator.learning_rate == "constant"
    return Settings(
        n_steps=n_steps,
        batch_size=batch,
        learning_rate=float(estimator.learning_rate_init),
        **({"warmup": 0.0, "decay_from": 1.0} if level else {}),
        alpha=float(estimator.alpha),
        exponent=float(estimator.objective),
        mean_weight=float(estimator._mean_weight),
        n_draws=int(estimator.n_train_samples) if stochastic else 1,
        dealing=Dealing(estimator.draws) if stochastic and not (small and not one_pass) else Dealing.SHARED,
        trial=float(estimator.noise_trial) if trial else 0.0,
        patience=inf if level else float(estimator.patience),
        spared=SPARED if estimator.max_iter == "auto" else 1.0,
        optimizer=estimator.solver,
    )


def auto_batch(n_rows: int) -> int:
    """A power of two from 32 to 256, near a sixteenth of the rows."""
    return int(np.clip(2 ** round(np.log2(max(1, n_rows) / 16)), 32, 256))


def resolve_device(name: str) -> torch.device:
    """The device; "auto" is CUDA where it is available.

    Raises
    ------
    ValueError
        If the name is no device of this machine.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        there = torch.zeros(1, device=name)
        there.cpu()
        return there.device
    # Unknown names, and backends without a device; torch without CUDA; devices that hold no numbers, as "meta".
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ValueError(f'device must be "auto" or a device of this machine, got {name!r}.') from error
