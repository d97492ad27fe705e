"""What the command line says of runs and checkpoints, and what it refuses to delete."""

from __future__ import annotations

import itertools
import json
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from engine.checkpoints.layout import META
from engine.checkpoints.proof import render_manifest
from engine.config import Config
from engine.errors import CheckpointError, InputError
from engine.lab import SHIPPED_RUN, Lab
from engine.status import Status, own_status, write_status
from tests.engine.checkpoints.making import CONFIG, checkpoint, flip, run
from tests.engine.checkpoints.test_pickles import Payload
from tests.tui_lab.cli.processes import command, environment
from tui_lab.cli import app, checkpoint_report


@pytest.fixture
def path(lab: Lab) -> Path:
    path = run(lab)
    checkpoint(path, 100, 3.0)
    checkpoint(path, 200, 2.0, seed=1)
    return path


def call(lab: Lab, *arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, ["--lab", str(lab.root), *arguments], catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_the_table_of_runs(lab: Lab, path: Path) -> None:
    status = Status("finished", step=200, max_steps=1000, loss=2.5, val_loss=2.0, seconds=75)
    write_status(path, status, durable=False)
    write_status(run(lab, "second"), Status("failed", step=3), durable=False)
    lines = [text.split("\t") for text in call(lab, "runs").stdout.splitlines()]
    (row,) = [line for line in lines if line[0] == "first"]
    assert row[1:5] == ["✓ finished", "200 / 1 000", "2.500", "2.000"]
    assert row[6] == "1:15"
    assert row[9] == "2"
    names = [
        line.split("\t")[0] for line in call(lab, "runs", "--filter", "fail").stdout.split("\n")
    ]
    assert "second" in names
    assert "first" not in names


def test_runs_as_json_and_sorted(lab: Lab, path: Path) -> None:
    """One object a line; a loss that is no number is null, since JSON has no NaN."""
    write_status(path, Status("failed", loss=float("nan")), durable=False)
    write_status(run(lab, "better"), Status("finished", loss=1.0), durable=False)
    text = call(lab, "runs", "--json", "--sort", "loss").stdout
    found = [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]
    own = [record for record in found if record["own"]]
    assert [record["name"] for record in own] == ["better", "first"]
    assert own[1]["loss"] is None
    with pytest.raises(InputError, match="cannot sort by 'los'"):
        call(lab, "runs", "--sort", "los")


def test_listing(lab: Lab, path: Path) -> None:
    lines = call(lab, "checkpoints", "list", "first").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines[1:]] == [
        "first/step_000100",
        "first/step_000200",
    ]
    assert lines[2].endswith("★ best")
    records = [
        json.loads(line)
        for line in call(lab, "checkpoints", "list", "first", "--json").stdout.splitlines()
    ]
    assert [record["step"] for record in records] == [100, 200]


def test_showing_from_headers(lab: Lab, path: Path) -> None:
    """Configuration, parameter table, shapes, training state; and nothing of it reads a weight."""
    model = path / "step_000200/model.safetensors"
    size = int.from_bytes(model.read_bytes()[:8], "little") + 8
    model.write_bytes(model.read_bytes()[:size] + bytes(model.stat().st_size - size))
    text = call(lab, "checkpoints", "show", "first@200").stdout
    for wanted in (
        "model.n_layer",
        "blocks.*.attn.qkv.weight  ×2",
        "lm_head.weight = wte.weight",
        "50 × 8",
        "optimizer.exp_avg",
        "progress.step",
        "2.0000",
    ):
        assert wanted in text
    record = json.loads(call(lab, "checkpoints", "show", "first@200", "--json").stdout)
    assert record["meta"]["config"]["model"] == json.loads(json.dumps(CONFIG.to_dict()))["model"]
    assert sum(tensor["bytes"] for tensor in record["tensors"]) > 1000


