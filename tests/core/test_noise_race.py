"""Sinusoids as inputs; runs that pause; and the race that decides whether sinusoids are of use."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from noise_problems import GENERATORS, make_model, normal, seeded
from scipy import stats

from skhyper.core.noise.course import Course, Record
from skhyper.core.noise.dealing import hold_out
from skhyper.core.noise.inputs import FREQUENCY, periodic_inputs, plain_inputs
from skhyper.core.noise.objective import Rows
from skhyper.core.noise.race import FACTOR, LONGER, SHARE, STEPS, race
from skhyper.core.noise.scaling import robust_scaling
from skhyper.core.noise.training import Settings, Trainer


def test_sinusoids_are_cosines_and_sines_of_the_scaled_features():
    x = normal(40, 3)
    x[:, 1] = torch.arange(40) % 8  # few values
    scaling = robust_scaling(x, torch.ones(40, dtype=torch.float64))
    inputs = periodic_inputs(scaling, x, 4)
    assert inputs.columns.tolist() == [0, 2]
    np.testing.assert_allclose(inputs.frequencies, FREQUENCY * stats.halfnorm.ppf([0.125, 0.375, 0.625, 0.875]))
    found, scaled = inputs(x), scaling(x).numpy()
    assert found.shape == (40, inputs.n_columns) == (40, 3 + 2 * 8)
    angles = 2 * np.pi * scaled[:, [0, 2], None] * inputs.frequencies.numpy()
    expected = np.sqrt(2) * np.concatenate([np.cos(angles), np.sin(angles)], 2)
    np.testing.assert_allclose(found[:, :3], scaled, rtol=1e-14)
    np.testing.assert_allclose(found[:, 3:], expected.reshape(40, -1), rtol=1e-12, atol=1e-13)
    assert torch.equal(plain_inputs(scaling)(x), scaling(x))
    assert plain_inputs(scaling).n_columns == 3


def trainer(**settings):
    model, flat = make_model(GENERATORS["full"], last_only=True)
    data = Rows(normal(60, 3, seed=5), normal(60, 2, seed=6), torch.ones(60, dtype=torch.float64))
    train, test = hold_out(2, 0.25, data.y[:, 0], torch.zeros(60, dtype=torch.bool), seeded())
    chosen = Settings(**{"n_steps": 60, "batch_size": 6, "n_draws": 6, "trial": 0.25, "exponent": 1.0, **settings})
    return Trainer(model, data, train, test, None, chosen, seeded(4), 45.0), flat


def test_a_run_that_pauses_is_the_same_run():
    (job, flat), (other, _) = trainer(), trainer()
    whole, course = job.run(flat), Course(other, flat)
    for until in (1, 17, 17, 40):
        course.go(until=until)
        assert until <= course.step < until + 20
        assert not course.over
    course.go()
    assert course.over
    parts = course.finish()
    assert torch.equal(whole.flat, parts.flat)
    assert [record.step for record in whole.curve] == [record.step for record in parts.curve]
    assert whole.n_steps == parts.n_steps


class Runner:
    """A course whose held-out losses are known beforehand."""

    def __init__(self, losses, n_steps=20_000, falls=False, interrupted_at=None):
        self.losses, self.falls, self.interrupted_at = losses, falls, interrupted_at
        self.trainer = SimpleNamespace(schedule=SimpleNamespace(n_steps=n_steps))
        self.curve, self.interrupted, self.until = [], False, None

    def go(self, watch=lambda record: None, until=None):
        since, self.until = self.until or 0, until
        for step, loss in self.losses.items():
            if not since < step <= until:
                continue
            if self.interrupted_at is not None and step >= self.interrupted_at:
                self.interrupted = True
                if not self.curve:
                    raise KeyboardInterrupt
                return
            values = torch.tensor([loss, loss], dtype=torch.float64)
            self.curve.append(Record(step, values, values, values))
        best = min(float(record.held_out[0]) for record in self.curve)
        self.walk = SimpleNamespace(best_loss=torch.tensor([best] * 2))


EARLIER = int(STEPS / FACTOR)


@pytest.mark.parametrize(
    ("gain", "gained", "goes_on"),
    [
        (0.2, 0.1, "sinusoids"),
        (0.1, -0.2, "sinusoids"),
        (-0.1, -0.2, "plain"),
        (-0.1, 0.2, "plain"),
        (0.0, 0.0, "plain"),
    ],
)
def test_sinusoids_that_gain_more_than_steps_go_on(gain, gained, goes_on):
    plain = Runner({EARLIER: 1.0 + gained, EARLIER + 1: 5.0, STEPS: 1.0})
    rival = Runner({STEPS: min(plain.losses.values()) - gain})
    chosen = race(plain, lambda: rival, lambda record: None)
    assert chosen is {"sinusoids": rival, "plain": plain}[goes_on]
    assert plain.until == rival.until == STEPS


@pytest.mark.parametrize(("steps_gain", "goes_on"), [(0.0, "sinusoids"), (0.6, "plain")])
def test_what_is_undecided_is_asked_again(steps_gain, goes_on):
    """Sinusoids are ahead by .5, and steps have gained 1; later they gain nothing more, or catch up."""
    second = LONGER * STEPS
    plain = Runner({EARLIER: 2.0, second / FACTOR: 1.2, STEPS: 1.0, second: 1.0 - steps_gain})
    rival = Runner({STEPS: 0.5, second: 0.5})
    chosen = race(plain, lambda: rival, lambda record: None)
    assert chosen is {"sinusoids": rival, "plain": plain}[goes_on]
    assert plain.until == rival.until == second


def test_while_steps_gain_as_much_there_are_no_sinusoids():
    steps = range(125, 8001, 125)
    plain, rival = (Runner({k: ahead - np.log(k) for k in steps}) for ahead in (0.0, -0.5))
    assert race(plain, lambda: rival, lambda record: None) is plain
    assert plain.until == rival.until == SHARE * 20_000


def test_the_race_of_a_short_run_is_short():
    plain = Runner({100: 1.0}, n_steps=1000, falls=True)
    race(plain, lambda: pytest.fail("no rival is needed"), lambda record: None)
    assert plain.until == SHARE * 1000


@pytest.mark.parametrize("at", [1, 700])
def test_an_interruption_of_the_race_loses_nothing(at):
    plain, rival = Runner({STEPS: 1.0}), Runner({500: 0.5, 700: 0.4}, interrupted_at=at)
    assert race(plain, lambda: rival, lambda record: None) is plain
    assert plain.interrupted
