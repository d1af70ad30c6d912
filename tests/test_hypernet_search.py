"""HyperTrainingSearchCV over networks whose weights come from noise: a scan whose alphas are members of one batch."""

import math

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris, make_friedman1
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhyper import HypernetClassifier, HypernetRegressor, HyperTrainingSearchCV
from skhyper.core.noise.alphas import DECADE, AlphaScan
from skhyper.core.result import StopReason

BOUNDS = (math.log(1e-8), math.log(1e8))


@pytest.fixture(scope="module")
def data():
    return make_friedman1(150, noise=1.0, random_state=0)


@pytest.fixture
def regressor():
    return HypernetRegressor(n_estimators=2, n_samples=4, max_iter=5, random_state=0)


def scanned(loss, start=0.0, bounds=BOUNDS):
    scan = AlphaScan(start, bounds)
    while new := scan.propose(9):
        for log_alpha in new:
            scan.observe(log_alpha, loss(log_alpha))
    return scan


@pytest.mark.parametrize("lowest", [0.2, 5.1, -7.3])
def test_a_scan_finds_the_decade_of_the_best_alpha_and_halves_it(lowest):
    scan = scanned(lambda x: abs(x - lowest * DECADE))
    assert abs(scan.best - lowest * DECADE) <= DECADE / 4 + 1e-12
    assert scan.stop_reason is StopReason.SCANNED
    assert len(scan.losses) <= 7 + 2 * 3


def test_a_short_scan_tries_what_is_nearest():
    scan = AlphaScan(0.0, BOUNDS)
    assert scan.propose(1) == [0.0]
    assert scan.propose(3) == [-DECADE, 0.0, DECADE]
    for log_alpha in scan.propose(9):
        scan.observe(log_alpha, -log_alpha)
    assert scan.propose(1) == [3 * DECADE]


def test_a_scan_ends_on_a_bound():
    scan = scanned(lambda x: x)
    assert scan.best == BOUNDS[0]
    assert scan.stop_reason is StopReason.AT_BOUND
    assert min(scan.losses) == BOUNDS[0]


def test_one_alpha_of_a_batch_is_the_plain_fit(data, regressor):
    X, y = data
    (fitted,) = clone(regressor)._fit_alphas(X, y, None, [0.3])
    np.testing.assert_array_equal(fitted.predict(X), clone(regressor).set_params(alpha=0.3).fit(X, y).predict(X))


def test_alphas_of_a_batch_start_alike_and_shrink_their_own_weights(data, regressor):
    X, y = data
    regressor.set_params(max_iter=20, early_stopping=False)
    weak, strong, again = regressor._fit_alphas(X, y, None, [1e-3, 1e3, 1e-3])
    sizes = [np.square(one._state["flat"]).sum() for one in (weak, strong, again)]
    assert sizes[1] < 0.5 * sizes[0]
    assert sizes[2] == pytest.approx(sizes[0], rel=0.2)
    np.testing.assert_array_equal(weak._state["bank"], strong._state["bank"])
    assert (weak.alpha, strong.alpha) == (1e-3, 1e3)


def test_the_best_alpha_of_the_scan_is_fitted_to_all_rows(data, regressor):
    X, y = data
    search = HyperTrainingSearchCV(regressor, cv=2).fit(X, y)
    losses, tried = search.history_["value"], np.exp(search.history_["log_alpha"])
    alpha = search.best_params_["alpha"]
    assert alpha == pytest.approx(tried[np.argmin(losses)])
    assert search.cv_results_["mean_outer_loss"][0] == min(losses)
    expected = clone(regressor).set_params(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), expected.predict(X))
    np.testing.assert_allclose(search.validation_curve(tried), losses)
    assert search.alphas_ == {"all": alpha}
    assert search.n_hyperparameters_ == 1


def test_without_a_score_the_likelihood_of_held_out_rows_decides(data, regressor):
    X, y = data
    folds = [(np.arange(100), np.arange(100, 150))]
    search = HyperTrainingSearchCV(regressor, cv=folds, max_iter=1).fit(X, y)
    (log_alpha,), (loss,) = search.history_["log_alpha"], search.history_["value"]
    model = clone(regressor).set_params(alpha=float(np.exp(log_alpha))).fit(X[:100], y[:100])
    assert loss == pytest.approx(-model.log_prob(X[100:], y[100:]).mean())
    assert search.stop_reason_ == StopReason.MAX_ITER.value


