"""Dealing, likelihood, scaling and the training of all members at once."""

import itertools

import numpy as np
import pytest
import torch
from noise_problems import GENERATORS, held_out_loss, make_model, normal, seeded
from scipy import stats

from skhyper.core.noise.calibration import calibrate, calibrated_losses, disagreement, normal_levels
from skhyper.core.noise.dealing import Dealing, arrange, effective, hold_out, hold_out_copies, minibatches
from skhyper.core.noise.full_generator import FullGenerator
from skhyper.core.noise.likelihood import Categorical, FixedScale, Heteroscedastic, Homoscedastic, marginal
from skhyper.core.noise.members import Walk
from skhyper.core.noise.objective import Objective, Rows
from skhyper.core.noise.procedure import Holding
from skhyper.core.noise.rows import Data
from skhyper.core.noise.scaling import moments, robust_scaling, standard_scaling, weighted_quantile
from skhyper.core.noise.training import Settings, Trainer

DEALINGS = pytest.mark.parametrize("dealing", list(Dealing))
NOISES = {
    "homoscedastic": Homoscedastic(2),
    "heteroscedastic": Heteroscedastic(2, evenness=0.0),
    "squared": FixedScale(2),
    "classes": Categorical(2),
}


def trainer(noise=None, generator=GENERATORS["full"], rows=24, held=True, **settings):
    model, flat = make_model(generator, noise=noise, prior_scale=0.2)
    y = normal(rows, 2, seed=6)
    if isinstance(model.noise, Categorical):
        y = torch.eye(2, dtype=torch.float64)[(y[:, 0] > 0).long()]
    data = Rows(normal(rows, 3, seed=5), y, 0.5 + normal(rows, seed=7).abs())
    train, test = hold_out(2, 0.25, y[:, 0], torch.zeros(rows, dtype=torch.bool), seeded())
    chosen = Settings(**{"n_steps": 40, "batch_size": 6, "n_draws": 3, **settings})
    waves = model.network.draw_prior(2, seeded(3))
    return Trainer(model, data, train, test if held else None, waves, chosen, seeded(4), 18.0), flat


def loss(job, flat, index):
    """The members' losses without the prior, from one seed."""
    job.generator.manual_seed(0)
    return job.objective.loss(job.layout.split(flat), index, job.groups, job.noise(job.groups.n_draws))


