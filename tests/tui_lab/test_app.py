"""The app as it is used: every key does what the footer says, and nothing gets lost on leaving."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.events import Key

from engine import control
from engine.errors import EngineError, InputError
from engine.events import Finished, TokenGenerated
from tests.tui_lab import fakes
from tests.tui_lab.fakes import FakeSession
from tests.tui_lab.pilots import make_app, shown, until
from tui_lab.leaving import KEEP_TRAINING
from tui_lab.screens.dialogs import Dialog
from tui_lab.settings import Settings

SIZE = (120, 36)


async def training(app, pilot) -> None:
    app.start_run(fakes.config(train__max_steps=100_000), preset="micro")
    await until(pilot, lambda: app.run_state.step > 3)


async def test_enter_on_the_empty_screen_trains_the_preset(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        assert "Train a GPT" in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.run_state and app.run_state.step > 3)
        assert app.run_state.preset == "micro"
        assert "validation" in shown(app)
        app.stop_run()


@pytest.mark.parametrize(
    ("key", "command"),
    [
        ("space", control.Pause),
        ("full_stop", control.Step),
        ("s", control.SaveNow),
        ("e", control.EvalNow),
        ("g", control.Sample),
    ],
)
async def test_a_key_reaches_the_run_and_its_effect_the_screen(tmp_path: Path, key, command):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press(key)
        await until(pilot, lambda: any(isinstance(c, command) for c in session.commands))
        effect = {
            control.Pause: lambda: app.run_state.status == "paused",
            control.Step: lambda: app.trainer.paused,
            control.SaveNow: lambda: app.run_state.checkpoint is not None,
            control.EvalNow: lambda: app.run_state.evaluation is not None,
            control.Sample: lambda: app.run_state.sample.prompt == "The with statement",
        }[command]
        await until(pilot, effect)
        app.stop_run()


async def test_space_pauses_and_resumes_and_the_footer_says_which(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("space")
        await until(pilot, lambda: "space resume" in shown(app))
        step = app.run_state.step
        await pilot.press("full_stop")
        await until(pilot, lambda: app.run_state.step == step + 1)
        await pilot.press("space")
        await until(pilot, lambda: app.run_state.step > step + 5)
        assert "space pause" in shown(app)
        app.stop_run()


async def test_the_learning_rate_is_asked_for_and_checked(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press(*"fast", "enter")  # typed over the rate that stood there
        await until(pilot, lambda: "'fast' is not a number" in shown(app))
        await pilot.press(*(["backspace"] * 4), *"5e", "minus", "4", "enter")
        await until(pilot, lambda: control.SetLearningRate(5e-4) in session.commands)
        await until(pilot, lambda: "learning rate 0.003" in shown(app))
        app.stop_run()


async def test_stop_asks_first_and_ends_in_a_summary(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert app.trainer.active and control.Stop() not in session.commands
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("y")
        await until(pilot, lambda: "best validation loss" in shown(app))
        assert "talk to it" in shown(app) and "resume" in shown(app)
        await pilot.press("r")
        await until(pilot, lambda: session.resumed == "micro-python-docs")
        app.stop_run()


async def test_quitting_without_a_run_asks_nothing(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0


async def test_quitting_can_be_thought_better_of(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("c")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert app.is_running and app.trainer.active
        app.stop_run()


async def test_quitting_with_stop_and_save_waits_for_the_save(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("s")
        await until(pilot, lambda: not app.is_running)
    assert session.commands[-1] == control.Stop(save=True)
    assert isinstance(app.run_state.finished, Finished)
    assert not app.trainer.active


async def test_an_answer_that_came_with_the_question_in_one_read(tmp_path: Path):
    """As over a slow link: it is for the dialog, not for the screen that was there before."""
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        for key in "qs":
            app.post_message(Key(key, key))
        await until(pilot, lambda: not app.is_running)
    assert session.commands == [control.Stop(save=True)]


async def test_quitting_with_keep_training_leaves_a_paused_run_going(tmp_path: Path):
    session = FakeSession()
    app = make_app(tmp_path, session)
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        await pilot.press("space")
        await until(pilot, lambda: app.run_state.status == "paused")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("k")
        await until(pilot, lambda: not app.is_running)
    assert app.return_value == KEEP_TRAINING
    assert app.trainer.active and session.commands[-1] == control.Resume()
    app.trainer.put(control.Stop())
    assert app.trainer.wait(5)


@pytest.mark.parametrize("error", [None, ValueError("bad\x1b[31m [red]tensor")])
async def test_a_failure_is_told_and_the_app_stays_up(tmp_path: Path, error):
    app = make_app(tmp_path, FakeSession(fail_at=5, error=error))
    async with app.run_test(size=SIZE) as pilot:
        app.start_run(fakes.config(), preset="micro")
        await until(pilot, lambda: app.run_state.failed and "log " in shown(app))
        text = shown(app)
        if error is None:
            assert "the disk is full" in text and "free some space" in text
        else:
            assert "ValueError: bad␛[31m [red]tensor" in text
        assert "\x1b" not in text
        await pilot.press("2")
        await until(pilot, lambda: app.current_mode == "runs")


async def test_text_from_outside_is_neither_markup_nor_escape(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await training(app, pilot)
        app.trainer.events.append(
            fakes.sample_done(5, fakes.NOON, "[bold]x[/bold] \x1b]0;owned\x07 \u202eabc [/]")
        )
        await until(pilot, lambda: "[bold]x[/bold] ␛]0;owned␇ \ufffdabc [/]" in shown(app))
        app.notify_safe("[/nonsense] \x1b[2J", title="[b]")
        app.show_error(InputError("corpus '[/x]' \x1b", "hint [/]"))
        await pilot.pause(0.1)
        assert "\x1b" not in shown(app) and "corpus '[/x]' ␛" in shown(app)
        app.stop_run()


async def test_only_one_run_at_a_time(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        await training(app, pilot)
        run = app.run_state
        with pytest.raises(EngineError):
            app.start_run(fakes.config())
        assert app.run_state is run
        app.stop_run()


async def test_an_unknown_preset_is_told_in_the_engines_words(tmp_path: Path):
    app = make_app(tmp_path, FakeSession(), start="mikro")
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: "unknown preset 'mikro'" in shown(app))
        assert "did you mean 'micro'?" in shown(app)
        assert not app.trainer.active


async def test_live_tokens_reach_the_listener_that_asked_and_no_other(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    heard: list[str] = []
    async with app.run_test(size=SIZE) as pilot:
        app.subscribe("console-1", lambda event: heard.append(event.text))
        for request in ("console-1", "console-2"):
            app.trainer.events.append(
                TokenGenerated(request=request, index=0, token=1, text=request, probability=0.5)
            )
        await until(pilot, lambda: heard == ["console-1"])
        app.unsubscribe("console-1")


async def test_numbers_go_to_every_screen_and_help_lists_the_keys(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE) as pilot:
        for key, name in zip("654321", reversed(list(app.MODES)), strict=True):
            await pilot.press("escape" if app.current_mode == "console" else "f24", key)
            await until(pilot, lambda name=name: app.current_mode == name)
        await pilot.press("question_mark")
        await until(pilot, lambda: "Go to the screen Runs" in shown(app))
        assert "Save a checkpoint now" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: "Go to the screen Runs" not in shown(app))


async def test_the_theme_goes_round_and_is_remembered(tmp_path: Path):
    path = tmp_path / "settings.toml"
    app = make_app(tmp_path, FakeSession(), Settings(path=path))
    async with app.run_test(size=SIZE) as pilot:
        for theme in ("light", "contrast", "dark", "light"):
            await pilot.press("t")
            assert app.theme == theme
    assert Settings.load(path).theme == "light"


async def test_the_palette_knows_the_screens_keys(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE):
        titles = {command.title for command in app.get_system_commands(app.screen)}
    assert "Save a checkpoint now (s)" in titles
    assert "Go to the screen Console (4)" in titles
    assert "Theme: light" in titles


async def test_keys_without_a_run_say_so(tmp_path: Path):
    app = make_app(tmp_path, FakeSession())
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("s")
        await until(pilot, lambda: "nothing is training" in shown(app))
