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


def test_conformal_intervals_cover_targets_on_their_bounds():
    """Where many lie on a bound intervals end there, and not just beside it."""
    covered = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((300, 1))
        y = np.clip(x[:, 0] + 0.5 * rng.standard_normal(300), 0, 1)
        model = regressor(bounds=(0, 1), conformal_fraction=0.3, max_iter=2).fit(x[:150], y[:150])
        low, high = model.predict_interval(x[150:], 0.9).T
        covered.append(np.mean((low <= y[150:]) & (y[150:] <= high)))
    assert np.mean(covered) > 0.88
    functions = np.array([function(x) for function in model.sample_functions(10)])
    assert functions.min() >= 0
    assert functions.max() <= 1


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


@pytest.fixture(scope="module")
def skewed():
    """Errors of two sizes: no Gaussian fits."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (600, 2))
    scale = np.where(rng.uniform(size=600) < 0.85, 0.05, 1.0)
    return X, X[:, 0] + scale * rng.standard_normal(600)


def test_noise_is_kept_where_errors_are_not_gaussian(skewed):
    """Held-out rows find heavy tails in the mixture that the plain network cannot have."""
    X, y = skewed
    settings = {"max_iter": 200, "n_samples": 16, "hidden_layer_sizes": (50,)}
    model = regressor(**settings).fit(X[:400], y[:400])
    plain = regressor(generator="none", **settings).fit(X[:400], y[:400])
    assert not model.noise_dropped_
    assert model.weight_spread_curve_[-1] > 0
    assert model.log_prob(X[400:], y[400:]).mean() > plain.log_prob(X[400:], y[400:]).mean() + 0.1


def test_noise_is_dropped_where_it_has_no_use():
    X = np.random.RandomState(0).uniform(-1, 1, (300, 2))
    y = X[:, 0] + X[:, 1] ** 2
    model = regressor(max_iter=100).fit(X, y)
    assert model.noise_dropped_
    assert model.weight_spread_curve_[-1] == 0
    members = {tuple(f(X[:3])) for f in model.sample_functions(8, random_state=0)}
    assert len(members) <= 2  # functions differ by member alone
    assert not regressor(max_iter=100, noise_trial=0.0).fit(X, y).noise_dropped_


def test_the_mean_has_a_term_of_its_own_where_draws_are_shared():
    """Rows of two kinds, whose share depends on x: likelihood is content with either kind, the mean is not."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (900, 2))
    chance = 1 / (1 + np.exp(-4 * np.sin(3 * X[:, 0])))
    y = np.where(rng.uniform(size=900) < chance, 4 + X[:, 1], 0) + 0.1 * rng.standard_normal(900)
    expected = chance * (4 + X[:, 1])
    settings = {"noise_trial": 0.0, "max_iter": 40, "hidden_layer_sizes": (20,), "n_samples": 16}
    errors = [
        np.abs(regressor(mean_weight=weight, **settings).fit(X[:600], y[:600]).predict(X[600:]) - expected[600:]).mean()
        for weight in (2.0, 0.0)
    ]
    assert errors[0] < errors[1]
    with_it, without = (
        regressor(mean_weight=weight, draws="dealt", noise_layers="all").fit(X, y) for weight in (2.0, 0.0)
    )
    np.testing.assert_array_equal(with_it.predict(X), without.predict(X))


@pytest.fixture(scope="module")
def periodic():
    """Of the first feature the target is a sinusoid with short periods, of the second a line."""
    rng = np.random.RandomState(0)
    X = rng.uniform(-1, 1, (600, 2))
    return X, np.sin(12 * X[:, 0]) + X[:, 1] + 0.1 * rng.standard_normal(600)


