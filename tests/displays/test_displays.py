"""Displays draw what a fitted search holds; how it came to hold it is tested elsewhere."""

import numpy as np
import pytest
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

from skhyper.displays import BestResponseDisplay, DecayDisplay, HyperTrainingDisplay
from skhyper.estimators.search import HyperTrainingSearchCV

plt = pytest.importorskip("matplotlib.pyplot")
plt.switch_backend("Agg")
X, Y = load_diabetes(return_X_y=True)


@pytest.fixture(scope="module")
def search():
    return HyperTrainingSearchCV(Ridge(), exponent=[1.5]).fit(X, Y)


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
