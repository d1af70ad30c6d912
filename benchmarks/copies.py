"""Copies of rows: ``python -m benchmarks.copies``.

A training set as it is, with every row 2, 6 and 20 times, and oversampled at random (all of its rows, and as many drawn
from them), rows shuffled. Whatever holds out rows must not be judged by copies of what it was trained on. Each fit is
judged by 2,000 new rows.

Bars, of means over the seeds: 90 % intervals of HypernetRegressor cover .85 to .95 of the new rows; the log-loss of
HypernetClassifier is at most 1.05 times that of the distinct rows, its expected calibration error at most .02 above
theirs; the test loss of HyperTrainingSearchCV over MLPRegressor and MLPClassifier is at most 1.05 times theirs.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
from sklearn.datasets import make_classification, make_friedman1
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier, MLPRegressor

from benchmarks.calibration import expected_calibration_error
from benchmarks.data import Split
from benchmarks.report import markdown
from benchmarks.runner import RESULTS, Fitted, Model, in_order, parser, run
from skhyper import HypernetClassifier, HypernetRegressor, HyperTrainingSearchCV

N_NEW = 2000
SIZES = (80, 200, 600, 2000)
MLP_SIZES = (200, 1000)
COVERAGE = 0.9
COVERAGE_BAR = (0.85, 0.95)
LOSS_BAR, ECE_BAR = 1.05, 0.02
FRIEDMAN_MEAN, FRIEDMAN_STD = 14.4, 5.0


@dataclass(frozen=True)
class Rows(Split):
    """Distinct training rows, new rows, and the estimator that they are for."""

    estimator: object
    seed: int


def regression(make, n, seed):
    """Friedman's first function, ten features of which five matter, in units of about one."""
    X, y = make_friedman1(n + N_NEW, noise=1.0, random_state=seed)
    return _rows(X, (y - FRIEDMAN_MEAN) / FRIEDMAN_STD, make, n, seed)


def classification(make, n, seed):
    """Three classes, eight features of which four matter, a label in twenty drawn at random."""
    settings = {"n_features": 8, "n_informative": 4, "n_redundant": 0, "n_classes": 3, "n_clusters_per_class": 1}
    X, y = make_classification(n + N_NEW, flip_y=0.05, class_sep=0.8, random_state=seed, **settings)
    return _rows(X, y, make, n, seed)


def _rows(X, y, make, n, seed):
    return Rows(X[:n], y[:n], X[n:], y[n:], np.ones(X.shape[1], dtype=int), make(seed), seed)


def _search(kind, seed):
    return HyperTrainingSearchCV(kind(hidden_layer_sizes=(50,), random_state=seed), random_state=seed)


KINDS = {
    "HypernetRegressor": (regression, lambda seed: HypernetRegressor(random_state=seed), SIZES),
    "HypernetClassifier": (classification, lambda seed: HypernetClassifier(random_state=seed), SIZES),
    "MLPRegressor": (regression, partial(_search, MLPRegressor), MLP_SIZES),
    "MLPClassifier": (classification, partial(_search, MLPClassifier), MLP_SIZES),
}
TASKS = {f"{kind} {n}": partial(data, make, n) for kind, (data, make, sizes) in KINDS.items() for n in sizes}


def repeated(times, n, random):
    """Numbers of the rows where each is there so many times, shuffled."""
    return random.permutation(np.repeat(np.arange(n), times))


def oversampled(n, random):
    """All rows, and as many drawn from them."""
    return random.permutation(np.r_[np.arange(n), random.randint(0, n, n)])


def fit(copies, split):
    rows = copies(len(split.y_train), np.random.RandomState(split.seed))
    return Fitted(split.estimator.fit(split.X_train[rows], split.y_train[rows]))


MODELS = {
    "distinct": Model(partial(fit, lambda n, random: np.arange(n)), warm_up=False),
    **{f"{times} times": Model(partial(fit, partial(repeated, times)), warm_up=False) for times in (2, 6, 20)},
    "oversampled": Model(partial(fit, oversampled), warm_up=False),
}


def metric(model, split):
    """The loss is the score: of classes the log-loss, of networks with a distribution its negative log density."""
    X, y = split.X_test, split.y_test
    if hasattr(model, "predict_interval"):
        low, high = model.predict_interval(X, COVERAGE).T
        return {"score": -model.log_prob(X, y).mean(), "coverage": np.mean((low <= y) & (y <= high)), "ece": np.nan}
    if not hasattr(model, "predict_proba"):
        return {"score": np.mean((model.predict(X) - y) ** 2), "coverage": np.nan, "ece": np.nan}
    p = model.predict_proba(X)
    error = expected_calibration_error(p, p.argmax(axis=1) == y)
    return {"score": log_loss(y, p, labels=np.arange(p.shape[1])), "coverage": np.nan, "ece": error}


def means(rows, column, kind):
    """Over seeds: one row a set, one column for each way of copying."""
    own = rows[rows["set"].str.startswith(kind + " ")]
    return own.pivot_table(index="set", columns="model", values=column, sort=False)


def verdict(holds):
    """The sets and ways of copying that miss a bar."""
    missed = [f"{name}, {model}" for name, row in holds.iterrows() for model, ok in row.items() if not ok]
    return f"* {int(holds.to_numpy().sum())} of {holds.size} hold" + (
        f"; missed: {'; '.join(missed)}" if missed else ""
    )


def report(rows):
    """Tables and bars."""
    counts = rows.groupby("set", sort=False)["split"].nunique()
    seeds = ", ".join(f"{name}: {n}" for name, n in counts.items())
    lines = ["# Copies of rows", "", f"Means over seeds, {N_NEW} new rows each. Seeds by set: {seeds}.", ""]

    def add(title, table, holds):
        lines.extend([f"## {title}", "", markdown(table), "", verdict(holds.drop(columns="distinct")), ""])

    coverage = means(rows, "coverage", "HypernetRegressor")
    low, high = COVERAGE_BAR
    add(
        f"HypernetRegressor: coverage of 90 % intervals ({low} to {high})",
        coverage,
        (coverage >= low) & (coverage <= high),
    )
    for kind in ("HypernetClassifier", "MLPRegressor", "MLPClassifier"):
        losses = means(rows, "score", kind)
        ratio = losses.div(losses["distinct"], axis=0)
        add(f"{kind}: loss over that of the distinct rows (at most {LOSS_BAR})", ratio, ratio <= LOSS_BAR)
    ece = means(rows, "ece", "HypernetClassifier")
    above = ece.sub(ece["distinct"], axis=0)
    add(f"HypernetClassifier: ECE above that of the distinct rows (at most {ECE_BAR})", above, above <= ECE_BAR)
    density = means(rows, "score", "HypernetRegressor")
    lines += ["## HypernetRegressor: negative log density", "", markdown(density), ""]
    return "\n".join(lines)


def main(argv=None):
    """Run, print, save."""
    cli = parser(__doc__.splitlines()[0], MODELS, TASKS)
    cli.set_defaults(splits=10)
    arguments = cli.parse_args(argv)
    tasks = {name: TASKS[name] for name in arguments.sets or TASKS}
    rows = run(tasks, MODELS, metric, arguments, RESULTS / "copies.csv")
    text = report(in_order(rows, TASKS, MODELS))
    (RESULTS / "copies.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
