"""The loss compiled, forward and backward: whether that is worth the wait, and what if it fails.

Knows nothing of networks. Needs torch only to compile.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from engine.errors import in_words

if TYPE_CHECKING:
    from torch import Tensor

    from engine.objectives import Loss

WAIT_SECONDS = {"cpu": 25.0, "cuda": 60.0}
"""What compiling takes where nothing is cached; of kinds of device that are not named, it is not
tried unasked. Measured on two cores, PyTorch 2.13: 10 s for 4 layers, 16 for 6, 40 for 12, and a
third of it once Inductor's cache knows the step. For a GPU, a guess."""
EAGER_SHARE = 0.4
"""MFU of an eager step, roughly: measured 0.34 (128×4×4) to 0.62 (384×6×6)."""
GAIN = 0.1
"""Share of an eager run's time that compiling saves: measured 0.01 to 0.18 on two cores with
AVX512-BF16, network by network and start by start."""


def compiles(setting: str, earlier: object, flops: float, peak_flops: float, device: str) -> bool:
    """Whether a run is compiled: as `setting` (auto, on, off) says.

    With auto a resumed run goes on as it did `earlier` (None: a new run), since the two round
    differently; a new one is compiled where it wins more than it waits. `flops`: of the whole run;
    `peak_flops`: FLOP/s, 0 if unknown.
    """
    if setting != "auto":
        return setting == "on"
    if isinstance(earlier, bool):
        return earlier
    if device not in WAIT_SECONDS or not peak_flops:
        return False
    return GAIN * flops / (EAGER_SHARE * peak_flops) > WAIT_SECONDS[device]


OPTIONS: dict[str, dict[str, Any]] = {
    # The whole forward and the whole backward pass are one call of C++ each, which gives up
    # Python's lock once: without it a call of Python for every kernel waits for a screen that draws
    # (and the screen for it), and the step of a small network takes some percent longer in any case
    # (128×4×4 in float32 on a processor without AVX-512: 2 to 3).
    "cpu": {"cpp_wrapper": True},
}
"""Of Inductor, by kind of device."""


class CompiledLoss:
    """`loss(batch)`, compiled at its first call for batches of that shape; it then waits.

    Where that fails with `OPTIONS`, it is compiled without; where that fails too (no C++ compiler,
    most of all) the loss goes on as it was, and `on_failure` is told the reason: a run that could
    train must not end because it cannot train faster.
    """

    def __init__(
        self,
        loss: Callable[[Tensor], Loss],
        device: str,
        on_failure: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`device`: the kind of it, as `torch.device.type`."""
        import torch

        self.compiled = True
        self._eager = loss
        self._on_failure = on_failure
        self._compile: Callable[..., Callable[[Tensor], Loss]] = functools.partial(
            torch.compile, loss, dynamic=False
        )
        self._options = OPTIONS.get(device)
        self._compiled = self._compile(options=self._options)

    def __call__(self, batch: Tensor) -> Loss:
        if not self.compiled:
            return self._eager(batch)
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        try:
            return self._compiled(batch)
        except (TorchDynamoException, InductorError) as error:
            if self._options:  # not all can be had with them: random states, for one
                self._options = None
                self._compiled = self._compile()
                return self(batch)
            self.compiled = False
            self._on_failure(in_words(error).splitlines()[0])
        return self._eager(batch)
