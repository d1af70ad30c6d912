"""HypernetRegressor: bounded targets and split conformal intervals."""

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import make_friedman1

from skhyper import HypernetRegressor, HyperTrainingSearchCV

X, Y = make_friedman1(160, noise=1.0, random_state=0)
SHARE = (Y - Y.min()) / (Y.max() - Y.min())
Y2 = np.stack([SHARE, Y], 1)


def regressor(**parameters):
    fast = {"n_estimators": 2, "max_iter": 20, "n_samples": 6, "hidden_layer_sizes": (10,), "random_state": 0}
    return HypernetRegressor(**{**fast, **parameters})


def test_predictions_respect_bounds():
    model = regressor(bounds=(0, 1)).fit(X, SHARE)
    far = 10 * X
    assert model.predict(far).min() >= 0
    assert model.predict(far).max() <= 1
    assert model.predict_interval(far, 0.99).min() >= 0
    assert model.predict_quantiles(far, [0.999]).max() <= 1
    draws = model.sample_y(far, 20)
    assert draws.min() >= 0
    assert draws.max() <= 1
    np.testing.assert_allclose(model.cdf(far, np.ones(len(X))), 1, rtol=1e-12)
    assert np.isneginf(model.log_prob(X[:2], [-0.1, 1.1])).all()
    total, aleatoric, epistemic = model.predict_uncertainty(far)
    np.testing.assert_allclose(total, aleatoric + epistemic)
    np.testing.assert_allclose(total, model.predict(far, return_std=True)[1] ** 2, rtol=1e-8, atol=1e-12)


def test_bounds_are_those_of_the_plain_prediction_given_the_support():
    plain, bounded = regressor().fit(X, SHARE), regressor(bounds=(0, None)).fit(X, SHARE)
    below = plain.cdf(X, np.zeros(len(X)))
    expected = (plain.cdf(X, SHARE) - below) / (1 - below)
    np.testing.assert_allclose(bounded.cdf(X, SHARE), expected, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(bounded.log_prob(X, SHARE), plain.log_prob(X, SHARE) - np.log1p(-below), rtol=1e-8)


def test_bounds_of_each_target():
    model = regressor(bounds=([0, -np.inf], [1, np.inf])).fit(X, Y2)
    assert model.predict(10 * X)[:, 0].max() <= 1
    assert model.predict(10 * X)[:, 1].max() > 1


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1, 0), r"bounds must have low < high, got \(1, 0\)"),
        ((0, 0.5), r"y must lie within bounds=\(0, 0.5\), got values from 0 to 1"),
        ((0, 1, 2), r"bounds must be a pair \(low, high\)"),
        ((0, [1, 2, 3]), r"bounds must hold numbers, None or arrays of shape \(1,\)"),
        (("a", 1), r"bounds must hold numbers, None or arrays of shape \(1,\)"),
    ],
)
def test_wrong_bounds(bounds, message):
    with pytest.raises(ValueError, match=message):
        regressor(bounds=bounds).fit(X, SHARE)


def test_conformal_intervals_cover():
    """Marginal coverage over many data sets, where the Gaussian of a network that is hardly trained is far too wide."""
    settings = {"max_iter": 1, "learning_rate_init": 1e-6, "early_stopping": False, "conformal_fraction": 0.3}
    covered, plain = [], []
    for seed in range(20):
        x, y = make_friedman1(300, noise=1.0, random_state=seed)
        y = np.exp(y / 3)
        model = regressor(**{**settings, "random_state": seed}).fit(x[:130], y[:130])
        low, high = model.predict_interval(x[130:], 0.8).T
        covered.append(np.mean((low <= y[130:]) & (y[130:] <= high)))
        low, high = model.predict_quantiles(x[130:], [0.1, 0.9]).T
        plain.append(np.mean((low <= y[130:]) & (y[130:] <= high)))
    error = np.std(covered) / np.sqrt(len(covered))
    assert abs(np.mean(covered) - 0.8) < 3 * error + 0.02
    assert abs(np.mean(plain) - 0.8) > 0.05


def test_rows_set_aside_take_no_part_in_training():
    model = regressor(conformal_fraction=0.25).fit(X, Y)
    assert model.conformal_scores_.shape == (40, 1)
    order = np.random.RandomState(0).permutation(160)
    rest = np.sort(order[40:])
    alone = regressor().fit(X[rest], Y[rest])
    np.testing.assert_array_equal(model.predict(X), alone.predict(X))
    scores = np.abs(2 * alone.cdf(X[order[:40]], Y[order[:40]]) - 1)
    np.testing.assert_allclose(model.conformal_scores_[:, 0], np.sort(scores), rtol=1e-12)


def test_conformal_intervals_of_frames_targets_and_weights():
    frame = pd.DataFrame(X, columns=[f"x{j}" for j in range(X.shape[1])])
    weights = np.r_[np.zeros(40), np.ones(120)]
    model = regressor(conformal_fraction=0.2).fit(frame, pd.DataFrame(Y2), sample_weight=pd.Series(weights))
    assert model.conformal_scores_.shape == (24, 2)
    assert model.predict_interval(frame, 0.5).shape == (160, 2, 2)
    assert list(model.feature_names_in_) == list(frame.columns)


def test_an_interval_that_needs_more_rows():
    model = regressor(conformal_fraction=0.05).fit(X, Y)
    with pytest.raises(ValueError, match=r"coverage must be at most n / \(n \+ 1\) = 0.8889 .* got 0.9"):
        model.predict_interval(X, 0.9)


def test_a_fit_without_conformal_rows_forgets_their_scores():
    model = regressor(conformal_fraction=0.2).fit(X, Y).set_params(conformal_fraction=None).fit(X, Y)
    low, high = model.predict_quantiles(X, [0.05, 0.95]).T
    np.testing.assert_allclose(model.predict_interval(X, 0.9), np.stack([low, high], 1), rtol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda: regressor(conformal_fraction=0.2).partial_fit(X, Y), "must be None with partial_fit"),
        (lambda: regressor(conformal_fraction=0.2, warm_start=True).fit(X, Y), "None with warm_start=True"),
        (lambda: regressor(conformal_fraction=0.99).fit(X[:20], Y[:20]), "must leave at least 2 rows"),
        (lambda: HyperTrainingSearchCV(regressor(conformal_fraction=0.2)).fit(X, Y), "None with HyperTrainingSearchCV"),
    ],
)
def test_where_conformal_rows_cannot_be(spoil, message):
    with pytest.raises(ValueError, match=message):
        spoil()
