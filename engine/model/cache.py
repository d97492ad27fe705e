"""Keys and values of what a model has read, kept so that a new token costs one token's work.

Memory is taken once. A layer that sees everything keeps as many positions as the cache was made
for; one with a window keeps the window, and overwrites its oldest. With `stream` no text is too
long: every layer keeps the first few positions, the attention sinks, and the newest, and places are
counted inside the cache (StreamingLLM, Xiao et al. 2023). Grouped heads are stored once, not once
for each query head.

Rows of a batch advance together: step t of the cache is position t - padding of a row, so shorter
prompts stand at the right. Steps that are padding are seen by nobody but themselves.

Legend of shape suffixes: B rows, G heads of keys and values, T new steps, S slots, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.model.attend import Sight, seen

SINKS = 4
"""First positions that a stream keeps: one was not enough, more did not help (Xiao et al. 2023)."""


class KVCache:
    """The cache of one model for B rows.

    `steps`: the longest text, padding included; a stream ignores it. `padding`: steps before each
    row's first token. `stream`: first positions to keep of a text of any length; None refuses a
    text longer than `steps`. Raises InputError for a stream of a model with learned positions, or
    of padded rows.
    """

    def __init__(
        self,
        config: ModelConfig,
        rows: int,
        steps: int,
        *,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        padding: Tensor | None = None,
        stream: int | None = None,
    ) -> None:
        if stream is not None:
            _check_stream(config, stream, padding)
        self.config, self.steps, self.stream, self.device = config, steps, stream, device
        self.padding_B = padding if padding is not None and bool(padding.any()) else None
        self.n = 0
        """Steps read so far."""
        most_padding = int(self.padding_B.max()) if self.padding_B is not None else 0
        self._kinds: dict[int, Slots] = {}
        self.layers: list[LayerCache] = []
        for layer in range(config.n_layer):
            window = config.window_of(layer)
            if window not in self._kinds:
                self._kinds[window] = _slots(config, window, steps, most_padding, stream, device)
            slots = self._kinds[window]
            shape = (rows, config.kv_heads, slots.total, config.head_width)
            self.layers.append(LayerCache(slots, shape, device, dtype))
        slots_of_all = sum(layer.slots.total for layer in self.layers)
        self.most_slots = max(slots.total for slots in self._kinds.values())
        """Of a layer."""
        self._row_bytes = 2 * slots_of_all * config.kv_heads * config.head_width * dtype.itemsize
        self._times = torch.arange(steps, device=device)

    @property
    def kinds(self) -> dict[int, Slots]:
        """By window, where the steps of its layers stand."""
        return self._kinds

    @property
    def bytes(self) -> int:
        """Memory of all keys and values."""
        return self._row_bytes * self.layers[0].k.shape[0]

    @property
    def largest_chunk(self) -> int:
        """How many steps can be read at once."""
        if self.stream is None:
            return max(1, self.steps - self.n)
        return max(1, min(slots.ring for slots in self._kinds.values()))

    def begin(self, T: int) -> dict[int, View]:
        """Make room for T more steps; by window, how to read them. Raises as `make_room`."""
        self.make_room(T)
        return {window: self._view(window, slots, T) for window, slots in self._kinds.items()}

    def make_room(self, T: int) -> None:
        """For T more steps. Raises InputError when a text that is no stream outgrows the cache."""
        if self.stream is None and self.n + T > self.steps:
            raise InputError(
                f"{self.n + T} tokens are longer than the cache's {self.steps}",
                "make a longer cache, or stream",
            )
        for slots in self._kinds.values():
            slots.begin(self.n, T, whole=self.stream is None)

    def end(self, T: int) -> None:
        """The T steps have been through all layers."""
        self.n += T

    def positions(self, T: int) -> Tensor:
        """Positions of the next T steps in their rows: (T,), or (B, T) where rows are padded. Not
        of a stream, which knows places only."""
        times_T = self._times[self.n : self.n + T]
        if self.padding_B is None:
            return times_T
        return (times_T[None] - self.padding_B[:, None]).clamp(min=0)

    def select(self, rows: Tensor) -> None:
        """Rows `rows` (B',) of the cache, in that order, some perhaps several times (for beams)."""
        for layer in self.layers:
            layer.k, layer.v = layer.k[rows], layer.v[rows]
        if self.padding_B is not None:
            self.padding_B = self.padding_B[rows]

    def _view(self, window: int, slots: Slots, T: int) -> View:
        if self.stream is not None:
            key_places_S = slots.places()
            query_places_T = key_places_S[-T:] if slots.joined else slots.newest_place()
            sight = Sight(causal=False)
            if T > 1:
                sink_tokens = self.config.sink_tokens if window else 0
                mask_TS = seen(query_places_T, key_places_S, window, sink_tokens)
                sight = Sight(causal=False, mask=mask_TS)
            return View(sight, query_places_T, key_places_S)
        positions = self.positions(T)
        if self.padding_B is None and T == 1:
            return View(Sight(causal=False), positions, None)  # what is kept is what it sees
        if self.padding_B is None and self.n == 0 and not (window and window < T):
            return View(Sight(causal=True), positions, None)
        key_times_S = slots.times()
        query_times_T = torch.arange(self.n, self.n + T, device=key_times_S.device)
        if self.padding_B is None:
            mask_TS = seen(query_times_T, key_times_S, window, self.config.sink_tokens)
            return View(Sight(causal=False, mask=mask_TS), positions, None)
        first_B1 = self.padding_B[:, None]
        keys_BS, queries_BT = key_times_S[None] - first_B1, query_times_T[None] - first_B1
        mask_BTS = seen(queries_BT, keys_BS, window, self.config.sink_tokens)
        # A step of padding sees itself: a softmax over nothing would be NaN.
        itself_TS = query_times_T[:, None] == key_times_S[None, :]
        mask_BTS = (mask_BTS & (keys_BS >= 0)[:, None, :]) | itself_TS
        return View(Sight(causal=False, mask=mask_BTS[:, None]), positions, None)


@dataclass(frozen=True)
class View:
    """How the new steps see the keys of a kind of layers; places are what RoPE turns by."""

    sight: Sight
    query_places: Tensor
    """(T,) or (B, T)."""
    key_places: Tensor | None
    """(S,) in a stream, whose keys are kept unturned; None where they were turned when new."""


class LayerCache:
    """Keys and values of one layer: (B, G, S, D) each."""

    def __init__(
        self,
        slots: Slots,
        shape: tuple[int, int, int, int],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.slots = slots
        # Zeros: a slot that nobody sees is multiplied by 0, which does not make NaN harmless.
        self.k = torch.zeros(shape, device=device, dtype=dtype)
        self.v = torch.zeros(shape, device=device, dtype=dtype)

    def extend(self, k_BGTD: Tensor, v_BGTD: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the new ones; all that the new steps may see, (B, G, S, D), in the order of the
        view's mask and places."""
        slots = self.slots
        if not slots.joined:
            self.k[:, :, slots.writes] = k_BGTD.to(self.k.dtype)
            self.v[:, :, slots.writes] = v_BGTD.to(self.v.dtype)
            return self.k[:, :, : slots.filled], self.v[:, :, : slots.filled]
        # The new ones overwrite what the first of them still see: read first, then write.
        seen_k, seen_v = (
            torch.cat((kept[:, :, slots.reads], new.to(kept.dtype)), dim=2)
            for kept, new in ((self.k, k_BGTD), (self.v, v_BGTD))
        )
        self.k[:, :, slots.writes] = k_BGTD[:, :, slots.stays].to(self.k.dtype)
        self.v[:, :, slots.writes] = v_BGTD[:, :, slots.stays].to(self.v.dtype)
        return seen_k, seen_v


class Slots:
    """Which step stands in which slot, for all layers of one window.

    The first `kept` steps have slots of their own; later ones take `ring` slots in turn.
    """

    def __init__(self, kept: int, ring: int, device: torch.device) -> None:
        self.kept, self.ring, self.device = kept, ring, device
        self.total = kept + ring
        self.joined = False
        """Whether the new steps are read beside the slots (in the order of `reads`, then the new
        ones) instead of in them."""
        self.filled = 0
        """Slots in use after the new steps, when not joined."""
        self.writes: slice | Tensor = slice(0)
        self.reads: slice | Tensor = slice(0)
        self.stays: slice | Tensor = slice(0)
        self._n = self._T = 0
        self._read_times: list[int] = []

    def slot(self, step: int) -> int:
        return step if step < self.kept else self.kept + (step - self.kept) % self.ring

    def begin(self, n: int, T: int, *, whole: bool) -> None:
        """n steps are there, T come. `whole`: the first of the new ones see all that is there; else
        (in a stream) what the last of them does not see is left out for the first ones too."""
        self._n, self._T = n, T
        last = n + T
        if last <= self.total:
            self.joined, self.writes, self.filled = False, slice(n, last), last
            return
        if T == 1:
            slot = self.slot(n)
            self.joined, self.writes, self.filled = False, slice(slot, slot + 1), self.total
            return
        self.joined = True
        held = sorted(
            {*range(min(n, self.kept)), *range(max(0, n - self.ring, min(n, self.kept)), n)}
        )
        if not whole:
            oldest = last - self.ring
            held = [step for step in held if step < self.kept or step >= oldest]
        self._read_times = held
        self.reads = self._indices([self.slot(step) for step in held])
        staying = [step for step in range(n, last) if step < self.kept or step >= last - self.ring]
        self.writes = self._indices([self.slot(step) for step in staying])
        self.stays = self._indices([step - n for step in staying])

    def times(self) -> Tensor:
        """(S,) the step of each key, in the order that `extend` gives them."""
        if self.joined:
            return self._indices([*self._read_times, *range(self._n, self._n + self._T)])
        return self._indices(self._slot_times())

    def places(self) -> Tensor:
        """(S,) each key's place counted inside the cache: by age, without gaps."""
        if self.joined:
            return torch.arange(len(self._read_times) + self._T, device=self.device)
        if self._n + self._T <= self.total:
            return torch.arange(self.filled, device=self.device)
        oldest = (self._n - self.kept + 1) % self.ring  # the ring's slot of the oldest
        ring = (torch.arange(self.ring, device=self.device) - oldest) % self.ring
        return torch.cat((torch.arange(self.kept, device=self.device), self.kept + ring))

    def newest_place(self) -> Tensor:
        """(T,) the places of the new steps, when not joined."""
        return torch.arange(self.filled - self._T, self.filled, device=self.device)

    def _slot_times(self) -> list[int]:
        last = self._n + self._T
        if last <= self.total:
            return list(range(last))
        newest = last - 1 - self.kept
        return [
            *range(self.kept),
            *(self.kept + newest - (newest - slot) % self.ring for slot in range(self.ring)),
        ]

    def _indices(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.long, device=self.device)


def _slots(
    config: ModelConfig,
    window: int,
    steps: int,
    most_padding: int,
    stream: int | None,
    device: torch.device,
) -> Slots:
    """The slots of the layers with this window."""
    sinks = config.sink_tokens if window else 0
    if stream is not None:
        # A window narrower than the context is its own stream; its layers were trained without
        # sinks unless they have `sink_tokens`.
        narrow = window and window + sinks <= config.context_length
        kept, ring = (sinks, window) if narrow else (stream, config.context_length - stream)
        return Slots(kept, ring, device)
    if not window or window + sinks + most_padding >= steps:
        return Slots(0, steps, device)
    return Slots(sinks + most_padding if sinks else 0, window, device)


def _check_stream(config: ModelConfig, stream: int, padding: Tensor | None) -> None:
    if config.position == "learned":
        raise InputError(
            "a model with learned positions cannot stream: it knows no place beyond its "
            f"context_length of {config.context_length}",
            "train with model.position = 'rope'",
        )
    if not 0 <= stream < config.context_length:
        raise InputError(
            f"sinks = {stream}: must be below the model's context_length of {config.context_length}"
        )
    if padding is not None and bool(padding.any()):
        raise InputError("rows of different lengths cannot stream", "generate them one by one")
