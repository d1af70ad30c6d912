"""Scans along log alpha: where they look, from where they start, and when they stop."""

import math
from dataclasses import replace

import pytest
import torch
from squared import hyper, problem, regression, tensor

from skhyper.core import linear_systems
from skhyper.core.algorithms.base import BestResponse
from skhyper.core.algorithms.closed_form import ClosedForm
from skhyper.core.hyperoptim import Objective
from skhyper.core.loop import Budget, Journal
from skhyper.core.scan import Grid, scan

PLAIN = Objective(log_scale=False, n=1)
WIDE = (-30.0, 30.0)
S2 = torch.ones(1, dtype=torch.float64)


class Curve(BestResponse):
    """One weight, the outer loss a known function of log alpha; it notes what it is asked."""

    def __init__(self, function, capacity=100):
        object.__setattr__(self, "problem", self)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "asked", [])
        object.__setattr__(self, "starts", [])
        object.__setattr__(self, "_capacity", capacity)

    @property
    def capacity(self):
        return self._capacity

    def solve(self, hyper, s2, w=None, tol=1e-8):
        self.asked.append(hyper.log_alpha.tolist())
        self.starts.append(None if w is None else w[..., 0, 0].tolist())
        return hyper.log_alpha[:, None, None].clone()

    def fold_losses(self, w):
        return self.function(w[..., 0, 0])[..., None]

    def take_folds(self, which):
        raise NotImplementedError

    def adjoint(self, w, hyper, s2, v, tol=1e-8):
        raise NotImplementedError


def run(curve, points, bounds=WIDE, path=None, objective=PLAIN, patience=math.inf):
    journal = Journal(Budget())
    return scan(curve, objective, S2, journal, "scan", Grid(points, bounds, 2.0, path, patience)), journal


def descending(high, low, step=1.0):
    return [high - i * step for i in range(round((high - low) / step) + 1)]


def test_the_vertex_of_a_parabola_is_found_with_its_curvature():
    curve = Curve(lambda x: 3 * (x - 0.3) ** 2 + 1)
    found, _ = run(curve, descending(3, -3))
    assert float(found.lowest.log_alpha) == pytest.approx(0.3)
    assert found.lowest.curvature == pytest.approx(6)
    assert found.lowest.w[0, 0] == 0  # the weights are those of the lowest point that was solved


def test_the_vertex_is_right_where_points_are_clipped_to_a_bound():
    """The last step is shorter than the others."""
    found, _ = run(Curve(lambda x: (x + 1.2) ** 2), descending(3, -3), bounds=(-1.7, 9))
    assert float(found.lowest.log_alpha) == pytest.approx(-1.2)
    assert found.lowest.curvature == pytest.approx(2)


@pytest.mark.parametrize("capacity", [1, 3, 100])
@pytest.mark.parametrize("at", [-17.0, 0.0, 17.0])
def test_a_minimum_beyond_an_end_is_followed(at, capacity):
    found, journal = run(Curve(lambda x: (x - at) ** 2, capacity), descending(3, -3))
    assert float(found.lowest.log_alpha) == pytest.approx(at)
    assert len({r.log_alpha for r in journal.records}) == len(journal.records)


@pytest.mark.parametrize("capacity", [1, 100])
@pytest.mark.parametrize(("slope", "end"), [(1, -4.5), (-1, 6.25)])
def test_a_loss_that_only_falls_is_followed_to_the_bound(slope, end, capacity):
    found, journal = run(Curve(lambda x: slope * x, capacity), descending(3, -3), bounds=(-4.5, 6.25))
    assert float(found.lowest.log_alpha) == end
    assert found.lowest.curvature == 0
    assert all(-4.5 <= r.log_alpha <= 6.25 for r in journal.records)


@pytest.mark.parametrize("bounds", [(10.0, 11.0), (-11.0, -10.0), (0.1, 0.2)])
def test_a_grid_outside_the_bounds_moves_onto_them(bounds):
    """No point of the grid lies between the bounds."""
    at = sum(bounds) / 2
    found, journal = run(Curve(lambda x: (x - at) ** 2), descending(3, -3), bounds=bounds)
    assert bounds[0] <= float(found.lowest.log_alpha) <= bounds[1]
    assert all(bounds[0] <= r.log_alpha <= bounds[1] for r in journal.records)


