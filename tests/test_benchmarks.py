"""The benchmarks' own arithmetic, on data that need no download; that their bars hold is left to running them."""

import argparse
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import ElasticNet, Lasso, RidgeCV
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from benchmarks import (
    best_responses,
    calibration,
    data,
    development,
    mnist,
    predict_cost,
    report,
    runner,
    uci,
    uci_data,
    uci_models,
    uci_report,
    uncertainty,
    weight_spread,
)
from benchmarks.best_responses import HIGH, LOW
from benchmarks.cuda_graphs import Replay
from benchmarks.lasso_path import ConvergedElasticNetCV, elastic_net
from benchmarks.peers import mse_ratio
from skhyper.core.hypernets import Linear

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


def small_split(n=60, index=0, resolution=0.01):
    rng = np.random.RandomState(0)
    X = rng.standard_normal((n + 20, 3))
    y = np.round(X[:, 0] + 0.3 * rng.standard_normal(len(X)), 2)
    return uci_data.make_split(X, y, np.arange(20), index, resolution)


def test_a_uci_split_is_standardised_by_its_training_rows_and_constant_columns_are_zero():
    rng = np.random.RandomState(0)
    X, y = np.hstack([rng.uniform(5, 9, (30, 2)), np.ones((30, 1))]), rng.standard_normal(30)
    split = uci_data.make_split(X, y, np.arange(5), 0, 0.0)
    assert split.X_train.shape == (25, 3)
    np.testing.assert_array_equal(split.y_test, y[:5])
    np.testing.assert_allclose(split.X_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(split.X_train.std(axis=0), [1, 1, 0], atol=1e-12)


@pytest.mark.parametrize("name", ["1x50, 1", "twin, 1", "1x50, 4@2", "MLPRegressor", "Gaussian process"])
def test_every_uci_model_that_needs_no_package_gives_a_density(name):
    split = small_split()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        row = uci_models.metric(uci_models.models(seeds=3)[name].fit(split).estimator, split)
    assert 0.1 < row["score"] < 1
    assert -2 < row["log_likelihood"] < 1
    assert row["log_bin"] == pytest.approx(row["log_likelihood"] + np.log(split.resolution), abs=0.05)
    assert 0.5 <= row["coverage"] <= 1
    assert 0 < row["crps"] < row["width"]


def test_a_peers_crps_is_that_of_a_gaussian():
    split = small_split()
    ours = uci_models.ours(split, n_estimators=1, generator="none", noise_model="homoscedastic").estimator
    normal = uci_models.Normal(lambda X: ours.predict(X, return_std=True), 0.0)
    for method in ("crps", "log_prob", "cdf"):
        own, other = (getattr(model, method)(split.X_test, split.y_test) for model in (ours, normal))
        np.testing.assert_allclose(own, other, atol=1e-8)


def uci_rows(models, sets=("yacht", "boston"), splits=range(8)):
    """Rows of the uci benchmark from {model: shift of both scores}."""
    lines = [
        {"set": name, "split": split, "model": model, "score": 1 + shift + 0.01 * split}
        | {"log_likelihood": -1 - shift, "coverage": 0.9, "cpu_seconds": 1.0, "passes": 10.0}
        for name in sets
        for split in splits
        for model, shift in models.items()
    ]
    return pd.DataFrame(lines)


def test_uci_differences_are_paired_by_split_and_averaged_over_starts():
    rows = uci_rows({"1x50, 1": -0.2, "1x50, 1@1": 0.0, "dropout": 0.0})
    pairs = uci_report.paired(rows, "1x50, 1", "dropout", "score")
    np.testing.assert_allclose(pairs["difference"], -0.1)
    np.testing.assert_allclose(pairs["s.e."], 0, atol=1e-12)
    assert list(pairs["splits"]) == [8, 8]
    np.testing.assert_allclose(uci_report.paired(rows, "1x50, 1", "dropout", "log_likelihood")["difference"], -0.1)


def test_a_bar_over_sets_is_open_until_no_other_verdict_is_possible():
    assert "(open, 2 sets not run" in uci_report.line("x", 4, 5, 5, 7)
    assert "(holds" in uci_report.line("x", 5, 5, 5, 7)
    assert "(FAILS" in uci_report.line("x", 1, 4, 5, 7)


def test_the_twin_of_equal_time_gets_the_passes_that_fit_into_our_processor_time(monkeypatch):
    rows = uci_rows({"1x50, 1": 0.0, "twin, 1": 0.0})
    rows.loc[rows["model"] == "1x50, 1", "cpu_seconds"] = 2.5
    budget = uci_models.models()["twin, 1, equal time"].budget
    assert budget(rows, "yacht", 3) == 2.5
    assert budget(rows, "yacht", 99) is None
    monkeypatch.setattr(uci_models, "ours", lambda split, **settings: settings)
    found = uci_models.models()["twin, 1, equal time"].fit(SimpleNamespace(y_train=np.zeros(640)), 2.5)
    assert found["passes"] == 2.5 * 18000 / 20
    assert found["generator"] == "none"


def test_the_uci_report_is_written_from_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SKHYPER_DATA", str(tmp_path))
    models = {"1x50, 1": -0.1, "1x50, 4": -0.2, "twin, 1, equal time": 0.0, "RealMLP": -0.2, "NGBoost": 0.1}
    rows = uci_rows(models).assign(log_bin=-5.0, width=1.0, crps=0.1)
    text = uci.report(rows, list(uci_models.models()))
    assert "## Splits 6-19 alone" in text
    assert "default: RMSE over RealMLP's, geometric mean of 2 sets: 1.000 (holds" in text
    assert "one 1x50 member on the small sets, slowest fit: 1.0 s (holds" in text


def test_a_hypernetwork_trained_over_a_prior_comes_near_the_exact_best_response(monkeypatch):
    monkeypatch.setattr(best_responses, "STEPS", 500)
    problem = best_responses.ridge(1, best_responses.SLOW)
    learnt = best_responses.learnt(problem, Linear(problem.decays), (1.0, 1.0), 1e-2)
    exact = np.stack([best_responses.exact_weights(problem, z) for z in np.linspace(LOW, HIGH, len(learnt))])
    assert np.linalg.norm(learnt - exact) < 0.3 * np.linalg.norm(exact)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy():
    p = np.array([[0.95, 0.05], [0.95, 0.05], [0.3, 0.7], [0.3, 0.7]])
    correct = np.array([True, True, True, False])
    assert calibration.expected_calibration_error(p, correct) == pytest.approx((0.05 + 0.2) / 2)
    assert calibration.expected_calibration_error(p, correct, n_bins=1) == pytest.approx(0.825 - 0.75)


def test_rows_outside_lie_at_three_times_the_range():
    truth = uncertainty.TRUTHS["friedman1"]
    X = uncertainty.outside(truth, 50, np.random.RandomState(0))
    np.testing.assert_allclose(np.abs(X).max(axis=1), 3)


def test_the_weight_spread_of_the_first_layer_is_that_of_its_explicit_weights():
    split = small_split()
    model = weight_spread.estimators(30, 0)["from_paper"]
    lines = weight_spread.trajectory(model, split, epochs=3)
    assert list(lines["epoch"]) == [1, 2, 3]
    assert (lines["mean"] > 0).all()
    assert model.weight_spread_curve_[-1] == pytest.approx(lines["mean"].iloc[-1], rel=0.5)


def test_predictions_do_not_depend_on_the_batch_or_the_order():
    assert predict_cost.differences(n_rows=101).max() <= predict_cost.EXACT


@pytest.fixture
def tiny_mnist(monkeypatch, tmp_path):
    """Random images of 10 classes in place of MNIST, small networks, and results in a folder of the test."""
    rng = np.random.RandomState(0)
    y = np.arange(800) % 10
    X = np.clip(0.2 * rng.uniform(size=(800, 784)) + np.eye(784)[y * 7], 0, 1)
    monkeypatch.setattr(mnist, "load_mnist", lambda: (X[:600], y[:600], X[600:], y[600:]))
    monkeypatch.setattr(mnist, "NETWORKS", {"3x150": (8,)})
    monkeypatch.setattr(mnist, "HYPERNETS", {"3x150": (6, 4)})
    monkeypatch.setattr(mnist, "RESULTS", tmp_path)
    monkeypatch.setattr(mnist, "BATCH", 100)
    return tmp_path


@pytest.mark.parametrize("method", mnist.METHODS)
def test_a_run_on_mnist_goes_on_from_its_checkpoint_as_if_it_had_not_stopped(tiny_mnist, monkeypatch, method):
    epochs = "60" if method in mnist.OURS else "12"  # held-out rows are not looked at where checkpoints are written
    command = ["--networks", "3x150", "--methods", method, "--every", "4", "--epochs", epochs, "--seconds", "0"]
    checkpoint = tiny_mnist / f"3x150-{method}-0.pt"

    def run():
        mnist.main([*command, "--checkpoints", str(tiny_mnist), "--rerun"])
        return torch.load(checkpoint, weights_only=False)

    whole = run()
    checkpoint.unlink()
    with monkeypatch.context() as patch:
        save = mnist.Run.save

        def break_off(self, *written):
            save(self, *written)
            raise KeyboardInterrupt

        patch.setattr(mnist.Run, "save", break_off)
        with pytest.raises(KeyboardInterrupt):
            run()
    assert 0 < torch.load(checkpoint, weights_only=False)["step"] < whole["step"]
    again = run()
    assert again["step"] == whole["step"]
    assert again["extra"] == whole["extra"]  # the curve of test errors
    for name in ("flat", "first", "second", "average", "best"):
        assert torch.equal(getattr(again["walk"], name), getattr(whole["walk"], name))


def test_our_rows_on_mnist_learn(tiny_mnist):
    mnist.main(["--networks", "3x150", "--methods", "ours", "twin", "--epochs", "30", "--seconds", "0"])
    rows = pd.read_csv(tiny_mnist / "mnist.csv")
    assert list(rows["model"]) == ["ours", "twin"]
    assert (rows["score"] < 50).all()
    assert "hours of a full run" in (tiny_mnist / "mnist.md").read_text()


def test_a_run_on_mnist_is_the_estimators_own_fit(tiny_mnist):
    X, y, X_test, _ = mnist.load_mnist()
    model = mnist.estimator("3x150", "ours", 3, "cpu", 10).set_params(dtype="float64")
    run = mnist.Run(clone(model), X, y, 10)
    while not run.over:
        run.go(7)
    found, known = (one.predict_proba(X_test) for one in (run.fitted(), model.fit(X, y)))
    np.testing.assert_allclose(found, known, rtol=1e-7)
    assert run.model.t_ == model.t_


def test_a_run_on_mnist_that_is_short_of_time_says_how_far_it_came(tiny_mnist, capsys):
    mnist.main(["--networks", "3x150", "--methods", "paper", "ours", "--epochs", "100000", "--seconds", "0.5"])
    rows = pd.read_csv(tiny_mnist / "mnist.csv")
    assert (rows["epochs"] < 10_000).all()
    assert (rows["full_hours"] > 0).all()
    assert "paper, shortened" in (tiny_mnist / "mnist.md").read_text()
    assert capsys.readouterr().out.count("held-out loss") > 10


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_lower_precision_learns_as_well(tiny_mnist, precision):
    """bf16 has three digits; TF32 is that of an accelerator alone."""
    command = ["--networks", "3x150", "--methods", "ours", "--epochs", "30", "--seconds", "0", "--precision", precision]
    mnist.main(command)
    assert torch.get_float32_matmul_precision() == "highest"
    assert pd.read_csv(tiny_mnist / "mnist.csv").loc[0, "score"] < 50


def test_graphs_are_for_an_accelerator(capsys):
    with pytest.raises(SystemExit):
        mnist.arguments_of(["--graphs", "--device", "cpu"])
    assert "--graphs needs a CUDA device, got --device cpu" in capsys.readouterr().err


class Tape(TorchDispatchMode):
    """Records kernels with the tensors that they had: on the CPU what a CUDA graph is. Numbers become constants."""

    # Kernels that ask the device for a number, or bring one to it, cannot be recorded.
    FORBIDDEN = ("_local_scalar_dense", "nonzero", "lift_fresh", "masked_select", "unique")

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert not any(name in str(func) for name in self.FORBIDDEN), func
        out = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, out))
        return out

    def replay(self):
        """The same kernels again; what they made before is replaced by what they make now."""
        new = {}

        def swap(value):
            return new.get(id(value), value) if isinstance(value, torch.Tensor) else value

        for func, args, kwargs, out in self.calls:
            found = func(*tree_map(swap, args), **tree_map(swap, kwargs))
            old, now = tree_flatten(out)[0], tree_flatten(found)[0]
            new.update({id(a): b for a, b in zip(old, now, strict=True) if isinstance(a, torch.Tensor)})


