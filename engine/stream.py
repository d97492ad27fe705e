"""The numbers of several files as if they were one array, whatever happens to the files meanwhile.

Few are read into memory at once and compared with their hash: a snapshot that nothing can change.
Many are read window by window, and each read is followed by a look at its file. Nothing is ever
mapped: a map of a file that somebody cuts short kills the process that reads it (SIGBUS).

Knows nothing of tokens, text or windows: files of little-endian integers become int64 arrays.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from engine.errors import CorpusError
from engine.machine import memory_available
from engine.plain_file import open_plain

HELD_BYTES = 256 << 20
"""The largest stream that is read into memory at once, where an eighth of what is free holds it."""


class NumberFile(NamedTuple):
    """A file as it was written: how many numbers it holds, and its SHA-256."""

    path: Path
    count: int
    sha256: str


class TokenStream:
    """Numbers from arrays or files, in order, as one stream."""

    def __init__(self, parts: Sequence[np.ndarray | WatchedFile]) -> None:
        found = [_Held(part) if isinstance(part, np.ndarray) else part for part in parts]
        self._parts = [part for part in found if len(part)]
        self._offsets = np.cumsum([0, *(len(part) for part in self._parts)])

    @classmethod
    def open(cls, files: Sequence[NumberFile], dtype: np.dtype | str) -> TokenStream:
        """`files` as a snapshot in memory where they are small, and watched where they are not.

        Raises CorpusError when a file is not what was written, as far as that is looked at: its
        size always, its hash where it is held.
        """
        if fits_memory(files, dtype):
            return cls([_read_whole(file, np.dtype(dtype)) for file in files])
        return cls.watch(files, dtype)

    @classmethod
    def watch(cls, files: Sequence[NumberFile], dtype: np.dtype | str) -> TokenStream:
        """`files`, read where and when they are asked for; they stay open as long as the stream.

        Raises CorpusError when a file has another size, as does every later read of one that was
        changed since. One that was deleted or replaced is still the old one here.
        """
        return cls([WatchedFile(file, np.dtype(dtype)) for file in files])

    def __len__(self) -> int:
        return int(self._offsets[-1])

    def __getitem__(self, index: int) -> int:
        """The number at `index`, from 0. Raises IndexError."""
        return int(self.gather(np.array([index]), 1)[0, 0])

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Numbers `start` to `stop` as int64; bounds beyond the ends are cut, as in a list."""
        start, stop = max(start, 0), min(stop, len(self))
        if stop <= start:
            return np.empty(0, np.int64)
        first = int(np.searchsorted(self._offsets, start, "right")) - 1
        last = int(np.searchsorted(self._offsets, stop, "left"))
        pieces = [
            part.read(max(start - begin, 0), min(stop - begin, len(part)))
            for part, begin in zip(
                self._parts[first:last], self._offsets[first:last].tolist(), strict=True
            )
        ]
        return np.concatenate(pieces, dtype=np.int64)

    def gather(self, starts: np.ndarray, length: int) -> np.ndarray:
        """Windows of `length` numbers at `starts`: (len(starts), length) int64.

        Raises IndexError when a window does not lie within the stream.
        """
        starts = np.asarray(starts, np.int64)
        if not starts.size:
            return np.empty((0, length), np.int64)
        if starts.min() < 0 or starts.max() + length > len(self):
            raise IndexError(f"a window of {length} tokens leaves a stream of {len(self)}")
        if len(self._parts) == 1:
            return self._parts[0].rows(starts, length)
        owner = np.searchsorted(self._offsets, starts, "right") - 1
        inside = starts + length <= self._offsets[owner + 1]
        out = np.empty((len(starts), length), np.int64)
        for index in np.unique(owner[inside]):
            rows = np.flatnonzero(inside & (owner == index))
            out[rows] = self._parts[index].rows(starts[rows] - self._offsets[index], length)
        for row in np.flatnonzero(~inside):
            out[row] = self.slice(int(starts[row]), int(starts[row]) + length)
        return out


def fits_memory(files: Sequence[NumberFile], dtype: np.dtype | str) -> bool:
    """Whether `TokenStream.open` would hold `files` in memory, now."""
    size = sum(file.count for file in files) * np.dtype(dtype).itemsize
    return size <= HELD_BYTES and size <= memory_available() // 8


