"""What a device does at best."""

import pytest
import torch

from engine.bench import limits


def test_memory_is_as_fast_as_the_fastest_way_to_read_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a processor the product with a vector reads on one core: alone it would call half of what
    memory gives its limit."""
    monkeypatch.setitem(limits.BYTES, "cpu", 1 << 20)
    taken = iter([0.25, 0.5, 1.0])  # the sum, the product, the copy
    monkeypatch.setattr(limits, "_fastest", lambda work, device, seconds: next(taken))
    found = limits.bandwidth(torch.device("cpu"))
    assert (found.read, found.copy) == (4 << 20, 2 << 20)


def test_reading_is_never_told_slower_than_one_core_reads() -> None:
    """Of real memory, with real clocks."""
    cpu = torch.device("cpu")
    found = limits.bandwidth(cpu, 0.4)
    source = torch.ones(16384, 4096)
    alone = source.nbytes / limits._fastest(lambda: source.mv(source[0]), cpu, 0.1)
    assert found.read > alone / 2
