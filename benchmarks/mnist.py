"""MNIST: ``python -m benchmarks.mnist`` for networks of 3x150, 2x400 and 2x800 units.

Methods: the paper's settings (`paper`: full generator, one draw a row, dropout .5, minibatches of 256, 2,000 epochs,
the mean of the test errors of the last 20 epochs), its plain SGD (`sgd`), ours (`ours`: our defaults, but a low-rank
generator, one member, minibatches of 256 and X as it is) and their twin.
The paper reports 1.49, 1.26 and 1.37 % for its hypernetworks, 1.71, 1.43 and 1.64 % for its SGD.

The full runs are for an accelerator: ``--device cuda --precision tf32 --graphs --checkpoints FOLDER --seeds 3``. Rows
stay on the device, a checkpoint is written after every ``--every`` epochs, from which the same command goes on, and
steps can be CUDA graphs. `paper` and `sgd` train at a constant rate, the schedule of `ours` and `twin` ends at
``--epochs``. ``--seconds`` ends a run early: it prints its curve so far and an estimate of the time of the full run; on
a CPU that is the default, and `ours` and `twin` take as many epochs as there is time for.
``--cost`` measures steps of training instead, in one process, against the twin's.
"""

import argparse
from math import inf
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from benchmarks.data import load_mnist
from benchmarks.mnist_cost import BATCH, cost
from benchmarks.mnist_runs import Run, affordable, precision
from benchmarks.report import markdown
from benchmarks.runner import RESULTS, has, read, replaced, set_torch_threads, write
from skhyper import HypernetClassifier

NETWORKS = {"3x150": (150,) * 3, "2x400": (400,) * 2, "2x800": (800,) * 2}
# Hidden layers of the paper's hypernetworks, and its errors in %.
HYPERNETS = {"3x150": (100, 20), "2x400": (100, 50), "2x800": (100, 50)}
PUBLISHED = {"3x150": (1.49, 1.71), "2x400": (1.26, 1.43), "2x800": (1.37, 1.64)}
OURS = ("ours", "twin")
METHODS = ("paper", "sgd", *OURS)
LAST = 20
SHORT_LOOKS = 10  # lines of the curve in an epoch of a shortened run


def estimator(network, method, seed, device, epochs):
    """The unfitted model."""
    shared = {"device": device, "dtype": "float32", "random_state": seed}
    if method in ("paper", "sgd"):
        kind = {"generator": "none"} if method == "sgd" else {}
        return HypernetClassifier.from_paper(
            hidden_layer_sizes=NETWORKS[network],
            hypernet_hidden_layer_sizes=HYPERNETS[network],
            n_samples=20,
            **kind,
            **shared,
        )
    kind = "low_rank" if method == "ours" else "none"
    settings = {"preprocessing": None, "n_estimators": 1, "batch_size": BATCH, "max_iter": epochs, "generator": kind}
    return HypernetClassifier(NETWORKS[network], **settings, **shared)


def error(model, X, y):
    """In %."""
    return float(100 * np.mean(model.predict(X) != y))


