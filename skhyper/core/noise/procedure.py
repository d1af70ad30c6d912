"""The fit as a whole: hold out, train all members, calibrate on what was held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import torch
from torch import Tensor

from .calibration import Judged, calibrate
from .course import Course, Record, Watch
from .dealing import MembersRows, effective, hold_out, hold_out_copies
from .likelihood import Categorical, FixedScale
from .objective import Model
from .race import race
from .rows import Data
from .state import Candidate, State, cast, repeated, scaled_rows
from .training import Settings, Trainer


class Fit(NamedTuple):
    """A state of a model, and how it came about."""

    model: Model
    state: State
    curve: list[Record]
    n_rollbacks: int
    optimizer: tuple[Tensor, Tensor, int]
    n_steps: int
    dropped: bool  # whether the noise was
    interrupted: bool
    judged: Judged | None  # what rows say of sigma, where training does not move it


@dataclass(frozen=True)
class Holding:
    """What is held out.

    Parameters
    ----------
    share : float
        Of the rows, for each member; 0: nothing.
    n_given : int
        The last rows of the data are the user's own held-out rows.
    copies : bool
        Whether it is copies of distinct rows that are held out, as many as their weights say.
    """

    share: float = 0.0
    n_given: int = 0
    copies: bool = False

    def rows(self, data: Data, n_members: int, categorical: bool, generator: torch.Generator) -> MembersRows:
        """Training and held-out rows of each member."""
        n = len(data.x) - self.n_given
        everything = torch.arange(n).expand(n_members, n)
        if self.n_given:
            given = torch.arange(n, n + self.n_given).expand(n_members, self.n_given)
            return MembersRows(data, everything, given, effective(data.weight[n:]))
        if not self.share:
            return MembersRows(data, everything, None, effective(data.weight))
        strata = data.y.argmax(1) if categorical else data.y[:, 0]
        keep = torch.zeros(n, dtype=torch.bool)
        if categorical:  # one row of each class stays with every member
            order = torch.randperm(n, generator=generator)
            for k in range(data.y.shape[1]):
                keep[order[strata[order] == k][:1]] = True
        if self.copies:
            return hold_out_copies(n_members, self.share, data, keep, generator)
        train, held = hold_out(n_members, self.share, strata, keep, generator)
        return MembersRows(data, train, held, effective(data.weight[held.unique()]))


@dataclass(frozen=True)
class Job:
    """What to train, and on what: a copy of each candidate for each alpha, all as one batch.

    The copies start from the same weights and hold out the same rows.

    Parameters
    ----------
    candidates : one or two
        Where there are two, held-out rows choose whether the second goes on in the place of the first.
    data : Data
        Raw rows.
    holding : Holding
    settings : Settings
    alphas : sequence of float
        In the place of the settings' own.
    generator : torch.Generator
    like : Tensor
        Its dtype and device are those of the training.
    splitter : torch.Generator
        Of what is held out; the same one as `generator` where an earlier run has not fixed it.
    optimizer : moments and number of steps, or None
        Where an earlier run ended.
    before : Judged or None
        What the rows of earlier runs said of sigma, if training rows are what it is fitted to.
    """

    candidates: Sequence[Candidate]
    data: Data
    holding: Holding
    settings: Settings
    alphas: Sequence[float]
    generator: torch.Generator
    like: Tensor
    splitter: torch.Generator
    optimizer: tuple[Tensor, Tensor, int] | None = None
    before: Judged | None = None

    @cached_property
    def rows(self) -> MembersRows:
        """What each member trains on and holds out."""
        categorical = isinstance(self.candidates[0].model.noise, Categorical)
        m = len(self.candidates[0].state.flat)
        return self.holding.rows(self.data, m, categorical, self.splitter)

    def courses(self) -> list[Callable[[], Course]]:
        """How the run of each candidate begins: all hold out the same rows, and draw the same noise."""
        members, like, copies = self.rows, self.like, len(self.alphas)
        train = members.train.repeat(copies, 1).to(like.device)
        held = None if members.held is None else members.held.repeat(copies, 1).to(like.device)
        weights = members.data.weight[members.train]
        n_train, mean_weight = float(weights.sum(1).mean()), float(weights.mean())
        each = torch.tensor(self.alphas, dtype=torch.float64).repeat_interleave(len(members.train))
        seed = int(torch.randint(2**62, (), generator=self.generator))

        def begin(candidate: Candidate) -> Course:
            model, state = candidate
            rows, start = scaled_rows(state, members.data, mean_weight, like), repeated(cast(state, like), copies)
            noise = torch.Generator(like.device).manual_seed(seed)
            trainer = Trainer(model, rows, train, held, start.waves, self.settings, noise, n_train, each, copies)
            return Course(trainer, start.flat, self.optimizer)

        return [partial(begin, candidate) for candidate in self.candidates]

    def fits(self, course: Course) -> list[Fit]:
        """The copies as a course leaves them, calibrated."""
        chosen = next(candidate for candidate in self.candidates if candidate.model is course.trainer.model)
        trained, trainer, model = course.finish(), course.trainer, chosen.model
        # The squared loss knows no sigma: without held-out rows it is that of the training rows.
        alone = trainer.held_rows is None and isinstance(model.noise, FixedScale)
        judges = trainer.train_rows if alone else trainer.held_rows
        work, m = cast(chosen.state, trainer.rows.x), len(chosen.state.flat)
        fits = []
        for k in range(len(self.alphas)):
            own = slice(k * m, (k + 1) * m)
            fitted = work._replace(flat=trained.flat[own])
            factor, judged = chosen.state.log_factor, None
            if judges is not None:
                by = self.rows.n_judges, self.before if alone else None
                factor, judged = calibrate(model, *fitted[:3], trainer.rows, judges[own], *by)
            back = cast(fitted, torch.empty(0, dtype=torch.float64))._replace(log_factor=factor)
            first, second, done = trained.optimizer
            curve = [Record(record.step, *(values[own] for values in record[1:])) for record in trained.curve]
            n_rollbacks = int(trained.n_rollbacks[own].sum())
            moments = first[own], second[own], done
            kept = judged if isinstance(model.noise, FixedScale) else None
            ends = trained.n_steps, trained.dropped, trained.interrupted, kept
            fits.append(Fit(model, back, curve, n_rollbacks, moments, *ends))
        return fits


def run(job: Job, watch: Watch = lambda record: None) -> list[Fit]:
    """Train, and calibrate: a fit for each alpha."""
    starts = job.courses()
    course = starts[0]()
    if len(starts) > 1:  # nothing holds the run that does not go on
        course = race(course, starts[1], watch)
    course.go(watch)
    return job.fits(course)
