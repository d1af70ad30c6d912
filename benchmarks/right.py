"""Is the tuned global alpha right on anybody's data, and is the default no worse than it?

Draws data sets of ten kinds for twelve losses, tunes one alpha, and compares its cross-validated loss with that of 400
alphas from ten times the largest curvature of a fold down to 1e-14 of it. Both are recomputed on the same folds, by
scikit-learn's own estimator, or by a plain Newton's method where one of the two fits did not converge there. It passes
where the loss is at most 1.001 times the grid's plus 1e-6 of the constant model's. Then the default search is compared
with the global one on 2,000 fresh rows.

    python -m benchmarks.right [--sets 1000] [--report]
"""

import argparse
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import KFold, StratifiedKFold

from .report import markdown
from .right_data import KINDS, draw
from .right_oracle import MODELS, NewtonPath, by_scikit_learn, fresh_loss
from .runner import RESULTS, read, write

N_GRID, SPAN, COARSE = (
    400,
    1e-14,
    4,
)  # alphas, from ten times the largest curvature to this share of it; every 4th first
TOLERANCE, OF_CONSTANT = 1.001, 1e-6
NEAR = 1.02  # valleys whose coarse points are within this of the lowest are searched point by point
AGREE = 1e-5  # relative difference of the two routes beyond which scikit-learn's has not converged
PATH = RESULTS / "right.csv"
WORST, GEOMETRIC = 1.05, 1.00  # bars of the default: each kind's 95th percentile and geometric mean


