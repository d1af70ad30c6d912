"""Generators and the main network: every route to the outputs gives those of the explicit weights."""

import dataclasses

import pytest
import torch
from noise_problems import GENERATORS, make_model, normal, seeded

from skhyper.core.noise.full_generator import FullGenerator
from skhyper.core.noise.low_rank_generator import LowRankGenerator
from skhyper.core.noise.network import ACTIVATIONS
from skhyper.core.noise.predictor import Predictor

GENERATOR = pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
LAYERS = pytest.mark.parametrize("last_only", [False, True], ids=["all", "last"])


def by_hand(model, flat, x, z):
    """Outputs (M, G, R, O) of plain loops over members, draws and layers with explicit weights."""
    network = model.network
    parts = model.layout.split(flat)
    draws = network.generator.draws(parts, z)
    layers = [generator.weights(parts, name, draws) for name, _, generator in network.layers]
    members = []
    for m in range(len(flat)):
        rows = []
        for g in range(z.shape[1]):
            own = x[m, g if x.shape[1] > 1 else 0]
            h = own * parts["scales"][m]
            for i, (w, b) in enumerate(layers):
                h = h @ w[m, g] + b[m, g]
                h = torch.tanh(h) if i + 1 < len(layers) else h
            rows.append(h + own @ parts["skip"][m])
        members.append(torch.stack(rows))
    return torch.stack(members)


@GENERATOR
@LAYERS
@pytest.mark.parametrize(("groups", "rows"), [(4, 3), (7, 1), (1, 5)])
def test_outputs_are_those_of_explicit_weights(generator, last_only, groups, rows):
    """Draws with rows of their own; with one row a draw no weights are formed."""
    model, flat = make_model(generator, last_only=last_only)
    x, z = normal(2, groups, rows, 3), normal(2, groups, generator.noise_dim, seed=3)
    found = model.network.forward(model.layout.split(flat), x, z, None).outputs
    torch.testing.assert_close(found, by_hand(model, flat, x, z), rtol=1e-12, atol=1e-13)


@GENERATOR
@LAYERS
@pytest.mark.parametrize("n_draws", [2, 7])
def test_draws_may_share_their_rows(generator, last_only, n_draws):
    """Without noise there is one draw; more of them than features go by another route than fewer."""
    model, flat = make_model(generator, last_only=last_only)
    x, z = normal(2, 1, 5, 3), normal(2, n_draws if generator.stochastic else 1, generator.noise_dim, seed=3)
    found = model.network.forward(model.layout.split(flat), x, z, None).outputs
    torch.testing.assert_close(found, by_hand(model, flat, x, z), rtol=1e-12, atol=1e-13)


