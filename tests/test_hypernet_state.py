"""What a network of weights from noise keeps from fit to fit, and where its scores and displays find it."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.compose import TransformedTargetRegressor, make_column_transformer
from sklearn.datasets import make_friedman1
from sklearn.exceptions import ConvergenceWarning, NotFittedError, UnsetMetadataPassedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from skhyper import HypernetClassifier, HypernetRegressor, HyperTrainingSearchCV, crps_scorer, log_prob_scorer
from skhyper.core.noise.training import Trainer
from skhyper.displays import CalibrationDisplay, PredictionIntervalDisplay, WeightSpreadDisplay

X, Y = make_friedman1(60, noise=1.0, random_state=0)
LABELS = (np.median(Y) < Y).astype(int)
FAST = {"n_estimators": 2, "max_iter": 20, "random_state": 0}


def regressor(**parameters):
    return HypernetRegressor(**{**FAST, **parameters})


def classifier(**parameters):
    return HypernetClassifier(**{**FAST, **parameters})


def test_a_fit_forgets_the_optimiser_of_earlier_passes():
    model = regressor().partial_fit(X, Y).fit(X[:, :3], Y).partial_fit(X[:, :3], Y)
    fresh = regressor().fit(X[:, :3], Y).partial_fit(X[:, :3], Y)
    np.testing.assert_array_equal(model.predict(X[:, :3]), fresh.predict(X[:, :3]))


def test_a_fit_that_fails_leaves_the_model_as_it_was():
    model = regressor(batch_size=100)
    with pytest.raises(ValueError, match="batch_size must be at most the number of distinct training rows, 60"):
        model.fit(X, Y)
    with pytest.raises(NotFittedError):
        model.predict(X)
    model.set_params(batch_size="auto").fit(X, Y)
    before = model.predict(X)
    with pytest.raises(ValueError, match="batch_size"):
        model.set_params(batch_size=100).fit(X[:, :3], np.stack([Y, Y], 1))
    np.testing.assert_array_equal(model.predict(X), before)


def test_warm_starts_hold_out_the_same_rows(monkeypatch):
    """They were never trained on, and so go on being honest judges."""
    held = []
    run = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: (held.append(self.held_rows), run(self))[1])
    x, y = make_friedman1(200, random_state=1)
    model = regressor(warm_start=True, n_frequencies=0, max_iter=2).fit(x, y).fit(x, y)
    assert held[0].tolist() == held[-1].tolist()
    assert model.t_ > 0


def test_functions_outlive_the_fit_that_they_were_drawn_from():
    model = regressor().fit(X, Y)
    function = model.sample_functions(1)[0]
    before = function(X[:3])
    model.fit(X, -Y)
    np.testing.assert_array_equal(function(X[:3]), before)


def test_one_more_row_does_not_decide_about_sigma():
    """Without held-out rows the scale of a squared loss is that of all rows that were passed, not of the last few."""
    model = regressor(noise_model="squared", early_stopping=False, n_estimators=1).partial_fit(X, Y)
    _, before = model.predict(X[:5], return_std=True)
    _, after = model.partial_fit(X[:1], Y[:1] + 30).predict(X[:5], return_std=True)
    expected = np.sqrt((60 * before**2 + 30**2) / 61)
    assert (after > before).all()
    assert (after < 1.3 * expected).all()


@pytest.mark.parametrize("n_estimators", [1, 2, 4])
def test_call_after_call_sigma_stays_that_of_the_errors(n_estimators):
    """The room that it makes for disagreement is made once, not again in every call."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 3))
    y = x[:, 0] + 0.3 * rng.standard_normal(600)
    model = regressor(noise_model="squared", n_estimators=n_estimators)
    for start in (*range(0, 500, 20),) * 3:
        model.partial_fit(x[start : start + 20], y[start : start + 20])
    mean, std = model.predict(x[500:], return_std=True)
    assert 0.7 < std.mean() / np.sqrt(np.mean((y[500:] - mean) ** 2)) < 1.5


def test_a_pass_of_one_row_remembers_what_the_held_out_rows_of_the_fit_said():
    x, y = make_friedman1(400, noise=1.0, random_state=0)
    model = regressor(noise_model="squared").fit(x[:300], y[:300])
    _, before = model.predict(x[300:], return_std=True)
    _, after = model.partial_fit(x[300:301], y[300:301]).predict(x[300:], return_std=True)
    assert 0.5 < after.mean() / before.mean() < 2


