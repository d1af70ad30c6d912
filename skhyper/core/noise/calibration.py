"""What held-out rows say of sigma or of the temperature, in training and after it, and of the use of noise.

A log factor c is fitted to the pooled log likelihood of all members' held-out rows, each under its member's own
mixture. The prediction is the mixture over all members, and its variance has their disagreement in it, which is part
of the residuals that c was fitted to: so it is taken from sigma^2 again. With v the mean of the calibrated sigma^2
and D that of the variance between members, sigma^2 is multiplied by 1 - D / v, and by no less than `LEAST`.

Few rows do not know c well: the draws of the noise bank take it from a normal distribution about the fitted one, with
the standard deviation `UNCERTAINTY` / sqrt(n), n the number of held-out rows. The mixture then has the heavier tails of
a predictive distribution whose scale is uncertain.
"""

from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .layout import Parts
from .likelihood import LOG_2PI, Homoscedastic, NoiseModel, marginal
from .objective import Model, Rows, Waves, held_out_outputs
from .predictive import best_log_factor

# Standard deviation of the prior of the log factor.
CALIBRATION_STD = 0.5
# The least factor of sigma^2 that makes room for disagreement.
LEAST = 0.25
# Standard deviation of the log factor over draws, times the square root of the number of held-out rows.
UNCERTAINTY = 2.0
# Earlier rows that count where the factor is fitted to one call's rows after another's.
MEMORY = 1000.0
# Steps of a sequence that fills (0, 1) evenly, however long it is.
GOLDEN = (5**0.5 - 1) / 2


class Gain(NamedTuple):
    """Of the log likelihood of a row, and its standard error."""

    mean: float
    error: float


class Calibrated(NamedTuple):
    """The log factor of sigma, (T,), or the log temperature, (1,), and log p of held-out rows with it, (M, n_val)."""

    factor: Tensor
    log_p: Tensor


def fit_factor(noise: NoiseModel, parts: Parts, outputs: Tensor, y: Tensor, weight: Tensor) -> Calibrated:
    """The factor that held-out rows ask for, each under its member's own mixture.

    Parameters
    ----------
    outputs : Tensor of shape (M, S, n_val, O)
    y : Tensor of shape (M, n_val, T)
    weight : Tensor of shape (M, n_val)
    """
    weight = weight * (weight.numel() / weight.sum()) / len(weight)
    y = y[:, None]
    if isinstance(noise, Homoscedastic):
        log_sigma = noise.log_sigma(parts, outputs)
        half_squares = 0.5 * ((y - outputs[..., : noise.n_targets]) * torch.exp(-log_sigma)).square()
        base = -0.5 * LOG_2PI - log_sigma

        def by_target(c: Tensor) -> Tensor:
            c = c.to(half_squares)
            return marginal(base - half_squares * torch.exp(-2 * c), 1.0) - c

        def score(c: Tensor) -> Tensor:
            return (_finite(by_target(c)) * weight[..., None]).sum((0, 1)).double().cpu()

        factor = best_log_factor(score, noise.n_targets, CALIBRATION_STD)
        return Calibrated(factor, by_target(factor).sum(-1))

    def of_classes(c: Tensor) -> Tensor:
        return marginal((torch.log_softmax(outputs * torch.exp(-c.to(outputs)), -1) * y).sum(-1), 1.0)

    def score_classes(c: Tensor) -> Tensor:
        return (_finite(of_classes(c)) * weight).sum().double().cpu()[None]

    factor = best_log_factor(score_classes, 1, CALIBRATION_STD)
    return Calibrated(factor, of_classes(factor))


def _finite(log_p: Tensor) -> Tensor:
    """Rows of a member that diverged say nothing."""
    return torch.nan_to_num(log_p, nan=0.0, posinf=0.0, neginf=0.0)


class Judged(NamedTuple):
    """What rows say of the log factor, (T,), before it makes room for disagreement, and how many they are."""

    factor: Tensor
    n_rows: float


class Calibration(NamedTuple):
    """Log factors of sigma of the bank, (S, T), or one log temperature, (1, 1), of labels; and where they are from."""

    log_factor: Tensor
    judged: Judged


