"""MNIST: ``python -m benchmarks.mnist`` for networks of 3x150, 2x400 and 2x800 units.

Methods: the paper's settings (`paper`: full generator, one draw a row, dropout .5, minibatches of 256, 2,000 epochs,
the mean of the test errors of the last 20 epochs), its plain SGD (`sgd`), our defaults (`ours`) and their twin.
The paper reports 1.49, 1.26 and 1.37 % for its hypernetworks, 1.71, 1.43 and 1.64 % for its SGD.

The full runs are for an accelerator: ``--device cuda --precision tf32 --epochs 2000 --seeds 3``. `paper` and `sgd`
train at a constant rate, chunk by chunk, and write a checkpoint after every ``--every`` epochs, from which the same
command goes on; `ours` and `twin` train in one fit, whose schedule ends at ``--epochs``. ``--seconds`` ends a run
early: it prints its curve so far and an estimate of the time of the full run; on a CPU that is the default.
``--cost`` measures steps of training instead, in one process, against the twin's.
"""

import argparse
import pickle
import time
from contextlib import nullcontext
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from threadpoolctl import threadpool_limits

from benchmarks.data import load_mnist
from benchmarks.report import bar, markdown
from benchmarks.runner import RESULTS, has, read, replaced, set_torch_threads, write
from skhyper import HypernetClassifier
from skhyper.core.noise.likelihood import Categorical
from skhyper.core.noise.objective import Model, Rows
from skhyper.core.noise.training import Trainer, Walk
from skhyper.estimators.hypernet_options import resolve_network, resolve_settings

NETWORKS = {"3x150": (150,) * 3, "2x400": (400,) * 2, "2x800": (800,) * 2}
# Hidden layers of the paper's hypernetworks, and its errors in %.
HYPERNETS = {"3x150": (100, 20), "2x400": (100, 50), "2x800": (100, 50)}
PUBLISHED = {"3x150": (1.49, 1.71), "2x400": (1.26, 1.43), "2x800": (1.37, 1.64)}
METHODS = ("paper", "sgd", "ours", "twin")
LAST = 20
CHUNK = 2560  # rows of a call; ten minibatches
N_DRAWS = 8
BATCH = 256


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


def precision(name):
    """The context in which training runs."""
    if name == "tf32":
        torch.set_float32_matmul_precision("high")
    return torch.autocast("cuda", dtype=torch.bfloat16) if name == "bf16" else nullcontext()


def error(model, X, y):
    """In %."""
    return float(100 * np.mean(model.predict(X) != y))


class Clock:
    """Seconds of this run and of those before its checkpoint; `over` says whether the time is up."""

    def __init__(self, limit, before=0.0):
        self.start, self.limit, self.before = time.perf_counter(), limit, before

    @property
    def here(self):
        return time.perf_counter() - self.start

    @property
    def total(self):
        return self.before + self.here

    @property
    def over(self):
        return self.limit is not None and self.here > self.limit


def train_by_chunks(model, data, arguments, checkpoint):
    """Epoch after epoch of `partial_fit`; gives model, curve, epochs done, seconds, and whether it is finished."""
    X, y, X_test, y_test = data
    done, curve, before = 0, [], 0.0
    if checkpoint and checkpoint.exists():
        with open(checkpoint, "rb") as file:
            model, done, curve, before = pickle.load(file)
    clock, classes = Clock(arguments.seconds, before), np.unique(y)
    passed = float(done)
    while done < arguments.epochs and not clock.over:
        order = np.random.RandomState(done + 100_003 * model.random_state).permutation(len(y))
        for start in range(0, len(order), CHUNK):
            rows = order[start : start + CHUNK]
            with precision(arguments.precision):
                model.partial_fit(X[rows], y[rows], classes=classes)
            passed += len(rows) / len(order)
            if clock.over:
                break
        else:
            done += 1
        last = done > arguments.epochs - LAST
        if last or clock.over or done % arguments.every == 0:
            curve.append((passed, error(model, X_test, y_test), float(model.loss_curve_[-1])))
            print(f"  epoch {passed:.3f}: test error {curve[-1][1]:.2f} %, loss {curve[-1][2]:.4f}", flush=True)
        if checkpoint and passed == done and done % arguments.every == 0:
            part = checkpoint.with_suffix(".part")
            with open(part, "wb") as file:
                pickle.dump((model, done, curve, clock.total), file)
            part.replace(checkpoint)
    return curve, passed, clock.total