class TapeRecorder:
    """In the place of CUDA's: recording is undone, since a graph's recording does nothing yet."""

    def __init__(self, walk, generator):
        self.walk, self.generator, self.n_recorded = walk, generator, 0

    def run(self, update):
        update()

    def record(self, update):
        names = ("flat", "first", "second", "total")
        before = {name: getattr(self.walk, name).clone() for name in names}
        random, tape = self.generator.get_state(), Tape()
        with tape:
            update()
        for name, value in before.items():
            getattr(self.walk, name).copy_(value)
        self.generator.set_state(random)
        self.n_recorded += 1
        return tape.replay


@pytest.mark.parametrize("method", mnist.METHODS)
def test_recorded_steps_are_those_of_training(tiny_mnist, method):
    X, y, _, _ = mnist.load_mnist()
    runs = [mnist.Run(mnist.estimator("3x150", method, 0, "cpu", 30), X, y, 30) for _ in range(2)]
    trainer = runs[1].trainer
    recorder = TapeRecorder(runs[1].course.walk, trainer.generator)
    trainer.update = Replay(trainer.update, recorder)
    for run in runs:
        run.go(50)
    assert recorder.n_recorded >= 1
    for name in ("flat", "first", "second", "average", "held_gradient"):
        own, other = (getattr(run.course.walk, name) for run in runs)
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_steps_of_every_kind_are_timed(tiny_mnist):
    lines = mnist.cost("3x150", (8,), (6, 4), repeats=1)
    assert sum("holds" in line or "FAILS" in line for line in lines) == 2
