"""The nine uci sets in the splits of the literature, and what has been published on them.

A folder in the environment variable ``SKHYPER_DATA`` holds uci/NAME.npz with X, y and `test_index`, 20 splits (protein
5); training rows are the others. Features are standardised by the training rows; targets keep their unit.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.data import Split

# In the order of the time that they take.
SMALL = ("yacht", "boston", "energy", "concrete", "wine")
LARGE = ("power", "kin8nm", "naval", "protein")
SETS = SMALL + LARGE
# Few levels, or a grid that a narrow density exploits: outside counts about densities.
NO_DENSITY = ("wine", "naval")
# The step of the target as it is printed; kin8nm has as many values as rows. Densities are floored at half of it.
RESOLUTION = {
    "boston": 0.1,
    "concrete": 0.01,
    "energy": 0.01,
    "kin8nm": 0.0,
    "naval": 0.001,
    "power": 0.01,
    "protein": 0.001,
    "wine": 1.0,
    "yacht": 0.01,
    "year": 1.0,
}
YEAR_TRAIN = 463_715
SPLITS = {**dict.fromkeys(SETS, 20), "protein": 5, "year": 1}

_ORDER = ("boston", "concrete", "energy", "kin8nm", "naval", "power", "protein", "wine", "yacht")


def _row(text):
    return dict(zip(_ORDER, (float(value) if value != "-" else np.nan for value in text.split()), strict=True))


# Sheikh et al. (2017), table 1, with kin8nm and naval, printed to two digits, as .079 and .0007.
PAPER = "paper: hypernetwork"
PUBLISHED_RMSE = {
    "paper: VI": _row("4.32 7.19 2.65 .10 .01 4.33 4.84 .65 6.89"),
    "paper: PBP": _row("3.01 5.67 1.80 .10 .01 4.12 4.73 .64 1.02"),
    "paper: Dropout": _row("2.97 5.23 1.66 .10 .01 4.02 4.36 .62 1.11"),
    "paper: VMG": _row("2.70 4.89 .54 .08 - 4.04 4.13 .63 .71"),
    "paper: SGD": _row("3.73 5.29 .95 .08 - 4.06 4.37 .80 .77"),
    PAPER: _row("3.72 4.74 .87 .079 .0007 4.02 4.65 .62 .57"),
    "converged dropout": _row("2.90 4.83 .54 .079 .0007 4.01 4.27 .62 .67"),
    "best seen anywhere": _row("2.6 4.1 .42 .06 .0002 3.7 3.7 .61 .48"),
}
NGBOOST = "published NGBoost"
PUBLISHED_DENSITY = {
    "converged dropout": _row("-2.40 -2.94 -1.21 1.14 4.45 -2.81 -2.87 -.93 -1.25"),
    "published Deep Ensembles": _row("-2.41 -3.06 -1.38 1.20 5.63 -2.79 -2.83 -.94 -1.18"),
    NGBOOST: _row("-2.43 -3.04 -.60 .49 5.34 -2.79 -2.81 -.91 -.20"),
    "best seen anywhere": _row("-2.27 -2.72 -.53 1.35 - -2.60 -2.49 -.89 -.16"),
}


@dataclass(frozen=True)
class UciSplit(Split):
    """A split, its number, and the step of its targets."""

    index: int = 0
    resolution: float = 0.0


def make_split(X, y, test, index, resolution):
    """Standardise by the training rows; constant columns become zero."""
    train = np.ones(len(y), dtype=bool)
    train[test] = False
    center, scale = X[train].mean(axis=0), X[train].std(axis=0)
    X = (X - center) / np.where(scale > 0, scale, 1.0)
    return UciSplit(X[train], y[train], X[test], y[test], np.ones(X.shape[1], dtype=int), index, resolution)


def folder():
    """Where the splits are.

    Raises
    ------
    SystemExit
        If the environment does not say so.
    """
    if "SKHYPER_DATA" not in os.environ:
        raise SystemExit("set SKHYPER_DATA to a folder with uci/NAME.npz: the splits are not on OpenML")
    return Path(os.environ["SKHYPER_DATA"]) / "uci"


def task(name):
    """function(index) -> UciSplit."""

    def split(index):
        with np.load(folder() / f"{name}.npz") as file:
            X, y, test = file["X"].astype(float), file["y"].astype(float), file["test_index"][index]
        return make_split(X, y, test, index, RESOLUTION[name])

    return split


def year_task(path):
    """The set of a million songs, from the text file as it is published or an npz with X and y."""

    def split(index):
        if str(path).endswith(".npz"):
            with np.load(path) as file:
                X, y = file["X"].astype(float), file["y"].astype(float)
        else:
            values = pd.read_csv(path, header=None).to_numpy(dtype=float)
            X, y = values[:, 1:], values[:, 0]
        return make_split(X, y, np.arange(YEAR_TRAIN, len(y)), index, RESOLUTION["year"])

    return split


def dropout_rows():
    """Converged dropout, split by split, in the columns of our rows; empty where the file is missing."""
    path = folder() / "converged_dropout.csv"
    if not path.exists():
        return pd.DataFrame(columns=["set", "split", "model", "score", "log_likelihood"])
    rows = pd.read_csv(path).rename(columns={"data": "set", "rmse": "score"})
    return rows.assign(model="dropout")
