"""Arrays, weights and splits -> tensors; what the core does with them is tested there."""

from datetime import date
from threading import Event, Thread

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy import sparse

from skhyper import boundary
from skhyper.boundary import Granularity
from skhyper.core.designs import DenseDesign, SparseDesign

RNG = np.random.default_rng(0)


def products(design, n_folds, seed=0):
    v = torch.from_numpy(np.random.default_rng(seed).normal(size=(n_folds, design.n_columns, 2)))
    return design.matvec(v)


def test_dense_and_sparse_matrices_give_the_same_products(monkeypatch):
    x = RNG.normal(size=(7, 4)) * (RNG.uniform(size=(7, 4)) < 0.5)
    dense = boundary.make_design(x)
    monkeypatch.setattr(boundary, "SMALL_MATRIX", 0)
    thin = boundary.make_design(sparse.csr_array(x))
    assert isinstance(dense, DenseDesign)
    assert isinstance(thin, SparseDesign)
    torch.testing.assert_close(products(dense, 3), products(thin, 3))


def test_a_small_sparse_matrix_becomes_a_dense_design():
    assert isinstance(boundary.make_design(sparse.csr_array(np.eye(3))), DenseDesign)


@pytest.mark.parametrize("as_sparse", [False, True])
def test_folds_with_fewer_columns_are_padded_with_zeros(as_sparse, monkeypatch):
    monkeypatch.setattr(boundary, "SMALL_MATRIX", 0)
    matrices = [RNG.normal(size=(5, 3)), RNG.normal(size=(5, 2))]
    design = boundary.make_design([sparse.csr_array(m) for m in matrices] if as_sparse else matrices)
    v = torch.ones(2, 3, 1, dtype=torch.float64)
    expected = np.stack([m.sum(axis=1, keepdims=True) for m in matrices])
    np.testing.assert_allclose(design.matvec(v).numpy(), expected)


def test_tensors_are_float64_and_share_memory_where_they_can():
    x = np.ones(3)
    assert boundary.to_tensor(x).data_ptr() == x.ctypes.data
    assert boundary.to_tensor([1, 2]).dtype == torch.float64
    x.flags.writeable = False
    assert boundary.to_tensor(x).data_ptr() != x.ctypes.data


def failing_session():
    with boundary.torch_session(work=1.0):
        assert torch.get_num_threads() == 1
        assert torch.get_default_dtype() == torch.float64
        assert torch.is_grad_enabled()
        torch.rand(1)
        raise RuntimeError("inside")


def test_a_session_leaves_global_state_as_it_was():
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    with torch.no_grad():
        with pytest.raises(RuntimeError, match="inside"):
            failing_session()
        assert not torch.is_grad_enabled()
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)
    assert torch.rand(1) == expected


def test_a_session_with_much_work_keeps_the_threads():
    threads = torch.get_num_threads()
    with boundary.torch_session(work=1e12):
        assert torch.get_num_threads() == threads


def test_gradients_work_inside_a_session_within_inference_mode():
    with torch.inference_mode(), boundary.torch_session():
        w = torch.ones(2, requires_grad=True)
        (w**2).sum().backward()
        assert w.grad.tolist() == [2.0, 2.0]


@pytest.mark.parametrize(
    "values",
    [
        np.array(["2020-01-01"], dtype="datetime64[D]"),
        np.array([1], dtype="timedelta64[s]"),
        pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2020-01-01"])}),
        pd.Series(pd.to_datetime(["2020-01-01"]).tz_localize("UTC")),
        pl.DataFrame({"when": [date(2020, 1, 1)]}),
    ],
    ids=["datetime array", "timedelta array", "frame", "zoned series", "polars"],
)
def test_dates_are_refused(values):
    with pytest.raises(TypeError, match="X holds dates"):
        boundary.refuse_unreadable(X=values)


def test_masked_arrays_are_refused():
    with pytest.raises(TypeError, match="y is a masked array"):
        boundary.refuse_unreadable(y=np.ma.masked_array([1.0, 2.0], [True, False]))