def test_hints_are_about_what_is_wrong():
    for model, y, hint in (
        (regressor(), np.array(["poor", "rich"] * 30, dtype=object), "For labels there is HypernetClassifier"),
        (classifier(), np.array(["poor", None] * 30, dtype=object), "Drop the rows that have no target"),
        (regressor(), np.where(np.arange(60) == 3, np.nan, Y), "Drop the rows that have no target"),
    ):
        with pytest.raises(ValueError, match=hint):
            model.fit(X, y)
    for x in (np.where(X > 0.99, np.nan, X), pd.DataFrame({"a": ["u", "v"] * 30})):
        with pytest.raises(ValueError, match="Encode strings and fill missing values first"):
            regressor().fit(x, Y)


def test_training_goes_on_in_another_precision():
    model = regressor().partial_fit(X, Y).set_params(dtype="float32").partial_fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


def test_a_first_pass_needs_targets_that_vary():
    with pytest.raises(ValueError, match="y must vary in the first call"):
        regressor().partial_fit(X, np.zeros(60))
    assert regressor().partial_fit(X, Y).partial_fit(X, np.zeros(60)).t_ > 0


def test_rows_set_aside_are_forgotten_where_training_goes_on():
    model = regressor(conformal_fraction=0.3).fit(X, Y)
    model.set_params(conformal_fraction=None).partial_fit(X, Y)
    assert not hasattr(model, "conformal_scores_")


@pytest.mark.parametrize(
    "changed",
    [
        {"hidden_layer_sizes": (7,)},
        {"n_estimators": 3},
        {"n_samples": 4},
        {"n_frequencies": 4},
        {"preprocessing": "standard"},
    ],
)
def test_training_goes_on_with_the_networks_that_there_are(changed):
    model = regressor(warm_start=True).fit(X, Y).set_params(**changed)
    for go_on in (model.fit, model.partial_fit):
        with pytest.raises(ValueError, match="go on with the networks of the first fit"):
            go_on(X, Y)


def test_passes_have_no_early_stopping():
    with pytest.raises(ValueError, match="early_stopping"):
        regressor(early_stopping=True).partial_fit(X, Y)


@pytest.mark.parametrize("scorer", [log_prob_scorer, crps_scorer])
def test_scorers_find_the_network(scorer):
    plain = cross_val_score(regressor(preprocessing=None), StandardScaler().fit_transform(X), Y, cv=2, scoring=scorer)
    pipeline = make_pipeline(StandardScaler(), regressor(preprocessing=None))
    assert np.isfinite(cross_val_score(pipeline, X, Y, cv=2, scoring=scorer)).all()
    assert cross_val_score(pipeline, X, Y, cv=2, scoring=scorer) == pytest.approx(plain, rel=0.2)
    search = GridSearchCV(regressor(), {"alpha": [0.02]}, cv=2)
    assert np.isfinite(cross_val_score(search, X, Y, cv=2, scoring=scorer)).all()
    tuned = HyperTrainingSearchCV(pipeline, scoring=scorer, max_iter=1).fit(X, Y)
    assert np.isfinite(tuned.best_score_)


WEIGHTS = np.where(np.arange(len(Y)) % 4 == 0, 5.0, 0.1)


@pytest.fixture(scope="module")
def weighted_scores():
    """Of the first of two folds, by hand."""
    (train, test), _ = KFold(2).split(X)
    model = regressor().fit(X[train], Y[train], sample_weight=WEIGHTS[train])
    density = np.average(model.log_prob(X[test], Y[test]), weights=WEIGHTS[test])
    return {"density": density, "crps": -np.average(model.crps(X[test], Y[test]), weights=WEIGHTS[test])}


@pytest.mark.skipif(
    not hasattr(GridSearchCV, "_check_scorers_accept_sample_weight"),
    reason="without routing this scikit-learn sends scorers no weights",
)
def test_weights_of_a_search_reach_its_scorers(weighted_scores):
    scoring = {"density": log_prob_scorer, "crps": crps_scorer, "r2": "r2"}
    search = GridSearchCV(regressor(), {"random_state": [0]}, scoring=scoring, refit="density", cv=KFold(2))
    search.fit(X, Y, sample_weight=WEIGHTS)
    for name, value in weighted_scores.items():
        assert search.cv_results_[f"split0_test_{name}"] == pytest.approx(value)


