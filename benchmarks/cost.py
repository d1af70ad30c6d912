"""What a decay costs: ``python -m benchmarks.cost`` times hyper-training steps on 784-100-10 against plain ones.

A hyper-training step is a training step and its share of the work that moves the decays: validation rows, the
hypergradient, the step of the decays. Batches of 200 rows of MNIST, one decay a weight unless said otherwise; seconds
of CPU. The last line is one run with more than a million decays, and its memory relative to the weights'.
"""

import argparse
import resource
import time

import numpy as np
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


def seconds_a_step(part, algorithm, evaluations=6):
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


def plain_step(part, n_steps=100):
    """CPU seconds of a step of the same recipe under constant decays."""
    trainer = T1T2(interval=20).bind(part).trainer
    decay = torch.full((1, part.network.n_weights), 0.05)
    state, _ = trainer.run(trainer.start(0), decay, 20)
    start = time.process_time()
    trainer.run(state, decay, n_steps)
    return (time.process_time() - start) / n_steps


def main(argv=None):
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("--repeats", type=int, default=3)
    arguments = cli.parse_args(argv)
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    import pandas as pd

    part = problem((100,))
    plain = np.median([plain_step(part) for _ in range(arguments.repeats)])
    rows = {}
    for name, algorithm in ALGORITHMS.items():
        step = np.median([seconds_a_step(part, algorithm) for _ in range(arguments.repeats)])
        rows[name] = {"ms a step": 1000 * step, "times a plain step": step / plain}
    table = pd.DataFrame(rows).T
    counts = [1, 10, 100, 1000, 10_000, part.decays.n_groups]
    by_count = pd.DataFrame(
        {
            name: {n: 1000 * seconds_a_step(problem((100,), n), ALGORITHMS[name]) for n in counts}
            for name in ("implicit", "joint, elementwise")
        }
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    large = problem((1300,), n_rows=600)
    start = time.process_time()
    seconds_a_step(large, ALGORITHMS["joint, elementwise"], evaluations=2)
    spent = time.process_time() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    lines = [
        "# Cost of hyper-training steps, 784-100-10, batches of 200 rows, one decay a weight",
        "",
        f"A plain step: {1000 * plain:.2f} ms of CPU.",
        "",
        markdown(table, 3),
        "",
        "## Against the number of decays, ms a step",
        "",
        markdown(by_count, 3),
        "",
        f"{large.decays.n_groups} decays (784-1300-10, elementwise): 60 steps in {spent:.1f} s of CPU; peak memory "
        f"grew by {memory / (8 * large.network.n_weights):.1f} times the weights'.",
        "",
    ]
    (RESULTS / "cost.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
