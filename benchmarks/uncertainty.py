"""The parts of uncertainty where the truth is known: ``python -m benchmarks.uncertainty``.

`HypernetRegressor().predict_uncertainty` on synthetic data with n = 100 ... 10,000 rows. Two truths: a curve in one
dimension with noise of standard deviation .3, and Friedman's first function (5 columns that matter, 2 that do not)
with noise of 1. X is uniform; "inside" is fresh rows from the same distribution, "outside" rows whose distance from
the centre is three times the data's range: |x| = 3 on the curve where the data fill [-1, 1].

Bars: the epistemic variance inside falls at least threefold from the smallest n to the largest; the aleatoric one ends
within 10 % of the truth; the epistemic standard deviation at three times the range is at least twice that inside.
n = 100 is trained as small data are, n = 120 with held-out rows as more are; the bars are from the former.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.datasets import make_friedman1
from threadpoolctl import threadpool_limits

from benchmarks.report import bar, markdown
from benchmarks.runner import RESULTS, has, read, replaced, set_torch_threads, write
from skhyper import HypernetRegressor

SIZES = (100, 120, 400, 1000, 3000, 10_000)
N_TEST = 500
GRID = np.linspace(-3, 3, 241)


@dataclass(frozen=True)
class Truth:
    """Data that are drawn: `draw(n, rng)` gives X in [-1, 1] and y, `noise` is the noise's standard deviation."""

    draw: Callable
    noise: float
    p: int


def curve(x):
    """The curve."""
    return np.sin(4 * x) + 0.5 * x


def draw_curve(n, rng):
    X = rng.uniform(-1, 1, (n, 1))
    return X, curve(X[:, 0]) + 0.3 * rng.standard_normal(n)


def draw_friedman(n, rng):
    X, y = make_friedman1(n, n_features=7, noise=1.0, random_state=rng)
    return 2 * X - 1, y


TRUTHS = {"curve": Truth(draw_curve, 0.3, 1), "friedman1": Truth(draw_friedman, 1.0, 7)}


def outside(truth, n, rng):
    """Rows in random directions at three times the range: the largest coordinate is 3."""
    X = rng.uniform(-1, 1, (n, truth.p))
    return 3 * X / np.abs(X).max(axis=1, keepdims=True)


def one(name, n, seed, **settings):
    """Fit n rows; root mean variances inside and outside. The curve's profile comes with it."""
    truth, rng = TRUTHS[name], np.random.RandomState(seed)
    X, y = truth.draw(n, rng)
    inside = truth.draw(N_TEST, rng)[0]
    model = HypernetRegressor(random_state=seed, **settings).fit(X, y)
    near, far = model.predict_uncertainty(inside), model.predict_uncertainty(outside(truth, N_TEST, rng))
    row = {
        "score": np.sqrt(near.epistemic.mean()),
        "aleatoric": np.sqrt(near.aleatoric.mean()),
        "outside": np.sqrt(far.epistemic.mean()),
        "error": rms_error(model, truth, name, rng),
        "truth": truth.noise,
    }
    return row, profile(model, n, seed) if name == "curve" else None


def rms_error(model, truth, name, rng):
    """Root mean square error against the noise-free function: what the epistemic part should be about."""
    state = rng.randint(2**31 - 1)
    if name == "curve":
        X = truth.draw(N_TEST, rng)[0]
        return np.sqrt(np.mean((model.predict(X) - curve(X[:, 0])) ** 2))
    X, y = make_friedman1(N_TEST, n_features=7, noise=0.0, random_state=state)
    return np.sqrt(np.mean((model.predict(2 * X - 1) - y) ** 2))


def profile(model, n, seed):
    """The curve's prediction along the grid."""
    parts = model.predict_uncertainty(GRID[:, None])
    mean = model.predict(GRID[:, None])
    columns = {"x": GRID, "mean": mean, "aleatoric": np.sqrt(parts.aleatoric), "epistemic": np.sqrt(parts.epistemic)}
    return pd.DataFrame(columns).assign(n=n, seed=seed)


def run(arguments, path, profiles):
    """Fit what is missing; the seeds are the outer loop."""
    rows = read(path).astype({"model": str})  # numbers of rows, which a CSV gives back as integers
    if arguments.report:
        return rows
    for seed in range(arguments.seeds):
        for n in arguments.sizes:
            for name in TRUTHS:
                if has(rows, name, seed, str(n)) and not arguments.rerun:
                    continue
                row, lines = one(name, n, seed)
                rows = replaced(rows, {"set": name, "split": seed, "model": str(n), **row})
                write(rows, path)
                if lines is not None and seed == 0:
                    old = pd.read_csv(profiles) if profiles.exists() else lines[:0]
                    pd.concat([old[old["n"] != n], lines]).round(5).to_csv(profiles, index=False)
                print(
                    f"{name:10s} n {n:6d} seed {seed}: { ({k: round(float(v), 4) for k, v in row.items()}) }",
                    flush=True,
                )
    return rows


