"""Best responses and hypergradients of `Implicit` against finite differences and against other routes to them.

scikit-learn's estimators at fixed decays are in test_implicit_sklearn.py.
"""

from dataclasses import replace

import pytest
import torch
from scipy.sparse import csr_array

from skhyper.core.algorithms.base import hypergradient
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.decays import Decays, Hyper
from skhyper.core.designs import DenseDesign, SparseDesign


def response_and_scale(problem, alpha, hyper, **settings):
    """The best response, and s^2 of each fold's solution with equal decays."""
    response = Implicit(**settings).bind(problem)
    ridge = response.solve(hyper(alpha), torch.ones(problem.n_folds, dtype=torch.float64), tol=1e-10)
    return response, problem.decays.scale(ridge)


def inner_gradient(problem, w, hyper, s2):
    """d inner / d w from its definition by automatic differentiation."""
    w = w.clone().requires_grad_()
    losses = problem.loss.value(problem.outputs(w), problem.y)
    inner = (problem.train * losses).sum() + problem.decays.penalty(w, hyper, s2).sum()
    return torch.autograd.grad(inner, w)[0]


EXPONENTS = [0.7, 1.0, 1.5, 2.0]


def at_exponents(hyper, alpha, exponents=EXPONENTS):
    """One candidate for each exponent."""
    singles = [hyper(alpha, q) for q in exponents]
    return Hyper(torch.stack([h.log_alpha for h in singles]), torch.stack([h.exponent for h in singles]))


def check_hypergradients(problem, alpha, hyper, exponents=EXPONENTS, rtol=1e-5, **settings):
    """Compare at all exponents; solutions and differences are batches of candidates."""
    response, s2 = response_and_scale(problem, alpha, hyper, **settings)
    g = torch.Generator().manual_seed(5)
    z, direction = torch.randn(2, problem.decays.n_groups, generator=g, dtype=torch.float64) * 0.5
    here = at_exponents(hyper, alpha, exponents)._replace(offsets=z.expand(len(exponents), -1))
    w = response.solve(here, s2, tol=1e-12)
    u, error = response.adjoint(w, here, s2, problem.outer_gradient(w), tol=1e-10)
    assert error < 1e-8
    gradient = hypergradient(problem.decays, w, here, s2, u)
    got = torch.stack([gradient.log_alpha, gradient.exponent, gradient.offsets @ direction], -1)

    # Six neighbours of each: +-alpha, +-exponent, +-offsets along the direction.
    step = 1e-5
    signs = torch.tensor([1.0, -1.0], dtype=torch.float64)
    moves = step * torch.block_diag(signs, signs, signs)[:, None]
    neighbours = Hyper(
        (here.log_alpha[:, None] + moves[0]).flatten(),
        (here.exponent[:, None] + moves[1]).flatten(),
        (here.offsets[:, None] + moves[2].mT * direction).flatten(0, 1),
    )
    start = w[:, None].expand(-1, 6, -1, -1).flatten(0, 1)
    values = problem.outer(response.solve(neighbours, s2, start, tol=1e-12)).reshape(-1, 3, 2)
    expected = (values[..., 0] - values[..., 1]) / (2 * step)
    size = problem.outer(w).abs()[:, None] + 0.01 * got.abs()
    assert ((got - expected).abs() <= rtol * got.abs() + 0.01 * rtol * size).all(), (got, expected)


def test_hypergradients_agree_with_finite_differences(case, granularity, make, hyper):
    check_hypergradients(make(case, granularity), 1.0, hyper)


@pytest.mark.parametrize("granularity", ["feature", "groups"])
def test_hypergradients_by_conjugate_gradients_agree_with_finite_differences(case, granularity, make, hyper):
    check_hypergradients(make(case, granularity), 1.0, hyper, dense_limit=0)


def test_solutions_are_stationary(case, granularity, make, hyper):
    problem = make(case, granularity)
    response, s2 = response_and_scale(problem, 0.5, hyper)
    h = at_exponents(hyper, 0.5)
    w = response.solve(h, s2)
    start = inner_gradient(problem, problem.constant_model().expand(w.shape), h, s2)
    assert (inner_gradient(problem, w, h, s2).norm(dim=-1) < 1e-5 * start.norm(dim=-1)).all()


