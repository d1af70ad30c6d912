"""The honest score: ``python -m benchmarks.honest`` holds `guard_score_` against the test score.

For each set 20 random splits; HyperTrainedRidge(guard_cv=5) is fitted to the training part. Its three scores,
`best_score_` (on the rows that chose the model), `guard_score_` (the whole procedure rerun on outer folds) and the
score on test rows, are mean squared errors over the variance of y. The bar: the means over splits of guard and test
differ by at most 3 % of the latter. A guard model sees four fifths of the rows, so that on small sets the guard is
pessimistic by the slope of the learning curve; with 2,000 rows (fewer where a set has not as many) that is small.

Negative control: y shuffled, more columns than rows. There is nothing to learn, so an honest R2 is at most .02;
`best_score_` shows its optimism beside it. Free decays (`shrinkage=1`) show more of it.
"""

import argparse

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from benchmarks.data import load, split
from benchmarks.report import markdown
from benchmarks.runner import RESULTS
from skhyper import HyperTrainedRidge

SETS = ("concrete", "kin8nm", "power", "protein", "wine", "spambase")
N_TRAIN = 2000
BAR = 0.03
CONTROL_BAR = 0.02


def scores(name, seed):
    """The three scores of one split, as mean squared errors over the variance of the training targets."""
    X, y = load(name)
    n_train = min(N_TRAIN, int(0.8 * len(y)))
    X_train, y_train, X_test, y_test = split(X, y.astype(float), seed, degree=1 + (name != "spambase"), n_train=n_train)
    model = HyperTrainedRidge(guard_cv=5).fit(X_train, y_train)
    unit = y_train.var()
    test = np.mean((model.predict(X_test) - y_test) ** 2)
    return {
        "set": name,
        "split": seed,
        "n": len(y_train),
        "p": X_train.shape[1],
        "best": -model.best_score_ / unit,
        "guard": -model.guard_score_ / unit,
        "test": test / unit,
    }


def control(seed, shrinkage):
    """R2 of the selection and of the guard where y has nothing to do with X: 100 rows, 200 columns."""
    rng = np.random.RandomState(seed)
    X, y = load("protein")
    rows = rng.permutation(len(y))[:100]
    X = np.hstack([X[rows], rng.standard_normal((100, 200 - X.shape[1]))])
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    model = HyperTrainedRidge(guard_cv=5, scoring="r2", shrinkage=shrinkage).fit(X, rng.permutation(y[rows]))
    return {"shrinkage": str(shrinkage), "seed": seed, "best R2": model.best_score_, "guard R2": model.guard_score_}


def table(rows):
    """Means over splits, their difference, and whether the bar holds."""
    means = rows.groupby("set", sort=False)[["n", "p", "best", "guard", "test"]].mean()
    gap = rows.groupby("set", sort=False).apply(lambda r: (r["guard"] - r["test"]).sem(), include_groups=False)
    means["guard / test - 1"] = means["guard"] / means["test"] - 1
    means["s.e."] = gap / means["test"]
    means["best / test - 1"] = means["best"] / means["test"] - 1
    means["holds"] = np.where(means["guard / test - 1"].abs() <= BAR, "yes", "NO")
    return means.astype({"n": int, "p": int})


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--splits", type=int, default=20)
    arguments = cli.parse_args(argv)
    with threadpool_limits(1):
        rows, controls = [], []
        for name in SETS:
            rows += [scores(name, seed) for seed in range(arguments.splits)]
            print(table(pd.DataFrame(rows)).tail(1).to_string(header=len(rows) == arguments.splits), flush=True)
        for shrinkage in ("auto", 1.0):
            controls += [control(seed, shrinkage) for seed in range(max(1, arguments.splits // 4))]
    rows, controls = pd.DataFrame(rows), pd.DataFrame(controls)
    rows.round(6).to_csv(RESULTS / "honest.csv", index=False)
    means = controls.groupby("shrinkage", sort=False)[["best R2", "guard R2"]].mean()
    means["holds"] = np.where(means["guard R2"] <= CONTROL_BAR, "yes", "NO")
    text = "\n".join(
        [
            "# Honest scores",
            "",
            f"Mean squared error / variance of y, means over {arguments.splits} random splits.",
            "",
            markdown(table(rows)),
            "",
            "## Negative control: shuffled y, 100 rows, 200 columns",
            "",
            markdown(means),
            "",
        ]
    )
    (RESULTS / "honest.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
