"""Development tasks: what defaults of the linear models are chosen on.

None of `TASKS` is a set of the linear benchmark, none of `LOGISTIC_TASKS` one of the logistic benchmark. A task is a
function of a seed that returns a `Split` of at most 500 training rows, standardised and clipped by its training part.
Three kinds:

* functions and linear models with a known truth: sparse, power-law, dense and grouped coefficients under
  independent, autoregressive and low-rank designs, at several noise levels and ratios n / p;
* one column of a real table predicted from its other columns (degree 1 or 2);
* 0/1 targets of real classification sets.

The logistic tasks are labels drawn from linear truths like these, images of MNIST shrunk to 7 x 7, and two small
tables.
"""

from functools import partial

import numpy as np
from sklearn.datasets import load_iris, make_friedman1, make_friedman2, make_friedman3, make_regression

from benchmarks.data import load, load_mnist, scale, split

N_TEST = 2000


def friedman(seed, *, which, n, n_noise, noise):
    """Friedman's functions with further columns that carry nothing, all expanded to degree 2."""
    rng = np.random.RandomState(seed)
    make = {1: make_friedman1, 2: make_friedman2, 3: make_friedman3}[which]
    X, y = make(n + N_TEST, noise=noise, random_state=rng)
    X = np.hstack([X, rng.uniform(size=(len(X), n_noise))])
    return scale(X[:n], y[:n], X[n:], y[n:], degree=2)


def _design(rng, rows, p, rho):
    """Normal columns with correlation rho^|i-j|."""
    X = rng.standard_normal((rows, p))
    for j in range(1, p):
        X[:, j] = rho * X[:, j - 1] + np.sqrt(1 - rho**2) * X[:, j]
    return X


