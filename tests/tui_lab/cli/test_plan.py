"""`plan`: figures for people and scripts, refusals in one line, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine import calibration, peaks
from engine.config import list_presets, load_preset
from engine.errors import ConfigError, CorpusError, DeviceError, InputError
from engine.lab import Lab
from engine.trial import Trial
from tests.tui_lab.cli.processes import tui_lab
from tui_lab.cli import app


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab on a machine whose rates are known: measuring them takes seconds."""
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "remembered_peak", lambda name, precision, threads: 9e11)
    monkeypatch.setattr(peaks, "remembered_bandwidth", lambda name, threads: 4e10)
    return Lab.init(tmp_path / "lab")


def call(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--lab", str(lab.root), "plan", *arguments])


def test_json_has_the_golden_figures(lab: Lab) -> None:
    drawn = json.loads(call(lab, "-c", "nano", "--device", "cpu", "--json").stdout)
    assert drawn["parameters"] == 30_536_192
    assert drawn["flops_per_token"] == pytest.approx(1.10e8, rel=0.005)
    assert drawn["memory"]["gradients"] == 4 * 30_536_192
    assert drawn["checkpoint_bytes"] == 12 * 30_536_192


def test_options_are_fields_and_change_the_plan(lab: Lab) -> None:
    arguments = ["--batch-size", "8", "--max-steps", "10", "--set", "model.context_length=32"]
    drawn = json.loads(call(lab, *arguments, "--rate", "256", "--json").stdout)
    assert (drawn["steps"], drawn["tokens"], drawn["seconds"]) == (10, 2560, 10.0)
    drawn = json.loads(call(lab, "--epochs", "2", "--json").stdout)
    assert drawn["epochs"] == pytest.approx(2, rel=0.05)  # not cut short by the preset's steps


def test_text_names_each_part_and_every_warning(lab: Lab) -> None:
    text = call(lab, "--max-steps", "20", "--rate", "1000").stdout
    for word in ("parameters", "tokens to train on", "activations", "logits", "at 1 k tokens/s"):
        assert word in text
    assert "warning: the warm-up of" in text


@pytest.mark.parametrize("preset", [preset.name for preset in list_presets(Lab.find("."))])
def test_every_shipped_preset_can_be_planned(lab: Lab, preset: str) -> None:
    """On a CPU too, whatever it was made for: the figures come before the disappointment."""
    drawn = json.loads(call(lab, "-c", preset, "--device", "cpu", "--json").stdout)
    assert 0 < drawn["active_parameters"] <= drawn["parameters"]
    assert drawn["memory"]["total"] > 16 * drawn["parameters"]
    assert drawn["cache_bytes"] > 0


def test_active_parameters_are_told_of_experts_alone(lab: Lab) -> None:
    mixture, dense = call(lab, "-c", "moe-nano").stdout, call(lab, "-c", "modern-nano").stdout
    assert "41 083 392, 30 466 560 active (2 of 8 experts)" in mixture
    assert "active" not in dense


def test_a_12_gb_card_holds_the_preset_made_for_it_with_room(lab: Lab) -> None:
    """Of 12 GB a desktop takes one, and the allocator a tenth."""
    from engine.footprint import training_memory

    config = load_preset(lab, "lm-12gb")
    needed = training_memory(config, 50_257, "bfloat16", "cuda").total
    assert needed < 0.75 * 12e9
    assert config.train.batch_size * config.train.accumulate == 48


def test_a_fleet_that_is_not_here(lab: Lab) -> None:
    text = call(lab, "-c", "llama-1b", "--device", "h100", "--gpus", "64").stdout
    for words in ("64 GPUs in 8 machines", "GPU-hours", "ZeRO-1", "not here", "a GPU of 80.0 GB"):
        assert words in text
    drawn = json.loads(call(lab, "-c", "llama-1b", "--device", "a100-40gb", "--json").stdout)
    assert drawn["parallel"] is None
    assert "data sheet" in drawn["rate_source"]


def test_an_unknown_gpu_is_refused_with_those_that_are_known(lab: Lab) -> None:
    refused = call(lab, "--device", "h10").exception
    assert isinstance(refused, DeviceError)
    assert "did you mean 'h100'?" in refused.hint and "rtx-4090" in refused.hint


def test_what_does_not_fit_is_told_line_by_line(lab: Lab) -> None:
    """Each way out on a line of its own, as it is typed."""
    arguments = ["-c", "medium", "--device", "t4", "--batch-size", "64"]
    lines = call(lab, *arguments).stdout.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("error: does not fit"))
    assert "--batch-size" in lines[start + 1] and lines[start + 1].endswith("GB)")


TRIAL = Trial(
    step_seconds=0.1,
    low=0.1,
    high=0.1,
    tokens_per_second=20_480.0,
    steps=15,
    start_seconds=0.2,
    peak_memory=500_000_000,
    assembled=400_000_000,
    device="cpu",
    precision="bfloat16",
    threads=2,
    compiled=False,
)


def test_a_calibration_shows_the_error_and_later_plans_are_put_right(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measured run itself is tested where it is made; here a known one stands in for it."""
    monkeypatch.setattr(calibration, "run_trial", lambda *args, **values: TRIAL)
    arguments = ["--device", "cpu", "--set", "train.compile=off"]
    found = json.loads(call(lab, *arguments, "--calibrate", "--json").stdout)
    assert found["step_seconds"] == pytest.approx(0.1)
    measured = found["calibration"]
    assert measured["time_error"] == pytest.approx(measured["predicted_step_seconds"] / 0.1 - 1)
    text = call(lab, *arguments, "--calibrate").stdout
    assert "20.5 k measured" in text and "500.0 MB measured" in text

    later = call(lab, *arguments).stdout
    assert "from a calibration of" in later
    assert "calibration   " not in later
    assert "forgotten: 1" in call(lab, *arguments, "--forget").stderr
    assert "from a calibration of" not in call(lab, *arguments).stdout
    assert "nothing to forget" in call(lab, *arguments, "--forget").stderr


def test_nothing_is_written(lab: Lab) -> None:
    call(lab)
    assert [path for path in lab.root.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["-c", "nanno"], ConfigError),
        (["--set", "model.n_layer=0"], ConfigError),
        (["--corpus", "nowhere"], CorpusError),
        (["--device", "gpu"], DeviceError),
        (["--device", "cpu", "--gpus", "2"], DeviceError),
        (["--device", "h100", "--calibrate"], DeviceError),
        (["--gpus", "2", "--calibrate"], InputError),
    ],
)
def test_bad_input_is_refused(lab: Lab, arguments: list[str], kind: type) -> None:
    assert isinstance(call(lab, *arguments).exception, kind)


def test_the_real_command_refuses_in_two_lines_and_exits_2(lab: Lab) -> None:
    result = tui_lab(lab.root, "plan", "-c", "micr")
    assert result.returncode == 2
    assert result.stderr == "error: unknown preset 'micr'\nhint:  did you mean 'micro'?\n"
    assert result.stdout == ""


def test_the_largest_batch_is_planned_for_a_gpu_that_is_not_here(lab: Lab) -> None:
    """The step of 4 × 12 windows in one piece, where a card is large enough for it."""
    arguments = ["-c", "medium", "--set", "train.recompute=off", "--batch-size", "auto"]
    large, small = (call(lab, *arguments, "--device", card) for card in ("h100", "rtx-3090"))
    assert "49 152 tokens: 48 windows of" in large.stdout
    assert "49 152 tokens: 24 windows of 1024, 2 times\n" in small.stdout
    assert "data parallelism" not in small.stdout  # of one GPU there is none
