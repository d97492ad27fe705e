"""Two models side by side, branches, and what colours say, in the running app.

Generators are fakes: what is protected is who is asked for what, and where the answer stands.
"""

from __future__ import annotations

import json
import threading

import pytest

from engine.control import Sample
from engine.events import SampleDone, TokenGenerated, now
from engine.lab import Lab
from tests.tui_lab.console_fakes import SOURCES, FakeGenerator
from tests.tui_lab.screens.test_console import FakeTrainer, make_app, settled, until
from tui_lab.screens.console_branches import TreeDialog, tree
from tui_lab.screens.console_sources import LIVE
from tui_lab.widgets.alternatives import Alternatives
from tui_lab.widgets.colouring import Legend
from tui_lab.widgets.slider import SeedField, Slider


@pytest.fixture
async def pilot(lab: Lab):
    generator = FakeGenerator()
    app = make_app(lab, generator)
    async with app.run_test(size=(120, 36)) as pilot:
        await settled(pilot)
        pilot.generator = generator
        app.screen.query_one("#max_tokens", Slider).value = 20
        yield pilot


def texts(pilot) -> list[str]:
    return [
        "".join(piece.text for piece in column.transcript.pieces)
        for column in pilot.app.screen.columns.all
    ]


async def answer_twice(pilot, *keys: str) -> None:
    pilot.app.screen.use_beside(SOURCES[2])
    await pilot.press(*(keys or ("a",)), "enter")
    await settled(pilot)


async def grown_to(pilot, texts: int) -> None:
    """Until the first column holds so many texts, all of which have come."""
    transcript = pilot.app.screen.columns.all[0].transcript
    await until(pilot, lambda: len(transcript.generations) == texts)
    await settled(pilot)


async def test_both_answer_one_prompt_from_one_seed_each_in_its_column(pilot):
    await answer_twice(pilot)
    (first, one), (second, two) = pilot.generator.prompts
    assert (first, one) == (second, two)
    assert one.seed is not None
    left, right = texts(pilot)
    assert "micro @ 500" in left
    assert "hello-python" not in left
    assert "hello-python @ 2 000" in right
    assert (
        left.count("length reached · 20 tokens") == right.count("length reached · 20 tokens") == 1
    )
    figures = [column.query_one(".figures") for column in pilot.app.screen.columns.all]
    for shown in figures:
        assert "tok/s · first" in str(shown.content)
        assert "cache 81.9 kB" in str(shown.content)


async def test_the_second_begins_when_the_first_has_ended(pilot):
    """So that neither takes the processor from the other, and each rate is its own."""
    pilot.generator.gate = threading.Semaphore(5)
    pilot.app.screen.use_beside(SOURCES[2])
    await pilot.press("a", "enter")
    await until(pilot, lambda: pilot.app.screen.conversation.current.tokens == 5)
    assert len(pilot.generator.prompts) == 1
    await pilot.press("escape")
    assert [text.count("cancelled") for text in texts(pilot)] == [1, 1]
    await settled(pilot)
    assert len(pilot.generator.prompts) == 1, "what waited never ran"


async def test_alone_again_and_the_columns_are_stacked_where_it_is_narrow(pilot):
    await answer_twice(pilot)
    one, two = pilot.app.screen.columns.all
    assert one.region.y == two.region.y
    assert one.region.right <= two.region.x
    await pilot.resize_terminal(80, 24)
    await pilot.pause()
    assert one.region.bottom <= two.region.y
    assert min(one.transcript.size.height, two.transcript.size.height) >= 5
    pilot.app.screen.use_beside(None)
    await pilot.pause()
    assert two.region.height == 0
    await pilot.press("enter")
    await settled(pilot)
    assert len(pilot.generator.prompts) == 3


async def test_live_weights_beside_a_checkpoint(pilot):
    trainer = pilot.app.trainer = FakeTrainer()
    screen = pilot.app.screen
    screen.use_beside(LIVE)
    await pilot.press("a", "enter")
    await until(pilot, lambda: trainer.commands)
    [asked] = trainer.commands
    assert isinstance(asked, Sample)
    assert asked.params == pilot.generator.prompts[0][1]
    listener = pilot.app._listeners[asked.request]
    listener(TokenGenerated(request=asked.request, index=0, token=1, text=" x", probability=0.5))
    facts = {"step": 7, "prompt": "a", "text": " x", "tokens": 1, "seconds": 0.1}
    listener(SampleDone(request=asked.request, reason="length", **facts))
    await settled(pilot)
    assert "a x\nlength reached" in texts(pilot)[1]