def _truth(rng, p, kind, size):
    """Coefficients: `size` is the number of non-zeros, the power, or the number of active groups of ten."""
    signs = rng.choice([-1.0, 1.0], p)
    if kind == "sparse":
        return np.where(rng.permutation(p) < size, signs * rng.uniform(0.5, 1.5, p), 0.0)
    if kind == "power":
        return signs * (1.0 + rng.permutation(p)) ** -size
    if kind == "dense":
        return rng.standard_normal(p)
    active = rng.permutation(p // 10)[:size]
    return np.where(np.isin(np.arange(p) // 10, active), rng.standard_normal(p), 0.0)


def linear(seed, *, n, p, kind, size=0, rho=0.0, noise=0.1, tails=np.inf):
    """A linear truth; `noise` is the noise's share of the variance of y, `tails` its degrees of freedom."""
    rng = np.random.RandomState(seed)
    X = _design(rng, n + N_TEST, p, rho)
    signal = X @ _truth(rng, p, kind, size)
    error = rng.standard_normal(len(X)) if np.isinf(tails) else rng.standard_t(tails, len(X)) * np.sqrt(1 - 2 / tails)
    y = signal + error * signal.std() * np.sqrt(noise / (1 - noise))
    return scale(X[:n], y[:n], X[n:], y[n:])


def low_rank(seed, *, n, p, rank, n_true, noise):
    """scikit-learn's design of a given effective rank."""
    rng = np.random.RandomState(seed)
    X, y = make_regression(n + N_TEST, p, n_informative=n_true, effective_rank=rank, random_state=rng)
    y = y / y.std() + rng.standard_normal(len(y)) * np.sqrt(noise / (1 - noise))
    return scale(X[:n], y[:n], X[n:], y[n:])


def column(seed, *, name, target, degree=1, n_train=None, columns=None, exclusive=False):
    """Column `target` of a table from its others; `exclusive` drops those that are never non-zero together with it."""
    X, _ = load(name)
    X = X if columns is None else X[:, :columns]
    y, others = X[:, target], np.delete(X, target, axis=1)
    if exclusive:
        others = others[:, (others * y[:, None]).any(axis=0)]
    return split(others, y, seed, degree=degree, n_train=n_train)


def label(seed, *, name, positive, degree=1, n_train=None):
    """1 for one class and 0 for the rest, as a regression target."""
    X, y = load(name)
    return split(X, (y == positive).astype(float), seed, degree=degree, n_train=n_train)


TASKS = {
    "friedman1": partial(friedman, which=1, n=300, n_noise=0, noise=1.0),
    "friedman1_wide": partial(friedman, which=1, n=150, n_noise=8, noise=2.0),
    "friedman2": partial(friedman, which=2, n=200, n_noise=6, noise=125.0),
    "friedman3": partial(friedman, which=3, n=300, n_noise=4, noise=0.1),
    "sparse_noisy": partial(linear, n=150, p=100, kind="sparse", size=5, noise=0.5),
    "sparse_ar": partial(linear, n=200, p=100, kind="sparse", size=10, rho=0.7, noise=0.05),
    "sparse_ar_wide": partial(linear, n=100, p=200, kind="sparse", size=10, rho=0.9, noise=0.3),
    "sparse_tall": partial(linear, n=500, p=30, kind="sparse", size=3, rho=0.5, noise=0.3),
    "sparse_tails": partial(linear, n=300, p=100, kind="sparse", size=15, rho=0.5, noise=0.3, tails=3),
    "half_sparse": partial(linear, n=200, p=60, kind="sparse", size=30, noise=0.1),
    "power_1": partial(linear, n=200, p=150, kind="power", size=1.0, rho=0.5, noise=0.1),
    "power_half": partial(linear, n=300, p=100, kind="power", size=0.5, rho=0.3, noise=0.3),
    "power_2": partial(linear, n=100, p=60, kind="power", size=2.0, noise=0.5),
    "dense_ar": partial(linear, n=200, p=100, kind="dense", rho=0.5, noise=0.3),
    "dense_ar_wide": partial(linear, n=150, p=250, kind="dense", rho=0.8, noise=0.1),
    "dense_noisy": partial(linear, n=250, p=50, kind="dense", noise=0.7),
    "dense_tall": partial(linear, n=500, p=30, kind="dense", rho=0.7, noise=0.1),
    "grouped_ar": partial(linear, n=250, p=200, kind="grouped", size=4, rho=0.6, noise=0.2),
    "grouped": partial(linear, n=200, p=100, kind="grouped", size=3, noise=0.05),
    "nearly_noise": partial(linear, n=200, p=60, kind="sparse", size=10, rho=0.3, noise=0.95),
    "low_rank_dense": partial(low_rank, n=200, p=100, rank=15, n_true=100, noise=0.2),
    "low_rank_sparse": partial(low_rank, n=150, p=120, rank=30, n_true=8, noise=0.1),
    "wine_alcohol": partial(column, name="wine_classes", target=0, degree=2),
    "wine_proline": partial(column, name="wine_classes", target=12, degree=2),
    "cancer_smoothness": partial(column, name="breast_cancer", target=4),
    "cancer_symmetry": partial(column, name="breast_cancer", target=8, degree=2, columns=10, n_train=250),
    "digits_28": partial(column, name="digits", target=28),
    "digits_43": partial(column, name="digits", target=43, n_train=200),
    "vehicle_4": partial(column, name="vehicle", target=4, degree=2),
    "segment_hue": partial(column, name="segment", target=-1, degree=2, n_train=300),
    "ionosphere_10": partial(column, name="ionosphere", target=10),
    "ionosphere_20": partial(column, name="ionosphere", target=20, n_train=120),
    "splice_150": partial(column, name="splice", target=150, exclusive=True),
    "label_ionosphere": partial(label, name="ionosphere", positive=1),
    "label_vehicle": partial(label, name="vehicle", positive=3, degree=2),
    "label_cancer": partial(label, name="breast_cancer", positive=1),
}


def drawn_labels(seed, *, n, p, kind, size=0, rho=0.0, strength=2.0, n_classes=2):
    """Labels drawn with the softmax of linear functions whose standard deviation is `strength`."""
    rng = np.random.RandomState(seed)
    X = _design(rng, n + N_TEST, p, rho)
    scores = X @ np.stack([_truth(rng, p, kind, size) for _ in range(n_classes)], axis=1)
    if n_classes == 2:
        scores[:, 0] = 0.0
    scores *= strength / scores[:, -1].std()
    y = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    return scale(X[:n], y[:n], X[n:], y[n:])


def small_mnist(seed, *, digits=tuple(range(10)), n_train=400):
    """Some of MNIST's digits, pixels averaged over 4 x 4."""
    X, y, _, _ = load_mnist()
    rows = np.random.RandomState(seed).permutation(len(y))[:15000]
    rows = rows[np.isin(y[rows], digits)]
    X = X[rows].reshape(-1, 7, 4, 7, 4).mean(axis=(2, 4)).reshape(-1, 49)
    return split(X, np.searchsorted(digits, y[rows]), seed, n_train=n_train, stratify=True)


def small_table(seed, *, name, degree=1):
    X, y = load(name) if name != "iris" else load_iris(return_X_y=True)
    return split(X, y, seed, degree=degree, stratify=True)


LOGISTIC_TASKS = {
    "drawn_sparse": partial(drawn_labels, n=200, p=60, kind="sparse", size=5),
    "drawn_sparse_ar": partial(drawn_labels, n=300, p=100, kind="sparse", size=8, rho=0.7, strength=4.0),
    "drawn_sparse_wide": partial(drawn_labels, n=150, p=200, kind="sparse", size=5, strength=3.0),
    "drawn_dense": partial(drawn_labels, n=300, p=40, kind="dense"),
    "drawn_dense_ar": partial(drawn_labels, n=200, p=100, kind="dense", rho=0.7, strength=3.0),
    "drawn_power": partial(drawn_labels, n=300, p=80, kind="power", size=1.0, rho=0.3),
    "drawn_grouped": partial(drawn_labels, n=300, p=100, kind="grouped", size=2, rho=0.5, strength=3.0),
    "drawn_weak": partial(drawn_labels, n=200, p=40, kind="power", size=0.5, strength=0.3),
    "drawn_3_sparse": partial(drawn_labels, n=300, p=50, kind="sparse", size=5, strength=3.0, n_classes=3),
    "drawn_4_dense": partial(drawn_labels, n=400, p=30, kind="dense", rho=0.5, strength=3.0, n_classes=4),
    "mnist_3_5": partial(small_mnist, digits=(3, 5)),
    "mnist_4_9": partial(small_mnist, digits=(4, 9), n_train=150),
    "mnist_1_7": partial(small_mnist, digits=(1, 7), n_train=100),
    "mnist_even": partial(small_mnist, digits=(0, 2, 4, 6, 8)),
    "mnist_10": small_mnist,
    "wine": partial(small_table, name="wine_classes"),
    "iris_degree_2": partial(small_table, name="iris", degree=2),
}
