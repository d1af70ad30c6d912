"""Derivatives of every loss; that they are the right losses is left to the comparisons with scikit-learn."""

import pytest
import torch
from sklearn.metrics import mean_tweedie_deviance

from skhyper.core import losses


def outputs(case, n=40):
    g = torch.Generator().manual_seed(3)
    f = torch.randn(n, case.n_outputs, generator=g, dtype=torch.float64) + case.shift
    y = case.draw(f + torch.randn(f.shape, generator=g, dtype=f.dtype), g)
    constants = 0.5 + torch.rand(n, case.loss.n_constants, generator=g, dtype=torch.float64)
    return torch.cat([f, constants], -1), y


@pytest.mark.parametrize("power", [0.0, 1.0, 1.5, 2.0, 3.0])
def test_a_tweedie_loss_is_half_the_unit_deviance(power):
    generator = torch.Generator().manual_seed(0)
    f, y = (torch.randn(20, 1, generator=generator, dtype=torch.float64) for _ in range(2))
    y = 30 * y.exp()
    y[:3] = 0.0 if 0 < power < 2 else 1.0
    value = losses.TweedieLog(power).value(f, y)
    expected = [mean_tweedie_deviance(t, m, power=power) / 2 for t, m in zip(y.numpy(), f.exp().numpy(), strict=True)]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


def test_the_gradient_of_every_loss_is_the_derivative_of_its_value(case):
    f, y = outputs(case)
    f.requires_grad_()
    (expected,) = torch.autograd.grad(case.loss.value(f, y).sum(), f)
    torch.testing.assert_close(case.loss.gradient(f, y), expected)


def test_the_hessian_of_every_loss_is_the_derivative_of_its_gradient(case):
    f, y = outputs(case)
    step = 1e-6
    steps = step * torch.eye(f.shape[-1], dtype=f.dtype)
    columns = [(case.loss.gradient(f + d, y) - case.loss.gradient(f - d, y)) / (2 * step) for d in steps]
    torch.testing.assert_close(case.loss.hessian(f, y), torch.stack(columns, -1), rtol=1e-6, atol=1e-7)


def test_diagonal_and_product_are_those_of_the_hessian(case):
    f, y = outputs(case)
    v = torch.randn(2, *f.shape, generator=torch.Generator().manual_seed(0), dtype=f.dtype)
    hessian = case.loss.hessian(f, y)
    torch.testing.assert_close(case.loss.curvature(f, y), hessian.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(case.loss.hessian_product(f, y)(v), (hessian @ v[..., None])[..., 0])


def test_a_separable_loss_has_a_diagonal_hessian(case):
    f, y = outputs(case)
    hessian = case.loss.hessian(f, y)
    if case.loss.separable:
        torch.testing.assert_close(hessian, torch.diag_embed(case.loss.curvature(f, y)))
    else:
        assert (hessian - torch.diag_embed(case.loss.curvature(f, y))).abs().max() > 1e-3


def test_a_shift_of_all_outputs_changes_a_loss_unless_it_says_otherwise(case):
    f, y = outputs(case)
    same = torch.allclose(case.loss.value(f, y), case.loss.value(f + 0.7, y))
    assert same == case.loss.shift_invariant


def test_the_start_is_never_much_worse_than_zeros(case):
    _, y = outputs(case)
    c = torch.rand(2, len(y), generator=torch.Generator().manual_seed(4), dtype=y.dtype)
    start = case.loss.start(y, c)
    assert start.shape == (2, case.n_outputs + case.loss.n_constants)
    zeros = torch.zeros_like(start)
    zeros[:, case.n_outputs :] = 1e3

    def total(constant):
        return (c * case.loss.value(constant[:, None, :].expand(-1, len(y), -1), y)).sum(-1)

    assert (total(start) <= total(zeros) + 0.02 * total(zeros).abs()).all()


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_the_log_loss_stays_exact_for_large_outputs(label):
    f = torch.tensor([[-800.0], [-30.0], [30.0], [800.0]], dtype=torch.float64)
    value = losses.LogLoss().value(f, torch.full_like(f, label))
    expected = torch.logaddexp(torch.zeros_like(f), (1 - 2 * label) * f)[:, 0]
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)


def test_the_concomitant_scale_must_be_positive():
    f = torch.tensor([[0.5, 0.0], [0.5, -1.0]], dtype=torch.float64)
    assert losses.ConcomitantHuber().value(f, torch.zeros(2, 1, dtype=torch.float64)).isinf().all()
