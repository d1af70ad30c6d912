"""Which rows are copies of one another, and what stands for them.

Two rows are copies if their features are equal and their targets are too. Rows with equal features and different
targets are repeated measurements: each says something of its own, and a held-out one is an honest judge of a model that
was trained on the others. A copy says nothing new, and judges nothing: a model has seen its target.

Where features are categories and targets are few, rows that are independent of one another are equal as well. Such
cells are recognised by what they share: there are at most `CELLS` as many different features as different rows, and at
most that many different targets, so that neither the features nor the target tell which row it is. Their rows are no
copies, and are held out one by one: a fit that lacked all rows of a cell with one of its targets would learn that this
target never comes with these features.

A row is looked up by a sum of hashes of its entries (the mixing function is that of Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", 2014), in O(n p); equal hashes are compared entry by entry.
"""

from collections.abc import Sequence
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

# Different features, and different targets, of cells, over their different rows: at most.
CELLS = 0.75

# Entries that are hashed at once.
BLOCK = 2**20
GOLDEN = 0x9E3779B97F4A7C15
MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))

Bits = Any  # entries as 64 bits each: a matrix of uint64, or a sparse one that is zero where the values are


class Copies(NamedTuple):
    """The different rows among n, and what each row is a copy of.

    Where all different rows have the same weight they come in the order in which each appears first, so that rows
    without copies stay as they are. Otherwise their order is that of their hashes: it depends on what they are, and
    not on how they came, so that weights and repetitions give the same rows in the same order.
    """

    first: NDArray[np.intp]  # the number of one row of each kind, (m,)
    index: NDArray[np.intp]  # which of these each row is a copy of, (n,)
    weight: NDArray[np.float64]  # of all copies together, (m,)
    cells: bool  # whether equal rows are independent ones of a categorical data set

    @property
    def none(self) -> bool:
        """Whether every row is the only one of its kind, and stands where it stood."""
        return len(self.first) == len(self.index) and bool((self.first == np.arange(len(self.first))).all())

    def together(self) -> "Copies":
        """What a split keeps on one side: copies, but not the rows of a cell."""
        if not self.cells:
            return self
        rows = np.arange(len(self.index))
        return Copies(rows, rows, self.weight[self.index], self.cells)

    def members(self, kinds: NDArray[np.intp]) -> NDArray[np.intp]:
        """Numbers of all rows of these kinds, ascending."""
        return np.flatnonzero(np.isin(self.index, kinds))


def find_copies(x: Sequence[Any], y: Sequence[Any], weight: NDArray[np.float64] | None = None) -> Copies:
    """Look for copies.

    Parameters
    ----------
    x : sequence of arrays, frames or sparse matrices of n rows
        Features; rows are equal if they are in all of them.
    y : sequence of arrays or frames of n rows
        Targets.
    weight : array of shape (n,), optional
        Weights of the rows, none of them zero; ones if not given.
    """
    features, targets = ([_bits(part) for part in parts] for parts in (x, y))
    n = features[0].shape[0]
    weight = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    for salt in count():
        hashes = [_hashes(parts, 2 * salt + k) for k, parts in enumerate((features, targets))]
        _, first, index = np.unique(hashes[0] + hashes[1], return_index=True, return_inverse=True)
        if len(first) == n or all(_equal(part, first[index]) for part in (*features, *targets)):
            break
    by_weight = np.argsort(weight, kind="stable")  # the same sums in whatever order the rows come
    total = np.bincount(index[by_weight], weight[by_weight], minlength=len(first))
    n_different = [len(np.unique(values[first])) for values in hashes]
    cells = max(n_different) <= CELLS * len(first)
    if total.min() < total.max():
        return Copies(first, index, total, cells)
    order = np.argsort(first)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    return Copies(first[order], place[index], total, cells)


def _bits(values: Any) -> Bits:
    """The entries of all rows as integers that are equal where the entries are."""
    if sparse.issparse(values):
        rows = sparse.csr_array(values, copy=True)
        rows.sum_duplicates()
        rows.eliminate_zeros()
        return rows
    if hasattr(values, "to_pandas"):
        values = values.to_pandas()
    if isinstance(values, pd.DataFrame | pd.Series):
        frame = values.to_frame() if isinstance(values, pd.Series) else values
        columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
        return np.hstack([_of_column(column) for column in columns] or [np.empty((len(frame), 0), np.uint64)])
    array = np.asarray(values) if hasattr(values, "dtype") else _as_array(values)
    matrix = array.reshape(len(array), -1)
    if matrix.dtype.kind in "biuf":
        return _of_numbers(matrix)
    return np.hstack([_of_column(pd.Series(column)) for column in matrix.T])


def _as_array(values: Any) -> NDArray[Any]:
    try:
        return np.asarray(values)
    except ValueError:  # lists of different lengths
        array = np.empty(len(values), dtype=object)
        array[:] = [str(value) for value in values]
        return array


def _of_numbers(matrix: NDArray[Any]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(matrix.astype(np.float64) + 0.0).view(np.uint64)  # -0.0 becomes 0.0


def _of_column(column: "pd.Series[Any]") -> NDArray[np.uint64]:
    if pd.api.types.is_numeric_dtype(column.dtype):
        return _of_numbers(column.to_numpy(dtype=np.float64, na_value=np.nan)[:, None])
    return pd.util.hash_pandas_object(column, index=False).to_numpy()[:, None]


def _hashes(parts: Sequence[Bits], salt: int) -> NDArray[np.uint64]:
    """A number for each row; entries that are zero add nothing, so that sparse and dense rows have the same."""
    total, column = np.zeros(parts[0].shape[0], dtype=np.uint64), 0
    for part in parts:
        salts = _mixed(np.arange(column, column + part.shape[1], dtype=np.uint64) * np.uint64(GOLDEN) + np.uint64(salt))
        column += part.shape[1]
        if sparse.issparse(part):
            own = salts[part.indices]
            sums = np.concatenate([[np.uint64(0)], np.cumsum(_mixed(_of_numbers(part.data) + own) - _mixed(own))])
            total += np.diff(sums[part.indptr])
            continue
        size = max(1, BLOCK // max(1, part.shape[1]))
        for start in range(0, len(part), size):
            block = part[start : start + size]
            total[start : start + size] += (_mixed(block + salts) - _mixed(salts)).sum(axis=1)
    return total


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A bijection of 64-bit integers in which each bit of the result depends on all."""
    for shift, factor in MIXING:
        values = (values ^ (values >> np.uint64(shift))) * np.uint64(factor)
    return values ^ (values >> np.uint64(31))


def _equal(part: Bits, other: NDArray[np.intp]) -> bool:
    """Whether each row is equal to that with the other number."""
    if not sparse.issparse(part):
        return all(
            np.array_equal(part[at], part[other[at]])
            for at in np.array_split(np.arange(len(part)), max(1, part.size // BLOCK))
        )
    there = part[other]
    same = np.array_equal(part.indptr, there.indptr) and np.array_equal(part.indices, there.indices)
    return same and np.array_equal(_of_numbers(part.data), _of_numbers(there.data))
