"""`config list|show|validate`: what a user reads, and what goes back in by --config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.config import FIELDS, load_file, load_preset
from engine.errors import ConfigError
from engine.lab import Lab
from tui_lab.cli import app

CLASSIC = {"nano", "small", "medium", "char", "char-cpu", "micro"}
MODERN = {"modern-micro", "modern-nano", "modern-small", "modern-medium", "modern-253m"}
SPEEDRUNS = {"speedrun-micro", "speedrun-char"}
PRESETS = CLASSIC | MODERN | SPEEDRUNS | {"moe-nano", "lm-12gb", "llama-1b"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab.init(tmp_path / "lab")


def call(lab: Lab, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--lab", str(lab.root), *arguments])


def test_list_tells_the_shipped_presets_with_their_cost(lab: Lab) -> None:
    records = [
        json.loads(line) for line in call(lab, "config", "list", "--json").stdout.splitlines()
    ]
    found = {record["name"]: record for record in records}
    assert set(found) >= PRESETS
    assert found["nano"]["parameters"] == 30_536_192
    assert found["medium"]["flops_per_token"] == 854_438_400
    assert found["moe-nano"]["active_parameters"] < found["moe-nano"]["parameters"]
    assert found["llama-1b"]["training_memory"] > 16 * found["llama-1b"]["parameters"]
    assert all(record["title"] for record in records)
    assert not any(record["own"] for record in records)


def test_list_tells_active_parameters_and_the_memory_of_training(lab: Lab) -> None:
    """Experts: more parameters than a token goes through; all others: the same."""
    records = map(json.loads, call(lab, "config", "list", "--json").stdout.splitlines())
    found = {record["name"]: record for record in records}
    experts = {name for name, one in found.items() if one["n_expert"]}
    assert "moe-nano" in experts
    for name, one in found.items():
        fewer = one["active_parameters"] < one["parameters"]
        assert fewer == (name in experts)
        assert one["training_memory"] == sum(one["training_memory_parts"].values())
        assert one["training_memory"] > 16 * one["parameters"]  # weights, gradients, moments


@pytest.mark.parametrize("columns", [80, 120])
def test_the_list_fits_the_terminal_with_no_name_broken(lab: Lab, columns, monkeypatch) -> None:
    """Every shipped preset on one line of its own; a wide terminal is told more."""
    from tui_lab.cli import common
    from tui_lab.cli import config as module

    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(common, "on_terminal", lambda: True)
    monkeypatch.setattr(module, "on_terminal", lambda: True)
    lines = [line.strip() for line in call(lab, "config", "list").stdout.splitlines()]
    assert max(map(len, lines)) <= columns
    table = lines[: lines.index("", 3)]
    assert {line.split()[0] for line in table if line} >= PRESETS
    assert all(len(line.split()) > 6 for line in table[3:])  # no cell goes on in a second line
    assert any("rms+rope+swiglu" in line for line in table) == (columns == 120)


def test_piped_list_is_tab_separated_with_a_header(lab: Lab) -> None:
    header, *rows = call(lab, "config", "list").stdout.splitlines()
    columns = header.split("\t")
    assert columns[0] == "preset"
    nano = next(row for row in rows if row.startswith("nano\t")).split("\t")
    assert dict(zip(columns, nano, strict=True))["parameters"] == "30.5 M"


def test_a_labs_own_preset_hides_the_shipped_one_and_a_broken_one_is_named(lab: Lab) -> None:
    """One bad file must not hide the others."""
    (lab.configs / "nano.toml").write_text('title = "mine"\n[train]\nmax_steps = 5\n')
    (lab.configs / "bad.toml").write_text("[model]\nn_layers = 3\n")
    result = call(lab, "config", "list")
    rows = {line.split("\t")[0]: line for line in result.stdout.splitlines()}
    assert rows["nano*"].endswith("mine")
    assert "model.n_layers" in rows["bad*"]
    assert "small" in rows


def test_show_prints_toml_that_reads_back_to_the_same(lab: Lab, tmp_path: Path) -> None:
    shown = call(lab, "config", "show", "nano", "--set", "optimizer.lr=2e-3").stdout
    file = tmp_path / "back.toml"
    file.write_text(shown)
    assert load_file(file) == load_preset(lab, "nano").with_values({"optimizer.lr": 2e-3})


def test_show_refuses_an_unknown_preset_and_key(lab: Lab) -> None:
    assert isinstance(call(lab, "config", "show", "nanno").exception, ConfigError)
    error = call(lab, "config", "show", "nano", "--set", "model.n_hed=2").exception
    assert isinstance(error, ConfigError)
    assert "model.n_head" in error.hint


def test_fields_lists_every_field_with_its_help(lab: Lab) -> None:
    rows = call(lab, "config", "show", "--fields").stdout.splitlines()[1:]
    assert [row.split("\t")[0] for row in rows] == list(FIELDS)
    assert all(row.split("\t")[4] for row in rows)
    records = call(lab, "config", "show", "--fields", "--json").stdout.splitlines()
    assert json.loads(records[0])["key"] == next(iter(FIELDS))


def test_validate_names_every_error_of_every_file_and_exits_2(lab: Lab, tmp_path: Path) -> None:
    good, bad, worse = (tmp_path / name for name in ("good.toml", "bad.toml", "worse.toml"))
    good.write_text("[train]\nmax_steps = 5\n")
    bad.write_text("[model]\nn_layr = 3\nn_head = 0\n[optimizer]\nlr = 'x'\n[trian]\na = 1\n")
    worse.write_text("[model\n")
    absent = tmp_path / "absent.toml"
    files = (good, bad, worse, absent)
    result = call(lab, "config", "validate", *(str(file) for file in files))
    assert result.exit_code == 2
    assert f"{good}: ok" in result.stdout
    errors = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 6
    for part in ("n_layr", "n_head = 0", "optimizer.lr", "[trian]", "worse.toml", "absent.toml"):
        assert sum(part in line for line in errors) == 1


def test_validate_sees_what_no_single_field_can(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "odd.toml"
    file.write_text("[model]\nn_head = 5\nn_embd = 64\n[train]\nmax_steps = 1\n")
    result = call(lab, "config", "validate", str(file))
    assert result.exit_code == 2
    assert "does not divide" in result.stderr


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_shipped_presets_are_sound(lab: Lab, preset: str) -> None:
    """Each has a title that fits beside its name, and a length."""
    config = load_preset(lab, preset)
    assert 10 < len(config.title) <= 80 - max(map(len, PRESETS)) - 2
    assert config.train.max_steps or config.train.epochs
    assert config.schedule.min_lr < config.optimizer.lr