def tables(rows):
    """Means over seeds by set and n, and the bars."""
    rows = rows.assign(n=rows["model"].astype(int)).rename(columns={"score": "epistemic"})
    columns = ["epistemic", "error", "aleatoric", "truth", "outside"]
    table = np.sqrt(rows.assign(**rows[columns] ** 2).groupby(["set", "n"])[columns].mean())
    table["outside / inside"] = table["outside"] / table["epistemic"]
    text = []
    for name in rows["set"].unique():
        own = table.loc[name]
        first, last = own.loc[own.index[0]], own.loc[own.index[-1]]
        fall = (last["epistemic"] / first["epistemic"]) ** 2
        noise = (last["aleatoric"] / last["truth"]) ** 2
        text += [
            f"## {name}",
            "",
            markdown(own),
            "",
            bar(f"epistemic variance at n = {own.index[-1]:,} over that at {own.index[0]}", fall, 0.3333),
            f"  (standard deviations: 1 / {1 / np.sqrt(fall):.2f})",
            bar(f"aleatoric variance at n = {own.index[-1]:,} over the truth, distance from 1", abs(noise - 1), 0.1),
            bar(
                "inside / outside epistemic standard deviation, largest over n", 1 / own["outside / inside"].min(), 0.5
            ),
            "",
        ]
    return text


def figure(rows, profiles, path):
    """Left: the parts against n. Right: the curve's epistemic standard deviation along x."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(11, 3.9), layout="constrained")
    axes = canvas.subplots(1, 3)
    rows = rows.assign(n=rows["model"].astype(int))
    for panel, name in zip(axes[:2], TRUTHS, strict=True):
        own = rows[rows["set"] == name]
        for column, label, color in (("aleatoric", "aleatoric", "C0"), ("score", "epistemic, inside", "C1")):
            panel.plot(own["n"], own[column], "o", color=color, markersize=3, alpha=0.5)
            panel.plot(np.sqrt((own[column] ** 2).groupby(own["n"]).mean()), color=color, label=label)
        panel.plot(np.sqrt((own["outside"] ** 2).groupby(own["n"]).mean()), color="C3", label="epistemic, outside")
        error = np.sqrt((own["error"] ** 2).groupby(own["n"]).mean())
        panel.plot(error, color="C1", linestyle=":", label="error of the mean, inside")
        panel.axhline(TRUTHS[name].noise, color="grey", linestyle="--", linewidth=1, label="true noise")
        panel.set(xscale="log", yscale="log", xlabel="training rows", title=name)
    axes[0].set_ylabel("standard deviation")
    canvas.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=5, fontsize=8, frameon=False)
    lines = pd.read_csv(profiles) if profiles.exists() else pd.DataFrame(columns=["n"])
    for i, n in enumerate(n for n in (120, 1000, 10_000) if n in set(lines["n"])):
        own = lines[lines["n"] == n]
        axes[2].plot(own["x"], own["epistemic"], color=f"C{i}", label=f"{n:,} rows")
    axes[2].axvspan(-1, 1, color="grey", alpha=0.15, linewidth=0, label="where the data are")
    axes[2].set(yscale="log", xlabel="x", title="curve: epistemic along x")
    axes[2].margins(y=0.3)
    axes[2].legend(loc="upper center", ncols=2, fontsize=8, frameon=False)
    canvas.savefig(path, dpi=90)


def main(argv=None):
    """Run, print, save."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--seeds", type=int, default=3)
    cli.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of training rows")
    cli.add_argument("--rerun", action="store_true", help="fit again what is in the CSV")
    cli.add_argument("--report", action="store_true", help="print the tables of the rows there are; run nothing")
    arguments = cli.parse_args(argv)
    profiles = RESULTS / "uncertainty_profile.csv"
    with threadpool_limits(1):
        set_torch_threads(1)
        rows = run(arguments, RESULTS / "uncertainty.csv", profiles)
    if rows.empty:
        return
    head = ["# Epistemic and aleatoric uncertainty", "", "Root mean variances over rows and seeds.", ""]
    text = "\n".join(head + tables(rows))
    (RESULTS / "uncertainty.md").write_text(text)
    figure(rows, profiles, RESULTS / "uncertainty.png")
    print(text)


if __name__ == "__main__":
    main()
