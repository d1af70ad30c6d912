"""Copies of rows: what they are, that a held-out row has none among training rows, and that they are weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.base import clone
from sklearn.datasets import make_classification, make_friedman1, make_regression
from sklearn.linear_model import HuberRegressor, LogisticRegression, Ridge, SGDRegressor
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils.validation import has_fit_parameter

from skhyper import HypernetClassifier, HypernetRegressor, HyperTrainingSearchCV, copies
from skhyper.adapters import adapter_for
from skhyper.adapters.network import encode_network
from skhyper.boundary import Granularity
from skhyper.copies import find_copies
from skhyper.core.inner import InnerObjective
from skhyper.core.noise.training import Trainer
from skhyper.core.training import Trainer as NetworkTrainer
from skhyper.estimators.splits import resolve_cv, split_rows, two_halves

FAST = {"hidden_layer_sizes": (6,), "n_estimators": 2, "max_iter": 4, "random_state": 0}
weighted = pytest.mark.skipif(
    not has_fit_parameter(MLPRegressor(), "sample_weight"), reason="this scikit-learn's networks take no weights"
)


def rows_with_copies(n, seed=0, most=4):
    """Distinct rows, how often each is there (once at least), and numbers of the rows with copies, shuffled."""
    random = np.random.RandomState(seed)
    X, y = make_friedman1(n, random_state=seed)
    times = random.randint(1, most, n)
    return X, y, times, random.permutation(np.repeat(np.arange(n), times))


def labels_of(y):
    return np.digitize(y, np.quantile(y, [1 / 3, 2 / 3]))


def mlp(kind, **settings):
    return kind(**{"hidden_layer_sizes": (6,), "max_iter": 40, "random_state": 0, **settings})


def search(estimator, **settings):
    return HyperTrainingSearchCV(estimator, **{"random_state": 0, "max_iter": 8, **settings})


def no_row_on_both_sides(X, y, train, held):
    rows = np.c_[X, y]
    ours, theirs = ({tuple(row) for row in rows[part]} for part in (train, held))
    return ours.isdisjoint(theirs)


def originals(X, y):
    """The first row that each row is a copy of."""
    found = find_copies([X], [y])
    return found.first[found.index].tolist()


# What copies are.


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_array, pd.DataFrame])
def test_copies_are_the_rows_that_numpy_finds_equal(form):
    random = np.random.RandomState(0)
    X, y = random.randint(-1, 2, (300, 4)).astype(float), random.randint(0, 2, 300)
    X[X == 0] *= random.choice([-1, 1], (X == 0).sum())  # zeros of both signs
    found = find_copies([form(X)], [y])
    expected, counts = np.unique(np.c_[X, y] + 0.0, axis=0, return_counts=True)
    assert len(found.first) == len(expected)
    np.testing.assert_array_equal(X[found.first[found.index]], X)
    np.testing.assert_array_equal(y[found.first[found.index]], y)
    assert sorted(found.weight) == sorted(counts)


def test_rows_of_text_missing_values_and_categories_are_compared_as_well():
    frame = pd.DataFrame(
        {
            "text": ["a", "b", "a", "a", "a"],
            "number": [1.0, 2.0, 1.0, np.nan, np.nan],
            "category": pd.Categorical(["x", "x", "x", "y", "y"]),
            "integer": pd.array([1, 2, 1, None, None], dtype="Int64"),
        }
    )
    assert originals(frame, list("pqpqq")) == [0, 1, 0, 3, 3]
    assert originals(["one two", "three", "one two"], [0, 1, 0]) == [0, 1, 0]
    assert originals(np.array([["a", 1], ["a", 2], ["a", 1]], dtype=object), [0, 0, 0]) == [0, 1, 0]


def test_rows_whose_hashes_collide_are_told_apart(monkeypatch):
    hashes = copies._hashes
    monkeypatch.setattr(copies, "_hashes", lambda parts, salt: hashes(parts, salt) * np.uint64(salt > 3))
    for form in (np.asarray, sparse.csr_array):
        assert originals(form(np.array([[1.0], [2.0], [1.0]])), [0, 0, 0]) == [0, 1, 0]


def test_without_copies_rows_stay_as_they_are_and_with_weights_their_order_has_no_influence():
    X, y, times, rows = rows_with_copies(50)
    assert find_copies([X], [y]).none
    assert find_copies([X], [y], np.full(50, 3.0)).none
    tiled = find_copies([np.tile(X, (3, 1))], [np.tile(y, 3)])
    assert tiled.first.tolist() == list(range(50))
    by_weight, by_rows = find_copies([X], [y], times.astype(float)), find_copies([X[rows]], [y[rows]])
    np.testing.assert_array_equal(X[by_weight.first], X[rows][by_rows.first])
    np.testing.assert_array_equal(by_weight.weight, by_rows.weight)


def test_a_weight_in_parts_is_the_same_whatever_their_order():
    parts = np.array([0.1, 0.2, 0.3, 1e-17, 0.7, 1e16])
    sums = {
        find_copies([np.zeros((6, 1))], [np.zeros(6)], np.random.RandomState(k).permutation(parts)).weight[0]
        for k in range(20)
    }
    assert len(sums) == 1


def test_cells_of_categories_are_no_copies_but_repeated_measurements_and_bagged_rows_are():
    random = np.random.RandomState(0)
    cells, label = random.randint(0, 3, (2000, 3)).astype(float), random.randint(0, 2, 2000)
    assert find_copies([cells], [label]).cells
    X, y, _, rows = rows_with_copies(200)
    assert not find_copies([X[rows]], [y[rows]]).cells
    assert not find_copies([X[rows]], [labels_of(y)[rows]]).cells
    measured = np.repeat(X[:40], 5, 0)  # five targets at each place, all of it twice
    found = find_copies([np.tile(measured, (2, 1))], [np.tile(y, 2)])
    assert not found.cells
    assert len(found.first) == 200


# Held-out rows.


@pytest.mark.parametrize("classifier", [False, True])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array, pd.DataFrame])
@pytest.mark.parametrize("cv", [None, 0.3])
def test_a_random_split_of_ours_keeps_copies_together(classifier, form, cv):
    X, y, _, rows = rows_with_copies(90)
    X, y = X[rows], labels_of(y)[rows] if classifier else y[rows]
    for seed in range(3):
        splitter = resolve_cv(cv, y, classifier=classifier, random_state=seed, network=True)
        splits = split_rows(splitter, form(X), y, {})
        assert len(splits) == (3 if cv is None else 1)
        for train, held in splits:
            assert sorted([*train, *held]) == list(range(len(y)))
            assert no_row_on_both_sides(X, y, train, held)
            n_held = len(np.unique(X[held], axis=0))
            assert n_held == np.ceil((cv or 0.2) * 90)


@pytest.mark.parametrize("classifier", [False, True])
def test_halves_keep_copies_together(classifier):
    X, y, _, rows = rows_with_copies(60)
    X, y = X[rows], labels_of(y)[rows] if classifier else y[rows]
    halves = two_halves(y, None, classifier, 0, X)
    for train, held in halves:
        assert no_row_on_both_sides(X, y, train, held)
        assert len(np.unique(X[train], axis=0)) == 30
    assert sorted([*halves[0].train, *halves[0].validation]) == list(range(len(y)))


def test_a_class_whose_rows_are_copies_of_one_is_on_one_side():
    X, y = np.arange(40.0)[:, None], np.repeat([0, 1], 20)
    X[:20] = 7.0
    for cv in (None, 0.3):
        splitter = resolve_cv(cv, y, classifier=True, random_state=0, network=True)
        for train, held in split_rows(splitter, X, y, {}):
            assert no_row_on_both_sides(X, y, train, held)
    assert two_halves(y, None, True, 0, X) is None


def test_weights_and_copies_give_the_same_split():
    X, y, times, rows = rows_with_copies(60)
    times[:7] = 0
    rows = rows[times[rows] > 0]
    splitter = resolve_cv(None, y, classifier=False, random_state=0, network=True)
    weighted = split_rows(splitter, X, y, {}, times.astype(float))
    copied = split_rows(splitter, X[rows], y[rows], {})
    for (train, held), (copied_train, copied_held) in zip(weighted, copied, strict=True):
        assert set(rows[copied_train]) == set(train)
        assert set(rows[copied_held]) == set(held)


@pytest.mark.parametrize("cv", [3, 5, KFold(4)])
def test_folds_of_check_cv_are_those_of_grid_search(cv):
    X, y, _, rows = rows_with_copies(40)
    ours = HyperTrainingSearchCV(Ridge(), cv=cv, granularity="global").fit(X[rows], y[rows])
    grid = GridSearchCV(Ridge(), {"alpha": [ours.best_params_["alpha"]]}, cv=cv).fit(X[rows], y[rows])
    k = ours.best_index_
    for name in ("mean_test_score", "split0_test_score", "split2_test_score"):
        assert ours.cv_results_[name][k] == pytest.approx(grid.cv_results_[name][0], rel=1e-9)


@pytest.mark.parametrize(("n", "times"), [(160, 3), (120, 2), (60, 20)])
@pytest.mark.parametrize("kind", [HypernetRegressor, HypernetClassifier])
def test_no_member_is_judged_by_copies_of_its_training_rows(kind, n, times, monkeypatch):
    trainers = []
    prepare = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: (trainers.append(self), prepare(self))[1])
    X, y = make_friedman1(n, random_state=0)
    y = labels_of(y) if kind is HypernetClassifier else y
    rows = np.random.RandomState(0).permutation(np.repeat(np.arange(n), times))
    kind(**FAST).fit(X[rows], y[rows])
    for trainer in trainers:  # with sinusoids, and without
        x = trainer.rows.x.numpy()
        for own, out in zip(trainer.train_rows, trainer.held_rows, strict=True):
            assert no_row_on_both_sides(x, np.zeros(len(x)), own, out)


def test_rows_for_conformal_scores_have_no_copies_among_training_rows():
    X, y, _, rows = rows_with_copies(130)
    model = HypernetRegressor(**FAST, conformal_fraction=0.25)
    own, aside, _ = model._set_aside(X[rows], y[rows], None)
    assert no_row_on_both_sides(X[rows], y[rows], own, aside)
    assert model.fit(X[rows], y[rows]).conformal_scores_.shape == (33, 1)  # a score for each different row


def test_the_users_own_held_out_rows_count_once():
    X, y, _, _ = rows_with_copies(120)
    plain = HypernetRegressor(**FAST).fit(X[:90], y[:90], X_val=X[90:], y_val=y[90:])
    twice = [np.tile(X[90:], (2, 1)), np.tile(y[90:], 2)]
    tiled = HypernetRegressor(**FAST).fit(X[:90], y[:90], None, *twice)
    np.testing.assert_allclose(tiled.predict_interval(X, 0.9), plain.predict_interval(X, 0.9), rtol=1e-9)


# Copies are weights.


@pytest.mark.parametrize("settings", [{}, {"class_weight": "balanced"}, {"conformal_fraction": 0.2}], ids=str)
def test_copies_are_weights_in_hypernetworks_of_any_size(settings):
    kind = HypernetClassifier if "class_weight" in settings else HypernetRegressor
    X, y, times, rows = rows_with_copies(130)
    y = labels_of(y) if kind is HypernetClassifier else y
    model = kind(**FAST, **settings)
    one, other = clone(model).fit(X, y, sample_weight=times), clone(model).fit(X[rows], y[rows])
    if kind is HypernetClassifier:
        np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))
    else:
        np.testing.assert_array_equal(one.predict_interval(X, 0.9), other.predict_interval(X, 0.9))


def test_six_copies_of_every_row_leave_the_intervals_honest():
    """They once covered 37 % of new rows."""
    random = np.random.RandomState(0)
    X, new = random.standard_normal((150, 4)), random.standard_normal((2000, 4))

    def target(x):
        return x @ [1.0, -2.0, 0.5, 0.0] + random.standard_normal(len(x))

    y, truth = target(X), target(new)
    model = HypernetRegressor(n_estimators=2, random_state=0).fit(np.tile(X, (6, 1)), np.tile(y, 6))
    low, high = model.predict_interval(new, 0.9).T
    assert 0.85 < np.mean((low <= truth) & (truth <= high)) < 0.95
    best = -0.5 * np.log(2 * np.pi) - 0.5  # the log density of the truth
    assert best - 0.2 < model.log_prob(new, truth).mean() < best + 0.1


def test_batches_have_the_size_that_was_asked_for_in_rows_as_they_came(monkeypatch):
    trainers = []
    prepare = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: (trainers.append(self), prepare(self))[1])
    X, y = make_friedman1(120, random_state=0)
    for size, times, expected in ((240, 4, 60), (240, 2, 120), (30, 1, 30)):
        HypernetRegressor(**{**FAST, "batch_size": size}).fit(np.repeat(X, times, 0), np.repeat(y, times))
        assert trainers[-1].settings.batch_size == expected
    with pytest.raises(ValueError, match="batch_size must be at most the number of training rows, 240, got 241"):
        HypernetRegressor(**{**FAST, "batch_size": 241}).fit(np.repeat(X, 2, 0), np.repeat(y, 2))


@pytest.mark.parametrize("n", [600, 3000])
def test_many_cells_are_dealt_out_copy_by_copy(n, monkeypatch):
    """No member lacks all rows of a cell with one of its labels: with that it would learn that they never come."""
    trainers = []
    prepare = Trainer.__post_init__
    monkeypatch.setattr(Trainer, "__post_init__", lambda self: (trainers.append(self), prepare(self))[1])
    random = np.random.RandomState(0)
    cells = random.randint(0, 5, (n, 3)).astype(float)
    labels = (random.rand(n) < 0.3 + 0.1 * cells[:, 0]).astype(int)
    kinds, counts = np.unique(np.c_[cells, labels], axis=0, return_counts=True)
    assert len(kinds) > 150
    model = HypernetClassifier(**FAST).fit(cells, labels)
    trainer = trainers[-1]
    for own in trainer.train_rows:
        there = own[trainer.rows.weight[own] > 0]
        seen = np.unique(np.c_[trainer.rows.x[there], trainer.rows.y[there]], axis=0)
        assert len(seen) >= 0.9 * len(kinds)
    if n == 3000:
        aggregated = HypernetClassifier(**FAST).fit(kinds[:, :3], kinds[:, 3], sample_weight=counts)
        np.testing.assert_array_equal(aggregated.predict_proba(cells), model.predict_proba(cells))


@weighted
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("settings", [{}, {"granularity": "layer", "shrinkage": 1.0}], ids=["global", "layer"])
@pytest.mark.parametrize("kind", [MLPRegressor, MLPClassifier])
def test_copies_are_weights_in_searches_of_networks(kind, settings, form):
    """To the last bit, in full batches, with the search's own split: free decays have judging rows of their own."""
    X, y, times, rows = rows_with_copies(50)
    y = labels_of(y) if kind is MLPClassifier else (y - y.mean()) / y.std()
    order = np.random.RandomState(1).permutation(50)
    one = search(mlp(kind), **settings).fit(form(X[order]), y[order], sample_weight=times[order])
    other = search(mlp(kind), **settings).fit(form(X[rows]), y[rows])
    assert one.alphas_ == other.alphas_
    for a, b in zip(one.best_estimator_.coefs_, other.best_estimator_.coefs_, strict=True):
        np.testing.assert_array_equal(a, b)


