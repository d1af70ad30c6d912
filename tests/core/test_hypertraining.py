"""Hyper-training: every algorithm against closed-form ridge regression and finite differences.

A multilayer perceptron without hidden layers and a squared loss is ridge regression, whose best response is known.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.algorithms.global_ import Global
from skhyper.core.algorithms.joint import Joint
from skhyper.core.algorithms.simplified import Simplified
from skhyper.core.algorithms.t1t2 import T1T2
from skhyper.core.algorithms.unrolled import Unrolled
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.hyperoptim import Objective
from skhyper.core.hypernets import Elementwise, Linear, LowRank, multilayer
from skhyper.core.hypertraining import TrainingPlan, hyper_train, train_on
from skhyper.core.loop import Budget, Journal, run
from skhyper.core.losses import MultinomialLogLoss, SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Momentum, Recipe
from skhyper.core.walk import Pace, Walk

P = 10
BOUNDS = (-5.0, 6.0)
FULL = Recipe(Momentum(0.1, 0.9), batch_size=1000, max_epochs=100)
TWO = torch.tensor(2.0, dtype=torch.float64)


def ridge_problem(n_decays, recipe=FULL):
    """40 training rows and 20 held out; sparse truth, so that decays differ."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, P, generator=g, dtype=torch.float64)
    coefficients = torch.randn(P, 1, generator=g, dtype=torch.float64) * (torch.arange(P) < 5)[:, None]
    y = x @ coefficients + torch.randn(60, 1, generator=g, dtype=torch.float64)
    held = (torch.arange(60) >= 40).double()[None]
    index = torch.arange(P) if n_decays == P else torch.zeros(P, dtype=torch.int64)
    decays = Decays(torch.cat([index, torch.tensor([-1])]))
    loss = SquaredError()
    return NetworkProblem(
        DenseDesign(x), y, 1 - held, held / held.sum(), MLP((P, 1)), loss, loss, decays, recipe=recipe
    )


def ridge_weights(problem, log_decays):
    """The minimiser of the inner problem, by numpy."""
    x, y = problem.design.x.numpy(), problem.y.numpy()
    rows = problem.train[0].numpy() > 0
    x1 = np.hstack([x[rows], np.ones((rows.sum(), 1))])
    a = np.append(np.exp(np.broadcast_to(log_decays, P)), 0.0)
    return np.linalg.solve(x1.T @ x1 + np.diag(a), x1.T @ y[rows])[:, 0]


def ridge_loss(problem, log_decays):
    w = torch.from_numpy(ridge_weights(problem, log_decays))[None]
    return float(problem.outer(w))


def finite_differences(loss, at, h=1e-5):
    steps = np.eye(len(at)) * h
    return np.array([(loss(at + s) - loss(at - s)) / (2 * h) for s in steps])


def hyper_at(log_alpha, offsets=None):
    return Hyper(torch.tensor(log_alpha, dtype=torch.float64), TWO, offsets)


LINEAR = [lambda d, g: Linear(d), lambda d, g: LowRank(d, 10), lambda d, g: Elementwise(d)]
SLOW = replace(FULL, descent=Momentum(0.02, 0.9))
ORACLES = {
    "implicit": (GaussNewton(interval=20, cg_max_iter=20, horizon=1e4), FULL),
    "unrolled": (Unrolled(n_steps=50, interval=50), SLOW),
    "joint, linear": (Joint(LINEAR[0], interval=40, sample_scale=0.3), SLOW),
    "joint, low rank": (Joint(LINEAR[1], interval=40, sample_scale=0.3), replace(FULL, descent=Momentum(0.005, 0.9))),
    "joint, elementwise": (Joint(LINEAR[2], interval=40, sample_scale=0.3), SLOW),
    "joint, fine-tuning": (Joint(LINEAR[2], interval=40, sample_scale=0.3, fine_tuning=20), SLOW),
    "simplified, linear": (Simplified(LINEAR[0], interval=40), SLOW),
    "global, mlp": (
        Global(lambda d, g: multilayer(d, 50, g), interval=20, n_steps=15000, sample_scale=1.0),
        replace(FULL, descent=Adam(5e-4)),
    ),
    "t1t2": (T1T2(interval=20), FULL),
}


@pytest.mark.parametrize("n_decays", [1, P])
@pytest.mark.parametrize("name", ORACLES)
def test_the_search_ends_within_a_percent_of_the_closed_forms_optimum(name, n_decays):
    algorithm, recipe = ORACLES[name]
    problem = ridge_problem(n_decays, recipe)
    tau = 2.0
    weight = 1 / (2 * 20 * tau**2)

    def objective(z):
        return ridge_loss(problem, z) + (weight * (z**2).sum() if n_decays > 1 else 0.0)

    best = minimize(objective, np.zeros(n_decays), bounds=[BOUNDS] * n_decays)
    response = algorithm.bind(problem)
    hyper = hyper_at(0.0, None if n_decays == 1 else torch.zeros(P, dtype=torch.float64))
    goal = Objective(False, 20, tau)
    walk = Walk(hyper, goal, BOUNDS, Pace(step=0.2, halving=30, warm_up=10, patience=1000), moves_alpha=n_decays == 1)
    journal = Journal(Budget(max_iter=300))
    s2 = torch.ones(1, dtype=torch.float64)
    run(response, walk, goal, s2, journal, stage="", w=response.begin(0), tol=0.0)
    log_decays = float(walk.hyper.log_alpha) + (0.0 if n_decays == 1 else walk.hyper.offsets.numpy())
    reached = objective(np.atleast_1d(log_decays))
    print(name, n_decays, reached / best.fun, np.atleast_1d(log_decays).round(2), best.x.round(2))
    assert reached < 1.01 * best.fun