def test_routing_sends_weights_to_scorers_that_ask(weighted_scores):
    run = partial(cross_val_score, X=X, y=Y, cv=KFold(2), params={"sample_weight": WEIGHTS})
    with config_context(enable_metadata_routing=True):
        model = regressor().set_fit_request(sample_weight=True)
        weighted = run(model, scoring=log_prob_scorer.set_score_request(sample_weight=True))
        plain = run(model, scoring=log_prob_scorer.set_score_request(sample_weight=False))
        with pytest.raises(UnsetMetadataPassedError, match="log_prob_scorer"):
            run(model, scoring=log_prob_scorer)
    assert weighted[0] == pytest.approx(weighted_scores["density"])
    assert (abs(weighted - plain) > 1e-6).all()
    with pytest.raises(ValueError, match="sample_weight"):
        log_prob_scorer.set_score_request(sample_weight=3)


@pytest.mark.parametrize("scorer", [log_prob_scorer, crps_scorer])
def test_scorers_say_where_there_is_no_density(scorer):
    with pytest.raises(TypeError, match="Ridge must have"):
        scorer(Ridge().fit(X, Y), X, Y)
    scaled = TransformedTargetRegressor(regressor(), transformer=StandardScaler()).fit(X, Y)
    with pytest.raises(TypeError, match="in another unit"):
        scorer(scaled, X, Y)


def test_displays_check_their_targets():
    model = regressor().fit(X, Y)
    for wrong, y in (("one row for each", Y[:50]), ("NaN", np.where(np.arange(60) == 3, np.nan, Y))):
        with pytest.raises(ValueError, match=wrong):
            PredictionIntervalDisplay.from_estimator(model, X, y)
    pipeline = make_pipeline(StandardScaler(), model).fit(X, Y)
    np.testing.assert_array_equal(WeightSpreadDisplay.from_estimator(pipeline).spread, model.weight_spread_curve_)
    with pytest.raises(NotFittedError):
        WeightSpreadDisplay.from_estimator(regressor())
    with pytest.raises(TypeError, match="Ridge must have weight_spread_curve_"):
        WeightSpreadDisplay.from_estimator(Ridge().fit(X, Y))


def test_displays_find_the_network_and_take_a_column_for_one_target():
    frame = pd.DataFrame({"a": X[:, 0], "kind": np.where(X[:, 1] > 0.5, "u", "v")})
    encode = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough", sparse_threshold=0)
    pipeline = make_pipeline(encode, regressor()).fit(frame, Y)
    flat = CalibrationDisplay.from_estimator(pipeline, frame, Y).levels
    assert (np.diff(flat) >= 0).all()
    assert PredictionIntervalDisplay.from_estimator(pipeline, frame, Y).interval.shape == (60, 2)
    column = regressor().fit(X, Y[:, None])
    vector = CalibrationDisplay.from_estimator(regressor().fit(X, Y), X, Y).levels
    np.testing.assert_array_equal(CalibrationDisplay.from_estimator(column, X, Y[:, None]).levels, vector)
    assert PredictionIntervalDisplay.from_estimator(column, X, Y[:, None]).mean.shape == (60,)


@pytest.mark.parametrize(
    "fit",
    [
        lambda: classifier().fit(X[:12], np.arange(12)),
        lambda: classifier().fit(X[:20], np.r_[np.arange(18), 0, 1]),
        lambda: regressor(validation_fraction=0.05).fit(X[:15], Y[:15]),
        lambda: regressor(validation_fraction=0.01).fit(X, Y),
    ],
)
def test_where_too_few_rows_can_be_held_out_none_are(fit):
    assert np.isnan(fit().validation_loss_curve_).all()


def test_too_few_rows_to_stop_by_are_an_error_where_they_are_asked_for():
    with pytest.raises(ValueError, match=r"validation_fraction must leave .* of 0 rows"):
        classifier(early_stopping=True).fit(X[:12], np.arange(12))


def test_cells_of_categorical_features_are_as_likely_as_their_rows_say():
    """No member learns that a label never comes with some features because it holds out all rows that have both."""
    random = np.random.RandomState(2)
    cells = random.randint(0, 2, (4000, 3)).astype(float)
    truth = 0.2 + 0.5 * cells[:, 0]
    labels = (random.rand(4000) < truth).astype(int)
    model = HypernetClassifier(random_state=0).fit(cells[:2000], labels[:2000])
    proba, plain = model.predict_proba(cells[2000:]), LogisticRegression().fit(cells[:2000], labels[:2000])
    assert np.abs(proba[:, 1] - truth[2000:]).max() < 0.08
    assert log_loss(labels[2000:], proba) < log_loss(labels[2000:], plain.predict_proba(cells[2000:])) + 0.005
    rows, counts = np.unique(np.c_[cells[:2000], labels[:2000]], axis=0, return_counts=True)
    weighted = HypernetClassifier(random_state=0).fit(rows[:, :3], rows[:, 3], sample_weight=counts)
    np.testing.assert_array_equal(weighted.predict_proba(cells[2000:]), proba)


