"""HypernetRegressor and HypernetClassifier: what they promise beyond scikit-learn's checks."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_iris, make_friedman1
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.impute import SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from skhyper import HypernetClassifier, HypernetRegressor
from skhyper.estimators.hypernet_scorers import crps_scorer, log_prob_scorer

X, Y = make_friedman1(160, noise=1.0, random_state=0)
Y2 = np.stack([Y, X[:, 0] - Y / 10], 1)
XC, YC = load_iris(return_X_y=True)
LABELS = np.array(["setosa", "versicolor", "virginica"])[YC]
FAST = {"n_estimators": 2, "max_iter": 20, "n_samples": 6, "hidden_layer_sizes": (10,), "random_state": 0}


def regressor(**parameters):
    return HypernetRegressor(**{**FAST, "noise_trial": 0.0, **parameters})


def classifier(**parameters):
    return HypernetClassifier(**{**FAST, **parameters})


@pytest.fixture(scope="module")
def fitted():
    return regressor().fit(X, Y)


@pytest.fixture(scope="module")
def fitted2():
    return regressor().fit(X, Y2)


@pytest.fixture(scope="module")
def fitted_classes():
    return classifier().fit(XC, LABELS)


def test_shapes_of_one_target(fitted):
    assert fitted.predict(X[:7]).shape == (7,)
    assert [part.shape for part in fitted.predict(X[:7], return_std=True)] == [(7,), (7,)]
    assert fitted.predict_quantiles(X[:7], [0.1, 0.5, 0.9]).shape == (7, 3)
    assert fitted.predict_interval(X[:7]).shape == (7, 2)
    assert fitted.sample_y(X[:7], 5).shape == (7, 5)
    assert fitted.sample_functions(2)[0](X[:7]).shape == (7,)
    for method in (fitted.cdf, fitted.log_prob, fitted.crps):
        assert method(X[:7], Y[:7]).shape == (7,)
    assert all(part.shape == (7,) for part in fitted.predict_uncertainty(X[:7]))


def test_shapes_of_two_targets(fitted2):
    assert fitted2.predict(X[:7]).shape == (7, 2)
    assert [part.shape for part in fitted2.predict(X[:7], return_std=True)] == [(7, 2), (7, 2)]
    assert fitted2.predict_quantiles(X[:7], [0.1, 0.5, 0.9]).shape == (7, 2, 3)
    assert fitted2.predict_interval(X[:7]).shape == (7, 2, 2)
    assert fitted2.sample_y(X[:7], 5).shape == (7, 2, 5)
    assert fitted2.sample_functions(2)[0](X[:7]).shape == (7, 2)
    assert fitted2.cdf(X[:7], Y2[:7]).shape == fitted2.crps(X[:7], Y2[:7]).shape == (7, 2)
    assert fitted2.log_prob(X[:7], Y2[:7]).shape == (7,)
    assert all(part.shape == (7, 2) for part in fitted2.predict_uncertainty(X[:7]))


def test_the_parts_of_the_interface_agree_with_each_other(fitted):
    mean, std = fitted.predict(X, return_std=True)
    draws = fitted.sample_y(X[:5], 20000)
    np.testing.assert_allclose(draws.mean(1), mean[:5], atol=4 * std.max() / 100)
    np.testing.assert_allclose(draws.std(1), std[:5], rtol=0.05)
    quantiles = fitted.predict_quantiles(X, [0.05, 0.5, 0.95])
    for i, level in enumerate((0.05, 0.5, 0.95)):
        np.testing.assert_allclose(fitted.cdf(X, quantiles[:, i]), level, atol=1e-9)
    np.testing.assert_allclose(fitted.predict_interval(X, 0.9), quantiles[:, [0, 2]], rtol=1e-9)
    total, aleatoric, epistemic = fitted.predict_uncertainty(X)
    np.testing.assert_allclose(total, std**2)
    np.testing.assert_allclose(total, aleatoric + epistemic)
    step = 1e-4
    density = (fitted.cdf(X, Y + step) - fitted.cdf(X, Y - step)) / (2 * step)
    np.testing.assert_allclose(np.exp(fitted.log_prob(X, Y)), density, rtol=1e-4, atol=1e-9)


def test_densities_and_scores_are_in_the_unit_of_y(fitted):
    """Distributions follow y -> c y + b."""
    other = regressor().fit(X, 1000 * Y - 5)
    np.testing.assert_allclose(other.predict(X), 1000 * fitted.predict(X) - 5, rtol=1e-6)
    np.testing.assert_allclose(other.log_prob(X, 1000 * Y - 5), fitted.log_prob(X, Y) - np.log(1000), atol=1e-5)
    np.testing.assert_allclose(other.crps(X, 1000 * Y - 5), 1000 * fitted.crps(X, Y), rtol=1e-5)


@pytest.mark.parametrize("noise_model", ["homoscedastic", "heteroscedastic", "squared"])
def test_predictions_do_not_depend_on_the_batch(noise_model, monkeypatch):
    model = regressor(noise_model=noise_model).fit(X, Y)
    mean, std = model.predict(X, return_std=True)
    order = np.random.default_rng(0).permutation(len(X))
    for part in (order, order[:7], order[:1]):
        again = model.predict(X[part], return_std=True)
        np.testing.assert_allclose(again, [mean[part], std[part]], rtol=1e-12, atol=1e-12)
    monkeypatch.setattr("skhyper.estimators.hypernet.MAX_OUTPUTS", 1)
    np.testing.assert_allclose(model.predict(X), mean, rtol=1e-12, atol=1e-12)


def test_a_seed_gives_one_model_and_leaves_the_global_generators_alone(fitted):
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    again = clone(fitted).fit(X, Y)
    np.testing.assert_array_equal(again.predict(X), fitted.predict(X))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not np.allclose(clone(fitted).set_params(random_state=1).fit(X, Y).predict(X), fitted.predict(X))


@pytest.mark.parametrize("small", [60, 160])
def test_rows_of_weight_zero_are_as_if_absent(small):
    x, y = X[:small], Y[:small]
    weights = np.ones(small)
    weights[::3] = 0
    weighted = regressor().fit(x, y, sample_weight=weights)
    absent = regressor().fit(x[weights > 0], y[weights > 0])
    np.testing.assert_array_equal(weighted.predict(X), absent.predict(X))


def test_integer_weights_equal_repeated_rows_exactly():
    times = np.random.default_rng(0).integers(0, 4, 60)
    order = np.random.default_rng(1).permutation(times.sum())
    weighted = regressor().fit(X[:60], Y[:60], sample_weight=times)
    repeated = regressor().fit(np.repeat(X[:60], times, 0)[order], np.repeat(Y[:60], times)[order])
    np.testing.assert_array_equal(weighted.predict(X), repeated.predict(X))
    labels = YC[50:][::2]
    times = np.random.default_rng(0).integers(0, 4, 50)
    weighted = classifier().fit(XC[50:][::2], labels, sample_weight=times)
    repeated = classifier().fit(np.repeat(XC[50:][::2], times, 0), np.repeat(labels, times))
    np.testing.assert_array_equal(weighted.predict_proba(XC), repeated.predict_proba(XC))


def test_members_disagree_where_there_are_no_data():
    x = np.random.default_rng(0).uniform(-1, 1, (90, 2))
    y = np.sin(3 * x[:, 0]) + 0.3 * np.random.default_rng(1).standard_normal(90)
    model = HypernetRegressor(random_state=0).fit(x, y)
    near, far = model.predict_uncertainty(x), model.predict_uncertainty(3 * np.sign(x))
    assert (near.epistemic > 0).all()
    assert far.epistemic.mean() > 2 * near.epistemic.mean()


def test_one_member_has_no_epistemic_part():
    model = regressor(n_estimators=1).fit(X, Y)
    with pytest.raises(ValueError, match="predict_uncertainty needs n_estimators of at least 2, got 1"):
        model.predict_uncertainty(X)


def test_functions_keep_their_weights(fitted):
    one, two = fitted.sample_functions(2, random_state=3)
    np.testing.assert_allclose(one(X[:5]), one(X)[:5], rtol=1e-12)
    assert not np.allclose(one(X), two(X))
    np.testing.assert_array_equal(fitted.sample_functions(1, random_state=3)[0](X), one(X))


def test_fewer_draws_are_the_first_of_the_bank(fitted):
    std, all_std = (fitted.predict(X, return_std=True, n_samples=n)[1] for n in (2, None))
    assert not np.allclose(std, all_std)
    np.testing.assert_array_equal(fitted.predict(X, return_std=True, n_samples=6)[1], all_std)
    with pytest.raises(ValueError, match=r"n_samples must be in \[1, 6\], the draws made at fit, got 7"):
        fitted.predict(X, n_samples=7)


def test_a_fitted_model_is_arrays_and_plain_types(fitted, fitted_classes):
    for model, x in ((fitted, X), (fitted_classes, XC)):
        again = pickle.loads(pickle.dumps(model))
        np.testing.assert_array_equal(again.predict(x), model.predict(x))
        assert b"torch" not in pickle.dumps(model)


def test_min_std_is_a_floor():
    model = regressor(min_std=50.0).fit(X, Y)
    assert model.predict(X, return_std=True)[1].min() >= 50


@pytest.mark.parametrize(
    "parameters",
    [
        {"generator": "none"},
        {"generator": "low_rank"},
        {"hypernet_hidden_layer_sizes": (8, 4), "hypernet_dropout": 0.2},
        {"residual": False},
        {"draws": "dealt"},
        {"draws": "row", "input_noise": 0.3},
        {"objective": 0.0},
        {"objective": 1.0},
        {"mean_weight": 0.0},
        {"n_frequencies": 2},
        {"n_train_samples": 1},
        {"noise_dim": 2},
        {"noise_model": "homoscedastic"},
        {"noise_model": "squared"},
        {"prior_scale": 0.5},
        {"alpha": 5.0},
        {"solver": "sgd"},
        {"learning_rate_init": 0.01},
        {"learning_rate": "constant"},
        {"batch_size": 16},
        {"max_iter": 5},
        {"early_stopping": False},
        {"validation_fraction": 0.3},
        {"preprocessing": "standard"},
        {"preprocessing": None},
        {"activation": "tanh"},
        {"hidden_layer_sizes": (8, 6)},
        {"hidden_layer_sizes": 9},
        {"hidden_layer_sizes": ()},
        {"n_estimators": 3},
        {"n_samples": 3},
        {"dtype": "float32"},
    ],
    ids=str,
)
def test_every_setting_changes_the_model_and_fits(fitted, parameters):
    model = regressor(**parameters).fit(X, Y)
    mean, std = model.predict(X, return_std=True)
    assert np.isfinite(mean).all()
    assert (std > 0).all()
    assert not np.array_equal(mean, fitted.predict(X))


def test_the_device_is_named_or_found(fitted):
    np.testing.assert_array_equal(regressor(device="cpu").fit(X, Y).predict(X), fitted.predict(X))
    assert np.isfinite(regressor(device="auto").fit(X, Y).predict(X)).all()
    with pytest.raises(ValueError, match="device must be \"auto\" or a device of this machine, got 'abacus'"):
        regressor(device="abacus").fit(X, Y)


def test_the_paper_is_a_preset():
    model = HypernetRegressor.from_paper(max_iter=2, n_samples=5, random_state=0)
    assert model.batch_size == 1
    assert model.draws == "row"
    assert not model.residual
    assert np.isfinite(model.fit(X, Y).log_prob(X, Y)).all()
    model = HypernetClassifier.from_paper(hidden_layer_sizes=(20,), max_iter=2, batch_size=10, random_state=0)
    assert model.fit(XC, LABELS).predict_proba(XC).shape == (150, 3)
    assert HypernetRegressor.from_paper(batch_size=512).batch_size == 512


def test_dropout_trains_in_single_precision():
    model = HypernetRegressor.from_paper(max_iter=20, batch_size=10, dtype="float32", random_state=0).fit(X, Y)
    assert np.isfinite(model.loss_curve_).all()
    assert model.loss_curve_[-1] < model.loss_curve_[0]


def test_curves_have_a_line_for_each_evaluation(fitted):
    curves = (fitted.loss_curve_, fitted.validation_loss_curve_, fitted.weight_spread_curve_)
    assert len({len(curve) for curve in curves}) == 1
    assert all(np.isfinite(curve).all() for curve in curves)
    assert fitted.loss_curve_[-1] < fitted.loss_curve_[0]
    assert fitted.n_iter_ == 20
    assert np.isnan(regressor(early_stopping=False).fit(X, Y).validation_loss_curve_).all()


def test_warm_start_goes_on(fitted):
    model = regressor(warm_start=True).fit(X, Y)
    first = model.loss_curve_
    model.fit(X, Y)
    assert len(model.loss_curve_) == 2 * len(first)
    assert model.n_iter_ == 40
    assert model.loss_curve_[len(first)] < first[0]


def test_partial_fit_learns_pass_by_pass():
    model = regressor(learning_rate_init=0.01)
    scores = [model.partial_fit(X, Y).score(X, Y) for _ in range(40)]
    assert scores[-1] > max(0.5, scores[0])
    model = classifier(learning_rate_init=0.05)
    model.partial_fit(XC[::3], LABELS[::3], classes=np.unique(LABELS))
    for _ in range(60):
        model.partial_fit(XC, LABELS)
    assert model.score(XC, LABELS) > 0.9
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(XC, LABELS, classes=["a", "b"])
    with pytest.raises(ValueError, match="y must hold labels of the first fit"):
        model.partial_fit(XC, np.full(150, "other"))


def test_given_validation_rows_stop_and_calibrate():
    model = regressor().fit(X[:120], Y[:120], X_val=X[120:], y_val=Y[120:])
    other = regressor().fit(X[:120], Y[:120], X_val=X[120:], y_val=Y[120:] + 50)
    assert np.isfinite(model.validation_loss_curve_).all()
    assert other.predict(X, return_std=True)[1].mean() > 2 * model.predict(X, return_std=True)[1].mean()
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        regressor().fit(X, Y, X_val=X)


def test_verbose_prints_a_line_for_each_evaluation(capsys):
    model = regressor(verbose=1).fit(X, Y)
    assert len(capsys.readouterr().out.splitlines()) == len(model.loss_curve_)


def test_divergence_is_rolled_back_and_said():
    with pytest.warns(ConvergenceWarning, match="Lower learning_rate_init"):
        model = regressor(learning_rate_init=1e200, max_iter=60).fit(X, Y)
    assert np.isfinite(model.predict(X)).all()


def test_classes_are_predicted_by_the_mean_of_softmaxes(fitted_classes):
    p = fitted_classes.predict_proba(XC)
    samples = fitted_classes.predict_proba_samples(XC)
    assert samples.shape == (12, 150, 3)
    np.testing.assert_allclose(samples.sum(-1), 1)
    np.testing.assert_allclose(samples.mean(0), p)
    np.testing.assert_allclose(np.exp(fitted_classes.predict_log_proba(XC)), p)
    assert set(fitted_classes.predict(XC)) <= set(LABELS)
    assert fitted_classes.score(XC, LABELS) > 0.9
    total, aleatoric, epistemic = fitted_classes.predict_uncertainty(XC)
    np.testing.assert_allclose(total, -(p * np.log(p)).sum(1))
    np.testing.assert_allclose(total, aleatoric + epistemic, atol=1e-12)


def test_two_classes_and_class_weights():
    rare = np.r_[np.arange(60), 100:110]
    y = (YC[rare] == 2) | (YC[rare] == 1)
    x = XC[rare][:, :1]
    plain = classifier(max_iter=100).fit(x, y).predict_proba(x)
    balanced = classifier(max_iter=100, class_weight="balanced").fit(x, y).predict_proba(x)
    named = classifier(max_iter=100, class_weight={True: 5.0}).fit(x, y).predict_proba(x)
    assert plain.shape == (70, 2)
    assert balanced[:, 1].mean() > plain[:, 1].mean()
    assert named[:, 1].mean() > plain[:, 1].mean()


@pytest.mark.parametrize("scorer", [log_prob_scorer, crps_scorer])
def test_scorers_work_in_cross_validation(scorer):
    scores = cross_val_score(regressor(max_iter=5), X, Y, cv=2, scoring=scorer)
    assert np.isfinite(scores).all()
    model = regressor(max_iter=5).fit(X, Y)
    expected = model.log_prob(X, Y).mean() if scorer is log_prob_scorer else -model.crps(X, Y).mean()
    assert scorer(model, X, Y) == pytest.approx(expected)
    weights = np.arange(160.0)
    values = model.log_prob(X, Y) if scorer is log_prob_scorer else -model.crps(X, Y)
    assert scorer(model, X, Y, sample_weight=weights) == pytest.approx(np.average(values, weights=weights))


def test_strings_and_missing_values_go_through_a_column_transformer():
    frame = pd.DataFrame({"a": X[:, 0], "b": np.where(X[:, 1] > 0.5, "u", "v")})
    frame.loc[::7, "a"] = np.nan
    prepare = ColumnTransformer([("n", SimpleImputer(), ["a"]), ("c", OneHotEncoder(), ["b"])])
    assert np.isfinite(make_pipeline(prepare, regressor(max_iter=3)).fit(frame, Y).predict(frame)).all()


BAD = {
    "NaN": (lambda: regressor().fit(np.where(X > 0.9, np.nan, X), Y), "the guide has a recipe with ColumnTransformer"),
    "strings": (lambda: regressor().fit(np.array([["a"], ["b"]]), [0.0, 1.0]), "the guide has a recipe with"),
    "one class": (lambda: classifier().fit(XC[:50], YC[:50]), "at least 2 classes in y, got 1 class: \\[0\\]"),
    "noise_dim": (lambda: regressor(noise_dim=0).fit(X, Y), "The 'noise_dim' parameter of HypernetRegressor"),
    "objective": (lambda: regressor(objective=2).fit(X, Y), "The 'objective' parameter of HypernetRegressor"),
    "batch_size": (
        lambda: regressor(batch_size=200).fit(X, Y),
        "batch_size must be at most the number of training rows, 160, got 200",
    ),
    "hidden": (lambda: regressor(hidden_layer_sizes=(0,)).fit(X, Y), "hidden_layer_sizes must hold positive integers"),
    "noise hidden": (
        lambda: regressor(hypernet_hidden_layer_sizes=(1.5,)).fit(X, Y),
        "hypernet_hidden_layer_sizes must hold positive integers",
    ),
    "nothing to hold out": (
        lambda: regressor(early_stopping=True, validation_fraction=0.1).fit(X[:12], Y[:12]),
        "validation_fraction must leave at least 2 rows to stop by",
    ),
}


@pytest.mark.parametrize(("call", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("levels", [[0.0], [0.5, 1.0], [-0.1], [np.nan]])
def test_levels_of_quantiles_are_inside_zero_and_one(fitted, levels):
    with pytest.raises(ValueError, match=r"quantiles must lie in the open interval \(0, 1\), got"):
        fitted.predict_quantiles(X, levels)


def test_coverage_and_targets_are_checked(fitted, fitted2):
    with pytest.raises(ValueError, match=r"coverage must lie in the open interval \(0, 1\), got 1"):
        fitted.predict_interval(X, 1)
    with pytest.raises(ValueError, match="y must have one row for each of the 160 rows of X and 1 target"):
        fitted.log_prob(X, Y[:5])
    with pytest.raises(ValueError, match="and 2 target"):
        fitted2.crps(X, Y)
    with pytest.raises(ValueError, match="y must have 1 target"):
        regressor().fit(X, Y).partial_fit(X, Y2)


def test_an_unfitted_model_says_so():
    with pytest.raises(NotFittedError):
        regressor().predict_uncertainty(X)
    with pytest.raises(NotFittedError):
        regressor().sample_functions()
    with pytest.raises(NotFittedError):
        classifier().predict(XC)


@pytest.mark.parametrize("held", [True, False])
def test_an_interruption_keeps_the_best_weights_so_far(monkeypatch, held):
    def impatient(self):
        def watch(record):
            if record.step >= 60:
                raise KeyboardInterrupt

        return watch

    whole = regressor(early_stopping=held).fit(X, Y)
    monkeypatch.setattr(HypernetRegressor, "_watch", impatient)
    with pytest.warns(ConvergenceWarning, match="interrupted after 60 updates; the best weights so far are kept"):
        model = regressor(early_stopping=held).fit(X, Y)
    assert model.t_ == 60 < whole.t_
    assert len(model.loss_curve_) < len(whole.loss_curve_)
    assert model.score(X, Y) > 0.3


def test_an_interruption_before_there_is_anything_is_the_users(monkeypatch):
    def interrupt(self, *rest):
        raise KeyboardInterrupt

    monkeypatch.setattr("skhyper.core.noise.training.Trainer.advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        regressor().fit(X, Y)