def test_a_flat_loss_ends_at_a_bound():
    found, _ = run(Curve(lambda x: 0 * x + 2), descending(3, -3))
    assert math.isfinite(float(found.lowest.log_alpha))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("capacity", [1, 100])
def test_losses_that_are_not_finite_are_never_lowest(bad, capacity):
    found, journal = run(Curve(lambda x: torch.where(x < 0, x * 0 + bad, x**2 + 1), capacity), descending(3, -3))
    assert float(found.lowest.log_alpha) == 0
    assert found.lowest.curvature == 0
    assert len(journal.records) >= 7


def test_a_scan_in_parts_is_patient_and_then_ends():
    curve = Curve(lambda x: (x - 2) ** 2, capacity=1)
    run(curve, descending(5, -20), patience=4.0)
    asked = [x for part in curve.asked for x in part]
    assert min(asked) == 2 - 4.0


def test_a_scan_in_parts_forgives_a_bump():
    """A local minimum, a rise of three points, and the lowest point behind it."""
    values = dict(zip(descending(5, -6), [5, 4, 5, 6, 7, 3.5, 3, 2, 1, 0, 1, 2], strict=True))
    curve = Curve(lambda x: tensor([values.get(round(float(t)), 9.0) for t in x]), capacity=1)
    assert float(run(curve, descending(5, -6), patience=4.0)[0].lowest.log_alpha) == pytest.approx(-4, abs=0.5)


def test_a_scan_in_parts_starts_each_part_where_the_one_before_ended():
    curve = Curve(lambda x: x**2, capacity=2)
    run(curve, descending(3, -3))
    assert curve.starts[:3] == [None, [2.0], [0.0]]


def test_a_scan_at_once_hands_its_weights_to_the_next():
    """Along the grid's points, not those beyond an end; the next scan starts from them point by point."""
    first = Curve(lambda x: (x + 5) ** 2)
    found, _ = run(first, descending(3, -3))
    assert found.path[:, 0, 0].tolist() == descending(3, -3)
    second = Curve(lambda x: x**2)
    run(second, descending(3, -3), path=found.path)
    assert second.starts == [descending(3, -3)]


def test_a_path_of_another_length_is_no_start():
    curve = Curve(lambda x: x**2)
    run(curve, descending(3, -3), path=tensor([[[1.0]], [[2.0]]]))
    assert curve.starts == [None]


def test_a_spent_budget_ends_a_scan_with_what_is_known():
    curve = Curve(lambda x: (x + 2) ** 2, capacity=2)
    journal = Journal(Budget(time_limit=-1.0))
    found = scan(curve, PLAIN, S2, journal, "scan", Grid(descending(3, -3), WIDE, 2.0, None))
    assert [r.log_alpha for r in journal.records] == [3, 2]
    assert float(found.lowest.log_alpha) == 2


@pytest.mark.parametrize("q", [2.0, 1.0])
def test_a_scan_in_parts_finds_what_a_scan_at_once_finds(q, monkeypatch):
    prob = problem(*regression(40, 6, sparse=2), "feature")
    response = ClosedForm().bind(prob)
    s2 = prob.decays.scale(response.solve(hyper(1.0), torch.ones(5, dtype=torch.float64)))
    results = []
    for numbers in (linear_systems.MAX_NUMBERS, 1):
        monkeypatch.setattr(linear_systems, "MAX_NUMBERS", numbers)
        grid = Grid(descending(6, -6), WIDE, q, None)
        results.append(scan(response, replace(PLAIN, log_scale=True), s2, Journal(Budget()), "scan", grid))
    assert results[0].path is not None
    assert results[1].path is None
    assert float(results[0].lowest.log_alpha) == pytest.approx(float(results[1].lowest.log_alpha), abs=0.1)


def test_a_scan_beyond_an_end_goes_on_only_while_it_gains():
    """The loss approaches its limit: nothing is won by following it to the bound."""
    curve = Curve(lambda x: 1 + torch.exp(x))
    run(curve, descending(3, -3))
    assert -20 < min(x for part in curve.asked for x in part) < -8
