"""Proposals that move while weights are trained, told losses and hypergradients; the loop is tested elsewhere."""

import math
from itertools import pairwise

import pytest
import torch

from skhyper.core.decays import Hyper
from skhyper.core.hyperoptim import Objective
from skhyper.core.result import Evaluation, StopReason
from skhyper.core.walk import Pace, Walk

PACE = Pace(warm_up=2, settling=3, patience=4, returns=2, smoothing=1.0)


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


def walk(pace=PACE, bounds=(-9.0, 9.0)):
    return Walk(Hyper(tensor(0.0), tensor(2.0)), Objective(False, 10, 1.0), bounds, pace)


def tell(w, loss, slope=1.0):
    """An evaluation where the walk stands; whether it goes back, and log alpha afterwards."""
    hyper = w.propose()
    told = Evaluation(hyper, tensor([0.0]), tensor([loss]), Hyper(tensor(slope), tensor(0.0)), 0.0, state="last")
    w.observe(told)
    back = w.start(told._replace(state="best"), told) == "best"
    return back, float(w.hyper.log_alpha)


def test_decays_wait_until_the_weights_have_answered_to_the_first_ones():
    w = walk()
    assert [tell(w, loss)[1] for loss in (9.0, 8.0, 7.0, 6.0, 5.0)] == [0.0] * 5
    assert [tell(w, 6.0)[1] for _ in range(2)] == [0.0] * 2
    assert tell(w, 6.0)[1] < 0.0


def test_they_wait_no_longer_than_they_may():
    w = walk(Pace(warm_up=2, settling=3, latest=4))
    assert [tell(w, loss)[1] for loss in (9.0, 8.0, 7.0, 6.0)] == [0.0] * 4
    assert tell(w, 5.0)[1] < 0.0


def test_without_progress_training_goes_back_and_the_decays_stay_where_they_are():
    w = walk(Pace(warm_up=0, settling=0, patience=4, returns=2, smoothing=1.0))
    tell(w, 1.0)
    backs, reasons, places = [], [], []
    for _ in range(12):
        back, place = tell(w, 2.0)
        backs.append(back)
        places.append(place)
        reasons.append(w.stop_reason)
    assert [i for i, back in enumerate(backs) if back] == [3, 7, 11]
    assert all(b < a for a, b in pairwise(places))
    assert reasons == [None] * 11 + [StopReason.NO_PROGRESS]
    assert w.propose() is None


def test_an_explosion_goes_back_with_shorter_steps():
    w = walk(Pace(warm_up=0, settling=0))
    first = tell(w, 1.0)[1]
    back, place = tell(w, math.inf)
    assert back
    assert place == first
    assert 0 < first - tell(w, 1.0)[1] < 0.5 * abs(first)


@pytest.mark.parametrize("slope", [1.0, -1.0])
def test_log_alpha_stays_within_its_bounds(slope):
    w = walk(Pace(warm_up=0, settling=0, step=5.0, halving=1e9), (-1.0, 1.0))
    for _ in range(5):
        tell(w, 1.0, slope)
    assert float(w.hyper.log_alpha) == -slope
