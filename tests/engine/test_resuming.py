"""Going on with a run whose configuration, tokenizer or corpus is another one now."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import control, events
from engine.checkpoints import list_checkpoints
from engine.errors import ConfigError, EngineError, InputError
from engine.lab import Lab
from engine.resuming import describe, open_resumption, preview
from engine.runs import RunBusy
from tests.engine.test_session import Run, tiny_config


@pytest.fixture
def stopped(small_lab: Lab) -> Lab:
    """A lab whose run `a` was stopped and saved at step 3."""
    Run({3: [control.Stop()]}).train(small_lab, tiny_config(), name="a")
    return small_lab


def edit(lab: Lab, before: str, after: str) -> None:
    path = lab.checkpoints / "a" / "config.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


def test_nothing_changed_is_no_difference(stopped: Lab) -> None:
    taken = open_resumption(stopped, "a")
    taken.folder.close()
    assert taken.differences == [] and preview(stopped, "a") == []


def test_flags_and_an_edited_file_are_told_field_by_field(stopped: Lab) -> None:
    edit(stopped, "clip = 1.0", "clip = 0.5")
    assert preview(stopped, "a") == [("optimizer.clip", 1.0, 0.5)]
    taken = open_resumption(stopped, "a", {"train.max_steps": "9"})
    taken.folder.close()
    lines = ["optimizer.clip: 1 → 0.5", "train.max_steps: 8 → 9"]
    assert describe(taken.differences) == lines
    run = Run()
    finished = run.resume(stopped, "a", overrides={"train.max_steps": "9"})
    assert finished.step == 9
    told = [alert.title for alert in run.of(events.Alert)]
    assert told == [f"resumed with {line}" for line in lines]
    assert preview(stopped, "a") == []  # the next resume compares with what was trained last


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("n_embd = 16", "n_embd = 32", "model.n_embd"),
        ("stride = 0", "stride = 3", "data.stride"),
        ('tokenizer = "char"', 'tokenizer = "bytes"', "data.tokenizer"),
    ],
)
def test_what_would_be_another_run_is_refused_by_name(
    stopped: Lab, before: str, after: str, named: str
) -> None:
    edit(stopped, before, after)
    with pytest.raises(ConfigError) as caught:
        Run().resume(stopped, "a")
    assert named in caught.value.title and after.split(" = ")[1].strip('"') in caught.value.title
    open_again_fails_alike = pytest.raises(ConfigError)
    with open_again_fails_alike:  # and not RunBusy: the lock was let go
        open_resumption(stopped, "a")


def test_another_tokenizer_is_refused(stopped: Lab) -> None:
    other = stopped.root / "other.txt"
    other.write_text("ABCDEFGH " * 400)
    from engine.corpora import add

    add(stopped, "other", [other])
    Run().train(stopped, tiny_config(data__corpus="other", train__max_steps=1), name="b")
    source, target = (stopped.checkpoints / name / "tokenizer" for name in ("b", "a"))
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    with pytest.raises(EngineError, match="tokenizer"):
        Run().resume(stopped, "a")


def test_one_process_holds_it_until_it_is_closed(stopped: Lab) -> None:
    taken = open_resumption(stopped, "a")
    with pytest.raises(RunBusy, match="process"):
        open_resumption(stopped, "a")
    taken.folder.close()
    open_resumption(stopped, "a@3").folder.close()


def test_a_run_that_ships_is_not_ours_to_go_on_with(lab: Lab) -> None:
    with pytest.raises(InputError, match="ships with tui-lab"):
        open_resumption(lab, "hello-python")


def test_an_older_configuration_that_cannot_be_read_is_no_obstacle(stopped: Lab) -> None:
    """A checkpoint of another version may name fields that this one does not know."""
    from engine.resuming import differences_from

    info = list_checkpoints(stopped.checkpoints / "a")[-1]
    meta = Path(info.path / "meta.json")
    meta.write_text(meta.read_text().replace('"clip"', '"unheard_of"'))
    assert differences_from(info, tiny_config()) == []


def test_a_run_that_went_back_goes_on_from_where_it_went(stopped: Lab) -> None:
    """Gone back from step 8 to step 3 and stopped at 5: the newest is step 5 of the new line, not
    step 8 of the abandoned one, whatever is still kept of that."""
    Run().resume(stopped, "a", overrides={"save.policy": "all"})  # saves 6 and 8
    steps = [info.step for info in list_checkpoints(stopped.checkpoints / "a")]
    assert steps == [3, 6, 8]
    Run({5: [control.Stop()]}).resume(stopped, "a@3", overrides={"optimizer.lr": "1e-3"})
    run = Run({6: [control.Stop()]})
    run.resume(stopped, "a")
    assert run.of(events.RunStarted)[0].step == 5
    found = {info.step: info.line for info in list_checkpoints(stopped.checkpoints / "a")}
    assert (found[8], found[5], found[6]) == (0, 1, 1)
    Run().resume(stopped, "a@8", overrides={"train.max_steps": "9"})  # and back to the first line
    assert list_checkpoints(stopped.checkpoints / "a")[-1].line == 2
    taken = open_resumption(stopped, "a")
    taken.folder.close()
    assert taken.info.step == 9
