"""Learnt best responses beside exact ones: ``python -m benchmarks.best_responses``, on ridge regression.

Jacobians: each hypernetwork is trained at decays near the present ones (joint hyper-training), ten of them; d w / d
log-decays beside that of the closed form, and the hypergradient of each algorithm at the same decays beside the exact
one.

Theorem 2.1 of Lorraine and Duvenaud (2018): a hypernetwork that is wide enough learns the same best response from any
two p(lambda) of equal convex support. One decay, the log-decays drawn uniformly from [-2, 5] and from a Beta(.4, .4)
stretched over it; figure and relative distances for a wide and for a linear hypernetwork.
"""

import numpy as np
import pandas as pd
import torch

from benchmarks.report import markdown
from benchmarks.runner import RESULTS
from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.algorithms.joint import Joint
from skhyper.core.algorithms.simplified import Simplified
from skhyper.core.algorithms.t1t2 import T1T2
from skhyper.core.algorithms.unrolled import Unrolled
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.hypernets import Elementwise, Linear, LowRank, multilayer
from skhyper.core.losses import SquaredError
from skhyper.core.mlp import MLP
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Moments, Momentum, Recipe
from skhyper.core.training import Batch, penalised_gradient

P = 10
SLOW, SLOWER = Momentum(0.02, 0.9), Momentum(0.005, 0.9)
HYPERNETS = {
    "linear": (lambda decays, _: Linear(decays), SLOW),
    "low rank, 10": (lambda decays, _: LowRank(decays, 10), SLOWER),
    "low rank, 3": (lambda decays, _: LowRank(decays, 3), SLOWER),
    "elementwise": (lambda decays, _: Elementwise(decays), SLOW),
    "mlp": (lambda decays, generator: multilayer(decays, 50, generator), Adam(1e-3)),
}
ALGORITHMS = {
    "implicit": (GaussNewton(interval=4000, cg_max_iter=20), SLOW),
    "unrolled, 10 steps": (Unrolled(interval=4000, n_steps=10), SLOW),
    "unrolled, 100 steps": (Unrolled(interval=4000, n_steps=100), SLOW),
    "t1t2": (T1T2(interval=4000), SLOW),
    **{f"joint, {name}": (Joint(make, 4000, sample_scale=0.2), rule) for name, (make, rule) in HYPERNETS.items()},
    "joint, elementwise, 20 fine-tuning steps": (Joint(HYPERNETS["elementwise"][0], 4000, 20, sample_scale=0.2), SLOW),
    "simplified, linear": (Simplified(HYPERNETS["linear"][0], 40, warm_up=1), SLOW),
}
EVALUATIONS = {"simplified, linear": 100}
LOW, HIGH = -2.0, 5.0
PRIORS = {"uniform": (1.0, 1.0), "mass at the ends": (0.4, 0.4)}
WIDE, STEPS, DRAWS = 200, 6000, 8