class _Held:
    """Numbers in memory."""

    def __init__(self, numbers: np.ndarray) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._numbers[start:stop]

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """One indexed gather over a view whose row i is numbers[i : i + length]."""
        count, step = len(self._numbers) - length + 1, self._numbers.itemsize
        view = as_strided(self._numbers, (count, length), (step, step), writeable=False)
        return view[starts].astype(np.int64)


def _read_whole(file: NumberFile, dtype: np.dtype) -> np.ndarray:
    """The numbers of `file`, read once. Raises CorpusError unless they are what was written."""
    numbers = np.empty(file.count, dtype)
    try:
        with open_plain(file.path, follow=True) as opened:
            _require_size(file, os.fstat(opened.fileno()).st_size, dtype)
            read = opened.readinto(numbers.data.cast("B")) if file.count else 0
    except OSError as error:
        raise _unreadable(file, error) from None
    if read != numbers.nbytes or hashlib.sha256(numbers.data).hexdigest() != file.sha256:
        raise _not_as_written(file, "its content is not what was written")
    numbers.flags.writeable = False
    return numbers


class WatchedFile:
    """A file of numbers that stays on disk. What is read from it is as it was at opening, or else
    CorpusError is raised."""

    def __init__(self, file: NumberFile, dtype: np.dtype) -> None:
        self._file, self._dtype = file, dtype
        try:
            with open_plain(file.path, follow=True) as opened:
                self._descriptor = os.dup(opened.fileno())
        except OSError as error:
            raise _unreadable(file, error) from None
        weakref.finalize(self, os.close, self._descriptor).atexit = False
        stat = os.fstat(self._descriptor)
        _require_size(file, stat.st_size, dtype)
        self._stamp = stat.st_size, stat.st_mtime_ns
        # Random windows make the kernel read ahead for nothing: 29.5 MB for the 25 kB of a batch
        # on a cold file.
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_RANDOM)

    def __len__(self) -> int:
        return self._file.count

    def read(self, start: int, stop: int) -> np.ndarray:
        width = self._dtype.itemsize
        data = self._bytes(start * width, (stop - start) * width)
        self._require_unchanged()
        return np.frombuffer(data, self._dtype)

    def rows(self, starts: np.ndarray, length: int) -> np.ndarray:
        width = self._dtype.itemsize
        data = b"".join([self._bytes(start * width, length * width) for start in starts.tolist()])
        self._require_unchanged()
        return np.frombuffer(data, self._dtype).reshape(len(starts), length).astype(np.int64)

    def _bytes(self, at: int, size: int) -> bytes:
        try:
            data = os.pread(self._descriptor, size, at)
            while len(data) < size:  # one call yields 2 GB at most, and less after a signal
                more = os.pread(self._descriptor, size - len(data), at + len(data))
                if not more:
                    raise _changed(self._file, "it ends too early")
                data += more
        except OSError as error:
            raise _unreadable(self._file, error) from None
        return data

    def _require_unchanged(self) -> None:
        """A writer sets the time of change before it writes: what was read before is untouched."""
        stat = os.fstat(self._descriptor)
        if (stat.st_size, stat.st_mtime_ns) != self._stamp:
            raise _changed(self._file, "it was written to")


REMEDY = "it is prepared again when a run is started or resumed, and by: tui-lab corpus prepare"


def _require_size(file: NumberFile, found: int, dtype: np.dtype) -> None:
    size = file.count * dtype.itemsize
    if found != size:
        raise _not_as_written(file, f"{found} bytes, {size} were written")


def _not_as_written(file: NumberFile, what: str) -> CorpusError:
    return CorpusError(f"prepared corpus is damaged: '{file.path}': {what}", REMEDY)


def _changed(file: NumberFile, what: str) -> CorpusError:
    return CorpusError(f"the corpus was changed while in use: '{file.path}': {what}", REMEDY)


def _unreadable(file: NumberFile, error: OSError) -> CorpusError:
    return CorpusError(f"cannot read prepared corpus '{file.path}': {error.strerror}", REMEDY)
