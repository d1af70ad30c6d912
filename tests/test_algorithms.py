"""The user's algorithm objects and the core's configurations that they stand for."""

from dataclasses import asdict

from skhyper.algorithms import ImplicitDifferentiation
from skhyper.core.algorithms.implicit import Implicit


def test_the_settings_of_implicit_differentiation_are_those_of_the_core():
    assert ImplicitDifferentiation().get_params() == asdict(Implicit())
