"""Noise on trial: what it gains on held-out rows, and training without it where that is nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from noise_problems import GENERATORS, make_model, normal, seeded
from scipy import stats
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from skhyper.core.noise.calibration import CALIBRATION_STD, Gain, calibrated_losses, gain_of_noise
from skhyper.core.noise.course import Record, progress
from skhyper.core.noise.dealing import Dealing, hold_out
from skhyper.core.noise.likelihood import Categorical, Homoscedastic
from skhyper.core.noise.members import Walk
from skhyper.core.noise.objective import Rows
from skhyper.core.noise.training import FALL, GRACE, Settings, Trainer

N_STEPS, TRIAL = 40, 0.25


def trainer(generator="full", noise=None, last_only=True, held=True, **settings):
    """Two members; targets are pure noise, so that there is nothing to gain."""
    model, flat = make_model(GENERATORS[generator], noise=noise or Homoscedastic(2), last_only=last_only)
    data = Rows(normal(60, 3, seed=5), normal(60, 2, seed=6), 0.5 + normal(60, seed=7).abs())
    train, test = hold_out(2, 0.25, data.y[:, 0], torch.zeros(60, dtype=torch.bool), seeded())
    chosen = Settings(
        **{
            "n_steps": N_STEPS,
            "batch_size": 6,
            "n_draws": 6,
            "trial": TRIAL,
            "spared": 1.5,
            "n_evaluations": 8,
            "exponent": 1.0,
            **settings,
        }
    )
    return Trainer(model, data, train, test if held else None, None, chosen, seeded(4), 45.0), flat


def best_mean(log_density, weight):
    """Log likelihood of each row with the factor exp(c) that maximises their weighted sum less its prior."""
    found = minimize_scalar(
        lambda c: c**2 / (2 * CALIBRATION_STD**2) - (weight * log_density(c)).sum(), (-0.1, 0.1), tol=1e-10
    )
    return log_density(found.x)


def test_the_gain_is_the_difference_of_two_calibrated_log_likelihoods():
    job, flat = trainer(noise=Homoscedastic(1))
    rows = job.rows._replace(y=job.rows.y[:, :1])
    z, held, parts = normal(2, 6, 3, seed=9), job.held_rows, job.layout.split(flat)
    found = gain_of_noise(job.model, flat, z, None, rows, held)
    y, weight = rows.y[held][..., 0].numpy(), rows.weight[held].numpy()
    sums = weight * (weight.size / weight.sum()) / 2  # as many as a member holds out
    log_p = []
    for draws in (z, 0 * z[:, :1]):
        means = job.model.network.outputs(parts, rows.x[held], draws, None)[..., 0].numpy()
        sigma = parts["log_sigma"].exp().numpy()[:, :, None]

        def log_density(c, means=means, sigma=sigma):
            each = stats.norm.logpdf(y[:, None], means, sigma * np.exp(c))
            return logsumexp(each, axis=1) - np.log(means.shape[1])

        log_p.append(best_mean(log_density, sums))
    gain, share = log_p[0] - log_p[1], weight / weight.sum()
    assert found.mean == pytest.approx((share * gain).sum(), abs=1e-5)
    assert found.error == pytest.approx(np.sqrt(np.sum((share * (gain - found.mean)) ** 2)), rel=1e-3)


@pytest.mark.parametrize("last_only", [False, True])
@pytest.mark.parametrize("generator", ["full", "low rank"])
@pytest.mark.parametrize("dealing", [Dealing.SHARED, Dealing.DEALT])
def test_noise_that_gains_nothing_is_dropped(monkeypatch, generator, last_only, dealing):
    """No draw moves the outputs at the end, steps are more, and the best weights are the best without noise."""
    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", lambda *rest: Gain(0.1, 0.2))
    job, flat = trainer(generator, last_only=last_only, dealing=dealing)
    trained = job.run(flat)
    assert trained.dropped
    assert trained.n_steps == trained.curve[-1].step == 10 + 45
    parts = job.layout.split(trained.flat)
    first, second = (job.model.network.outputs(parts, normal(1, 5, 3), normal(2, 4, 3, seed=s), None) for s in (1, 2))
    torch.testing.assert_close(first, second, rtol=1e-13, atol=1e-13)
    spreads = torch.stack([record.spread for record in trained.curve])
    assert (spreads[:2] > 0).all()
    assert (spreads[2:] == 0).all()
    still = torch.zeros(2, 1, 3, dtype=torch.float64)
    best = calibrated_losses(job.model, trained.flat, still, None, job.rows, job.held_rows, 1).mean()
    losses = torch.stack([record.held_out.mean() for record in trained.curve[2:]])
    assert best <= losses.min() + 1e-12


@pytest.mark.parametrize("settings", [{"trial": 0.0}, {"held": False}])
def test_noise_is_not_tried_without_need_or_rows(settings):
    job, flat = trainer(**settings)
    trained = job.run(flat)
    assert not trained.dropped
    assert trained.n_steps == N_STEPS


def test_noise_that_gains_is_kept(monkeypatch):
    """And the trial leaves no trace."""
    monkeypatch.setattr("skhyper.core.noise.training.progress", lambda *rest: 0.0)
    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", lambda *rest: Gain(0.3, 0.2))
    job, flat = trainer()
    trained = job.run(flat)
    assert not trained.dropped
    other, _ = trainer(trial=0.0)
    assert torch.equal(trained.flat, other.run(flat).flat)


def test_noise_is_tried_again_until_the_rate_falls(monkeypatch):
    gains = iter([Gain(0.3, 0.2), Gain(0.1, 0.2)])
    monkeypatch.setattr("skhyper.core.noise.training.progress", lambda *rest: 0.0)
    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", lambda *rest: next(gains))
    job, flat = trainer(decay_from=0.8)
    trained = job.run(flat)
    assert trained.dropped
    assert trained.n_steps == 20 + 30
    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", lambda *rest: Gain(0.1, 0.2))
    job, flat = trainer(trial=0.5, decay_from=0.4)
    assert not job.run(flat).dropped


@pytest.mark.parametrize(
    ("trial", "n_steps", "due"),
    [(0.1, 18000, 1800), (0.1, 10000, 1500), (0.1, 2000, 400), (0.25, 40, 10), (0.0, 40, np.inf)],
)
def test_noise_is_not_tried_before_it_can_have_learnt_its_use(trial, n_steps, due):
    assert trainer(trial=trial, n_steps=n_steps)[0].due == due


def test_progress_is_what_held_out_rows_gained_since_there_were_fewer_steps():
    losses = {2: 9.0, 10: 5.0, 12: 4.0, 20: 3.5}
    curve = [Record(step, *(torch.tensor([v, v + 1, np.nan]).double(),) * 3) for step, v in losses.items()]
    assert progress(curve, 2.0) == 1.5
    assert progress(curve, 1.6) == 0.5
    assert progress(curve, 1.0) == 0
    assert progress(curve, 50.0) == 0


@pytest.mark.parametrize(("bought", "dropped"), [(0.25, False), (0.35, True)])
def test_noise_must_gain_more_than_the_steps_that_it_costs(monkeypatch, bought, dropped):
    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", lambda *rest: Gain(0.3, 0.2))
    monkeypatch.setattr("skhyper.core.noise.training.progress", lambda curve, factor: bought)
    job, flat = trainer()
    assert job.run(flat).dropped == dropped


@pytest.mark.parametrize("generator", ["full", "low rank"])
@pytest.mark.parametrize("last_only", [False, True])
def test_steps_without_noise_are_those_of_the_plain_network(generator, last_only):
    """And what belongs to the noise stays where it is."""
    job, flat = trainer(generator, last_only=last_only)
    other = replace(job, model=job.model.plain)
    start = other.layout.join(job.layout.split(flat), flat)
    walks = [Walk.begin(begin, one.layout, None) for one, begin in ((job, flat), (other, start))]
    phases = job.plain(), other.noisy()
    for step in range(5):
        for one, walk, phase in zip((job, other), walks, phases, strict=True):
            one.advance(walk, job.train_rows[:, 6 * step : 6 * step + 6], phase, step)
    found = other.layout.join(job.layout.split(walks[0].flat), start)
    torch.testing.assert_close(found, walks[1].flat, rtol=1e-12, atol=1e-14)
    assert not torch.equal(found, start)
    columns = torch.cat([job.perturbs, job.held])
    assert torch.equal(walks[0].flat[:, columns], flat[:, columns])


def test_training_goes_back_to_the_best_weights_and_ends_soon(monkeypatch):
    """Targets are pure noise: what is learnt first is the best."""
    job, flat = trainer(trial=0.0, n_steps=2000, n_evaluations=100, decay_from=0.8, patience=2.0)
    seen = []
    go_back = Walk.go_back

    def watched(walk):
        go_back(walk)
        seen.append((walk.flat.clone(), walk.average.clone(), walk.best.clone(), walk.best_step))

    monkeypatch.setattr(Walk, "go_back", watched)
    trained = job.run(flat)
    ((now, average, best, best_step),) = seen
    assert torch.equal(now, best)
    assert torch.equal(average, best)
    steps = [record.step for record in trained.curve]
    tired = min(step for step in steps if step > 2 * best_step + GRACE)
    losses = {record.step: float(record.held_out.mean()) for record in trained.curve if record.step <= tired}
    assert min(losses, key=losses.get) == best_step
    assert trained.n_steps == steps[-1] == tired + round(FALL * best_step) < 2000
    assert job.schedule.rate(tired) == job.settings.learning_rate
    assert job.schedule.rate(trained.n_steps) == 0


def test_patience_without_end_takes_all_steps():
    job, flat = trainer(trial=0.0, n_steps=2000, n_evaluations=100, decay_from=0.8)
    assert job.run(flat).n_steps == 2000


def test_noise_is_tried_on_the_best_weights_where_training_ends_soon(monkeypatch):
    tried = []

    def gain(model, flat, *rest):
        tried.append(flat)
        return Gain(0.1, 0.2)

    monkeypatch.setattr("skhyper.core.noise.training.gain_of_noise", gain)
    job, flat = trainer(trial=0.7, n_steps=2000, n_evaluations=100, decay_from=0.8, patience=2.0)
    trained = job.run(flat)
    assert len(tried) == 1
    assert trained.dropped
    assert trained.n_steps < 1400


def test_labels_have_a_gain_too():
    job, flat = trainer(noise=Categorical(2))
    rows = job.rows._replace(y=torch.eye(2, dtype=torch.float64)[(job.rows.y[:, 0] > 0).long()])
    gain = gain_of_noise(job.model, flat, normal(2, 6, 3, seed=9), None, rows, job.held_rows)
    assert np.isfinite(gain.mean)
    assert gain.error > 0
    none = gain_of_noise(job.model, flat, torch.zeros(2, 2, 3).double(), None, rows, job.held_rows)
    assert none.mean == pytest.approx(0, abs=1e-12)


def test_a_sigma_that_is_wrong_by_a_factor_costs_little_where_losses_are_calibrated():
    """Of rows whose deviation is 1: with log sigma at -2 they lose e^4 / 2 each, and next to nothing calibrated."""
    job, flat = trainer(noise=Homoscedastic(1))
    rows = job.rows._replace(y=job.rows.y[:, :1])
    flat = torch.zeros_like(flat)
    job.layout.split(flat)["log_sigma"][:] = -2.0
    arguments = job.model, flat, torch.zeros(2, 1, 3).double(), None, rows, job.held_rows
    pooled, apart = calibrated_losses(*arguments, 1), calibrated_losses(*arguments, 2)
    y, weight = rows.y[job.held_rows][..., 0], rows.weight[job.held_rows]
    for found, groups in ((pooled, [[0, 1]]), (apart, [[0], [1]])):
        for members in groups:
            variance = float((weight[members] * y[members] ** 2).sum() / weight[members].sum())
            least = 0.5 * np.log(2 * np.pi * variance) + 0.5  # at the maximum of the likelihood
            mean = (weight[members].sum(1) * found[members]).sum() / weight[members].sum()
            assert least - 1e-9 <= float(mean) < least + 0.5


def test_a_member_that_diverged_leaves_the_factor_of_the_others_alone():
    job, flat = trainer(noise=Homoscedastic(1))
    rows = job.rows._replace(y=job.rows.y[:, :1])
    z, held = torch.zeros(2, 1, 3).double(), job.held_rows
    alone = calibrated_losses(job.model, flat[:1], z[:1], None, rows, held[:1], 1)
    flat[1] = torch.nan
    found = calibrated_losses(job.model, flat, z, None, rows, held, 1)
    torch.testing.assert_close(found[:1], alone, rtol=1e-3, atol=1e-3)  # its prior counts twice as many rows
    assert torch.isnan(found[1])
