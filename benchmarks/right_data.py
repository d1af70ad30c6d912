"""Random data sets of ten kinds for every loss that a linear model can have, drawn from seeds.

A kind says what is awkward about the columns or the rows. Whatever the columns look like in the end, the targets follow
a linear predictor of unit variance in a few latent columns, so that there is something to find but in "no signal".
"""

from typing import NamedTuple

import numpy as np

KINDS = (
    "plain",
    "collinear",
    "near duplicates",
    "six decades",
    "offsets",
    "copies of rows",
    "unbalanced",
    "another unit",
    "wide",
    "no signal",
)


class Task(NamedTuple):
    """Training rows, and fresh ones of the same law."""

    X: np.ndarray
    y: np.ndarray
    X_fresh: np.ndarray
    y_fresh: np.ndarray


def draw(kind, target, seed, n_fresh=2000):
    """A data set; `target` is one of "real", "binary", "three", "counts", "positive", "mixed"."""
    for attempt in range(100):
        rng = np.random.default_rng([seed, attempt, KINDS.index(kind), sum(map(ord, target))])
        task = _draw(kind, target, rng, n_fresh)
        if target not in ("binary", "three") or np.bincount(task.y, minlength=2 + (target == "three")).min() >= 3:
            return task
    raise ValueError(f"no data set of kind {kind!r} with rows of every class from seed {seed}")


def _draw(kind, target, rng, n_fresh):
    n = int(np.exp(rng.uniform(np.log(20), np.log(300))))
    p = int(rng.integers(1, 61))
    if kind == "wide":
        n, p = int(rng.integers(20, 41)), int(rng.integers(40, 61))
    if kind in ("collinear", "near duplicates", "six decades", "another unit"):
        p = max(p, 2)
    rows = np.arange(n)
    if kind == "copies of rows":
        rows = rng.integers(0, max(n // 3, 7), n)
    latent = rng.standard_normal((n + n_fresh, p))
    latent = np.concatenate([latent[:n][rows], latent[n:]])
    used = rng.permutation(p)[: max(1, int(rng.integers(1, p + 1) * rng.uniform(0.2, 1)))]
    strength = 0.0 if kind == "no signal" else rng.uniform(0.3, 3)
    predictors = strength * _unit(latent[:, used] @ rng.standard_normal((len(used), 3)))
    y = _target(target, kind, predictors, rows, rng)
    X = _columns(kind, latent, rng)
    return Task(X[:n], y[:n], X[n:], y[n:])


def _unit(x):
    return x / x.std(axis=0)


def _columns(kind, latent, rng):
    p = latent.shape[1]
    if kind == "collinear":
        rank = int(rng.integers(1, p))
        mixed = latent[:, :rank] @ rng.standard_normal((rank, p)) / np.sqrt(rank)
        return mixed + 10 ** rng.uniform(-6, -0.5) * latent
    if kind == "near duplicates":
        X = latent.copy()
        half = p // 2
        X[:, half : 2 * half] = X[:, :half] + 10 ** rng.uniform(-6, -1) * X[:, half : 2 * half]
        return X
    if kind == "six decades":
        return latent * 10 ** rng.uniform(-3, 3, p)
    if kind == "offsets":
        return latent + 10 ** rng.uniform(1, 5, p) * rng.choice([-1, 1], p)
    if kind == "another unit":
        X = latent.copy()
        X[:, rng.integers(p)] *= 10 ** rng.uniform(1, 4)
        return X
    return latent


def _target(target, kind, predictors, rows, rng):
    """Targets of the rows; copies of a row have one target."""
    n, eta = len(predictors), predictors[:, 0]
    noise, uniform = rng.standard_normal((n, 3)), rng.uniform(size=n)
    first = {row: i for i, row in reversed(list(enumerate(rows)))}
    same = np.array([first[row] for row in rows] + list(range(len(rows), n)))
    noise, uniform = noise[same], uniform[same]
    if target == "real":
        scale = rng.uniform(0.2, 2) * (1.0 if kind != "unbalanced" else np.exp(1.5 * np.abs(noise[:, 1])))
        return eta + scale * noise[:, 0]
    if target == "binary":
        shift = -2.5 if kind == "unbalanced" else rng.uniform(-0.5, 0.5)
        return (uniform < 1 / (1 + np.exp(-1.7 * eta - shift))).astype(int)
    if target == "three":
        shift = np.array([0.0, -1.0, -2.5]) if kind == "unbalanced" else rng.uniform(-0.5, 0.5, 3)
        gumbel = -np.log(-np.log(rng.uniform(size=(n, 3))[same]))
        return (1.5 * predictors + shift + gumbel).argmax(axis=1)
    mean = np.exp(0.5 * eta + rng.uniform(-0.5, 2) - 2 * (kind == "unbalanced"))
    if target == "positive":
        shape = rng.uniform(0.5, 4)
        return mean * np.maximum(rng.gamma(shape, size=n)[same] / shape, 1e-3)
    counts = rng.poisson(mean)[same].astype(float)
    if target == "counts":
        return counts
    return np.where(counts > 0, rng.gamma(np.maximum(counts, 0.5) * 2, size=n)[same] / 2, 0.0)
