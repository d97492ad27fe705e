"""The console in the running app: keys, mouse, streaming, cancelling, errors, what is remembered.

Its generator is a fake that yields fixed tokens, so that pictures are the same each time; the
engine's own is tested with the engine, and once here end to end in `test_console_real.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.control import CancelSample, Sample
from engine.events import SampleDone, TokenGenerated
from engine.lab import Lab
from tests.tui_lab.console_fakes import SOURCES, FakeGenerator, loader, ticking
from tui_lab.app import LabApp
from tui_lab.screens.console import ConsoleScreen
from tui_lab.screens.console_sources import LIVE
from tui_lab.settings import Settings
from tui_lab.widgets.alternatives import Alternatives
from tui_lab.widgets.slider import SeedField, Slider


class FakeTrainer:
    """The app's training thread, as far as live sampling goes."""

    elsewhere = False

    def __init__(self) -> None:
        self.active, self.paused = True, False
        self.events: list = []
        self.errors: list = []
        self.commands: list = []

    def put(self, command, who="user") -> None:
        self.commands.append(command)


def make_app(lab: Lab, generator: FakeGenerator, **settings) -> LabApp:
    screen = lambda: ConsoleScreen(  # noqa: E731
        loader(generator), lambda lab: list(SOURCES), ticking(0.004)
    )

    class Lonely(LabApp):
        CSS_PATH = Path(__file__).parents[3] / "tui_lab" / "app.tcss"
        MODES = {"console": screen}
        DEFAULT_MODE = "console"

    return Lonely(lab, Settings(path=lab.root / "settings.toml", **settings))


