"""The models of the uci benchmark, and what is measured about each.

A fitted model gives `predict`, `log_prob`, `cdf`, `predict_interval` and `crps`; peers with one Gaussian a row are
wrapped in `Normal`. Standard deviations are floored at half the step of the target.
"""

from functools import partial

import numpy as np
from scipy.stats import norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPRegressor

from benchmarks.runner import KEY, Fitted, Model
from skhyper import HypernetRegressor
from skhyper.estimators.hypernet_options import resolve_settings

# Above this number of rows the paper's minibatches have 512.
PAPER_MANY, PAPER_BATCH = 5000, 512
COVERAGE = 0.9


class Normal:
    """A Gaussian for each row: `both(X)` gives mean and standard deviation; nan: there is only a mean."""

    def __init__(self, both, floor):
        self.both, self.floor = both, floor

    def _distribution(self, X):
        mean, std = self.both(X)
        return norm(np.ravel(mean), np.maximum(np.broadcast_to(std, np.shape(np.ravel(mean))), self.floor))

    def predict(self, X):
        return np.ravel(self.both(X)[0])

    def log_prob(self, X, y):
        return self._distribution(X).logpdf(y)

    def cdf(self, X, y):
        return self._distribution(X).cdf(y)

    def predict_interval(self, X, coverage):
        return np.stack(self._distribution(X).interval(coverage), axis=1)

    def crps(self, X, y):
        mean, std = self._distribution(X).args
        t = (y - mean) / std
        return std * (t * (2 * norm.cdf(t) - 1) + 2 * norm.pdf(t) - 1 / np.sqrt(np.pi))


def metric(model, split):
    """RMSE and what the density is worth, on the test rows."""
    X, y, step = split.X_test, split.y_test, split.resolution
    low, high = model.predict_interval(X, COVERAGE).T
    bins = np.nan
    if step:
        inside = model.cdf(X, y + step / 2) - model.cdf(X, y - step / 2)
        bins = float(np.mean(np.log(np.maximum(inside, 1e-300))))
    return {
        "score": float(np.sqrt(np.mean((model.predict(X) - y) ** 2))),
        "log_likelihood": float(np.mean(model.log_prob(X, y))),
        "log_bin": bins,
        "coverage": float(np.mean((low <= y) & (y <= high))) if np.isfinite(low).all() else np.nan,
        "width": float(np.mean(high - low)),
        "crps": float(np.mean(model.crps(X, y))),
        "passes": getattr(model, "n_iter_", np.nan),
    }


def hidden_of(split):
    """One layer of 50; of 100 for protein and year, as in the literature."""
    return (100,) if len(split.y_train) > 20_000 else (50,)


def ours(split, seed=0, plain=False, passes=None, **settings):
    """HypernetRegressor; `plain` takes its own hidden layers, else those of the literature."""
    network = {} if plain else {"hidden_layer_sizes": hidden_of(split)}
    if passes is not None:
        settings["max_iter"] = max(1, round(passes))
    random = {"random_state": split.index + 1000 * seed, "min_std": split.resolution / 2}
    return Fitted(HypernetRegressor(**network, **random, **settings).fit(split.X_train, split.y_train))


def from_paper(split, batch_size=1, **settings):
    """The paper's settings; minibatches of one row up to 5,000 rows."""
    n = len(split.y_train)
    settings["batch_size"] = min(n, PAPER_BATCH if n > PAPER_MANY else batch_size)
    model = HypernetRegressor.from_paper(
        hidden_layer_sizes=hidden_of(split), random_state=split.index, min_std=split.resolution / 2, **settings
    )
    return Fitted(model.fit(split.X_train, split.y_train))


def _scaled(split):
    mean, std = split.y_train.mean(), split.y_train.std()
    return (split.y_train - mean) / std, mean, std


def _from_residuals(split, fit):
    """`fit(X, y)` on all rows for the mean; the standard deviation is that of a tenth held out from another fit."""
    y, mean, std = _scaled(split)
    X_fit, X_held, y_fit, y_held = train_test_split(split.X_train, y, test_size=0.1, random_state=split.index)
    sigma = np.sqrt(np.mean((np.ravel(fit(X_fit, y_fit).predict(X_held)) - y_held) ** 2))
    model = fit(split.X_train, y)

    def both(X):
        return mean + std * np.ravel(model.predict(X)), std * sigma

    return Fitted(Normal(both, split.resolution / 2))


def mlp(split):
    """scikit-learn's network as it comes, with one layer as ours and enough iterations."""

    def fit(X, y):
        model = MLPRegressor(hidden_layer_sizes=hidden_of(split), max_iter=2000, random_state=split.index)
        return model.fit(X, y)

    return _from_residuals(split, fit)


