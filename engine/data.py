"""From a stream of tokens to batches: the split, sliding windows, their order.

Knows nothing of text, models or torch, nor of where the stream is kept: arrays of int64 come out.
The order of training is a pure function of (seed, epoch, index), so that a run can stop anywhere
and go on with the very next batch from three stored numbers.

Shapes: B batch, T context length.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import CorpusError
from engine.stream import TokenStream

ORDER_BLOCK = 1024  # window indices permuted at once: numpy's cost a call is shared by many batches


def split(
    n_tokens: int,
    val_fraction: float,
    context: int,
    document_starts: TokenStream | np.ndarray | None = None,
) -> int:
    """The index where the validation part begins; the training part is everything before it.

    int(n_tokens·(1 − val_fraction)), as nanoGPT cuts. With several documents the cut moves to the
    nearest document's start, unless that would change the validation part by more than half of
    its size or leave a part without a window. `val_fraction` 0: no validation part (n_tokens).

    A window is `context` tokens and the one that follows. Raises CorpusError naming the longest
    context that fits when either part has no window.
    """
    cut = int(n_tokens * (1 - val_fraction)) if val_fraction > 0 else n_tokens
    parts = {"training": cut, "validation": n_tokens - cut} if val_fraction > 0 else {"": cut}
    name, shortest = min(parts.items(), key=lambda part: part[1])
    if shortest <= context:
        part = f"the {name} part" if name else "the corpus"
        longest = shortest - 1
        raise CorpusError(
            f"{part} has {max(shortest, 0)} tokens: no window of context {context} fits",
            f"the longest context that fits is {longest}"
            if longest > 0
            else "no context fits: take a larger corpus, or another data.val_fraction",
        )
    if val_fraction > 0 and document_starts is not None and len(document_starts) > 1:
        # Halving reads a few of them only: there may be more starts than memory holds.
        after = bisect_left(document_starts, cut)
        near = range(max(after - 1, 0), min(after + 1, len(document_starts)))
        start = min((int(document_starts[i]) for i in near), key=lambda begin: abs(begin - cut))
        fits = context < start < n_tokens - context
        if fits and abs(start - cut) <= (n_tokens - cut) // 2:
            return start
    return cut


class Windows:
    """Sliding windows of `context` + 1 tokens over stream[start:stop], `stride` apart.

    Inputs are a window's first `context` tokens, targets the same shifted by one. There are as many
    as range(0, n − context, stride) has members, n = stop − start. `stride` 0: the context.
    """

    def __init__(
        self, stream: TokenStream, start: int, stop: int, context: int, stride: int = 0
    ) -> None:
        self.stream, self.start, self.stop = stream, start, min(stop, len(stream))
        self.context, self.stride = context, stride or context

    def __len__(self) -> int:
        return self.count(0)

    @property
    def n_tokens(self) -> int:
        return max(self.stop - self.start, 0)

    def count(self, offset: int) -> int:
        """How many windows there are when the first begins `offset` tokens later."""
        return len(range(offset, self.n_tokens - self.context, self.stride))

    def batch(self, indices: np.ndarray | Sequence[int], offset: int = 0) -> np.ndarray:
        """The windows numbered `indices`: (B, T+1) int64. Raises IndexError beyond the last."""
        starts = self.start + offset + np.asarray(indices, np.int64) * self.stride
        if starts.size and (starts.min() < self.start or starts.max() + self.context >= self.stop):
            raise IndexError(f"window {np.max(indices)} of {self.count(offset)}")
        return self.stream.gather(starts, self.context + 1)


class Batches:
    """Endless batches: within an epoch each window exactly once, each epoch in another order.

    From the second epoch on all windows are shifted by a random offset below the stride, where
    there is room, so that the same tokens meet other neighbours; an epoch may then hold one window
    less. A batch that an epoch cannot fill goes on with the next one.
    """

    def __init__(self, windows: Windows, batch_size: int, seed: int) -> None:
        """Raises CorpusError when `windows` is empty."""
        if not len(windows):
            raise CorpusError(
                f"{windows.n_tokens} tokens hold no window of context {windows.context}",
                "choose a shorter context or a larger corpus",
            )
        self._windows, self._batch_size, self._seed = windows, batch_size, seed
        self._epoch = self._index = 0
        self._enter_epoch()

    @property
    def epoch(self) -> float:
        """Passes over the windows so far, with the part of the present one."""
        return self._epoch + self._index / self._count

    def next(self) -> np.ndarray:
        """The next batch: (B, T+1) int64."""
        missing, parts = self._batch_size, []
        while True:
            if self._index == self._count:
                self._epoch, self._index = self._epoch + 1, 0
                self._enter_epoch()
            order = self._order(missing)
            parts.append(self._windows.batch(order, self._offset))
            self._index += len(order)
            missing -= len(order)
            if not missing:
                return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def state(self) -> dict[str, Any]:
        """Where the order stands, ready for JSON: it names the next window, not the last one."""
        return {
            "seed": self._seed,
            "epoch": self._epoch,
            "index": self._index,
            "windows": len(self._windows),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken, whatever the batch size was then.

        Raises CorpusError when it was taken over other windows.
        """
        try:
            seed, epoch, index = (int(state[key]) for key in ("seed", "epoch", "index"))
            windows = int(state["windows"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise CorpusError(f"the saved data position is broken: {error!r}") from None
        if windows != len(self._windows):
            raise CorpusError(
                f"the saved data position counts {windows} windows, the corpus now has "
                f"{len(self._windows)}",
                "resume with the corpus, context and stride that the run was started with",
            )
        if not 0 <= epoch < 2**63:
            raise CorpusError(f"the saved data position names an epoch {str(epoch)[:40]}")
        self._seed, self._epoch = seed, epoch
        self._enter_epoch()
        if not 0 <= index <= self._count:
            raise CorpusError(
                f"the saved data position {str(index)[:40]} lies outside epoch {epoch}"
            )
        self._index = index

    def _enter_epoch(self) -> None:
        self._offset = _draw_offset(self._windows, self._seed, self._epoch)
        self._count = self._windows.count(self._offset)
        self._keys = _keys(self._seed, self._epoch)
        self._block_start, self._block = 0, np.empty(0, np.int64)

    def _order(self, wanted: int) -> np.ndarray:
        """The next at most `wanted` window numbers of this epoch; at least one."""
        at = self._index - self._block_start
        if not 0 <= at < len(self._block):
            self._block_start, at = self._index - self._index % ORDER_BLOCK, 0
            stop = min(self._block_start + ORDER_BLOCK, self._count)
            self._block = permute(np.arange(self._block_start, stop), self._count, self._keys)
            at = self._index - self._block_start
        return self._block[at : at + wanted]


def permute(indices: np.ndarray, n: int, keys: np.ndarray) -> np.ndarray:
    """Where a pseudo-random permutation of range(n) sends `indices`; no list of n is made.

    A Feistel network permutes the next even power of two; what falls outside range(n) is sent
    through again until it lands inside (cycle walking; Black and Rogaway, 2002). Round functions
    are SplitMix64's mixing. Does not depend on the version of numpy, as its generators may.
    """
    half = np.uint64(max((n - 1).bit_length() + 1, 2) // 2)
    mask = np.uint64((1 << int(half)) - 1)
    values = indices.astype(np.uint64)
    outside = np.ones(len(values), bool)
    while outside.any():
        left, right = values[outside] >> half, values[outside] & mask
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        values[outside] = (left << half) | right
        outside = values >= np.uint64(n)
    return values.astype(np.int64)


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _keys(seed: int, epoch: int, rounds: int = 8) -> np.ndarray:
    digest = hashlib.shake_256(f"order {seed} {epoch}".encode()).digest(8 * rounds)
    return np.frombuffer(digest, "<u8").astype(np.uint64)


def _draw_offset(windows: Windows, seed: int, epoch: int) -> int:
    if epoch == 0:
        return 0
    room = min(windows.stride, windows.n_tokens - windows.context)
    digest = hashlib.sha256(f"offset {seed} {epoch}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % room
