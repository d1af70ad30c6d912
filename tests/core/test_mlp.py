"""Multilayer perceptrons: their derivatives against autograd, their training against scikit-learn's."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.utils._testing import ignore_warnings
from sklearn.utils.validation import has_fit_parameter

from skhyper.adapters.mlp import MLPClassifierAdapter, MLPRegressorAdapter
from skhyper.adapters.network import NetworkGranularity, encode_network
from skhyper.boundary import Granularity, to_tensor
from skhyper.core.mlp import IDENTITY, LOGISTIC, MLP, RELU, TANH
from skhyper.core.training import Trainer

ACTIVATIONS = {"identity": IDENTITY, "logistic": LOGISTIC, "tanh": TANH, "relu": RELU}


def plain_outputs(network, w, x):
    """The network as autograd can see it."""
    h = x
    functions = {id(RELU): torch.relu, id(TANH): torch.tanh, id(LOGISTIC): torch.sigmoid, id(IDENTITY): lambda z: z}
    for depth, (coefficients, intercepts) in enumerate(network.split(w)):
        h = (functions[id(network.activation)](h) if depth else h) @ coefficients + intercepts[..., None, :]
    return h


@pytest.mark.parametrize("activation", ACTIVATIONS.values(), ids=list(ACTIVATIONS))
@pytest.mark.parametrize("hidden", [(), (5,), (4, 3)], ids=str)
@pytest.mark.parametrize("batch", [(), (2,), (3, 2)], ids=str)
def test_derivatives_agree_with_autograd(activation, hidden, batch):
    network = MLP((3, *hidden, 2), activation)
    g = torch.Generator().manual_seed(0)
    w, v = (torch.randn(*batch, network.n_weights, generator=g, dtype=torch.float64) for _ in range(2))
    x = torch.randn(*batch, 7, 3, generator=g, dtype=torch.float64)
    u = torch.randn(*batch, 7, 2, generator=g, dtype=torch.float64)
    tape = network.forward(w, x)
    expected, along = torch.autograd.functional.jvp(lambda w: plain_outputs(network, w, x), w, v)
    torch.testing.assert_close(tape.f, expected)
    torch.testing.assert_close(network.push(w, tape, v), along)
    _, pulled = torch.autograd.functional.vjp(lambda w: plain_outputs(network, w, x), w, u)
    torch.testing.assert_close(network.backward(w, tape, u), pulled)


def test_a_network_without_hidden_layers_is_linear():
    network = MLP((3, 2))
    w = torch.arange(8.0, dtype=torch.float64)
    x = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(network.forward(w, x).f, w[:6].reshape(3, 2) + w[6:])


def test_weights_share_a_decay_by_layer_unit_and_input():
    network = MLP((2, 3, 1))
    np.testing.assert_array_equal(network.layer(), [0] * 6 + [-1] * 3 + [1] * 3 + [-1])
    np.testing.assert_array_equal(network.unit(), [0, 1, 2] * 2 + [-1] * 3 + [3] * 3 + [-1])
    np.testing.assert_array_equal(network.fan_in(), [0] * 3 + [1] * 3 + [-1] * 3 + [2, 3, 4] + [-1])


@pytest.mark.parametrize("name", ["global", "layer", "output", "feature", "weight"])
@pytest.mark.parametrize("labels", [None, np.array(["a", "b", "a"], dtype=object)], ids=["columns", "groups"])
def test_every_decay_has_a_name(name, labels):
    if labels is not None and name != "feature":
        return
    granularity = NetworkGranularity(Granularity(name, labels), (4, 2))
    index = granularity.index(MLP((3, 4, 2, 2)))
    names = granularity.names(["x", "y", "z"], ["a", "b"])
    assert sorted(set(index.tolist()) - {-1}) == list(range(len(names)))
    assert len(set(names)) == len(names)


def encoded(adapter, estimator, x, y, sample_weight=None):
    classes = adapter.classes(estimator, y)
    granularity = adapter.granularity(estimator, Granularity("global"))
    encoding = encode_network(
        adapter, estimator, x, y, granularity=granularity, sample_weight=sample_weight, classes=classes
    )
    return encoding, classes


CASES = [
    (MLPRegressorAdapter(), MLPRegressor(hidden_layer_sizes=(5,)), 1),
    (MLPRegressorAdapter(), MLPRegressor(hidden_layer_sizes=(5, 4), activation="tanh"), 2),
    (MLPRegressorAdapter(), MLPRegressor(hidden_layer_sizes=(3,), solver="sgd", activation="logistic"), 1),
    (
        MLPRegressorAdapter(),
        MLPRegressor(hidden_layer_sizes=(3,), solver="sgd", nesterovs_momentum=False, momentum=0.5),
        1,
    ),
    (MLPClassifierAdapter(), MLPClassifier((5,), activation="identity"), 2),
    (MLPClassifierAdapter(), MLPClassifier((4, 3), beta_1=0.8, beta_2=0.99), 3),
]


@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
@pytest.mark.parametrize(("adapter", "estimator", "n_outputs"), CASES, ids=lambda c: repr(c)[:40])
def test_at_a_fixed_alpha_training_is_scikit_learns_own_step_by_step(adapter, estimator, n_outputs, weighted):
    rng = np.random.RandomState(0)
    x = rng.standard_normal((23, 3))
    if isinstance(estimator, MLPClassifier):
        y = np.arange(23) % n_outputs
    else:
        y = rng.standard_normal((23, n_outputs))
        y = y[:, 0] if n_outputs == 1 else y
    if weighted and not has_fit_parameter(MLPRegressor(), "sample_weight"):
        pytest.skip("this scikit-learn's networks take no weights")
    weights = rng.uniform(0.5, 2, 23) if weighted else None
    alpha, epochs = 0.7, 12
    estimator.set_params(alpha=alpha, batch_size=10, shuffle=False, max_iter=epochs, n_iter_no_change=1000)
    estimator.set_params(random_state=1)
    own = ignore_warnings(estimator.fit)(x, y, **({} if weights is None else {"sample_weight": weights}))
    encoding, classes = encoded(adapter, estimator, x, y, weights)
    problem = encoding.problem
    trainer = Trainer(problem)
    w = to_tensor(adapter.start(estimator, problem.network, np.random.RandomState(1)))[None]
    decay = alpha * (problem.decays.index >= 0).to(w)[None]
    state, _loss = trainer.run(trainer.start(0, w), decay, epochs * trainer.steps_per_epoch)
    solution = encoding.solution(state.w[0])
    for ours, theirs in zip(solution.coefficients + solution.intercepts, own.coefs_ + own.intercepts_, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    fitted = type(estimator)().set_params(**estimator.get_params())
    fitted.n_features_in_ = 3
    adapter.store(fitted, solution, x, y, classes)
    method = "predict_proba" if classes is not None else "predict"
    np.testing.assert_allclose(getattr(fitted, method)(x), getattr(own, method)(x), rtol=1e-9)
    assert set(vars(own)) - {"_optimizer"} <= set(vars(fitted)) | {"_coef_indptr", "_intercept_indptr"}


def test_a_run_resumes_exactly_from_a_kept_state():
    rng = np.random.RandomState(0)
    x, y = rng.standard_normal((30, 3)), rng.standard_normal(30)
    encoding, _ = encoded(MLPRegressorAdapter(), MLPRegressor(hidden_layer_sizes=(4,), batch_size=7), x, y)
    trainer = Trainer(encoding.problem)
    decay = torch.full((1, encoding.problem.network.n_weights), 0.1, dtype=torch.float64)
    kept, _ = trainer.run(trainer.start(3), decay, 7)
    copy = deepcopy(kept)
    one, _ = trainer.run(kept, decay, 11)
    two, _ = trainer.run(copy, decay, 11)
    torch.testing.assert_close(one.w, two.w, rtol=0, atol=0)
