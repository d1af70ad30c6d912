"""Displays draw what a fitted search holds; how it came to hold it is tested elsewhere."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from skhyper import HypernetRegressor, HyperTrainingSearchCV
from skhyper.displays import (
    BestResponseDisplay,
    CalibrationDisplay,
    DecayDisplay,
    HyperTrainingDisplay,
    PredictionIntervalDisplay,
    WeightSpreadDisplay,
)

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("Agg")
X, Y = load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def search():
    return HyperTrainingSearchCV(Ridge(), exponent=[1.5]).fit(X, Y)


@pytest.fixture(scope="module")
def network():
    return HypernetRegressor((5,), n_estimators=1, max_iter=3, random_state=0).fit(X[:300], Y[:300])


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_the_best_response_is_drawn_along_alpha(search):
    display = BestResponseDisplay.from_estimator(search, n_alphas=20)
    x, y = display.ax_.lines[0].get_data()
    np.testing.assert_allclose(y, search.validation_curve(x))
    assert display.ax_.get_xscale() == "log"


def test_the_history_is_drawn_stage_by_stage(search):
    display = HyperTrainingDisplay.from_estimator(search)
    assert len(display.axes_[0].lines) == len(set(search.history_["stage"]))
    with pytest.raises(ValueError, match="2 axes"):
        display.plot(ax=display.axes_[0])


def test_decays_are_drawn_by_name_or_as_an_image(search):
    display = DecayDisplay.from_estimator(search)
    np.testing.assert_allclose(display.ax_.lines[0].get_ydata(), list(search.alphas_.values()))
    image = DecayDisplay.from_estimator(search, image_shape=(2, 5))
    assert image.ax_.images[0].get_array().shape == (2, 5)
    with pytest.raises(ValueError, match="more pixels"):
        DecayDisplay.from_estimator(search, image_shape=(4, 5))


def test_the_spread_of_the_weights_is_drawn_along_the_training(network):
    display = WeightSpreadDisplay.from_estimator(network)
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), network.weight_spread_curve_)


def test_intervals_are_drawn_in_the_order_of_the_means_with_their_observed_coverage(network):
    display = PredictionIntervalDisplay.from_estimator(network, X[300:], Y[300:], coverage=0.5)
    low, high = network.predict_interval(X[300:], coverage=0.5).T
    assert display.covered_ == ((low <= Y[300:]) & (Y[300:] <= high)).mean()
    np.testing.assert_array_equal(display.ax_.lines[0].get_ydata(), np.sort(network.predict(X[300:])))


def test_intervals_of_one_feature_are_drawn_along_it():
    model = HypernetRegressor((5,), n_estimators=1, max_iter=3, random_state=0).fit(X[:300, [2]], Y[:300])
    display = PredictionIntervalDisplay.from_estimator(model, X[300:, [2]], Y[300:])
    np.testing.assert_array_equal(display.ax_.lines[0].get_xdata(), np.sort(X[300:, 2]))


def test_the_observed_coverage_at_each_level_is_that_of_the_networks_intervals(network):
    display = CalibrationDisplay.from_estimator(network, X[300:], Y[300:])
    levels, observed = (np.asarray(values) for values in display.ax_.lines[1].get_data())
    low, high = network.predict_interval(X[300:], coverage=0.8).T
    inside = ((low <= Y[300:]) & (Y[300:] <= high)).mean()
    assert observed[levels <= 0.8].max() == pytest.approx(inside, abs=1 / 142 + 1e-9)
