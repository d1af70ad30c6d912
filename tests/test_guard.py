"""The guard: which folds it runs on, and that no decision reads it. How honest it is, benchmarks show."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold, KFold, PredefinedSplit, TimeSeriesSplit, check_cv, cross_val_score

from skhyper import guard
from skhyper.boundary import Split
from skhyper.estimators.search import HyperTrainingSearchCV
from skhyper.guard import inner_folds

X, Y = make_regression(60, 4, noise=20.0, random_state=0)


def splits_of(cv):
    return [Split(*rows) for rows in cv.split(X, Y)]


def search(**settings):
    return HyperTrainingSearchCV(Ridge(), **{"granularity": "global", "cv": KFold(3), **settings})


def test_a_splitter_splits_the_outer_training_rows_again():
    cv = KFold(3)
    assert inner_folds(cv, splits_of(cv), splits_of(cv)[0], 0) is cv
    assert inner_folds(None, splits_of(cv), splits_of(cv)[0], 0) is None


@pytest.mark.parametrize(
    "cv", [check_cv(list(KFold(3).split(X))), PredefinedSplit(np.arange(60) // 20)], ids=["list", "predefined"]
)
def test_given_folds_lose_the_outer_one_and_its_rows(cv):
    splits = splits_of(cv)
    inner = inner_folds(cv, splits, splits[1], 1)
    assert len(inner) == 2
    outer_rows = splits[1].train
    for (train, held), j in zip(inner, (0, 2), strict=True):
        np.testing.assert_array_equal(outer_rows[held], splits[j].validation)
        np.testing.assert_array_equal(outer_rows[train], np.setdiff1d(splits[j].train, splits[1].validation))


def test_in_time_only_earlier_folds_are_inside():
    cv = TimeSeriesSplit(3)
    splits = splits_of(cv)
    assert inner_folds(cv, splits, splits[0], 0) == []
    inner = inner_folds(cv, splits, splits[2], 2)
    for (train, held), split in zip(inner, splits[:2], strict=True):
        np.testing.assert_array_equal(train, split.train)
        np.testing.assert_array_equal(held, split.validation)


def test_the_guard_is_a_cross_validation_of_the_whole_search():
    ours = search(guard_cv=KFold(4)).fit(X, Y)
    expected = cross_val_score(clone(ours).set_params(guard_cv=None), X, Y, cv=KFold(4))
    np.testing.assert_allclose(ours.guard_scores_, expected, rtol=1e-6)
    assert ours.guard_score_ == pytest.approx(expected.mean())
    assert ours.guard_reason_ == ""


def test_no_decision_reads_the_guard():
    with_guard, without = search(guard_cv=3).fit(X, Y), search(guard_cv=None).fit(X, Y)
    assert with_guard.best_params_ == without.best_params_
    np.testing.assert_array_equal(with_guard.best_estimator_.coef_, without.best_estimator_.coef_)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, guard.NOT_NEEDED),
        ({"guard_cv": None}, guard.SWITCHED_OFF),
        ({"guard_cv": 2, "refit": False}, guard.NO_REFIT),
        ({"granularity": "auto", "shrinkage": 1.0, "cv": 0.3, "max_iter": 2}, guard.ONE_SPLIT),
        ({"guard_cv": 2, "time_limit": 1e-9}, guard.NO_TIME),
    ],
    ids=["family alone", "off", "no refit", "one split", "no time"],
)
@pytest.mark.filterwarnings("ignore:The search had taken all of its steps")
def test_without_a_guard_the_score_is_nan_and_says_why(settings, reason):
    ours = search(**settings).fit(X, Y)
    assert np.isnan(ours.guard_score_)
    assert ours.guard_reason_ == reason


def test_free_decays_are_guarded_on_the_users_own_folds():
    ours = search(granularity="auto", shrinkage=0.5, max_iter=3, cv=TimeSeriesSplit(3)).fit(X, Y)
    assert len(ours.guard_scores_) == 2
    assert np.isfinite(ours.guard_score_)


def test_groups_reach_the_folds_inside():
    groups = np.arange(60) // 10
    ours = search(cv=GroupKFold(3), guard_cv=GroupKFold(2)).fit(X, Y, groups=groups)
    assert len(ours.guard_scores_) == 2


def test_several_scores_are_guarded_by_the_one_that_decides():
    ours = search(scoring=["r2", "neg_mean_squared_error"], refit="r2", guard_cv=2).fit(X, Y)
    single = search(scoring="r2", guard_cv=2).fit(X, Y)
    np.testing.assert_allclose(ours.guard_scores_, single.guard_scores_)


def test_a_guard_that_fails_leaves_the_model_and_says_why():
    cv = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    with pytest.warns(UserWarning, match="The guard failed"):
        ours = search(cv=GroupKFold(6), guard_cv=GroupKFold(2)).fit(X, Y, groups=np.arange(60) // 10)
    assert np.isfinite(ours.best_score_)
    assert "guard failed" in ours.guard_reason_
    assert np.isnan(search(cv=cv, guard_cv="auto").fit(X, Y).guard_score_)


def test_a_guard_runs_in_other_processes():
    alone, parallel = search(guard_cv=2).fit(X, Y), search(guard_cv=2, n_jobs=2).fit(X, Y)
    np.testing.assert_allclose(parallel.guard_scores_, alone.guard_scores_)
