"""`plan`: figures for people and scripts, refusals in one line, nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.config import list_presets, load_preset
from engine.errors import ConfigError, CorpusError, DeviceError
from engine.lab import Lab
from tests.tui_lab.cli.processes import tui_lab
from tui_lab.cli import app


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
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
    ],
)
def test_bad_input_is_refused(lab: Lab, arguments: list[str], kind: type) -> None:
    assert isinstance(call(lab, *arguments).exception, kind)


def test_the_real_command_refuses_in_two_lines_and_exits_2(lab: Lab) -> None:
    result = tui_lab(lab.root, "plan", "-c", "micr")
    assert result.returncode == 2
    assert result.stderr == "error: unknown preset 'micr'\nhint:  did you mean 'micro'?\n"
    assert result.stdout == ""
