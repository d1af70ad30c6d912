"""Flat weights, their parts, and the map to outputs."""

import pytest
import torch

from skhyper.core.designs import DenseDesign
from skhyper.core.networks import LinearNetwork

NETWORKS = [
    LinearNetwork(n_features, n_outputs, intercept, n_constants)
    for n_features in [1, 4]
    for n_outputs in [1, 3]
    for intercept in [True, False]
    for n_constants in [0, 1]
]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=NETWORKS, ids=str)
def network(request):
    return request.param


@pytest.mark.parametrize("leading", [(), (3,), (2, 3)])
def test_join_is_the_inverse_of_split(network, leading):
    w = random(*leading, network.n_weights)
    layers = network.split(w)
    assert layers.coefficients.shape == (*leading, network.n_features, network.n_outputs)
    assert layers.intercepts.shape == (*leading, network.n_outputs)
    assert layers.constants.shape == (*leading, network.n_constants)
    torch.testing.assert_close(network.join(layers), w)


def test_outputs_are_affine_in_the_rows_and_constants_the_same_for_all(network):
    x, w = random(5, network.n_features), random(3, network.n_weights, seed=1)
    f = network.outputs(w, DenseDesign(x))
    coefficients, intercepts, constants = network.split(w)
    assert f.shape == (3, 5, network.n_outputs + network.n_constants)
    torch.testing.assert_close(f[..., : network.n_outputs], x @ coefficients + intercepts[:, None])
    torch.testing.assert_close(f[..., network.n_outputs :], constants[:, None].expand(-1, 5, -1))


@pytest.mark.parametrize("leading", [(3,), (2, 3)])
def test_pullback_is_the_transpose_of_outputs(network, leading):
    design = DenseDesign(random(3, 5, network.n_features))
    w = random(*leading, network.n_weights, seed=1)
    u = random(*leading, 5, network.n_outputs + network.n_constants, seed=2)
    forward = (network.outputs(w, design) * u).sum((-1, -2))
    torch.testing.assert_close(forward, (network.pullback(u, design) * w).sum(-1))