def gaussian_process(split):
    """Constant * anisotropic RBF + white noise."""
    kernel = ConstantKernel(1.0, (1e-3, 1e4)) * RBF(np.ones(split.X_train.shape[1]), (1e-2, 1e4))
    model = GaussianProcessRegressor(kernel + WhiteKernel(0.1, (1e-8, 1e2)), normalize_y=True)
    model.fit(split.X_train, split.y_train)
    return Fitted(Normal(lambda X: model.predict(X, return_std=True), split.resolution / 2))


def ngboost(split):
    """Its paper's protocol: the number of stages by a fifth held out, then fitted to all rows."""
    from ngboost import NGBRegressor

    y, mean, std = _scaled(split)
    X_fit, X_held, y_fit, y_held = train_test_split(split.X_train, y, test_size=0.2, random_state=split.index)
    many = len(y) > 9000
    settings = {"learning_rate": 0.01, "verbose": False, "minibatch_frac": 0.1 if many else 1.0}
    first = NGBRegressor(n_estimators=2000, random_state=split.index, **settings)
    first.fit(X_fit, y_fit, X_val=X_held, Y_val=y_held, early_stopping_rounds=50)
    n = int(getattr(first, "best_val_loss_itr", None) or 1999) + 1
    model = NGBRegressor(n_estimators=n, random_state=split.index, **settings).fit(split.X_train, y)

    def both(X):
        distribution = model.pred_dist(X)
        return mean + std * distribution.loc, std * distribution.scale

    return Fitted(Normal(both, split.resolution / 2))


def real_mlp(split):
    """RealMLP with its tuned defaults; it has no density."""
    from pytabkit import RealMLP_TD_Regressor

    model = RealMLP_TD_Regressor(device="cpu", random_state=split.index, n_threads=1)
    model.fit(split.X_train, split.y_train)
    return Fitted(Normal(lambda X: (model.predict(X), np.nan), 0.0))


def equal_time(name, twin):
    """How many times the twin's processor time the other took, and no less than once."""

    def ratio(rows, data, seed):
        rows = rows.set_index(KEY)
        both = [(data, seed, name), (data, seed, twin)]
        if not all(key in rows.index for key in both):
            return None
        return float(max(1.0, rows.loc[both[0], "cpu_seconds"] / rows.loc[both[1], "cpu_seconds"]))

    return ratio


def _equal(split, ratio, **settings):
    """As many times the passes that "auto" may take; patience may end them earlier, as it may for all."""
    n = len(split.y_train)
    auto = resolve_settings(HypernetRegressor(), False, n)
    return ours(split, passes=ratio * auto.n_steps / max(1, n // auto.batch_size), **settings)


def repeated(name, seed):
    """The name of a model that starts from another seed."""
    return name if not seed else f"{name}@{seed}"


def _ours(seeds):
    models = {}
    for seed in range(seeds):
        for members in (1, 4):
            own, twin = repeated(f"1x50, {members}", seed), repeated(f"twin, {members}", seed)
            settings = {"seed": seed, "n_estimators": members}
            models[own] = Model(partial(ours, **settings))
            models[twin] = Model(partial(ours, generator="none", **settings))
            models[repeated(f"twin, {members}, equal time", seed)] = Model(
                partial(_equal, generator="none", **settings), budget=equal_time(own, twin), warm_up=False
            )
        models[repeated("default", seed)] = Model(partial(ours, plain=True, seed=seed))
    return models


PEERS = {
    "MLPRegressor": Model(mlp),
    "Gaussian process": Model(gaussian_process),
    "NGBoost": Model(ngboost),
    "RealMLP": Model(real_mlp),
}
PRESETS = {
    "from_paper, batch 32": Model(partial(from_paper, batch_size=32), warm_up=False),
    "SGD, batch 32": Model(partial(from_paper, batch_size=32, generator="none"), warm_up=False),
    "from_paper": Model(from_paper, warm_up=False),
    "SGD": Model(partial(from_paper, generator="none"), warm_up=False),
}
# Minibatches of one row: an hour and more for each split.
DEAR = ("from_paper", "SGD")


def models(seeds=1):
    """Name -> Model; further seeds of ours and of the twins have names of their own."""
    return {**_ours(seeds), **PEERS, **PRESETS}


def alike(name, set_name):
    """The model whose fit this one's equals on this set, or None: then it is not run."""
    base, _, seed = name.partition("@")
    wide = set_name in ("protein", "year")
    defaults = HypernetRegressor().get_params()
    if base == "default" and defaults["hidden_layer_sizes"] == ((100,) if wide else (50,)):
        members = defaults["n_estimators"]
        return repeated(f"1x50, {members}", int(seed or 0)) if members in (1, 4) else None
    return None