def encoded(X, y, estimator, weight=None):
    adapter = adapter_for(estimator)
    kind = adapter.granularity(estimator, Granularity("global"))
    return encode_network(adapter, estimator, X, y, granularity=kind, sample_weight=weight)


def test_batches_of_merged_rows_weigh_what_the_users_batches_weigh():
    """alpha is divided by the weight of a batch: with as many batches an epoch it means what it meant."""
    X, y = make_friedman1(60, random_state=0)
    estimator = mlp(MLPRegressor, batch_size=40)
    plain, copied = encoded(X, y, estimator), encoded(np.repeat(X, 4, 0), np.repeat(y, 4), estimator)
    assert len(copied.problem.y) == 60
    trainer = NetworkTrainer(copied.problem)
    assert trainer.steps_per_epoch == 6  # of 240 rows
    _, batch = trainer.next_batch(trainer.start(0))
    assert batch.c.shape == (1, 10)
    assert float(batch.c.sum()) == pytest.approx(40)
    w = plain.problem.network.start(1, torch.Generator().manual_seed(0))
    losses = [
        (p.train * p.loss.value(p.network.outputs(w, p.design), p.y)).sum() for p in (plain.problem, copied.problem)
    ]
    assert float(losses[1]) == pytest.approx(4 / 3 * float(losses[0]), rel=1e-12)  # 240 rows / 6 over 60 rows / 2


