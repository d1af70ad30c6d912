"""Products of every kind of design against numpy."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from skhyper.core import designs
from skhyper.core.designs import DenseDesign, SparseDesign

K, N, P, T = 3, 20, 4, 2


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrices():
    """K matrices with zeros in them."""
    x = random(K, N, P)
    return torch.where(x > -0.5, x, 0.0)


def design_of(kind):
    """A design, and its K matrices."""
    x = matrices()
    shared = x[:1].expand(K, -1, -1)
    return {
        "dense, shared": lambda: (DenseDesign(x[0]), shared),
        "dense, one a fold": lambda: (DenseDesign(x), x),
        "sparse, shared": lambda: (SparseDesign([csr_array(x[0].numpy())]), shared),
        "sparse, one a fold": lambda: (SparseDesign([csr_array(m.numpy()) for m in x]), x),
    }[kind]()


@pytest.fixture(params=["dense, shared", "dense, one a fold", "sparse, shared", "sparse, one a fold"])
def design_and_matrices(request):
    return design_of(request.param)


def test_a_design_knows_its_shape(design_and_matrices):
    design, _ = design_and_matrices
    assert (design.n_rows, design.n_columns) == (N, P)
    assert N * P / 2 < design.n_stored <= N * P


@pytest.mark.parametrize("leading", [(), (2,), (2, 1)])
def test_products_with_weights_and_with_rows(design_and_matrices, leading):
    design, x = design_and_matrices
    v, u = random(*leading, K, P, T, seed=1), random(*leading, K, N, T, seed=2)
    torch.testing.assert_close(design.matvec(v), x @ v)
    torch.testing.assert_close(design.rmatvec(u), x.mT @ u)
    torch.testing.assert_close(design.square_rmatvec(u), (x**2).mT @ u)


def test_grams_and_their_diagonals(design_and_matrices):
    design, x = design_and_matrices
    c = torch.rand(K, N, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = x.mT @ (c[..., None] * x)
    torch.testing.assert_close(design.gram(c), expected)
    torch.testing.assert_close(design.squares(c), expected.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(design.column_sums(c), (c[:, None, :] @ x)[:, 0])


@pytest.mark.parametrize("leading", [(), (2,)])
@pytest.mark.parametrize("block", [1, 37, 1 << 22])
def test_grams_with_weights_of_their_own(design_and_matrices, leading, block, monkeypatch):
    monkeypatch.setattr(designs, "BLOCK", block)
    design, x = design_and_matrices
    c = random(*leading, K, N, T, seed=4)
    expected = torch.einsum("knp,...knt,knq->...ktpq", x, c, x)
    torch.testing.assert_close(design.grams(c), expected)
    torch.testing.assert_close(design.square_rmatvec(c), expected.diagonal(dim1=-2, dim2=-1).mT)


def test_folds_that_leave_few_rows_out_are_subtracted_from_the_total(monkeypatch):
    x = random(N, P)
    c = 1 - (torch.arange(N) % K == torch.arange(K)[:, None]).double()
    expected = DenseDesign(x).gram(c)
    rows = []
    summed = designs._weighted_gram
    monkeypatch.setattr(designs, "_weighted_gram", lambda x, c: rows.append(len(x)) or summed(x, c))
    torch.testing.assert_close(DenseDesign(x).gram(c), x.T @ (c[..., None] * x))
    assert sum(rows) == 2 * N
    torch.testing.assert_close(expected, DenseDesign(x.expand(K, -1, -1)).gram(c))


def test_a_fold_without_the_one_huge_row_is_summed_again():
    x = random(N, P)
    x[0, 1] = 1e12
    c = 1 - (torch.arange(N) % K == torch.arange(K)[:, None]).double()
    expected = np.stack([x.numpy().T @ (w[:, None] * x.numpy()) for w in c.numpy()])
    np.testing.assert_allclose(DenseDesign(x).gram(c)[0].numpy(), expected[0], rtol=1e-10)


def test_the_squares_of_a_sparse_matrix_share_its_structure():
    matrix = csr_array(matrices()[0].numpy())
    design = SparseDesign([matrix])
    assert np.shares_memory(design._squared[0].indices, matrix.indices)
