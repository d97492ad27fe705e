"""A run's folder belongs to one process, is never overwritten, and tells others how the run is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.checkpoints import delete_run
from engine.config import Config
from engine.control import Inbox
from engine.errors import CheckpointError, InputError
from engine.lab import SHIPPED_RUN, Lab, builtin_dir
from engine.runs import RunBusy, RunFolder, compare_configs, find_run, list_runs
from engine.session import resume_training
from engine.status import Status, own_status, read_status, write_status

CONFIG = Config().with_values({"train.max_steps": 100, "optimizer.lr": 2e-3})


def create(lab: Lab, name: str = "first") -> Path:
    with RunFolder.create(lab, name, CONFIG, {"preset": "micro", "seed": 1}) as folder:
        return folder.path


def test_what_is_made_is_what_is_read(lab: Lab) -> None:
    path = create(lab)
    assert path.stat().st_mode & 0o777 == 0o700
    with RunFolder.open(lab, "first") as folder:
        assert folder.config() == CONFIG
        assert folder.identity["preset"] == "micro"
        assert folder.identity["name"] == "first"
    summary = find_run(lab, "first")
    assert (summary.preset, summary.corpus, summary.own) == ("micro", "python-docs", True)
    assert summary.config() == CONFIG
    assert abs(summary.created - time.time()) < 60
    assert summary.bytes > 100


def test_a_name_in_use_gets_a_number(lab: Lab) -> None:
    """Also when eight start at the same moment: every one gets a folder of its own."""
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: create(lab), range(8)))
    assert sorted(path.name for path in paths) == ["first", *(f"first-{n}" for n in range(2, 9))]
    long = "ü" * 50
    assert [len(create(lab, long).name.encode()) <= 100 for _ in range(2)] == [True, True]


@pytest.mark.parametrize("name", ["../out", "-x", ".hidden", "a\x1b[2J"])
def test_a_bad_name_writes_nothing(lab: Lab, name: str) -> None:
    with pytest.raises(InputError, match="cannot be a run's name"):
        create(lab, name)
    assert list(lab.checkpoints.iterdir()) == []


def test_a_lab_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(InputError, match="cannot make a run"):
        create(Lab(tmp_path))


def test_the_second_is_told_who_has_the_run(lab: Lab) -> None:
    with RunFolder.create(lab, "first", CONFIG, {}):
        with pytest.raises(RunBusy) as caught:
            RunFolder.open(lab, "first")
        assert f"process {os.getpid()} on " in caught.value.title
        assert time.strftime("since %Y-") in caught.value.title
    RunFolder.open(lab, "first").close()


SLOW_WINNER = """
import fcntl, json, os, socket, sys, time
from engine.status import own_mark
file = open(sys.argv[1], "r+")
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(0.3)
mine = {"host": socket.gethostname(), "pid": os.getpid(), "process": own_mark()}
file.truncate(0)
file.write(json.dumps({**mine, "since": time.time()}))
file.flush()
sys.stdin.read()
"""


@pytest.mark.parametrize("before", ["", "an earlier owner"])
def test_the_loser_of_a_race_is_told_the_winner_who_has_not_written_yet(
    lab: Lab, before: str
) -> None:
    """Nor is an earlier owner named, whose words still stand there."""
    path = create(lab)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    told = {"host": socket.gethostname(), "pid": gone.pid, "process": "boot/1", "since": 1.0}
    (path / "run.lock").write_text(json.dumps(told) if before else "")
    winner = subprocess.Popen(
        [sys.executable, "-c", SLOW_WINNER, str(path / "run.lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert winner.stdin and winner.stdout
    try:
        winner.stdout.readline()
        with pytest.raises(RunBusy, match=f"process {winner.pid} on ") as caught:
            RunFolder.open(lab, "first")
        assert time.strftime("since %Y-") in caught.value.title
    finally:
        winner.stdin.close()
        winner.wait(10)


HOLDER = """
import os, sys, time
from pathlib import Path
from engine.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
os.write(1, b"child\\n" if os.fork() == 0 else b"owner\\n")
time.sleep(60)
"""


def test_a_killed_owner_holds_nothing(lab: Lab) -> None:
    """The system releases the lock, even while a child that the owner forked lives on."""
    path = create(lab)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    assert {child.stdout.readline(), child.stdout.readline()} == {b"child\n", b"owner\n"}
    try:
        with pytest.raises(RunBusy, match=f"process {child.pid} "):
            RunFolder.open(lab, "first")
        child.kill()
        child.wait()
        RunFolder.open(lab, "first").close()
    finally:
        os.killpg(child.pid, 9)


def test_opening_what_is_not_there(lab: Lab) -> None:
    create(lab)
    with pytest.raises(CheckpointError, match="unknown run 'frist'") as caught:
        RunFolder.open(lab, "frist")
    assert caught.value.hint == "did you mean 'first'?"


def test_states(lab: Lab) -> None:
    """Running while its process lives; crashed when that is gone without a last word."""
    path = create(lab)
    assert find_run(lab, "first").status == "unknown"
    write_status(path, own_status(), durable=False)
    assert find_run(lab, "first").status == "running"
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for changes in ({"pid": gone.pid}, {"process": "another/1"}):
        status = own_status()
        for key, value in changes.items():
            setattr(status, key, value)
        write_status(path, status, durable=False)
        assert find_run(lab, "first").status == "crashed"
    for state in ("finished", "stopped", "failed"):
        write_status(path, Status(state), durable=True)
        assert find_run(lab, "first").status == state


def test_a_run_on_another_machine(lab: Lab) -> None:
    """A shared file system: alive while it writes, not known when it has been silent."""
    path = create(lab)
    status = own_status()
    status.host = "elsewhere"
    write_status(path, status, durable=False)
    assert find_run(lab, "first").status == "running"
    text = (path / "status.json").read_text()
    (path / "status.json").write_text(text.replace(str(status.updated), "1000000000.0"))
    assert find_run(lab, "first").status == "unknown"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "[" * 100_000, '{"state": 3, "step": "x", "loss": [], "pid": -1, "host": {}}'],
    ids=["empty", "half", "a list", "deep", "wrong types"],
)
def test_broken_files_break_no_table(lab: Lab, text: str) -> None:
    """One damaged run must not hide the others."""
    path = create(lab)
    create(lab, "second")
    for name in ("status.json", "run.json"):
        (path / name).write_text(text)
    assert {run.name for run in list_runs(lab) if run.own} == {"first", "second"}
    assert read_status(path) == Status()


def test_links_and_strangers_are_no_runs(lab: Lab, tmp_path: Path) -> None:
    path = create(lab)
    (lab.checkpoints / "link").symlink_to(path)
    (lab.checkpoints / "not-a-run").mkdir()
    (lab.checkpoints / "file").touch()
    assert [run.name for run in list_runs(lab) if run.own] == ["first"]


def test_shipped_runs_are_told_apart(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer's lab shows the ready-made run, and no other run that lies beside it in a
    checkout of the program; the lab's own of the same name hides it."""
    shipped = Lab.init(tmp_path / "shipped")
    create(shipped, SHIPPED_RUN)
    create(shipped, "somebody-elses")
    monkeypatch.setattr("engine.lab.builtin_dir", lambda kind: shipped.root / kind)
    assert [(run.name, run.own) for run in list_runs(lab)] == [(SHIPPED_RUN, False)]
    create(lab, SHIPPED_RUN)
    assert [(run.name, run.own) for run in list_runs(lab)] == [(SHIPPED_RUN, True)]
    assert find_run(shipped, "somebody-elses").own


def test_config_differences() -> None:
    other = CONFIG.with_values({"optimizer.lr": 1e-3, "model.n_layer": 2})
    assert compare_configs(CONFIG, other) == [("model.n_layer", 6, 2), ("optimizer.lr", 2e-3, 1e-3)]
    assert compare_configs(CONFIG, CONFIG) == []


def test_the_shipped_run_is_nobodys_to_delete_or_resume() -> None:
    """Also in a checkout of the program, where it lies among the lab's own runs."""
    checkout = Lab(builtin_dir("checkpoints").parent)
    shipped = find_run(checkout, SHIPPED_RUN)
    assert not shipped.own and shipped.n_checkpoints == 1
    with pytest.raises(CheckpointError, match="ships with tui-lab"):
        delete_run(shipped.path)
    with pytest.raises(InputError, match="cannot be resumed"):
        resume_training(checkout, SHIPPED_RUN, emit=lambda event: None, inbox=Inbox())
    assert shipped.path.is_dir()
