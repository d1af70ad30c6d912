"""What a decay costs: ``python -m benchmarks.cost`` times hyper-training steps on 784-100-10 against plain ones.

A hyper-training step is a training step and its share of the work that moves the decays: validation rows, the
hypergradient, the step of the decays. Batches of 200 rows of MNIST, one decay a weight unless said otherwise; seconds
of CPU, the least of several repeats in turn. Memory is that of a run with more than a million decays in a process of
its own: the peak of what it adds to the rows, relative to the weights (Linux). What libraries load when they are first
used is there before: a search of a small network comes first.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import torch

from benchmarks.data import load_mnist
from benchmarks.report import markdown
from benchmarks.runner import RESULTS
from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.algorithms.joint import Joint
from skhyper.core.algorithms.t1t2 import T1T2
from skhyper.core.algorithms.unrolled import Unrolled
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.hypernets import Elementwise, LowRank
from skhyper.core.hyperoptim import Objective
from skhyper.core.hypertraining import TrainingPlan, hyper_train
from skhyper.core.loop import Budget, Journal, run
from skhyper.core.losses import MultinomialLogLoss
from skhyper.core.mlp import MLP
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Recipe
from skhyper.core.walk import Pace, Walk

ALGORITHMS = {
    "implicit": GaussNewton(interval=20),
    "implicit, every 50": GaussNewton(interval=50),
    "joint, elementwise": Joint(lambda decays, _: Elementwise(decays), interval=20),
    "joint, low rank": Joint(lambda decays, _: LowRank(decays), interval=20),
    "t1t2": T1T2(interval=20),
    "unrolled": Unrolled(interval=20, n_steps=10),
}
PLAIN = "plain training"
CHEAP = ("implicit", "joint, elementwise")
WIDTHS = (100, 200, 400, 800, 1300)


def problem(hidden, n_decays=None, n_rows=2000):
    """MNIST, 500 further rows held out; decays are dealt to the weights in turn."""
    X, y, _, _ = load_mnist()
    rows = slice(0, n_rows + 500)
    x, y = torch.from_numpy(X[rows].astype(float)), torch.nn.functional.one_hot(torch.from_numpy(y[rows]), 10).double()
    held = (torch.arange(n_rows + 500) >= n_rows).double()[None]
    network, loss = MLP((784, *hidden, 10)), MultinomialLogLoss()
    decayed = network.layer() >= 0
    number = decayed.cumsum(0) - 1
    index = torch.where(decayed, number if n_decays is None else number % n_decays, -1)
    train = (1 - held) / (n_rows / 200)
    return NetworkProblem(DenseDesign(x), y, train, held / 500, network, loss, loss, Decays(index), recipe=Recipe())


def seconds_a_step(part, algorithm, evaluations=4):
    """CPU seconds of one training step, with its share of what moves the decays."""
    response = algorithm.bind(part)
    hyper = Hyper(torch.tensor(-3.0), torch.tensor(2.0), torch.zeros(part.decays.n_groups))
    objective = Objective(False, 500, 1.0)
    walk = Walk(hyper, objective, (-18.0, 18.0), Pace(warm_up=0), moves_alpha=False)
    one = torch.ones(1)
    progress = response.evaluate(hyper, one, response.begin(0)).state
    journal = Journal(Budget(max_iter=evaluations))
    start = time.process_time()
    run(response, walk, objective, one, journal, stage="", w=progress, tol=0.0)
    return (time.process_time() - start) / (evaluations * response.interval)


def plain_step(part, n_steps=60):
    """CPU seconds of a step of the same recipe under constant decays."""
    trainer = T1T2(interval=20).bind(part).trainer
    decay = torch.full((1, part.network.n_weights), 0.05)
    state, _ = trainer.run(trainer.start(0), decay, 20)
    start = time.process_time()
    trainer.run(state, decay, n_steps)
    return (time.process_time() - start) / n_steps


def resident(which):
    """Bytes of this process in memory: VmRSS now, VmHWM at its peak."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return 1024 * int(line.split()[1])


def search(part, algorithm, evaluations):
    """The global alpha, and then all decays."""
    return hyper_train(part, algorithm, TrainingPlan(taus=(1.0,)), Budget(max_iter=evaluations), seed=0)


