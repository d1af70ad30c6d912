"""Proposals on functions that are known, without any problem behind them, and the unit that they lower."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from squared import hyper, tensor

from skhyper.core.decays import Hyper
from skhyper.core.hyperoptim import Objective, QuasiNewton
from skhyper.core.result import Evaluation, StopReason

WIDE = (-50.0, 50.0)
PLAIN = Objective(log_scale=False, n=1, tau=1e9)


def rotated_quadratic(d, condition):
    rng = np.random.default_rng(d)
    q, _ = np.linalg.qr(rng.standard_normal((d, d)))
    h = tensor(q * np.geomspace(1, condition, d) @ q.T)
    return lambda x: (x - 1) @ h @ (x - 1) / 2 + 1


FUNCTIONS = {
    "a quadratic": (1, rotated_quadratic(1, 1)),
    "a quadratic in five dimensions": (5, rotated_quadratic(5, 30)),
    "an ill-conditioned quadratic": (10, rotated_quadratic(10, 1e4)),
    "log cosh": (3, lambda x: torch.log(torch.cosh(x - 2)).sum() + 0.01 * x @ x),
    "a quartic": (4, lambda x: ((x - 1) ** 4).sum() + 0.1 * ((x - 1) ** 2).sum()),
    "a valley": (2, lambda x: (1 - x[0]) ** 2 + 10 * (x[1] - x[0] ** 2) ** 2),
    "a plateau before the descent": (1, lambda x: -torch.exp(-((x - 4) ** 2) / 8).sum() + 2),
}


def ask(proposals, function, max_iter=500, log=None):
    """Ask and tell until nothing is left; the evaluations."""
    log = [] if log is None else log
    for _ in range(max_iter):
        h = proposals.propose()
        if h is None:
            return log
        x = torch.cat([h.log_alpha.reshape(1), *([] if h.offsets is None else [h.offsets])]).clone().requires_grad_()
        value = function(x)
        gradient = torch.autograd.grad(value, x)[0]
        parts = Hyper(gradient[0], tensor(0.0), None if h.offsets is None else gradient[1:])
        log.append(Evaluation(h, tensor([]), value.detach()[None], parts, 0.0))
        proposals.observe(log[-1])
    return log


def start(d, at=0.0):
    return hyper(at, 2.0, [at] * (d - 1) if d > 1 else None)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_quasi_newton_converges_to_the_minimum_that_scipy_finds(name):
    d, function = FUNCTIONS[name]
    proposals = QuasiNewton(start(d, 0.5), PLAIN, WIDE, 1e-7)
    log = ask(proposals, function)
    assert proposals.stop_reason is StopReason.CONVERGED
    assert len(log) < 80
    expected = minimize(lambda x: float(function(tensor(x))), np.full(d, 0.5), method="BFGS", options={"gtol": 1e-9})
    assert log[-1].value == pytest.approx(expected.fun, rel=1e-9)
    assert all(e.value >= log[-1].value - 1e-12 for e in log)


def test_a_quadratic_whose_curvature_is_known_takes_two_evaluations():
    def function(x):
        return 3 * ((x - 2) ** 2).sum() + 1

    proposals = QuasiNewton(start(1), PLAIN, WIDE, 1e-9, curvature=6.0)
    assert len(ask(proposals, function)) == 2
    assert proposals.stop_reason is StopReason.CONVERGED


@pytest.mark.parametrize(("bounds", "at"), [((-1.0, 0.5), 0.5), ((2.0, 9.0), 2.0), ((0.5, 0.5000001), 0.5000001)])
@pytest.mark.parametrize("d", [1, 4])
def test_a_minimum_beyond_a_bound_ends_at_the_bound(bounds, at, d):
    """log alpha stops there; offsets, which have no bounds, go to their optimum given that."""
    function = rotated_quadratic(d, 10)
    proposals = QuasiNewton(start(d), PLAIN, bounds, 1e-8)
    log = ask(proposals, function)
    assert proposals.stop_reason is StopReason.AT_BOUND
    assert all(bounds[0] <= float(e.hyper.log_alpha) <= bounds[1] for e in log)
    assert float(log[-1].hyper.log_alpha) == at
    if d > 1:
        assert float(log[-1].gradient.offsets.abs().max()) < 1e-8


def test_a_minimum_on_a_bound_is_left_again_where_the_way_leads_inside():
    """From the bound, with a first step that would leave it."""
    proposals = QuasiNewton(start(1, -3.0), PLAIN, (0.0, 5.0), 1e-8)
    log = ask(proposals, lambda x: ((x - 1) ** 2).sum())
    assert float(log[0].hyper.log_alpha) == 0
    assert proposals.stop_reason is StopReason.CONVERGED
    assert float(log[-1].hyper.log_alpha) == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_shortens_the_step(bad):
    """Beyond .95 the function is not defined; the minimum lies at .9."""
    proposals = QuasiNewton(start(1, -2.0), PLAIN, WIDE, 1e-8, curvature=1.0)
    log = ask(proposals, lambda x: torch.where(x > 0.95, x * 0 + bad, (x - 0.9) ** 2).sum())
    assert any(not math.isfinite(e.value) for e in log)
    assert proposals.stop_reason is StopReason.CONVERGED
    assert float(log[-1].hyper.log_alpha) == pytest.approx(0.9, abs=1e-8)


def test_a_gradient_that_is_not_finite_shortens_the_step():
    proposals = QuasiNewton(start(1), PLAIN, WIDE, 1e-8, curvature=0.5)
    log = []
    while (h := proposals.propose()) is not None:
        x = float(h.log_alpha)
        slope = math.nan if x > 1.5 else 2 * (x - 1)
        log.append(Evaluation(h, tensor([]), tensor([(x - 1) ** 2]), Hyper(tensor(slope), tensor(0.0)), 0.0))
        proposals.observe(log[-1])
    assert any(math.isnan(float(e.gradient.log_alpha)) for e in log)
    assert proposals.stop_reason is StopReason.CONVERGED


@pytest.mark.parametrize(("value", "slope"), [(math.nan, 1.0), (math.inf, 1.0), (math.inf, math.nan), (1.0, math.nan)])
def test_a_start_that_is_not_finite_has_diverged(value, slope):
    proposals = QuasiNewton(start(1), PLAIN, WIDE, 1e-8)
    proposals.observe(
        Evaluation(proposals.propose(), tensor([]), tensor([value]), Hyper(tensor(slope), tensor(0.0)), 0)
    )
    assert proposals.stop_reason is StopReason.DIVERGED
    assert proposals.propose() is None


LIES = {
    "a gradient that points the wrong way": lambda x, rng: ((x - 1) @ (x - 1), -2 * (x - 1)),
    "noise in the gradient": lambda x, rng: (
        (x - 1) @ (x - 1),
        2 * (x - 1) + 0.1 * tensor(rng.standard_normal(len(x))),
    ),
    "noise in the value": lambda x, rng: ((x - 1) @ (x - 1) + 0.1 * rng.random(), 2 * (x - 1)),
    "a slope but no descent": lambda x, rng: (tensor(1.0), torch.ones_like(x)),
    "no floor": lambda x, rng: (x.sum(), torch.ones_like(x)),
    "nothing but noise": lambda x, rng: (tensor(rng.random()), tensor(rng.standard_normal(len(x)))),
}


@pytest.mark.parametrize("name", LIES)
@pytest.mark.parametrize("d", [1, 3])
def test_proposals_end_whatever_they_are_told(name, d):
    """Without bounds on what is left to try, a wrong gradient would make a search that goes on for ever."""
    rng = np.random.default_rng(0)
    proposals = QuasiNewton(start(d), PLAIN, WIDE, 1e-8)
    values = []
    for _ in range(1000):
        h = proposals.propose()
        if h is None:
            break
        x = torch.cat([h.log_alpha.reshape(1), *([] if h.offsets is None else [h.offsets])])
        assert bool(x.isfinite().all())
        value, gradient = LIES[name](x, rng)
        values.append(float(value))
        parts = Hyper(gradient[0], tensor(0.0), gradient[1:] if d > 1 else None)
        proposals.observe(Evaluation(h, tensor([]), value.reshape(1), parts, 0.0))
    if name == "no floor" and d > 1:
        assert min(values) < -1000  # offsets have no bounds: the loop's max_iter ends it
    else:
        assert proposals.stop_reason is not None


@pytest.mark.parametrize("log_scale", [True, False])
def test_the_objectives_gradient_is_that_of_its_value(log_scale):
    objective = Objective(log_scale, n=20, tau=0.7)
    rng = np.random.default_rng(0)
    z, direction = tensor(rng.standard_normal((2, 3)))

    def outer(log_alpha, z):
        return torch.exp(0.3 * log_alpha + (z**2).sum() / 9) + 1

    log_alpha = tensor(0.4).requires_grad_()
    z = z.requires_grad_()
    value = outer(log_alpha, z)
    slopes = torch.autograd.grad(value, (log_alpha, z))
    evaluation = Evaluation(
        Hyper(log_alpha.detach(), tensor(1.0), z.detach()),
        tensor([]),
        value.detach()[None],
        Hyper(slopes[0], tensor(0.5), slopes[1]),
        0.0,
    )
    got = objective.gradient(evaluation)
    with torch.no_grad():
        h = 1e-6
        along = [objective.value(float(outer(log_alpha, z + t * direction)), z + t * direction) for t in (h, -h)]
        up = [objective.value(float(outer(log_alpha + t, z)), z) for t in (h, -h)]
    assert float(got.offsets @ direction) == pytest.approx((along[0] - along[1]) / (2 * h), rel=1e-7)
    assert float(got.log_alpha) == pytest.approx((up[0] - up[1]) / (2 * h), rel=1e-7)
    assert float(got.exponent) == pytest.approx(0.5 / evaluation.value if log_scale else 0.5)


def test_the_prior_is_that_of_the_negative_log_likelihood():
    """(n/2) log(loss) + sum z^2 / (2 tau^2) over n/2, and n * loss + the same over n."""
    z = tensor([1.0, 2.0])
    assert Objective(True, 10, 0.5).value(3.0, z) == pytest.approx(math.log(3) + 5 / (2 * 0.25) / 5)
    assert Objective(False, 10, 0.5).value(3.0, z) == pytest.approx(3 + 5 / (2 * 0.25) / 10)


def test_a_loss_of_zero_has_a_finite_objective():
    objective = Objective(True, 10)
    evaluation = Evaluation(hyper(0.0), tensor([]), tensor([0.0]), Hyper(tensor(0.0), tensor(0.0)), 0.0)
    assert math.isfinite(objective.value(0.0, None))
    assert float(objective.gradient(evaluation).log_alpha) == 0


@pytest.mark.parametrize("noise", [0.0, 3e-7])
def test_where_values_are_rounding_slopes_lead_to_the_minimum_without_a_crowd_of_evaluations(noise):
    """A logarithm near -20 whose sixth digit is noise: a loss that is the small difference of large numbers."""
    rng = np.random.default_rng(0)

    def function(x):
        return torch.exp(-20 + 0.05 * (x - 1.7) ** 2 / (1 + 0.1 * (x - 1.7) ** 2) + noise * rng.standard_normal()).sum()

    proposals = QuasiNewton(start(1, 1.5), Objective(log_scale=True, n=1), WIDE, 1e-6, curvature=0.11)
    log = ask(proposals, function)
    assert len(log) <= 8
    assert float(log[-1].hyper.log_alpha) == pytest.approx(1.7, abs=1e-4)


def test_a_line_search_ends_when_its_steps_no_longer_matter_to_the_tolerance():
    """The gradient points nowhere, as that of a singular Hessian does."""
    log = []
    proposals = QuasiNewton(start(1), PLAIN, WIDE, 1.0)
    ask(proposals, lambda x: (1e9 * x + 2e9 * (x - x.detach() - x)).sum() ** 2, log=log)
    assert proposals.stop_reason is StopReason.NO_PROGRESS or len(log) == 1
    assert len(log) <= 5