def ridge(n_decays, descent):
    """40 training rows, 20 held out, half of the coefficients zero."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, P, generator=g, dtype=torch.float64)
    true = torch.randn(P, 1, generator=g, dtype=torch.float64) * (torch.arange(P) < P // 2)[:, None]
    y = x @ true + torch.randn(60, 1, generator=g, dtype=torch.float64)
    held = (torch.arange(60) >= 40).double()[None]
    index = torch.arange(P) if n_decays == P else torch.zeros(P, dtype=torch.int64)
    loss, recipe = SquaredError(), Recipe(descent, batch_size=1000, max_epochs=100)
    decays = Decays(torch.cat([index, torch.tensor([-1])]))
    design, network = DenseDesign(x), MLP((P, 1))
    return NetworkProblem(design, y, 1 - held, held / held.sum(), network, loss, loss, decays, recipe=recipe)


def exact_weights(problem, log_decays):
    """The closed form, (n_weights,)."""
    rows = problem.train[0] > 0
    x1 = np.hstack([problem.design.x[rows].numpy(), np.ones((int(rows.sum()), 1))])
    a = np.append(np.exp(np.broadcast_to(log_decays, P)), 0.0)
    return np.linalg.solve(x1.T @ x1 + np.diag(a), x1.T @ problem.y[rows].numpy())[:, 0]


def exact_jacobian(problem, h=1e-4):
    """d w / d log-decays at zero, (n_weights, P), by central differences of the closed form."""
    columns = [exact_weights(problem, h * e) - exact_weights(problem, -h * e) for e in np.eye(P)]
    return np.stack(columns, 1) / (2 * h)


def compared(ours, exact):
    """Cosine and relative error."""
    cosine = (ours * exact).sum() / np.linalg.norm(ours) / np.linalg.norm(exact)
    return {"cosine": cosine, "relative error": np.linalg.norm(ours - exact) / np.linalg.norm(exact)}


def jacobians_and_hypergradients():
    """Two tables: of hypernetworks, and of algorithms."""
    by_hypernet, by_algorithm = {}, {}
    for name, (algorithm, descent) in ALGORITHMS.items():
        problem = ridge(P, descent)
        response = algorithm.bind(problem)
        hyper = Hyper(torch.tensor(0.0).double(), torch.tensor(2.0).double(), torch.zeros(P, dtype=torch.float64))
        progress = response.begin(0)
        for _ in range(EVALUATIONS.get(name, 1)):
            evaluation = response.evaluate(hyper, torch.ones(1, dtype=torch.float64), progress)
            progress = evaluation.state
        jacobian, w = exact_jacobian(problem), torch.from_numpy(exact_weights(problem, 0.0))[None]
        _, v = response.held_out(progress.training._replace(w=w))
        by_algorithm[name] = compared(evaluation.gradient.offsets.numpy(), v[0].numpy() @ jacobian)
        if name.removeprefix("joint, ") in HYPERNETS:
            phi, x = progress.memory.phi.double(), torch.zeros(1, P, dtype=torch.float64)
            units = torch.eye(problem.network.n_weights, dtype=torch.float64)
            rows = [response.hypernet.to_decays(phi, x, unit[None])[0] for unit in units]
            by_hypernet[name.removeprefix("joint, ")] = compared(torch.stack(rows).numpy(), jacobian)
    return pd.DataFrame(by_hypernet).T.rename_axis("hypernetwork"), pd.DataFrame(by_algorithm).T.rename_axis(
        "algorithm"
    )


def learnt(problem, hypernet, prior, rate):
    """Train a hypernetwork at log-decays from a prior; its weights on a grid, (points, n_weights)."""
    random, generator = np.random.RandomState(0), torch.Generator().manual_seed(0)
    rows = problem.train[0] > 0
    x, y = problem.design.x[rows].expand(DRAWS, -1, -1), problem.y[rows].expand(DRAWS, -1, -1)
    c = torch.ones(DRAWS, int(rows.sum()), dtype=torch.float64)
    batch = Batch(x, y, c, c.sum(-1))
    phi = hypernet.start(problem.network.start(1, generator), generator)
    moments, rule = Moments(torch.zeros_like(phi), torch.zeros_like(phi)), Adam(rate)
    for step in range(STEPS):
        log_decay = torch.from_numpy(LOW + (HIGH - LOW) * random.beta(*prior, size=(DRAWS, 1)))
        many, inputs = phi.expand(DRAWS, -1), _scaled(log_decay)
        w = hypernet.weights(many, inputs)
        _, g = penalised_gradient(problem.network, problem.loss, w, batch, problem.decays.spread(log_decay.exp()))
        g = hypernet.to_parameters(many, inputs, g).mean(0, keepdim=True)
        moments = rule.step(phi, g, moments, min(1.0, 2 * (1 - step / STEPS)))
    grid = torch.linspace(LOW, HIGH, 101, dtype=torch.float64)[:, None]
    return hypernet.weights(phi.expand(len(grid), -1), _scaled(grid)).numpy()


def _scaled(log_decay):
    """Inputs of a hypernetwork: log-decays in [-1, 1]."""
    return (2 * log_decay - LOW - HIGH) / (HIGH - LOW)


def theorem():
    """The table, and the curves for the figure."""
    problem = ridge(1, SLOW)
    grid = np.linspace(LOW, HIGH, 101)
    exact = np.stack([exact_weights(problem, z) for z in grid])
    wide = multilayer(problem.decays, WIDE, torch.Generator().manual_seed(0))
    curves = {
        name: {prior: learnt(problem, hypernet, shape, rate) for prior, shape in PRIORS.items()}
        for name, hypernet, rate in (("wide", wide, 3e-3), ("linear", Linear(problem.decays), 1e-2))
    }
    rows = {}
    for name, (one, other) in ((name, tuple(pair.values())) for name, pair in curves.items()):
        size = np.linalg.norm(exact)
        between = np.linalg.norm(one - other) / size
        rows[name] = {"between the two": between} | {
            f"{prior}, from the exact one": np.linalg.norm(curves[name][prior] - exact) / size for prior in PRIORS
        }
    return pd.DataFrame(rows).T.rename_axis("hypernetwork"), grid, exact, curves


def figure(grid, exact, curves, path):
    """The largest weight against log alpha, exact and learnt from either prior."""
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(8, 3.2), layout="constrained")
    j = int(np.abs(exact[0, :P]).argmax())
    for axes, (name, by_prior) in zip(canvas.subplots(1, 2, sharey=True), curves.items(), strict=True):
        axes.plot(grid, exact[:, j], "k", lw=3, alpha=0.3, label="exact best response")
        for style, (prior, w) in zip(("-", "--"), by_prior.items(), strict=True):
            axes.plot(grid, w[:, j], style, lw=1.2, label=f"learnt, {prior}")
        axes.set(title=f"{name} hypernetwork", xlabel="log alpha")
        axes.legend(frameon=False, fontsize=8)
    canvas.axes[0].set_ylabel(f"weight {j}")
    canvas.savefig(path, dpi=90)


def main():
    torch.set_num_threads(1)
    by_hypernet, by_algorithm = jacobians_and_hypergradients()
    table, *parts = theorem()
    figure(*parts, RESULTS / "best_responses.png")
    lines = [
        "# Learnt best responses of ridge regression beside exact ones",
        "",
        "## Jacobians of hypernetworks, ten decays",
        "",
        markdown(by_hypernet, 3),
        "",
        "## Hypergradients, ten decays",
        "",
        markdown(by_algorithm, 3),
        "",
        "## Theorem 2.1: two p(lambda) of equal convex support, relative distances of the best responses",
        "",
        markdown(table, 3),
        "",
    ]
    (RESULTS / "best_responses.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
