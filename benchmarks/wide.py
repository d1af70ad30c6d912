"""More columns than rows: ``python -m benchmarks.wide`` watches time and memory as columns are added.

60 rows, of which three columns matter; one target and three. GridSearchCV over 20 alphas, and LassoCV and
MultiTaskLassoCV as they come, stand beside HyperTrainedRidge; each fit has a process of its own and one thread, after a
small one whose imports do not count.
"""

import argparse
import json

import numpy as np
import pandas as pd
from sklearn.linear_model import LassoCV, MultiTaskLassoCV, Ridge
from sklearn.metrics import root_mean_squared_error
from sklearn.model_selection import GridSearchCV

from benchmarks.memory import in_own_process, measure
from benchmarks.report import markdown
from benchmarks.runner import RESULTS

N_ROWS, N_TEST = 60, 1000
N_COLUMNS = (250, 1000, 4000, 10_000)
N_TARGETS = (1, 3)
ALPHAS = np.logspace(-4, 4, 20)


def data(p, n_targets, seed=0):
    """Training and test rows; the noise has a standard deviation of 1, the signal one of about 3.7."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N_ROWS + N_TEST, p))
    truth = np.array([[3.0, 2.0, 1.0], [1.0, -3.0, 2.0], [2.0, 1.0, -3.0]])[:, :n_targets]
    y = X[:, :3] @ truth + rng.standard_normal((len(X), n_targets))
    y = y[:, 0] if n_targets == 1 else y
    return X[:N_ROWS], y[:N_ROWS], X[N_ROWS:], y[N_ROWS:]


def ours(n_targets):
    from skhyper import HyperTrainedRidge

    return HyperTrainedRidge()


def grid(n_targets):
    return GridSearchCV(Ridge(), {"alpha": ALPHAS})


def lasso(n_targets):
    return LassoCV(max_iter=10_000) if n_targets == 1 else MultiTaskLassoCV(max_iter=10_000)


MODELS = {"HyperTrainedRidge": ours, "GridSearchCV(Ridge)": grid, "LassoCV": lasso}


def one(name, p, n_targets):
    """Fit one model; its row."""
    X, y, _, _ = data(20, n_targets)
    MODELS[name](n_targets).fit(X, y)
    X, y, X_test, y_test = data(p, n_targets)
    model, row = measure(lambda: MODELS[name](n_targets).fit(X, y))
    rmse = root_mean_squared_error(y_test, model.predict(X_test))
    return {"columns": p, "targets": n_targets, "model": name, **row, "rmse": rmse}


def table(rows, column):
    """One row a model."""
    return rows.pivot_table(index="model", columns=["targets", "columns"], values=column, sort=False)


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--one", nargs=3, metavar=("MODEL", "COLUMNS", "TARGETS"), help="fit one model in this process")
    arguments = cli.parse_args(argv)
    if arguments.one:
        name, p, n_targets = arguments.one
        print(json.dumps(one(name, int(p), int(n_targets))))
        return
    asked = [(name, p, t) for t in N_TARGETS for p in N_COLUMNS for name in MODELS]
    rows = pd.DataFrame([in_own_process("benchmarks.wide", "--one", *values) for values in asked])
    rows["peak"] /= 2**20
    rows.to_csv(RESULTS / "wide.csv", index=False, float_format="%.6g")
    lines = ["# More columns than rows", "", f"{N_ROWS} rows; numbers of targets, and below them of columns.", ""]
    for column, title in (("cpu_seconds", "Processor seconds"), ("peak", "Peak memory, MiB"), ("rmse", "Test RMSE")):
        wide = table(rows, column)
        wide.columns = [f"{t}: {p:,}" for t, p in wide.columns]
        lines += [f"## {title}", "", markdown(wide), ""]
    (RESULTS / "wide.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