def test_batches_in_the_users_order_are_left_alone():
    X, y = make_friedman1(60, random_state=0)
    estimator = mlp(MLPRegressor, batch_size=40, shuffle=False)
    assert len(encoded(np.repeat(X, 4, 0), np.repeat(y, 4), estimator).problem.y) == 240


def test_copies_do_not_mislead_the_search_of_a_network():
    """Test loss was once twice that of the distinct rows, since copies of training rows judged alpha."""
    settings = {"n_features": 8, "n_informative": 4, "n_redundant": 0, "n_classes": 3, "n_clusters_per_class": 1}
    ratios = []
    for seed in (1, 2, 3):
        X, y = make_classification(2200, flip_y=0.05, class_sep=0.8, random_state=seed, **settings)
        losses = []
        for times in (1, 6):
            rows = np.random.RandomState(seed).permutation(np.repeat(np.arange(200), times))
            model = HyperTrainingSearchCV(MLPClassifier((50,), random_state=seed), random_state=seed)
            losses.append(log_loss(y[200:], model.fit(X[rows], y[rows]).predict_proba(X[200:])))
        ratios.append(losses[1] / losses[0])
    assert np.mean(ratios) < 1.1


# Linear models.


def weighted_and_repeated(estimator, X, y, times):
    """Fits with integer weights and to repeated rows, on the same folds."""
    rows, fold = np.repeat(np.arange(len(y)), times), np.arange(len(y)) % 3
    settings = {"granularity": "global", "tol": 1e-10}
    one = HyperTrainingSearchCV(estimator, cv=[(fold != k, fold == k) for k in range(3)], **settings)
    other = HyperTrainingSearchCV(estimator, cv=[(fold[rows] != k, fold[rows] == k) for k in range(3)], **settings)
    return one.fit(X, y, sample_weight=times), other.fit(X[rows], y[rows])


