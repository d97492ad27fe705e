"""A run is steered through files: in order, once, by whoever may write there, and by nobody's
accident or malice ended."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine import control, events, spool
from engine.errors import InputError
from engine.generation.params import SamplingParams
from engine.metrics import read_events
from engine.spool import Answers, Spool
from engine.status import Status, own_status, read_status, write_status
from tests.tiny_run import make_tiny_run

COMMANDS = [
    control.Pause(),
    control.Resume(),
    control.Step(3),
    control.Stop(save=False, reason="enough", urgent=True),
    control.SaveNow(),
    control.EvalNow(),
    control.SetLearningRate(3e-4),
    control.SetLearningRate(None),
    control.Sample("naïve\n", SamplingParams(temperature=1, stop=("a", "b"), seed=7), "spool-1"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "LOOK_SECONDS", 0.01)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run that this very process trains, as far as its status says."""
    write_status(tmp_path, own_status(), durable=False)
    return tmp_path


class Owner:
    """The side that trains, without a trainer."""

    def __init__(self, run: Path) -> None:
        self.inbox = control.Inbox()
        self.refused: list[str] = []
        self.spool = Spool(run, self.inbox, self.refused.append)
        self.taken: list[tuple[control.Command, str]] = []

    def until(self, condition: Callable[[], object]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, (self.taken, self.refused)
            time.sleep(0.01)
            self.taken += self.inbox.take()


@pytest.fixture
def owner(run: Path) -> Iterator[Owner]:
    owner = Owner(run)
    owner.spool.start()
    yield owner
    owner.spool.close()


def token(request: str, index: int = 0) -> events.TokenGenerated:
    alternatives = (("a", 0.5), ("b", 0.25))
    return events.TokenGenerated(
        request=request, index=index, token=1, text="a", probability=0.5, alternatives=alternatives
    )


def done(request: str) -> events.SampleDone:
    return events.SampleDone(
        step=1, prompt="p", text="a", tokens=1, seconds=0.1, request=request, reason="length"
    )


def inbox(run: Path) -> Path:
    return run / "control" / "inbox"


def test_every_command_arrives_in_order_as_it_was_sent(run: Path, owner: Owner) -> None:
    for command in COMMANDS:
        spool.send(run, command, "ada@lab")
    owner.until(lambda: len(owner.taken) == len(COMMANDS))
    assert owner.taken == [(command, "ada@lab") for command in COMMANDS]
    spool.send(run, control.CancelSample("spool-1"))
    owner.until(lambda: owner.inbox.is_cancelled("spool-1"))
    assert list(inbox(run).iterdir()) == [] and owner.refused == []


def test_many_senders_lose_nothing_and_double_nothing(run: Path, owner: Owner) -> None:
    def sender(number: int) -> None:
        for count in range(1, 31):
            spool.send(run, control.Step(count), f"sender{number}")

    threads = [threading.Thread(target=sender, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    owner.until(lambda: len(owner.taken) >= 120)
    time.sleep(0.1)  # were one taken twice, it would come now
    owner.taken += owner.inbox.take()
    for number in range(4):
        counts = [c.count for c, who in owner.taken if who == f"sender{number}"]
        assert counts == list(range(1, 31))


def test_order_survives_a_clock_that_is_put_back(
    run: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner.spool, "_look", lambda: None)  # both wait before one is taken
    spool.send(run, control.Pause())
    yesterday = time.time_ns() - 86_400 * 10**9
    monkeypatch.setattr(spool.time, "time_ns", lambda: yesterday)
    spool.send(run, control.Resume())
    monkeypatch.delattr(owner.spool, "_look")
    owner.until(lambda: len(owner.taken) == 2)
    assert [command for command, _ in owner.taken] == [control.Pause(), control.Resume()]


def test_a_file_has_the_senders_name_and_nobody_else_may_read_it(run: Path) -> None:
    Owner(run)  # never started: what is sent stays
    spool.send(run, control.Pause())
    (path,) = inbox(run).iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["who"] == spool.own_name()
    assert "@" in spool.own_name()


def test_what_was_meant_for_an_earlier_process_is_cleared(run: Path) -> None:
    Owner(run)
    spool.send(run, control.Stop())
    answers = run / "control" / "answers"
    (answers / "old.jsonl").write_text("{}\n")
    (inbox(run) / ".half.tmp").write_text("{")
    again = Owner(run)
    assert list(inbox(run).iterdir()) == list(answers.iterdir()) == []
    again.spool.start()
    again.spool.close()
    assert again.inbox.take() == []


def plant(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text) and None


def link_away(path: Path) -> None:
    outside = path.parents[2] / "outside.json"
    outside.write_text(json.dumps({"command": "Stop", "who": "x"}))
    path.symlink_to(outside)


def strangers(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_text(json.dumps({"command": "Stop", "who": "x"}))
    os.chown(path, 12345, -1)


def folder_with_content(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


HOSTILE = {
    "empty": (plant(""), "not JSON"),
    "half": (plant('{"command": "St'), "not JSON"),
    "deep": (plant("[" * 100_000), "not JSON"),
    "list": (plant("[1]"), "not a JSON object"),
    "pickle": (lambda path: path.write_bytes(b"\x80\x04cos\nsystem\n."), "not JSON"),
    "large": (plant(" " * (1 << 20) + "{}"), "larger than"),
    "link": (link_away, "symbolic link"),
    "foreign": (strangers, "another user"),
    "pipe": (os.mkfifo, "not a plain file"),
    "folder": (folder_with_content, "not a plain file"),
    "nobody": (plant('{"command": "Stop"}'), "who sent it"),
    "unknown": (plant('{"who": "x", "command": "Explode"}'), "unknown command"),
    "no command": (plant('{"who": "x", "command": ["Stop"]}'), "unknown command"),
    "field": (plant('{"who": "x", "command": "Pause", "for": 3}'), "no field"),
    "type": (plant('{"who": "x", "command": "Step", "count": "3"}'), "count must be"),
    "bool": (plant('{"who": "x", "command": "Step", "count": true}'), "count must be"),
    "huge": (
        plant('{"who": "x", "command": "Step", "count": 1' + "0" * 400 + "}"),
        "count must be",
    ),
    "nan": (plant('{"who": "x", "command": "SetLearningRate", "lr": NaN}'), "lr must be"),
    "rate": (plant('{"who": "x", "command": "SetLearningRate", "lr": 1e9}'), "lr must be"),
    "no rate": (plant('{"who": "x", "command": "SetLearningRate"}'), "lacks a field: lr"),
    "prompt": (
        plant(json.dumps({"who": "x", "command": "Sample", "prompt": "a" * 100_001})),
        "prompt must be",
    ),
    "surrogate": (plant('{"who": "x", "command": "Sample", "prompt": "\\ud800"}'), "prompt must"),
    "request": (
        plant('{"who": "x", "command": "Sample", "prompt": "p", "request": "../../status"}'),
        "request must be",
    ),
    "params": (
        plant('{"who": "x", "command": "Sample", "prompt": "p", "params": {"top_k": 0.5}}'),
        "params.top_k must be",
    ),
    "range": (
        plant('{"who": "x", "command": "Sample", "prompt": "p", "params": {"top_p": 7}}'),
        "top_p = 7",
    ),
    "stop": (
        plant('{"who": "x", "command": "Sample", "prompt": "p", "params": {"stop": [1]}}'),
        "params.stop must be",
    ),
}


@pytest.mark.parametrize(("make", "words"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_command_is_refused_removed_and_said(
    run: Path, make: Callable[[Path], None], words: str
) -> None:
    """And what comes after it is heard: the spool's thread survives everything."""
    owner = Owner(run)
    make(inbox(run) / "00000000000000000001-1-1.json")
    spool.send(run, control.Pause())
    owner.spool.start()
    owner.until(lambda: owner.taken)
    assert [command for command, _ in owner.taken] == [control.Pause()]
    assert len(owner.refused) == 1 and words in owner.refused[0]
    assert list(inbox(run).iterdir()) == []
    owner.spool.close()


def test_a_command_that_cannot_be_deleted_is_taken_once(
    run: Path, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(entry: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(spool, "_remove", refuse)
    spool.send(run, control.Step(5))
    owner.until(lambda: owner.taken)
    time.sleep(0.1)
    assert owner.inbox.take() == []


def test_a_planted_link_in_the_spools_place_is_not_followed(run: Path, tmp_path: Path) -> None:
    """Clearing must not empty a folder elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious.json").write_text("{}")
    (run / "control").mkdir()
    inbox(run).symlink_to(elsewhere)
    with pytest.raises(InputError, match="cannot write"):
        spool.send(run, control.Pause())
    owner = Owner(run)
    assert (elsewhere / "precious.json").exists() and not inbox(run).is_symlink()
    owner.spool.start()
    spool.send(run, control.Pause())
    owner.until(lambda: owner.taken)
    owner.spool.close()


def test_a_spool_that_cannot_be_made_is_said_and_stops_nothing(run: Path) -> None:
    owner = Owner(run / "status.json")  # no folder can be made in a file
    owner.spool.start()
    assert len(owner.refused) == 1 and "cannot steer" in owner.refused[0]
    owner.spool(token("x"))
    owner.spool.close()


def test_nothing_is_sent_to_a_run_that_is_not_alive(run: Path) -> None:
    Owner(run)
    for state in ("finished", "stopped", "failed"):
        write_status(run, Status(state), durable=False)
        with pytest.raises(InputError, match=f"is not training: {state}") as caught:
            spool.send(run, control.Pause())
        assert f"tui-lab train --resume {run.name}" in caught.value.hint
    crashed = own_status()
    crashed.process = "another/1"
    write_status(run, crashed, durable=False)
    with pytest.raises(InputError, match="is not training: crashed"):
        spool.send(run, control.Pause())
    assert list(inbox(run).iterdir()) == []


def test_a_command_that_would_be_refused_is_not_sent(run: Path, owner: Owner) -> None:
    with pytest.raises(InputError, match="lr must be"):
        spool.send(run, control.SetLearningRate(float("nan")))
    with pytest.raises(InputError, match="request must be"):
        spool.send(run, control.Sample("p", request="../x"))


def test_answers_reach_who_asked_and_are_taken_away(run: Path, owner: Owner) -> None:
    request = spool.new_request()
    spool.send(run, control.Sample("p", request=request))
    owner.until(lambda: owner.taken)
    answers = Answers(run, request)
    assert answers.poll() == []
    said = [token(request), token(request, 1), token("console-1"), done("console-1"), done(request)]
    for event in said:
        owner.spool(event)
    found: list[events.Event] = []
    owner.until(lambda: found.extend(answers.poll()) or len(found) == 3)
    assert found == [said[0], said[1], said[4]]
    folder = run / "control" / "answers"
    (path,) = folder.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    answers.close()
    assert list(folder.iterdir()) == []
    owner.spool(token(request, 2))  # of a request that is done: to nobody
    time.sleep(0.1)
    assert list(folder.iterdir()) == []


def test_an_answer_does_not_come_back_once_its_reader_has_gone(run: Path, owner: Owner) -> None:
    request = spool.new_request()
    spool.send(run, control.Sample("p", request=request))
    owner.until(lambda: owner.taken)
    answers = Answers(run, request)
    owner.spool(token(request))
    owner.until(answers.poll)
    answers.close()
    owner.spool(token(request, 1))
    owner.spool(done(request))
    time.sleep(0.1)
    assert list((run / "control" / "answers").iterdir()) == []


def test_answers_believe_no_file(run: Path) -> None:
    with pytest.raises(InputError, match="cannot be a request"):
        Answers(run, "../status")
    Owner(run)
    good = token("r")
    lines = [
        "nonsense",
        '{"event": "token_generated", "request": "r"}',
        '{"event": "alert", "level": "error", "title": "x", "request": "r", "time": 1}',
        events.to_json(token("another")),
        events.to_json(good).replace("[[", '[["x", "y", "z"], ['),
        events.to_json(good),
    ]
    (run / "control" / "answers" / "r.jsonl").write_text("\n".join(lines) + "\n")
    assert Answers(run, "r").poll() == [good]


def test_a_real_run_is_steered_from_outside_and_records_who_asked(tmp_path: Path) -> None:
    run = tmp_path / "checkpoints" / "steered"
    tiny = threading.Thread(
        target=make_tiny_run, args=(tmp_path, "steered"), kwargs={"train__max_steps": 1_000_000}
    )
    tiny.start()
    try:
        wait_for(lambda: read_status(run).step > 0 or None)
        spool.send(run, control.Pause(), "ada@there")
        wait_for(lambda: read_status(run).state == "paused" or None)
        assert read_status(run).phase == "paused"
        request = spool.new_request()
        spool.send(run, control.Sample("the ", SamplingParams(max_tokens=8), request), "ada@there")
        answers, found = Answers(run, request), []
        wait_for(lambda: found.extend(answers.poll()) or (found and found[-1].name != "token"))
        wait_for(lambda: isinstance(found[-1], events.SampleDone) or found.extend(answers.poll()))
        assert "".join(event.text for event in found[:-1]) == found[-1].text
        answers.close()
        spool.send(run, control.SetLearningRate(2e-3), "bob@here")
        spool.send(run, control.Resume(), "bob@here")
        (inbox(run) / "0-bad.json").write_text("{")
        wait_for(lambda: read_status(run).state == "running" or None)
    finally:
        spool.send(run, control.Stop(reason="enough"), "ada@there")
        tiny.join(20)
    assert not tiny.is_alive()
    status = read_status(run)
    assert (status.state, status.reason) == ("stopped", "enough")
    applied = read_events(run, ["control_applied"])
    asked = [(record["command"], record["who"]) for record in applied]
    wanted = [
        ("Pause", "ada@there"),
        ("SetLearningRate", "bob@here"),
        ("Resume", "bob@here"),
        ("Stop", "ada@there"),
    ]
    assert [pair for pair in asked if pair[0] != "Sample"] == wanted
    alerts = [record["title"] for record in read_events(run, ["alert"])]
    assert alerts == ["command '0-bad.json' was refused: it is not JSON"]


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