async def until(pilot, condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await pilot.pause(0.01)
    raise AssertionError("it never came to pass")


async def settled(pilot) -> None:
    """Until everything asked for has come, and is on the screen."""
    screen = pilot.app.screen
    await until(pilot, lambda: screen.source is not None and screen.conversation.idle)
    await pilot.pause()


@pytest.fixture
async def pilot(lab: Lab):
    generator = FakeGenerator()
    app = make_app(lab, generator)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        pilot.generator = generator
        yield pilot


def shown(pilot) -> str:
    return "".join(piece.text for piece in pilot.app.screen.transcript.pieces)


async def test_enter_generates_with_the_settings_on_the_screen(pilot):
    screen = pilot.app.screen
    screen.query_one("#temperature", Slider).value = 0.3
    screen.query_one("#max_tokens", Slider).value = 12
    screen.query_one(SeedField).value = 5
    screen.query_one("#stop").value = r"\n\n|end"
    await pilot.press(*"Hi", "enter")
    await settled(pilot)
    prompt, params = pilot.generator.prompts[-1]
    assert prompt == "Hi"
    assert (params.temperature, params.max_tokens, params.seed) == (0.3, 12, 5)
    assert params.stop == ("\n\n", "end")
    assert "Hi the with statement" in shown(pilot)
    assert "length reached · 12 tokens" in shown(pilot)
    assert "temp 0.3" in shown(pilot)
    assert "seed 5" in shown(pilot)


async def test_a_random_seed_is_told_and_repeating_uses_it(pilot):
    await pilot.press(*"a", "enter")
    await settled(pilot)
    await pilot.press("ctrl+r")
    await settled(pilot)
    (_, first), (_, second) = pilot.generator.prompts
    assert first.seed is not None
    assert first == second
    assert shown(pilot).count(f"seed {first.seed}") == 2
    await pilot.press("enter")
    await settled(pilot)
    assert pilot.generator.prompts[-1][1].seed != first.seed


async def test_escape_cancels_at_once(pilot):
    pilot.generator.gate = threading.Semaphore(3)
    screen = pilot.app.screen
    await pilot.press(*"a", "enter")
    await until(pilot, lambda: screen.conversation.current.tokens == 3)
    await pilot.press("escape")
    assert screen.conversation.current is None
    assert "cancelled · 3 tokens" in shown(pilot)
    pilot.generator.gate = None
    await pilot.press("enter")  # the next one is not held up, and hears nothing of the last
    await settled(pilot)
    assert screen.transcript.generations[-1].reason == "length"
    assert screen.transcript.generations[-1].tokens == 200


async def test_one_text_at_a_time(pilot):
    pilot.generator.gate = threading.Semaphore(1)
    await pilot.press("a", "enter", "enter")
    await pilot.pause()
    assert len(pilot.app.screen.transcript.generations) == 1
    await pilot.press("escape")


async def test_escape_with_nothing_coming_leaves_the_field_so_that_keys_work(pilot):
    screen = pilot.app.screen
    assert screen.focused is screen.prompt
    await pilot.press("escape")
    assert screen.focused is screen.transcript
    await pilot.press("escape", "escape")
    assert screen.focused is screen.transcript, "a second one does not lead back into the field"
    await pilot.press("p")
    assert screen.focused is screen.prompt
    assert screen.prompt.text == ""


async def test_up_and_down_recall_prompts_and_they_outlive_the_app(pilot, lab: Lab):
    screen = pilot.app.screen
    for text in ("one", "two"):
        screen.prompt.text = text
        await pilot.press("enter")
        await settled(pilot)
    screen.prompt.text = "draft"
    await pilot.press("up", "up")
    assert screen.prompt.text == "one"
    await pilot.press("down", "down")
    assert screen.prompt.text == "draft"
    again = Settings.load(lab.root / "settings.toml")
    assert again.of("console")["prompts"] == ["one", "two"]


async def test_settings_outlive_the_app(pilot, lab: Lab):
    pilot.app.screen.query_one("#top_k", Slider).value = 40
    await pilot.press("a", "enter")
    await settled(pilot)
    app = make_app(lab, FakeGenerator())
    app.settings = Settings.load(lab.root / "settings.toml")
    async with app.run_test(size=(120, 36)) as other:
        await settled(other)
        assert other.app.screen.query_one("#top_k", Slider).value == 40


async def test_settings_that_were_edited_into_nonsense_are_the_defaults(lab: Lab):
    app = make_app(
        lab,
        FakeGenerator(),
        memory={"console": {"temperature": "hot", "top_p": 9, "prompts": 3, "source": []}},
    )
    async with app.run_test() as pilot:
        await settled(pilot)
        assert pilot.app.screen.query_one("#temperature", Slider).value == 0.8


async def test_newlines_in_the_prompt(pilot):
    await pilot.press("a", "ctrl+j", "b")
    assert pilot.app.screen.prompt.text == "a\nb"
    await pilot.press("enter")
    await settled(pilot)
    assert pilot.generator.prompts[-1][0] == "a\nb"


async def test_the_alternatives_follow_the_cursor(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("escape", "home", "right")
    screen = pilot.app.screen
    piece = screen.query_one(Alternatives).piece
    assert piece is screen.transcript.pieces[screen.transcript.cursor]
    assert piece.text == " with"
    lines = [screen.query_one(Alternatives).render_line(y).text for y in range(4)]
    assert any("▸ ·with" in line and "1.2 %" in line for line in lines)
    assert any("·an" in line and "3.0 %" in line for line in lines)


async def test_the_text_at_the_cursor_is_the_one_that_is_reused(pilot):
    screen = pilot.app.screen
    for text, k in (("one", 40), ("two", 50)):
        screen.prompt.text = text
        screen.query_one("#top_k", Slider).value = k
        await pilot.press("enter")
        await settled(pilot)
    await pilot.press("escape", "left_square_bracket", "left_square_bracket", "u")
    assert screen.prompt.text == "one"
    assert screen.query_one("#top_k", Slider).value == 40


async def test_saving_a_text_never_overwrites(pilot, lab: Lab):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("ctrl+s")
    await pilot.pause()
    await pilot.press("enter")
    path = lab.root / "generation-1.txt"
    await until(pilot, path.exists)
    text = path.read_text()
    assert text.startswith("a the with statement")
    path.write_text("mine")
    await pilot.press("ctrl+s")
    await pilot.pause()
    await pilot.press("enter")
    await pilot.pause()
    assert path.read_text() == "mine"
    await pilot.press("escape")


async def test_copying_goes_to_the_clipboard(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("escape", "y")
    assert pilot.app.clipboard.startswith("a the with")


async def test_a_broken_checkpoint_is_an_error_on_the_screen_and_no_more(pilot):
    screen = pilot.app.screen
    screen._use(SOURCES[1])
    await settled(pilot)
    await until(pilot, lambda: len(pilot.app._notifications) == 1)
    assert "damaged" in next(iter(pilot.app._notifications)).title
    await pilot.press("a", "enter")
    await settled(pilot)
    assert "failed: step_000010/model.safetensors is damaged" in shown(pilot)
    screen._use(SOURCES[0])
    await pilot.press("enter")
    await settled(pilot)
    assert screen.transcript.generations[-1].reason == "length"


async def test_an_unknown_reference_is_told(pilot):
    pilot.app.screen.open_reference("no-such-run")
    await until(pilot, lambda: len(pilot.app._notifications) == 1)
    assert "no-such-run" in next(iter(pilot.app._notifications)).title


async def test_escape_sequences_become_glyphs(pilot):
    """A model may say anything; the terminal must not obey it."""
    pilot.generator.words = ["\x1b[2Jgone\x9b31m", "[bold]not markup[/", "\u202eabc"]
    await pilot.press("a", "enter")
    await settled(pilot)
    text = shown(pilot)
    assert not any(character in text for character in "\x1b\x9b\u202e")
    assert "␛[2Jgone" in text
    assert "[bold]not markup[/" in text


async def test_live_weights_answer_through_the_trainer(pilot):
    trainer = pilot.app.trainer = FakeTrainer()
    screen = pilot.app.screen
    screen.open_reference(None)
    assert screen.source == LIVE
    await pilot.press("a", "enter")
    [asked] = trainer.commands
    assert isinstance(asked, Sample)
    listener = pilot.app._listeners[asked.request]
    for index, word in enumerate((" x", " y")):
        listener(
            TokenGenerated(request=asked.request, index=index, token=1, text=word, probability=0.5)
        )
    listener(
        SampleDone(
            step=7,
            prompt="a",
            text=" x y",
            tokens=2,
            seconds=0.1,
            request=asked.request,
            reason="length",
        )
    )
    await settled(pilot)
    assert "a x y\nlength reached · 2 tokens" in shown(pilot)
    assert asked.request not in pilot.app._listeners


async def test_a_live_sample_is_cancelled_and_outlives_no_run(pilot):
    trainer = pilot.app.trainer = FakeTrainer()
    pilot.app.screen.open_reference(None)
    await pilot.press("a", "enter", "escape")
    assert [type(command) for command in trainer.commands] == [Sample, CancelSample]
    await pilot.press("enter")
    trainer.active = False  # the run ended while its weights were being asked
    await settled(pilot)
    assert "failed: the run ended before the text did" in shown(pilot)
    await pilot.press("enter")
    await pilot.pause()
    assert len(pilot.app.screen.transcript.generations) == 2, "nothing to ask: refused"


async def test_sliders_under_the_mouse(pilot):
    slider = pilot.app.screen.query_one("#temperature", Slider)
    await pilot.click(slider, offset=(slider.size.width - 1, 0))
    assert slider.value == 2.0


async def test_an_old_transcript_is_dropped_by_halves(pilot, monkeypatch):
    monkeypatch.setattr("tui_lab.screens.console_transcript.KEPT", 500)
    for _ in range(6):
        await pilot.press("a", "enter")
        await settled(pilot)
    view = pilot.app.screen.transcript
    assert len(view.pieces) < 800
    assert view.generations[-1].number == 6
    assert view.pieces[view.generations[0].first_piece].role == "heading"


@pytest.mark.parametrize(
    ("size", "theme"),
    [((80, 24), "dark"), ((120, 36), "light"), ((200, 50), "contrast")],
    ids=["80x24-dark", "120x36-light", "200x50-contrast"],
)
def test_picture(lab: Lab, snap_compare, size, theme):
    assert snap_compare(
        make_app(lab, FakeGenerator(), theme=theme), terminal_size=size, run_before=_compose
    )


def test_picture_without_colour(lab: Lab, snap_compare, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(make_app(lab, FakeGenerator()), terminal_size=(80, 24), run_before=_compose)


async def _compose(pilot) -> None:
    await settled(pilot)
    screen = pilot.app.screen
    screen.query_one(SeedField).value = 1234
    screen.query_one("#max_tokens", Slider).value = 60
    screen.prompt.text = "The with statement"
    await pilot.press("enter")
    await settled(pilot)
    await pilot.press("escape", "home", "right", "right")
    screen.topbar.show()  # the interface's own cost differs from run to run
    pilot.app._show_status = lambda screen: None
    screen.set_focus(screen.transcript)
    await pilot.pause()
