"""`tui-lab attach` chooses the run, or says which ones there are. The app itself: test_attached."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import InputError
from engine.lab import Lab
from engine.runs import list_runs
from tests.tui_lab.cli.processes import tui_lab
from tests.tui_lab.labs import make_run
from tui_lab.cli.attach import newest_live


@pytest.fixture
def no_shipped_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("engine.lab.builtin_dir", lambda kind: tmp_path / "shipped" / kind)


def test_without_a_name_it_is_the_newest_live_run(lab: Lab, no_shipped_run: None) -> None:
    make_run(lab, "older", end="running", hours_ago=3.0)
    make_run(lab, "newer", end="running", hours_ago=2.0)
    make_run(lab, "newest-ended", hours_ago=1.0)
    assert newest_live(list_runs(lab)).name == "newer"


def test_with_none_alive_it_says_what_is_there(lab: Lab, no_shipped_run: None) -> None:
    make_run(lab, "done")
    make_run(lab, "gone", end="crashed")
    with pytest.raises(InputError) as refused:
        newest_live(list_runs(lab))
    assert "done (finished)" in refused.value.hint and "gone (crashed)" in refused.value.hint
    assert "tui-lab train" in refused.value.hint
    with pytest.raises(InputError) as refused:
        newest_live([])
    assert refused.value.hint == "start one: tui-lab train"


@pytest.mark.parametrize(
    ("arguments", "title", "hint"),
    [
        (["donne"], "unknown run 'donne'", "did you mean 'done'?"),
        (["done"], "the app needs a terminal", "tui-lab train"),
        (["../done"], "../done", ""),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(lab: Lab, arguments, title: str, hint: str) -> None:
    make_run(lab, "done")
    done = tui_lab(lab.root, "attach", *arguments)
    assert done.returncode == 2 and done.stdout == ""
    assert title in done.stderr and hint in done.stderr and "Traceback" not in done.stderr
