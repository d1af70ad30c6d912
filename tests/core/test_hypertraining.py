"""Hyper-training: every algorithm against closed-form ridge regression and finite differences.

A multilayer perceptron without hidden layers and a squared loss is ridge regression, whose best response is known.
"""

import math
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
from skhyper.core.final_network import still_learning, train_on
from skhyper.core.hypernets import Elementwise, Linear, LowRank, multilayer
from skhyper.core.hyperoptim import Objective
from skhyper.core.hypertraining import TrainingPlan, hyper_train
from skhyper.core.loop import Budget, Journal, run
from skhyper.core.losses import MultinomialLogLoss, SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Momentum, Recipe
from skhyper.core.result import Record, StopReason
from skhyper.core.unroll import reverse, unrolled_steps
from skhyper.core.walk import Pace, Walk

P = 10
BOUNDS = (-5.0, 6.0)
FULL = Recipe(Momentum(0.1, 0.9), batch_size=1000, max_epochs=100)
PACE = Pace(step=0.2, halving=60, warm_up=10, settling=0, patience=1000)
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
    "unrolled": (Unrolled(n_steps=25, interval=25), SLOW),
    "joint, linear": (Joint(LINEAR[0], interval=20, sample_scale=0.3), SLOW),
    "joint, low rank": (Joint(LINEAR[1], interval=40, sample_scale=0.3), replace(FULL, descent=Momentum(0.005, 0.9))),
    "joint, elementwise": (Joint(LINEAR[2], interval=20, sample_scale=0.3), SLOW),
    "joint, fine-tuning": (Joint(LINEAR[2], interval=20, sample_scale=0.3, fine_tuning=5), SLOW),
    "simplified, linear": (Simplified(LINEAR[0], interval=20), SLOW),
    "simplified, low rank": (Simplified(LINEAR[1], interval=40), replace(FULL, descent=Momentum(0.005, 0.9))),
    "simplified, elementwise": (Simplified(LINEAR[2], interval=20), SLOW),
    "global, mlp": (
        Global(lambda d, g: multilayer(d, 50, g), interval=20, n_steps=6000, sample_scale=1.0, round_length=50),
        replace(FULL, descent=Adam(4e-3)),
    ),
    "global, linear": (
        Global(LINEAR[0], interval=20, n_steps=4000, sample_scale=1.0, round_length=50),
        replace(SLOW, descent=Momentum(0.005, 0.9)),
    ),
    "t1t2": (T1T2(interval=20), FULL),
}
RUNS = [(name, n) for name in ORACLES for n in (1, P)]


@pytest.mark.parametrize(("name", "n_decays"), RUNS)
def test_the_search_ends_within_a_percent_of_the_closed_forms_optimum(name, n_decays):
    algorithm, recipe = ORACLES[name]
    problem = ridge_problem(n_decays, recipe)
    tau = 2.0
    weight = 1 / (2 * 20 * tau**2)

    def objective(z):
        return ridge_loss(problem, z) + (weight * (z**2).sum() if n_decays > 1 else 0.0)

    first = 3.0 if n_decays == 1 else 0.0
    best = minimize(objective, np.full(n_decays, first), bounds=[BOUNDS] * n_decays)
    assert objective(np.full(n_decays, first)) > 1.05 * best.fun
    response = algorithm.bind(problem)
    hyper = hyper_at(first, None if n_decays == 1 else torch.zeros(P, dtype=torch.float64))
    goal = Objective(False, 20, tau)
    walk = Walk(hyper, goal, BOUNDS, PACE, moves_alpha=n_decays == 1)
    journal = Journal(Budget(max_iter=200))
    s2 = torch.ones(1, dtype=torch.float64)
    run(response, walk, goal, s2, journal, stage="", w=response.begin(0), tol=0.0)
    log_decays = float(walk.hyper.log_alpha) + (0.0 if n_decays == 1 else walk.hyper.offsets.numpy())
    reached = objective(np.atleast_1d(log_decays))
    assert reached < 1.01 * best.fun


