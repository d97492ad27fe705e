"""What a device does at best."""

import pytest
import torch

from engine.bench import limits


def test_memory_is_as_fast_as_the_fastest_way_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor the product with a vector reads on one core: alone it would call half of what
    memory gives its limit."""
    monkeypatch.setitem(limits.BYTES, "cpu", 1 << 20)
    taken = iter([0.5, 0.25, 1.0])  # the sum, the product, the copy
    monkeypatch.setattr(limits, "_fastest", lambda work, device, seconds: next(taken))
    found = limits.bandwidth(torch.device("cpu"))
    assert (found.read, found.copy) == (4 << 20, 2 << 20)
