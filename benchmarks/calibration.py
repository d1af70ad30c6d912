"""Calibration of probabilities: ``python -m benchmarks.calibration``.

`HypernetClassifier` beside its twin (the same network, trained by the same means, without a hypernetwork) on digits
and on a part of MNIST: error, negative log-likelihood, Brier score (sum over classes) and expected calibration error
(15 bins of equal width). The twin comes as its softmax gives it and scaled by the temperature that its held-out rows
ask for; the estimators do that scaling themselves, so the former is the latter with the temperature put back to 1.

Bars: NLL and Brier score below the twin's, ECE at most that of the twin with its temperature. Coverage of regression
intervals is part of `benchmarks.uci`.
"""

import copy
from functools import partial

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from benchmarks.data import load, load_mnist, scale, split
from benchmarks.report import markdown
from benchmarks.runner import RESULTS, Fitted, Model, in_order, parser, run
from skhyper import HypernetClassifier

N_BINS = 15
MNIST_TRAIN, MNIST_TEST = 1000, 5000


def digits(seed):
    """70 % of the digits; the rest is the test part."""
    X, y = load("digits")
    return split(X, y, seed, n_train=int(0.7 * len(y)), stratify=True)


def mnist(seed):
    """Some of MNIST's training rows, and some of its test rows."""
    X, y, X_test, y_test = load_mnist()
    rng = np.random.RandomState(seed)
    rows, tests = rng.permutation(len(y))[:MNIST_TRAIN], rng.permutation(len(y_test))[:MNIST_TEST]
    return scale(X[rows], y[rows], X_test[tests], y_test[tests])


TASKS = {"digits": digits, f"mnist_{MNIST_TRAIN}": mnist}


_last = (None, None, None)  # split, settings, model


def network(split, scaled=True, **settings):
    """HypernetClassifier, or its twin; without `scaled` the temperature is put back to 1.

    The fit that went before serves again if only `scaled` differs: then it takes no time.
    """
    global _last
    if _last[0] is not split or _last[1] != settings:
        _last = split, settings, HypernetClassifier(random_state=0, **settings).fit(split.X_train, split.y_train)
    model = _last[2]
    if not scaled:
        model = copy.copy(model)
        model._state = {**model._state, "log_factor": np.zeros_like(model._state["log_factor"])}
    return Fitted(model)


def logistic(split):
    return Fitted(LogisticRegression(C=0.1, max_iter=500).fit(split.X_train, split.y_train))


def mlp(split):
    model = MLPClassifier(hidden_layer_sizes=(50,), max_iter=500, random_state=0)
    return Fitted(model.fit(split.X_train, split.y_train))


def _members(n):
    twin = {"n_estimators": n, "generator": "none"}
    return {
        f"ours, {n}": Model(partial(network, n_estimators=n)),
        f"twin, {n}": Model(partial(network, scaled=False, **twin)),
        f"twin, {n}, temperature": Model(partial(network, **twin), warm_up=False),
    }


MODELS = {
    **_members(1),
    **_members(4),
    "MLPClassifier": Model(mlp),
    "LogisticRegression": Model(logistic),
}


def expected_calibration_error(probabilities, correct, n_bins=N_BINS):
    """Mean distance between confidence and accuracy over bins of confidence, weighted by the bins' rows."""
    confidence = probabilities.max(axis=1)
    bins = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    count = np.bincount(bins, minlength=n_bins)
    gaps = np.bincount(bins, confidence, n_bins) - np.bincount(bins, correct, n_bins)
    return float(np.abs(gaps).sum() / count.sum())


def metric(model, split):
    """Negative log-likelihood is the score; labels are 0, 1, ..."""
    p, y = model.predict_proba(split.X_test), split.y_test
    own = np.clip(p[np.arange(len(y)), y], 1e-15, None)
    correct = p.argmax(axis=1) == y
    return {
        "score": float(-np.log(own).mean()),
        "brier": float(np.mean((p**2).sum(axis=1) - 2 * own + 1)),
        "ece": expected_calibration_error(p, correct),
        "error": float(1 - correct.mean()),
    }


def bars(rows):
    """Paired differences to the twin and whether they have the right sign."""
    text = []
    pairs = [("score", "NLL", ""), ("brier", "Brier score", ""), ("ece", "ECE", ", temperature")]
    for name in rows["set"].unique():
        for members in (1, 4):
            for column, what, suffix in pairs:
                wide = rows[rows["set"] == name].pivot_table(index="split", columns="model", values=column)
                twin = f"twin, {members}{suffix}"
                if not {f"ours, {members}", twin} <= set(wide):
                    continue
                difference = (wide[f"ours, {members}"] - wide[twin]).dropna()
                verdict = "holds" if difference.mean() <= 0 else "FAILS"
                spread = "" if len(difference) < 2 else f" ± {difference.sem():.4f}"
                text.append(
                    f"* {name}, {members} member(s), {what} less {twin}'s: {difference.mean():+.4f}{spread} ({verdict})"
                )
    return text


def report(rows):
    """Tables and bars."""
    columns = {"error": "error", "score": "NLL", "brier": "Brier", "ece": "ECE", "cpu_seconds": "CPU s"}
    text = ["# Calibration of probabilities", ""]
    for name, own in rows.groupby("set", sort=False):
        means = own.groupby("model", sort=False)[list(columns)].mean().rename(columns=columns)
        n = own["split"].nunique()
        text += [f"## {name}, {own['n'].max()} training rows, {n} split(s)", "", markdown(means, 3), ""]
    return "\n".join([*text, "## Bars", "", *bars(rows), ""])


def figure(rows, path):
    """NLL and ECE of each model."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(rows["set"]))
    canvas = Figure(figsize=(9, 3.0), layout="constrained")
    axes = canvas.subplots(1, 2 * len(names), squeeze=False)[0]
    models = [model for model in MODELS if model in set(rows["model"])]
    for i, (name, column) in enumerate((name, column) for name in names for column in ("score", "ece")):
        panel, own = axes[i], rows[rows["set"] == name]
        for j, model in enumerate(models):
            values = own.loc[own["model"] == model, column]
            color = "black" if model.startswith("ours") else "C0" if model.startswith("twin") else "C7"
            panel.plot(values, np.full(len(values), j), ".", color=color, alpha=0.4)
            panel.plot(values.mean(), j, "D", color=color)
        panel.set_yticks(range(len(models)), models if i == 0 else [""] * len(models), fontsize=8)
        panel.set_title(f"{name}: {'NLL' if column == 'score' else 'ECE'}", fontsize=9)
        panel.invert_yaxis()
        panel.set_xlim(0, 1.08 * own[column].max())
        panel.grid(alpha=0.3)
    canvas.savefig(path, dpi=90)


def main(argv=None):
    """Run what is missing, print, save."""
    arguments = parser(__doc__.splitlines()[0], MODELS, TASKS).parse_args(argv)
    chosen = {name: task for name, task in TASKS.items() if not arguments.sets or name in arguments.sets}
    rows = run(
        chosen,
        MODELS,
        metric,
        arguments,
        RESULTS / "calibration.csv",
        order=lambda pair: (pair[1], list(TASKS).index(pair[0])),
    )
    if rows.empty:
        return
    rows = in_order(rows, TASKS, MODELS)
    text = report(rows)
    (RESULTS / "calibration.md").write_text(text)
    figure(rows, RESULTS / "calibration.png")
    print(text)


if __name__ == "__main__":
    main()
