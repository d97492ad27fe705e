"""`bench`: every kind of figure, shares that are what they say, and clean output in a pipe."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner, Result

from engine import events
from engine.arithmetic import matmul_parameters
from engine.bench import limits, run
from engine.bench import training as bench_training
from engine.bench.shapes import CORPUS, SHAPES, open_lab
from engine.config.sections import ModelConfig
from engine.corpora import get_tokenizer, prepare
from engine.errors import ConfigError, DeviceError
from engine.lab import Lab
from tui_lab.cli import app

EAGER = ["--set", "train.compile=off", "--set", "train.threads=1"]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The measurements of `--quick`, of milliseconds each."""
    effort = run.Effort(0.01, 0.01, 0.05, 0.01, trained=("tiny",), compiled="never")
    monkeypatch.setattr(run, "QUICK", effort)
    monkeypatch.setattr(run, "GENERATED", "tiny")
    monkeypatch.setitem(limits.SIDES, "cpu", (64,))
    monkeypatch.setitem(limits.BYTES, "cpu", 1 << 20)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def call(lab: Lab, *arguments: str) -> Result:
    command = ["--lab", str(lab.root), "bench", "--device", "cpu", *arguments]
    return CliRunner().invoke(app, command)


def test_every_kind_of_figure_is_one_json_object(lab: Lab, small: None) -> None:
    """And a share is a rate over the limit that was measured beside it, by the formula it names."""
    preset = lab.root / "own.toml"
    preset.write_text(
        '[model]\nn_layer = 1\nn_head = 1\nn_embd = 16\ncontext_length = 8\n'
        '[data]\ntokenizer = "bytes"\n[train]\nmax_steps = 5\n'
    )  # fmt: skip
    result = call(lab, "--quick", "--json", *EAGER, "-c", str(preset))
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in result.stdout.splitlines()]
    kinds = [record["what"] for record in found]
    assert kinds == ["device", "matmul", "matmul", "memory", *["training"] * 2, *["generation"] * 2]
    peaks = {record["name"]: record["flops"] for record in found if record["what"] == "matmul"}
    memory = found[3]
    assert memory["read"] > 0 and memory["copy"] > 0
    for record in found:
        if record["what"] == "training":
            done = record["tokens_per_second"] * record["flops_per_token"]
            assert record["mfu"] == pytest.approx(done / peaks[record["precision"]])
            assert record["low"] <= record["high"] and record["threads"] == 1
        if record["what"] == "generation":
            done = record["tokens_per_second"] * record["bytes_a_token"]
            assert record["roofline"] == pytest.approx(done / memory["read"])
    own = [record for record in found if record["name"] == str(preset)]
    assert [record["what"] for record in own] == ["training", "generation"]
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=16, context_length=8)
    assert own[1]["bytes_a_token"] == 4 * matmul_parameters(shape, 257)  # bytes, and end of text
    assert not list(lab.checkpoints.iterdir())


def test_text_in_a_pipe_is_plain(lab: Lab, small: None) -> None:
    result = call(lab, "--quick", *EAGER)
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.output and "\r" not in result.output
    for word in ("matmul", "memory", "training", "tokens/s", "peak", "generation", "allows"):
        assert word in result.stdout


def test_what_cannot_be_is_refused_before_anything_is_measured(lab: Lab) -> None:
    def error(*arguments: str) -> BaseException | None:
        return CliRunner().invoke(app, ["--lab", str(lab.root), "bench", *arguments]).exception

    assert isinstance(error("--device", "gpu"), DeviceError)
    assert isinstance(error("-c", "mikro"), ConfigError)
    assert isinstance(error("--set", "train.bach_size=3"), ConfigError)


def test_an_interrupt_keeps_what_was_said(
    lab: Lab, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "training_rate", interrupted)
    result = call(lab, "--quick", "--json", *EAGER)
    assert result.exit_code == 130
    assert [json.loads(line)["what"] for line in result.stdout.splitlines()][-1] == "memory"


def test_the_text_has_exactly_the_vocabulary(tmp_path: Any) -> None:
    """A vocabulary of another size would be another network than the one that is named."""
    with open_lab(300, 16) as lab:
        tokenizer = get_tokenizer(lab, CORPUS, "char", 0)
        prepared = prepare(lab, CORPUS, tokenizer)
        assert tokenizer.vocab_size == 300
        assert prepared.n_tokens >= 200_000
        root = lab.root
    assert not root.exists()


def test_compiling_and_warming_up_are_not_in_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of 1 s in which 100 tokens are trained, after 30 s of compiling and slow first ones."""
    clock = iter([0.0, 1.0, 31.0, 33.0, 35.0, 36.0, 37.0, 38.0, 39.0, 40.0, 41.0])
    monkeypatch.setattr(bench_training, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    watch = bench_training._Stopwatch(seconds=4.0, tell=lambda what, share: None)
    watch(started())
    watch(events.Phase(phase="compiling", step=0))
    for step in range(1, 10):
        watch(
            events.StepDone(
                step=step, tokens=100 * step, loss=1.0, lr=0.1, grad_norm=1.0, mfu=None,
                tokens_per_second=1.0, memory_bytes=1,
            )
        )  # fmt: skip
    rate = watch.result()
    assert rate.tokens_per_second == pytest.approx(100.0)
    assert rate.start_seconds == pytest.approx(36.0)
    assert rate.flops == pytest.approx(600.0)
    assert watch.inbox.take()  # it has asked the run to stop


def started() -> events.RunStarted:
    return events.RunStarted(
        run="bench", path="", config="", step=0, tokens=0, max_steps=10, steps_per_epoch=1.0,
        tokens_per_step=100, n_parameters=1, flops_per_token=6.0, context_length=10, vocab_size=2,
        train_tokens=1, val_tokens=0, bytes_per_token=1.0, device="cpu", device_name="cpu",
        precision="float32", threads=1, peak_flops=0.0, peak_source="", pid=1, host="",
    )  # fmt: skip


def test_shapes_are_what_their_names_say() -> None:
    for shape in SHAPES.values():
        config = shape.config()
        assert config.model.n_embd % config.model.n_head == 0
        assert config.train.batch_size * config.model.context_length == shape.tokens_per_step
