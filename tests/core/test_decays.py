"""Granularities, and the family of decays against its formulas."""

import pytest
import torch

from skhyper.core.decays import Decays, Hyper

# Weights without decay at the start and at the end; groups of several sizes, not in order.
INDEX = torch.tensor([-1, 2, 0, 0, 1, 2, 2, 3, -1])
PLAIN = torch.tensor([False, True, False, False])


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(params=["several groups", "several groups, one plain", "in order", "not in order"])
def decays(request):
    return {
        "several groups": Decays(INDEX),
        "several groups, one plain": Decays(INDEX, PLAIN),
        "in order": Decays(torch.tensor([0, 1, 2, 3, -1, -1, -1, -1, -1])),
        "not in order": Decays(torch.tensor([-1, 3, 2, 0, 1, -1, -1, -1, -1])),
    }[request.param]


def hyper_of(exponent, log_alpha=0.7):
    numbers = torch.tensor([log_alpha, exponent], dtype=torch.float64)
    return Hyper(numbers[0], numbers[1], random(4, seed=2))


@pytest.fixture(params=[0.7, 1.0, 1.5, 2.0])
def hyper(request):
    return hyper_of(request.param)


def test_group_sums_and_spread_are_transposes(decays):
    v, a = random(2, 3, 9), random(2, 3, 4, seed=1)
    torch.testing.assert_close((decays.group_sums(v) * a).sum(-1), (v * decays.spread(a)).sum(-1))
    assert (decays.spread(a)[..., decays.index < 0] == 0).all()


def test_sizes_count_the_weights_of_each_decay():
    assert Decays(INDEX).sizes.tolist() == [2, 1, 3, 1]
    assert not Decays(INDEX).single
    assert Decays(INDEX).n_groups == 4


def test_the_family_is_alpha_times_a_power_of_the_mean_square():
    w, s2 = random(3, 9), torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    h = hyper_of(1.2)
    a = Decays(INDEX, PLAIN, eps=1e-3).log_decays(w, h, s2).exp()
    for k in range(3):
        for g in range(4):
            m = (w[k, g == INDEX] ** 2).mean()
            expected = h.log_alpha.exp() * h.offsets[g].exp()
            if not PLAIN[g]:
                expected = expected * (m / s2[k] + 1e-3) ** ((h.exponent - 2) / 2)
            torch.testing.assert_close(a[k, g], expected)


def test_the_gradient_of_the_penalty_is_decay_times_weight(decays, hyper):
    w, s2 = random(3, 9).requires_grad_(), torch.rand(3, dtype=torch.float64) + 0.5
    (expected,) = torch.autograd.grad(decays.penalty(w, hyper, s2).sum(), w)
    a = decays.spread(decays.log_decays(w, hyper, s2).exp())
    torch.testing.assert_close((a * w).detach(), expected)


def test_the_hessian_of_the_penalty_is_a_diagonal_less_a_term_for_each_group(decays, hyper):
    w, s2 = random(1, 9), torch.tensor([0.7], dtype=torch.float64)
    expected = torch.autograd.functional.hessian(lambda v: decays.penalty(v[None], hyper, s2).sum(), w[0])
    a = decays.spread(decays.log_decays(w, hyper, s2).exp())[0]
    one_hot = (decays.index[:, None] == torch.arange(4)) * w[0][:, None]
    b = decays.concavity(w, hyper, s2)[0]
    torch.testing.assert_close(a.diag() - (one_hot * b) @ one_hot.T, expected, atol=1e-9, rtol=1e-7)


def test_equal_decays_at_exponent_two(decays):
    w, s2 = random(3, 9), torch.ones(3, dtype=torch.float64)
    h = hyper_of(2.0)
    expected = (h.log_alpha + h.offsets).expand(3, -1)
    torch.testing.assert_close(decays.log_decays(w, h, s2), expected)
    constant = decays.penalty(torch.zeros_like(w), h, s2)
    ridge = (decays.spread(expected.exp()) * w**2).sum(-1) / 2
    torch.testing.assert_close(decays.penalty(w, h, s2) - constant, ridge)


def test_a_change_of_units_of_the_weights_leaves_the_decays_alone(decays, hyper):
    w = random(3, 9)
    s2 = decays.scale(w)
    torch.testing.assert_close(decays.log_decays(5 * w, hyper, decays.scale(5 * w)), decays.log_decays(w, hyper, s2))


def test_the_scale_counts_weights_with_a_decay_that_is_not_plain():
    w = random(3, 9)
    torch.testing.assert_close(Decays(INDEX).scale(w), (w[:, INDEX >= 0] ** 2).mean(-1))
    torch.testing.assert_close(Decays(INDEX, PLAIN).scale(w), (w[:, (INDEX >= 0) & (INDEX != 1)] ** 2).mean(-1))


def test_candidates_are_what_each_is_alone(decays):
    w, s2 = random(2, 3, 9), torch.rand(3, dtype=torch.float64) + 0.5
    singles = [hyper_of(1.3, 0.2), hyper_of(0.8, -1.0)]
    batch = Hyper(*(torch.stack(parts) for parts in zip(*singles, strict=True)))
    for function in [decays.log_decays, decays.penalty, decays.concavity]:
        together = function(w, batch, s2)
        for i, h in enumerate(singles):
            torch.testing.assert_close(together[i], function(w[i], h, s2))


def test_weights_and_scale_of_zero_give_finite_decays(decays, hyper):
    zero = torch.zeros(3, 9, dtype=torch.float64)
    s2 = torch.zeros(3, dtype=torch.float64)
    assert decays.log_decays(zero, hyper, s2).isfinite().all()
    assert decays.penalty(zero, hyper, s2).isfinite().all()
    assert decays.concavity(zero, hyper, s2).isfinite().all()
