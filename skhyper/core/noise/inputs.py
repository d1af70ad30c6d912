"""What the main network sees of a row: its scaled features, and sinusoids of those that are numbers.

    t_j ;   sqrt(2) cos(2 pi w_k t_j) ,  sqrt(2) sin(2 pi w_k t_j) ,   k = 1 .. K

Sinusoids are periodic embeddings (Gorishniy et al., "On embeddings for numerical features in tabular deep learning",
2022): small networks learn smooth functions first, and what real data have of thresholds and of short scales late or
never. The frequencies w_k are levels of a half-normal distribution, in cycles over a unit of the scaled feature.
"""

from math import pi, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from .scaling import Scaling

# Scale of the frequencies.
FREQUENCY = 0.3
# Features with no more distinct values than these have no sinusoids.
FEW_VALUES = 8


class Inputs(NamedTuple):
    """From raw rows (n, p) to what the network sees, (n, p + 2 J K)."""

    scaling: Scaling
    columns: Tensor  # (J,) of the features that have sinusoids
    frequencies: Tensor  # (K,)

    def __call__(self, x: Tensor) -> Tensor:
        """Scaled features, then for each feature with sinusoids its K cosines and its K sines."""
        scaled = self.scaling(x)
        if not len(self.columns):
            return scaled
        angles = (2 * pi) * scaled[:, self.columns, None] * self.frequencies
        sinusoids = torch.cat([torch.cos(angles), torch.sin(angles)], 2).flatten(1)
        return torch.cat([scaled, sqrt(2.0) * sinusoids], 1)

    @property
    def n_columns(self) -> int:
        """Numbers that the network sees of a row."""
        return len(self.scaling.center) + 2 * len(self.columns) * len(self.frequencies)


def plain_inputs(scaling: Scaling) -> Inputs:
    """Scaled features alone."""
    return Inputs(scaling, torch.empty(0, dtype=torch.int64), torch.empty(0, dtype=torch.float64))


def periodic_inputs(scaling: Scaling, x: Tensor, n_frequencies: int) -> Inputs:
    """Sinusoids of the features that have more than a few values in the rows x, (n, p)."""
    n_distinct = 1 + x.sort(0).values.diff(dim=0).ne(0).sum(0)
    columns = (n_distinct > FEW_VALUES).nonzero()[:, 0]
    if not len(columns):
        return plain_inputs(scaling)
    levels = (torch.arange(n_frequencies, dtype=torch.float64) + 0.5) / n_frequencies
    frequencies = FREQUENCY * torch.special.ndtri((1 + levels) / 2)
    return Inputs(scaling, columns, frequencies)
