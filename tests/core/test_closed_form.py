"""The closed form: weights against scikit-learn's estimators, hypergradients against finite differences and `Implicit`.

The procedure around it is in test_procedure.py, exact zeros in test_zeros.py, the designs' Gram matrices in
test_designs.py.
"""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso, MultiTaskLasso, Ridge
from squared import GRANULARITIES, hyper, problem, regression, tensor

from skhyper.core import linear_systems, saddles
from skhyper.core.algorithms.base import hypergradient
from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.algorithms.implicit import Implicit
from skhyper.core.descent import Batch, Descent
from skhyper.core.designs import DenseDesign, SparseDesign
from skhyper.core.linear_systems import Dual, Primal
from skhyper.core.losses import Huber

SHAPES = {"primal": (60, 8), "dual": (24, 70)}
ONES = torch.ones(5, dtype=torch.float64)


def global_scale(response, log_alpha):
    """s^2 of each fold's ridge solution."""
    s2 = torch.ones(response.problem.n_folds, dtype=torch.float64)
    return response.problem.decays.scale(response.solve(hyper(log_alpha), s2))


def inner(response, w, h, s2):
    """The penalised training losses of all folds, by the problem's definition."""
    p = response.problem
    return (p.train * p.loss.value(p.outputs(w), p.y)).sum() + p.decays.penalty(w, h, s2).sum()


def inner_gradient(response, w, h, s2):
    """d inner / d w by automatic differentiation."""
    w = w.clone().requires_grad_()
    return torch.autograd.grad(inner(response, w, h, s2), w)[0]