@DEALINGS
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_the_gradient_of_the_loss_is_that_of_finite_differences(dealing, noise):
    job, flat = trainer(noise, dealing=dealing)
    index = job.train_rows[:, :6]
    found = job.layout.join(loss(job, flat, index)[1], flat)
    free = torch.ones(flat.shape[1], dtype=torch.bool)
    free[job.held] = False  # what follows held-out rows
    direction, step = normal(*flat.shape, seed=9) * free, 1e-5
    ends = [loss(job, flat + sign * step * direction, index)[0] for sign in (1, -1)]
    torch.testing.assert_close((ends[0] - ends[1]) / (2 * step), (found * direction).sum(1), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("last_only", [True, False])
@pytest.mark.parametrize("name", ["homoscedastic", "heteroscedastic", "squared"])
def test_the_error_of_the_mean_is_added_with_the_slope_of_recorded_operations(name, last_only):
    noise = Heteroscedastic(2) if name == "heteroscedastic" else NOISES[name]
    model, flat = make_model(GENERATORS["full"], noise=noise, last_only=last_only)
    data = Rows(normal(9, 3, seed=5), normal(9, 2, seed=6), 0.5 + normal(9, seed=7).abs())
    z, index = normal(2, 5, 3, seed=8), torch.arange(9).expand(2, 9)
    without, added = (
        Objective(model, data, None, 1.0, mean_weight, seeded()).loss(
            model.layout.split(flat), index, arrange(Dealing.SHARED, 9, 5), z
        )
        for mean_weight in (0.0, 3.0)
    )
    parts = model.layout.split(flat.requires_grad_())
    outputs = model.network.outputs(parts, data.x[None], z, None)
    means, mean = outputs[..., :2], outputs[..., :2].mean(1)
    spread = (means - mean[:, None]).square() + torch.exp(2 * noise.log_sigma(parts, outputs))
    variance = spread.mean(1) if name != "squared" else spread.mean(1) - 0.5
    importance = noise.score(parts, outputs, data.y[None, None]).importance.mean(1)
    error = ((data.y - mean).square() / (2 * variance.detach())).sum(-1)
    expected = 3 * (data.weight * importance * error).mean(1)
    torch.testing.assert_close(added[0] - without[0], expected)
    (slope,) = torch.autograd.grad(expected.sum(), flat)
    free = torch.ones(flat.shape[1], dtype=torch.bool)
    free[model.layout.spread("held").nonzero()[:, 0]] = False
    found = model.layout.join(added[1], flat) - model.layout.join(without[1], flat)
    torch.testing.assert_close(found[:, free], slope[:, free], rtol=1e-10, atol=1e-12)


@DEALINGS
@pytest.mark.parametrize("generator", GENERATORS.values(), ids=GENERATORS)
@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
def test_the_gradient_of_the_loss_is_that_of_recorded_operations(dealing, generator, noise):
    job, flat = trainer(noise, generator, dealing=dealing, n_draws=3 if generator.stochastic else 1)
    index = job.train_rows[:, :6]
    found = job.layout.join(loss(job, flat, index)[1], flat)
    (expected,) = torch.autograd.grad(loss(job, flat.requires_grad_(), index)[0].sum(), flat)
    free = torch.ones(flat.shape[1], dtype=torch.bool)
    free[job.held] = False
    torch.testing.assert_close(found[:, free], expected[:, free], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("log_sigma", [-12.5, 0.3])
def test_a_sigma_below_its_floor_has_no_gradient(log_sigma):
    for noise in (Homoscedastic(1), Heteroscedastic(1)):
        parts = {"log_sigma": torch.full((1, 1), log_sigma, dtype=torch.float64, requires_grad=True)}
        outputs, y = 1e-4 * normal(1, 2, 3, noise.n_outputs), 1e-4 * normal(1, 1, 3, 1, seed=1)
        scored = noise.score(parts, outputs, y)
        (expected,) = torch.autograd.grad(scored.log_p.sum(), parts["log_sigma"])
        _, found = noise.pull(parts, scored, torch.ones_like(scored.log_p), torch.zeros(1, 1, 3))
        torch.testing.assert_close(found["log_sigma"].detach(), expected)


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize("generator", [g for g in GENERATORS.values() if g.residual and g.stochastic])
def test_the_slope_by_what_follows_held_out_rows_is_that_of_recorded_operations(noise, generator):
    job, flat = trainer(noise, generator)
    z = job.noise(4)
    found = job.objective.held_out_slope(job.layout.split(flat), z, job.held_rows)
    value = held_out_loss(job, flat.requires_grad_(), z, job.held_rows)
    (expected,) = torch.autograd.grad(value.sum(), flat)
    assert found.shape == (2, 3)
    torch.testing.assert_close(found, expected[:, job.held], rtol=1e-10, atol=1e-12)


def test_the_loss_is_its_formula():
    """Of shared draws: the weighted mean over rows of the marginal likelihood, and the prior."""
    job, flat = trainer(exponent=0.5, alpha=2.0)
    index = job.train_rows[:, :6]
    found = loss(job, flat, index)[0] + job.penalty(flat)
    job.generator.manual_seed(0)
    z, parts, network = job.noise(3), job.layout.split(flat), job.model.network
    for m in range(2):
        own = {name: value[m : m + 1] for name, value in parts.items()}
        waves = tuple(part[m : m + 1] for part in job.waves)
        outputs = network.outputs(own, job.rows.x[index[m]][None], z[m : m + 1], waves)[0]
        sigma = own["log_sigma"][0].exp()
        log_p = torch.distributions.Normal(outputs, sigma).log_prob(job.rows.y[index[m]]).sum(-1)
        row = -2 * torch.log(torch.exp(0.5 * log_p).mean(0))
        prior = 2.0 / (2 * 18) * (flat[m].square() * job.layout.spread("precision")).sum()
        assert found[m] == pytest.approx(float((job.rows.weight[index[m]] * row).mean() + prior), rel=1e-12)


@pytest.mark.parametrize("exponent", [0.0, 1e-4, 0.5, 1.0])
def test_the_marginal_is_a_power_mean_of_densities(exponent):
    log_p = 3 * normal(5, 4)
    found = marginal(log_p, exponent, dim=0)
    if exponent:
        expected = np.log(stats.pmean(log_p.exp().numpy(), exponent))
        np.testing.assert_allclose(found, expected, rtol=1e-6)
    else:
        torch.testing.assert_close(found, marginal(log_p, 1e-9, dim=0), rtol=1e-5, atol=1e-5)


def test_log_densities_are_those_of_scipy():
    outputs, y = normal(2, 3, 4, 4), normal(2, 1, 4, 2, seed=1)
    parts = {"log_sigma": normal(2, 2, seed=2)}
    sigma = parts["log_sigma"].exp()[:, None, None]
    expected = stats.norm.logpdf(y, outputs[..., :2], sigma).sum(-1)
    np.testing.assert_allclose(Homoscedastic(2).score(parts, outputs[..., :2], y).log_p, expected)
    noise = Heteroscedastic(2, width=1.5)
    own = sigma * torch.exp(1.5 * torch.tanh(outputs[..., 2:] / 1.5))
    expected = stats.norm.logpdf(y, outputs[..., :2], own).sum(-1)
    np.testing.assert_allclose(noise.score(parts, outputs, y).log_p, expected)
    np.testing.assert_allclose(
        FixedScale(2).score(parts, outputs[..., :2], y).log_p, -(y - outputs[..., :2]).square().sum(-1)
    )


def test_importance_follows_the_noise_of_the_row_and_has_no_gradient():
    outputs, y = normal(2, 3, 4, 2).requires_grad_(), normal(2, 1, 4, 1)
    parts = {"log_sigma": normal(2, 1)}
    noise = Heteroscedastic(1, evenness=0.5)
    found = noise.score(parts, outputs, y).importance
    torch.testing.assert_close(found, noise.offset(outputs.detach())[..., 0].exp())
    assert not found.requires_grad
    even = Heteroscedastic(1, evenness=0.0).score(parts, outputs, y).importance
    assert torch.equal(even, torch.ones(2, 3, 4).double())


@DEALINGS
def test_each_draw_sees_its_rows(dealing):
    groups = arrange(dealing, 10, 4)
    assert groups == {Dealing.SHARED: (4, 10, True), Dealing.DEALT: (4, 2, False), Dealing.ROW: (10, 1, False)}[dealing]


@pytest.mark.parametrize(("n", "members"), [(40, 1), (43, 4), (57, 12)])
def test_held_out_rows_are_the_members_own(n, members):
    train, held = hold_out(members, 0.1, normal(n), torch.zeros(n, dtype=torch.bool), seeded())
    assert train.shape == (members, n - n // 10)
    for own, out in zip(train.tolist(), held.tolist(), strict=True):
        assert sorted(own + out) == list(range(n))
    for a, b in itertools.combinations(range(min(members, 10)), 2):
        assert not set(held[a].tolist()) & set(held[b].tolist())


def test_held_out_rows_are_spread_over_the_target():
    y = torch.arange(100.0).double()
    _, held = hold_out(3, 0.1, y, torch.zeros(100, dtype=torch.bool), seeded())
    for rows in held:
        assert (y[rows].sort().values // 10).tolist() == list(range(10))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.3, 0.4, 0.7, 0.9])
def test_members_hold_out_the_share_that_was_asked_for(share):
    train, held = hold_out(3, share, normal(60), torch.zeros(60, dtype=torch.bool), seeded())
    assert held.shape[1] == round(60 * share)
    for own, out in zip(train.tolist(), held.tolist(), strict=True):
        assert sorted(own + out) == list(range(60))


def test_a_value_as_far_out_as_numbers_go_is_clipped():
    x = normal(50, 1)
    scaling = robust_scaling(x, torch.ones(50, dtype=torch.float64))
    ends = scaling(torch.tensor([[1e160], [-1.7e308], [torch.finfo(torch.float64).max]], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([[3.0], [-3.0], [3.0]], dtype=torch.float64))


@pytest.mark.parametrize(("share", "n_held"), [(0.002, 4), (0.004, 8), (0.0001, 1), (0.997, 1992)])
def test_next_to_none_and_next_to_all_can_be_held_out(share, n_held):
    _, held = hold_out(2, share, normal(2000), torch.zeros(2000, dtype=torch.bool), seeded())
    assert held.shape[1] == n_held


@pytest.mark.parametrize(("share", "n_held"), [(0.05, 6), (0.1, 12), (0.25, 30), (0.9, 108)])
def test_every_member_holds_out_its_share_of_few_copies(share, n_held):
    data = Data(normal(4, 1), normal(4, 1, seed=1), torch.full((4,), 30.0).double())
    for seed in range(20):
        rows, _, held, _ = hold_out_copies(3, share, data, torch.zeros(4, dtype=torch.bool), seeded(seed))
        assert rows.weight[held].sum(1).tolist() == [n_held] * 3


def test_weights_of_any_size_are_dealt_out():
    data = Data(normal(4, 1), normal(4, 1, seed=1), torch.full((4,), 1e12).double())
    rows, _, held, _ = hold_out_copies(2, 0.25, data, torch.zeros(4, dtype=torch.bool), seeded())
    torch.testing.assert_close(rows.weight[held].sum(1), torch.full((2,), 1e12).double(), rtol=1e-6, atol=0)


def test_copies_of_rows_are_dealt_out():
    """Members have all weight between them; each trains on about three quarters of every row that has many copies."""
    weight = torch.tensor([400.0, 1.0, 80.5, 7.0, 0.25]).double()
    data = Data(normal(5, 2), normal(5, 1, seed=1), weight)
    keep = torch.tensor([False, True, False, False, False])
    rows, train, held, n_judges = hold_out_copies(4, 0.25, data, keep, seeded())
    trained, judged = rows.weight[train], rows.weight[held]
    torch.testing.assert_close(trained + judged, weight.expand(4, 5))
    assert torch.equal(judged, judged.floor())
    assert judged[:, 1].tolist() == judged[:, 4].tolist() == [0.0] * 4
    torch.testing.assert_close(judged.sum(0), torch.tensor([400.0, 0.0, 80.0, 7.0, 0.0]).double())  # four quarters
    assert n_judges == 487.0
    assert ((judged[:, 0] > 70) & (judged[:, 0] < 130)).all()
    for rows_of in (train, held):
        torch.testing.assert_close(rows.x[rows_of], data.x.expand(4, 5, 2))
        torch.testing.assert_close(rows.y[rows_of], data.y.expand(4, 5, 1))


def test_a_row_of_each_class_stays_with_every_member():
    y = torch.eye(3, dtype=torch.float64)[torch.tensor([0] * 50 + [1] * 49 + [2])]
    data = Data(normal(100, 2), y, torch.ones(100).double())
    split = Holding(0.2).rows(data, 5, True, seeded())
    assert all(set(y[rows].argmax(1).tolist()) == {0, 1, 2} for rows in split.train)


def test_a_pass_of_minibatches_sees_every_row_once():
    rows = torch.arange(24).reshape(2, 12)
    batches = list(itertools.islice(minibatches(rows, 4, seeded()), 6))
    first, second = torch.cat(batches[:3], 1), torch.cat(batches[3:], 1)
    assert torch.equal(first.sort(1).values, rows)
    assert torch.equal(second.sort(1).values, rows)
    assert not torch.equal(first, second)


def test_members_do_not_know_each_other():
    """A member's loss has no gradient in the parameters of another."""
    job, flat = trainer()
    (gradient,) = torch.autograd.grad(loss(job, flat.requires_grad_(), job.train_rows[:, :6])[0][0], flat)
    assert gradient[0].abs().max() > 0
    assert not gradient[1].any()


@DEALINGS
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_training_lowers_the_loss(dealing, optimizer):
    job, flat = trainer(dealing=dealing, optimizer=optimizer, n_steps=500, batch_size=18, learning_rate=0.01, alpha=0.0)
    curve = torch.stack([record.loss for record in job.run(flat).curve])
    assert curve.shape == (50, 2)
    assert (curve[-10:].mean(0) < curve[:10].mean(0) - 0.1).all()


@pytest.mark.parametrize("n_fits", [1, 2])
def test_members_of_a_fit_stop_alike_where_the_mean_of_their_losses_is_lowest(n_fits):
    job, flat = trainer(n_steps=150, learning_rate=0.3)
    job.n_fits = n_fits
    seen = []
    trained = job.run(flat, lambda record: seen.append(record.held_out.clone()))
    losses = torch.stack(seen)
    if n_fits == 1:
        lowest = losses[losses.mean(1).argmin()]
        assert (losses.argmin(0) != losses.mean(1).argmin()).any()
    else:
        lowest = losses.min(0).values
    job2, _ = trainer(n_steps=150, learning_rate=0.3)
    z = job2.noise(16)
    found = calibrated_losses(job2.model, trained.flat, z, job2.waves, job2.rows, job2.held_rows, n_fits)
    torch.testing.assert_close(found, lowest)
    assert (lowest < losses[-1]).any()


def test_a_member_that_diverges_has_no_say_in_where_the_others_stop():
    job, flat = trainer()
    walk = Walk.begin(flat, job.layout, None)
    walk.settle(torch.tensor([1.0, 3.0]).double(), 1, judged=True, step=1)
    walk.average += 1.0
    walk.settle(torch.tensor([1.5, torch.nan]).double(), 1, judged=True, step=2)
    torch.testing.assert_close(walk.best_loss, torch.tensor([1.5, 2.0]).double())
    torch.testing.assert_close(walk.best, flat + torch.tensor([[1.0], [0.0]]).double())
    assert walk.n_rollbacks.tolist() == [0, 1]


def test_the_rate_rises_stays_and_falls_to_zero():
    job, _ = trainer(n_steps=100, learning_rate=0.5, warmup=0.1, decay_from=0.4)
    rates = [job.schedule.rate(step) for step in range(101)]
    np.testing.assert_allclose(rates[:10], 0.05 * np.arange(1, 11))
    np.testing.assert_allclose(rates[9:41], 0.5)
    np.testing.assert_allclose(rates[40:], np.linspace(0.5, 0, 61), atol=1e-15)
    job, _ = trainer(n_steps=100, learning_rate=0.5, warmup=0.0, decay_from=1.0)
    assert {job.schedule.rate(step) for step in range(100)} == {0.5}


def test_held_out_rows_judge_a_running_average(monkeypatch):
    """Over a tenth of the steps so far; in the first ten steps over the last one."""
    job, flat = trainer(n_steps=20, n_evaluations=1)
    seen = []
    monkeypatch.setattr(
        Trainer, "advance", lambda self, walk, index, z, step: seen.append(walk.flat.add_(1.0 + step).clone())
    )
    trained = job.run(flat)
    average = seen[0]
    for step, weights in enumerate(seen[1:], 2):
        average = average + (weights - average) / max(1.0, step / 10)
    torch.testing.assert_close(trained.flat, average)
    assert not torch.allclose(trained.flat, seen[-1])


def test_without_held_out_rows_the_last_weights_come_back(monkeypatch):
    job, flat = trainer(held=False, n_steps=5)
    seen = []
    advance = Trainer.advance
    monkeypatch.setattr(
        Trainer, "advance", lambda self, walk, *rest: seen.append((advance(self, walk, *rest), walk.flat))
    )
    trained = job.run(flat)
    assert torch.equal(trained.flat, seen[-1][1])
    assert all(torch.isnan(record.held_out).all() for record in trained.curve)
    assert not torch.equal(trained.flat, flat)


def test_a_member_that_diverges_goes_on_from_its_best_weights():
    job, flat = trainer(n_steps=50)
    calls = itertools.count()
    sound = job.objective.loss

    def broken(parts, index, groups, z):
        losses, found = sound(parts, index, groups, z)
        return losses * torch.tensor([1.0, torch.nan if next(calls) == 20 else 1.0]).double(), found

    job.objective.loss = broken
    trained = job.run(flat)
    assert trained.n_rollbacks.sum() == 1
    assert torch.isfinite(trained.flat).all()
    assert [bool(torch.isfinite(record.loss[1])) for record in trained.curve].count(False) == 1


def test_the_spread_is_the_mean_deviation_of_weights():
    job, flat = trainer()
    z, parts = job.noise(10), job.layout.split(flat)
    draws = job.model.network.generator.draws(parts, z)
    pieces = [job.model.network.generator.weights(parts, f"layer.{i}", draws) for i in range(3)]
    weights = torch.cat([torch.cat([w.flatten(2), b], 2) for w, b in pieces], 2)
    torch.testing.assert_close(job.objective.spread(parts, z), weights.std(1).mean(1))


def test_a_twin_does_not_spread():
    job, flat = trainer(generator=GENERATORS["point"])
    assert not job.objective.spread(job.layout.split(flat), job.noise(10)).any()


def test_one_draw_a_row_lets_the_functions_collapse():
    """Its optimum is one function; the marginal likelihood of several draws keeps them apart."""
    generator = FullGenerator(noise_dim=3, spread=1.0)
    spreads = []
    for dealing, exponent in ((Dealing.ROW, 0.0), (Dealing.SHARED, 1.0)):
        job, flat = trainer(
            FixedScale(2),
            generator,
            64,
            held=False,
            dealing=dealing,
            exponent=exponent,
            n_steps=1000,
            batch_size=48,
            n_draws=8,
        )
        parts = job.layout.split(job.run(flat).flat)
        spreads.append(job.model.network.outputs(parts, job.rows.x[None], job.noise(20), job.waves).std(1).mean())
    assert spreads[0] < 0.5 * spreads[1]


def test_weighted_statistics_are_those_of_repeated_rows():
    x, times = normal(15, 3), torch.arange(15) % 4
    repeated = x.repeat_interleave(times, 0)
    for q in (0.1, 0.25, 0.5, 0.9):
        expected = np.quantile(repeated.numpy(), q, axis=0, method="inverted_cdf")
        np.testing.assert_allclose(weighted_quantile(x, times.double(), q), expected)
    mean, deviation = moments(x, times.double())
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(deviation, repeated.std(0, correction=0))


def test_robust_scaling_is_bounded_and_in_order():
    x = torch.cat([normal(100, 1), torch.tensor([[1e9], [-1e9]]).double()])
    t = robust_scaling(x, torch.ones(102).double())(x)
    assert t.abs().max() <= 3
    assert torch.equal(t.argsort(0), x.argsort(0))
    assert t[:100].std() == pytest.approx(0.9, abs=0.15)


@pytest.mark.parametrize("scale", [robust_scaling, standard_scaling])
def test_constant_columns_become_zero(scale):
    x = torch.cat([normal(50, 1), torch.full((50, 1), 0.1).double()], 1)
    t = scale(x, torch.ones(50).double())(x)
    assert torch.isfinite(t).all()
    assert not t[:, 1].any()


def test_a_column_that_is_mostly_one_value_is_scaled_by_its_range():
    x = torch.zeros(50, 1).double()
    x[:5] = 2.0
    assert robust_scaling(x, torch.ones(50).double())(x).max() == pytest.approx(2 / np.sqrt(1 + 4 / 9))


def test_distinct_rows_add_their_weights_and_forget_their_order():
    data = Data(normal(6, 2), normal(6, 1, seed=1), torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0, 2.0]).double())
    index = torch.repeat_interleave(torch.arange(6), data.weight.long())[torch.randperm(10, generator=seeded())]
    repeated = Data(data.x[index], data.y[index], torch.ones(10).double())
    for a, b in zip(data.distinct(), repeated.distinct(), strict=True):
        assert torch.equal(a, b)


def test_data_are_small_by_their_distinct_rows():
    data = Data(normal(8, 2).repeat(30, 1), normal(8, 1, seed=1).repeat(30, 1), torch.ones(240).double())
    compact, small = data.compact(8)
    assert small
    assert compact.weight.tolist() == [30.0] * 8
    large, small = data.compact(7)
    assert not small
    assert large is data


def test_hyperparameters_follow_the_held_out_rows():
    """Their gradient is that of finite differences, and the mean over the members of a fit."""
    job, flat = trainer()
    names = [name for name, block in job.layout.blocks.items() if block.held]
    assert names == [f"layer.{i}.rho" for i in range(len(job.model.network.layers))]
    rows, start = next(job.held_batches), Walk.begin(flat, job.layout, None)
    job.held_batches = iter([rows, rows])
    job.generator.manual_seed(0)
    prior = flat[:, job.held] / job.held_rows.numel()
    found = job.held_gradient(start) - prior
    job.generator.manual_seed(0)
    z = job.noise(4)
    for k, place in enumerate(job.held):
        ends = []
        for shift in (1e-5, -1e-5):
            moved = flat.clone()
            moved[:, place] += shift
            ends.append(held_out_loss(job, moved, z, rows).mean())
        expected = float(ends[0] - ends[1]) / 2e-5
        assert found[:, k].tolist() == pytest.approx([expected, expected], rel=1e-6, abs=1e-10)
    job.n_fits = 2
    job.generator.manual_seed(0)
    apart = job.held_gradient(start) - 2 * prior
    torch.testing.assert_close(apart.mean(0), found[0])
    assert not torch.equal(apart[0], apart[1])


def test_hyperparameters_stay_without_held_out_rows():
    for held, moves in ((True, True), (False, False)):
        job, flat = trainer(held=held, n_steps=8)
        before = flat[:, job.held].clone()
        last = job.run(flat)
        assert bool((last.flat[:, job.held] != before).any()) == moves


def test_members_of_a_fit_share_their_hyperparameters():
    job, flat = trainer(n_steps=8)
    flat[:, job.held] = 0.2
    walk, phase = Walk.begin(flat, job.layout, None), job.noisy()
    for step, index in zip(range(8), job.batches(), strict=False):
        job.advance(walk, index, phase, step)
    moved = (walk.flat - flat)[:, job.held]
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-12, atol=1e-15)
    assert (moved != 0).all()


def constant_members(values, **options):
    """Members whose outputs are the same for every row and draw."""
    model, flat = make_model(GENERATORS["full"], noise=Homoscedastic(1), **options)
    flat = torch.zeros(len(values), flat.shape[1], dtype=torch.float64)
    model.layout.split(flat)["layer.2.b"][:, 0] = torch.tensor(values, dtype=torch.float64)
    return model, flat, normal(len(values), 4, 3)


def test_disagreement_is_the_variance_between_members():
    """Where all hold out the same rows; else each speaks of its own."""
    values = [0.0, 1.0, 5.0]
    model, flat, bank = constant_members(values)
    data = Rows(normal(9, 3), normal(9, 1, seed=2), torch.ones(9, dtype=torch.float64))
    found = disagreement(model, flat, bank, None, data, torch.arange(9).reshape(3, 3))
    torch.testing.assert_close(found[..., 0], torch.tensor([4.0, 1.0, 9.0]).double()[:, None].expand(3, 3))
    assert float(found.mean()) == pytest.approx(np.var(values))


@pytest.mark.parametrize("gap", [0.0, 0.3, 50.0])
def test_sigma_leaves_room_for_the_members_disagreement(gap):
    """The mixture's variance is what a member's own was calibrated to; at most three quarters of it are taken."""
    y = normal(400, 1, seed=2)
    data = Rows(normal(400, 3), y, torch.ones(400, dtype=torch.float64))
    held = torch.arange(400).expand(2, -1)
    model, flat, bank = constant_members([-gap, gap])
    c = float(calibrate(model, flat, bank, None, data, held, 400.0).log_factor.mean())
    residuals = torch.cat([y - gap, y + gap]).square().mean()
    alone = float(residuals) if gap < 1 else np.exp(2 * 3.0)  # log factors end at 3
    left = alone - gap**2 if gap < 1 else alone * 0.25
    assert np.exp(2 * c) == pytest.approx(left, rel=0.01 if gap < 1 else 0.2)
    one = calibrate(model, flat[:1], bank[:1], None, data, held[:1], 400.0).log_factor
    own = float((y + gap).square().mean()) if gap < 1 else alone
    assert np.exp(2 * float(one.mean())) == pytest.approx(own, rel=0.01 if gap < 1 else 0.2)


@pytest.mark.parametrize("together", [True, False])
def test_draws_take_the_factor_from_its_uncertainty(together):
    """Their variance is 4 / n, with n the number of rows that somebody holds out, weights taken into account."""
    weight = 0.5 + normal(60, seed=7).abs()
    data = Rows(normal(60, 3), normal(60, 2, seed=2), weight)
    model, flat = make_model(GENERATORS["full"])
    held = torch.arange(30).expand(2, 30) if together else torch.arange(60).reshape(2, 30)
    n_rows = weight[:30].sum() ** 2 / weight[:30].square().sum() if together else weight.sum() ** 2 / (weight @ weight)
    assert effective(weight[held.unique()]) == pytest.approx(float(n_rows))
    factors = calibrate(model, flat, normal(2, 16, 3), None, data, held, float(n_rows)).log_factor
    moved = factors - factors.mean(0)
    torch.testing.assert_close(moved.square().mean(0), (4 / n_rows).expand(2))
    assert torch.equal(factors[::2], factors[1::2])
    assert len(factors[:, 0].unique()) == 8
    alone = calibrate(model, flat, normal(2, 1, 3), None, data, held, float(n_rows)).log_factor
    assert alone.shape == (1, 2)


def test_levels_are_those_of_a_normal_distribution_whatever_their_number():
    levels = normal_levels(400)
    assert float(levels.mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(levels.square().mean()) == pytest.approx(1.0)
    assert float(levels.pow(4).mean()) == pytest.approx(3.0, rel=0.1)
    first = levels[:16].unique()
    assert len(first) == 8
    assert float(first.mean()) == pytest.approx(0.0, abs=0.2)
    assert float(first.square().mean()) == pytest.approx(1.0, rel=0.3)
    assert normal_levels(2).tolist() == [0.0, 0.0]
    assert normal_levels(1).tolist() == [0.0]
    assert normal_levels(3).tolist() == pytest.approx([1.0, 1.0, -1.0])
