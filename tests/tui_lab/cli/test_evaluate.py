"""`tui-lab evaluate` on a really saved run: one checkpoint, all of them, and the CSV."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import events
from engine.errors import CheckpointError, CorpusError, InputError
from engine.lab import Lab
from tests.tiny_run import CONTEXT, make_tiny_run
from tui_lab.cli import app
from tui_lab.cli.evaluate import COLUMNS


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Lab, list]:
    return make_tiny_run(tmp_path_factory.mktemp("lab"))


def run(lab: Lab, *arguments: str):
    command_line = ["--lab", str(lab.root), "evaluate", *arguments, "--device", "cpu"]
    result = CliRunner().invoke(app, [*command_line, "--threads", "1"])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def told(said: list) -> dict[int, float]:
    return {event.step: event.val_loss for event in said if isinstance(event, events.EvalDone)}


def test_one_checkpoint_in_words(trained) -> None:
    """Every figure with the context and stride that it holds for."""
    lab, said = trained
    output = run(lab, "tiny").stdout
    assert "tiny, step 30, on small (val)" in output
    assert f"loss {told(said)[30]:.4f}" in output
    assert f"context {CONTEXT}, stride {CONTEXT}" in output
    assert "bits/byte" in output


def test_json_is_one_object(trained) -> None:
    lab, said = trained
    (line,) = run(lab, "tiny@20", "--json", "--stride", "4", "--split", "val").stdout.splitlines()
    result = json.loads(line)
    assert (result["run"], result["step"], result["stride"]) == ("tiny", 20, 4)
    assert result["loss"] == pytest.approx(told(said)[20], abs=0.05)
    assert result["same_text"] is True


def test_every_checkpoint_into_csv(trained, tmp_path: Path) -> None:
    lab, said = trained
    path = tmp_path / "results.csv"
    result = run(lab, "tiny", "--all", "--csv", str(path))
    assert len(result.stdout.splitlines()) == 3
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [10, 20, 30]
    for row in rows:
        assert float(row["loss"]) == pytest.approx(told(said)[int(row["step"])], abs=1e-6)
        assert (row["run"], row["corpus"], row["split"]) == ("tiny", "small", "val")
        assert (int(row["context"]), int(row["stride"])) == (CONTEXT, CONTEXT)
        assert int(row["tokens"]) > 0
        assert float(row["bits_per_byte"]) > 0


def test_a_broken_checkpoint_among_all_is_skipped_aloud(trained, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "copy")
    shutil.copytree(trained[0].root, lab.root)
    weights = lab.checkpoints / "tiny" / "step_000020" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    (lab.checkpoints / "tiny" / "step_000010" / "manifest.json").unlink()
    result = run(lab, "tiny", "--all", "--csv", str(tmp_path / "r.csv"))
    assert result.exit_code == 1
    assert result.stderr.count("skipped a broken checkpoint") == 2
    assert [line.split(",")[1] for line in (tmp_path / "r.csv").read_text().splitlines()] == [
        "step",
        "30",
    ]


def test_bad_input_is_refused_before_anything_is_computed(trained, tmp_path: Path) -> None:
    lab, _ = trained
    for arguments, kind, words in (
        (["tiny", "--split", "vall"], InputError, "vall"),
        (["tiny", "--corpus", "smal"], CorpusError, "smal"),
        (["tiny", "--context", "17"], InputError, f"context_length is {CONTEXT}"),
        (["tiny", "--csv", str(tmp_path / "no" / "x.csv")], InputError, "cannot be written"),
        (["absent"], CheckpointError, "absent"),
        (["absent", "--all"], CheckpointError, "absent"),
        (["tiny", "--precision", "float31"], InputError, "float31"),
    ):
        with pytest.raises(kind, match=words):
            run(lab, *arguments)
    assert not list(tmp_path.iterdir())


def test_another_text_is_not_passed_off_as_held_out(trained, tmp_path: Path) -> None:
    from engine.corpora import add

    lab, _ = trained
    source = tmp_path / "more.txt"
    source.write_text("the cat sat on the mat.\n" * 40)
    add(lab, "more", [source])
    assert "on more (all)" in run(lab, "tiny", "--corpus", "more").stdout
    result = run(lab, "tiny", "--corpus", "more", "--split", "val")
    assert "not the text of the run's training" in result.stderr