def test_a_named_score_decides(data, regressor):
    search = HyperTrainingSearchCV(regressor, scoring="neg_mean_absolute_error", cv=2, max_iter=3).fit(*data)
    assert search.best_score_ == pytest.approx(-min(search.history_["value"]))


def test_integer_weights_equal_repeated_rows(data):
    """Of few rows, where training is exact about it."""
    X, y = (values[:60] for values in data)
    weight = np.random.RandomState(0).randint(1, 3, 60)
    rows = np.repeat(np.arange(60), weight)
    once = [(np.arange(40), np.arange(40, 60))]
    repeated = [(np.flatnonzero(rows < 40), np.flatnonzero(rows >= 40))]
    model = HypernetRegressor(n_estimators=1, n_samples=4, max_iter=5, random_state=0)
    weighted = HyperTrainingSearchCV(model, cv=once, max_iter=2).fit(X, y, sample_weight=weight)
    plain = HyperTrainingSearchCV(model, cv=repeated, max_iter=2).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.history_["value"], plain.history_["value"])
    np.testing.assert_allclose(weighted.predict(X), plain.predict(X))


def test_a_pipeline_is_fitted_around_it(data, regressor):
    X, y = data
    target = TransformedTargetRegressor(regressor, func=np.log1p, inverse_func=np.expm1)
    search = HyperTrainingSearchCV(make_pipeline(StandardScaler(), target), max_iter=2).fit(X, y)
    (name,) = search.best_params_
    assert name == "transformedtargetregressor__regressor__alpha"
    expected = clone(search.estimator).set_params(**search.best_params_).fit(X, y)
    np.testing.assert_array_equal(search.predict(X), expected.predict(X))


def test_classes_are_judged_by_log_loss_and_scored_as_asked():
    X, y = load_iris(return_X_y=True)
    model = HypernetClassifier(n_estimators=1, n_samples=4, max_iter=10, random_state=0)
    search = HyperTrainingSearchCV(model, scoring=["accuracy", "neg_log_loss"], refit="neg_log_loss", max_iter=3)
    search.fit(X, y)
    assert search.best_score_ == pytest.approx(-min(search.history_["value"]))
    assert search.cv_results_["mean_test_accuracy"][0] > 0.7
    assert search.classes_.tolist() == [0, 1, 2]


def test_a_spent_time_limit_keeps_what_there_is(data, regressor):
    search = HyperTrainingSearchCV(regressor, time_limit=1e-3).fit(*data)
    assert search.stop_reason_ == StopReason.TIME_LIMIT.value
    assert np.isfinite(search.predict(data[0])).all()


def test_the_seed_of_the_search_serves_an_estimator_without(data, regressor):
    X, y = data
    fits = [HyperTrainingSearchCV(regressor.set_params(random_state=None), max_iter=1, random_state=3) for _ in "ab"]
    one, two = (fit.fit(X, y) for fit in fits)
    np.testing.assert_array_equal(one.predict(X), two.predict(X))
    assert one.best_estimator_.random_state is None


@pytest.mark.parametrize(
    ("setting", "value"),
    [("algorithm", "implicit"), ("granularity", "layer"), ("exponent", 1.0), ("shrinkage", 1.0)],
)
def test_more_than_one_alpha_is_refused(data, regressor, setting, value):
    with pytest.raises(ValueError, match=f"{setting} must be"):
        HyperTrainingSearchCV(regressor, **{setting: value}).fit(*data)


def test_groups_of_features_are_refused(data, regressor):
    with pytest.raises(ValueError, match="decay_groups"):
        HyperTrainingSearchCV(regressor, decay_groups=[0] * 10).fit(*data)


def test_an_interruption_keeps_what_was_trained_to_its_end(monkeypatch, data, regressor):
    batches = []
    train = HypernetRegressor._fit_alphas

    def counted(self, *rest):
        batches.append(rest)
        return train(self, *rest)

    def impatient(self):
        def watch(record):
            if len(batches) == 4:
                raise KeyboardInterrupt

        return watch

    monkeypatch.setattr(HypernetRegressor, "_fit_alphas", counted)
    monkeypatch.setattr(HypernetRegressor, "_watch", impatient)
    search = HyperTrainingSearchCV(regressor, cv=3, refit=False).fit(*data)
    assert "interrupted" in search.stop_reason_
    assert len(batches) == 4
    assert np.isfinite(search.best_score_)
