"""Torch modules as main networks: against the multilayer perceptron, autograd and finite differences."""

from dataclasses import replace
from math import prod

import pytest
import torch
from torch import nn
from torch.func import functional_call

from skhyper.core.algorithms.gauss_newton import GaussNewton
from skhyper.core.decays import Decays
from skhyper.core.designs import DenseDesign
from skhyper.core.hypertraining import TrainingPlan, hyper_train
from skhyper.core.loop import Budget
from skhyper.core.losses import MultinomialLogLoss, SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.module_network import ModuleNetwork
from skhyper.core.problem import NetworkProblem
from skhyper.core.recipe import Adam, Recipe
from skhyper.core.trained import Penalty, System
from skhyper.core.training import Trainer

SIZES = (3, 4, 2)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sequential():
    """The module that is the perceptron of SIZES."""
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def as_module(network, w):
    """The perceptron's flat weights in the module's order: (..., n_weights)."""
    parts = []
    for coefficients, intercepts in network.split(w):
        parts += [coefficients.mT.flatten(-2), intercepts]
    return torch.cat(parts, -1)


PERCEPTRON, MODULE = MLP(SIZES, TANH), ModuleNetwork(sequential(), (3,), 2, torch.float64)


@pytest.mark.parametrize("batch", [(), (1,), (2,), (3, 2)], ids=str)
def test_outputs_and_derivatives_are_those_of_the_perceptron(batch):
    w, v = normal(*batch, PERCEPTRON.n_weights), normal(*batch, PERCEPTRON.n_weights, seed=1)
    x, u = normal(*batch, 7, 3, seed=2), normal(*batch, 7, 2, seed=3)
    mw, mv = as_module(PERCEPTRON, w), as_module(PERCEPTRON, v)
    theirs, ours = PERCEPTRON.forward(w, x), MODULE.forward(mw, x)
    torch.testing.assert_close(ours.f, theirs.f)
    torch.testing.assert_close(MODULE.predict(mw, x), theirs.f)
    torch.testing.assert_close(MODULE.backward(mw, ours, u), as_module(PERCEPTRON, PERCEPTRON.backward(w, theirs, u)))
    torch.testing.assert_close(MODULE.push(mw, ours, mv), PERCEPTRON.push(w, theirs, v))


def problems(n_folds=1, recipe=None):
    """The same problem for both networks."""
    recipe = recipe or Recipe(Adam(0.01), batch_size=8, max_epochs=30)
    x = normal(40, 3, seed=4)
    y = torch.cat([x[:, :1].sin(), x[:, 1:2] * x[:, 2:]], -1) + 0.1 * normal(40, 2, seed=5)
    held = torch.stack([(torch.arange(40) % 4 == k).double() for k in range(n_folds)])
    parts = (DenseDesign(x), y, (1 - held) / 4, held / held.sum(-1, keepdim=True))
    index = torch.where(PERCEPTRON.layer() >= 0, 0, -1)
    order = as_module(PERCEPTRON, torch.arange(PERCEPTRON.n_weights)).long()
    loss = SquaredError()
    ours = NetworkProblem(*parts, MODULE, loss, loss, Decays(index[order]), recipe=recipe)
    return NetworkProblem(*parts, PERCEPTRON, loss, loss, Decays(index), recipe=recipe), ours


@pytest.mark.parametrize("n_folds", [1, 3])
def test_gauss_newton_products_are_those_of_the_perceptron(n_folds):
    v, products = normal(n_folds, PERCEPTRON.n_weights, seed=6), []
    w = normal(1, PERCEPTRON.n_weights, seed=7).expand(n_folds, -1)
    for problem, change in zip(problems(n_folds), (lambda z: z, lambda z: as_module(PERCEPTRON, z)), strict=True):
        trainer = Trainer(problem)
        state = trainer.start(0, change(w))
        decay = problem.decays.spread(torch.full((n_folds, 1), 0.1, dtype=torch.float64))
        system = System(problem, trainer, state, Penalty(decay), 1000, 10.0, torch.float64)
        products.append(system.product(change(v)))
    torch.testing.assert_close(products[1], as_module(PERCEPTRON, products[0]))


@pytest.mark.parametrize("n_folds", [1, 3])
def test_a_search_takes_the_way_of_the_perceptrons(n_folds):
    results = []
    w = 0.5 * normal(1, PERCEPTRON.n_weights, seed=8)
    for problem, start in zip(problems(n_folds), (w, as_module(PERCEPTRON, w)), strict=True):
        plan = TrainingPlan(log_scale=True)
        found = hyper_train(problem, GaussNewton(dtype=torch.float64), plan, Budget(max_iter=15), 0, start)
        results.append(found)
    theirs, ours = results
    assert [r.log_alpha for r in ours.history] == pytest.approx([r.log_alpha for r in theirs.history], rel=1e-6)
    torch.testing.assert_close(ours.snapshots[0].w, as_module(PERCEPTRON, theirs.snapshots[0].w), rtol=1e-6, atol=1e-8)
    assert len({r.log_alpha for r in ours.history}) > 3


