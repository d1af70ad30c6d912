"""Plots of fitted searches, in scikit-learn's style; matplotlib is imported when one is drawn."""

from .best_response import BestResponseDisplay
from .decays import DecayDisplay
from .hyper_training import HyperTrainingDisplay

__all__ = ["BestResponseDisplay", "DecayDisplay", "HyperTrainingDisplay"]
