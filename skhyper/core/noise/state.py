"""What a fitted model is, where its training starts, and copies of it."""

from typing import NamedTuple

import torch
from torch import Tensor

from .inputs import Inputs
from .likelihood import Categorical
from .objective import Model, Rows, Waves
from .rows import Data
from .scaling import Scaling


class State(NamedTuple):
    """All that a fitted model is, as tensors."""

    flat: Tensor  # (M, P)
    bank: Tensor  # (M, S, d)
    waves: Waves | None
    log_factor: Tensor  # (S, T), added to log sigma of each draw; (1, 1), log temperature
    inputs: Inputs
    y_scaling: Scaling


class Candidate(NamedTuple):
    """A model, and where its training starts."""

    model: Model
    state: State


def begin(
    model: Model, n_members: int, n_samples: int, inputs: Inputs, y_scaling: Scaling, generator: torch.Generator
) -> State:
    """A model before training: its parameters, its noise bank, its prior functions."""
    flat = model.layout.draw(n_members, generator)
    waves = model.network.draw_prior(n_members, generator)
    n_draws = n_samples if model.network.generator.stochastic else 1
    bank = model.network.generator.sample(n_members, n_draws, generator, torch.empty(0, dtype=torch.float64))
    factors = (1, 1) if isinstance(model.noise, Categorical) else (n_draws, model.noise.n_targets)
    return State(flat, bank, waves, torch.zeros(factors, dtype=torch.float64), inputs, y_scaling)


def cast(state: State, like: Tensor) -> State:
    """The state on another device or in another precision; scalings stay where they are."""
    state = state._replace(flat=state.flat.to(like), bank=state.bank.to(like))
    if state.waves is None:
        return state
    frequencies, phases, amplitudes = (part.to(like) for part in state.waves)
    return state._replace(waves=(frequencies, phases, amplitudes))


def repeated(state: State, copies: int) -> State:
    """The members several times over."""
    waves = state.waves
    if waves is not None:
        frequencies, phases, amplitudes = (part.repeat(copies, *(1,) * (part.ndim - 1)) for part in waves)
        waves = frequencies, phases, amplitudes
    return state._replace(flat=state.flat.repeat(copies, 1), bank=state.bank.repeat(copies, 1, 1), waves=waves)


def scaled_rows(state: State, data: Data, mean_weight: float, like: Tensor) -> Rows:
    """What training sees of the data: inputs, scaled targets, and weights over that of a training row on average."""
    weight = data.weight / mean_weight
    x, y, weight = (values.to(like) for values in (state.inputs(data.x), state.y_scaling(data.y), weight))
    return Rows(x, y, weight)
