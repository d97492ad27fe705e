"""Contests are fair: sides wait for each other, and noisy rounds do not count."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from benchmarks import interleave, linear_cost, quiet, two_runs
from benchmarks.interleave import Rounds, SideFailed, Worker, our_side
from benchmarks.peers import nanogpt, nanogpt_recipe
from engine import machine
from engine.bench.shapes import SHAPES

# A side that does so many tokens a second, and writes when it worked to a file.
SIDE = """
import json, sys, time
rate, log = float(sys.argv[1]), sys.argv[2]
print(json.dumps({"ready_seconds": 0.0, "fact": rate}), flush=True)
step = 0
for line in sys.stdin:
    began = time.monotonic()
    time.sleep(json.loads(line)["seconds"])
    step += 1
    with open(log, "a") as file:
        file.write(f"{rate} {began} {time.monotonic()}\\n")
    print(json.dumps({"seconds": 0.5, "tokens": rate / 2, "step": step, "steps": 1,
                      "matmul_flops": 1e9, "peak_flops": 2e9, "memory_bytes": 7}), flush=True)
"""


def side(name: str, rate: float, log: Path) -> Worker:
    return Worker(name, [sys.executable, "-c", SIDE, str(rate), str(log)])


def shares(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """What other processes take, round by round."""

    class Watch:
        def __init__(self, alive: Any) -> None:
            self.others = values.pop(0)

        def __enter__(self) -> Watch:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(interleave.quiet, "Watch", Watch)


def test_sides_take_turns_and_noisy_rounds_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares(monkeypatch, [0.0, 0.5, 0.01, 0.0])
    log = tmp_path / "log"
    with side("a", 300.0, log) as a, side("b", 100.0, log) as b:
        assert a.facts["fact"] == 300.0
        found = interleave.interleave({"a": a, "b": b}, rounds=3, seconds=0.02)
    assert found.ratios("a", "b") == [3.0, 3.0, 3.0]
    assert (found.quiet, found.discarded, len(found.windows)) == (3, 1, 4)
    rows = [line.split() for line in log.read_text().splitlines()]
    times = sorted((float(began), float(ended)) for _, began, ended in rows)
    assert all(times[i][1] <= times[i + 1][0] for i in range(len(times) - 1))  # never both at once
    # The first two are warm-up; then every other round is in the opposite order.
    assert [row[0] for row in rows[2:6]] == ["300.0", "100.0", "100.0", "300.0"]
    assert found.to_dict()["rates"]["a"] == [300.0] * 4 and found.peak("a") == 2e9


def test_with_noise_alone_all_rounds_count_and_none_is_called_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares(monkeypatch, [0.5] * 9)
    with side("a", 1.0, tmp_path / "log") as a:
        found = interleave.interleave({"a": a}, rounds=2, seconds=0.0)
    assert (found.quiet, found.discarded, len(found.kept)) == (0, 0, 2 * interleave.MOST)


def test_a_side_that_ends_says_why() -> None:
    command = [sys.executable, "-c", "import sys; sys.exit('no compiler here')"]
    with (
        pytest.raises(SideFailed, match=r"b has ended.*\n.*no compiler here"),
        Worker("b", command),
    ):
        pass


def test_a_watched_process_is_not_somebody_else() -> None:
    """Sides that live on are ours: their work must not discard their own rounds."""
    code = "import time; end = time.monotonic() + 5\nwhile time.monotonic() < end: pass"
    busy = subprocess.Popen([sys.executable, "-c", code])
    try:
        with (
            quiet.Watch([psutil.Process(busy.pid)]) as ours,
            quiet.Watch() as foreign,
        ):
            time.sleep(0.5)
    finally:
        busy.kill()
        busy.wait()
    assert foreign.others > ours.others + 0.2 / (psutil.cpu_count() or 1)


@pytest.mark.slow
def test_our_side_trains_in_windows_and_ends_with_its_gate() -> None:
    """The real thing: a run through the engine, held between windows, and gone afterwards."""
    shape = SHAPES["tiny"]
    given = ("--shape", "tiny", "--device", "cpu", "--set", "train.compile=off")
    with our_side("ours", *given, "--set", "train.threads=1") as worker:
        assert worker.facts["flops_per_token"] > 0 and worker.facts["threads"] == 1
        first = worker.window(0.0, 5)
        held = worker.process.cpu_times().user
        time.sleep(0.3)
        assert worker.process.cpu_times().user - held < 0.2
        second = worker.window(0.0, 5)
    assert first["tokens"] == 5 * shape.tokens_per_step
    assert second["step"] == first["step"] + 5
    assert second["peak_memory_bytes"] >= second["memory_bytes"] > 1 << 20
    assert not worker.process.is_running()


def test_a_peers_batch_is_text_and_the_text_one_further() -> None:
    data = np.arange(500, dtype=np.uint16)
    inputs, targets = nanogpt.draw_batch(data, 4, 16, torch.device("cpu"))
    assert inputs.shape == (4, 16) and torch.equal(targets, inputs + 1)


CHECKOUT = """
import torch
from torch import nn
from torch.nn import functional

