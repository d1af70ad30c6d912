"""HyperTrainingSearchCV over neural networks, from the user's side.

The mathematics is tested in core/test_mlp.py and core/test_hypertraining.py, scikit-learn's contract in test_common.py.
"""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_iris
from sklearn.linear_model import Ridge
from sklearn.metrics import mean_poisson_deviance
from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.utils._testing import ignore_warnings

from skhyper.algorithms import NETWORK_ALGORITHMS, JointHyperTraining, SimplifiedHyperTraining
from skhyper.core.training import Trainer
from skhyper.estimators.hypernet_regressor import HypernetRegressor
from skhyper.estimators.search import HyperTrainingSearchCV
from skhyper.estimators.splits import two_halves

# Short searches, whose alpha is still moving when they end; tests/test_network_endings.py has what is said of that.
pytestmark = pytest.mark.filterwarnings("ignore:Alpha was still moving")

XC, YC = load_iris(return_X_y=True)
XC = StandardScaler().fit_transform(XC)
RNG = np.random.RandomState(0)
X = RNG.standard_normal((80, 4))
Y = np.sin(X[:, 0]) + 0.1 * RNG.standard_normal(80)


def classifier(**settings):
    return MLPClassifier(**{"hidden_layer_sizes": (6,), "max_iter": 40, "learning_rate_init": 0.01, **settings})


def regressor(**settings):
    return MLPRegressor(**{"hidden_layer_sizes": (6,), "max_iter": 40, "learning_rate_init": 0.01, **settings})


def search(estimator, **settings):
    return HyperTrainingSearchCV(estimator, **{"random_state": 0, "max_iter": 20, **settings})


def test_the_fitted_object_is_a_plain_scikit_learn_network():
    ours = search(classifier(random_state=0)).fit(XC, YC)
    fitted = ours.best_estimator_
    own = ignore_warnings(classifier(random_state=0, max_iter=1).fit)(XC, YC)
    assert type(fitted) is MLPClassifier
    assert {name for name in vars(own) if name != "_optimizer"} <= set(vars(fitted))
    assert [c.shape for c in fitted.coefs_] == [c.shape for c in own.coefs_]
    assert fitted.n_iter_ >= len(fitted.loss_curve_) > 0
    again = pickle.loads(pickle.dumps(ours))
    np.testing.assert_array_equal(again.predict_proba(XC), fitted.predict_proba(XC))
    fitted.partial_fit(XC, YC)
    assert ours.n_splits_ == 3
    assert ours.score(XC, YC) > 0.8
    assert list(ours.alphas_) == ["all"]


@pytest.mark.parametrize(
    "estimator",
    [
        regressor(),
        regressor(solver="sgd", activation="tanh"),
        regressor(early_stopping=True, hidden_layer_sizes=(4, 3)),
        make_pipeline(StandardScaler(), regressor()),
        TransformedTargetRegressor(regressor(), transformer=StandardScaler()),
    ],
    ids=lambda e: repr(e).replace("\n", "")[:40],
)
def test_regressors_pipelines_and_transformed_targets_are_tuned(estimator):
    ours = search(estimator).fit(X, Y)
    assert type(ours.best_estimator_) is type(estimator)
    assert np.isfinite(ours.predict(X)).all()
    assert ours.history_["value"][-1] < ours.history_["value"][0]


def test_several_targets_and_several_labels():
    assert search(regressor()).fit(X, np.column_stack([Y, X[:, 1]])).predict(X).shape == (80, 2)
    labels = np.column_stack([Y > 0, X[:, 1] > 0]).astype(int)
    ours = search(classifier()).fit(X, labels)
    assert ours.predict(X).shape == (80, 2)
    assert ours.best_estimator_.out_activation_ == "logistic"


@pytest.mark.parametrize("granularity", ["layer", "output", "feature", "weight"])
def test_every_granularity_names_its_decays_and_keeps_the_global_row(granularity):
    ours = search(classifier(), granularity=granularity).fit(XC, YC)
    sizes = {"layer": 2, "output": 9, "feature": 10, "weight": 42}
    assert len(ours.alphas_) == sizes[granularity]
    assert len(ours.cv_results_["params"]) == 2
    free = granularity in ("layer", "weight")
    fitted = sizes[granularity] if free else 2 * sizes["layer"]  # else an alpha and an exponent of each layer
    assert list(ours.cv_results_["n_hyperparameters"]) == [1, 1 + fitted]
    assert ours.best_index_ in (0, 1)
    forced = search(classifier(), granularity=granularity, shrinkage=0.5).fit(XC, YC)
    assert forced.best_index_ == 1
    assert forced.n_hyperparameters_ == 1 + sizes[granularity]
    assert len(set(forced.alphas_.values())) > 1


