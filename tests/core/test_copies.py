"""Copies of rows in the core: which of them judge, how cells are dealt out, and a scale that may go to zero."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from skhyper.core.decays import Decays
from skhyper.core.designs import DenseDesign
from skhyper.core.hypertraining import judged_rows
from skhyper.core.losses import ConcomitantHuber, SquaredError
from skhyper.core.mlp import MLP, TANH
from skhyper.core.noise.dealing import hold_out_copies
from skhyper.core.noise.rows import Data
from skhyper.core.problem import NetworkProblem


def problem(n, kinds=None):
    mlp, loss, ones = MLP((2, 3, 1), TANH), SquaredError(), torch.ones(1, n, dtype=torch.float64)
    x, y = torch.zeros(n, 2, dtype=torch.float64), torch.zeros(n, 1, dtype=torch.float64)
    return NetworkProblem(DenseDesign(x), y, ones, ones / n, mlp, loss, loss, Decays(mlp.layer()), kinds=kinds)


def test_copies_judge_finer_decays_together_or_not_at_all():
    kinds = torch.arange(200) % 40
    for seed in range(5):
        judged = judged_rows(problem(200, kinds), seed)
        assert torch.equal(judged, judged[:40].repeat(5))
        assert 0 < int(judged.sum()) < 200


def test_without_copies_the_rows_that_judge_are_drawn_as_ever():
    expected = torch.rand(50, generator=torch.Generator().manual_seed(3), dtype=torch.float64) < 0.4
    assert torch.equal(judged_rows(problem(50), 3), expected)
    held = (torch.arange(50) < 30).double()[None]
    some = replace(problem(50), validation=held / held.sum())
    assert torch.equal(judged_rows(some, 3), expected & (held[0] > 0))


def test_cells_of_any_number_are_dealt_out():
    """Each member trains on three quarters of a cell, give or take what chance does."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 2, generator=generator).double()
    data = Data(x, x[:, :1], torch.full((2000,), 40.0).double())
    rows, train, held, n_judges = hold_out_copies(4, 0.25, data, torch.zeros(2000, dtype=torch.bool), generator)
    torch.testing.assert_close(rows.weight[train] + rows.weight[held], data.weight.expand(4, -1))
    assert rows.weight[train].min() >= 10
    assert n_judges == 80000


@pytest.mark.parametrize("change", [-0.5, -3.0, 0.0, 2.0])
def test_the_loss_is_finite_as_far_as_it_says(change):
    loss, y = ConcomitantHuber(), torch.zeros(4, 1, dtype=torch.float64)
    f = torch.stack([torch.arange(4.0), torch.full((4,), 1.5)], -1).double()
    df = torch.stack([torch.ones(4), torch.full((4,), change)], -1).double()
    reach = float(loss.reach(f, df))
    assert reach == pytest.approx(-1.5 / change if change < 0 else np.inf)
    if change < 0:
        assert loss.value(f + 0.999 * reach * df, y).isfinite().all()
        assert not loss.value(f + 1.001 * reach * df, y).isfinite().any()