@pytest.mark.parametrize("values", [[[1.0]], pd.DataFrame({"a": [1.0]}), pl.Series([1]), "text", None, sparse.eye(2)])
def test_other_data_pass(values):
    boundary.refuse_unreadable(X=values)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1.0], "sample_weight must not be negative, got a minimum of -1"),
        ([0.0, 0.0, 0.0], "must have a positive entry|at least one non-zero number"),
        ([1.0, np.nan, 1.0], "sample_weight contains NaN"),
        ([1.0, 1.0], "sample_weight.shape"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        boundary.check_weights(weights, np.ones((3, 1)))


def test_weights_may_be_zero_somewhere_or_absent():
    assert boundary.check_weights(None, np.ones((3, 1))) is None
    np.testing.assert_array_equal(boundary.check_weights([0, 1, 2], np.ones((3, 1))), [0.0, 1.0, 2.0])


def test_splits_may_be_masks_and_count_from_the_end():
    (split,) = boundary.check_splits([(np.array([True, False, True]), [-2])], 3)
    np.testing.assert_array_equal(split.train, [0, 2])
    np.testing.assert_array_equal(split.validation, [1])


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([], "at least one fold"),
        ([([0], [1]), ([0, 1], [])], "fold 1 has no validation rows"),
        ([([], [1])], "fold 0 has no training rows"),
        ([(np.array([True, False]), [1])], "a mask of 2 rows for fold 0 but X has 3 rows"),
        ([([0.9], [1])], "training rows of fold 0 have dtype float64"),
        ([([0], ["1"])], "validation rows of fold 0 have dtype"),
        ([([[0]], [1])], r"shape \(1, 1\)"),
        ([([0], [5])], r"indices in \[5, 5\] but X has 3 rows"),
    ],
)
def test_splits_that_cannot_be_used_are_refused(splits, message):
    with pytest.raises(ValueError, match=message):
        boundary.check_splits(splits, 3)


def test_a_row_that_a_split_repeats_counts_twice():
    np.testing.assert_array_equal(boundary.row_sums(3, np.array([0, 0, 2]), [1.0, 2.0, 5.0]), [3.0, 0.0, 5.0])


@pytest.mark.parametrize(
    ("name", "index", "names"),
    [
        ("global", [0, 0, 0, 0], ["all"]),
        ("output", [0, 1, 0, 1], ["y0", "y1"]),
        ("feature", [0, 0, 1, 1], ["a", "b"]),
        ("weight", [0, 1, 2, 3], ["a[y0]", "a[y1]", "b[y0]", "b[y1]"]),
    ],
)
def test_a_granularity_maps_coefficients_to_named_decays(name, index, names):
    granularity = Granularity(name)
    np.testing.assert_array_equal(granularity.index(2, 2), index)
    assert granularity.names(["a", "b"], ["y0", "y1"]) == names


def test_groups_of_features_share_a_decay():
    labels = boundary.group_labels({"b": "shape", "a": "size", "c": "size"}, ["a", "b", "c"])
    granularity = Granularity("feature", labels)
    np.testing.assert_array_equal(granularity.index(3, 2), [0, 0, 1, 1, 0, 0])
    assert granularity.names("abc", [0, 1]) == ["size", "shape"]
    np.testing.assert_array_equal(boundary.group_labels(pd.Series([1, 1, 2]), list("abc")), [1, 1, 2])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([0, 1], r"decay_groups must hold one group for each of the 3 features .* got shape \(2,\)"),
        ({"a": 0, "b": 1}, r"missing: \['c'\]"),
        ({"a": 0, "b": 1, "c": 1, "d": 2}, r"unknown: \['d'\]"),
    ],
)
def test_groups_that_do_not_fit_the_features_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        boundary.group_labels(groups, ["a", "b", "c"])


def test_the_weights_of_a_constant_column_have_a_plain_decay_of_their_own():
    decays = boundary.make_decays(Granularity("feature"), n_features=2, n_outputs=2, n_free=1, column=True)
    assert decays.index.tolist() == [0, 0, 1, 1, 2, 2, -1]
    assert decays.plain.tolist() == [False, False, True]


def test_code_of_the_users_may_outlast_a_session_of_another_thread():
    before, begun, ended = torch.get_default_dtype(), Event(), Event()

    def other():
        with boundary.torch_session():
            begun.set()
            ended.wait(10)

    thread = Thread(target=other)
    thread.start()
    begun.wait(10)
    with boundary.users_torch():
        assert torch.get_default_dtype() == before
        ended.set()
        thread.join()
    assert torch.get_default_dtype() == before


def test_sessions_of_threads_may_overlap():
    """The first to begin ends first: the other one stays in double precision, and what was before comes back."""
    before, begun, ended, seen = torch.get_default_dtype(), Event(), Event(), []

    def second():
        with boundary.torch_session():
            begun.set()
            ended.wait(10)
            seen.append(torch.get_default_dtype())
            with boundary.users_torch():
                seen.append(torch.get_default_dtype())
            seen.append(torch.get_default_dtype())

    thread = Thread(target=second)
    with boundary.torch_session():
        thread.start()
        begun.wait(10)
    ended.set()
    thread.join()
    assert seen == [torch.float64, before, torch.float64]
    assert torch.get_default_dtype() == before
