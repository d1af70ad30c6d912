"""What a search keeps from fit to fit, what it refuses, and what it says of alphas that it did not choose."""

import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import make_regression
from sklearn.linear_model import (
    GammaRegressor,
    HuberRegressor,
    LassoCV,
    LogisticRegression,
    PoissonRegressor,
    Ridge,
    SGDRegressor,
    TweedieRegressor,
)
from sklearn.metrics import mean_squared_error
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.neural_network import MLPRegressor
from sklearn.pipeline import Pipeline
from sklearn.svm import LinearSVC

from skhyper import HyperTrainedRidge, HyperTrainingSearchCV
from skhyper.core.loop import Journal
from skhyper.core.losses import TweedieLog
from skhyper.core.result import StopReason
from skhyper.displays import BestResponseDisplay

# Short searches, and alphas that are held: tests/test_right.py and test_network_endings.py have what is said of these.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Alpha was still moving"),
    pytest.mark.filterwarnings("ignore:The search had taken all of its steps"),
    pytest.mark.filterwarnings("ignore:The best alpha lies on a bound"),
]

X, Y = make_regression(100, 6, n_informative=3, noise=10.0, random_state=0)
LABELS = (Y > 0).astype(int)


def log_link_data():
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 4))
    return x, random.poisson(np.exp(0.5 * x[:, 0] + 1)) + 0.5


@pytest.mark.parametrize(
    "estimator",
    [
        PoissonRegressor(max_iter=2000),
        GammaRegressor(max_iter=2000),
        TweedieRegressor(power=1.5, max_iter=2000),
        TweedieRegressor(power=0, link="log", max_iter=2000),
    ],
)
@pytest.mark.parametrize("scoring", ["r2", "neg_root_mean_squared_error", None])
def test_log_links_are_tuned_to_squared_scores(estimator, scoring):
    """As well as by a grid: the squared error of a log link is a positive loss, whose logarithm falls."""
    x, y = log_link_data()
    search = HyperTrainingSearchCV(clone(estimator), cv=KFold(3), scoring=scoring, granularity="global").fit(x, y)
    grid = GridSearchCV(estimator, {"alpha": np.geomspace(1e-3, 100, 11)}, cv=KFold(3), scoring=scoring).fit(x, y)
    assert search.best_score_ > grid.best_score_ - 1e-3 * abs(grid.best_score_)


def test_a_log_link_with_normal_errors_has_a_squared_loss():
    import torch

    f, y = torch.tensor([[-1.0], [0.3]]).double(), torch.tensor([[2.0], [1.5]]).double()
    value = TweedieLog(0).each(f, y)
    torch.testing.assert_close(value, (torch.exp(f) - y) ** 2 / 2)


@pytest.mark.skipif("loss" not in MLPRegressor().get_params(), reason="this scikit-learn has no log link there")
def test_a_network_with_a_log_link_is_tuned_to_a_squared_score():
    x, y = log_link_data()
    network = MLPRegressor(
        hidden_layer_sizes=(8,), loss="poisson", max_iter=60, learning_rate_init=0.01, random_state=0
    )
    search = HyperTrainingSearchCV(network, scoring="r2", random_state=0).fit(x, y)
    assert search.score(x, y) > 0.3


def test_the_curve_of_a_wide_problem_is_that_of_all_folds():
    """One fold alone is scanned first there, and is no mean over folds."""
    random = np.random.default_rng(1)
    x = random.normal(size=(500, 300))
    y = x[:, :10].sum(1) + 3 * random.normal(size=500)
    y[:50] += 8 * random.normal(size=50)
    search = HyperTrainingSearchCV(Ridge(), granularity="global", cv=KFold(10)).fit(x, y)
    low, high = search.response_range_
    for alpha in np.geomspace(low, high, 4):
        folds = -cross_val_score(Ridge(alpha), x, y, cv=KFold(10), scoring="neg_mean_squared_error")
        assert 2 * search.validation_curve([alpha])[0] == pytest.approx(folds.mean(), rel=0.02)


def test_the_curve_of_few_points_is_that_of_the_fits_between_them():
    x, y = make_regression(80, 6, n_informative=3, noise=20, random_state=0)
    search = HyperTrainingSearchCV(Ridge(), granularity="global").fit(x, y)
    for alpha in np.geomspace(0.1, 100, 13):
        folds = -cross_val_score(Ridge(alpha), x, y, cv=KFold(5), scoring="neg_mean_squared_error")
        assert 2 * search.validation_curve([alpha])[0] == pytest.approx(folds.mean(), rel=0.1)


