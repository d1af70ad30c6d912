"""The fit as a whole: scale, hold out, train all members, calibrate on what was held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .calibration import calibrate
from .dealing import hold_out
from .likelihood import Categorical, FixedScale
from .objective import Model, Rows, Waves
from .rows import Data
from .scaling import Scaling, moments
from .training import Record, Settings, Trainer

Watch = Callable[[Record], None]


class State(NamedTuple):
    """All that a fitted model is, as tensors."""

    flat: Tensor  # (M, P)
    bank: Tensor  # (M, S, d)
    waves: Waves | None
    log_factor: Tensor  # (S, T), added to log sigma of each draw; (1, 1), log temperature
    x_scaling: Scaling
    y_scaling: Scaling


class Fit(NamedTuple):
    """A state and how it came about."""

    state: State
    curve: list[Record]
    n_rollbacks: int
    optimizer: tuple[Tensor, Tensor, int]
    n_steps: int
    dropped: bool  # whether the noise was
    interrupted: bool


@dataclass(frozen=True)
class Holding:
    """What is held out.

    Parameters
    ----------
    share : float
        Of the rows, for each member; 0: nothing.
    n_given : int
        The last rows of the data are the user's own held-out rows.
    """

    share: float = 0.0
    n_given: int = 0

    def rows(
        self, data: Data, n_members: int, categorical: bool, generator: torch.Generator
    ) -> tuple[Tensor, Tensor | None]:
        """Training and held-out rows of each member."""
        n = len(data.x) - self.n_given
        everything = torch.arange(n).expand(n_members, n)
        if self.n_given:
            return everything, torch.arange(n, n + self.n_given).expand(n_members, self.n_given)
        if not self.share:
            return everything, None
        strata = data.y.argmax(1) if categorical else data.y[:, 0]
        keep = torch.zeros(n, dtype=torch.bool)
        if categorical:  # one row of each class stays with every member
            order = torch.randperm(n, generator=generator)
            for k in range(data.y.shape[1]):
                keep[order[strata[order] == k][:1]] = True
        return hold_out(n_members, self.share, strata, keep, generator)


def target_scaling(y: Tensor, weight: Tensor) -> Scaling:
    """Mean 0 and standard deviation 1; constant targets are only centred."""
    mean, deviation = moments(y, weight)
    return Scaling(mean, 1 / torch.where(deviation > 0, deviation, torch.ones_like(deviation)), torch.inf)


def identity(n: int) -> Scaling:
    """Of one-hot targets."""
    return Scaling(torch.zeros(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64), torch.inf)


def begin(
    model: Model, n_members: int, n_samples: int, x_scaling: Scaling, y_scaling: Scaling, generator: torch.Generator
) -> State:
    """A model before training: its parameters, its noise bank, its prior functions."""
    flat = model.layout.draw(n_members, generator)
    waves = model.network.draw_prior(n_members, generator)
    n_draws = n_samples if model.network.generator.stochastic else 1
    bank = model.network.generator.sample(n_members, n_draws, generator, torch.empty(0, dtype=torch.float64))
    factors = (1, 1) if isinstance(model.noise, Categorical) else (n_draws, model.noise.n_targets)
    return State(flat, bank, waves, torch.zeros(factors, dtype=torch.float64), x_scaling, y_scaling)


def cast(state: State, like: Tensor) -> State:
    """The state on another device or in another precision; scalings stay where they are."""
    state = state._replace(flat=state.flat.to(like), bank=state.bank.to(like))
    if state.waves is None:
        return state
    frequencies, phases, amplitudes = (part.to(like) for part in state.waves)
    return state._replace(waves=(frequencies, phases, amplitudes))


def run(
    model: Model,
    state: State,
    data: Data,
    holding: Holding,
    settings: Settings,
    generator: torch.Generator,
    like: Tensor,
    watch: Watch = lambda record: None,
    optimizer: tuple[Tensor, Tensor, int] | None = None,
) -> Fit:
    """Train from `state` on raw rows, and calibrate.

    Parameters
    ----------
    like : Tensor
        Its dtype and device are those of the training.
    optimizer : moments and number of steps, or None
        Where an earlier run ended.
    """
    alphas = [settings.alpha]
    (fit,) = run_alphas(model, state, data, holding, settings, alphas, generator, like, watch, optimizer)
    return fit


def run_alphas(
    model: Model,
    state: State,
    data: Data,
    holding: Holding,
    settings: Settings,
    alphas: Sequence[float],
    generator: torch.Generator,
    like: Tensor,
    watch: Watch = lambda record: None,
    optimizer: tuple[Tensor, Tensor, int] | None = None,
) -> list[Fit]:
    """Train a copy of `state` for each of some alphas, in the place of the settings' own, all as one batch.

    The copies start from the same weights and hold out the same rows; the other parameters are those of `run`.
    """
    categorical = isinstance(model.noise, Categorical)
    m, copies = len(state.flat), len(alphas)
    train_rows, held_rows = holding.rows(data, m, categorical, generator)
    weight = data.weight / data.weight.mean()
    rows = Rows(*(v.to(like) for v in (state.x_scaling(data.x), state.y_scaling(data.y), weight)))
    n_train = float(data.weight.sum() * train_rows.shape[1] / len(data.x))
    work = cast(state, like)
    device = like.device
    noise = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    trainer = Trainer(
        model,
        rows,
        train_rows.repeat(copies, 1).to(device),
        None if held_rows is None else held_rows.repeat(copies, 1).to(device),
        repeated(work, copies).waves,
        settings,
        noise,
        n_train,
        torch.tensor(alphas, dtype=torch.float64).repeat_interleave(m),
        copies,
    )
    trained = trainer.run(repeated(work, copies).flat, watch, optimizer)
    # The squared loss knows no sigma: without held-out rows it is that of the training rows.
    judges = train_rows if held_rows is None and isinstance(model.noise, FixedScale) else held_rows
    fits = []
    for k in range(copies):
        own = slice(k * m, (k + 1) * m)
        fitted = work._replace(flat=trained.flat[own])
        factor = state.log_factor
        if judges is not None:
            factor = calibrate(model, fitted.flat, fitted.bank, fitted.waves, rows, judges.to(device))
        back = cast(fitted, torch.empty(0, dtype=torch.float64))._replace(log_factor=factor)
        first, second, done = trained.optimizer
        curve = [Record(record.step, *(values[own] for values in record[1:])) for record in trained.curve]
        n_rollbacks = int(trained.n_rollbacks[own].sum())
        moments = first[own], second[own], done
        ends = trained.n_steps, trained.dropped, trained.interrupted
        fits.append(Fit(back, curve, n_rollbacks, moments, *ends))
    return fits


def repeated(state: State, copies: int) -> State:
    """The members several times over."""
    waves = state.waves
    if waves is not None:
        frequencies, phases, amplitudes = (part.repeat(copies, *(1,) * (part.ndim - 1)) for part in waves)
        waves = frequencies, phases, amplitudes
    return state._replace(flat=state.flat.repeat(copies, 1), bank=state.bank.repeat(copies, 1, 1), waves=waves)