def test_finer_decays_are_free_where_the_algorithm_cannot_follow_the_family():
    for settings in ({"algorithm": "joint"}, {"exponent": 2}, {"shrinkage": [0.5, 1.0]}):
        ours = search(classifier(), granularity="feature", **settings).fit(XC, YC)
        names = list(ours.cv_results_["snapshot"])
        assert names[0] == "global alpha"
        assert all(name.startswith("finer decays") for name in names[1:])
        assert len(names) == (3 if "shrinkage" in settings else 2)


def test_groups_of_features_share_a_decay_in_the_first_layer():
    ours = search(classifier(), decay_groups=["sepal", "sepal", "petal", "petal"]).fit(XC, YC)
    assert list(ours.alphas_) == ["sepal", "petal", "coefs_[1]"]


@pytest.mark.parametrize("algorithm", NETWORK_ALGORITHMS)
def test_every_algorithm_tunes(algorithm):
    ours = search(classifier(), algorithm=algorithm).fit(XC, YC)
    assert np.isfinite(ours.best_score_)
    assert len(set(ours.history_["log_alpha"])) > 1
    assert -1.001 <= ours.hypergradient_cosine_ <= 1.001 or np.isnan(ours.hypergradient_cosine_)
    assert ours.hypergradient_error_ >= 0


@pytest.mark.parametrize("algorithm", NETWORK_ALGORITHMS)
def test_single_precision_finds_what_double_precision_finds(algorithm):
    """Decays may differ by more than rounding: a stage ends where the best held-out loss is."""
    double, single = (
        search(classifier(random_state=0, batch_size=150), algorithm=algorithm, max_iter=5, dtype=dtype).fit(XC, YC)
        for dtype in ("float64", "float32")
    )
    assert not np.array_equal(single.predict_proba(XC), double.predict_proba(XC))
    np.testing.assert_allclose(single.predict_proba(XC), double.predict_proba(XC), atol=2e-3)
    assert single.alphas_["all"] == pytest.approx(double.alphas_["all"], rel=1e-2)
    assert single.best_estimator_.coefs_[0].dtype == np.float64


def test_only_networks_train_in_single_precision():
    for estimator in (Ridge(), HypernetRegressor()):
        with pytest.raises(
            ValueError, match=r"dtype must be 'float64' for estimators other than neural networks.*'float32'"
        ):
            search(estimator, dtype="float32").fit(X, Y)
    with pytest.raises(ValueError, match="The 'dtype' parameter"):
        search(regressor(), dtype="float16").fit(X, Y)


def test_a_users_module_can_be_the_hypernetwork():
    n_weights = 4 * 6 + 6 + 6 * 3 + 3
    module = torch.nn.Linear(1, n_weights)
    before = module.weight.detach().clone()
    ours = search(classifier(), algorithm=JointHyperTraining(hypernet=module)).fit(XC, YC)
    assert np.isfinite(ours.best_score_)
    torch.testing.assert_close(module.weight.detach(), before)


def test_a_users_module_fits_the_decays_of_each_stage():
    n_weights = 4 * 6 + 6 + 6 * 3 + 3

    def ours(hypernet):
        algorithm = JointHyperTraining(hypernet=hypernet)
        return search(classifier(), granularity="layer", algorithm=algorithm).fit(XC, YC)

    assert len(ours(torch.nn.Linear).alphas_) == 2
    for n_decays in (1, 2):
        with pytest.raises(ValueError, match=r"hypernet must map \([12],\) to \(51,\)"):
            ours(torch.nn.Linear(n_decays, n_weights))


def test_settings_that_cannot_be_tuned_are_named():
    with pytest.raises(TypeError, match="solver='lbfgs'"):
        search(classifier(solver="lbfgs")).fit(XC, YC)
    with pytest.raises(TypeError, match="learning_rate='adaptive'"):
        search(classifier(solver="sgd", learning_rate="adaptive")).fit(XC, YC)
    with pytest.raises(ValueError, match="not for neural networks"):
        search(classifier(), algorithm="closed_form").fit(XC, YC)
    with pytest.raises(ValueError, match="exponent"):
        search(classifier(), granularity="layer", exponent=1.5).fit(XC, YC)
    with pytest.raises(ValueError, match="elementwise"):
        search(classifier(), algorithm=SimplifiedHyperTraining(hypernet="elementwise", dither=0)).fit(XC, YC)


