"""Runs models on tasks, one row a fit, into a CSV that later runs extend.

A benchmark is a set of tasks (name -> function(seed) -> `Split`), a dict of `Model` and a metric. Rows that are in the
CSV already are not run again unless ``--rerun`` names their model, so a run that was cut off goes on where it stopped.
A metric gives a number, or a dict of columns with "score" among them.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

RESULTS = Path(__file__).parent / "results"
KEY = ["set", "split", "model"]


class Fitted(NamedTuple):
    """A fitted estimator and what the table says about it."""

    estimator: object
    at_edge: bool = False  # a tuned value lies at the end of its range
    n_hyperparameters: float = np.nan  # values fitted to held-out loss (to the evidence, for ARD)
    converged: bool | None = None  # None: unless a ConvergenceWarning was raised
    guard_score: float = np.nan


@dataclass(frozen=True)
class Model:
    """How a model is fitted: `fit(split)`, or `fit(split, seconds)` with a time `budget` taken from another's rows.

    A budget is a model's name, or a function of (rows, set, seed) that gives None as long as there is none.
    """

    fit: Callable[..., Fitted]
    counted: bool = True
    budget: str | Callable | None = None
    warm_up: bool = True  # a first small fit that is not timed


def parser(description, models, tasks):
    """The command line that the benchmarks share."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--models", nargs="+", default=list(models), choices=list(models), metavar="MODEL")
    result.add_argument("--sets", nargs="+", metavar="SET", help="of these: " + " ".join(tasks) + " (default: all)")
    result.add_argument("--splits", type=int, default=5, help="number of random splits")
    result.add_argument("--seed", type=int, default=0, help="the first split's seed; the others follow")
    result.add_argument("--rerun", nargs="+", default=[], choices=[*models, "all"], metavar="MODEL")
    result.add_argument("--threads", type=int, default=1, help="of each fit")
    result.add_argument("--report", action="store_true", help="print the tables of the rows there are; run nothing")
    return result


def read(path):
    return pd.read_csv(path) if Path(path).exists() else pd.DataFrame(columns=KEY)


def run(tasks, models, metric, arguments, path, *, order=None, wanted=lambda name, seed, model: True):
    """Fit what is missing, append it to the CSV at `path`, and return all its rows.

    `order` sorts the pairs of a set's name and a seed; `wanted` says which models a pair has.
    """
    rows = read(path)
    if arguments.report:
        return rows
    rerun = list(models) if "all" in arguments.rerun else arguments.rerun
    number = 1 + int(rows["run"].max()) if len(rows) else 1
    names = [name for name in models if name in arguments.models]
    with threadpool_limits(arguments.threads):
        set_torch_threads(arguments.threads)
        warm = set()
        pairs = [(name, seed + arguments.seed) for name in tasks for seed in range(arguments.splits)]
        for name, seed in sorted(pairs, key=order) if order else pairs:
            missing = [m for m in names if wanted(name, seed, m) and (m in rerun or not has(rows, name, seed, m))]
            if not missing:
                continue
            split = tasks[name](seed)
            for model_name in missing:
                row = _one(models[model_name], split, metric, _budget(rows, name, seed, models[model_name]), warm)
                if row is None:
                    continue
                row = {"set": name, "split": seed, "model": model_name, **row, "run": number}
                rows = replaced(rows, row)
                write(rows, path)
                print(f"{name:20s} {seed:3d} {model_name:28s} {row['score']:.5g}  {row['seconds']:.2f} s", flush=True)
    return rows


def in_order(rows, tasks, models):
    """Rows in the order of the tasks, splits and models, whatever the order in which they were run."""
    place = {"set": list(tasks), "model": list(models)}
    return rows.sort_values(KEY, key=lambda c: c.map(place[c.name].index) if c.name in place else c, ignore_index=True)


def _one(model, split, metric, budget, warm):
    """Fit and score once; None where the model's package or its time budget is missing."""
    if model.budget and budget is None:
        return None
    extra = (budget,) if model.budget else ()
    try:
        if model.warm_up and model.fit not in warm:  # imports and compilation are no part of a fit's time
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model.fit(_first_rows(split), *((0.1,) if model.budget else ()))
            warm.add(model.fit)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            start, cpu = time.perf_counter(), time.process_time()
            fitted = model.fit(split, *extra)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    except ImportError as error:
        if model.fit not in warm:
            print(f"skipped: {error}", flush=True)
        warm.add(model.fit)
        return None
    warned = any(issubclass(w.category, ConvergenceWarning) for w in caught)
    scores = metric(fitted.estimator, split)
    return {
        **(scores if isinstance(scores, dict) else {"score": scores}),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "at_edge": int(bool(fitted.at_edge)),
        "converged": int(not warned if fitted.converged is None else fitted.converged),
        "n_hyperparameters": fitted.n_hyperparameters,
        "guard_score": fitted.guard_score,
        "n": len(split.y_train),
        "p": split.X_train.shape[1],
    }


def _first_rows(split, n=20):
    """At most `n` rows of every class (in regression 3 `n` rows) and 8 columns: a first fit that is not timed."""
    y, columns = split.y_train, slice(0, 8)
    labels = np.unique(y)
    rows = (
        np.concatenate([np.flatnonzero(y == label)[:n] for label in labels]) if len(labels) <= 20 else slice(0, 3 * n)
    )
    return type(split)(
        split.X_train[rows, columns], y[rows], split.X_test[:, columns], split.y_test, split.terms[columns]
    )


def has(rows, name, seed, model):
    return bool(len(rows)) and bool(((rows["set"] == name) & (rows["split"] == seed) & (rows["model"] == model)).any())


def _budget(rows, name, seed, model):
    if callable(model.budget):
        return model.budget(rows, name, seed)
    if model.budget is None or not has(rows, name, seed, model.budget):
        return None
    return float(rows.set_index(KEY).loc[(name, seed, model.budget), "seconds"])


def replaced(rows, row):
    if has(rows, *(row[column] for column in KEY)):
        rows = rows[~(rows[KEY] == [row[column] for column in KEY]).all(axis=1)]
    new = pd.DataFrame([row])
    return pd.concat([rows, new], ignore_index=True) if len(rows) else new


def write(rows, path):
    """Write beside and rename, so that an interruption never leaves half a file."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    rows.to_csv(beside, index=False, float_format="%.6g")
    os.replace(beside, path)


def set_torch_threads(n):
    try:
        import torch
    except ModuleNotFoundError:
        return
    torch.set_num_threads(n)