class GPTConfig:
    def __init__(self, **fields):
        vars(self).update(fields)

class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)

    def forward(self, inputs, targets):
        logits = self.table(inputs)
        return logits, functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def configure_optimizers(self, weight_decay, learning_rate, betas, device_type):
        return torch.optim.AdamW(self.parameters(), lr=0.1, betas=betas, weight_decay=0.0)
"""


def test_a_checkout_is_trained_and_scored_on_the_whole_split(tmp_path: Path) -> None:
    """With a model.py of the same interface: a step learns, and the loss is the mean over all
    windows of the split."""
    (tmp_path / "model.py").write_text(CHECKOUT)
    torch.manual_seed(1)
    model = nanogpt.load_model(tmp_path, vocab_size=3, block_size=8)
    data, vocab_size = nanogpt_recipe.encode("abc" * 400)
    assert vocab_size == 3
    recipe = nanogpt_recipe.Recipe(1, 1, 1, 8, 4, 10, 0.0, "float32", False, 5)
    cpu = torch.device("cpu")
    before = nanogpt_recipe.whole_loss(model, data, recipe, cpu)
    step = nanogpt.stepper(model, data[:1000], 4, 8, cpu, "float32", False)
    for _ in range(100):
        step(0.1)
    after = nanogpt_recipe.whole_loss(model, data, recipe, cpu)
    assert after < 0.1 < before
    with pytest.raises(FileNotFoundError, match="no checkout"):
        nanogpt.load_model(tmp_path / "elsewhere", vocab_size=3, block_size=8)


def test_a_cost_that_grows_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A late side that is slower, or larger, misses the target."""

    class Fake:
        facts: dict[str, Any] = {}

        def __init__(self, name: str, *_: str) -> None:
            self.step, self.slow = 0, name == linear_cost.LONG

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def window(self, seconds: float, steps: int, limit: float, matmuls: bool) -> dict[str, Any]:
            assert not matmuls, "their memory would count as the run's"
            self.step += steps
            memory = 100 + self.step // 10
            return {"step": self.step, "tokens": 1, "seconds": 1, "memory_bytes": memory}

    def rounds(workers: dict[str, Fake], **_: Any) -> Rounds:
        window = {
            name: {"tokens": 95 if fake.slow else 100, "seconds": 1, "step": 40, "matmul_flops": 1}
            for name, fake in workers.items()
        }
        return Rounds([window] * 3, [0.0] * 3)

    monkeypatch.setattr(linear_cost, "our_side", Fake)
    monkeypatch.setattr(linear_cost, "interleave", rounds)
    found = linear_cost.measure(1000, "cpu")
    rate, memory = found["ratios"]
    assert (rate["value"], rate["met"]) == (0.95, False)
    assert memory["value"] > 1.5 and memory["met"] is False
    assert found["course"][-1][0] >= 1000


def test_two_runs_at_once_and_what_one_loses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sides that know their environment: short waits are slower alone, and better in company."""
    at_once: list[str] = []
    both = threading.Barrier(2, timeout=10)

    class Fake:
        def __init__(self, name: str, _: list[str], environment: dict[str, str]) -> None:
            self.name, self.short = name, bool(environment)
            self.process = psutil.Process()

        def __enter__(self) -> Fake:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def window(self, seconds: float, *, matmuls: bool) -> dict[str, float]:
            alone = seconds < 0.01  # one way in turn with the other
            if not alone:
                both.wait()  # or it never ends: the second runs at the same time
                at_once.append(self.name)
            rate = (90 if self.short else 100) if alone else (45 if self.short else 10)
            return {"tokens": rate * seconds, "seconds": seconds}

    monkeypatch.setattr(two_runs, "Worker", Fake)
    monkeypatch.setattr(two_runs.quiet, "LIMIT", 2.0)  # no round is discarded for what else runs
    monkeypatch.setattr(machine, "cores", lambda: 2)
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    short, usual, alone = two_runs.measure(rounds=2, seconds=0.01)["ratios"]
    assert (short["value"], usual["value"]) == (pytest.approx(1.0), pytest.approx(0.2))
    assert alone["value"] == pytest.approx(0.9) and alone["met"] is False
    assert len(at_once) == 8