@pytest.mark.parametrize("dense_limit", [0, 1500])
def test_the_tolerance_bounds_the_relative_error_of_the_weights(case, dense_limit, make, hyper):
    problem = make(case, "weight")
    response, s2 = response_and_scale(problem, 0.5, hyper, dense_limit=dense_limit)
    h = at_exponents(hyper, 0.5)
    near = response.solve(at_exponents(hyper, 0.7), s2)
    exact = response.solve(h, s2, near, tol=1e-14)
    for tol in [1e-6, 1e-8, 1e-10]:
        w = response.solve(h, s2, near, tol=tol)
        assert ((w - exact).norm(dim=-1) <= 10 * tol * exact.norm(dim=-1)).all()


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_sparse_and_dense_designs_give_the_same_weights_and_hypergradients(case, exponent, make, hyper):
    x = make.design()
    x = torch.where(x > 0.3, x, 0.0)
    designs = [
        DenseDesign(x),
        SparseDesign([csr_array(x.numpy())]),
        DenseDesign(x.expand(3, -1, -1).contiguous()),
        SparseDesign([csr_array(x.numpy())] * 3),
    ]
    s2 = torch.ones(3, dtype=torch.float64)
    h = hyper(1.0, exponent, torch.linspace(-1, 1, x.shape[1], dtype=torch.float64))
    for limit in [0, 1500]:
        algorithm = Implicit(dense_limit=limit)
        found = [algorithm.bind(make(case, "feature", design)).evaluate(h, s2, tol=1e-12) for design in designs]
        for other in found[1:]:
            torch.testing.assert_close(other.w, found[0].w, rtol=1e-7, atol=1e-8)
            torch.testing.assert_close(other.gradient, found[0].gradient, rtol=1e-6, atol=1e-8)


