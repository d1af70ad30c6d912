"""The learning rate over the steps: up, level, down; and runs that change their mind."""

import numpy as np
import pytest

from skhyper.core.noise.schedule import Schedule


def rates(schedule):
    return np.array([schedule.rate(step) for step in range(schedule.n_steps + 1)])


def test_the_rate_rises_stays_and_falls_along_lines():
    found = rates(Schedule(0.5, 4.0, 0.5, 20))
    expected = np.r_[[0.125, 0.25, 0.375, 0.5], np.full(6, 0.5), np.linspace(0.5, 0, 11)]
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_when_it_falls(share):
    schedule = Schedule(0.5, 0.0, share, 20)
    assert [schedule.falls(step) for step in range(20)] == [step >= 20 * share for step in range(20)]


def test_a_rate_that_stays():
    assert (rates(Schedule(0.5, 0.0, 1.0, 20)) == 0.5).all()


def test_what_is_left_can_be_stretched():
    schedule = Schedule(0.5, 0.0, 0.5, 20)
    schedule.stretch(5, 2.0)
    assert schedule.n_steps == 35
    np.testing.assert_allclose(rates(schedule)[17:], 0.5 * (35 - np.arange(17, 36).clip(17.5)) / 17.5, rtol=1e-13)


def test_it_can_fall_at_once():
    schedule = Schedule(0.5, 0.0, 0.9, 1000)
    schedule.fall(10, 5)
    assert schedule.n_steps == 15
    assert schedule.falls(10)
    np.testing.assert_allclose(rates(schedule)[10:], 0.5 * np.array([1, 0.8, 0.6, 0.4, 0.2, 0]), rtol=1e-13)
