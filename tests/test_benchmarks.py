"""The benchmarks' own arithmetic, on data that need no download; that their bars hold is left to running them."""

import argparse

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import ElasticNet, Lasso, RidgeCV

from benchmarks import data, development, report, runner
from benchmarks.lasso_path import ConvergedElasticNetCV, elastic_net
from benchmarks.peers import mse_ratio

SYNTHETIC = ["sparse_80", "dense_80", "sparse_200", "dense_200", "diabetes"]


def rows_of(scores):
    """Rows as the runner writes them from {(set, split, model): score}."""
    frame = pd.DataFrame([(*key, value) for key, value in scores.items()], columns=[*runner.KEY, "score"])
    return frame.assign(seconds=1.0, run=1)


@pytest.mark.parametrize("name", SYNTHETIC)
def test_a_split_is_standardised_by_its_training_part_and_depends_only_on_the_seed(name):
    split = data.LINEAR_TASKS[name](3)
    assert len(split.y_train) <= data.MAX_TRAIN
    assert len(split.terms) == split.X_train.shape[1]
    assert max(np.abs(split.X_train).max(), np.abs(split.X_test).max()) <= data.CLIP
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0, atol=0.1)
    for first, again in zip(split, data.LINEAR_TASKS[name](3), strict=True):
        np.testing.assert_array_equal(first, again)


def test_test_rows_change_nothing_about_the_training_rows():
    rng = np.random.RandomState(0)
    X, y = rng.standard_normal((60, 3)), rng.standard_normal(60)
    split = data.scale(X[:40], y[:40], X[40:], y[40:], degree=2)
    other = data.scale(X[:40], y[:40], 100 * X[40:], y[40:], degree=2)
    np.testing.assert_array_equal(split.X_train, other.X_train)


def test_development_tasks_are_disjoint_from_the_sets_of_the_benchmarks():
    assert not set(development.TASKS) & set(data.LINEAR_TASKS)
    assert not set(development.LOGISTIC_TASKS) & set(data.LOGISTIC_SETS)
    used = {task.keywords["name"] for task in development.TASKS.values() if "name" in task.keywords}
    assert not used & set(data.LINEAR_TASKS)
    used = {
        task.keywords["name"] for task in development.LOGISTIC_TASKS.values() if "name" in getattr(task, "keywords", {})
    }
    assert not used & set(data.LOGISTIC_SETS)


def test_the_interior_point_method_agrees_with_coordinate_descent():
    rng = np.random.RandomState(1)
    X, y = rng.standard_normal((80, 12)), rng.standard_normal(80)
    gram, moment = X.T @ X / 80, X.T @ y / 80
    for ratio in (1.0, 0.5):
        gram_ridge = gram + 0.05 * (1 - ratio) * np.eye(12)
        w, gap = elastic_net(gram_ridge, moment, 0.05 * ratio, power=np.mean(y**2), max_gap=1e-12)
        known = ElasticNet(alpha=0.05, l1_ratio=ratio, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(X, y)
        np.testing.assert_allclose(w, known.coef_, atol=1e-6)
        assert gap <= 1e-12


def test_the_two_solvers_of_the_converged_lasso_agree():
    split = data.LINEAR_TASKS["sparse_80"](0)
    first = ConvergedElasticNetCV().fit(split.X_train, split.y_train)
    second = ConvergedElasticNetCV()
    second._interior_point(split.X_train, split.y_train)
    assert first.solver_ == "coordinate descent"
    assert mse_ratio(first, split) == pytest.approx(mse_ratio(second, split), rel=1e-2)
    exact = Lasso(alpha=second.alpha_, tol=1e-8, max_iter=10_000).fit(split.X_train, split.y_train)
    np.testing.assert_allclose(second.coef_, exact.coef_, atol=1e-2)


def test_rows_that_exist_are_not_run_again(tmp_path):
    calls = []

    def fit(split):
        calls.append(len(split.y_train))
        return runner.Fitted(RidgeCV().fit(split.X_train, split.y_train))

    models, tasks = {"ridge": runner.Model(fit)}, {"sparse_80": data.LINEAR_TASKS["sparse_80"]}
    settings = {"models": ["ridge"], "splits": 2, "seed": 0, "threads": 1, "report": False}
    for rerun, fits in (([], 3), ([], 3), (["ridge"], 6)):  # a run's first fit is preceded by one to warm up
        rows = runner.run(tasks, models, mse_ratio, argparse.Namespace(**settings, rerun=rerun), tmp_path / "rows.csv")
        assert len(calls) == fits
        assert len(rows) == 2
    pd.testing.assert_frame_equal(runner.read(tmp_path / "rows.csv"), rows, check_dtype=False, rtol=1e-4)


def test_ratios_are_of_means_over_splits_and_the_best_peer_is_the_one_with_the_smallest_mean():
    scores = {("a", 0, "ours"): 1.0, ("a", 1, "ours"): 3.0, ("a", 0, "ridge"): 2.0, ("a", 1, "ridge"): 3.0}
    scores |= {("a", 0, "lasso"): 1.0, ("a", 1, "lasso"): 1.5}
    table = report.against_peers(rows_of(scores), "ours", "ridge", ["ridge", "lasso"])
    assert table.loc["a", "best peer"] == "lasso"
    assert table.loc["a", "/ ridge"] == pytest.approx(4 / 5)
    assert table.loc["a", "/ best"] == pytest.approx(4 / 2.5)
    logs = np.log([1.0, 2.0])
    assert table.loc["a", "log ratio to best"] == pytest.approx(logs.mean())
    assert table.loc["a", "s.e. "] == pytest.approx(logs.std(ddof=1) / np.sqrt(2))


def test_leaving_one_set_out_gives_the_geometric_means_of_the_others():
    left = report.leave_one_out(pd.Series({"a": 1.0, "b": 2.0, "c": 8.0}))
    np.testing.assert_allclose(left, [4.0, np.sqrt(8), np.sqrt(2)])


def test_times_of_different_runs_are_not_compared():
    rows = rows_of({("a", 0, "ours"): 1.0, ("a", 0, "ridge"): 1.0})
    assert "1.0000 (holds" in report.time_bar(rows, "ours", "ridge")[0]
    rows.loc[0, "run"] = 2
    assert report.TIMES_NOTE in report.time_bar(rows, "ours", "ridge")[0]
