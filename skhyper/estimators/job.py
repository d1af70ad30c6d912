"""What a search reads."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..adapters.network import NetworkAdapter
from ..adapters.task import Target
from ..boundary import Split
from .scoring import Scoring


class Job(NamedTuple):
    """Everything that fit reads: the data, what is tuned on it, and who judges."""

    x: Any
    y: Any
    params: dict[str, Any]
    routed: Any
    target: Target
    sample_weight: NDArray[np.float64] | None
    cv: Any
    splits: list[Split]
    scoring: Scoring
    metric: str
    twin: str | None  # name of the score that decides, where the outer loss may be its twin
    selection: str  # what decides: the name of a score, or "loss"
    by_loss: bool  # whether the outer loss stands for it

    @property
    def work(self) -> float:
        """Multiplications of X with itself, or those of a step of a network."""
        n, p = len(self.y), getattr(self.x, "shape", (0, 1))[-1]
        adapter, estimator = self.target.adapter, self.target.leaf.estimator
        if isinstance(adapter, NetworkAdapter):
            return adapter.work(estimator, p)
        return float(n) * p * min(n, p)
