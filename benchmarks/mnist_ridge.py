"""7,840 decays: ``python -m benchmarks.mnist_ridge`` tunes ridge regression to one-hot digits, a decay a weight.

10,000 rows of MNIST, pixels in [0, 1], tested on the 10,000 test rows. HyperTrainedRidge(granularity="weight") is
fitted twice: with decays of the family (two fitted numbers) and with free ones. The bars, all in one run:

* it converges to its own tolerance in less time than GridSearchCV(Ridge, 20 alphas, cv=5) takes for one alpha, the
  final fits of both not counted (the whole fit is printed beside it);
* its test error is at most that of the tuned global alpha;
* at its peak it takes less than 8 times the memory of X, beyond what X itself takes.

Every fit has a process of its own and one thread, after a small fit whose imports do not count. Models take turns, and
the bars compare medians over the repeats.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

from benchmarks.data import load_mnist
from benchmarks.memory import in_own_process, measure
from benchmarks.report import bar, markdown
from benchmarks.runner import RESULTS

N_TRAIN = 10_000
ALPHAS = np.logspace(-2, 4, 20)
MEMORY = 8.0
GRID, GLOBAL = "GridSearchCV", "global"
FINE = ("weight, family", "weight, free")
SETTINGS = {
    GLOBAL: {"granularity": "global"},
    FINE[0]: {"granularity": "weight", "average_exponents": False},
    FINE[1]: {"granularity": "weight", "exponent": 2, "shrinkage": 1.0},
}
MODELS = (GRID, *FINE, GLOBAL)


def make(name):
    """An unfitted model."""
    from skhyper import HyperTrainedRidge

    if name == GRID:
        return GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=5, scoring="neg_mean_squared_error")
    return HyperTrainedRidge(**SETTINGS[name])


def one(name, path):
    """Fit one model; its row."""
    with np.load(path) as file:
        X, Y, X_test, Y_test = (file[key] for key in ("X", "Y", "X_test", "Y_test"))
    columns = X[:200].std(axis=0).argsort()[-30:]
    make(name).fit(X[:200, columns], Y[:200])
    model, row = measure(lambda: make(name).fit(X, Y))
    alpha = model.best_params_["alpha"] if name == GRID else model.family_alpha_
    row = {
        "model": name,
        **row,
        "peak / X": row["peak"] / X.nbytes,
        "test_mse": np.mean((model.predict(X_test) - Y_test) ** 2),
        "held_out_mse": -model.best_score_,
        "alpha": alpha,
    }
    if name == GRID:
        row["seconds_one_alpha"] = (row["seconds"] - model.refit_time_) / len(ALPHAS)
        row["n_hyperparameters"] = 1
        return row
    names = ("n_hyperparameters_", "exponent_", "n_iter_", "stop_reason_")
    row.update({key[:-1]: getattr(model, key) for key in names})
    row["n_decays"] = int(np.size(model.alpha_))
    row["seconds_search"] = row["seconds"] - model.refit_time_
    return row


def report(rows):
    """The table and the bars."""
    numbers = [
        "seconds",
        "cpu_seconds",
        "seconds_search",
        "seconds_one_alpha",
        "peak / X",
        "test_mse",
        "held_out_mse",
        "alpha",
    ]
    numbers += ["exponent", "n_decays", "n_hyperparameters", "n_iter"]
    table = rows.groupby("model", sort=False)[numbers].median()
    grid = rows[rows["model"] == GRID]
    processor = (grid["cpu_seconds"] * grid["seconds_one_alpha"] / grid["seconds"]).median()
    limit, reference = table.loc[GRID, "seconds_one_alpha"], table.loc[GLOBAL, "test_mse"]
    reasons = rows.groupby("model", sort=False)["stop_reason"].first()
    runs = rows.pivot_table(index="run", columns="model", values="seconds_search", sort=False)
    each = grid.set_index("run")["seconds_one_alpha"]
    text = [
        "# 7,840 decays on MNIST",
        "",
        f"{N_TRAIN:,} training rows, one-hot targets, one thread; medians over {rows['run'].nunique()} runs.",
        "",
        markdown(table),
        "",
    ]
    for name in FINE:
        row = table.loc[name]
        count = f"{int(row['n_hyperparameters']):,} fitted to held-out rows"
        text += [
            f"## {name}: {int(row['n_decays']):,} decays, {count}",
            "",
            bar("seconds over those of GridSearchCV for one alpha", row["seconds_search"] / limit, 1.0),
            f"  (in {int((runs[name] < each).sum())} of {len(each)} runs below 1)",
            bar("with the final fit", row["seconds"] / limit, 1.0),
            bar("with the final fit, in CPU seconds", row["cpu_seconds"] / processor, 1.0),
            bar("test error over that of the tuned global alpha", row["test_mse"] / reference, 1.0),
            bar("peak memory over X", row["peak / X"], MEMORY),
            f"* stopped: {reasons[name]}",
            "",
        ]
    return "\n".join(text)


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--repeats", type=int, default=5)
    cli.add_argument("--one", nargs=2, metavar=("MODEL", "FILE"), help="fit one model in this process")
    cli.add_argument("--report", action="store_true", help="print the tables of the rows there are; run nothing")
    arguments = cli.parse_args(argv)
    if arguments.one:
        print(json.dumps(one(*arguments.one), default=float))
        return
    path = RESULTS / "mnist_ridge.csv"
    if not arguments.report:
        X, y, X_test, y_test = load_mnist()
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            file, one_hot = Path(folder) / "mnist.npz", np.eye(10)
            np.savez(file, X=X[:N_TRAIN], Y=one_hot[y[:N_TRAIN]], X_test=X_test, Y_test=one_hot[y_test])
            for run in range(arguments.repeats):
                for name in MODELS:
                    rows.append({"run": run, **in_own_process("benchmarks.mnist_ridge", "--one", name, file)})
                    print(run, name, f"{rows[-1]['seconds']:.2f} s", flush=True)
        pd.DataFrame(rows).to_csv(path, index=False, float_format="%.6g")
    text = report(pd.read_csv(path))
    (RESULTS / "mnist_ridge.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