def test_runs_with_one_random_state_are_identical_whatever_n_jobs_is():
    one = search(classifier(), cv=2, granularity="layer").fit(XC, YC)
    two = search(classifier(), cv=2, granularity="layer", n_jobs=2).fit(XC, YC)
    np.testing.assert_array_equal(one.predict_proba(XC), two.predict_proba(XC))


@pytest.mark.parametrize("algorithm", ["implicit", "joint"])
def test_a_continued_search_ends_as_one_that_was_not_interrupted(algorithm):
    network = classifier(max_iter=100, random_state=0)
    whole = search(network, max_iter=16, algorithm=algorithm).fit(XC, YC)
    parts = search(network, max_iter=6, algorithm=algorithm).fit(XC, YC)
    parts = pickle.loads(pickle.dumps(parts)).continue_fit(XC, YC, max_iter=10)
    assert parts.n_iter_ == whole.n_iter_ == 16
    np.testing.assert_array_equal(parts.predict_proba(XC), whole.predict_proba(XC))
    assert parts.history_["log_alpha"] == whole.history_["log_alpha"]
    with pytest.raises(ValueError, match="150 rows"):
        parts.continue_fit(XC[:-1], YC[:-1])


@pytest.mark.skipif("loss" not in MLPRegressor().get_params(), reason="this scikit-learn has one loss of networks")
def test_poisson_counts_of_any_size_are_tuned_and_trained_to_the_end():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5))
    y = rng.poisson(20 * np.exp(0.3 * x[:, 0] - 0.2 * x[:, 1])).astype(float)
    network = MLPRegressor(loss="poisson", hidden_layer_sizes=(20,), learning_rate_init=0.005, random_state=0)
    ours = HyperTrainingSearchCV(network, random_state=0).fit(x[:200], y[:200])
    assert ours.history_["log_alpha"][0] > np.log(1e-3)
    assert 0 <= ours.best_estimator_.loss_ < 2
    assert len(ours.best_estimator_.loss_curve_) > 10
    assert mean_poisson_deviance(y[200:], ours.predict(x[200:])) < 1.6


def categories():
    """A column of which some values are missing from every fold's training rows, and its numbers."""
    rng = np.random.default_rng(0)
    values = np.r_[["b"], rng.choice(list("acd"), 199)]
    y = pd.Series(values).map({"a": 0.0, "b": 1.0, "c": 2.0, "d": 3.0}).to_numpy() + 0.1 * rng.standard_normal(200)
    return pd.DataFrame({"c": values}), y


def encoded():
    network = MLPRegressor(hidden_layer_sizes=(20,), learning_rate_init=0.02, random_state=0)
    return make_pipeline(OneHotEncoder(handle_unknown="ignore"), network)


def test_the_final_network_is_trained_anew_where_its_columns_are_others():
    x, y = categories()
    one = [(np.arange(50, 200), np.arange(50))]
    two = [*one, (np.arange(150), np.arange(150, 200))]
    for cv in (one, two):
        ours = HyperTrainingSearchCV(encoded(), cv=cv, random_state=0).fit(x, y)
        np.testing.assert_allclose(ours.predict(pd.DataFrame({"c": list("acd")})), [0, 2, 3], atol=0.2)
    with pytest.raises(ValueError, match="granularity='feature' gives columns decays"):
        HyperTrainingSearchCV(encoded(), cv=one, granularity="feature", random_state=0).fit(x, y)


def test_halves_may_have_other_columns():
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"c": rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 120, p=np.r_[[0.2] * 4, [0.2 / 22] * 22])})
    y = (x["c"] == "a") + 0.3 * rng.standard_normal(120)
    network = MLPRegressor(hidden_layer_sizes=(5,), max_iter=60, random_state=0)
    ours = HyperTrainingSearchCV(make_pipeline(OneHotEncoder(handle_unknown="ignore"), network), random_state=0)
    assert np.isfinite(ours.fit(x, y).predict(x)).all()


def test_an_interruption_of_the_final_steps_keeps_what_there_is(monkeypatch):
    steps, run = [], Trainer.run

    def interrupted(self, state, decay, n_steps):
        steps.append(len(self.rows.c))
        if self.problem.train.min() > 0 and len(steps) > 3:  # all rows train
            raise KeyboardInterrupt
        return run(self, state, decay, n_steps)

    monkeypatch.setattr(Trainer, "run", interrupted)
    ours = search(classifier(), guard_cv=2).fit(XC, YC)
    assert "interrupted" in ours.stop_reason_
    assert np.isfinite(ours.predict_proba(XC)).all()
    assert "interrupted" in ours.guard_reason_