@GENERATOR
@LAYERS
@pytest.mark.parametrize(("groups", "rows"), [(4, 3), (6, 1), (1, 5), (0, 5), (-2, 5)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_gradient_is_that_of_recorded_operations(generator, last_only, groups, rows, activation):
    """Of explicit weights, of one row a draw, and of rows that all draws share (7 or -groups)."""
    model, flat = make_model(generator, last_only=last_only, input_noise=0.3)
    network = dataclasses.replace(model.network, activation=activation)
    shared = groups <= 0
    n_draws = (-groups or 7 if generator.stochastic else 1) if shared else groups
    x, z = normal(2, 1 if shared else groups, rows, 3), normal(2, n_draws, generator.noise_dim, seed=3)
    outputs = network.forward(model.layout.split(flat.requires_grad_()), x, z, None, seeded()).outputs
    weights = normal(*outputs.shape, seed=8)
    (expected,) = torch.autograd.grad((outputs * weights).sum(), flat)
    parts = model.layout.split(flat.detach())
    found = network.pull(parts, network.forward(parts, x, z, None, seeded()), weights, spread=True)
    torch.testing.assert_close(model.layout.join(found, flat.detach()), expected, rtol=1e-11, atol=1e-12)


@GENERATOR
@LAYERS
def test_the_gradient_of_one_row_a_draw_is_that_of_explicit_weights(generator, last_only):
    model, flat = make_model(generator, last_only=last_only)
    x, z = normal(2, 6, 1, 3), normal(2, 6, generator.noise_dim, seed=3)
    (expected,) = torch.autograd.grad(by_hand(model, flat.requires_grad_(), x, z).square().sum(), flat)
    parts = model.layout.split(flat.detach())
    tape = model.network.forward(parts, x, z, None)
    found = model.layout.join(model.network.pull(parts, tape, 2 * tape.outputs, spread=True), flat.detach())
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_dropout_has_its_derivative():
    generator = dataclasses.replace(GENERATORS["full, hidden"], dropout=0.5)
    model, flat = make_model(generator)
    x, z = normal(2, 4, 3, 3), generator.sample(2, 4, seeded(), normal(1))
    recorded = model.network.forward(model.layout.split(flat.requires_grad_()), x, z, None)
    (expected,) = torch.autograd.grad(recorded.outputs.square().sum(), flat)
    parts = model.layout.split(flat.detach())
    tape = model.network.forward(parts, x, z, None)
    found = model.layout.join(model.network.pull(parts, tape, 2 * tape.outputs, spread=True), flat.detach())
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)


@GENERATOR
@LAYERS
@pytest.mark.parametrize("hidden", [(), (6,), (6, 5)])
def test_the_predictor_gives_the_outputs_of_the_network(generator, last_only, hidden):
    """Draw by draw, or their mean, with and without further hidden layers."""
    model, flat = make_model(generator, last_only=last_only, hidden=hidden, prior_scale=0.3)
    waves = model.network.draw_prior(2, seeded(4))
    x, bank = normal(9, 3), normal(2, 4 if generator.stochastic else 1, generator.noise_dim, seed=3)
    predictor = Predictor(model, flat, bank, waves)
    expected = model.network.outputs(model.layout.split(flat), x[None], bank, waves)
    torch.testing.assert_close(predictor.outputs(x), expected, rtol=1e-12, atol=1e-13)
    for n_outputs in (1, 2):
        mean = expected[..., :n_outputs].mean((0, 1))
        torch.testing.assert_close(predictor.mean(x, n_outputs), mean, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_predictor_has_the_activations_of_the_network(activation):
    model, flat = make_model(GENERATORS["full"])
    model = dataclasses.replace(model, network=dataclasses.replace(model.network, activation=activation))
    x, bank = normal(9, 3), normal(2, 4, 3, seed=3)
    expected = model.network.outputs(model.layout.split(flat), x[None], bank, None)
    torch.testing.assert_close(Predictor(model, flat, bank, None).outputs(x), expected, rtol=1e-12, atol=1e-13)


@LAYERS
@pytest.mark.parametrize("hidden", [(6,), (6, 5)])
def test_blocks_of_draws_and_rows_do_not_change_the_predictor(hidden, last_only, monkeypatch):
    model, flat = make_model(GENERATORS["full"], hidden=hidden, prior_scale=0.3, last_only=last_only)
    predictor = Predictor(model, flat, normal(2, 5, 3), model.network.draw_prior(2, seeded(4)))
    x = normal(50, 3)
    whole, mean = predictor.outputs(x), predictor.mean(x, 2)
    for name, value in (("MAX_WEIGHTS", 3 * model.network.n_weights), ("MAX_ACTIVATIONS", 1), ("FUSED_DRAWS", 2)):
        monkeypatch.setattr(f"skhyper.core.noise.predictor.{name}", value)
    torch.testing.assert_close(predictor.outputs(x), whole, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(predictor.mean(x, 2), mean, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", [FullGenerator, LowRankGenerator])
@pytest.mark.parametrize("residual", [True, False])
def test_weights_start_with_the_variance_of_the_main_network(kind, residual):
    """Without a base, the noise alone gives it; with one, draws spread by the chosen share of it."""
    extra = {"rank": 20} if kind is LowRankGenerator else {}
    generator = kind(noise_dim=20, residual=residual, spread=0.5, **extra)
    model, _ = make_model(generator, n_features=30, hidden=(40, 30))
    parts = model.layout.split(model.layout.draw(1, seeded()))
    draws = generator.draws(parts, normal(1, 400, 20))
    for name, shape, _ in model.network.layers:
        w, _ = generator.weights(parts, name, draws)
        relative = w.std(1).square().mean() * shape.n_in / shape.gain**2
        assert relative.sqrt() == pytest.approx(0.5 if residual else 1.0, rel=0.25)


def test_input_noise_is_drawn_in_training_only():
    model, flat = make_model(GENERATORS["full, hidden"], input_noise=0.5)
    parts = model.layout.split(flat)
    x, z = normal(2, 4, 3, 3), normal(2, 4, 3, seed=3)
    calm = [model.network.forward(parts, x, z, None).outputs for _ in range(2)]
    noisy = [model.network.forward(parts, x, z, None, seeded(seed)).outputs for seed in (1, 1, 2)]
    assert torch.equal(calm[0], calm[1])
    assert torch.equal(noisy[0], noisy[1])
    assert not torch.allclose(noisy[0], noisy[2])
    assert not torch.allclose(noisy[0], calm[0])
    assert torch.nn.functional.softplus(model.layout.split(model.layout.draw(1, seeded()))["input_noise"]) == (
        pytest.approx(0.5)
    )


def test_which_units_are_dropped_is_part_of_the_noise():
    """The same noise is the same function; masks are independent of what z mirrors."""
    generator = dataclasses.replace(GENERATORS["full, hidden"], dropout=0.25)
    z = generator.sample(2, 4000, seeded(), normal(1))
    assert z.shape == (2, 4000, generator.n_entries) == (2, 4000, 3 + 5 + 4)
    torch.testing.assert_close(z[:, ::2, :3], -z[:, 1::2, :3])
    masks = z[..., 3:]
    assert set(masks.unique().tolist()) == {0.0, 1 / 0.75}
    torch.testing.assert_close(masks.mean((0, 1)), torch.ones(9, dtype=torch.float64), rtol=0.03, atol=0.0)
    assert not torch.equal(masks[:, ::2], masks[:, 1::2])
    model, flat = make_model(generator)
    parts, noise = model.layout.split(flat), z[:, :4].clone()
    features = generator.draws(parts, noise).features
    assert (features[noise[..., -4:] == 0] == 0).all()
    noise[..., 3:] = 1.0
    whole = dataclasses.replace(generator, dropout=0.0).draws(parts, noise[..., :3]).features
    assert torch.equal(generator.draws(parts, noise).features, whole)
    assert not torch.equal(features, whole)


@pytest.mark.parametrize("n_draws", [1, 2, 6, 12, 17])
def test_draws_come_in_mirrored_orthogonal_frames(n_draws):
    """All at the distance sqrt(d); whole frames have mean 0 and covariance I."""
    generator = FullGenerator(noise_dim=3, frames=True)
    z = generator.sample(2, n_draws, seeded(), normal(1))
    assert z.shape == (2, n_draws, 3)
    torch.testing.assert_close(z.square().sum(-1), torch.full((2, n_draws), 3.0, dtype=torch.float64))
    pairs = n_draws // 2 * 2
    torch.testing.assert_close(z[:, 0:pairs:2], -z[:, 1:pairs:2])
    first = z[:, :6:2]
    cross = first @ first.mT / 3
    torch.testing.assert_close(cross, torch.eye(cross.shape[1], dtype=torch.float64).expand_as(cross))
    assert not torch.allclose(z[0], z[1])
    if n_draws == 12:
        covariance = (z[..., None] * z[..., None, :]).mean(1)
        torch.testing.assert_close(covariance, torch.eye(3, dtype=torch.float64).expand(2, 3, 3))
        assert not torch.allclose(z[:, :6], z[:, 6:])


def test_dropped_features_are_made_up_for_in_the_mean():
    generator = FullGenerator(noise_dim=2, hidden=(4000,), dropout=0.5)
    model, flat = make_model(generator, hidden=())
    parts, z = model.layout.split(flat), generator.sample(2, 3, seeded(), normal(1))
    dropped = generator.draws(parts, z).features
    calm = dataclasses.replace(generator, dropout=0.0).draws(parts, z[..., :2]).features
    assert dropped.mean() == pytest.approx(float(calm.mean()), rel=0.05)


def test_prior_functions_differ_between_members_and_have_the_chosen_size():
    model, _ = make_model(GENERATORS["full"], prior_scale=0.5)
    waves = model.network.draw_prior(200, seeded())
    values = model.network.prior(waves, normal(1, 50, 3))
    assert values.std(0).mean() == pytest.approx(0.5, rel=0.1)
    assert model.network.draw_prior(2, seeded()) is not None
    assert dataclasses.replace(model.network, prior_scale=0.0).draw_prior(2, seeded()) is None
