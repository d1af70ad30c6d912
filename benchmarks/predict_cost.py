"""What a prediction costs: ``python -m benchmarks.predict_cost``.

`HypernetRegressor.predict` averages the networks of all draws. For 10,000 rows and 100 draws of one member the time
is held against 100 times `MLPRegressor.predict` of the same hidden layers (at most 1) and against the matrix products
that 100 networks cannot do without (at most 1.3): their weights are given, all draws are one product in the first
layer, and further layers are batched products. Both in processor time on one thread, the smallest of several
interleaved repeats, so that other programs on the machine have little to say. With noise in the last layer alone, the
default, hidden units are computed once and the mean needs the sum of the draws' last layers; standard deviations need
every draw's output. Noise is not on trial here, so that draws differ.

It also checks that predictions depend neither on the order of rows nor on which rows are predicted together.
"""

import argparse
import time
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

from benchmarks.report import bar, markdown
from benchmarks.runner import RESULTS
from skhyper import HypernetRegressor

N_ROWS, N_DRAWS = 10_000, 100
# Columns, hidden layers; layers with noise and activation of ours; MLPRegressor's is relu.
SIZES = ((8, (50,)), (20, (50, 50)))
KINDS = (("last", "silu"), ("all", "silu"), ("all", "relu"))
EXACT = 1e-12


def problem(p, n, seed=0):
    """Rows of a smooth function with noise."""
    rng = np.random.RandomState(seed)
    X = rng.standard_normal((n, p))
    return X, np.sin(X[:, 0]) + X[:, 1] * X[:, 2] + 0.3 * rng.standard_normal(n)


def products(x, widths, n_draws):
    """The matrix products of `n_draws` networks, as a function without arguments; blocks of rows fit the cache."""
    random = torch.Generator().manual_seed(0)
    first = torch.randn(x.shape[1], n_draws * widths[0], generator=random, dtype=x.dtype)
    others = [torch.randn(n_draws, a, b, generator=random, dtype=x.dtype) for a, b in pairwise(widths)]

    @torch.no_grad()
    def call():
        for block in x.split(max(16, 2**18 // (n_draws * max(widths)))):
            h = (block @ first).unflatten(1, (n_draws, -1)).transpose(0, 1)
            for w in others:
                h = h @ w

    return call


def fastest(calls, repeats):
    """The smallest processor time of each call; they take turns."""
    best = np.full(len(calls), np.inf)
    for _ in range(repeats):
        for i, call in enumerate(calls):
            start = time.process_time()
            call()
            best[i] = min(best[i], time.process_time() - start)
    return best


def costs(p, hidden, layers, activation, repeats, n_rows=N_ROWS, n_draws=N_DRAWS):
    """One row of the table."""
    X, y = problem(p, 500)
    rows, _ = problem(p, n_rows, seed=1)
    settings = {"n_estimators": 1, "n_samples": n_draws, "max_iter": 2, "random_state": 0, "noise_trial": 0.0}
    model = HypernetRegressor(hidden, activation=activation, noise_layers=layers, **settings).fit(X, y)
    mlp = MLPRegressor(hidden_layer_sizes=hidden, max_iter=300, random_state=0).fit(X, y)
    x = torch.from_numpy(rows)
    floor = products(x, [*hidden, model._model.network.n_outputs], n_draws)
    calls = [
        lambda: model.predict(rows),
        lambda: model.predict(rows, return_std=True),
        lambda: mlp.predict(rows),
        floor,
    ]
    ours, both, one, least = fastest(calls, repeats)
    return {
        "network": f"{p}-{'-'.join(map(str, hidden))} {activation}, noise in {layers}",
        "ours, s": ours,
        "with std, s": both,
        "MLPRegressor, s": one,
        "products, s": least,
        "/ (draws x MLPRegressor)": ours / (n_draws * one),
        "/ products": ours / least,
    }


def differences(n_rows=997):
    """The largest relative changes of a prediction with the order of rows and with the size of the batch."""
    X, y = problem(6, 300)
    model = HypernetRegressor(max_iter=5, random_state=0).fit(X, y)
    rows, _ = problem(6, n_rows, seed=1)
    known = np.stack(model.predict(rows, return_std=True), 1)
    order = np.random.RandomState(0).permutation(n_rows)
    shuffled = np.empty_like(known)
    shuffled[order] = np.stack(model.predict(rows[order], return_std=True), 1)
    rests = {"row order": shuffled}
    for size in (1, 7, 100):
        parts = [model.predict(rows[i : i + size], return_std=True) for i in range(0, n_rows, size)]
        rests[f"batches of {size}"] = np.concatenate([np.stack(part, 1) for part in parts])
    return pd.Series({name: np.abs(other / known - 1).max() for name, other in rests.items()})


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--repeats", type=int, default=7)
    arguments = cli.parse_args(argv)
    with threadpool_limits(1):
        torch.set_num_threads(1)
        table = pd.DataFrame([costs(*size, *kind, arguments.repeats) for kind in KINDS for size in SIZES])
        changes = differences()
    table.round(6).to_csv(RESULTS / "predict_cost.csv", index=False)
    bars = []
    for i, (layers, activation) in enumerate(KINDS):
        own = table.iloc[i * len(SIZES) : (i + 1) * len(SIZES)]
        kind = f"noise in {layers}, {activation}" + (", the default" if not i else "")
        limit = own["/ (draws x MLPRegressor)"].max(), own["/ products"].max()
        bars += [bar(f"{kind}: largest ratio to {N_DRAWS} x MLPRegressor.predict", limit[0], 1.0)]
        bars += [bar(f"{kind}: largest ratio to the matrix products", limit[1], 1.3)]
    text = [
        "# The cost of predictions",
        "",
        f"{N_DRAWS} draws of one member, {N_ROWS:,} rows, float64, one thread, processor time.",
        "",
        markdown(table.set_index("network")),
        "",
        *bars,
        "",
        "Largest relative change of means and standard deviations when the same rows are predicted otherwise:",
        "",
        markdown(changes.rename("change").rename_axis("how").to_frame(), 2),
        "",
        f"* largest: {changes.max():.2g} ({'holds' if changes.max() <= EXACT else 'FAILS'}: at most {EXACT:g})",
        "",
    ]
    (RESULTS / "predict_cost.md").write_text("\n".join(text))
    print("\n".join(text))


if __name__ == "__main__":
    main()