def test_integer_weights_of_sgd_are_repeated_rows():
    """They once were .6 % apart, since folds of one weight had other numbers of rows."""
    X, y = make_regression(60, 15, noise=100.0, random_state=1)
    times = np.random.RandomState(0).randint(0, 5, 60)
    one, other = weighted_and_repeated(SGDRegressor(), X, y, times)
    np.testing.assert_allclose(one.best_estimator_.coef_, other.best_estimator_.coef_, rtol=1e-5)
    assert one.best_params_["alpha"] == pytest.approx(times.mean() * other.best_params_["alpha"], rel=1e-5)
    ridge = Ridge(alpha=60 * one.best_params_["alpha"]).fit(X, y, sample_weight=times)  # the same objective times 2 n
    np.testing.assert_allclose(one.best_estimator_.coef_, ridge.coef_, rtol=1e-6)


def huber_objective(model, X, y):
    """What HuberRegressor minimises."""
    sigma, epsilon = model.scale_, model.epsilon
    z = np.abs(y - X @ model.coef_ - model.intercept_) / sigma
    h = np.where(z < epsilon, z**2, 2 * epsilon * z - epsilon**2)
    return len(y) * sigma + sigma * h.sum() + model.alpha * model.coef_ @ model.coef_


@pytest.fixture
def evaluations(monkeypatch):
    """One entry for each time that an inner objective is evaluated."""
    counted = []
    at = InnerObjective.at
    monkeypatch.setattr(InnerObjective, "at", lambda self, *given: (counted.append(1), at(self, *given))[1])
    return counted