def train_at_once(model, data, arguments):
    """One fit; where time is short, of as many passes as a first short fit says there is time for."""
    X, y, X_test, y_test = data
    epochs = arguments.epochs
    if arguments.seconds is not None:
        start = time.perf_counter()
        probe = model.set_params(max_iter=1, early_stopping=False, n_samples=2)
        rows = 10 * BATCH
        with precision(arguments.precision):
            probe.fit(X[:rows], y[:rows])
        pace = (time.perf_counter() - start) * len(y) / rows
        epochs = max(1, min(epochs, int(arguments.seconds / pace)))
        model.set_params(early_stopping="auto", n_samples=16)
    model.set_params(max_iter=epochs)
    start = time.perf_counter()
    with precision(arguments.precision):
        model.fit(X, y)
    seconds = time.perf_counter() - start
    steps = np.linspace(0, epochs, len(model.loss_curve_) + 1)[1:]
    for epoch, loss, held in list(zip(steps, model.loss_curve_, model.validation_loss_curve_, strict=True))[::5]:
        print(f"  epoch {epoch:.3f}: loss {loss:.4f}, held-out loss {held:.4f}", flush=True)
    return [(float(epochs), error(model, X_test, y_test), float(model.loss_curve_[-1]))], float(epochs), seconds


def one(network, method, seed, arguments, data):
    """Train, and say how far it came; the error is the mean over the last epochs."""
    model = estimator(network, method, seed, arguments.device, arguments.epochs)
    if method in ("paper", "sgd"):
        folder = Path(arguments.checkpoints) if arguments.checkpoints else None
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        checkpoint = folder / f"{network}-{method}-{seed}.pickle" if folder else None
        curve, epochs, seconds = train_by_chunks(model, data, arguments, checkpoint)
    else:
        curve, epochs, seconds = train_at_once(model, data, arguments)
    full = seconds / max(epochs, 1e-9) * arguments.epochs
    name = f"{network} {method} seed {seed}"
    print(f"{name}: {epochs:.2f} epochs in {seconds:.0f} s; {arguments.epochs} take {full / 3600:.1f} h", flush=True)
    return {
        "score": float(np.mean([value for _, value, _ in curve[-LAST:]])),
        "epochs": epochs,
        "of": arguments.epochs,
        "seconds": seconds,
        "full_hours": full / 3600,
    }


def stepper(settings, n_rows=4 * BATCH):
    """One training step of a 784-...-10 network on random rows, as a function without arguments."""
    model = HypernetClassifier(**{"preprocessing": None, "batch_size": BATCH, "dtype": "float32", **settings})
    noise = Categorical(10)
    whole = Model(resolve_network(model, 784, noise), noise)
    random = torch.Generator().manual_seed(0)
    x = torch.rand(n_rows, 784, generator=random)
    y = torch.eye(10)[torch.randint(10, (n_rows,), generator=random)]
    train = torch.arange(n_rows)[None]
    configuration = resolve_settings(model, False, n_rows)
    trainer = Trainer(
        whole, Rows(x, y, torch.ones(n_rows)), train, None, None, configuration, torch.Generator(), n_rows
    )
    walk = Walk.begin(whole.layout.draw(1, random).float(), whole.layout, None)
    phase = trainer.noisy()
    return lambda: trainer.advance(walk, train[:, :BATCH], phase, 0)


def floor_row(sizes, n_features):
    """The products of a step with one draw a row and a full generator: forward, and twice that backward."""
    pairs = [(torch.rand(BATCH, n_features * a), torch.rand(n_features * a, b)) for a, b in pairwise(sizes)]

    def call():
        for x, w in pairs:
            out = x @ w
            x.T @ out
            out @ w.T

    return call