class Attention(nn.Module):
    """Four tokens of three numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.first, self.last = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.layer(self.first(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.last = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.last(self.cell(x)[0][:, -1])


class Branching(nn.Module):
    """Its flow depends on the data, its output on no second parameter; one weight is used twice."""

    def __init__(self):
        super().__init__()
        self.shared, self.idle = nn.Linear(3, 3), nn.Parameter(torch.ones(2))
        self.last = nn.Linear(3, 2)

    def forward(self, x):
        h = self.shared(x)
        return self.last(self.shared(h).tanh() if float(x.detach().mean()) > -100 else h)


MODULES = {
    "convolution": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.LayerNorm(12), nn.Linear(12, 2)
        ),
        (1, 4, 4),
    ),
    "attention": (Attention, (4, 3)),
    "recurrent": (Recurrent, (4, 3)),
    "branching": (Branching, (3,)),
}


@pytest.mark.parametrize("name", MODULES)
def test_derivatives_of_any_module_agree_with_finite_differences(name):
    make, shape = MODULES[name]
    torch.manual_seed(0)
    network = ModuleNetwork(make().double(), shape, 2, torch.float64)
    w = network.start(2, torch.Generator()) + 0.1 * normal(2, network.n_weights)
    x = normal(5, prod(shape), seed=3)
    v, u = normal(2, network.n_weights, seed=1), normal(2, 5, 2, seed=2)
    tape = network.forward(w, x)
    h = 1e-6
    along = (network.predict(w + h * v, x) - network.predict(w - h * v, x)) / (2 * h)
    torch.testing.assert_close(network.push(w, tape, v), along, rtol=1e-6, atol=1e-7)
    pulled = network.backward(w, tape, u)
    torch.testing.assert_close((pulled * v).sum(-1), (along * u).sum((-1, -2)), rtol=1e-6, atol=1e-7)


def dropout_network():
    return ModuleNetwork(
        nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.Linear(50, 2)).double(), (3,), 2, torch.float64
    )


def test_dropout_acts_in_training_alone_and_differs_by_fold_and_step():
    network = dropout_network()
    w, x = network.start(2, torch.Generator()), normal(6, 3)
    before = torch.get_rng_state()
    one, again, other = (network.forward(w, x, noise).f for noise in (1, 1, 2))
    torch.testing.assert_close(one, again, rtol=0, atol=0)
    assert not torch.allclose(one, other)
    assert not torch.allclose(one[0], one[1])
    torch.testing.assert_close(network.forward(w, x).f[0], network.forward(w, x).f[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_with_dropout_resumes_exactly():
    _, problem = problems()
    network = dropout_network()
    problem = replace(problem, network=network, decays=Decays(torch.zeros(network.n_weights, dtype=torch.int64)))
    trainer = Trainer(problem)
    decay = torch.full((1, network.n_weights), 0.01, dtype=torch.float64)
    whole, _ = trainer.run(trainer.start(3), decay, 9)
    part, _ = trainer.run(trainer.start(3), decay, 4)
    part, _ = Trainer(problem).run(part, decay, 5)
    torch.testing.assert_close(part.w, whole.w, rtol=0, atol=0)
    other, _ = trainer.run(trainer.start(4, trainer.start(3).w), decay, 9)
    assert not torch.allclose(other.w, whole.w)


def test_the_module_keeps_its_own_precision_and_global_state_is_left_alone():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    network = ModuleNetwork(module, (3,), 2, torch.float32)
    w, x = network.start(1, torch.Generator()), normal(5, 3)
    assert w.dtype == torch.float64
    torch.testing.assert_close(network.forward(w, x).f[0], module(x.float()).double().detach(), rtol=0, atol=0)
    assert torch.get_default_dtype() == torch.float32


def test_logarithms_of_probabilities_have_the_gradient_of_the_likelihood():
    module = nn.Sequential(nn.Linear(3, 4), nn.Softmax(-1)).double()
    network = ModuleNetwork(module, (3,), 4, torch.float64, log_link=1e-12)
    w, x = network.start(1, torch.Generator())[0], normal(5, 3)
    y = torch.eye(4, dtype=torch.float64)[torch.tensor([0, 1, 2, 3, 0])]
    tape = network.forward(w, x)
    ours = network.backward(w, tape, MultinomialLogLoss().gradient(tape.f, y) / 5)
    leaves = [p.detach().requires_grad_() for p in network.split(w)]
    named = dict(zip(dict(module.named_parameters()), leaves, strict=True))
    loss = nn.NLLLoss()(functional_call(module, named, (x,)).log(), y.argmax(-1))
    expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(ours, expected)


def test_frozen_parameters_are_no_weights():
    module = sequential()
    module[0].requires_grad_(False)
    network = ModuleNetwork(module, (3,), 2, torch.float64)
    assert network.n_weights == 10
    assert [p.name for p in network.parameters] == ["2.weight", "2.bias"]