def test_showing_statistics(lab: Lab, path: Path) -> None:
    text = call(lab, "checkpoints", "show", "first", "--stats").stdout
    assert "blocks.0.attn.qkv.weight" in text
    assert "█" in text
    one = call(lab, "checkpoints", "show", "first", "--tensor", "whole").stdout
    assert "maximum                    6" in one
    with pytest.raises(CheckpointError, match="no tensor 'nothing'"):
        call(lab, "checkpoints", "show", "first", "--tensor", "nothing")


def test_histograms_show_every_bin_that_has_something() -> None:
    assert checkpoint_report.histogram((1000, 1, 0, 500), 4) == "█▁ ▄"
    assert checkpoint_report.histogram((), 4) == ""


def test_verifying(lab: Lab, path: Path) -> None:
    """Exit 1 and the file's name when something is broken; a script can rely on it."""
    call(lab, "checkpoints", "verify", "first")
    flip(path / "step_000100/training.safetensors")
    result = call(lab, "checkpoints", "verify", "first", code=1)
    assert "BROKEN\tfirst/step_000100" in result.stdout
    assert "training.safetensors" in result.stdout
    assert "sound\tfirst/step_000200" in result.stdout
    call(lab, "checkpoints", "verify", "first@200")
    call(lab, "checkpoints", "verify", "--all", code=1)
    with pytest.raises(CheckpointError, match="nothing to verify"):
        call(lab, "checkpoints", "verify")


