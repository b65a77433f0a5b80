"""Arrays that stay on the disk: chosen rows of one, and how it is pickled."""

from __future__ import annotations

import mmap
from typing import Any, NamedTuple

import numpy as np


class MappedRows:
    """Chosen rows of a memory-mapped array, read when they are indexed.

    An index of rows (a number, a slice, an array of numbers or of booleans) gives a NumPy array.
    `np.asarray` reads all rows.

    Args:
      array: the memory-mapped array.
      rows: the number of each row in it.

    Example:
      >>> import tempfile
      >>> with tempfile.TemporaryFile() as file:
      ...     array = np.memmap(file, np.uint8, "w+", shape=(4, 2))
      ...     array[:] = [[0, 1], [2, 3], [4, 5], [6, 7]]
      ...     rows = MappedRows(array, np.array([3, 0]))
      ...     len(rows), rows.shape, rows[0].tolist(), rows[:2].tolist()
      (2, (2, 2), [6, 7], [[6, 7], [0, 1]])
    """

    def __init__(self, array: np.memmap, rows: np.ndarray):
        self._array, self._rows = array, rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._rows), *self._array.shape[1:])

    @property
    def ndim(self) -> int:
        return self._array.ndim

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype

    @property
    def nbytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.asarray(self._array[self._rows[index]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("copy: got False; accepted: True or None, as the rows are on the disk")
        return np.asarray(self[:], dtype)

    def rows(self, index: np.ndarray | slice) -> MappedRows:
        """Some of these rows, still on the disk."""
        return MappedRows(self._array, self._rows[index])

    def __getstate__(self) -> tuple[Any, np.ndarray]:
        return pickled(self._array), self._rows

    def __setstate__(self, state: tuple[Any, np.ndarray]) -> None:
        self._array, self._rows = unpickled(state[0]), state[1]


def rows_of(array: Any, index: np.ndarray | slice) -> Any:
    """These rows of an array; they stay on the disk where the array is memory-mapped.

    Args:
      array: a NumPy array, memory-mapped or not, or `MappedRows`.
      index: numbers of rows, a boolean for each row, or a slice.
    """
    if isinstance(array, MappedRows):
        return array.rows(index)
    if isinstance(array, np.memmap):
        return MappedRows(array, np.arange(len(array))[index])
    return array[index]


class _Mapped(NamedTuple):
    """Where a memory-mapped array is."""

    path: str
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]

    def open(self) -> np.memmap:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


def pickled(value: Any) -> Any:
    """The place of a memory-mapped array, to pickle in place of its contents; others unchanged."""
    # A part of a mapped array has the array as its base, and another offset than it says.
    whole = isinstance(value, np.memmap) and isinstance(value.base, mmap.mmap)
    if whole and value.filename and value.flags.c_contiguous:
        return _Mapped(str(value.filename), value.dtype, value.offset, value.shape)
    return value


def unpickled(value: Any) -> Any:
    """What `pickled` was given."""
    return value.open() if isinstance(value, _Mapped) else value