def test_a_continued_search_keeps_its_folds():
    folds = [(np.arange(0, 150, 2), np.arange(1, 150, 2))]
    ours = search(classifier(), cv=iter(folds), max_iter=3).fit(XC, YC)
    assert ours.continue_fit(XC, YC, max_iter=2).n_iter_ == 5


def test_a_search_that_is_continued_before_decays_move_ends_as_one():
    network = classifier(max_iter=100, random_state=0)
    whole = search(network, max_iter=20).fit(XC, YC)
    parts = search(network, max_iter=3).fit(XC, YC).continue_fit(XC, YC, max_iter=17)
    assert parts.history_["log_alpha"] == whole.history_["log_alpha"]


def noisy():
    """Rows of which few say little: weights memorise early."""
    rng = np.random.RandomState(0)
    x = rng.standard_normal((300, 20))
    return x, (x[:, 0] + 1.5 * rng.standard_normal(300) > 0).astype(int)


def memorising(**settings):
    network = MLPClassifier((20,), learning_rate_init=0.01, max_iter=150, batch_size=50, random_state=0)
    return HyperTrainingSearchCV(network, **{"random_state": 0, **settings})


def test_weights_that_memorise_early_keep_what_they_are_and_have_their_alpha_from_two_halves():
    x, y = noisy()
    same_rows = StratifiedShuffleSplit(3, test_size=0.2, random_state=0)
    ours, given = memorising().fit(x, y), memorising(cv=same_rows).fit(x, y)
    assert set(ours.history_["stage"]) == {"global alpha", "global alpha, halves"}
    assert set(given.history_["stage"]) == {"global alpha"}
    assert ours.best_score_ == given.best_score_
    assert len(ours.cv_results_["params"]) == 1
    assert ours.n_splits_ == 3
    assert ours.best_params_["alpha"] < given.best_params_["alpha"]
    assert set(memorising(max_iter=20).fit(x, y).history_["stage"]) == {"global alpha"}


def test_a_search_that_is_continued_asks_the_halves_where_the_whole_one_does():
    x, y = noisy()
    whole = memorising(max_iter=100).fit(x, y)
    parts = pickle.loads(pickle.dumps(memorising(max_iter=25).fit(x, y)))
    assert "global alpha, halves" not in parts.history_["stage"]
    parts.continue_fit(x, y, max_iter=75)
    assert list(whole.history_["stage"]) == list(parts.history_["stage"])
    assert whole.best_params_ == parts.best_params_
    np.testing.assert_array_equal(whole.best_estimator_.coefs_[0], parts.best_estimator_.coefs_[0])
    more = parts.continue_fit(x, y, max_iter=5)
    assert list(more.history_["stage"][-5:]) == ["global alpha"] * 5  # they are asked once


def test_halves_hold_a_row_of_every_class_or_there_are_none():
    y = np.array([0, 0, 0, 1, 1, 1, 2])
    assert two_halves(y, None, True, 0) is None
    (train, held), (_, other) = two_halves(y[:-1], None, True, 0)
    assert set(y[train]) == set(y[held]) == {0, 1}
    assert sorted([*held, *other]) == list(range(6))
    assert len(two_halves(np.arange(5.0), None, False, 0)) == 2


def test_halves_are_of_the_rows_that_have_weight():
    weight = np.array([0.0, 1.0, 0.0, 2.0, 1.0, 0.0, 1.0])
    (train, held), (_, other) = two_halves(np.arange(7.0), weight, False, 0)
    assert len(train) == len(held) == 2
    assert sorted([*held, *other]) == [1, 3, 4, 6]
    assert two_halves(np.arange(7.0), weight * (weight > 1), False, 0) is None
    assert two_halves(np.array(list("abbbabb")), weight, True, 0) is None  # one row of "a" has weight


def test_rows_without_weight_have_no_say_in_the_halves():
    """All rows with weight are in one half of all rows: dealt out among these, the other half would be empty."""
    x, y = noisy()
    one = next(StratifiedKFold(2, shuffle=True, random_state=0).split(x, y))[0]
    weight = np.zeros(len(y))
    weight[one] = 1.0
    ours = memorising().fit(x, y, sample_weight=weight)
    assert "global alpha, halves" in ours.history_["stage"]