def test_a_batch_of_candidates_gives_what_each_gives_alone(case, make, hyper):
    problem = make(case, "feature")
    response, s2 = response_and_scale(problem, 1.0, hyper)
    singles = [hyper(alpha, q) for alpha, q in [(0.1, 2.0), (1.0, 1.0), (5.0, 1.3)]]
    batch = Hyper(torch.stack([h.log_alpha for h in singles]), torch.stack([h.exponent for h in singles]))
    together = response.solve(batch, s2, tol=1e-12)
    for h, w in zip(singles, together, strict=True):
        torch.testing.assert_close(w, response.solve(h, s2, tol=1e-12), rtol=1e-7, atol=1e-8)
    u, error = response.adjoint(together, batch, s2, problem.outer_gradient(together))
    assert error < 1e-8
    gradient = hypergradient(problem.decays, together, batch, s2, u)
    for i, h in enumerate(singles):
        alone = response.evaluate(h, s2, together[i], tol=1e-12).gradient
        torch.testing.assert_close(gradient.log_alpha[i], alone.log_alpha, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(gradient.exponent[i], alone.exponent, rtol=1e-6, atol=1e-9)


def test_candidates_may_share_all_but_one_hyperparameter(make, case_named, hyper):
    problem = make(case_named("log loss"))
    response, s2 = response_and_scale(problem, 1.0, hyper)
    z = torch.linspace(-1, 1, 6, dtype=torch.float64)
    alphas = torch.tensor([0.1, 1.0, 1e4], dtype=torch.float64)
    together = response.solve(Hyper(alphas.log(), torch.tensor(1.0, dtype=torch.float64), z), s2, tol=1e-12)
    for alpha, w in zip(alphas.tolist(), together, strict=True):
        torch.testing.assert_close(w, response.solve(hyper(alpha, 1.0, z), s2, tol=1e-12), rtol=1e-7, atol=1e-8)


def test_integer_row_weights_equal_repeated_rows(case, make, hyper):
    problem = make(case, "feature")
    times = torch.arange(len(problem.y)) % 3
    weighted = replace(problem, train=problem.train * times, validation=problem.validation * times)
    repeated = replace(
        problem,
        design=DenseDesign(problem.design.x.repeat_interleave(times, 0)),
        y=problem.y.repeat_interleave(times, 0),
        train=problem.train.repeat_interleave(times, 1),
        validation=problem.validation.repeat_interleave(times, 1),
    )
    s2 = torch.ones(3, dtype=torch.float64)
    one, two = (Implicit().bind(p).evaluate(hyper(1.0, 1.3), s2, tol=1e-12) for p in (weighted, repeated))
    torch.testing.assert_close(one.w, two.w, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(one.fold_losses, two.fold_losses)
    torch.testing.assert_close(one.gradient.log_alpha, two.gradient.log_alpha, rtol=1e-8, atol=1e-12)


def test_a_fold_ignores_its_validation_rows(case, make, hyper):
    problem = make(case, "feature")
    problem = replace(problem, train=problem.train[:1], validation=problem.validation[:1])
    left_out = problem.train[0] == 0
    x, y = problem.design.x.clone(), problem.y.clone()
    x[left_out] *= 1e3
    y[left_out] = y[left_out].flip(0)
    other = replace(problem, design=DenseDesign(x), y=y)
    s2 = torch.ones(1, dtype=torch.float64)
    one, two = (Implicit().bind(p).solve(hyper(1.0, 1.3), s2, tol=1e-12) for p in (problem, other))
    torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-12)


def test_repeated_columns_share_their_weight(make, sized, case_named, hyper):
    problem = make(case_named("log loss"))
    x = problem.design.x
    twice = sized(n_features=12)(case_named("log loss"), design=DenseDesign(torch.cat([x, x], -1)))
    twice = replace(twice, y=problem.y)
    s2 = torch.ones(3, dtype=torch.float64)
    w = Implicit().bind(twice).solve(hyper(1e-6), s2)
    torch.testing.assert_close(w[:, :6], w[:, 6:12], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("dense_limit", [0, 1500])
def test_separable_classes_and_a_vanishing_decay_end_at_a_finite_solution(
    n_outputs, exponent, dense_limit, make, case_named, hyper
):
    case = case_named("log loss" if n_outputs == 1 else "multinomial log loss")
    problem = make(case)
    score = problem.design.x[:, :n_outputs]
    y = (score > 0).double() if n_outputs == 1 else torch.nn.functional.one_hot(score.argmax(-1), 3).double()
    response = Implicit(dense_limit=dense_limit).bind(replace(problem, y=y))
    s2 = torch.ones(3, dtype=torch.float64)
    found = response.evaluate(hyper(1e-6, exponent), s2)
    problem = response.problem
    assert found.w.isfinite().all()
    assert (problem.train * problem.loss.value(problem.outputs(found.w), problem.y)).sum() < 0.1


def test_a_single_class_does_not_break_the_solver(make, case_named, hyper):
    for name, label in [("log loss", 1.0), ("squared hinge", -1.0), ("Poisson", 0.0)]:
        problem = make(case_named(name))
        problem = replace(problem, y=torch.full_like(problem.y, label))
        found = Implicit().bind(problem).evaluate(hyper(1.0), torch.ones(3, dtype=torch.float64))
        assert found.w.isfinite().all()
        assert found.gradient.log_alpha.abs() < 1e-6


@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.parametrize("dense_limit", [0, 1500])
def test_a_constant_target_has_its_intercept_alone(exponent, dense_limit, make, case_named, hyper):
    for name in ["squared error", "Huber", "epsilon-insensitive"]:
        problem = make(case_named(name))
        problem = replace(problem, y=torch.full_like(problem.y, 3.1))
        response, s2 = response_and_scale(problem, 1.0, hyper, dense_limit=dense_limit)
        found = response.evaluate(hyper(1.0, exponent), s2)
        torch.testing.assert_close(problem.outputs(found.w), problem.y.expand(3, -1, -1), atol=0.3, rtol=0)
        assert all(g is None or g.isfinite().all() for g in found.gradient)


@pytest.mark.parametrize("dense_limit", [0, 1500])
def test_multinomial_weights_without_decay_sum_to_zero_over_classes(dense_limit, make, case_named, hyper):
    problem = make(case_named("multinomial log loss"))
    index = problem.decays.index.clone()
    index[:3] = -1
    problem = problem.with_decays(Decays(torch.where(index > 0, index - 1, -1)))
    found = Implicit(dense_limit=dense_limit).bind(problem).evaluate(hyper(1.0), torch.ones(3, dtype=torch.float64))
    layers = problem.network.split(found.w)
    torch.testing.assert_close(layers.intercepts.sum(-1), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(layers.coefficients.sum(-1), torch.zeros(3, 6, dtype=torch.float64), atol=1e-7, rtol=0)
    assert found.error < 1e-7


def test_a_network_without_intercept_has_none(case, make, hyper):
    problem = make(case, "feature", intercept=False)
    h, s2 = hyper(1.0, 1.5), torch.ones(3, dtype=torch.float64)
    w = Implicit().bind(problem).solve(h, s2)
    assert w.shape[-1] == problem.network.n_coefficients + problem.network.n_constants
    assert inner_gradient(problem, w, h, s2).abs().max() < 1e-5


def test_plain_decays_stay_at_alpha(make, case_named, hyper):
    problem = make(case_named("squared hinge"))
    index = problem.decays.index.clone()
    index[-1] = 6
    plain = torch.arange(7) == 6
    problem = problem.with_decays(Decays(index, plain))
    check_hypergradients(problem, 1.0, hyper)
    response, s2 = response_and_scale(problem, 1.0, hyper)
    h = at_exponents(hyper, 2.0)
    a = problem.decays.log_decays(response.solve(h, s2), h, s2).exp()
    torch.testing.assert_close(a[..., -1], torch.full_like(a[..., -1], 2.0))


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.5, 2.0])
def test_predictions_follow_a_change_of_units_of_columns_and_targets(exponent, make, case_named, hyper):
    problem = make(case_named("squared error"))
    unit, target = 100.0, 7.0
    other = replace(problem, design=DenseDesign(problem.design.x * unit), y=problem.y * target)
    outputs = []
    for p, alpha in [(problem, 1.0), (other, unit**2)]:
        response, s2 = response_and_scale(p, alpha, hyper)
        outputs.append(p.outputs(response.solve(hyper(alpha, exponent), s2, tol=1e-12)))
    torch.testing.assert_close(outputs[1], target * outputs[0], rtol=1e-6, atol=1e-6)


def test_targets_far_from_zero_do_not_hurt(make, case_named, hyper):
    for name in ["squared error", "Huber", "concomitant Huber", "epsilon-insensitive"]:
        problem = make(case_named(name))
        far = replace(problem, y=problem.y + 1e6)
        s2 = torch.ones(3, dtype=torch.float64)
        one, two = (Implicit().bind(p).solve(hyper(1.0, 1.5), s2, tol=1e-10) for p in (problem, far))
        torch.testing.assert_close(one[:, :6], two[:, :6], rtol=1e-5, atol=1e-6)


def test_hypergradient_of_an_indefinite_point_uses_the_hessian_as_it_is(make, case_named, hyper):
    """At q < 1 the Hessian of a point that is no minimum has negative eigenvalues; its inverse exists all the same."""
    problem = make(case_named("squared error"))
    response, s2 = response_and_scale(problem, 100.0, hyper)
    w = response.solve(hyper(100.0), s2)
    h = hyper(100.0, 0.5)
    v = torch.randn(w.shape, generator=torch.Generator().manual_seed(0), dtype=w.dtype)
    u, error = response.adjoint(w, h, s2, v)
    assert error < 1e-8
    step = 1e-6 * u / u.norm()
    curvature = inner_gradient(problem, w + step, h, s2) - inner_gradient(problem, w - step, h, s2)
    torch.testing.assert_close(curvature * u.norm() / 2e-6, v, rtol=1e-3, atol=1e-3)
