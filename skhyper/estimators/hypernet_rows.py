"""How HypernetRegressor and HypernetClassifier read their rows, and which of them each member holds out."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import validate_data

from ..boundary import check_weights, plain_targets, refuse_unreadable, to_tensor
from ..copies import find_copies
from ..core.noise.procedure import Holding
from ..core.noise.rows import Data
from .hypernet_options import COPIES, LEAST_HELD, LEAST_ROWS, SHARE, SMALL_ROWS, SMALL_SHARE

TEXT_HINT = (
    "Encode strings and fill missing values first: the guide has a recipe with ColumnTransformer, OneHotEncoder and "
    "SimpleImputer."
)
LABEL_HINT = "For labels there is HypernetClassifier; targets that are numbers need a numeric dtype."
TARGET_HINT = "Drop the rows that have no target."


class Encoded(NamedTuple):
    """What training reads."""

    data: Data
    n_given: int  # rows at the end that the user holds out
    small: bool
    n_rows: int  # rows with weight as they came, with all copies
    cells: bool  # whether copies are rows of a categorical data set

    @property
    def n_own(self) -> int:
        """Rows that are not the user's held-out ones."""
        return len(self.data.x) - self.n_given


class ReadsRows(BaseEstimator, ABC):
    """Rows as users give them to rows as training reads them."""

    early_stopping: Any
    validation_fraction: Any
    _y_numeric: ClassVar[bool]

    @abstractmethod
    def _encode_targets(self, y: Any, reset: bool) -> NDArray[np.float64]:
        """Targets as a matrix, (n, T)."""

    @abstractmethod
    def _row_weights(self, y: Any, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sample weights times those of the classes."""

    def _encode(self, x: Any, y: Any, sample_weight: Any, x_val: Any, y_val: Any, reset: bool) -> Encoded:
        """Checked rows as tensors, copies as one row with their weight; rows of weight zero are gone."""
        x, y = self._check_rows(x, y, reset)
        weights = check_weights(sample_weight, x)
        weights = np.ones(len(x)) if weights is None else weights
        keep = weights > 0
        x, y, weights = x[keep], y[keep], weights[keep]
        targets = self._encode_targets(y, reset)
        copies, n_rows = find_copies([x], [targets], weights), len(x)
        # Light cells are trained on row by row: as one row with a weight each member would need one of its own.
        light = copies.cells and weights.sum() < COPIES * len(copies.first) and len(copies.first) > SMALL_ROWS
        if not (copies.none or light):
            x, y, targets, weights = (*(values[copies.first] for values in (x, y, targets)), copies.weight)
        data = Data(to_tensor(x), to_tensor(targets), to_tensor(self._row_weights(y, weights)))
        data, small = data.compact(SMALL_ROWS)
        if (x_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together, got only one of them.")
        if x_val is None:
            return Encoded(data, 0, small, n_rows, copies.cells)
        x_val, y_val = self._check_rows(x_val, y_val, reset=False)
        targets, weights = self._encode_targets(y_val, False), np.ones(len(x_val))
        held = find_copies([x_val], [targets])
        if not (held.none or held.cells):
            x_val, targets, weights = x_val[held.first], targets[held.first], held.weight
        given = Data(to_tensor(x_val), to_tensor(targets), to_tensor(weights))
        data = Data(*(torch.cat(pair) for pair in zip(data, given, strict=True)))
        return Encoded(data, len(x_val), small, n_rows, copies.cells)

    def _check_rows(self, x: Any, y: Any, reset: bool) -> tuple[Any, Any]:
        refuse_unreadable(X=x, y=y)
        y = plain_targets(y)
        try:
            return validate_data(
                self,
                x,
                y,
                reset=reset,
                dtype=np.float64,
                multi_output=True,
                y_numeric=self._y_numeric,
                ensure_min_samples=2 if reset else 1,
            )
        except ValueError as error:
            hint = self._hint(str(error), y)
            if hint is None:
                raise
            raise type(error)(f"{str(error).rstrip('.')}. {hint}") from error

    def _hint(self, message: str, y: Any) -> str | None:
        """What to do about text or missing values, in y or else in X."""
        if "NaN" in message and "Input X" not in message and pd.isna(np.asarray(y, dtype=object)).any():
            return TARGET_HINT
        if "could not convert string" in message and self._y_numeric and not _are_numbers(y):
            return LABEL_HINT
        return TEXT_HINT if "could not convert string" in message or "NaN" in message else None

    def _n_kept(self, data: Data) -> int:
        """Rows that no member holds out."""
        return 0

    def _holding(self, encoded: Encoded) -> Holding:
        """What each member holds out."""
        n, data = len(encoded.data.x), encoded.data
        if encoded.n_given:
            return Holding(n_given=encoded.n_given)
        share = self.validation_fraction
        if share == "auto":
            share = SMALL_SHARE if encoded.small else SHARE
        weight, total = data.weight, float(data.weight.sum())
        counted = total > n and bool((weight == weight.floor()).all())
        copies = encoded.cells and (counted or total >= COPIES * n)
        count = total if copies else n
        n_free = count - self._n_kept(data)
        enough = n_free * share >= LEAST_HELD
        if self.early_stopping is True and not enough:
            raise ValueError(
                f"validation_fraction must leave at least 2 rows to stop by, got validation_fraction={share} of "
                f"{n_free:g} rows that can be held out; raise it or set early_stopping=False."
            )
        holds_out = count >= LEAST_ROWS and enough if self.early_stopping == "auto" else self.early_stopping
        return Holding(float(share) if holds_out else 0.0, copies=copies)


def _are_numbers(values: Any) -> bool:
    try:
        np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return True