def test_the_best_response_moves_along_alpha_without_training():
    ours = search(regressor(random_state=0), algorithm="joint").fit(X, Y)
    tuned = ours.best_params_["alpha"]
    here, there = ours.best_response(tuned), ours.best_response(1.5 * tuned)
    np.testing.assert_allclose(here.predict(X), ours.predict(X))
    assert there.alpha == 1.5 * tuned
    size = [sum((c**2).sum() for c in e.coefs_) for e in (here, there)]
    assert size[1] < size[0]
    low, high = ours.response_range_
    assert low < tuned < high
    assert ours.validation_curve([low, tuned, high]).shape == (3,)
    with pytest.warns(UserWarning, match="response_range_"):
        ours.best_response(100 * high)


def test_a_time_limit_leaves_a_model():
    ours = search(classifier(max_iter=10**6), time_limit=0.3, max_iter=10**6).fit(XC, YC)
    assert "time limit" in ours.stop_reason_
    assert np.isfinite(ours.predict_proba(XC)).all()


@pytest.mark.parametrize("exponent", ["tuned", 1.5, [1.5, 1.0]])
@pytest.mark.parametrize("algorithm", ["implicit", "t1t2"])
def test_the_family_has_an_alpha_and_an_exponent_of_each_layer(exponent, algorithm):
    ours = search(classifier(), granularity="feature", exponent=exponent, algorithm=algorithm).fit(XC, YC)
    rows = 2 if np.ndim(exponent) == 0 else 3
    assert len(ours.cv_results_["params"]) == rows
    assert list(ours.cv_results_["n_hyperparameters"])[1:] == [1 + (4 if exponent == "tuned" else 2)] * (rows - 1)
    assert list(ours.cv_results_["shrinkage"]) == [0.0] * rows
    if exponent == 1.5:
        assert ours.best_index_ == 1
        assert ours.exponent_ == 1.5
        assert len(set(ours.alphas_.values())) == 10
        pickle.loads(pickle.dumps(ours))
    forced = search(classifier(), granularity="feature", exponent=exponent, refit=lambda results: rows - 1).fit(XC, YC)
    assert 1 <= forced.exponent_ <= 2


def test_the_family_finds_the_features_that_matter():
    """Five of forty columns matter; the family decays the others more, and predicts better than one decay."""
    rng = np.random.RandomState(0)
    x = rng.standard_normal((1300, 40))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] + x[:, 3] - x[:, 4] + 0.3 * rng.standard_normal(1300)
    network = regressor(hidden_layer_sizes=(30,), max_iter=150, random_state=0)
    score = {}
    for exponent in (2, 1):
        ours = HyperTrainingSearchCV(network, granularity="feature", shrinkage=None, exponent=exponent, random_state=0)
        ours.fit(x[:300], y[:300])
        score[exponent] = ours.score(x[300:], y[300:])
    alphas = list(ours.alphas_.values())[:40]
    assert np.median(alphas[5:]) > 4 * np.median(alphas[:5])
    assert score[1] > score[2] + 0.05


def test_a_family_goes_on_exactly_from_where_it_stopped():
    network = classifier(max_iter=100, random_state=0)
    first = search(network, max_iter=6, granularity="feature", exponent="tuned").fit(XC, YC)
    once, twice = (pickle.loads(pickle.dumps(first)) for _ in range(2))
    once.continue_fit(XC, YC, max_iter=10)
    twice.continue_fit(XC, YC, max_iter=4).continue_fit(XC, YC, max_iter=6)
    assert once.n_iter_ == twice.n_iter_ == first.n_iter_ + 10
    assert once.history_["value"] == twice.history_["value"]
    np.testing.assert_array_equal(once.predict_proba(XC), twice.predict_proba(XC))


def test_a_family_that_cannot_be_tuned_says_why():
    for settings in ({"granularity": "layer"}, {"granularity": "global"}):
        with pytest.raises(ValueError, match="exponent='tuned' needs several decays in a layer"):
            search(classifier(), exponent="tuned", **settings).fit(XC, YC)
    with pytest.raises(ValueError, match=r"exponent must be >= 1 for neural networks, got 0\.7"):
        search(classifier(), granularity="feature", exponent=0.7).fit(XC, YC)
    with pytest.raises(ValueError, match="needs algorithm='implicit' or 't1t2'"):
        search(classifier(), granularity="feature", exponent="tuned", algorithm="joint").fit(XC, YC)
    with pytest.raises(ValueError, match="exponent='tuned' is for neural networks"):
        HyperTrainingSearchCV(Ridge(), exponent="tuned").fit(X, Y)
