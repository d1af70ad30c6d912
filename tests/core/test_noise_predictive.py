"""Gaussian mixtures against numerical integration and scipy."""

import numpy as np
import pytest
import torch
from noise_problems import normal
from scipy import integrate, optimize, stats

from skhyper.core.noise.predictive import Mixture, best_log_factor, entropy_parts, normal_cdf, variance_parts


@pytest.fixture
def mixture():
    return Mixture(2 * normal(6, 4, 2), 0.2 + normal(6, 4, 2, seed=1).abs())


def component(mixture, row, target):
    mean, std = mixture.mean[:, row, target].numpy(), mixture.std[:, row, target].numpy()
    return lambda t: stats.norm.cdf(t, mean, std).mean(), lambda t: stats.norm.pdf(t, mean, std).mean()


def test_moments_are_those_of_the_density(mixture):
    for row in range(4):
        _, pdf = component(mixture, row, 0)
        mean = integrate.quad(lambda t, pdf=pdf: t * pdf(t), -20, 20, limit=200)[0]
        second = integrate.quad(lambda t, pdf=pdf: t * t * pdf(t), -20, 20, limit=200)[0]
        assert mixture.expectation()[row, 0] == pytest.approx(mean, abs=1e-6)
        assert mixture.variance()[row, 0] == pytest.approx(second - mean**2, abs=1e-6)


def test_distribution_and_density_are_those_of_scipy(mixture):
    y = normal(4, 2, seed=2)
    for row in range(4):
        cdf, pdf = component(mixture, row, 1)
        assert mixture.cdf(y)[row, 1] == pytest.approx(cdf(y[row, 1].item()), rel=1e-12)
        assert mixture.density(y)[row, 1] == pytest.approx(pdf(y[row, 1].item()), rel=1e-12)


def test_the_joint_log_density_is_a_mixture_of_products(mixture):
    y = normal(4, 2, seed=2)
    log_p = stats.norm.logpdf(y.numpy(), mixture.mean.numpy(), mixture.std.numpy()).sum(-1)
    np.testing.assert_allclose(mixture.log_density(y), np.log(np.exp(log_p).mean(0)), rtol=1e-12)


@pytest.mark.parametrize("q", [1e-9, 0.05, 0.5, 0.9, 1 - 1e-9])
def test_quantiles_are_roots_of_the_distribution(mixture, q):
    found = mixture.quantile(q)
    for row in range(4):
        cdf, _ = component(mixture, row, 0)
        root = optimize.brentq(lambda t, cdf=cdf: cdf(t) - q, -60, 60, xtol=1e-14)
        assert found[row, 0] == pytest.approx(root, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("q", [1e-4, 0.3, 0.95])
def test_rows_that_take_long_do_not_move_the_others(q):
    """Values are those of the row alone, whichever others are there."""
    spread = torch.linspace(0, 3, 40, dtype=torch.float64)
    many = Mixture(spread.exp()[None, :, None] * normal(5, 1, 1), 0.01 + normal(5, 40, 1, seed=1).abs())
    together = many.quantile(q)
    alone = torch.cat([many.take(torch.tensor([row])).quantile(q) for row in range(40)])
    torch.testing.assert_close(together, alone, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(many.cdf(together), torch.full((40, 1), q, dtype=torch.float64), rtol=1e-9, atol=0)


def test_quantiles_between_far_components():
    """The density is next to zero in the gap, where Newton's steps lead out of the bracket."""
    mixture = Mixture(torch.tensor([-100.0, 100.0]).double().reshape(2, 1, 1), torch.full((2, 1, 1), 1e-3).double())
    for q in (0.25, 0.4999, 0.5001, 0.75):
        assert mixture.cdf(mixture.quantile(q)) == pytest.approx(q, abs=1e-9)


def test_quantiles_of_equal_components_are_gaussian():
    mixture = Mixture(torch.zeros(3, 1, 1).double(), torch.ones(3, 1, 1).double())
    assert mixture.quantile(0.975) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)


def test_the_score_is_the_integral_of_its_definition(mixture):
    y = normal(4, 2, seed=2)
    scores = mixture.crps(y)
    for row in range(4):
        for target in range(2):
            cdf, _ = component(mixture, row, target)
            at = y[row, target].item()
            low = integrate.quad(lambda t, cdf=cdf: cdf(t) ** 2, -25, at, limit=400)[0]
            high = integrate.quad(lambda t, cdf=cdf: (1 - cdf(t)) ** 2, at, 25, limit=400)[0]
            assert scores[row, target] == pytest.approx(low + high, rel=1e-6)


def test_blocks_do_not_change_the_score(mixture, monkeypatch):
    y = normal(4, 2, seed=2)
    whole = mixture.crps(y)
    monkeypatch.setattr("skhyper.core.noise.predictive.MAX_PAIRS", 1)
    torch.testing.assert_close(mixture.crps(y), whole)


def test_the_normal_distribution_keeps_its_tails():
    t = torch.tensor([-30.0, -8.0, 0.0, 3.0], dtype=torch.float64)
    np.testing.assert_allclose(normal_cdf(t), stats.norm.cdf(t.numpy()), rtol=1e-12)


def test_parts_of_the_variance_add_up(mixture):
    total, aleatoric, epistemic = variance_parts(mixture, n_members=3)
    torch.testing.assert_close(total, mixture.variance())
    torch.testing.assert_close(total, aleatoric + epistemic)
    torch.testing.assert_close(epistemic, mixture.mean.reshape(3, 2, 4, 2).mean(1).var(0, correction=0))


def test_members_that_agree_leave_no_mutual_information():
    p = torch.softmax(normal(1, 5, 3), -1).expand(4, -1, -1)
    total, aleatoric, epistemic = entropy_parts(p)
    torch.testing.assert_close(total, aleatoric)
    assert epistemic.abs().max() < 1e-12
    certain = torch.eye(3).double()[:, None]  # each member is sure of another class
    assert entropy_parts(certain).epistemic == pytest.approx(np.log(3))


def test_the_best_factor_is_found_for_each_target():
    center = torch.tensor([0.7, -1.234], dtype=torch.float64)
    found = best_log_factor(lambda c: -1e6 * (c - center).square(), 2)
    np.testing.assert_allclose(found, center, atol=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_factor_is_that_of_a_fine_search(seed):
    """Of a mixture with heavy tails, whose log likelihood is no parabola."""
    r = 3.0 ** (seed - 2) * normal(16, 30, 2, seed=seed) * torch.exp(normal(16, 30, 2, seed=seed + 10))

    def score(c):
        return (torch.logsumexp(-0.5 * (r * torch.exp(-c)).square() - c, 0)).sum(0)

    found = best_log_factor(score, 2, 0.5)
    for k in range(2):
        pair = torch.zeros(2, dtype=torch.float64)

        def loss(c, k=k, pair=pair):
            return float(2 * c**2 - score(pair + c)[k])

        starts = np.linspace(-3, 3, 121)
        near = starts[np.argmin([loss(c) for c in starts])]
        best = optimize.minimize_scalar(loss, bounds=(max(-3, near - 0.05), min(3, near + 0.05)), method="bounded")
        assert float(found[k]) == pytest.approx(best.x, abs=3e-4)


def test_the_best_factor_of_a_score_without_a_top_is_at_the_end():
    found = best_log_factor(lambda c: torch.stack([40 * c[0], -40 * c[1]]), 2)
    np.testing.assert_allclose(found, [3.0, -3.0])
    np.testing.assert_allclose(best_log_factor(torch.zeros_like, 2), 0.0, atol=1e-12)