def ten_rows_twenty_times(p):
    random = np.random.RandomState(0)
    X = random.standard_normal((10, p))
    y = X[:, :3] @ [1.0, 2.0, 3.0] + random.standard_normal(10)
    rows = random.permutation(np.repeat(np.arange(10), 20))
    return X[rows], y[rows]


@pytest.mark.filterwarnings("ignore:The weights of the inner problem did not converge")
@pytest.mark.parametrize("p", [5, 8, 10])
def test_huber_searches_of_ten_rows_twenty_times_are_quick(p, evaluations):
    """Where a plane goes through most rows the scale is best at zero, which it was once halved to."""
    HyperTrainingSearchCV(HuberRegressor()).fit(*ten_rows_twenty_times(p))
    assert len(evaluations) < 6000


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("alpha", [0.1, 0.5, 20.0])
def test_the_scale_of_huber_regression_does_not_run_ahead_of_its_coefficients(alpha):
    X, y = ten_rows_twenty_times(5)
    bounds = (alpha, alpha * (1 + 1e-9))
    model = HyperTrainingSearchCV(HuberRegressor(), granularity="global", alpha_bounds=bounds).fit(X, y)
    own = HuberRegressor(alpha=model.best_params_["alpha"], max_iter=20000, tol=1e-10).fit(X, y)
    assert huber_objective(model.best_estimator_, X, y) <= huber_objective(own, X, y) * (1 + 1e-6)


