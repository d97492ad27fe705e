"""`--batch-size auto`: the plan begins, what a run takes decides, and the step is a usable one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engine import batch_size, machine, peaks
from engine.batch_size import PROBES, find_batch_size
from engine.config import Config
from engine.errors import DeviceError, EngineError
from engine.lab import Lab
from engine.machine import Gpu
from engine.trial import Trial, TrialTooLarge

BASE = Config().with_values(
    {
        "model.n_layer": 12,
        "model.n_head": 12,
        "model.n_embd": 768,
        "model.context_length": 1024,
        "data.corpus": "web",
        "data.tokenizer": "gpt2",
        "train.max_steps": 100_000,
        "train.compile": "off",
    }
)
GB = 10**9
ROOM = 0.9 * 70 * GB


class Card:
    """A GPU on which a run takes `fixed` and `a_window` bytes for each window, up to `capacity`."""

    def __init__(self, fixed: float, a_window: float, capacity: float = 80 * GB) -> None:
        self.fixed, self.a_window, self.capacity = fixed, a_window, capacity
        self.sizes: list[int] = []

    def largest(self) -> int:
        return int((ROOM - self.fixed) / self.a_window)

    def run(self, config: Config, vocab_size: int, **options: object) -> Trial:
        size = config.train.batch_size
        self.sizes.append(size)
        taken = int(self.fixed + size * self.a_window)
        if taken > self.capacity:
            raise TrialTooLarge("out of memory")
        return Trial(0.1, 0.1, 0.1, 1e5, 3, 0.2, taken, 0, "cuda", "bfloat16", 1, False)


@pytest.fixture
def web(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab with a text of 200 MB, on a machine with an H100 of which 70 GB are free."""
    with (lab.corpus / "web.txt").open("wb") as sparse:
        sparse.truncate(200_000_000)
    (lab.corpus / "registry.toml").write_text('[web]\nkind = "text"\nfile = "web.txt"\n')
    card = Gpu(0, "NVIDIA H100 PCIe", 80 * GB, 70 * GB, (9, 0))
    monkeypatch.setattr(machine, "gpus", lambda: [card])
    monkeypatch.setattr("engine.survey._torch_is_for_cpus", lambda: False)
    return lab


@pytest.mark.parametrize(
    "card",
    [
        pytest.param(Card(4 * GB, 1.5 * GB), id="takes what the plan expects, about"),
        pytest.param(Card(4 * GB, 0.7 * GB), id="takes less than the plan expects"),
        pytest.param(Card(6 * GB, 3.0 * GB), id="takes more, and does not fit at first"),
        pytest.param(Card(4 * GB, 3.5 * GB, 64 * GB), id="runs out of memory at first"),
    ],
)
def test_the_largest_that_a_run_proves(web: Lab, card: Card) -> None:
    found = find_batch_size(web, BASE, run=card.run)
    assert found is not None and len(card.sizes) <= PROBES
    proved = [attempt for attempt in found.attempts if attempt.fits]
    assert found.batch_size in [attempt.batch_size for attempt in proved]
    assert max(attempt.taken for attempt in proved) <= ROOM
    assert 0.8 * card.largest() <= found.batch_size <= card.largest()
    assert found.accumulate == 1
    assert found.limit.startswith("memory")


def test_a_step_that_accumulates_stays_the_same_step(web: Lab) -> None:
    config = BASE.with_values({"train.batch_size": 4, "train.accumulate": 120})
    found = find_batch_size(web, config, run=Card(4 * GB, 1.5 * GB).run)
    assert found is not None
    assert found.batch_size * found.accumulate == 480
    assert found.batch_size == 32  # 39 windows fit, and 32 is the most that divides 480 below it
    whole = config.with_values({"train.batch_size": 2, "train.accumulate": 5})
    found = find_batch_size(web, whole, run=Card(4 * GB, 1.5 * GB).run)
    assert found is not None and (found.batch_size, found.accumulate) == (10, 1)
    assert found.limit == "the whole step"


def test_a_step_leaves_an_epoch_its_steps(web: Lab) -> None:
    tiny = BASE.with_values({"model.n_layer": 1, "model.n_embd": 12, "data.tokenizer": "bytes"})
    found = find_batch_size(web, tiny, run=Card(1 * GB, 1e5).run)
    assert found is not None and "training text" in found.limit
    assert 0.9 * 180_000_000 / 1024 / 16 < found.batch_size < 180_000_000 / 1024 / 16


def test_nothing_fits(web: Lab) -> None:
    with pytest.raises(EngineError, match=r"not even a batch of one window .* 63\.0 GB") as told:
        find_batch_size(web, BASE, run=Card(100 * GB, 1 * GB).run)
    assert "tui-lab plan" in told.value.hint


def test_a_stop_is_no_answer(web: Lab) -> None:
    assert find_batch_size(web, BASE, run=lambda *a, **b: None) is None


def test_a_device_that_is_not_here_is_refused(web: Lab) -> None:
    with pytest.raises(DeviceError, match="is not here to try a batch on"):
        find_batch_size(web, BASE.with_values({"train.device": "h100"}))


def test_on_a_processor_a_step_is_short_and_a_real_run_proves_it(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """End to end: the process of the run, its memory, its time."""
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "remembered_peak", lambda name, precision, threads: 1e10)
    monkeypatch.setattr(peaks, "remembered_bandwidth", lambda name, threads: 1e10)
    monkeypatch.setattr(batch_size, "LONGEST_STEP", 0.2)
    values = {
        "model.n_layer": 1,
        "model.n_head": 2,
        "model.n_embd": 32,
        "model.context_length": 32,
        "data.corpus": "python-docs",
        "data.tokenizer": "bytes",
        "train.device": "cpu",
        "train.precision": "float32",
        "train.threads": 1,
    }
    config = replace(BASE, title="").with_values(values)
    told = []
    found = find_batch_size(lab, config, trying=lambda *seen: told.append(seen))
    assert found is not None and "steps longer than 0.2 s" in found.limit
    assert [size for size, _ in told] == [found.batch_size]
    (attempt,) = found.attempts
    assert attempt.fits and 100e6 < attempt.taken < 3e9
    assert 0 < attempt.step_seconds < 5
