"""Mixtures with bounded support against numerical integration, scipy and the plain mixture."""

import numpy as np
import pytest
import torch
from noise_problems import normal
from scipy import integrate, stats

from skhyper.core.noise.predictive import Mixture, variance_parts
from skhyper.core.noise.truncated import Truncated, log_between

LOW, HIGH = (0.0, -np.inf), (1.5, 1.0)
Y = torch.tensor([[0.1, -2.0], [0.5, -1.0], [1.0, 0.0], [1.4, 0.9]], dtype=torch.float64)


@pytest.fixture
def mixture():
    return Mixture(2 * normal(6, 4, 2), 0.2 + normal(6, 4, 2, seed=1).abs())


def bounded(mixture, low=LOW, high=HIGH):
    return Truncated(mixture, torch.tensor(low, dtype=torch.float64), torch.tensor(high, dtype=torch.float64))


def reference(mixture, row, target):
    """Distribution function and density of one target by scipy's truncated Gaussians and the mass of whole boxes."""
    mean, std = mixture.mean[:, row].numpy(), mixture.std[:, row].numpy()
    mass = (stats.norm.cdf(HIGH, mean, std) - stats.norm.cdf(LOW, mean, std)).prod(-1)
    weight = mass / mass.sum()
    m, s = mean[:, target], std[:, target]
    own = stats.truncnorm((LOW[target] - m) / s, (HIGH[target] - m) / s, m, s)
    return lambda t: weight @ own.cdf(t), lambda t: weight @ own.pdf(t)


def test_distribution_and_density_are_those_of_scipy(mixture):
    law = bounded(mixture)
    for row in range(4):
        for target in range(2):
            cdf, pdf = reference(mixture, row, target)
            at = Y[row, target].item()
            assert law.cdf(Y)[row, target] == pytest.approx(cdf(at), rel=1e-9)
            assert law.density(Y)[row, target] == pytest.approx(pdf(at), rel=1e-9)


def test_moments_and_quantiles_are_those_of_the_density(mixture):
    law = bounded(mixture)
    quantile = law.quantile(0.3)
    for row in range(4):
        for target in range(2):
            cdf, pdf = reference(mixture, row, target)
            low = max(LOW[target], -25.0)
            mean = integrate.quad(lambda t, pdf=pdf: t * pdf(t), low, HIGH[target], limit=200)[0]
            second = integrate.quad(lambda t, pdf=pdf: t * t * pdf(t), low, HIGH[target], limit=200)[0]
            assert law.expectation()[row, target] == pytest.approx(mean, abs=1e-6)
            assert law.variance()[row, target] == pytest.approx(second - mean**2, abs=1e-6)
            assert cdf(quantile[row, target].item()) == pytest.approx(0.3, abs=1e-9)


def test_levels_of_0_and_1_are_the_bounds(mixture):
    law = bounded(mixture)
    for level, ends in ((0.0, LOW), (1.0, HIGH)):
        end = torch.tensor(ends, dtype=torch.float64).expand(4, 2)
        assert torch.equal(law.quantile(level), end)
        assert torch.equal(law.cdf(end), torch.full((4, 2), level, dtype=torch.float64))
    several = law.quantile(torch.tensor([0.0, 0.5], dtype=torch.float64))
    assert torch.equal(several[:, 0], torch.zeros(4, dtype=torch.float64))
    assert torch.equal(several[:, 1], law.quantile(0.5)[:, 1])


def test_the_joint_density_integrates_to_one(mixture):
    nodes, weights = np.polynomial.legendre.leggauss(60)
    low, high = torch.tensor([0.0, -1.0]).double(), torch.tensor([1.5, 1.0]).double()
    for row in range(4):
        one = Truncated(Mixture(mixture.mean[:, row : row + 1], mixture.std[:, row : row + 1]), low, high)
        total = 0.0
        for u, wu in zip(nodes, weights, strict=True):
            points = torch.tensor([[0.75 + 0.75 * u, v] for v in nodes], dtype=torch.float64)
            total += 0.75 * wu * float(torch.from_numpy(weights) @ one.log_density(points).exp())
        assert total == pytest.approx(1.0, abs=1e-6)


def test_nothing_lies_outside(mixture):
    law = bounded(mixture)
    outside = torch.tensor([[-0.1, 0.0], [1.6, 0.0], [0.5, 1.1], [9.0, 9.0]], dtype=torch.float64)
    assert torch.isneginf(law.log_density(outside)).all()
    assert (law.density(outside)[:2, 0] == 0).all()
    assert law.cdf(outside)[0, 0] == 0
    assert law.cdf(outside)[1, 0] == pytest.approx(1, abs=1e-12)
    values = law.draw(torch.rand(500, dtype=torch.float64), torch.randn(500, 4, 2, dtype=torch.float64))
    assert values[..., 0].min() >= 0
    assert values[..., 0].max() <= 1.5
    assert values[..., 1].max() <= 1


