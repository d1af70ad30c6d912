"""Hyperparameter tuning by hypergradients, with the interface of scikit-learn.

A name is imported when it is first used, so that ``import skhyper`` does not import torch:

>>> import skhyper
>>> set(skhyper.__all__) <= set(dir(skhyper))
True
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skhyper import adapters as adapters
    from skhyper import algorithms as algorithms
    from skhyper import displays as displays
    from skhyper.estimators.hypernet_classifier import HypernetClassifier as HypernetClassifier
    from skhyper.estimators.hypernet_regressor import HypernetRegressor as HypernetRegressor
    from skhyper.estimators.hypernet_scorers import crps_scorer as crps_scorer
    from skhyper.estimators.hypernet_scorers import log_prob_scorer as log_prob_scorer
    from skhyper.estimators.logistic import HyperTrainedLogisticRegression as HyperTrainedLogisticRegression
    from skhyper.estimators.ridge import HyperTrainedRidge as HyperTrainedRidge
    from skhyper.estimators.ridge_classifier import HyperTrainedRidgeClassifier as HyperTrainedRidgeClassifier
    from skhyper.estimators.search import HyperTrainingSearchCV as HyperTrainingSearchCV

__version__ = "0.1.0"

# Public name -> the module that defines it, or that it is. For type checkers each name is also imported above, as in
# "from skhyper.estimators.ridge import HyperTrainedRidge as HyperTrainedRidge" under "if TYPE_CHECKING:".
_PUBLIC: dict[str, str] = {
    "HyperTrainedLogisticRegression": "skhyper.estimators.logistic",
    "HyperTrainedRidge": "skhyper.estimators.ridge",
    "HyperTrainedRidgeClassifier": "skhyper.estimators.ridge_classifier",
    "HyperTrainingSearchCV": "skhyper.estimators.search",
    "HypernetClassifier": "skhyper.estimators.hypernet_classifier",
    "HypernetRegressor": "skhyper.estimators.hypernet_regressor",
    "adapters": "skhyper.adapters",
    "algorithms": "skhyper.algorithms",
    "crps_scorer": "skhyper.estimators.hypernet_scorers",
    "displays": "skhyper.displays",
    "log_prob_scorer": "skhyper.estimators.hypernet_scorers",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_PUBLIC[name])
    value = module if module.__name__ == f"{__name__}.{name}" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
