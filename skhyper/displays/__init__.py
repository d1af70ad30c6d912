"""Plots of fitted searches and networks, in scikit-learn's style; matplotlib is imported when one is drawn."""

from .best_response import BestResponseDisplay
from .calibration import CalibrationDisplay
from .decays import DecayDisplay
from .hyper_training import HyperTrainingDisplay
from .prediction_interval import PredictionIntervalDisplay
from .weight_spread import WeightSpreadDisplay

__all__ = [
    "BestResponseDisplay",
    "CalibrationDisplay",
    "DecayDisplay",
    "HyperTrainingDisplay",
    "PredictionIntervalDisplay",
    "WeightSpreadDisplay",
]
