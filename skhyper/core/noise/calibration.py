"""What held-out rows say of sigma or of the temperature, once members are trained.

A log factor c is fitted to the pooled log likelihood of all members' held-out rows, each under its member's own
mixture. The prediction is the mixture over all members, and its variance has their disagreement in it, which is part
of the residuals that c was fitted to: so it is taken from sigma^2 again. With v the mean of the calibrated sigma^2
and D that of the variance between members, sigma^2 is multiplied by 1 - D / v, and by no less than `LEAST`.
"""

import torch
from torch import Tensor

from .likelihood import Homoscedastic, marginal
from .objective import Model, Rows, Waves, held_out_outputs
from .predictive import best_log_factor

# Standard deviation of the prior of the log factor.
CALIBRATION_STD = 0.5
# The least factor of sigma^2 that makes room for disagreement.
LEAST = 0.25


@torch.no_grad()
def calibrate(model: Model, flat: Tensor, bank: Tensor, waves: Waves | None, rows: Rows, held: Tensor) -> Tensor:
    """The log factor of sigma, (T,), or the log temperature, (1,), that held-out rows (M, n_val) ask for."""
    parts = model.layout.split(flat)
    outputs = held_out_outputs(model, rows.x, held, parts, bank, waves)  # (M, S, n_val, O)
    y, weight = rows.y[held][:, None], rows.weight[held]
    weight = weight * (weight.numel() / weight.sum()) / len(held)
    if isinstance(model.noise, Homoscedastic):
        log_sigma = model.noise.log_sigma(parts, outputs)
        residual = (y - outputs[..., : model.noise.n_targets]) * torch.exp(-log_sigma)

        def score(c: Tensor) -> Tensor:
            c = c.to(residual)
            log_p = -0.5 * (residual * torch.exp(-c)).square() - log_sigma - c
            return (marginal(log_p, 1.0) * weight[..., None]).sum((0, 1)).double().cpu()

        factor = best_log_factor(score, model.noise.n_targets, CALIBRATION_STD)
        if len(held) == 1:
            return factor
        variance = torch.exp(2 * (log_sigma + factor.to(log_sigma))).expand_as(residual).mean(1)
        share = _mean(disagreement(model, flat, bank, waves, rows, held), weight) / _mean(variance, weight)
        return factor + 0.5 * torch.log((1 - share).clamp_min(LEAST)).double().cpu()

    def score_classes(c: Tensor) -> Tensor:
        log_p = (torch.log_softmax(outputs * torch.exp(-c.to(outputs)), -1) * y).sum(-1)
        return (marginal(log_p, 1.0) * weight).sum().double().cpu()[None]

    return best_log_factor(score_classes, 1, CALIBRATION_STD)


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
