"""Where the family of decays is looked for on data with more columns than rows.

There the curve of the global alpha is flat where ridge regression interpolates, and where it has shrunk all weights:
its minimum says little of the family's.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .algorithms.base import BestResponse
from .decays import Hyper
from .problem import Problem
from .result import Snapshot

FAR = 20.0  # log alpha above the curvature where weights are as good as proportional to slopes at zero
TOP = 0.25  # how far below the alpha at which the last weights vanish scans begin
SHRUNK = 10.0  # alpha over the mean eigenvalue from which ridge regression has shrunk all weights,
FURTHEST = 50.0  # and how far beyond that log alpha counts
TINY = 1e-300


def shrunk(problem: Problem, log_alpha: Tensor) -> Tensor:
    """How far log alpha lies above where ridge regression on wide data has shrunk all weights; 0 below it.

    There they are inversely proportional to alpha: it is `SHRUNK` times the mean of the eigenvalues but zeros.
    """
    if not problem.wide:
        return torch.zeros_like(log_alpha)
    n_rows = float((problem.train > 0).sum(-1).double().mean())
    eigenvalue = problem.curvature() * problem.design.n_columns / n_rows
    return (log_alpha - math.log(SHRUNK * max(eigenvalue, TINY))).clamp(0.0, FURTHEST)


def unit_scale(problem: Problem, row: Snapshot, w: Tensor) -> Tensor:
    """s^2 of the family: the mean square of the weights of the tuned global alpha, where that has not shrunk them all.

    Else they are multiplied by how far it is beyond, and the family's alphas keep to the size of the data.
    """
    return problem.decays.scale(w) * (2 * shrunk(problem, row.hyper.log_alpha)).exp()


def first_alphas(response: BestResponse, s2: Tensor) -> Callable[[float], float]:
    """Exponent -> the log alpha at which a scan downwards begins, just below that at which the last weights vanish.

    With g the largest slope of the loss at zero weights, and v the weight that this decay alone would have without a
    penalty, alpha s (v / s)^(q - 1) = g.
    """
    decays, curvature = response.problem.decays, math.log(max(response.problem.curvature(), TINY))
    far = torch.tensor(curvature + FAR, dtype=torch.float64)
    w = response.solve(Hyper(far, torch.tensor(2.0, dtype=torch.float64)), torch.ones_like(s2))
    sums = decays.group_sums(w.square()) / decays.sizes.to(w)
    slope, unit = far + sums.amax(-1).clamp(min=TINY).log() / 2, s2.log() / 2
    size = slope - curvature - unit
    return lambda q: float((slope - unit + (1 - q) * size).mean()) - TOP