def wide(n, p, n_true, noise, seed=0):
    """Training and test rows of independent columns, targets of standard deviation about 1."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n + 1000, p))
    signal = x[:, :n_true] @ rng.standard_normal(n_true) / np.sqrt(n_true)
    y = signal + noise * rng.standard_normal(n + 1000)
    return x[:n], y[:n], x[n:], y[n:]


@pytest.mark.parametrize(("n", "p", "n_true", "noise"), [(60, 1000, 3, 0.3), (60, 2000, 3, 0.3), (100, 1000, 8, 0.3)])
def test_sparse_truths_are_found_among_many_columns(n, p, n_true, noise):
    """The tuned global alpha says nothing there; the Lasso's error is reached all the same."""
    x, y, x_test, y_test = wide(n, p, n_true, noise, seed=5)
    lasso = mean_squared_error(y_test, LassoCV(max_iter=10_000).fit(x, y).predict(x_test))
    ours = mean_squared_error(y_test, HyperTrainedRidge().fit(x, y).predict(x_test))
    assert ours < 1.1 * lasso < 0.6


def test_dense_truths_of_somewhat_wide_data_keep_their_weak_decays():
    """The first hollow below the alpha at which weights leave zero is not the lowest."""
    x, y, x_test, y_test = wide(400, 300, 300, 0.02)
    ours = HyperTrainedRidge(exponent=0.5, cv=3).fit(x, y)
    assert ours.score(x_test, y_test) > 0.99


@pytest.mark.parametrize("scale", [0.0, 1e-60])
def test_wide_columns_without_a_size_leave_the_family_alone(scale):
    x = scale * np.random.default_rng(0).standard_normal((20, 60))
    y = np.random.default_rng(1).standard_normal(20)
    for columns in (x, x + 1.0):
        ours = HyperTrainedRidge().fit(columns, y)
        assert "not finite" not in ours.stop_reason_
        assert np.isfinite(ours.coef_).all()