def test_columns_far_from_zero_cost_no_steps_and_no_digits(evaluations):
    random = np.random.RandomState(0)
    X = random.standard_normal((200, 3))
    y = X @ [1.0, 2.0, 3.0] + random.standard_normal(200)
    left = (X + 1e8) - 1e8  # what is left of the columns' digits
    near = HyperTrainingSearchCV(HuberRegressor()).fit(left, y)
    first = len(evaluations)
    moved = HyperTrainingSearchCV(HuberRegressor()).fit(X + 1e8, y)
    assert len(evaluations) - first < 1.5 * first
    assert moved.best_params_["alpha"] == pytest.approx(near.best_params_["alpha"], rel=1e-3)
    np.testing.assert_allclose(moved.best_estimator_.coef_, near.best_estimator_.coef_, rtol=1e-4)
    np.testing.assert_allclose(moved.predict(X + 1e8), near.predict(left), rtol=1e-4, atol=1e-4)


def test_columns_far_from_zero_keep_their_logistic_regression():
    random = np.random.RandomState(0)
    X = random.standard_normal((200, 3)) + [0.0, 1e6, -1e7]
    y = random.randint(0, 3, 200)
    model = HyperTrainingSearchCV(LogisticRegression(), granularity="global").fit(X, y)
    plain = LogisticRegression(C=model.best_params_["C"], tol=1e-10, max_iter=1000).fit(X - [0.0, 1e6, -1e7], y)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X - [0.0, 1e6, -1e7]), atol=1e-6)
