"""Figure 2 of Sheikh et al. (2017): ``SKHYPER_DATA=FOLDER python -m benchmarks.weight_spread``.

At every epoch the standard deviation of each weight over 10 draws of the hypernetwork: its mean over the weights with
a band of three of its standard deviations over the weights, and the test RMSE; three sets, three repetitions each (a
split and a seed of its own). Two columns: the paper's settings (`from_paper`: one draw a row, squared error, which has
a point mass as its optimum), and the likelihood of 8 draws with noise in all layers, which has not.

The paper trains 2,000 epochs with minibatches of one row; `--batch 1 --epochs 2000` does that. The defaults here are
minibatches of 16 and fewer epochs. The question is whether the spread shrinks to a point, and differently by set.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from benchmarks.report import markdown
from benchmarks.runner import RESULTS, set_torch_threads
from benchmarks.uci_data import task
from skhyper import HypernetRegressor
from skhyper.estimators.hypernet_state import load_state

SETS = ("yacht", "boston", "concrete")
N_DRAWS = 10
# A spread below this share of the first epoch's counts as shrunk to a point.
POINT = 0.1


def estimators(batch, seed):
    """The two rows of the figure; both train at a constant rate, an epoch a call."""
    shared = {"random_state": seed, "batch_size": batch}
    many = {"noise_layers": "all", "n_train_samples": 8, "objective": 0.5}
    plain = {"n_estimators": 1, "prior_scale": 0.0, "learning_rate_init": 0.01}
    return {
        "from_paper": HypernetRegressor.from_paper(**shared),
        "multi-draw likelihood": HypernetRegressor(**many, **plain, **shared),
    }


def spread(model):
    """Mean and standard deviation over all weights of their standard deviations over draws, the same in every call."""
    state, network = load_state(model._state), model._model.network
    z = network.generator.sample(1, N_DRAWS, torch.Generator().manual_seed(0), state.flat)
    parts = model._model.layout.split(state.flat)
    draws = network.generator.draws(parts, z)
    pairs = [generator.weights(parts, name, draws) for name, _, generator in network.layers]
    deviations = torch.cat([part[0].std(0).flatten() for pair in pairs for part in pair])
    return float(deviations.mean()), float(deviations.std())


def trajectory(model, split, epochs):
    """A line for each epoch; few at the end, where little moves."""
    shown = set(np.unique(np.geomspace(1, epochs, 60).round().astype(int)))
    lines = []
    for epoch in range(1, epochs + 1):
        model.partial_fit(split.X_train, split.y_train)
        if epoch in shown:
            mean, deviation = spread(model)
            error = np.sqrt(np.mean((model.predict(split.X_test) - split.y_test) ** 2))
            lines.append({"epoch": epoch, "mean": mean, "deviation": deviation, "rmse": error})
    return pd.DataFrame(lines)


def run(arguments, path):
    """All trajectories; those in the CSV with the same number of epochs are kept."""
    rows = pd.read_csv(path) if path.exists() else pd.DataFrame()
    for repetition in range(arguments.repetitions):
        for name in SETS:
            split = task(name)(repetition)
            for method, model in estimators(arguments.batch, repetition).items():
                if len(rows) and not arguments.rerun:
                    key = (rows["set"] == name) & (rows["repetition"] == repetition) & (rows["method"] == method)
                    if (key & (rows["epochs"] == arguments.epochs) & (rows["batch"] == arguments.batch)).any():
                        continue
                start = time.perf_counter()
                lines = trajectory(model, split, arguments.epochs).assign(
                    set=name, repetition=repetition, method=method
                )
                lines = lines.assign(epochs=arguments.epochs, batch=arguments.batch)
                if len(rows):
                    same = (rows["set"] == name) & (rows["repetition"] == repetition) & (rows["method"] == method)
                    rows = rows[~same]
                rows = pd.concat([rows, lines], ignore_index=True)
                rows.to_csv(path, index=False, float_format="%.5g")
                first, last = lines["mean"].iloc[[0, -1]]
                seconds = time.perf_counter() - start
                print(f"{name:10s} {repetition} {method:24s} {first:.4f} -> {last:.4f}  {seconds:.0f} s", flush=True)
    return rows


def table(rows):
    """Spread at the start and the end, and the epoch at which half of the start is left, by set and method."""
    lines = []
    for (method, name), own in rows.groupby(["method", "set"], sort=False):
        runs = [run.sort_values("epoch") for _, run in own.groupby("repetition")]
        left = [run["mean"].iloc[-1] / run["mean"].iloc[0] for run in runs]
        half = [run.loc[run["mean"] < run["mean"].iloc[0] / 2, "epoch"].min() for run in runs]
        lines.append(
            {
                "method": method,
                "set": name,
                "first epoch": np.mean([run["mean"].iloc[0] for run in runs]),
                "last epoch": np.mean([run["mean"].iloc[-1] for run in runs]),
                "share left": np.mean(left),
                "half at epoch": "/".join("never" if np.isnan(h) else str(int(h)) for h in half),
                "test RMSE": np.mean([run["rmse"].iloc[-1] for run in runs]),
                "a point?": "yes" if max(left) < POINT else "no",
            }
        )
    return pd.DataFrame(lines).set_index("method")


def figure(rows, path):
    """Spread with its band (left axis) and test RMSE (right axis) against epochs."""
    from matplotlib.figure import Figure

    methods, names = list(dict.fromkeys(rows["method"])), [name for name in SETS if name in set(rows["set"])]
    canvas = Figure(figsize=(3.6 * len(names), 2.9 * len(methods)), layout="constrained")
    axes = canvas.subplots(len(methods), len(names), squeeze=False)
    for i, method in enumerate(methods):
        for j, name in enumerate(names):
            panel, own = axes[i, j], rows[(rows["method"] == method) & (rows["set"] == name)]
            right = panel.twinx()
            for k, (_, lines) in enumerate(own.groupby("repetition")):
                low, high = (np.maximum(lines["mean"] + c * lines["deviation"], 0) for c in (-3, 3))
                panel.fill_between(lines["epoch"], low, high, color="grey", alpha=0.12, linewidth=0)
                panel.plot(lines["epoch"], lines["mean"], color="C0", label=None if k else "spread, 3 sd over weights")
                right.plot(
                    lines["epoch"], lines["rmse"], color="C3", linewidth=0.9, alpha=0.8, label=None if k else "RMSE"
                )
            panel.set(xscale="log", title=f"{name}, {method}", xlabel="epoch" if i + 1 == len(methods) else "")
            panel.set_ylim(bottom=0)
            right.set_yscale("log")
            right.tick_params(axis="y", which="both", colors="C3", labelsize=7)
            panel.tick_params(axis="y", colors="C0", labelsize=7)
            if j == 0:
                panel.set_ylabel("sd of weights over draws", color="C0")
            if j + 1 == len(names):
                right.set_ylabel("test RMSE", color="C3")
    canvas.savefig(path, dpi=85)


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--epochs", type=int, default=100)
    cli.add_argument("--batch", type=int, default=16)
    cli.add_argument("--repetitions", type=int, default=3)
    cli.add_argument("--rerun", action="store_true")
    arguments = cli.parse_args(argv)
    with threadpool_limits(1):
        set_torch_threads(1)
        rows = run(arguments, RESULTS / "weight_spread.csv")
    text = [
        "# The spread of the weights over epochs",
        "",
        f"{rows['epochs'].max()} epochs, minibatches of {rows['batch'].max()} rows.",
        "",
        markdown(table(rows), 3),
        "",
    ]
    (RESULTS / "weight_spread.md").write_text("\n".join(text))
    figure(rows, RESULTS / "weight_spread.png")
    print("\n".join(text))


if __name__ == "__main__":
    main()
