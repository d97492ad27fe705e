"""`train --detach`: the run is on its own once the command returns, or the command says why not."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine import control, spool
from engine.errors import EngineError
from engine.lab import Lab
from engine.status import judged, read_status
from tests.tui_lab.cli.processes import TINY, command, environment, tui_lab
from tests.tui_lab.terminals import Terminal
from tui_lab.cli import detach

ENDLESS = ("--max-steps", "1000000", "--name", "bg", "--set", "sample.every=0")


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def stop(run: Path) -> None:
    """As `attach` does it; and the process is gone afterwards."""
    pid = read_status(run).pid
    spool.send(run, control.Stop())
    until(lambda: read_status(run).state == "stopped")
    until(lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))


def _is_zombie(pid: int) -> bool:
    """In a container nobody may reap what lost its parent."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_detached_run_is_on_its_own_and_can_be_stopped_and_resumed(small_lab: Lab) -> None:
    run = small_lab.checkpoints / "bg"
    # The outputs are pipes: this returns only because the run holds neither of them.
    done = tui_lab(small_lab.root, "train", *TINY, *ENDLESS, "--detach")
    assert done.returncode == 0, done.stderr
    status = read_status(run)
    assert f"run bg has started in the background: process {status.pid} on" in done.stdout
    assert "tui-lab attach bg" in done.stdout and "loading torch" in done.stderr
    try:
        assert os.getsid(status.pid) == status.pid != os.getsid(0)
        at = {number: os.path.realpath(f"/proc/{status.pid}/fd/{number}") for number in (0, 1, 2)}
        output = os.path.realpath(run / detach.OUTPUT_FILE)
        assert at == {0: os.devnull, 1: output, 2: output}
        assert Path(output).stat().st_mode & 0o777 == 0o600
        until(lambda: read_status(run).step > 20)
        busy = tui_lab(small_lab.root, "train", "--resume", "bg", "--detach")
        assert busy.returncode == 2 and f"in use by process {status.pid}" in busy.stderr
    finally:
        stop(run)
    step = read_status(run).step
    again = tui_lab(
        small_lab.root, "train", "--resume", "bg", "--lr", "0.002", "--detach", "--json"
    )
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["run"], told["path"], told["step"]) == ("bg", str(run), step)
    until(lambda: read_status(run).step > step)
    assert read_status(run).pid == told["pid"]
    stop(run)


def test_a_refusal_is_the_usual_one(small_lab: Lab) -> None:
    """Here what only the child can see, once it has the corpus before it."""
    long = ("--set", "model.context_length=100000")
    done = tui_lab(small_lab.root, "train", *TINY, *ENDLESS, *long, "--detach")
    assert done.returncode == 2 and done.stdout == ""
    assert "error: " in done.stderr and "100000" in done.stderr and "hint: " in done.stderr
    assert "Traceback" not in done.stderr
    assert list(small_lab.checkpoints.iterdir()) == []


def test_a_closed_terminal_does_not_reach_a_detached_run(small_lab: Lab) -> None:
    run = small_lab.checkpoints / "bg"
    arguments = command(small_lab.root, "train", *TINY, *ENDLESS, "--detach")[1:]
    terminal = Terminal(*arguments, **environment())
    try:
        terminal.until(terminal.ended, 60)
        assert terminal.code == 0 and b"tui-lab attach bg" in terminal.written
        terminal.hang_up()
    finally:
        terminal.close()
    before = read_status(run).step
    until(lambda: read_status(run).step > before + 20)
    assert judged(read_status(run)) == "running"
    stop(run)


def stand_in(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    monkeypatch.setattr(detach, "_this_program", lambda: [sys.executable, "-c", code])


def test_a_process_that_dies_early_is_told_with_its_last_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stand_in(monkeypatch, "import os; os.write(2, b'no such library'); os.kill(os.getpid(), 9)")
    with pytest.raises(EngineError, match=r"ended before it began \(signal 9\)") as caught:
        detach.start([])
    assert caught.value.hint == "no such library" and caught.value.exit_code == 137


def test_an_interrupt_while_it_prepares_ends_the_child(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "pid"
    code = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(60)"
    )
    stand_in(monkeypatch, code)

    def interrupt() -> None:
        until(lambda: mark.exists() and mark.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        detach.start([])
    pid = int(mark.read_text())
    assert not Path(f"/proc/{pid}").exists()


def test_a_run_goes_on_when_nobody_waits_for_its_start_any_more(tmp_path: Path) -> None:
    """The terminal was closed while the corpus was prepared: the pipe has no reader."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    reporter = detach.Reporter(write_end)
    reporter.tell({"what": "tokenizing"})
    reporter.close()