def floor_shared(sizes, n_features):
    """The products with K draws of a full generator: the weights, K passes, and twice that backward."""
    pairs = [(torch.rand(n_features, a * b), torch.rand(BATCH, a)) for a, b in pairwise(sizes)]
    h = torch.rand(N_DRAWS, n_features)

    def call():
        for d, x in pairs:
            w = (h @ d).unflatten(1, (x.shape[1], -1))
            h.T @ w.flatten(1)
            w.flatten(1) @ d.T
            out = x @ w
            x.T @ out
            out @ w.transpose(1, 2)

    return call


def cost(network, repeats):
    """Processor seconds of a step of each kind, taken in turns."""
    from benchmarks.predict_cost import fastest

    hidden = NETWORKS[network]
    shared = {"hidden_layer_sizes": hidden, "n_estimators": 1, "prior_scale": 0.0}
    shared |= {"n_train_samples": N_DRAWS, "draws": "shared"}
    full = {**shared, "generator": "full", "hypernet_hidden_layer_sizes": HYPERNETS[network]}
    sizes, features = (784, *hidden, 10), HYPERNETS[network][-1]
    calls = {
        "twin": stepper({**shared, "generator": "none"}),
        f"low rank, {N_DRAWS} draws, each all rows": stepper({**shared, "generator": "low_rank"}),
        f"low rank, rows dealt to {N_DRAWS} draws": stepper({**shared, "generator": "low_rank", "draws": "dealt"}),
        f"full, {N_DRAWS} draws, each all rows": stepper(full),
        "full, a draw for each row": stepper({**full, "draws": "row"}),
        f"products of full, {N_DRAWS} draws": floor_shared(sizes, features),
        "products of full, a draw for each row": floor_row(sizes, features),
    }
    for call in calls.values():
        call()
    seconds = pd.Series(fastest(list(calls.values()), repeats), calls, name="seconds a step")
    table = seconds.to_frame().assign(**{"/ twin": seconds / seconds["twin"]}).rename_axis("step")
    weights = prod(hidden[:1]) * 784 + sum(a * b for a, b in zip(hidden, (*hidden[1:], 10), strict=True))
    lines = [
        bar(f"low rank over {N_DRAWS} x twin", table["/ twin"].iloc[1] / N_DRAWS, 1.3),
        bar("low rank, dealt, over twin", table["/ twin"].iloc[2], 2.0),
        f"* full generator over its products: {seconds.iloc[3] / seconds.iloc[5]:.2f}",
        f"* full generator, a draw for each row, over its products: {seconds.iloc[4] / seconds.iloc[6]:.2f}",
    ]
    text = [f"## Steps of {network}, {weights:,} weights, minibatches of {BATCH}, float32, one thread", ""]
    return [*text, markdown(table, 3), "", *lines, ""]


def report(rows):
    """Errors beside the paper's."""
    rows = rows.assign(model=rows["model"].where(rows["epochs"] >= rows["of"], rows["model"] + ", shortened"))
    table = rows.groupby(["set", "model"], sort=False).agg(
        error=("score", "mean"),
        se=("score", "sem"),
        seeds=("score", "size"),
        epochs=("epochs", "mean"),
        seconds=("seconds", "mean"),
        hours=("full_hours", "mean"),
    )
    table = table.reset_index().set_index("set").rename(columns={"hours": "hours of a full run"})
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
    cli.add_argument("--checkpoints", help="folder; without, runs do not resume")
    cli.add_argument("--threads", type=int, default=1)
    cli.add_argument("--cost", action="store_true", help="measure steps instead")
    cli.add_argument("--repeats", type=int, default=5, help="of the steps")
    cli.add_argument("--rerun", action="store_true")
    arguments = cli.parse_args(argv)
    if arguments.seconds is None and arguments.device == "cpu":
        arguments.seconds = 60.0
    arguments.seconds = arguments.seconds or None
    return arguments


def main(argv=None):
    """Run, print, save."""
    arguments = arguments_of(argv)
    with threadpool_limits(arguments.threads):
        set_torch_threads(arguments.threads)
        if arguments.cost:
            text = ["# The cost of a training step", ""]
            for network in arguments.networks:
                text += cost(network, arguments.repeats)
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