def network_problem(hidden=(4,), n_folds=2):
    """Three classes, two folds, a decay a layer."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(60, 3, generator=g, dtype=torch.float64)
    y = torch.nn.functional.one_hot((x[:, 0] > 0).long() + (x[:, 1] > 0).long(), 3).double()
    held = (torch.arange(60) % 3 == torch.arange(n_folds)[:, None]).double()
    network, loss = MLP((3, *hidden, 3), TANH), MultinomialLogLoss()
    decays = Decays(network.layer())
    recipe = Recipe(Adam(1e-2), batch_size=1000, max_epochs=100)
    validation = held / held.sum(-1, keepdim=True)
    return NetworkProblem(DenseDesign(x), y, 1 - held, validation, network, loss, loss, decays, recipe=recipe)


@pytest.mark.parametrize("hidden", [(), (4,)], ids=str)
def test_unrolled_hypergradients_are_those_of_finite_differences(hidden):
    problem = network_problem(hidden)
    response = Unrolled(n_steps=30, interval=31).bind(problem)
    start = response.begin(0)
    s2 = torch.ones(2, dtype=torch.float64)
    trainer, steps = response.trainer, 30
    metric = torch.full_like(start.training.w, 2.0)

    def outer(z):
        decay = problem.decays.spread(torch.from_numpy(z).exp()).expand_as(start.training.w)
        state, _, tape = unrolled_steps(trainer, start.training, decay, steps, metric)
        return state, tape, decay

    at = np.zeros(problem.decays.n_groups)
    state, tape, decay = outer(at)
    _, v = response.held_out(state)
    _, products = reverse(trainer, tape, decay, v)
    ours = -problem.decays.group_sums(decay * products).sum(0).numpy()
    expected = finite_differences(lambda z: float(problem.outer(outer(z)[0].w)), at)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-9)
    evaluation = response.evaluate(hyper_at(0.0, torch.from_numpy(at)), s2, start)
    assert evaluation.gradient.offsets.isfinite().all()


def test_at_a_solution_implicit_unrolled_and_finite_differences_agree():
    problem = ridge_problem(P)
    at = np.linspace(-1, 1, P)
    expected = finite_differences(lambda z: ridge_loss(problem, z), at)
    w = torch.from_numpy(ridge_weights(problem, at))[None]
    hyper, s2 = hyper_at(0.0, torch.from_numpy(at)), torch.ones(1, dtype=torch.float64)
    implicit = GaussNewton(interval=1, cg_max_iter=100, cg_tol=1e-12, horizon=1e12, dtype=torch.float64).bind(problem)
    training = implicit.begin(0, w).training
    training = training._replace(moments=training.moments._replace(t=10**12))
    by_implicit, error, _ = implicit.pull(training, hyper, s2, implicit.held_out(training)[1], None)
    np.testing.assert_allclose(by_implicit[0], expected, rtol=1e-5, atol=1e-9)
    assert error < 1e-10
    decay = implicit.decay(hyper, w)
    trainer = implicit.trainer
    state, _, tape = unrolled_steps(trainer, training, decay, 1500, torch.full_like(w, 5.0))
    _, products = reverse(trainer, tape, decay, implicit.held_out(state)[1])
    np.testing.assert_allclose(-problem.decays.group_sums(decay * products)[0], expected, rtol=1e-4, atol=1e-9)


HYPERNETS = {
    "elementwise": lambda d: Elementwise(d),
    "linear": lambda d: Linear(d),
    "low_rank": lambda d: LowRank(d, 2),
    "mlp": lambda d: multilayer(d, 5, torch.Generator().manual_seed(0)),
}


@pytest.mark.parametrize("name", HYPERNETS)
def test_a_hypernetworks_pullback_is_its_derivative(name):
    decays = network_problem().decays
    hypernet = HYPERNETS[name](decays)
    g = torch.Generator().manual_seed(1)
    w = torch.randn(2, hypernet.n_weights, generator=g, dtype=torch.float64)
    phi = hypernet.start(w, g)
    zeros = torch.zeros(2, decays.n_groups, dtype=torch.float64)
    torch.testing.assert_close(hypernet.weights(phi, zeros), w)
    phi = phi + 0.3 * torch.randn(phi.shape, generator=g, dtype=torch.float64)
    x, u = (torch.randn(2, n, generator=g, dtype=torch.float64) for n in (decays.n_groups, hypernet.n_weights))
    by_phi, by_x = hypernet.to_parameters(phi, x, u), hypernet.to_decays(phi, x, u)
    for gradient, move in ((by_phi, "phi"), (by_x, "x")):
        along = torch.randn(gradient.shape, generator=g, dtype=torch.float64)
        h = 1e-6
        ends = [
            hypernet.weights(phi + s * h * along, x) if move == "phi" else hypernet.weights(phi, x + s * h * along)
            for s in (1, -1)
        ]
        expected = ((ends[0] - ends[1]) * u).sum() / (2 * h)
        torch.testing.assert_close((gradient * along).sum(), expected, rtol=1e-5, atol=1e-7)
    there = hypernet.weights(phi, x)
    hypernet.recentre(phi, x)
    torch.testing.assert_close(hypernet.weights(phi, zeros), there)


@pytest.mark.parametrize(
    "make", [*LINEAR, lambda d, g: multilayer(d, 5, g)], ids=["linear", "low_rank", "elementwise", "mlp"]
)
def test_what_is_remembered_of_a_hypernetwork_generates_the_same_weights_there_and_nearly_the_same_beside(make):
    g = torch.Generator().manual_seed(0)
    decays = network_problem().decays
    hypernet = make(decays, g)
    phi = hypernet.start(torch.randn(2, hypernet.n_weights, generator=g), g)
    phi += 0.3 * torch.randn(phi.shape, generator=g)
    parts, before = hypernet.packed(phi), phi.clone()
    phi.zero_()
    again, x = hypernet.unpacked(parts), torch.randn(2, decays.n_groups, generator=g)
    torch.testing.assert_close(hypernet.at_origin(again), hypernet.at_origin(before), rtol=0, atol=0)
    torch.testing.assert_close(hypernet.weights(again, x), hypernet.weights(before, x), rtol=0.05, atol=0.02)
    again.zero_()
    torch.testing.assert_close(parts[0][:, : hypernet.n_weights], before[:, : hypernet.n_weights], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("make", "descent", "cosine", "error"),
    [
        (LINEAR[0], SLOW.descent, 0.99, 0.05),
        (LINEAR[1], Momentum(0.005, 0.9), 0.85, 0.5),
        (LINEAR[2], SLOW.descent, 0.85, 0.5),
        (lambda d, g: multilayer(d, 50, g), Adam(1e-3), 0.98, 0.2),
    ],
    ids=["linear", "low_rank", "elementwise", "mlp"],
)
def test_joint_training_learns_the_jacobian_of_the_exact_best_response(make, descent, cosine, error):
    """As far as it can: ten directions that start at random, and a diagonal, are not all of it."""
    problem = ridge_problem(P, replace(SLOW, descent=descent))
    steps = np.eye(P) * 1e-4
    exact = np.stack([(ridge_weights(problem, s) - ridge_weights(problem, -s)) / 2e-4 for s in steps], 1)
    response = Joint(make, sample_scale=0.2, interval=4000).bind(problem)
    hyper = hyper_at(0.0, torch.zeros(P, dtype=torch.float64))
    evaluation = response.evaluate(hyper, torch.ones(1, dtype=torch.float64), response.begin(0))
    phi, x = evaluation.state.memory.phi.double(), torch.zeros(1, P, dtype=torch.float64)
    units = torch.eye(problem.network.n_weights, dtype=torch.float64)
    learnt = torch.cat([response.hypernet.to_decays(phi, x, unit[None]) for unit in units]).numpy()
    assert (learnt * exact).sum() / np.linalg.norm(learnt) / np.linalg.norm(exact) > cosine
    assert np.linalg.norm(learnt - exact) < error * np.linalg.norm(exact)


def test_an_elementwise_hypernetwork_needs_other_decays():
    with pytest.raises(ValueError, match="elementwise"):
        Simplified(LINEAR[2], dither=0.0).bind(ridge_problem(1))


def test_a_divergence_is_rolled_back_and_the_best_weights_kept():
    problem = replace(network_problem(), recipe=Recipe(Momentum(50.0, 0.9), batch_size=1000, max_epochs=100))
    result = hyper_train(problem, GaussNewton(interval=5), TrainingPlan(), Budget(), seed=0)
    assert torch.isfinite(result.snapshots[0].w).all()


@pytest.mark.parametrize("name", ORACLES)
def test_a_folds_held_out_targets_do_not_move_its_weights(name):
    algorithm, problem = ORACLES[name][0], network_problem()
    changed = problem.y.clone()
    changed[problem.train[0] == 0] = 0.0
    weights = []
    for y in (problem.y, changed):
        response = algorithm.bind(replace(problem, y=y))
        hyper = hyper_at(-1.0, torch.zeros(problem.decays.n_groups, dtype=torch.float64))
        progress = response.begin(0)
        for _ in range(7):
            progress = response.evaluate(hyper, torch.ones(2, dtype=torch.float64), progress).state
        weights.append(progress.training.w)
    torch.testing.assert_close(weights[0][0], weights[1][0], rtol=0, atol=0)
    assert not torch.equal(weights[0][1], weights[1][1])


def test_the_final_network_goes_on_from_the_tuned_weights():
    problem = network_problem()
    result = hyper_train(problem, GaussNewton(interval=5), TrainingPlan(), Budget(), seed=0)
    everything = replace(problem, train=torch.ones(1, 60, dtype=torch.float64), validation=torch.full((1, 60), 1 / 60))
    trained = train_on(everything, result.snapshots[0], Budget())
    assert trained.losses[-1] < trained.losses[0]
    assert len(trained.losses) == result.snapshots[0].state.epochs


def test_what_has_learnt_little_of_late_takes_few_further_epochs():
    problem = network_problem()
    result = hyper_train(problem, GaussNewton(interval=5), TrainingPlan(), Budget(), seed=0)
    everything = replace(problem, train=torch.ones(1, 60, dtype=torch.float64), validation=torch.full((1, 60), 1 / 60))
    done = result.snapshots[0].state.epochs
    for plain in (done, 10 * done):
        recipe = replace(problem.recipe, max_epochs=plain)
        trained = train_on(replace(everything, recipe=recipe), result.snapshots[0], Budget(), learning=False)
        assert len(trained.losses) == (math.ceil(done / 4) if plain == done else done)
    fresh = train_on(everything, result.snapshots[0], Budget(), True, result.snapshots[0].w[:1] * 0 + 0.1)
    assert len(fresh.losses) == fresh.epochs == 2 * done


@pytest.mark.parametrize(
    ("values", "learning"), [([4, 2, 1.5, 1.4, 1.0, 1.1], True), ([4, 1.2, 1.1, 1.05, 1.0], False), ([3, -1, -2], True)]
)
def test_held_out_losses_say_whether_a_network_is_still_learning(values, learning):
    records = [Record("one", i, float(value), *[0.0] * 6) for i, value in enumerate(values)]
    assert still_learning([*records, Record("two", 0, 0.5, *[0.0] * 6)], "one") == learning


def early(observer=None, some=True):
    """Targets without a law: the network of the fold is best at once; the halves, if any, are of the same rows."""
    problem = network_problem(n_folds=1)
    y = problem.y[torch.randperm(60, generator=torch.Generator().manual_seed(1))]
    problem = replace(problem, y=y, recipe=replace(problem.recipe, descent=Adam(0.1), max_epochs=200))
    held = torch.stack([torch.arange(60) % 2 == k for k in (0, 1)]).double()
    halves = replace(problem, train=1 - held, validation=held / 30)
    plan, budget = TrainingPlan(), Budget()
    one = hyper_train(problem, GaussNewton(interval=5), plan, budget, 0)
    made = {"observer": observer, "halves": lambda: halves if some else None}
    return one, hyper_train(problem, GaussNewton(interval=5), plan, budget, 0, **made)


def test_halves_change_alpha_alone_and_are_walked_by_weights_that_have_settled():
    one, both = early()
    assert len(both.snapshots) == 1
    assert {r.stage for r in both.history} == {"global alpha", "global alpha, halves"}
    torch.testing.assert_close(both.snapshots[0].w, one.snapshots[0].w, rtol=0, atol=0)
    walked = [r.log_alpha for r in both.history if r.stage.endswith("halves")]
    ends = float(both.snapshots[0].hyper.log_alpha)
    assert ends != float(one.snapshots[0].hyper.log_alpha)
    # Alpha is taken from 30 training rows to 40; the last step comes after the last record.
    assert ends == pytest.approx(walked[-1] + np.log(30 / 40), abs=0.25)
    assert len(set(walked[:5])) == 1


def test_rows_that_make_no_halves_leave_alpha_to_the_first_walk():
    one, both = early(some=False)
    assert {r.stage for r in both.history} == {"global alpha"}
    assert both.snapshots[0].hyper.log_alpha == one.snapshots[0].hyper.log_alpha
    assert both.checkpoint.crossed


def test_an_interruption_among_the_halves_leaves_the_weights_before():
    def interrupt(record):
        if record.stage.endswith("halves"):
            raise KeyboardInterrupt

    one, both = early(interrupt)
    assert both.stop_reason is StopReason.INTERRUPTED
    torch.testing.assert_close(both.snapshots[0].w, one.snapshots[0].w, rtol=0, atol=0)
    assert both.snapshots[0].hyper.log_alpha == one.snapshots[0].hyper.log_alpha