async def test_live_tokens_are_rated_by_when_they_were_said(pilot):
    """The screen hears them in bundles: by its own clock they would all come at once."""
    trainer = pilot.app.trainer = FakeTrainer()
    pilot.app.screen.open_reference(None)
    await pilot.press("a", "enter")
    request = trainer.commands[0].request
    listener, began = pilot.app._listeners[request], now() - 1.0
    for index in range(11):
        facts = {"index": index, "token": 1, "text": " x", "probability": 0.5}
        listener(TokenGenerated(request=request, time=began + index * 0.05, **facts))
    await until(pilot, lambda: pilot.app.screen.conversation.current.tokens == 11)
    assert 10 < pilot.app.screen.conversation.current.tokens_per_second < 30


async def test_the_difference_asks_each_for_the_other_s_text(pilot):
    await answer_twice(pilot)
    screen = pilot.app.screen
    await pilot.press("escape", "c", "c")
    assert screen.query_one(Legend).measure.name == "difference"
    await settled(pilot)
    tokens = tuple(range(100, 120))
    runs = sorted(run.name for _, _, run in pilot.generator.scored)
    assert [(prompt, ids) for prompt, ids, _ in pilot.generator.scored] == [("a", tokens)] * 2
    assert runs == ["hello-python", "micro"]
    pieces = [p for p in screen.transcript.pieces if p.probability is not None]
    assert [piece.other for piece in pieces[:4]] == [0.9, 0.02, 0.24, 0.4]
    await pilot.press("home")
    assert "other 2.0 %" in str(screen.query_one("#alternatives-title").content)
    await pilot.press("end", "home", "c", "c", "c")
    await settled(pilot)
    assert len(pilot.generator.scored) == 2, "what was judged is not judged again"


