"""A run's history is read whole or as it grows, whatever state the file is in."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from engine.metrics import MAX_LINE, JsonlTail, MetricsTail, read_events, read_metrics


def line(step: int, **more: object) -> str:
    return json.dumps({"step": step, "loss": 10.0 - step / 100, "lr": 1e-3, **more}) + "\n"


def write(run: Path, text: str | bytes) -> None:
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(text.encode() if isinstance(text, str) else text)


def test_columns(tmp_path: Path) -> None:
    write(tmp_path, line(1) + line(2, val_loss=3.0, new_field=[1], mfu=None))
    columns = read_metrics(tmp_path)
    assert columns["step"].tolist() == [1, 2]
    assert columns["loss"].tolist() == [9.99, 9.98]
    assert np.isnan(columns["val_loss"][0])
    assert columns["val_loss"][1] == 3.0
    assert np.isnan(columns["mfu"]).all()


def test_no_file_is_no_rows(tmp_path: Path) -> None:
    assert len(read_metrics(tmp_path)["step"]) == 0


def test_a_torn_last_line_is_not_yet_there(tmp_path: Path) -> None:
    """A reader that comes while a line is being written sees it the next time, once."""
    tail = MetricsTail(tmp_path)
    assert tail.poll() == 0
    whole = line(1) + line(2)
    write(tmp_path, whole[:-7])
    assert (tail.poll(), len(tail.metrics)) == (1, 1)
    assert (tail.poll(), len(tail.metrics)) == (0, 1)
    write(tmp_path, whole[-7:])
    assert (tail.poll(), len(tail.metrics)) == (1, 2)


def test_what_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    """Garbage between good lines costs those lines only."""
    bad = [
        b"nonsense\n", b"[1]\n", b"12\n", b"\n", b'{"step": "4"}\n', b'{"step": true}\n',
        b'{"step": -1}\n', b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"step": 1e400}\n',
        b'{"step": 3, "loss": 1' + b"0" * 5000 + b"}\n", b"1],[2\n", b'{"a":1},{"step":9}\n',
        b'{"resumed": "x"}\n', b'{"step": 99999999999999999999}\n',
    ]  # fmt: skip
    write(tmp_path, line(1))
    for text in bad:
        write(tmp_path, text)
    write(tmp_path, line(20, loss=None, lr="x") + line(21, loss=float("nan")))
    columns = read_metrics(tmp_path)
    assert columns["step"].tolist() == [1, 20, 21]
    assert np.isnan(columns["loss"][1:]).all()
    assert columns["lr"][2] == 1e-3


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    write(tmp_path, line(1) + "x" * (3 * MAX_LINE) + "\n" + line(2))
    tail = JsonlTail(tmp_path / "metrics.jsonl")
    assert [record["step"] for record in tail.poll()] == [1, 2]


def test_an_abandoned_future_is_dropped(tmp_path: Path) -> None:
    """Killed at 500, resumed at 300 with other intervals: no row after 300 is the old one's."""
    for step in range(1, 501):
        write(tmp_path, line(step, **({"val_loss": 5.0} if step % 100 == 0 else {})))
    write(tmp_path, json.dumps({"resumed": 300}) + "\n")
    write(tmp_path, line(310, loss=1.0) + line(320, loss=2.0))
    columns = read_metrics(tmp_path)
    assert columns["step"].tolist() == [*range(1, 301), 310, 320]
    assert columns["loss"][-2:].tolist() == [1.0, 2.0]
    assert columns["val_loss"][299] == 5.0
    assert np.isnan(columns["val_loss"][300:]).all()


def test_a_step_that_is_done_again_counts_once(tmp_path: Path) -> None:
    """Without the mark of a resume (an older file): a lower step rewinds by itself."""
    write(tmp_path, line(1) + line(2) + line(3) + line(2, loss=7.0))
    columns = read_metrics(tmp_path)
    assert columns["step"].tolist() == [1, 2]
    assert columns["loss"][1] == 7.0


def test_an_evaluation_joins_its_step(tmp_path: Path) -> None:
    write(tmp_path, line(1) + line(2) + json.dumps({"step": 2, "val_loss": 4.0}) + "\n" + line(3))
    columns = read_metrics(tmp_path)
    assert columns["step"].tolist() == [1, 2, 3]
    assert columns["loss"].tolist() == [9.99, 9.98, 9.97]
    assert columns["val_loss"][1] == 4.0


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    write(tmp_path, line(1) + line(2))
    tail = MetricsTail(tmp_path)
    tail.poll()
    (tmp_path / "metrics.jsonl").write_text(line(7))
    tail.poll()
    assert tail.metrics.column("step").tolist() == [7]


def test_a_long_history_is_read_quickly(tmp_path: Path) -> None:
    """100 000 lines, a bad one among them, take at most four times what parsing each as JSON does,
    whose time alone tells how fast the machine is: 1.2 to 2.2 were measured, and 3 once beside
    other tests, hence the best of three."""
    full = {"tokens": 12345, "grad_norm": 0.5, "tokens_per_second": 1e4, "time": 1.7e9, "mfu": 0.3}
    text = "".join(line(step, **full) for step in range(100_000))
    write(tmp_path, text + "bad\n")
    plain, read = [], []
    for _ in range(3):
        started = time.thread_time()
        for one in text.splitlines():
            json.loads(one)
        plain.append(time.thread_time() - started)
        started = time.thread_time()
        columns = read_metrics(tmp_path)
        read.append(time.thread_time() - started)
        assert len(columns["step"]) == 100_000
    assert min(read) < 4 * min(plain)


def test_events_by_kind(tmp_path: Path) -> None:
    lines = [{"event": "alert", "title": "a"}, {"event": "eval_done"}, {"event": 3}, {"step": 1}]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(item) + "\n" for item in lines))
    assert [event["event"] for event in read_events(tmp_path)] == ["alert", "eval_done"]
    assert read_events(tmp_path, ["alert"]) == [lines[0]]