@torch.no_grad()
def calibrate(
    model: Model,
    flat: Tensor,
    bank: Tensor,
    waves: Waves | None,
    rows: Rows,
    held: Tensor,
    n_rows: float,
    before: Judged | None = None,
) -> Calibration:
    """By held-out rows (M, n_val).

    `n_rows` is how many somebody holds out. Mean squares of residuals are pooled with those of `before`, which count
    as at most `MEMORY` rows.
    """
    parts, noise = model.layout.split(flat), model.noise
    outputs = held_out_outputs(model, rows.x, held, parts, bank, waves)
    weight = rows.weight[held]
    factor = fit_factor(noise, parts, outputs, rows.y[held], weight).factor
    if not isinstance(noise, Homoscedastic):
        return Calibration(factor[None], Judged(factor, n_rows))
    if before is not None:
        old = min(before.n_rows, MEMORY)
        squares = n_rows * torch.exp(2 * factor) + old * torch.exp(2 * before.factor)
        n_rows = n_rows + old
        factor = 0.5 * torch.log(squares / n_rows)
    judged = Judged(factor, n_rows)
    moved = UNCERTAINTY / sqrt(n_rows) * normal_levels(bank.shape[1])[:, None]
    if len(held) == 1:
        return Calibration(factor + moved, judged)
    log_sigma = noise.log_sigma(parts, outputs)
    variance = torch.exp(2 * (log_sigma + factor.to(log_sigma)))
    variance = variance.expand(*outputs.shape[:-1], noise.n_targets).mean(1)
    share = _mean(disagreement(model, flat, bank, waves, rows, held), weight) / _mean(variance, weight)
    room = 0.5 * torch.log((1 - share).clamp_min(LEAST)).double().cpu()
    return Calibration(factor + room + moved, judged)


def normal_levels(n_draws: int) -> Tensor:
    """Quantiles of N(0, 1) for the draws of a bank, scaled to the mean square 1, (S,); one pair of draws, or one: zero.

    Both of a mirrored pair have the same, so that sigma has nothing to do with the mean; and the first few are spread
    as all are.
    """
    n_pairs = (n_draws + 1) // 2
    order = ((torch.arange(n_pairs, dtype=torch.float64) * GOLDEN + 0.5) % 1).argsort().argsort()
    levels = torch.special.ndtri((order.double() + 0.5) / n_pairs)
    scale = levels.square().mean().sqrt().clamp_min(torch.finfo(levels.dtype).tiny)
    return (levels / scale).repeat_interleave(2)[:n_draws]


def calibrated_losses(
    model: Model, flat: Tensor, z: Tensor, waves: Waves | None, rows: Rows, held: Tensor, n_fits: int
) -> Tensor:
    """Negative log likelihood of each member's held-out rows with the factor that its fit's members ask for, (M,)."""
    parts, weight = model.layout.split(flat), rows.weight[held]
    outputs = held_out_outputs(model, rows.x, held, parts, z, waves)
    size = len(flat) // n_fits
    losses = []
    for k in range(n_fits):
        own = slice(k * size, (k + 1) * size)
        part = {name: values[own] for name, values in parts.items()}
        log_p = fit_factor(model.noise, part, outputs[own], rows.y[held[own]], weight[own]).log_p
        losses.append(-(weight[own] * log_p).sum(1) / weight[own].sum(1))
    return torch.cat(losses)


def gain_of_noise(model: Model, flat: Tensor, z: Tensor, waves: Waves | None, rows: Rows, held: Tensor) -> Gain:
    """What the draws z gain in the log likelihood of held-out rows over weights without noise, each with its factor."""
    parts, y, weight = model.layout.split(flat), rows.y[held], rows.weight[held]
    noisy, plain = (
        fit_factor(model.noise, parts, held_out_outputs(model, rows.x, held, parts, draws, waves), y, weight).log_p
        for draws in (z, torch.zeros_like(z[:, :1]))
    )
    share, gain = weight / weight.sum(), noisy - plain
    mean = (share * gain).sum()
    return Gain(float(mean), float((share * (gain - mean)).square().sum().sqrt()))


def _mean(values: Tensor, weight: Tensor) -> Tensor:
    """Over rows: (M, n_val, T), (M, n_val) -> (T,)."""
    return (values * weight[..., None]).sum((0, 1)) / weight.sum()


def disagreement(model: Model, flat: Tensor, bank: Tensor, waves: Waves | None, rows: Rows, held: Tensor) -> Tensor:
    """The variance of the mean between members as each one's held-out rows show it, (M, n_val, T).

    It is the square of a member's distance from the mean of all, by its own held-out rows: the other members may have
    trained on them, so that their variance alone would be too small. For members with independent errors of the same
    size the expectation is the variance between them.
    """
    parts, m = model.layout.split(flat), len(flat)
    means = held_out_outputs(model, rows.x, held.flatten().expand(m, -1), parts, bank, waves).mean(1)
    means = means[..., : model.noise.n_targets].unflatten(1, held.shape)  # by member, of each one's rows
    return (torch.einsum("mmnt->mnt", means) - means.mean(0)).square()