def test_proving_can_be_interrupted(lab: Lab, path: Path) -> None:
    """A checkpoint may take minutes: control-c ends it at once, and says so by 130."""
    big = path / "step_000200/big.safetensors"
    with big.open("wb") as file:
        file.truncate(200 << 30)  # a hole: no disk is needed, and reading it takes minutes
    manifest = json.loads((path / "step_000200/manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"]["big.safetensors"] = {"bytes": 200 << 30, "sha256": "0"}
    (path / "step_000200/manifest.json").write_bytes(render_manifest(manifest))
    process = subprocess.Popen(
        command(lab.root, "checkpoints", "verify", "--all"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    while "step_000100" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert process.returncode == 130, errors
    assert "Traceback" not in errors


def test_long_proving_says_how_far_it_is(
    lab: Lab, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A line now and then where there is no terminal; and none for what is short."""
    assert "verifying" not in call(lab, "checkpoints", "verify", "first").stderr
    clock = itertools.count(step=20)
    monkeypatch.setattr("tui_lab.cli.common.time.monotonic", lambda: next(clock))
    told = call(lab, "checkpoints", "verify", "first").stderr
    shares = [int(share) for share in re.findall(r"verifying: (\d+) %", told)]
    assert shares == sorted(shares) and shares[0] < 20 and shares[-1] > 80


def test_a_pickle_is_shown_under_trust_alone(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "x.pt"
    torch.save({"w": torch.zeros(2, 3)}, file)
    with pytest.raises(CheckpointError, match="is a pickle"):
        call(lab, "checkpoints", "show", str(file))
    shown = call(lab, "checkpoints", "show", str(file), "--trust")
    assert "2 × 3" in shown.stdout
    assert "--trust: reading the pickle" in shown.stderr
    record = json.loads(call(lab, "checkpoints", "show", str(file), "--trust", "--json").stdout)
    assert record["tensors"][0]["name"] == "w"


def test_code_in_a_pickle_waits_for_a_second_yes(lab: Lab, tmp_path: Path) -> None:
    file, canary = tmp_path / "x.pt", tmp_path / "canary"
    torch.save({"w": torch.zeros(2), "x": Payload(canary)}, file)
    asked = call(lab, "checkpoints", "show", str(file), "--trust", code=1)
    assert "holds more than tensors" in asked.stderr
    assert not canary.exists()
    told = call(lab, "checkpoints", "show", str(file), "--trust", "--yes")
    assert "running the code in" in told.stderr
    assert canary.exists()


def test_nothing_outside_the_lab_is_deleted(lab: Lab, path: Path, tmp_path: Path) -> None:
    elsewhere = run(Lab.init(tmp_path / "elsewhere"))
    step = checkpoint(elsewhere, 1)
    for arguments in ([str(step)], [str(elsewhere), "--run"]):
        with pytest.raises(CheckpointError, match="not in this lab"):
            call(lab, "checkpoints", "delete", *arguments, "--yes")
    assert step.is_dir()


def test_a_broken_checkpoint_is_passed_over_aloud(lab: Lab, path: Path) -> None:
    flip(path / "step_000200/model.safetensors")
    result = call(lab, "checkpoints", "show", "first")
    assert "first/step_000100" in result.stdout
    assert "passed over" in result.stderr


def test_deleting_asks(lab: Lab, path: Path) -> None:
    """Without a terminal nothing is deleted unasked; what goes and how much is said."""
    result = call(lab, "checkpoints", "delete", "first@200", code=1)
    assert "Delete checkpoint first/step_000200, the best of its run (" in result.stderr
    assert (path / "step_000200").is_dir()
    result = call(lab, "checkpoints", "delete", "first@200", "--yes")
    assert "kB freed" in result.stdout
    assert not (path / "step_000200").exists()
    call(lab, "checkpoints", "delete", "first", "--run", "--yes")
    assert not path.exists()


def test_a_running_run_keeps_everything(lab: Lab, path: Path) -> None:
    write_status(path, own_status(), durable=False)
    for arguments in (["first"], ["first", "--run"]):
        with pytest.raises(CheckpointError, match="is running"):
            call(lab, "checkpoints", "delete", *arguments, "--yes")


def test_what_ships_is_not_deleted(
    lab: Lab, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Lab.init(tmp_path / "shipped")
    checkpoint(run(shipped, SHIPPED_RUN), 1)
    monkeypatch.setattr("engine.lab.builtin_dir", lambda kind: shipped.root / kind)
    with pytest.raises(CheckpointError, match="ships with"):
        call(lab, "checkpoints", "delete", SHIPPED_RUN, "--yes")


def test_differences(lab: Lab, path: Path) -> None:
    other = run(lab, "second", CONFIG.with_values({"optimizer.lr": 0.5}))
    checkpoint(other, 100, 3.0)
    rows = call(lab, "checkpoints", "diff", "first@100", "first@200").stdout
    assert "step\t100\t200" in rows
    assert "weights (hash)\txxh3_128 " in rows
    same = call(lab, "checkpoints", "diff", "first@100", "second@100").stdout
    assert same.strip() == "no difference"


def test_a_field_that_was_not_written_yet_has_its_default(lab: Lab, path: Path) -> None:
    """As an older version left its checkpoints."""
    meta = path / "step_000100" / META
    written = json.loads(meta.read_text())
    del written["config"]["train"]["nan_patience"]
    del written["config"]["train"]["max_steps"]  # not its default in the other
    meta.write_text(json.dumps(written))
    checkpoint(run(lab, "second"), 100, 3.0)
    rows = call(lab, "checkpoints", "diff", "first@100", "second@100").stdout
    assert "nan_patience" not in rows
    assert f"train.max_steps\t{Config().train.max_steps}\t100" in rows


def test_help_names_the_commands(lab: Lab) -> None:
    text = call(lab, "checkpoints", "--help").stdout
    for name in ("list", "show", "verify", "delete", "diff"):
        assert name in text


def test_loss_curves_as_text(lab: Lab, path: Path) -> None:
    """Piped, each curve is drawn with a letter of its own and no colour code gets in."""
    steps = [
        json.dumps({"step": step, "tokens": step, "loss": 5.0 - step / 30}) for step in range(1, 91)
    ]
    (path / "metrics.jsonl").write_text("\n".join(steps) + "\n")
    other = run(lab, "second")
    (other / "metrics.jsonl").write_text("\n".join(steps[:45]) + "\n")
    chart = call(lab, "runs", "--plot", "--sort", "name").stdout
    assert "\x1b" not in chart
    assert "A first   B hello-python   C second" in chart
    rows = [line for line in chart.splitlines() if line.startswith(" ") and "│" in line]
    assert {"A", "B", "C"} <= set("".join(rows[4:]))
