"""The data sets of the benchmarks, and how they become train / test splits.

With the environment variable ``SKHYPER_DATA`` set, sets are read from that folder (``uci/NAME.npz``,
``classification/NAME.npz``, ``mnist.npz``); without it the same sets come from OpenML. Sets that scikit-learn ships
are always taken from there.

Conventions: ``X`` is (n_rows, n_features) float64, ``y`` is (n_rows,): float64 in regression, integers 0, 1, ... in
classification. Whatever is learnt from data here (means, scales, which columns are constant) is learnt from training
rows.
"""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pandas import get_dummies, to_numeric
from sklearn.datasets import fetch_openml, load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.feature_selection import VarianceThreshold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, LabelEncoder, PolynomialFeatures, StandardScaler

MAX_TRAIN = 500
MAX_TEST = 5000
TRAIN_FRACTION = 0.7
CLIP = 4.0


@dataclass(frozen=True)
class Split:
    """One random split, features standardised by its training part.

    `terms` says for each column what it is: 1 a linear term, 2 a square, 3 a product of two. Iterating gives the four
    arrays: ``X_train, y_train, X_test, y_test = split``.
    """

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    terms: np.ndarray

    def __iter__(self):
        return iter((self.X_train, self.y_train, self.X_test, self.y_test))


class OpenML(NamedTuple):
    """Where OpenML keeps a set; `shape` is checked, so that a changed set is noticed."""

    name: str
    version: int
    shape: tuple[int, int]  # rows, columns that are not constant
    target: str | None = None  # None: the set's own default target
    drop: tuple[str, ...] = ()


OPENML = {
    "boston": OpenML("boston", 1, (506, 13)),
    "concrete": OpenML("concrete_compressive_strength", 1, (1030, 8), "strength"),
    "energy": OpenML("energy_efficiency", 1, (768, 8), "heating_load", ("cooling_load",)),
    "kin8nm": OpenML("kin8nm", 1, (8192, 8)),
    "naval": OpenML(
        "naval_propulsion_plant",
        1,
        (11934, 14),
        "gt_compressor_decay_state_coefficient",
        ("gt_turbine_decay_state_coefficient",),
    ),
    "power": OpenML("combined_cycle_power_plant", 1, (9568, 4)),
    "protein": OpenML("physiochemical_protein", 1, (45730, 9), "RMSD"),
    "wine": OpenML("red_wine", 1, (1599, 11), "quality"),
    "yacht": OpenML("yacht_hydrodynamics", 1, (308, 6)),
    "ionosphere": OpenML("ionosphere", 1, (351, 33)),
    "segment": OpenML("segment", 1, (2310, 18)),
    "sonar": OpenML("sonar", 1, (208, 60)),
    "spambase": OpenML("spambase", 1, (4601, 57)),
    "splice": OpenML("splice", 1, (3190, 287), drop=("Instance_name",)),
    "vehicle": OpenML("vehicle", 1, (846, 18)),
}
UCI = ("boston", "concrete", "energy", "kin8nm", "naval", "power", "protein", "wine", "yacht")
CLASSIFICATION = ("ionosphere", "segment", "sonar", "spambase", "splice", "vehicle")
SHIPPED = {
    "diabetes": load_diabetes,
    "digits": load_digits,
    "breast_cancer": load_breast_cancer,
    "wine_classes": load_wine,
}


def _folder():
    path = os.environ.get("SKHYPER_DATA")
    return Path(path) if path else None


def _from_openml(name):
    source = OPENML[name]
    target = source.target or "default-target"
    bunch = fetch_openml(source.name, version=source.version, target_column=target, as_frame=True, parser="auto")
    frame = bunch.data.drop(columns=list(source.drop), errors="ignore")
    y = bunch.target
    if name in CLASSIFICATION:
        frame = _one_hot(frame)
        y = LabelEncoder().fit_transform(y.astype(str))
    frame = frame.loc[:, frame.nunique() > 1]
    X = frame.astype(float).to_numpy()
    y = np.asarray(y, dtype=np.intp if name in CLASSIFICATION else float)
    if X.shape != source.shape:
        raise ValueError(f"OpenML's {source.name!r} has shape {X.shape} where {source.shape} was expected")
    return X, y


def _one_hot(frame):
    """Nominal columns as indicators, one for each value; numeric ones as they are."""
    nominal = []
    for column in frame:
        try:
            frame[column] = to_numeric(frame[column])
        except (ValueError, TypeError):
            nominal.append(column)
    return get_dummies(frame, columns=nominal, dtype=float)