def tasks(n_sets):
    """Every kind with every loss, seeds 0, 1, ... until there are as many as wanted."""
    pairs = list(product(MODELS, KINDS))
    return [(*pairs[i % len(pairs)], i // len(pairs)) for i in range(n_sets)]


def folds_of(model, task, seed):
    """Explicit folds, which both routes share."""
    n = len(task.y)
    if is_classifier(model.estimator):
        smallest = np.bincount(task.y)[np.unique(task.y)].min()
        splitter = StratifiedKFold(int(min(5, smallest)), shuffle=True, random_state=seed)
    else:
        splitter = KFold(5, shuffle=True, random_state=seed)
    return list(splitter.split(np.zeros(n), task.y))


def grid_minimum(path):
    """The alpha of the grid with the lowest loss, and that loss: coarse points, then all points of low valleys."""
    grid = 10 * path.largest * np.logspace(0, np.log10(SPAN / 10), N_GRID)
    losses = np.full(N_GRID, np.inf)
    coarse = np.arange(0, N_GRID, COARSE)
    losses[coarse] = np.nan_to_num(path(grid[coarse]), nan=np.inf)
    values = losses[coarse]
    lower = (values <= np.append(np.inf, values[:-1])) & (values <= np.append(values[1:], np.inf))
    near = values <= values.min() + (NEAR - 1) * abs(values.min())
    for i in coarse[lower & near]:
        between = np.arange(max(i - COARSE + 1, 0), min(i + COARSE, N_GRID))
        losses[between] = np.fmin(losses[between], np.nan_to_num(path(grid[between]), nan=np.inf))
    best = int(losses.argmin())
    return grid[best], losses[best]


def judge(name, kind, seed):
    """A row of the table."""
    from skhyper import HyperTrainingSearchCV

    model = MODELS[name]
    task = draw(kind, model.target, seed)
    folds = folds_of(model, task, seed)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        start = time.process_time()
        tuned = HyperTrainingSearchCV(clone(model.estimator), granularity="global", cv=folds).fit(task.X, task.y)
        seconds = time.process_time() - start
        default = tuned
        if task.X.shape[1] > 1:
            default = HyperTrainingSearchCV(clone(model.estimator), cv=folds).fit(task.X, task.y)
    warned = [str(w.message) for w in caught if issubclass(w.category, ConvergenceWarning)]
    ((parameter, value),) = tuned.best_params_.items()
    alpha = 1 / value if parameter == "C" else value
    path = NewtonPath(model, task.X, task.y, folds)
    with np.errstate(over="ignore", invalid="ignore"):
        best, grid_loss = grid_minimum(path)
        way = np.geomspace(max(10 * path.largest, alpha), alpha, N_GRID // COARSE)
        found_loss, constant = float(path(way)[-1]), path.constant
    theirs = [by_scikit_learn(model, task.X, task.y, folds, a) for a in (alpha, best)]
    ours = (found_loss, grid_loss)
    pairs = list(zip(theirs, ours, strict=True))
    same = all(ok and not abs(loss - mine) > AGREE * abs(mine) for (loss, ok), mine in pairs)
    found, of_grid = (theirs[0][0], theirs[1][0]) if same else ours
    fresh = [fresh_loss(model, fitted.best_estimator_, task) for fitted in (tuned, default)]
    return {
        "loss": name,
        "kind": kind,
        "seed": seed,
        "n": len(task.y),
        "p": task.X.shape[1],
        "alpha": alpha,
        "grid_alpha": best,
        "found": found,
        "grid": of_grid,
        "constant": constant,
        "ratio": found / of_grid if of_grid > 0 else 1.0,
        "passes": int(found <= TOLERANCE * of_grid + OF_CONSTANT * constant),
        "by_scikit_learn": int(same),
        "fresh_global": fresh[0],
        "fresh_default": fresh[1],
        "cpu_seconds": seconds,
        "warned": int(bool(warned)),
    }


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    arguments.add_argument("--sets", type=int, default=1000)
    arguments.add_argument("--losses", nargs="+", default=list(MODELS), choices=list(MODELS), metavar="LOSS")
    arguments.add_argument("--path", type=Path, default=PATH)
    arguments.add_argument("--rerun", action="store_true", help="forget the rows there are")
    arguments.add_argument("--report", action="store_true", help="print the tables of the rows there are")
    given = arguments.parse_args()
    rows = read(given.path)
    if given.rerun:
        rows = rows[:0]
    done = set(zip(rows.get("loss", []), rows.get("kind", []), rows.get("seed", []), strict=True))
    new = []
    for name, kind, seed in [] if given.report else tasks(given.sets):
        if name not in given.losses or (name, kind, seed) in done:
            continue
        new.append(judge(name, kind, seed))
        if not new[-1]["passes"]:
            row = new[-1]
            print(
                f"{name:22s} {kind:16s} {seed:3d} ratio {row['ratio']:.4f} {row['alpha']:.3g} {row['grid_alpha']:.3g}"
            )
        if len(new) % 20 == 0:
            write(pd.concat([rows, pd.DataFrame(new)], ignore_index=True), given.path)
            print(f"{len(rows) + len(new)} sets", flush=True)
    if new:
        rows = pd.concat([rows, pd.DataFrame(new)], ignore_index=True)
        write(rows, given.path)
    text = tables(rows)
    print(text)
    if given.path == PATH:
        (RESULTS / "right.md").write_text(text + "\n")


def tables(rows):
    """What passes by kind and loss, the failures, and the default beside the global alpha."""
    failed = rows[rows["passes"] == 0]
    counts = rows.pivot_table(index="kind", columns="loss", values="passes", aggfunc="sum", sort=False)
    each = rows.groupby(["kind", "loss"]).size().max()
    ratio = np.log(rows["fresh_default"] / rows["fresh_global"]).groupby(rows["kind"], sort=False)
    fresh = pd.DataFrame(
        {"geometric mean": np.exp(ratio.mean()), "95th percentile": np.exp(ratio.quantile(0.95)), "sets": ratio.size()}
    )
    bars = (fresh["geometric mean"] <= GEOMETRIC) & (fresh["95th percentile"] <= WORST)
    listed = failed[["loss", "kind", "seed", "ratio", "alpha", "grid_alpha"]].set_index("loss")
    return "\n\n".join(
        [
            f"{len(rows)} data sets; the global alpha passes on {int(rows['passes'].sum())}; "
            f"{int(rows['by_scikit_learn'].sum())} judged by scikit-learn's own fits, the others by Newton's method.",
            f"Passes by kind and loss, of at most {each} each:",
            markdown(counts),
            "Failures: none." if failed.empty else "Failures:\n\n" + markdown(listed),
            "Loss of the default on fresh rows over that of the global alpha; "
            f"{int(bars.sum())} of {len(bars)} kinds have at most {GEOMETRIC:.2f} and {WORST:.2f}:",
            markdown(fresh),
        ]
    )


if __name__ == "__main__":
    main()
