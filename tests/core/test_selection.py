"""The paired rule and stacking, on losses and predictions that are given."""

import numpy as np
import pytest
from scipy.optimize import minimize

from skhyper.core.selection import PULL, choose, stacking_weights

NAN, INF = np.nan, np.inf


def test_a_clear_gain_is_taken():
    assert choose(np.array([[1.0, 1.2, 0.9], [0.8, 1.0, 0.7], [0.9, 1.1, 0.8]])) == 1


def test_a_gain_within_its_standard_error_is_left():
    """Mean gain .1; the differences are 1.1, -.9, .1: standard error .577."""
    losses = np.array([[2.0, 2.0, 2.0], [0.9, 2.9, 1.9]])
    assert choose(losses, standard_errors=0.2) == 0
    assert choose(losses, standard_errors=0.1) == 1
    error = np.std([1.1, -0.9, 0.1], ddof=1) / np.sqrt(3)
    assert choose(losses, standard_errors=0.1 / error * 1.001) == 0
    assert choose(losses, standard_errors=0.1 / error * 0.999) == 1


def test_the_rule_is_paired():
    """Folds differ by far more than rows do; every fold agrees on the gain."""
    folds = np.array([1.0, 10.0, 100.0])
    assert choose(np.array([folds, folds - 0.01]), standard_errors=2) == 1


def test_the_rule_does_not_depend_on_the_unit_of_the_loss():
    rng = np.random.default_rng(0)
    for _ in range(50):
        losses = rng.random((4, 5)) + [[0.1], [0], [0], [0]]
        assert choose(losses) == choose(1e-6 * losses) == choose(1e6 * losses)


def test_equal_losses_keep_row_0():
    assert choose(np.ones((3, 4))) == 0


def test_one_fold_takes_any_gain():
    assert choose(np.array([[1.0], [0.999], [1.1]])) == 1
    assert choose(np.array([[1.0], [1.0]])) == 0


@pytest.mark.parametrize("bad", [NAN, INF])
def test_rows_that_are_not_finite_are_never_chosen(bad):
    assert choose(np.array([[1.0, 1.0], [bad, 0.0], [0.5, 0.5]])) == 2
    assert choose(np.array([[1.0, 1.0], [-bad, 0.0], [1.5, 1.5]])) == 0


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_row_0_that_is_not_finite_is_left_for_the_best_that_is(bad):
    assert choose(np.array([[bad, 1.0], [3.0, 3.0], [2.0, 2.0]])) == 2


def test_no_finite_row_leaves_row_0():
    assert choose(np.full((3, 4), NAN)) == 0


def predictions(m=4, n=40, n_outputs=1, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.standard_normal((n, n_outputs))
    f = y + rng.standard_normal((m, n, n_outputs)) * np.linspace(0.3, 0.6, m)[:, None, None]
    return f + 0.3 * rng.standard_normal((n, n_outputs)), y, rng.exponential(size=n)


def stacking_objective(v, f, y, c):
    m = len(f)
    spread = (c[:, None] * (f - f.mean(0)) ** 2).sum((1, 2)).mean()
    return (c[:, None] * (y - np.tensordot(v, f, 1)) ** 2).sum() + PULL * spread * ((v - 1 / m) ** 2).sum()


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_stacking_weights_are_the_minimum_on_the_simplex(n_outputs, seed):
    """Non-negative, sum one, and no better for scipy's general solver; slopes are equal where weights are positive."""
    f, y, c = predictions(n_outputs=n_outputs, seed=seed)
    v = stacking_weights(f, y, c)
    assert v.min() >= 0
    assert v.sum() == pytest.approx(1)
    other = minimize(
        stacking_objective,
        np.full(4, 0.25),
        (f, y, c),
        bounds=[(0, 1)] * 4,
        constraints={"type": "eq", "fun": lambda v: v.sum() - 1},
        options={"ftol": 1e-14},
    )
    assert stacking_objective(v, f, y, c) <= other.fun * (1 + 1e-7)
    eye = np.eye(4) * 1e-6
    slopes = [(stacking_objective(v + e, f, y, c) - stacking_objective(v - e, f, y, c)) / 2e-6 for e in eye]
    used = np.array(slopes)[v > 1e-9]
    assert np.ptp(used) < 1e-4 * abs(used).max()
    assert min(slopes) >= used.min() - 1e-4 * abs(used).max()


def test_stacking_leaves_out_a_row_that_only_adds_noise():
    f, y, c = predictions()
    f[3] = 10 * np.random.default_rng(1).standard_normal(f[3].shape)
    assert stacking_weights(f, y, c, pull=0)[3] < 0.01


def test_a_strong_pull_leads_to_equal_weights():
    np.testing.assert_allclose(stacking_weights(*predictions(), pull=1e6), 0.25, atol=1e-4)


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e5])
def test_stacking_does_not_depend_on_the_units_of_the_target_and_of_the_weights(unit):
    f, y, c = predictions()
    np.testing.assert_allclose(stacking_weights(unit * f, unit * y, c), stacking_weights(f, y, c), atol=1e-6)
    np.testing.assert_allclose(stacking_weights(f, y, unit * c), stacking_weights(f, y, c), atol=1e-6)


def test_stacking_counts_a_row_of_weight_two_as_two_rows():
    f, y, _ = predictions()
    c = np.ones(len(y))
    c[:7] = 2
    copies = np.r_[np.arange(len(y)), np.arange(7)]
    np.testing.assert_allclose(
        stacking_weights(f, y, c), stacking_weights(f[:, copies], y[copies], np.ones(len(copies))), atol=1e-6
    )


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_rows_that_predict_the_same_have_finite_weights(error):
    """Perfect predictions and imperfect ones, all alike."""
    y = np.random.default_rng(0).standard_normal((20, 1))
    v = stacking_weights(np.stack([y + error] * 3), y, np.ones(20))
    assert v.min() >= 0
    assert v.sum() == pytest.approx(1)
