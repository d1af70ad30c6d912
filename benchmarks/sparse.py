"""Sparse X: ``python -m benchmarks.sparse`` tunes logistic regression on a CSR matrix and watches memory.

10,000 x 50,000, density 1e-3, columns as uneven as words in texts; labels drawn from a linear truth of 1,000 columns.
The bar: at its peak HyperTrainingSearchCV(LogisticRegression()) takes less than ten times the bytes of X, and the
weights: those of each row of `cv_results_` in each fold, and of the final model. GridSearchCV over 20 values of C
stands beside it. Each fit has a process of its own, after a small one whose imports do not count.
"""

import argparse
import json

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV

from benchmarks.memory import in_own_process, measure
from benchmarks.report import markdown
from benchmarks.runner import RESULTS

SHAPE = (10_000, 50_000)
DENSITY = 1e-3
SHARE = 0.02  # of the columns that matter
STRENGTH = 4.0  # standard deviation of the log-odds
N_TEST = 5_000
BAR = 10.0
CS = np.logspace(-4, 4, 20)
MAX_ITER = 5000


def data(n, p, density=DENSITY, share=SHARE, seed=0):
    """CSR X and 0/1 labels, training and test rows; column j has a probability in proportion to 1 / (j + 50)."""
    rng = np.random.default_rng(seed)
    rows, size = n + N_TEST, int(density * p)
    odds = np.cumsum(1 / (np.arange(p) + 50.0))
    columns = np.searchsorted(odds, odds[-1] * rng.uniform(size=rows * size)).astype(np.int32)
    starts = np.arange(0, rows * size + 1, size, dtype=np.int32)
    X = sparse.csr_array((rng.standard_normal(rows * size), columns, starts), shape=(rows, p))
    X.sum_duplicates()
    truth = np.where(rng.permutation(p) < share * p, rng.standard_normal(p), 0.0)
    truth *= STRENGTH / (X @ truth).std()
    y = (rng.uniform(size=rows) < 1 / (1 + np.exp(-X @ truth))).astype(int)
    return X[:n], y[:n], X[n:], y[n:]


def ours():
    from skhyper import HyperTrainingSearchCV

    return HyperTrainingSearchCV(LogisticRegression(max_iter=MAX_ITER), scoring="neg_log_loss")


def ours_global():
    return ours().set_params(granularity="global")


def grid():
    return GridSearchCV(LogisticRegression(max_iter=MAX_ITER), {"C": CS}, cv=5, scoring="neg_log_loss")


MODELS = {"HyperTrainingSearchCV": ours, "HyperTrainingSearchCV, global": ours_global, "GridSearchCV": grid}


def one(name):
    """Fit one model; its row."""
    X, y, _, _ = data(200, 300, density=0.1)
    MODELS[name]().fit(X, y)
    X, y, X_test, y_test = data(*SHAPE)
    size = X.data.nbytes + X.indices.nbytes + X.indptr.nbytes
    model, row = measure(lambda: MODELS[name]().fit(X, y))
    rows = len(model.cv_results_["params"]) if name != "GridSearchCV" else 0
    weights = 8 * X.shape[1] * (1 + 5 * rows)
    return {
        "model": name,
        **row,
        "X_bytes": size,
        "weights_bytes": weights,
        "peak / X": (row["peak"] - weights) / size,
        "test_log_loss": log_loss(y_test, model.predict_proba(X_test)),
        "best_score": float(model.best_score_),
        "rows": len(model.cv_results_["params"]),
        "n_hyperparameters": int(getattr(model, "n_hyperparameters_", 1)),
        "stop_reason": getattr(model, "stop_reason_", ""),
    }


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--one", choices=MODELS, metavar="MODEL", help="fit one model in this process")
    arguments = cli.parse_args(argv)
    if arguments.one:
        print(json.dumps(one(arguments.one)))
        return
    rows = pd.DataFrame([in_own_process("benchmarks.sparse", "--one", name) for name in MODELS])
    rows.to_csv(RESULTS / "sparse.csv", index=False, float_format="%.6g")
    table = rows.set_index("model")
    ratio = table["peak / X"].iloc[0]
    lines = [
        "# Logistic regression on sparse X",
        "",
        f"CSR {SHAPE[0]:,} x {SHAPE[1]:,}, density {DENSITY:g}: {table['X_bytes'].iloc[0] / 2**20:.1f} MiB.",
        "`peak / X` is the peak increase of memory less the weights, over the bytes of X.",
        "",
        markdown(table.drop(columns=["X_bytes", "best_score", "stop_reason"])),
        "",
        f"* peak of HyperTrainingSearchCV: {ratio:.2f} X ({'holds' if ratio < BAR else 'FAILS'}: less than {BAR:g})",
        f"* it stopped: {table['stop_reason'].iloc[0]}",
        "",
    ]
    (RESULTS / "sparse.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
