"""Reverse mode through training steps.

The steps are w_{t+1} = w_t - P^-1 (G_t + a w_t / B_t), P the metric of the training rule, held constant. With
v_T = d outer / d w_T, going back

    p_t = P^-1 v_{t+1},    v_t = v_{t+1} - H_t p_t,    d outer / d log a = - sum_t p_t a w_t / B_t.

H_t is the Hessian of the batch's penalised loss; its product with p comes from a central difference of gradients,
exact for squared loss and linear networks and right to about eight digits elsewhere.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .training import Batch, State, Trainer, penalised_gradient

DIFFERENCE = 6e-6  # cube root of the unit of rounding: length of a difference relative to the weights


class Step(NamedTuple):
    """What reverse mode needs of one step."""

    w: Tensor  # before it, (K, n_weights)
    batch: Batch
    metric: Tensor


def unrolled_steps(
    trainer: Trainer, state: State, decay: Tensor, n_steps: int, metric: Tensor
) -> tuple[State, Tensor, list[Step]]:
    """Take steps and keep what reverse mode needs; the mean loss (K,) too."""
    problem, steps, total = trainer.problem, [], state.w.new_zeros(trainer.problem.n_folds)
    for _ in range(n_steps):
        state, batch = trainer.next_batch(state)
        value, g = penalised_gradient(problem.network, problem.loss, state.w, batch, decay)
        steps.append(Step(state.w, batch, metric))
        state = state._replace(w=state.w - g / metric)
        total += value
    return state, total / max(n_steps, 1), steps


def reverse(trainer: Trainer, steps: list[Step], decay: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """V at the first step's weights, and sum_t p_t w_t / B_t, both (K, n_weights)."""
    products = torch.zeros_like(v)
    for step in reversed(steps):
        p = v / step.metric
        products += p * step.w / step.batch.unit[:, None]
        v = v - _hessian_product(trainer, step, decay, p)
    return v, products


def _hessian_product(trainer: Trainer, step: Step, decay: Tensor, p: Tensor) -> Tensor:
    """H p of the batch's penalised loss, by a central difference along p."""
    problem, size = trainer.problem, p.norm(dim=-1, keepdim=True)
    if not bool((size > 0).all()):
        return torch.zeros_like(p)
    length = DIFFERENCE * (1 + step.w.norm(dim=-1, keepdim=True)) / size
    ends = [
        penalised_gradient(problem.network, problem.loss, step.w + sign * length * p, step.batch, decay)[1]
        for sign in (1, -1)
    ]
    return (ends[0] - ends[1]) / (2 * length)