def distance(response, w, h, s2):
    """How far the weights are from stationary: the step that their gradients ask for, beside all weights' length."""
    p = response.problem
    a = p.decays.spread(p.decays.log_decays(w, h, s2).exp())
    a = torch.where(p.decays.index >= 0, a + p.curvature(), p.train.sum(-1, keepdim=True))
    size = torch.maximum(w.norm(dim=-1), 1e-2 * (s2 * p.network.n_coefficients).sqrt()).clamp(min=1e-300)
    return float(((inner_gradient(response, w, h, s2) / a).norm(dim=-1) / size).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_and_columns_choose_the_form_of_the_normal_equations(shape):
    x, y = regression(*SHAPES[shape])
    assert isinstance(ClosedForm().bind(problem(x, y)).system, {"primal": Primal, "dual": Dual}[shape])


def test_a_loss_that_is_not_squared_is_refused():
    with pytest.raises(ValueError, match="needs a squared loss"):
        ClosedForm().bind(replace(problem(*regression(20, 3)), loss=Huber()))


@pytest.mark.parametrize(
    ("shape", "intercept", "weighted", "granularity"),
    list(product(SHAPES, (True, False), (True, False), GRANULARITIES)),
)
def test_fixed_decays_equal_ridge_on_rescaled_columns(shape, intercept, weighted, granularity):
    """Each output of each fold is scikit-learn's Ridge(1) on the columns x_j / a_j^(1/2)."""
    n, p = SHAPES[shape]
    x, y = regression(n, p, 2, correlation=0.3)
    x += 3.0
    rng = np.random.default_rng(1)
    c = rng.exponential(size=n) if weighted else np.ones(n)
    prob = problem(x, y, granularity, k=3, intercept=intercept, sample_weight=c)
    z = rng.standard_normal(prob.decays.n_groups)
    w = ClosedForm().bind(prob).solve(hyper(0.7, 2.0, z), ONES[:3])
    coefficients, intercepts, _ = prob.network.split(w)
    a = np.exp(0.7 + z)[prob.decays.index[: p * 2].numpy()].reshape(p, 2)
    for k, t in product(range(3), range(2)):
        rows = prob.train[k].numpy() > 0
        ridge = Ridge(1.0, fit_intercept=intercept, solver="svd")
        ridge.fit(x[rows] / np.sqrt(a[:, t]), y[rows, t], c[rows])
        np.testing.assert_allclose(coefficients[k, :, t], ridge.coef_ / np.sqrt(a[:, t]), rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(intercepts[k, t], ridge.intercept_, rtol=1e-8)


@pytest.mark.parametrize("log_ratio", [-18, -9, 12])
@pytest.mark.parametrize("shape", SHAPES)
def test_extreme_decays_equal_ridge(shape, log_ratio):
    """Decays of 1e-8 to 1e5 times the data's curvature."""
    x, y = regression(*SHAPES[shape], 2)
    prob = problem(x, y, "global", k=0)
    alpha = float(prob.curvature() * np.exp(log_ratio))
    w = ClosedForm().bind(prob).solve(hyper(np.log(alpha)), ONES[:1])
    expected = Ridge(alpha, solver="svd").fit(x, y).coef_.T
    np.testing.assert_allclose(
        prob.network.split(w).coefficients[0], expected, rtol=1e-6, atol=1e-7 * abs(expected).max()
    )


def test_candidates_are_solved_at_once_as_one_by_one():
    """A leading axis of hyperparameters, of exponents too, changes nothing but the shape."""
    response = ClosedForm().bind(problem(*regression(40, 6, 2), "feature"))
    s2 = global_scale(response, 2.0)
    log_alpha, q = tensor([1.0, 2.0, 3.0]), tensor([2.0, 1.0, 0.7])
    z = tensor(np.random.default_rng(0).standard_normal((3, 6)))
    together = response.solve(hyper(log_alpha, q, z), s2, tol=1e-12)
    for i in range(3):
        alone = response.solve(hyper(log_alpha[i], q[i], z[i]), s2, tol=1e-12)
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-12)


def test_a_batch_in_parts_equals_the_batch_at_once(monkeypatch):
    response = ClosedForm().bind(problem(*regression(40, 6, 2), "weight"))
    h, s2 = hyper(2.0, 1.5), global_scale(response, 2.0)
    whole = response.solve(h, s2, tol=1e-12)
    monkeypatch.setattr(linear_systems, "MAX_NUMBERS", 40)
    assert response.capacity == 1
    torch.testing.assert_close(response.solve(h, s2, tol=1e-12), whole)


@pytest.mark.parametrize("q", [0.5, 0.7, 1.0, 1.5])
@pytest.mark.parametrize("granularity", GRANULARITIES[1:])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_familys_weights_are_stationary(shape, granularity, q):
    """The inner problem's gradient by automatic differentiation vanishes, beside its parts."""
    prob = problem(*regression(*SHAPES[shape], 2, correlation=0.5, sparse=4), granularity, k=3)
    response = ClosedForm().bind(prob)
    log_alpha = np.log(prob.curvature()) - 1
    s2, h = global_scale(response, log_alpha), hyper(log_alpha, q)
    w = response.solve(h, s2, tol=1e-12)
    assert distance(response, w, h, s2) < 1e-10


@pytest.mark.parametrize("q", [0.7, 1.0])
@pytest.mark.parametrize("correlation", [0.0, 0.95, 0.999])
@pytest.mark.parametrize("granularity", ["feature", "groups"])
@pytest.mark.parametrize("n", [100, 30])
def test_accurate_solutions_need_few_steps_on_nasty_data(n, granularity, correlation, q, monkeypatch):
    """Collinear columns, more columns than rows: a batch ends by accuracy, not by exhaustion."""
    steps = []
    plain = Descent._step
    monkeypatch.setattr(Descent, "_step", lambda self, batch, path: steps.append(1) or plain(self, batch, path))
    prob = problem(*regression(n, 60, correlation=correlation, sparse=8), granularity)
    response = ClosedForm().bind(prob)
    s2 = global_scale(response, np.log(n / 10))
    w = response.solve(hyper(np.log(n) + tensor([-4.0, -1.0, 1.0]), [1.5] * 3), s2, tol=1e-4)
    if q < 1:
        w = response.solve(hyper(np.log(n) + tensor([-4.0, -1.0, 1.0]), [1.0] * 3), s2, w, tol=1e-4)
    steps.clear()
    h = hyper(np.log(n) + tensor([-4.0, -1.0, 1.0]), [q] * 3)
    w = response.solve(h, s2, w, tol=1e-10)
    assert len(steps) <= 60
    newton = response.adjoint(w, h, s2, inner_gradient(response, w, h, s2))[0]
    size = w.norm(dim=-1) + 1e-2 * (s2 * 60).sqrt()
    assert float((newton.norm(dim=-1) / size).max()) < 1e-9


def test_accuracy_is_what_was_asked_for():
    """The distance to the solution, not the length of the last step, is below the tolerance."""
    prob = problem(*regression(80, 30, correlation=0.9, sparse=5), "feature")
    response = ClosedForm().bind(prob)
    s2 = global_scale(response, 2.0)
    for q in (0.7, 1.0, 1.5):
        h = hyper(3.0, q)
        exact = response.solve(h, s2, response.solve(hyper(3.0, 1.0), s2), tol=1e-13)
        for tol in (1e-4, 1e-6, 1e-8):
            w = response.solve(h, s2, response.solve(hyper(3.0, 1.0), s2), tol=tol)
            assert float(((w - exact).norm(dim=-1) / exact.norm(dim=-1)).max()) < 3 * tol


def test_rough_solutions_are_near_the_accurate_ones():
    """What scans use: majorise-minimise steps, with weights apart that their decays dwarf."""
    prob = problem(*regression(120, 80, correlation=0.5, sparse=6), "feature")
    response = ClosedForm().bind(prob)
    s2 = global_scale(response, 3.0)
    for q in (1.5, 1.0, 0.7):
        h = hyper(4.0, q)
        rough, accurate = (response.solve(h, s2, tol=tol) for tol in (1e-2, 1e-10))
        assert float(((rough - accurate).norm(dim=-1) / accurate.norm(dim=-1)).max()) < 0.1
        np.testing.assert_allclose(prob.outer(rough), prob.outer(accurate), rtol=0.05)


def test_a_rough_solution_survives_a_singular_gram_matrix():
    """Copies of columns and next to no decay: the small factorisations fail, and are replaced."""
    x, y = regression(60, 30)
    prob = problem(np.hstack([x, x, x[:, :20] * 1e-9]), y, "feature")
    response = ClosedForm().bind(prob)
    for q in (2.0, 1.5, 1.0, 0.7):
        w = response.solve(hyper(np.log(1e-9), q), ONES, tol=1e-2)
        assert bool(w.isfinite().all())


def test_unpenalised_coefficients_are_left_alone_by_the_decays():
    """Weights without decay: scikit-learn's Ridge with their columns scaled up."""
    for n, p in ((50, 6), (20, 30), (10, 40)):
        x, y = regression(n, p)
        prob = problem(x, y, k=0)
        index = prob.decays.index.clone()
        index[:2], index[2:p] = -1, torch.arange(p - 2)
        prob = prob.with_decays(replace(prob.decays, index=index))
        w = ClosedForm().bind(prob).solve(hyper(1.0), ONES[:1])
        scale = np.r_[1e4, 1e4, np.ones(p - 2)]
        expected = Ridge(np.e, solver="svd").fit(x * scale, y).coef_ * scale
        np.testing.assert_allclose(w[0, :p], expected, rtol=1e-6, atol=1e-7)


def test_a_sparse_design_equals_the_dense_one():
    from scipy.sparse import csr_array

    x, y = regression(60, 8)
    x[np.random.default_rng(0).random(x.shape) < 0.7] = 0
    prob = problem(x, y)
    sparse = replace(prob, design=SparseDesign([csr_array(x)]))
    for q in (2.0, 1.0):
        dense_w, sparse_w = (ClosedForm().bind(p).solve(hyper(1.0, q), ONES, tol=1e-12) for p in (prob, sparse))
        torch.testing.assert_close(dense_w, sparse_w, rtol=1e-8, atol=1e-10)


def test_folds_with_their_own_rows_equal_folds_that_share_them():
    """X and y of each fold, as preprocessing that is refitted leaves them."""
    x, y = regression(40, 5)
    shared = problem(x, y)
    own = replace(shared, design=DenseDesign(tensor(x).expand(5, -1, -1).clone()), y=shared.y.expand(5, -1, -1).clone())
    for q in (2.0, 1.0):
        one, other = (ClosedForm().bind(p).evaluate(hyper(1.0, q), ONES, tol=1e-12) for p in (shared, own))
        torch.testing.assert_close(one.w, other.w)
        torch.testing.assert_close(one.gradient.log_alpha, other.gradient.log_alpha)


# The family at q = 1.


def lasso_pair(x, y, log_alpha, k=0):
    """The family's weights at q = 1, nearly without smoothing, and the response."""
    prob = problem(x, y, "feature", k=k, eps=1e-14)
    response = ClosedForm().bind(prob)
    s2 = global_scale(response, log_alpha)
    way = response.solve(hyper(log_alpha, 1.5), s2, tol=1e-6)
    return prob, s2, response.solve(hyper(log_alpha, 1.0), s2, way, tol=1e-12)


@pytest.mark.parametrize("n_outputs", [1, 3])
@pytest.mark.parametrize("shape", [(80, 20), (30, 60)])
@pytest.mark.parametrize("log_ratio", [-5, -2])
def test_q_of_1_is_the_lasso(shape, n_outputs, log_ratio):
    """Lasso(alpha s / n); with rows of coefficients that share a decay MultiTaskLasso(alpha s T^(1/2) / n)."""
    x, y = regression(*shape, n_outputs, correlation=0.5, sparse=5)
    log_alpha = np.log(shape[0]) + log_ratio
    prob, s2, w = lasso_pair(x, y, log_alpha)
    level = np.exp(log_alpha) * np.sqrt(float(s2) * n_outputs) / len(x)
    lasso = (Lasso if n_outputs == 1 else MultiTaskLasso)(level, tol=1e-13, max_iter=10**6).fit(x, y)
    expected = np.atleast_2d(lasso.coef_).T
    np.testing.assert_allclose(prob.network.split(w).coefficients[0], expected, atol=1e-6 * abs(expected).max())
    np.testing.assert_allclose(prob.network.split(w).intercepts[0], lasso.intercept_, rtol=1e-6)


# Hypergradients.


def check_hypergradient(response, log_alpha, q, rtol=1e-5):
    """Against central differences, in log alpha, q and along a random direction of the offsets."""
    rng, prob = np.random.default_rng(3), response.problem
    s2 = global_scale(response, log_alpha)
    z, direction = tensor(0.4 * rng.standard_normal((2, prob.decays.n_groups)))
    found = response.evaluate(hyper(log_alpha, q, z), s2, tol=1e-12)
    got = torch.stack([found.gradient.log_alpha, found.gradient.exponent, found.gradient.offsets @ direction])
    step = 1e-4
    expected = []
    for move in torch.eye(3, dtype=torch.float64):
        values = []
        for t in (2 * step, step, -step, -2 * step):
            moved = hyper(log_alpha + t * move[0], q + t * move[1], z + t * move[2] * direction)
            values.append(prob.outer(response.solve(moved, s2, found.w, tol=1e-12)))
        expected.append((8 * (values[1] - values[2]) - (values[0] - values[3])) / (12 * step))
    torch.testing.assert_close(got, torch.stack(expected), rtol=rtol, atol=rtol * float(got.abs().max()))
    return found


@pytest.mark.parametrize("q", [0.7, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", SHAPES)
def test_hypergradients_agree_with_finite_differences_and_with_implicit_ones(shape, granularity, q):
    n, p = SHAPES[shape]
    prob = problem(*regression(n, p, 2, correlation=0.4, noise=0.5), granularity, k=3)
    log_alpha = np.log(prob.curvature()) - 3
    found = check_hypergradient(ClosedForm().bind(prob), log_alpha, q)
    implicit = Implicit().bind(prob)
    s2 = global_scale(ClosedForm().bind(prob), log_alpha)
    other = implicit.evaluate(found.hyper, s2, found.w, tol=1e-12)
    assert other.error < 1e-8
    torch.testing.assert_close(other.w, found.w, rtol=1e-6, atol=1e-9 * float(found.w.abs().max()))
    for mine, theirs in zip(found.gradient, other.gradient, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6 * float(found.gradient.log_alpha.abs()))


def inner_hessians(response, w, h, s2):
    """d^2 inner / d w^2 of each fold by automatic differentiation, (K, n_weights, n_weights)."""
    whole = torch.autograd.functional.hessian(lambda w: inner(response, w, h, s2), w)
    return torch.stack([whole[k, :, k] for k in range(len(w))])


@pytest.mark.parametrize("q", [0.5, 0.7])
@pytest.mark.parametrize("granularity", ["feature", "weight"])
@pytest.mark.parametrize("shape", SHAPES)
def test_weights_below_q_of_1_are_at_a_minimum_and_at_no_saddle(shape, granularity, q):
    """Newton's method alone ends at a saddle for some of these offsets."""
    prob = problem(*regression(*SHAPES[shape], 2, correlation=0.4, noise=0.5), granularity, k=3)
    response, log_alpha = ClosedForm().bind(prob), np.log(prob.curvature()) - 3
    s2 = global_scale(response, log_alpha)
    rng = np.random.default_rng(3)
    for z in tensor(0.4 * rng.standard_normal((6, prob.decays.n_groups))):
        h = hyper(log_alpha, q, z)
        w = response.solve(h, s2, tol=1e-10)
        assert distance(response, w, h, s2) < 1e-7
        curvatures = torch.linalg.eigvalsh(inner_hessians(response, w, h, s2))
        assert (curvatures[:, 0] > -1e-5 * prob.curvature()).all()


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_a_system_with_a_block_for_each_row_equals_its_dense_form(n_outputs):
    """X'X + blocks a_j - c_j w_j w_j', also where it is indefinite."""
    rng = np.random.default_rng(0)
    z, w, r = (tensor(rng.standard_normal(size)) for size in ((2, 4, 15), (3, 15, n_outputs), (3, 15, n_outputs, 2)))
    fold, a = torch.tensor([0, 1, 1]), tensor(rng.uniform(0.5, 1.5, (3, 15)))
    for share in (0.5, 1.6):
        c = share * tensor(rng.uniform(0, 1, (3, 15))) * a / w.square().sum(-1)
        forms = [Dual(z)] if n_outputs > 1 else [Dual(z), Primal(z.mT @ z)]
        for i, system in product(range(3), forms):
            dense = torch.kron((z[fold[i]].T @ z[fold[i]]).contiguous(), torch.eye(n_outputs, dtype=torch.float64))
            blocks = a[i, :, None, None] * torch.eye(n_outputs) - c[i, :, None, None] * w[i, :, :, None] * w[i, :, None]
            expected = torch.linalg.solve(dense + torch.block_diag(*blocks), r[i].flatten(0, 1)).view_as(r[i])
            torch.testing.assert_close(system.solve_rows(fold, a, c, w, r)[i], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_outputs", [1, 2])
def test_saddles_of_many_far_rows_are_those_of_the_dense_form(shape, n_outputs, monkeypatch):
    """With and without forming M, negative curvature is where the dense Hessian has it."""
    response, p = ClosedForm().bind(problem(*regression(*SHAPES[shape], n_outputs), "feature", k=3)), SHAPES[shape][1]
    eye, each = torch.eye(p).double(), torch.eye(n_outputs).double()
    w = tensor(np.random.default_rng(0).standard_normal((9, p, n_outputs)))
    w[::2, 2:] = 0.0
    w = w.flatten(1)
    batch = Batch(torch.arange(9) % 3, torch.ones(9).double(), hyper(np.repeat([-9.0, 4.0, 7.0], 3), np.full(9, 0.5)))
    decays = response.problem.coefficient_decays
    a = decays.spread(decays.log_decays(w, batch.hyper, batch.s2).exp())
    b = decays.concavity(w, batch.hyper, batch.s2)
    grams = response.system.matvec(torch.arange(3), eye.expand(3, -1, -1))
    gram = torch.stack([torch.kron(own.contiguous(), each) for own in grams])[batch.fold]
    columns = eye.repeat_interleave(n_outputs, 0) * w[..., None]
    dense = gram + torch.diag_embed(a) - (columns * b[:, None]) @ columns.mT
    expected = torch.linalg.eigvalsh(dense)[:, 0] < 0
    assert 0 < int(expected.sum()) < 9
    for most in (saddles.DENSE, 0):
        monkeypatch.setattr(saddles, "DENSE", most)
        found, down = response._saddles(batch, w)
        assert found.tolist() == expected.tolist()
        assert (torch.einsum("bi,bij,bj->b", down, dense[found], down) < 0).all()


@pytest.mark.parametrize("intercept", [True, False])
def test_hypergradients_of_weighted_rows_of_far_columns_agree_with_finite_differences(intercept):
    x, y = regression(50, 6)
    prob = problem(
        x + 5, y, "feature", intercept=intercept, sample_weight=np.random.default_rng(0).exponential(size=50)
    )
    check_hypergradient(ClosedForm().bind(prob), 1.0, 1.3)


def test_frozen_decays_would_give_a_wrong_hypergradient():
    """The family's own Hessian is needed: diag(a) in place of it is off by more than a tenth."""
    prob = problem(*regression(60, 8, correlation=0.4), "feature")
    response = ClosedForm().bind(prob)
    s2, h = global_scale(response, 2.0), hyper(2.0, 1.0)
    found = response.evaluate(h, s2, tol=1e-12)
    offsets = prob.decays.log_decays(found.w, h, s2)
    v = prob.outer_gradient(found.w)
    frozen = []
    for k in range(5):
        one = ClosedForm().bind(prob.take_folds(torch.arange(5) == k))
        frozen.append(one.adjoint(found.w[k : k + 1], hyper(0.0, 2.0, offsets[k]), s2[:1], v[k : k + 1])[0])
    wrong = hypergradient(prob.decays, found.w, h, s2, torch.cat(frozen))
    assert abs(float(wrong.log_alpha / found.gradient.log_alpha) - 1) > 0.1


# Degenerate data.


def degenerate():
    """Names and data that break what is written without care."""
    x, y = regression(30, 4)
    yield "a constant column", np.c_[x, np.full(30, 7.0)], y
    yield "copies of columns", np.c_[x, x, -x], y
    yield "targets that are all zero", x, np.zeros(30)
    yield "targets that are all the same", x, np.full(30, 3.0)
    yield "three rows", x[:3], y[:3]
    yield "one column", x[:, :1], y
    yield "a column of huge scale", x * [1e6, 1, 1, 1], y
    yield "a column of tiny scale", x * [1e-9, 1, 1, 1], y
    yield "columns far from zero", x + 1e5, y
    yield "columns that are all zero", 0 * x, y
    yield "more columns than rows, some alike", np.tile(x[:8], (1, 9)), y[:8]


@pytest.mark.parametrize(("x", "y"), [pytest.param(x, y, id=name) for name, x, y in degenerate()])
@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 2.0])
def test_degenerate_data_has_stationary_weights_and_finite_hypergradients(x, y, q):
    prob = problem(x, y, "feature", k=3)
    response = ClosedForm().bind(prob)
    for log_alpha in (-8.0, 0.0, 8.0):
        s2 = global_scale(response, log_alpha)
        h = hyper(log_alpha, q, np.zeros(prob.decays.n_groups))
        found = response.evaluate(h, s2, tol=1e-10)
        for value in (found.w, found.fold_losses, *found.gradient):
            assert bool(value.isfinite().all())
        assert distance(response, found.w, h, s2) < 1e-9