def train(run, method, arguments, data, checkpoint):
    """To the end, or as long as there is time; gives the test errors at epochs, [(epoch, error)]."""
    X_test, y_test = data[2:]
    curve = run.load(checkpoint) if checkpoint and checkpoint.exists() else []
    limit = arguments.seconds + run.seconds
    while not run.over and run.seconds <= limit:
        epoch = int(run.epochs) + 1
        if method in OURS or epoch <= arguments.epochs - LAST:
            epoch = arguments.every * -(-epoch // arguments.every)
        run.go(epoch * run.epoch_steps - run.course.step, limit - run.seconds)
        curve.append((run.epochs, error(run.fitted(), X_test, y_test)))
        print(f"  epoch {run.epochs:.3f}: test error {curve[-1][1]:.2f} %", flush=True)
        if checkpoint and epoch % arguments.every == 0 and run.epochs == epoch:
            run.save(checkpoint, curve)
    return curve


def one(network, method, seed, arguments, data):
    """Train, and say how far it came; the error is the last one of ours, the paper's the mean over the last epochs."""
    X, y = data[:2]
    model = estimator(network, method, seed, arguments.device, arguments.epochs)
    with precision(arguments.precision, arguments.device):
        epochs, looks = arguments.epochs, 1 if arguments.seconds == inf else SHORT_LOOKS
        if method in OURS:  # their schedule ends with their epochs
            epochs, looks = affordable(model, X, y, arguments.seconds, epochs), None
        run = Run(model, X, y, epochs, looks, arguments.graphs)
        folder = Path(arguments.checkpoints) if arguments.checkpoints else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        curve = train(run, method, arguments, data, folder and folder / f"{network}-{method}-{seed}.pt")
    for record in run.course.curve[:: max(1, len(run.course.curve) // 10)]:
        loss, held = float(record.loss.mean()), float(record.held_out.mean())
        print(f"  epoch {record.step / run.epoch_steps:.3f}: loss {loss:.4f}, held-out loss {held:.4f}", flush=True)
    full = run.seconds / run.epochs * arguments.epochs
    name = f"{network} {method} seed {seed}"
    print(
        f"{name}: {run.epochs:.2f} epochs in {run.seconds:.0f} s; {arguments.epochs} take {full / 3600:.1f} h",
        flush=True,
    )
    last = 1 if method in OURS else LAST
    return {
        "score": float(np.mean([value for _, value in curve[-last:]])),
        "epochs": run.epochs,
        "whole": run.over and epochs == arguments.epochs,
        "seconds": run.seconds,
        "full_epochs": arguments.epochs,
        "full_hours": full / 3600,
    }


def report(rows):
    """Errors beside the paper's."""
    rows = rows.assign(model=rows["model"].where(rows["whole"].astype(bool), rows["model"] + ", shortened"))
    table = rows.groupby(["set", "model"], sort=False).agg(
        error=("score", "mean"),
        se=("score", "sem"),
        seeds=("score", "size"),
        epochs=("epochs", "mean"),
        seconds=("seconds", "mean"),
        full=("full_epochs", "first"),
        hours=("full_hours", "mean"),
    )
    names = {"full": "epochs of a full run", "hours": "hours of a full run"}
    table = table.reset_index().set_index("set").rename(columns=names)
    published = pd.DataFrame(PUBLISHED, index=["paper, published", "sgd, published"]).T
    return ["## Test error in %", "", markdown(published.rename_axis("network")), "", markdown(table), ""]


def arguments_of(argv):
    """The command line."""
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    cli.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    cli.add_argument("--epochs", type=int, default=2000)
    cli.add_argument("--every", type=int, default=10, help="epochs between evaluations and checkpoints")
    cli.add_argument("--seeds", type=int, default=1)
    cli.add_argument("--seconds", type=float, help="end each run early; default on a CPU: 60; 0: never")
    cli.add_argument("--rows", type=int, default=60_000, help="training rows")
    cli.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cli.add_argument("--precision", default="float32", choices=["float32", "tf32", "bf16"])
    cli.add_argument("--graphs", action="store_true", help="steps as CUDA graphs")
    cli.add_argument("--checkpoints", help="folder; without, runs do not resume")
    cli.add_argument("--threads", type=int, default=1)
    cli.add_argument("--cost", action="store_true", help="measure steps instead")
    cli.add_argument("--repeats", type=int, default=5, help="of the steps")
    cli.add_argument("--rerun", action="store_true")
    arguments = cli.parse_args(argv)
    if arguments.seconds is None:
        arguments.seconds = 60.0 if arguments.device == "cpu" else 0.0
    arguments.seconds = arguments.seconds or inf
    if arguments.graphs and torch.device(arguments.device).type != "cuda":
        cli.error(f"--graphs needs a CUDA device, got --device {arguments.device}")
    return arguments


def main(argv=None):
    """Run, print, save."""
    arguments = arguments_of(argv)
    with threadpool_limits(arguments.threads):
        set_torch_threads(arguments.threads)
        if arguments.cost:
            text = ["# The cost of a training step", ""]
            for network in arguments.networks:
                text += cost(network, NETWORKS[network], HYPERNETS[network], arguments.repeats)
            (RESULTS / "mnist_cost.md").write_text("\n".join(text))
            print("\n".join(text))
            return
        X, y, X_test, y_test = load_mnist()
        data, path = (X[: arguments.rows], y[: arguments.rows], X_test, y_test), RESULTS / "mnist.csv"
        rows = read(path)
        for seed in range(arguments.seeds):
            for network in arguments.networks:
                for method in arguments.methods:
                    if arguments.rerun or not has(rows, network, seed, method):
                        row = one(network, method, seed, arguments, data)
                        rows = replaced(rows, {"set": network, "split": seed, "model": method, **row})
                        write(rows, path)
    text = "\n".join(["# MNIST", "", *report(rows)])
    (RESULTS / "mnist.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
