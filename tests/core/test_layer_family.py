"""The decay family in networks: its decays, its penalty, and its hypergradient against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.autograd.functional import hessian

from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.algorithms.joint import Joint
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign
from skhyper.core.final_network import train_on
from skhyper.core.hypernets import Elementwise
from skhyper.core.hypertraining import TrainingPlan, hyper_train
from skhyper.core.layer_family import UNIT, LayerFamily
from skhyper.core.loop import Budget
from skhyper.core.losses import SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Momentum, Recipe
from skhyper.core.result import StopReason
from skhyper.core.training import Trainer
from skhyper.core.walk import Pace

TWO = torch.tensor(2.0, dtype=torch.float64)
FULL = Recipe(Momentum(0.1, 0.9), batch_size=1000, max_epochs=100)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem_of(sizes, index, n_folds=1, recipe=FULL):
    """40 rows for training, 20 held out (of the first fold: the last ones)."""
    network, loss = MLP(sizes, TANH), SquaredError()
    x = normal(60, sizes[0], seed=1)
    y = x[:, :1].sin() + 0.5 * x[:, 1:2] + 0.2 * normal(60, 1, seed=2)
    held = torch.stack([(torch.arange(60) // 20 == 2 - k).double() for k in range(n_folds)])
    decays = Decays(index(network))
    parts = (DenseDesign(x), y, 1 - held, held / held.sum(-1, keepdim=True))
    return NetworkProblem(*parts, network, loss, loss, decays, recipe=recipe)


def by_weight(network):
    decayed = network.layer() >= 0
    return torch.where(decayed, decayed.cumsum(0) - 1, -1)


INDICES = {"output": lambda n: n.unit(), "feature": lambda n: n.fan_in(), "weight": by_weight}


def hyper_at(log_alpha, offsets):
    return Hyper(torch.tensor(log_alpha, dtype=torch.float64), TWO, torch.tensor(offsets, dtype=torch.float64))


@pytest.mark.parametrize("name", INDICES)
def test_each_layer_has_its_own_alpha_exponent_and_scale(name):
    problem = problem_of((3, 4, 1), INDICES[name], n_folds=2)
    w = normal(2, problem.network.n_weights)
    family = LayerFamily.at(problem.decays, problem.network.layer(), w, None)
    start = hyper_at(-1.0, [0.0] * 4)
    torch.testing.assert_close(family.log_decays(w, start), torch.full_like(family.relative(w), -1.0))
    moved = hyper_at(-1.0, [0.3, -0.2, -1.0, -0.5])
    torch.testing.assert_close(family.exponents(moved), torch.tensor([2 - UNIT, 2 - UNIT / 2], dtype=torch.float64))
    layer, index = problem.network.layer(), problem.decays.index
    logs = problem.decays.spread(family.log_decays(w, moved))
    for l, (shift, q) in enumerate([(0.3, 2 - UNIT), (-0.2, 2 - UNIT / 2)]):
        s2 = (w[1, layer == l] ** 2).mean()
        j = int((layer == l).nonzero()[0])
        m = (w[1, index == index[j]] ** 2).mean()
        expected = -1.0 + shift + (q / 2 - 1) * torch.log(m / s2 + problem.decays.eps)
        torch.testing.assert_close(logs[1, j], expected)


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("exponent", [None, 1.4])
def test_the_penaltys_hessian_is_that_of_its_gradient(name, exponent):
    problem = problem_of((3, 4, 1), INDICES[name])
    w = normal(1, problem.network.n_weights)
    family = LayerFamily.at(problem.decays, problem.network.layer(), w, exponent)
    hyper = hyper_at(-0.5, [0.3, -0.2] + ([-1.0, -0.5] if exponent is None else []))
    v, h = normal(1, problem.network.n_weights, seed=3), 1e-6

    def gradient(at):
        return problem.decays.spread(family.log_decays(at, hyper).exp()) * at

    found = problem.decays.spread(family.log_decays(w, hyper).exp()) * v
    pulled = family.concavity(w, hyper) * problem.decays.group_sums(w * v)
    found = found - problem.decays.spread(pulled) * w
    torch.testing.assert_close(found, (gradient(w + h * v) - gradient(w - h * v)) / (2 * h), rtol=1e-6, atol=1e-8)


def converged(problem, family, hyper, w, n_descent=0):
    """A minimiser of the training loss and the family's penalty: some steps down its gradient, then Newton's."""
    network, x = problem.network, problem.design.x

    def loss(flat):
        return (problem.train[0] * problem.loss.value(network.forward(flat, x).f, problem.y)).sum()

    def gradient(flat):
        decay = problem.decays.spread(family.log_decays(flat[None], hyper).exp())[0]
        tape = network.forward(flat, x)
        u = problem.train[0][:, None] * problem.loss.gradient(tape.f, problem.y)
        return network.backward(flat, tape, u) + decay * flat

    def curvature(flat):
        exact = hessian(plain_loss(problem), flat)
        penalty = problem.decays.spread(family.log_decays(flat[None], hyper).exp())[0].diag()
        b = family.concavity(flat[None], hyper)[0]
        index = problem.decays.index
        same = (index[:, None] == index[None, :]) & (index[:, None] >= 0)
        return exact + penalty - torch.where(same, b[index.clamp(min=0)][:, None], 0.0) * flat[:, None] * flat

    velocity = torch.zeros_like(w)
    for _ in range(n_descent):
        velocity = 0.95 * velocity - 0.002 * gradient(w)
        w = w + velocity
    for _ in range(15):
        w = w - torch.linalg.solve(curvature(w), gradient(w))
    assert gradient(w).norm() < 1e-9
    return w, curvature(w)


def plain_loss(problem):
    """The training loss as torch can differentiate it twice."""

    def loss(flat):
        h = problem.design.x
        for depth, (coefficients, intercepts) in enumerate(problem.network.split(flat)):
            h = (torch.tanh(h) if depth else h) @ coefficients + intercepts
        return (problem.train[0][:, None] * (h - problem.y) ** 2).sum() / 2

    return loss


@pytest.mark.parametrize("name", INDICES)
@pytest.mark.parametrize("exponent", [None, 1.5])
def test_the_hypergradient_of_a_converged_network_agrees_with_finite_differences(name, exponent):
    problem = problem_of((3, 2, 1), INDICES[name])
    w = 0.7 * normal(problem.network.n_weights, seed=5)
    family = LayerFamily.at(problem.decays, problem.network.layer(), w[None], exponent)
    at = [0.3, -0.2] + ([-0.8, -0.5] if exponent is None else [])

    def outer(offsets, start):
        return float(problem.outer(converged(problem, family, hyper_at(-2.0, offsets), start)[0][None]))

    w, matrix = converged(problem, family, hyper_at(-2.0, at), w, n_descent=2500)
    hyper, tape = hyper_at(-2.0, at), problem.network.forward(w, problem.design.x)
    u = problem.validation[0][:, None] * problem.outer_loss.gradient(tape.f, problem.y)
    v = problem.network.backward(w, tape, u)
    adjoint = torch.linalg.solve(matrix, v)
    decay = problem.decays.spread(family.log_decays(w[None], hyper).exp())
    by_decay = -problem.decays.group_sums(decay * adjoint * w)
    ours = family.pull(w[None], by_decay)[0].numpy()
    steps = np.eye(len(at)) * 1e-4
    differences = [(outer(at + s, w) - outer(at - s, w)) / 2e-4 for s in steps]
    np.testing.assert_allclose(ours, differences, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("exponent", [None, 1.5])
def test_training_ends_at_the_minimum_and_its_hypergradient_at_the_exact_one(exponent):
    """A network without hidden layers, whose Gauss-Newton matrix is the Hessian."""
    problem = problem_of((3, 1), by_weight)
    w = normal(1, 4, seed=5)
    family = LayerFamily.at(problem.decays, problem.network.layer(), w, exponent)
    at = [0.3] + ([-0.8] if exponent is None else [])
    hyper = hyper_at(1.0, at)
    algorithm = GaussNewton(interval=20, cg_max_iter=50, cg_tol=1e-12, horizon=1e9, dtype=torch.float64)
    response = algorithm.bind(NetworkProblem(**{**vars(problem), "family": family}))
    progress = response.begin(0, w)
    for _ in range(100):
        evaluation = response.evaluate(hyper, torch.ones(1), progress)
        progress = evaluation.state
    best, _ = converged(problem, family, hyper, w[0], n_descent=1000)
    torch.testing.assert_close(evaluation.w[0], best, rtol=1e-6, atol=1e-8)

    def outer(offsets):
        return float(problem.outer(converged(problem, family, hyper_at(1.0, offsets), best)[0][None]))

    steps = np.eye(len(at)) * 1e-4
    differences = [(outer(at + s) - outer(at - s)) / 2e-4 for s in steps]
    np.testing.assert_allclose(evaluation.gradient.offsets.numpy(), differences, rtol=1e-3)


def test_a_search_moves_the_exponents_between_their_bounds_and_trains_on_with_them():
    recipe = Recipe(Adam(0.02), batch_size=20, max_epochs=60)
    problem = problem_of((3, 4, 1), by_weight, n_folds=2, recipe=recipe)
    plan = TrainingPlan(exponents=(None, 1.5), log_scale=True, pace=Pace(step=1.0))
    result = hyper_train(problem, GaussNewton(), plan, Budget(max_iter=40), 0)
    assert [s.name for s in result.snapshots] == ["global alpha", "family, q of each layer", "family, q = 1.5"]
    assert [s.n_hyperparameters for s in result.snapshots] == [1, 5, 3]
    tuned, fixed = result.snapshots[1:]
    q = tuned.family.exponents(tuned.hyper)
    assert bool(((q >= 1) & (q <= 2)).all())
    assert float(tuned.hyper.exponent) == pytest.approx(float(q.mean()))
    assert float(fixed.hyper.exponent) == 1.5
    everything = NetworkProblem(**{**vars(problem), "train": torch.ones(1, 60), "validation": torch.ones(1, 60) / 60})
    final = train_on(everything, fixed, Budget())
    family = fixed.family.first_fold(problem.decays)
    torch.testing.assert_close(final.decays, family.log_decays(final.w, fixed.hyper)[0].exp())
    assert len(set(final.decays.tolist())) == problem.decays.n_groups
    assert bool(final.tangent.isfinite().all())


def test_hypernetworks_take_decays_for_constants():
    assert GaussNewton().follows_weights
    assert not Joint(lambda d, g: Elementwise(d)).follows_weights


def test_no_decay_is_larger_than_a_training_step_can_take():
    problem = problem_of((3, 1), by_weight, recipe=Recipe(Momentum(0.1), batch_size=15, max_epochs=10))
    problem = replace(problem, train=problem.train / 3)
    trainer = Trainer(problem)
    assert trainer.steepest == pytest.approx(10 / 0.1)  # 40 rows: 15, 15 and 10
    assert Trainer(replace(problem, recipe=replace(problem.recipe, even_decay=True))).steepest == 10
    assert Trainer(replace(problem, recipe=Recipe(Adam()))).steepest == np.inf
    w = torch.tensor([[1.0, 1e-9, 0.1, 0.0]], dtype=torch.float64)
    family = LayerFamily.at(problem.decays, problem.network.layer(), w, 1.0, cap=trainer.steepest)
    decays = family.log_decays(w, hyper_at(0.0, [0.0]))[0].exp()
    assert decays.max() == pytest.approx(100)
    assert decays[0] < decays[2] < 10
    result = hyper_train(problem, GaussNewton(), TrainingPlan(exponents=(1.0,)), Budget(max_iter=10), 0)
    assert result.snapshots[1].family.cap == trainer.steepest


class Diverging(GaussNewton):
    """Evaluations of the family are not finite."""

    def bind(self, problem):
        response = super().bind(problem)
        if problem.family is not None:
            object.__setattr__(
                response.trainer, "run", lambda state, decay, n: (state._replace(w=nan(state.w)), state.w[:, 0])
            )
        return response


def nan(w):
    return torch.full_like(w, torch.nan)


def test_a_row_that_diverges_leaves_those_before_it_and_can_be_continued():
    problem = problem_of((3, 4, 1), by_weight, recipe=Recipe(Adam(0.02), batch_size=20, max_epochs=60))
    plan = TrainingPlan(exponents=(None,), taus=(1.0,))
    result = hyper_train(problem, Diverging(), plan, Budget(max_iter=10), 0)
    assert [s.name for s in result.snapshots] == ["global alpha"]
    assert result.stop_reason is StopReason.DIVERGED
    assert result.checkpoint.end.last is None  # what trained the weights of an earlier row is not held
    more = hyper_train(problem, Diverging(), plan, Budget(max_iter=5), 0, checkpoint=result.checkpoint)
    assert len(more.history) == len(result.history) + 5


def test_final_steps_that_diverge_are_undone():
    problem = problem_of((3, 4, 1), by_weight, recipe=Recipe(Adam(0.02), batch_size=20, max_epochs=60))
    result = hyper_train(problem, GaussNewton(), TrainingPlan(), Budget(max_iter=10), 0)
    before = result.snapshots[0].w.clone()
    final = train_on(replace(problem, recipe=replace(FULL, descent=Momentum(1e3))), result.snapshots[0], Budget())
    torch.testing.assert_close(final.w, before.double(), rtol=0, atol=0)
    fine = train_on(problem, result.snapshots[0], Budget())
    assert not torch.allclose(fine.w, before.double())