def test_the_score_is_the_integral_of_its_definition(mixture):
    scores = bounded(mixture).crps(Y)
    for row in range(4):
        for target in range(2):
            cdf, _ = reference(mixture, row, target)
            at, low = Y[row, target].item(), max(LOW[target], -25.0)
            below = integrate.quad(lambda t, cdf=cdf: cdf(t) ** 2, low, at, limit=400)[0]
            above = integrate.quad(lambda t, cdf=cdf: (1 - cdf(t)) ** 2, at, HIGH[target], limit=400)[0]
            assert scores[row, target] == pytest.approx(below + above, rel=1e-6)


def test_draws_have_the_distribution(mixture):
    law = bounded(mixture)
    generator = torch.Generator().manual_seed(0)
    level = torch.rand(20000, generator=generator, dtype=torch.float64)
    values = law.draw(level, torch.randn(20000, 4, 2, generator=generator, dtype=torch.float64))
    for row in range(4):
        for target in range(2):
            cdf = np.vectorize(reference(mixture, row, target)[0])
            assert stats.kstest(values[:2000, row, target].numpy(), cdf).pvalue > 1e-4
    np.testing.assert_allclose(values.mean(0), law.expectation(), atol=0.05)


def test_without_bounds_it_is_the_mixture(mixture):
    law = bounded(mixture, (-np.inf, -np.inf), (np.inf, np.inf))
    for name in ("cdf", "density", "log_density"):
        np.testing.assert_allclose(getattr(law, name)(Y), getattr(mixture, name)(Y), rtol=1e-10)
    np.testing.assert_allclose(law.crps(Y), mixture.crps(Y), rtol=1e-6)
    for ours, theirs in zip(variance_parts(law, 3), variance_parts(mixture, 3), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    level, noise = torch.tensor([0.05, 0.4, 0.95], dtype=torch.float64), normal(3, 4, 2, seed=5)
    np.testing.assert_allclose(law.draw(level, noise), mixture.draw(level, noise), rtol=1e-9)


def test_components_far_outside_do_no_harm(mixture):
    law = bounded(Mixture(mixture.mean - 1e4, mixture.std))
    for values in (law.expectation(), law.variance(), law.quantile(0.5), law.crps(Y)):
        assert torch.isfinite(values).all()
    assert (law.expectation()[:, 0] > 0).all()
    assert (law.expectation()[:, 0] < 0.01).all()


def test_masses_are_accurate_in_both_tails():
    a = torch.tensor([-30.0, 29.0, -1.0, -np.inf], dtype=torch.float64)
    b = torch.tensor([-29.0, 30.0, 2.0, np.inf], dtype=torch.float64)
    expected = [stats.norm.logcdf(-29.0), stats.norm.logcdf(-29.0), np.log(stats.norm.cdf(2) - stats.norm.cdf(-1)), 0.0]
    np.testing.assert_allclose(log_between(a, b), expected, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("distance", [-5.0, 7.0, 9.0, 60.0, 1e4])
@pytest.mark.parametrize("width", [0.05, 3.0, np.inf])
@pytest.mark.parametrize("above", [True, False])
def test_far_from_the_bounds_moments_and_draws_are_those_of_the_distance(distance, width, above):
    """The mean lies `distance` standard deviations outside of the nearer bound, 2; draws against the same law."""
    std = 0.5
    mean, bounds = (
        (2 - std * distance, (2.0, 2 + std * width)) if above else (2 + std * distance, (2 - std * width, 2.0))
    )
    law = bounded(Mixture(torch.full((1, 1, 1), mean).double(), torch.full((1, 1, 1), std).double()), *bounds)
    end = min(width, 40 / distance if distance > 1 else 15.0)

    def density(e, k=0):
        return e**k * np.exp(-distance * e - 0.5 * e * e)

    mass, first, second = (
        integrate.quad(density, 0, end, (k,), epsabs=0, epsrel=1e-12, limit=200)[0] for k in range(3)
    )
    sign = 1 if above else -1
    assert sign * (law.expectation().item() - 2) == pytest.approx(std * first / mass, rel=1e-6)
    assert law.variance().item() == pytest.approx(std**2 * (second / mass - (first / mass) ** 2), rel=1e-5)
    noise = torch.from_numpy(stats.norm.ppf((np.arange(400) + 0.5) / 400))
    draws = (sign * (law.draw(torch.zeros(400).double(), noise[:, None, None])[:, 0, 0].numpy() - 2)) / std
    assert draws.mean() == pytest.approx(first / mass, rel=0.02)
    assert draws.std() == pytest.approx(np.sqrt(second / mass - (first / mass) ** 2), rel=0.03)


@pytest.mark.parametrize("distance", [1e6, 1e9])
def test_draws_from_an_exponential_tail_stay_at_the_bound(distance):
    law = bounded(Mixture(torch.full((1, 1, 1), -distance).double(), torch.ones(1, 1, 1).double()), (0.0,), (np.inf,))
    draws = law.draw(torch.zeros(200).double(), normal(200, 1, 1)) * distance
    assert law.expectation().item() * distance == pytest.approx(1, rel=1e-9)
    assert 0.7 < draws.mean() < 1.4
    assert (draws > 0).all()
