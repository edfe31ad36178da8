"""Arrays of a result file as they are meant, whatever their layout in it: nothing is read until it is sliced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

Key = int | slice


class Inner:
    """What is at one index of the first axis."""

    def __init__(self, dataset: h5py.Dataset, index: int) -> None:
        self._dataset = dataset
        self._index = index

    @property
    def shape(self) -> tuple[int, ...]:
        """Without the first axis."""
        return tuple(self._dataset.shape[1:])

    @property
    def dtype(self) -> Any:
        """As stored."""
        return np.dtype(self._dataset.dtype)

    def __getitem__(self, key: Any) -> Any:
        return self._dataset[(self._index, *(key if isinstance(key, tuple) else (key,)))]


class Swapped:
    """The same with its first two axes exchanged; small, so that any slice may read all of it."""

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset

    @property
    def shape(self) -> tuple[int, ...]:
        """With the first two axes exchanged."""
        first, second, *more = self._dataset.shape
        return (second, first, *more)

    @property
    def dtype(self) -> Any:
        """As stored."""
        return np.dtype(self._dataset.dtype)

    def __getitem__(self, key: Any) -> Any:
        return np.swapaxes(self._dataset[()], 0, 1)[key]


class CorrelationMaps:
    """Two-time correlations (bin, t1, t2), whole and symmetric; the file holds t1 <= t2 of each bin."""

    def __init__(self, maps: Sequence[h5py.Dataset]) -> None:
        self._maps = maps

    @property
    def shape(self) -> tuple[int, ...]:
        """(bin, t1, t2)."""
        return (len(self._maps), *self._maps[0].shape)

    @property
    def dtype(self) -> Any:
        """As stored."""
        return np.dtype(self._maps[0].dtype)

    def __getitem__(self, key: Any) -> Any:
        first, rows, columns = _three(key)
        if not all(isinstance(each, int) or _is_forward(each) for each in (rows, columns)):
            every = slice(None)
            return np.stack([self._part(index, every, every) for index in range(len(self._maps))])[key]
        chosen = np.arange(len(self._maps))[first]
        if np.ndim(chosen) == 0:
            return self._part(int(chosen), rows, columns)
        if not chosen.size:
            return np.stack([self._part(0, rows, columns)])[:0]
        return np.stack([self._part(int(index), rows, columns) for index in chosen])

    def _part(self, index: int, rows: Key, columns: Key) -> NDArray[Any]:
        """Rows and columns of one map: from the upper half, or from its mirror image."""
        size = self._maps[index].shape[0]
        t1, t2 = (np.atleast_1d(np.arange(size)[each]) for each in (rows, columns))
        down, across = _slice(t1), _slice(t2)
        upper = self._maps[index][down, across]
        lower = self._maps[index][across, down].T
        part = np.where(t1[:, None] <= t2, upper, lower)
        keep = tuple(0 if isinstance(each, int) else slice(None) for each in (rows, columns))
        return np.asarray(part[keep])


def _three(key: Any) -> tuple[Any, Any, Any]:
    given = list(key) if isinstance(key, tuple) else [key]
    missing = 3 - sum(each is not Ellipsis for each in given)
    at = given.index(Ellipsis) if any(each is Ellipsis for each in given) else len(given)
    given[at : at + 1] = [slice(None)] * missing
    first, rows, columns = given
    return first, *(int(each) if isinstance(each, np.integer) else each for each in (rows, columns))


def _is_forward(key: Any) -> bool:
    return isinstance(key, slice) and (key.step is None or key.step > 0)


def _slice(indices: NDArray[np.intp]) -> slice:
    if not indices.size:
        return slice(0, 0)
    step = int(indices[1] - indices[0]) if indices.size > 1 else 1
    return slice(int(indices[0]), int(indices[-1]) + 1, step)