def peak(name, width, evaluations):
    """Search a network of `width` hidden units with a decay a weight: what to print."""
    algorithm = ALGORITHMS.get(name, T1T2(interval=20))
    search(problem((10,), n_rows=600), algorithm, evaluations)
    part = problem((width,), n_rows=600)
    algorithm.bind(part)
    before = resident("VmRSS")
    start = time.process_time()
    if name == PLAIN:
        trainer = algorithm.bind(part).trainer
        trainer.run(trainer.start(0), torch.full((1, part.network.n_weights), 0.05), 40)
        n_decays = 0
    else:
        n_decays = len(search(part, algorithm, evaluations).snapshots[-1].hyper.offsets)
    spent, memory = time.process_time() - start, resident("VmHWM") - before
    return f"{n_decays} {spent} {memory / (8 * part.network.n_weights)}"


def in_a_process(name, width, evaluations):
    """`peak` in a fresh process, whose allocator gives large blocks back."""
    command = [sys.executable, "-m", "benchmarks.cost", "--peak", name, str(width), str(evaluations)]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    text = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    n_decays, spent, memory = text.split()[-3:]
    return {"decays": int(n_decays), "seconds of CPU": float(spent), "memory / weights": float(memory)}


def times(part, names, repeats):
    """Milliseconds a step: plain, and of each algorithm; the least of several repeats, in turn."""
    least = dict.fromkeys([PLAIN, *names], float("inf"))
    for _ in range(repeats):
        for name in least:
            seconds = plain_step(part) if name == PLAIN else seconds_a_step(part, ALGORITHMS[name])
            least[name] = min(least[name], 1000 * seconds)
    return least


def figure(table, path):
    """Milliseconds a step against the number of decays, both axes linear and from zero."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(6, 3.6), layout="constrained")
    axes = canvas.subplots()
    for name in table:
        axes.plot(table.index, table[name], "o-", ms=3, label=name)
    axes.set(xlabel="decays", ylabel="ms of CPU a step", ylim=(0, None), xlim=(0, None))
    axes.set_title("784-h-10, one decay a weight, batches of 200 rows", fontsize=9)
    axes.legend(frameon=False)
    canvas.savefig(path, dpi=90)


def main(argv=None):
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--repeats", type=int, default=5)
    cli.add_argument("--peak", nargs=3, metavar=("ALGORITHM", "WIDTH", "EVALUATIONS"), help="memory of one run")
    arguments = cli.parse_args(argv)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    if arguments.peak:
        name, width, evaluations = arguments.peak
        print(peak(name, int(width), int(evaluations)))
        return
    part = problem((100,))
    least = times(part, ALGORITHMS, arguments.repeats)
    table = pd.DataFrame({"ms a step": least, "times a plain step": {n: t / least[PLAIN] for n, t in least.items()}})
    few = {n: times(problem((100,), n), CHEAP, arguments.repeats) for n in (1, 100, 10_000)}
    many = {}
    for width in WIDTHS:
        wide = problem((width,), n_rows=600)
        many[wide.decays.n_groups] = times(wide, CHEAP, 1)
    many = pd.DataFrame(many).T
    figure(many, RESULTS / "cost.png")
    memory = pd.DataFrame({name: in_a_process(name, WIDTHS[-1], 5) for name in (PLAIN, *CHEAP)}).T
    lines = [
        "# Cost of hyper-training steps, 784-100-10, batches of 200 rows, one decay a weight",
        "",
        markdown(table, 3),
        "",
        "## Against the number of decays, ms a step, 784-100-10",
        "",
        markdown(pd.DataFrame(few).T.rename_axis("decays"), 3),
        "",
        "## Against the number of decays, ms a step, one a weight of wider networks (figure)",
        "",
        markdown(many.rename_axis("decays"), 3),
        "",
        f"## A search of 784-{WIDTHS[-1]}-10 with one decay a weight, 5 evaluations of 20 steps a stage",
        "",
        markdown(memory.rename_axis("algorithm"), 3),
        "",
    ]
    (RESULTS / "cost.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