def test_sinusoids_join_where_held_out_rows_prove_their_use(periodic):
    X, y = periodic
    settings = {"max_iter": 150, "hidden_layer_sizes": (20,)}
    model = regressor(**settings).fit(X[:400], y[:400])
    plain = regressor(n_frequencies=0, **settings).fit(X[:400], y[:400])
    assert model.n_frequencies_ == 4
    assert plain.n_frequencies_ == 0
    assert model.score(X[400:], y[400:]) > plain.score(X[400:], y[400:])
    line = regressor(**settings).fit(X[:400], X[:400] @ [1, 2])
    assert line.n_frequencies_ == 0
    without = regressor(n_frequencies=0, **settings).fit(X[:400], X[:400] @ [1, 2])
    np.testing.assert_array_equal(line.predict(X), without.predict(X))
    together = model.predict(X, return_std=True)
    alone = [
        np.concatenate(pair) for pair in zip(*(model.predict(x[None], return_std=True) for x in X[:20]), strict=True)
    ]
    np.testing.assert_allclose(alone[0], together[0][:20], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(alone[1], together[1][:20], rtol=1e-12, atol=1e-12)


def test_where_nothing_can_prove_it_there_are_no_sinusoids(periodic):
    X, y = periodic
    assert regressor(early_stopping=False).fit(X, y).n_frequencies_ == 0
    assert regressor(learning_rate="constant").fit(X, y).n_frequencies_ == 0
    assert regressor().fit(X[:80], y[:80]).n_frequencies_ == 0
    assert regressor().partial_fit(X, y).n_frequencies_ == 0
    assert regressor(n_frequencies=3).partial_fit(X, y).n_frequencies_ == 3
    coarse = regressor(n_frequencies=3).fit(np.round(X), y)
    assert coarse.n_frequencies_ == 0
    np.testing.assert_array_equal(coarse.predict(X), regressor(n_frequencies=0).fit(np.round(X), y).predict(X))


def test_a_warm_start_keeps_its_sinusoids(periodic):
    X, y = periodic
    model = regressor(n_frequencies=2, warm_start=True).fit(X, y)
    assert model.set_params(n_frequencies="auto").fit(X, y).n_frequencies_ == 2


def test_tails_are_heavier_where_few_rows_are_held_out():
    """Each draw of a member has a factor of sigma of its own; the plain network has one draw."""
    X, y = make_friedman1(1200, noise=1.0, random_state=0)
    excess = []
    for n in (120, 1200):
        model = regressor(n_estimators=1, n_samples=16).fit(X[:n], y[:n])
        spread = model._state["log_factor"][:, 0].std()
        assert spread == pytest.approx(2 / np.sqrt(n / 10), rel=1e-6)
        draws = model.sample_y(X[:1], 20_000)[0]
        excess.append(np.mean((draws - draws.mean()) ** 4) / np.var(draws) ** 2 - 3)
    assert excess[0] > excess[1]
    assert regressor(generator="none").fit(X, y)._state["log_factor"].shape == (1, 1)


def test_updates_are_more_where_noise_is_dropped_and_their_number_is_free(monkeypatch):
    monkeypatch.setattr("skhyper.estimators.hypernet_options.MIN_STEPS", 100)
    monkeypatch.setattr("skhyper.estimators.hypernet_options.MAX_STEPS", 100)
    X = np.random.RandomState(0).uniform(-1, 1, (300, 2))
    model = regressor(max_iter="auto").fit(X, X[:, 0])
    assert model.noise_dropped_
    assert model.t_ == 20 + 1.8 * 80
    assert regressor(max_iter=20).fit(X, X[:, 0]).t_ == 20 * (300 // 32)


def test_training_ends_soon_after_the_best_weights_unless_patience_has_no_end(skewed):
    X, y = skewed
    short = regressor(max_iter=600, patience=2.0).fit(X[:400], y[:400])
    whole = regressor(max_iter=600, patience=np.inf).fit(X[:400], y[:400])
    assert whole.t_ == 600 * (400 // 32)
    assert short.t_ < whole.t_
    assert short.n_iter_ == round(short.t_ * 32 / 400)
    assert regressor(max_iter=600, patience=2.0, learning_rate="constant").fit(X[:400], y[:400]).t_ == whole.t_


def test_mirrored_draws_have_the_mean_of_their_middle():
    """In the last layer, pairs of opposite draws leave the mean where it is."""
    model = regressor(n_samples=8, noise_trial=0.0).fit(X, Y)
    np.testing.assert_allclose(model.predict(X, n_samples=2), model.predict(X), rtol=1e-12)
    everywhere = regressor(n_samples=8, noise_trial=0.0, noise_layers="all").fit(X, Y)
    assert not np.allclose(everywhere.predict(X, n_samples=2), everywhere.predict(X), rtol=1e-9)


def test_members_share_no_hidden_noise_in_the_last_layer():
    """A linear model's only layer is the last."""
    model = regressor(hidden_layer_sizes=(), noise_trial=0.0).fit(X, Y)
    assert model.weight_spread_curve_[-1] > 0
    assert model.score(X, Y) > 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("noise_layers", "first"),
        ("patience", 0.5),
        ("noise_trial", 1.0),
        ("noise_trial", -0.1),
        ("mean_weight", -1.0),
        ("n_frequencies", -1),
    ],
)
def test_wrong_noise_parameters(name, value):
    with pytest.raises(ValueError, match=f"'{name}' parameter of HypernetRegressor"):
        regressor(**{name: value}).fit(X, Y)


def test_predictions_of_the_papers_settings_are_by_networks_that_were_trained():
    """Their errors are those of the last epochs; with all units of the hypernetwork kept they are a fifth larger."""
    rng = np.random.RandomState(0)
    X = rng.standard_normal((200, 3))
    y = X[:, 0] + np.sin(2 * X[:, 1])
    settings = {"hidden_layer_sizes": (20,), "max_iter": 100, "batch_size": 20, "input_noise": 0.0}
    model = HypernetRegressor.from_paper(**settings, random_state=0).fit(X, y)
    trained = model.loss_curve_[-10:].mean() * y.var()
    drawn = np.mean([np.mean((f(X) - y) ** 2) for f in model.sample_functions(200)])
    assert 0.8 * trained < drawn < 1.05 * trained
    assert np.mean((model.predict(X) - y) ** 2) < trained