@pytest.mark.parametrize(("n_targets", "seed"), [(1, 1), (2, 1), (3, 1), (1, 2)])
def test_hypergradients_of_the_lasso_are_finite_with_four_rows(n_targets, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((4, 30))
    y = 2 * x[:, :2].sum(1, keepdims=True) + 0.3 * rng.standard_normal((4, n_targets))
    ours = HyperTrainedRidge(exponent=1.0, cv=2).fit(x, y[:, 0] if n_targets == 1 else y)
    assert ours.hypergradient_error_ < 1e-2
    assert "not finite" not in ours.stop_reason_


def test_what_needs_the_final_model_says_so():
    search = HyperTrainingSearchCV(Ridge(), refit=False).fit(X, Y)
    for method in (search.refit_estimator, lambda: search.best_response(1.0)):
        with pytest.raises(AttributeError, match="refit=False"):
            method()


def test_a_plain_pipeline_of_a_familys_far_alpha_fits():
    """The family's own alpha may lie on a bound while its decays do not: the pipeline's has their size."""
    x, y = make_regression(60, 6, n_informative=3, noise=20, random_state=2)
    poisson = PoissonRegressor(max_iter=10_000, tol=1e-10)
    search = HyperTrainingSearchCV(poisson, exponent=1.0, alpha_bounds=(1e-8, 1e6)).fit(x, np.abs(y))
    decays = np.array(list(search.alphas_.values()))
    assert search.best_params_["alpha"] > 1e3 * decays.min()
    plain = search.refit_estimator()
    assert plain[-1].alpha == pytest.approx(decays.min())
    np.testing.assert_allclose(plain.fit(x, np.abs(y)).predict(x), search.predict(x), rtol=1e-4)


def test_the_alpha_of_a_family_ends_between_those_that_were_scanned():
    x, y = make_regression(80, 6, n_informative=3, noise=20, random_state=0)
    search = HyperTrainingSearchCV(Ridge(), exponent=0.5).fit(x, y)
    assert search.stop_reason_ == StopReason.SCANNED.value


@pytest.mark.parametrize("exponent", [2, 1.0])
def test_the_curve_goes_through_the_chosen_row(exponent):
    granularity = "global" if exponent == 2 else "feature"
    search = HyperTrainingSearchCV(Ridge(), granularity=granularity, exponent=exponent).fit(X, Y)
    alpha = search.best_params_["alpha"]
    chosen = search.cv_results_["mean_outer_loss"][search.best_index_]
    assert search.validation_curve([alpha])[0] == pytest.approx(chosen, rel=1e-6)
    assert search.validation_curve([1.5 * alpha])[0] > chosen


def test_the_display_marks_the_tuned_alpha():
    search = HyperTrainingSearchCV(LogisticRegression()).fit(X, LABELS)
    assert BestResponseDisplay.from_estimator(search).best_alpha == pytest.approx(1 / search.best_params_["C"])
    with pytest.raises(TypeError, match="must be a HyperTrainingSearchCV, got a HyperTrainedRidge"):
        BestResponseDisplay.from_estimator(HyperTrainedRidge().fit(X, Y))


@pytest.mark.parametrize("step", ["passthrough", None, Pipeline([("inner", "passthrough")])])
def test_pipelines_that_pass_everything_on(step):
    plain = HyperTrainingSearchCV(Ridge()).fit(X, Y)
    wrapped = HyperTrainingSearchCV(Pipeline([("step", step), ("ridge", Ridge())])).fit(X, Y)
    np.testing.assert_allclose(wrapped.predict(X), plain.predict(X))
    inside = TransformedTargetRegressor(Pipeline([("step", step), ("ridge", Ridge())]))
    assert HyperTrainingSearchCV(inside).fit(X, Y).score(X, Y) > 0.5


@pytest.mark.parametrize("make", [HyperTrainedRidge, lambda **kw: HyperTrainingSearchCV(Ridge(), **kw)])
def test_folds_may_come_from_generators(make):
    listed = make(cv=list(KFold(3).split(X)), shrinkage=1.0, guard_cv=list(KFold(4).split(X))).fit(X, Y)
    lazy = make(cv=KFold(3).split(X), shrinkage=1.0, guard_cv=KFold(4).split(X)).fit(X, Y)
    assert lazy.guard_score_ == pytest.approx(listed.guard_score_)


def test_nothing_is_left_of_an_earlier_fit():
    search = HyperTrainingSearchCV(Ridge(), cv=3, exponent=0.5).fit(X, Y)
    search.set_params(scoring=["r2", "neg_max_error"], refit=False, granularity="global", exponent="auto").fit(X, Y)
    assert not hasattr(search, "best_index_")
    assert not hasattr(search, "exponent_")
    network = HyperTrainingSearchCV(MLPRegressor(hidden_layer_sizes=(4,), max_iter=20, random_state=0), max_iter=2).fit(
        X, Y
    )
    linear = network.set_params(estimator=Ridge()).fit(X, Y)
    with pytest.raises(ValueError, match="best_response is for neural networks"):
        linear.best_response(1.0)
    with pytest.raises(ValueError, match="continue_fit is for neural networks"):
        linear.continue_fit(X, Y)
    assert not hasattr(linear, "hypergradient_cosine_")


def test_names_of_features_are_those_of_the_last_fit():
    frame = pd.DataFrame(X, columns=[f"f{j}" for j in range(6)])
    model = HyperTrainedRidge().fit(frame, Y).fit(X[:, :4], Y)
    assert not hasattr(model, "feature_names_in_")
    assert model.predict(X[:, :4]).shape == (100,)


@pytest.mark.parametrize("make", [HyperTrainedRidge, lambda **kw: HyperTrainingSearchCV(Ridge(), **kw)])
def test_a_fit_that_fails_leaves_the_model_as_it_was(make):
    model = make().fit(X, Y)
    before, names = model.predict(X), set(vars(model))
    with pytest.raises(ValueError, match="alpha_bounds"):
        model.set_params(alpha_bounds=(2, 1)).fit(X[:, :3], Y)
    assert set(vars(model)) == names
    np.testing.assert_array_equal(model.predict(X), before)


def test_there_is_no_guard_after_an_interruption(monkeypatch):
    evaluated, count = Journal.evaluated, []

    def interrupted(self, *args, **kwargs):
        count.append(1)
        if len(count) == 20:
            raise KeyboardInterrupt
        return evaluated(self, *args, **kwargs)

    monkeypatch.setattr(Journal, "evaluated", interrupted)
    search = HyperTrainingSearchCV(Ridge(), shrinkage=1.0).fit(X, Y)
    assert len(count) == 20
    assert "interrupted" in search.stop_reason_
    assert np.isnan(search.guard_score_)
    assert "interrupted" in search.guard_reason_


@pytest.mark.parametrize(
    "estimator",
    [
        HuberRegressor(epsilon=0.5),
        SGDRegressor(loss="huber", epsilon=-1),
        LinearSVC(intercept_scaling="x"),
        Ridge(solver="foo"),
        Ridge(fit_intercept="x"),
        TweedieRegressor(power=1.5, link="foo"),
    ],
)
def test_settings_that_the_estimator_would_refuse(estimator):
    with pytest.raises(ValueError, match=f"parameter of {type(estimator).__name__} must be"):
        HyperTrainingSearchCV(estimator).fit(X, np.abs(Y) + 1)


@pytest.mark.parametrize("scoring", [["r2"], {"a": "r2"}, "foo"])
def test_a_linear_model_has_one_score(scoring):
    with pytest.raises(ValueError, match="'scoring' parameter of HyperTrainedRidge must be"):
        HyperTrainedRidge(scoring=scoring).fit(X, Y)


@pytest.mark.parametrize("max_iter", [0, -1, 2.5])
def test_steps_to_go_on_for(max_iter):
    search = HyperTrainingSearchCV(MLPRegressor(hidden_layer_sizes=(4,), max_iter=20, random_state=0), max_iter=2).fit(
        X, Y
    )
    with pytest.raises(ValueError, match="max_iter must be a positive integer"):
        search.continue_fit(X, Y, max_iter=max_iter)
    with pytest.raises(ValueError, match="continue_fit needs the 6 columns of fit, got 3"):
        search.continue_fit(X[:, :3], Y)


TARGETS = np.column_stack([Y, X[:, 0] - Y])
NETWORK = MLPRegressor(hidden_layer_sizes=(2,), max_iter=20, random_state=0)


@pytest.mark.parametrize(
    ("estimator", "settings", "names"),
    [
        (Ridge(), {"granularity": "global"}, ["all"]),
        (Ridge(), {"granularity": "output"}, ["0", "1"]),
        (Ridge(), {"granularity": "feature"}, ["x0", "x1", "x2"]),
        (Ridge(), {"granularity": "weight"}, ["x0[0]", "x0[1]", "x1[0]", "x1[1]", "x2[0]", "x2[1]"]),
        (Ridge(), {"decay_groups": [1, 1, 2]}, ["1", "2"]),
        (NETWORK, {"granularity": "layer"}, ["coefs_[0]", "coefs_[1]"]),
        (NETWORK, {"granularity": "output"}, ["coefs_[0][:, 0]", "coefs_[0][:, 1]", "0", "1"]),
        (NETWORK, {"granularity": "feature"}, ["x0", "x1", "x2", "coefs_[1][0]", "coefs_[1][1]"]),
        (
            NETWORK,
            {"granularity": "weight"},
            [f"coefs_[{l}][{i}, {j}]" for l, n in ((0, 3), (1, 2)) for i in range(n) for j in range(2)],
        ),
    ],
)
def test_decays_of_several_targets_have_strings_for_names_and_go_through_skops(estimator, settings, names):
    search = HyperTrainingSearchCV(estimator, cv=3, random_state=0, max_iter=5, **settings).fit(X[:, :3], TARGETS)
    assert list(search.alphas_) == names
    assert all(type(name) is str for name in search.alphas_)
    stored = skops.io.dumps(search)
    again = skops.io.loads(stored, trusted=skops.io.get_untrusted_types(data=stored))
    assert again.alphas_ == search.alphas_
    np.testing.assert_array_equal(again.predict(X[:, :3]), search.predict(X[:, :3]))


def test_groups_whose_names_are_the_same_as_text_are_refused():
    with pytest.raises(ValueError, match=r"decay_groups must have groups whose names differ as text, got \[1, '1'\]"):
        HyperTrainingSearchCV(Ridge(), cv=3, decay_groups=[1, "1", 1]).fit(X[:, :3], Y)