def test_rows_of_large_weight_are_held_out_whole(monkeypatch):
    """Weights may be precisions: what a member has trained on must not judge it."""
    trainers = []
    prepare = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: (trainers.append(self), prepare(self))[1])
    regressor().fit(X, Y, sample_weight=np.full(60, 300.0))
    (trainer,) = trainers
    for own, out in zip(trainer.train_rows.tolist(), trainer.held_rows.tolist(), strict=True):
        assert sorted(own + out) == list(range(60))


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ({"a": 1, "b": 5}, r"classes \[0, 1\] as keys"),
        ({0: -1, 1: 1}, "positive numbers"),
        ({0: np.nan, 1: 1}, "positive numbers"),
        ({0: 0, 1: 1}, "positive numbers"),
        ({0: "x", 1: 1}, "positive numbers"),
    ],
)
def test_wrong_class_weights(class_weight, message):
    with pytest.raises(ValueError, match=message):
        classifier(class_weight=class_weight).fit(X, LABELS)


def test_a_search_says_which_classes_a_fold_lacks():
    labels = np.r_[np.tile([0, 1], 28), 2, 2, 2, 2]
    search = HyperTrainingSearchCV(classifier(), cv=KFold(2), max_iter=1)
    with pytest.warns(UserWarning, match=r"Classes without training rows, by fold of cv: \{1: \[2\]\}"):
        search.fit(X, labels)


@pytest.mark.parametrize("method", ["best_response", "continue_fit"])
def test_a_search_over_networks_that_train_themselves_has_no_best_response(method):
    search = HyperTrainingSearchCV(regressor(), max_iter=1).fit(X, Y)
    with pytest.raises(ValueError, match=rf"{method} is for neural networks whose decays move.*HypernetRegressor"):
        search.best_response(0.1) if method == "best_response" else search.continue_fit(X, Y)


def test_the_score_of_many_draws_needs_no_memory_of_their_square(monkeypatch):
    model = regressor(n_samples=12).fit(X, Y)
    whole = model.crps(X[:9], Y[:9])
    monkeypatch.setattr("skhyper.core.noise.predictive.MAX_PAIRS", 60)
    assert model.crps(X[:9], Y[:9]) == pytest.approx(whole, rel=1e-12)


def test_quantiles_are_the_same_alone_and_together():
    model = regressor().fit(X, Y)
    together = model.predict_quantiles(X, [0.01, 0.5, 0.99])
    alone = np.concatenate([model.predict_quantiles(X[i : i + 1], [0.01, 0.5, 0.99]) for i in range(60)])
    np.testing.assert_allclose(alone, together, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("size", [1e160, 1e-200])
def test_a_target_whose_squares_vanish_or_overflow(size):
    with pytest.raises(ValueError, match="y must range over"):
        regressor().fit(X, size * Y)


@pytest.mark.parametrize("value", [1e-6, 3.0, -1e12])
def test_a_constant_target_is_predicted(value):
    mean, std = regressor().fit(X, np.full(60, value)).predict(X, return_std=True)
    assert mean == pytest.approx(value, rel=1e-6)
    assert (std < 1e-5 * abs(value)).all()


@pytest.mark.parametrize("quantiles", [[], [[0.1]]])
def test_levels_must_be_a_list_of_some(quantiles):
    with pytest.raises(ValueError, match="quantiles must lie in"):
        regressor().fit(X, Y).predict_quantiles(X, quantiles)


def test_one_weight_for_all_rows_beside_conformal_rows():
    model = regressor(conformal_fraction=0.2).fit(X, Y, sample_weight=2.0)
    assert model.conformal_scores_.shape == (12, 1)


def test_missing_targets_are_to_be_dropped():
    with pytest.raises(ValueError, match=r"Input y contains NaN.* Drop the rows"):
        regressor().fit(X, np.where(np.arange(60) == 3, np.nan, Y))


def test_an_interruption_in_the_first_steps_keeps_them(monkeypatch):
    advance = Trainer.advance

    def interrupted(self, walk, index, phase, step):
        if step == 3:
            raise KeyboardInterrupt
        advance(self, walk, index, phase, step)

    monkeypatch.setattr(Trainer, "advance", interrupted)
    with pytest.warns(ConvergenceWarning, match="interrupted after 3 updates"):
        model = regressor(early_stopping=False).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


def test_a_default_device_of_the_users_is_not_used():
    with torch.device("meta"):
        model = regressor().fit(X, Y)
        predicted = model.predict(X)
    np.testing.assert_array_equal(predicted, regressor().fit(X, Y).predict(X))
