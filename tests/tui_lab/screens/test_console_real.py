"""The console with the engine behind it: a checkpoint on disk, loaded and sampled for real."""

from __future__ import annotations

import pytest

from engine.lab import Lab
from tests.engine.checkpoints.making import flip
from tests.tui_lab.labs import make_run
from tests.tui_lab.screens.test_console import settled, shown, until
from tui_lab.app import LabApp
from tui_lab.settings import Settings
from tui_lab.widgets.slider import SeedField, Slider


@pytest.fixture
async def pilot(lab: Lab):
    path = make_run(lab, "small", steps=40, saves=(40,))
    app = LabApp(lab, Settings(path=lab.root / "settings.toml", compile=False))
    async with app.run_test(size=(100, 30)) as pilot:
        pilot.run = path
        app.go("console")
        await settled(pilot)
        yield pilot


async def test_a_newcomer_s_console_talks_at_once(pilot):
    """Nothing is chosen: the newest checkpoint is there, and enter is enough."""
    screen = pilot.app.screen
    assert screen.source.label.startswith("small @ 40")
    screen.query_one("#max_tokens", Slider).value = 20
    screen.query_one(SeedField).value = 3
    await pilot.press(*"def ", "enter")
    await settled(pilot)
    first = screen.transcript.generations[-1]
    assert (first.tokens, first.reason) == (20, "length")
    assert all(
        0 <= piece.probability <= 1 and piece.alternatives
        for piece in screen.transcript.pieces
        if piece.probability is not None
    )
    await pilot.press("ctrl+r")
    await settled(pilot)
    assert screen.transcript.generations[-1].text == first.text, "the same seed, the same text"


async def test_a_real_branch_and_a_real_difference(pilot):
    """Beside itself a model makes of its text just what it made of it, the branch's too; and the
    branch's first token is the one that was chosen."""
    screen = pilot.app.screen
    screen.query_one("#max_tokens", Slider).value = 12
    screen.query_one(SeedField).value = 3
    screen.use_beside(screen.source)
    await pilot.press(*"def ", "enter")
    await settled(pilot)
    left, right = (column.transcript.generations[-1] for column in screen.columns.all)
    assert left.text == right.text
    assert left.cache_bytes > 0
    await pilot.press("escape", "c", "c", "home", "right", "b", "enter")
    await until(pilot, lambda: len(screen.transcript.generations) == 2)
    branch = screen.transcript.generations[-1]
    await until(pilot, lambda: branch.others)
    at = len(branch.shared)
    assert branch.sequence[:at] == left.sequence[:at]
    assert branch.sequence[at].token != left.sequence[at].token
    assert branch.sequence[at].token in left.sequence[at].alternative_ids
    for token, other in zip(branch.sequence, branch.others, strict=True):
        assert other == pytest.approx(token.probability, rel=1e-2, abs=1e-6)


async def test_other_screens_open_the_console_on_a_checkpoint(pilot):
    app = pilot.app
    app.screen.source = None
    app.go("train")
    await pilot.pause()
    app.open_console("small@40")
    await until(pilot, lambda: getattr(app.screen, "source", None) is not None)
    assert app.screen.source.label.startswith("small @ 40")


async def test_a_prompt_longer_than_the_context_is_refused_in_words(pilot):
    screen = pilot.app.screen
    screen.prompt.text = "x" * 100
    await pilot.press("enter")
    await settled(pilot)
    assert "failed: the prompt has 100 tokens, the model's context holds 32" in shown(pilot)


async def test_weights_that_were_damaged_are_told_and_the_app_stays_up(pilot):
    screen = pilot.app.screen
    [weights] = pilot.run.glob("step_*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:200])
    screen.conversation._thread._loaded.clear()
    await pilot.press("a", "enter")
    await settled(pilot)
    assert screen.transcript.generations[-1].reason == "failed"
    assert "safetensors" in shown(pilot) or "damaged" in shown(pilot)
    assert pilot.app.is_running


async def test_a_broken_checkpoint_that_was_skipped_is_told(lab: Lab):
    """Nobody should talk to an older checkpoint in the belief that it is the newest."""
    path = make_run(lab, "small", steps=40, saves=(20, 40))
    flip(path / "step_000040/model.safetensors")
    app = LabApp(lab, Settings(path=lab.root / "settings.toml", compile=False))
    async with app.run_test(size=(100, 30)) as pilot:
        app.open_console("small")
        await settled(pilot)
        assert app.screen.source.label.startswith("small @ 20")
        told = [notification.message for notification in app._notifications]
        assert any("step_000040/model.safetensors" in text for text in told), told