@lru_cache(maxsize=32)
def load(name):
    """X, y of a set by name; the arrays are shared between calls, so do not write into them."""
    if name in SHIPPED:
        X, y = SHIPPED[name](return_X_y=True)
        return X.astype(float), (y.astype(float) if name == "diabetes" else y.astype(np.intp))
    if name not in OPENML:
        raise ValueError(f"unknown data set {name!r}; known are {sorted([*OPENML, *SHIPPED])}")
    folder = _folder()
    if folder is None:
        return _from_openml(name)
    with np.load(folder / ("uci" if name in UCI else "classification") / f"{name}.npz") as file:
        return file["X"].astype(float), file["y"].astype(float if name in UCI else np.intp)


@lru_cache(maxsize=1)
def load_mnist():
    """Pixels in [0, 1]: X_train (60000, 784), y_train, X_test (10000, 784), y_test."""
    folder = _folder()
    if folder is None:
        X, y = fetch_openml("mnist_784", version=1, return_X_y=True, as_frame=False, parser="auto")
        X, y = X / 255.0, y.astype(np.intp)
        return X[:60000], y[:60000], X[60000:], y[60000:]
    with np.load(folder / "mnist.npz") as file:
        return (
            file["X_train"].reshape(-1, 784) / 255.0,
            file["y_train"].astype(np.intp),
            file["X_test"].reshape(-1, 784) / 255.0,
            file["y_test"].astype(np.intp),
        )


def make_features(degree):
    """Standardise; add squares and interactions; drop constant columns; standardise again and clip."""
    steps = [VarianceThreshold(1e-12), StandardScaler()]
    if degree > 1:
        steps += [PolynomialFeatures(degree, include_bias=False), VarianceThreshold(1e-8), StandardScaler()]
    return make_pipeline(*steps, FunctionTransformer(np.clip, kw_args={"a_min": -CLIP, "a_max": CLIP}))


def scale(X_train, y_train, X_test, y_test, degree=1):
    """The `Split` of given training and test rows."""
    features = make_features(degree)
    X_train = features.fit_transform(X_train)
    names = features[:-1].get_feature_names_out()
    terms = np.array([2 if "^" in name else 3 if " " in name else 1 for name in names])
    return Split(X_train, y_train, features.transform(X_test), y_test, terms)


def split(X, y, seed, *, degree=1, n_train=None, max_train=MAX_TRAIN, stratify=False):
    """A random split: at most `max_train` rows (and at most 70 %) for training, at most 5,000 of the rest for test.

    With `stratify` every class is drawn in proportion to its size.
    """
    rng = np.random.RandomState(seed)
    n_train = n_train or min(max_train, int(TRAIN_FRACTION * len(y)))
    order = rng.permutation(len(y))
    if stratify:
        rank = np.empty(len(y))
        for label in np.unique(y):
            rows = order[y[order] == label]
            rank[rows] = (np.arange(len(rows)) + rng.uniform()) / len(rows)
        order = order[np.argsort(rank[order], kind="stable")]
    train, test = order[:n_train], order[n_train:]
    test = rng.permutation(test)[:MAX_TEST]
    return scale(X[train], y[train], X[test], y[test], degree)


def synthetic(seed, *, n, p, n_true, noise, n_test=2000):
    """Independent normal columns and coefficients; `noise` is the noise's share of the variance of y."""
    rng = np.random.RandomState(seed)
    coef = np.zeros(p)
    coef[rng.permutation(p)[:n_true]] = rng.standard_normal(n_true)
    X = rng.standard_normal((n + n_test, p))
    signal = X @ coef
    y = signal + rng.standard_normal(len(X)) * np.sqrt(noise / (1 - noise)) * np.linalg.norm(coef)
    return scale(X[:n], y[:n], X[n:], y[n:])


def _real(name, degree):
    def task(seed):
        X, y = load(name)
        return split(X, y.astype(float), seed, degree=degree)

    return task


def _synthetic(**settings):
    return lambda seed: synthetic(seed, **settings)


# The sets of the linear benchmark: name -> function(seed) -> Split.
LINEAR_TASKS = {
    **{name: _real(name, 2) for name in (*UCI, "diabetes")},
    "sonar": _real("sonar", 1),
    "spambase": _real("spambase", 1),
    "sparse_80": _synthetic(n=200, p=80, n_true=10, noise=0.04),
    "dense_80": _synthetic(n=200, p=80, n_true=80, noise=0.0083),
    "sparse_200": _synthetic(n=300, p=200, n_true=20, noise=0.04),
    "dense_200": _synthetic(n=300, p=200, n_true=200, noise=0.0042),
}

LOGISTIC_SETS = ("sonar", "ionosphere", "spambase", "vehicle", "segment", "splice", "digits", "breast_cancer")


def logistic_task(name):
    """function(seed) -> Split of a classification set, at most 400 training rows."""
    return lambda seed: split(*load(name), seed, max_train=400, stratify=True)