async def test_without_a_second_model_no_difference_is_offered(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("escape")
    names = []
    for _ in range(3):
        await pilot.press("c")
        names.append(pilot.app.screen.query_one(Legend).measure.name)
    assert names == ["entropy", "probability", "entropy"]


async def test_a_branch_is_the_text_up_to_there_the_other_token_and_on(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    screen = pilot.app.screen
    trunk = screen.transcript.generations[0]
    await pilot.press("escape", "home", "right", "right", "b")
    assert isinstance(screen.focused, Alternatives)
    await pilot.press("enter")
    await grown_to(pilot, 2)
    branch = screen.transcript.generations[1]
    # Token 0 has no text, so the cursor stands at token 3; its likeliest alternative is itself.
    assert pilot.generator.continued[-1] == (100, 101, 102, 2)
    assert branch.params == trunk.params
    assert branch.shared == tuple(trunk.drawn[:3])
    assert branch.whole.startswith("a" + "".join(token.text for token in trunk.drawn[:3]))
    assert "branch of 1" in texts(pilot)[0]
    assert screen.transcript.token_at_cursor() == (branch, 4), "the cursor goes along"
    assert trunk.tokens == 20, "nothing is lost"


async def test_the_cursor_waits_for_the_first_text_of_a_branch(pilot):
    """Its first tokens may be parts of a character, without text, and come by themselves."""
    await pilot.press("a", "enter")
    await settled(pilot)
    screen = pilot.app.screen
    pilot.generator.gate = threading.Semaphore(1)
    await pilot.press("escape", "home", "right", "right", "b", "enter")
    await until(pilot, lambda: len(screen.transcript.generations) == 2)
    await until(pilot, lambda: screen.transcript.generations[1].tokens == 1)
    await pilot.pause()
    trunk, branch = screen.transcript.generations
    assert screen.transcript.token_at_cursor() == (trunk, 3)
    pilot.generator.gate.release(30)
    await grown_to(pilot, 2)
    assert screen.transcript.token_at_cursor() == (branch, 4)


async def test_from_a_branch_back_to_where_it_left_and_anywhere_in_the_tree(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("escape", "home", "right", "right", "b", "enter")
    await grown_to(pilot, 2)
    await pilot.press("right", "right", "b", "enter")  # a branch of the branch
    await grown_to(pilot, 3)
    screen = pilot.app.screen
    one, two, three = screen.transcript.generations
    assert three.fork.number == 2
    assert three.fork.at == 6
    await pilot.press("backspace")
    assert screen.transcript.token_at_cursor() == (two, 6)
    assert "branch 3" in str(screen.query_one("#alternatives-title").content)
    await pilot.press("backspace")
    assert screen.transcript.token_at_cursor() == (one, 3)
    await pilot.press("g")
    await until(pilot, lambda: isinstance(pilot.app.screen, TreeDialog))
    await pilot.press("end", "enter")
    await until(pilot, lambda: pilot.app.screen is screen)
    await pilot.pause()
    assert screen.transcript.token_at_cursor() == (three, 7)
    assert [depth for depth, _ in tree([one, two, three])] == [0, 1, 2]
    assert [depth for depth, _ in tree([two, three])] == [0, 1], "its origin is long gone"


async def test_escape_leaves_the_alternatives_and_nothing_branches(pilot):
    await pilot.press("a", "enter")
    await settled(pilot)
    await pilot.press("escape", "home", "b", "escape")
    screen = pilot.app.screen
    assert screen.focused is screen.transcript
    assert len(screen.transcript.generations) == 1


async def test_a_branch_of_live_weights_goes_through_the_trainer(pilot):
    trainer = pilot.app.trainer = FakeTrainer()
    screen = pilot.app.screen
    screen.open_reference(None)
    await pilot.press("a", "enter")
    [asked] = trainer.commands
    listener = pilot.app._listeners[asked.request]
    told = {"request": asked.request, "token": 7, "text": " x", "probability": 0.5}
    listener(
        TokenGenerated(
            index=0, alternatives=((" y", 0.6), (" x", 0.5)), alternative_ids=(8, 7), **told
        )
    )
    facts = {"step": 7, "prompt": "a", "text": " x", "tokens": 1, "seconds": 0.1}
    listener(SampleDone(request=asked.request, reason="length", **facts))
    await settled(pilot)
    await pilot.press("escape", "home", "b", "enter")
    await until(pilot, lambda: len(trainer.commands) == 2)
    assert trainer.commands[-1].continued == (8,)
    assert trainer.commands[-1].prompt == "a"


async def test_json_keeps_all_that_it_takes_to_repeat_it(pilot, lab: Lab):
    await answer_twice(pilot)
    await pilot.press("escape", "c", "c")
    await settled(pilot)
    screen = pilot.app.screen
    generation = screen.transcript.generations[0]
    await pilot.press("home", "right", "b", "enter")
    await grown_to(pilot, 2)
    await until(pilot, lambda: screen.transcript.generations[1].others)
    await pilot.press("s")
    await pilot.pause()
    pilot.app.screen.query_one("#answer").value = "it.json"
    await pilot.press("enter")
    await until(pilot, (lab.root / "it.json").exists)
    kept = json.loads((lab.root / "it.json").read_text())
    assert kept["checkpoint"] == SOURCES[0].reference
    assert kept["prompt"] == "a"
    assert kept["settings"]["seed"] == generation.params.seed
    assert kept["continued"][0] == 100
    assert kept["branch_of"]["number"] == 1
    assert kept["text"] == "a" + "".join(token["text"] for token in kept["tokens"])
    assert kept["tokens"][0]["alternatives"][0].keys() == {"id", "text", "probability"}
    assert [token["other_probability"] for token in kept["tokens"]][:2] == [0.9, 0.02]
    assert kept["judged_by"] == SOURCES[2].label


async def _compose(pilot) -> None:
    await settled(pilot)
    screen = pilot.app.screen
    screen.use_beside(SOURCES[2])
    screen.query_one(SeedField).value = 1234
    screen.query_one("#max_tokens", Slider).value = 40
    screen.prompt.text = "The with statement"
    await pilot.press("enter")
    await settled(pilot)
    await pilot.press("escape", "c", "c", "home", "right", "right")
    await settled(pilot)
    screen.topbar.show()  # the interface's own cost differs from run to run
    pilot.app._show_status = lambda screen: None
    await pilot.press("b")
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 36)], ids=["80x24", "120x36"])
def test_picture(lab: Lab, snap_compare, size):
    assert snap_compare(make_app(lab, FakeGenerator()), terminal_size=size, run_before=_compose)


def test_picture_without_colour(lab: Lab, snap_compare, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = make_app(lab, FakeGenerator())
    assert snap_compare(app, terminal_size=(80, 24), run_before=_compose)
