"""`tui-lab train` as scripts meet it: streams, exit codes, signals, and refusals in one line."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine import events
from engine.batch_size import Attempt, Found
from engine.checkpoints import list_checkpoints, verify
from engine.config import Config
from engine.errors import ConfigError, InputError
from engine.lab import Lab
from tests.tui_lab.cli.processes import TINY, command, environment, tui_lab
from tui_lab.cli import app


def test_json_is_one_object_a_line_with_the_metric_names(small_lab: Lab) -> None:
    done = tui_lab(small_lab.root, "train", *TINY, "--max-steps", "12", "--json", "--lr", "1e-2")
    assert done.returncode == 0 and done.stderr == ""
    records = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [record for record in records if "event" not in record]
    assert [step["step"] for step in steps] == list(range(1, 13))
    names = {"step", "tokens", "loss", "lr", "grad_norm", "tokens_per_second", "memory_bytes"}
    assert names | {"time", "mfu"} <= set(steps[0])
    assert max(step["lr"] for step in steps) <= 1e-2
    assert records[-1]["event"] == "finished" and records[-1]["reason"] == "completed"


def test_piped_output_is_plain_lines_and_ends_in_a_sample(small_lab: Lab) -> None:
    done = tui_lab(small_lab.root, "train", *TINY, "--max-steps", "10")
    assert done.returncode == 0 and "\x1b" not in done.stdout and "\r" not in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.startswith("step 10/10  loss ") for line in lines)
    assert any("validation loss" in line for line in lines)
    assert "sample at step 10:" in lines
    assert "completed at step 10" in lines[-2] and "tui-lab generate micro-small" in lines[-1]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_saves_and_a_resumed_run_finishes(small_lab: Lab, number: int, code: int) -> None:
    process = subprocess.Popen(
        command(small_lab.root, "train", *TINY, "--max-steps", "100000", "--json"),
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("step", 0) >= 20:
            process.send_signal(number)
            break
    rest = process.stdout.read().splitlines()
    assert process.wait(30) == code
    finished = json.loads(rest[-1])
    assert finished["event"] == "finished" and finished["reason"] == signal.Signals(number).name
    (saved,) = list_checkpoints(small_lab.checkpoints / "micro-small")
    assert saved.step == finished["step"] and verify(saved.path) == []
    again = tui_lab(
        small_lab.root, "train", "--resume", "micro-small", "--max-steps",
        str(finished["step"] + 5), "--json",
    )  # fmt: skip
    steps = [json.loads(line) for line in again.stdout.splitlines()]
    numbers = [record["step"] for record in steps if "event" not in record]
    assert again.returncode == 0
    assert numbers == list(range(finished["step"] + 1, finished["step"] + 6))


REFUSALS = {
    "preset": (["--config", "mikro"], "unknown preset 'mikro'", "did you mean 'micro'"),
    "corpus": (["--corpus", "smalll"], "smalll", "did you mean 'small'"),
    "key": (["--set", "model.n_heads=2"], "model.n_heads", "did you mean 'model.n_head'"),
    "value": (["--lr", "-1"], "optimizer.lr = -1", "learning rate"),
    "device": (["--device", "cuda"], "cuda", "cpu"),
    "resume": (["--resume", "nothing"], "nothing", ""),
    "file": (["--config", "absent.toml"], "absent.toml", ""),
    "window": (["--corpus", "small", "--set", "model.context_length=100000"], "100000", "longest"),
    "name": (["--name", "../out", "--corpus", "small"], "../out", ""),
    "fetch": (["--corpus", "verdict"], "verdict", "corpus fetch verdict"),
}


@pytest.mark.parametrize(("arguments", "title", "hint"), REFUSALS.values(), ids=REFUSALS)
def test_bad_input_is_one_clear_line_exit_2_and_nothing_written(
    small_lab: Lab, arguments: list[str], title: str, hint: str
) -> None:
    done = tui_lab(small_lab.root, "train", *arguments)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert lines[0].startswith("error: ") and title in lines[0]
    assert hint in done.stderr and len(lines) <= 2 and "Traceback" not in done.stderr
    assert list(small_lab.checkpoints.iterdir()) == []


def test_debug_shows_the_traceback(small_lab: Lab) -> None:
    done = tui_lab(small_lab.root, "train", "--config", "mikro", "--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_a_lab_that_is_not_there_is_refused(tmp_path: Path) -> None:
    done = tui_lab(tmp_path / "absent", "runs")
    assert done.returncode == 2 and "tui-lab init" in done.stderr


def test_a_changed_configuration_is_shown_and_confirmed_before_a_run_goes_on(
    small_lab: Lab,
) -> None:
    """Flags are their own confirmation where nobody can be asked; an edited file needs --yes."""
    assert tui_lab(small_lab.root, "train", *TINY, "--max-steps", "5").returncode == 0
    resume = ("train", "--resume", "micro-small", "--max-steps")
    flags = tui_lab(small_lab.root, *resume, "8", "--lr", "5e-4")
    assert flags.returncode == 0
    shown = flags.stderr.splitlines()
    assert "goes on from step 5 with another setting" in shown[0]
    assert shown[1:] == ["  optimizer.lr: 0.002 → 0.0005", "  train.max_steps: 5 → 8"]

    path = small_lab.checkpoints / "micro-small" / "config.toml"
    path.write_text(path.read_text().replace("clip = 1.0", "clip = 0.25"))
    refused = tui_lab(small_lab.root, *resume, "12")
    assert refused.returncode == 2 and "optimizer.clip: 1 → 0.25" in refused.stderr
    assert "put config.toml back (optimizer.clip)" in refused.stderr
    taken = tui_lab(small_lab.root, *resume, "12", "--yes", "--on-nan", "stop", "--json")
    assert taken.returncode == 0
    assert json.loads(taken.stdout.splitlines()[-1])["step"] == 12
    assert 'on_nan = "stop"' in path.read_text() and "clip = 0.25" in path.read_text()


FOUND = Found(24, 2, "memory", (Attempt(24, 10**9, 9 * 10**8, 0.5, True),))


def test_the_batch_that_was_found_is_trained_and_told(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.batch_size.find_batch_size", lambda lab, config, trying: FOUND)
    seen: list[Config] = []

    def run_training(lab: Lab, config: Config, **options: object) -> events.Finished:
        seen.append(config)
        return events.Finished(run="r", step=1, tokens=1, reason="completed", seconds=1.0)

    monkeypatch.setattr("engine.session.run_training", run_training)
    arguments = ["--lab", str(small_lab.root), "train", *TINY, "--batch-size", "auto"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (seen[0].train.batch_size, seen[0].train.accumulate) == (24, 2)
    assert "24 windows: 900.0 MB taken, 1.0 GB expected, 0.5 s a step" in done.stderr
    assert "batch size 24 × 2, limited by: memory" in done.stderr


@pytest.mark.parametrize("flag", [["--batch-size", "auto"], ["--batch-size=auto"]])
def test_a_detached_run_is_given_the_number(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch, flag: list[str]
) -> None:
    monkeypatch.setattr("engine.batch_size.find_batch_size", lambda lab, config, trying: FOUND)
    started: list[list[str]] = []
    monkeypatch.setattr(
        "tui_lab.cli.detach.start", lambda arguments, as_json: started.append(arguments)
    )
    arguments = ["--lab", str(small_lab.root), "train", *TINY, *flag, "--detach"]
    monkeypatch.setattr("sys.argv", ["tui-lab", *arguments])
    assert CliRunner().invoke(app, arguments).exit_code == 0
    (given,) = started
    assert "auto" not in " ".join(given) and "24" in " ".join(given)
    assert given[-2:] == ["--set", "train.accumulate=2"]


def test_a_batch_is_a_number_or_auto_and_a_resumed_run_keeps_its_own(small_lab: Lab) -> None:
    resumed = CliRunner().invoke(
        app, ["--lab", str(small_lab.root), "train", "--resume", "r", "--batch-size", "auto"]
    )
    assert isinstance(resumed.exception, InputError)
    assert "auto is for new runs" in resumed.exception.title
    wrong = CliRunner().invoke(
        app, ["--lab", str(small_lab.root), "train", *TINY, "--batch-size", "large"]
    )
    assert isinstance(wrong.exception, ConfigError)
    assert "train.batch_size" in wrong.exception.title
