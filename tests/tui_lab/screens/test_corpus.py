"""The Corpus screen on real corpora: statistics, token boundaries, preparing, fetching, adding."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from engine.lab import Lab
from tests.tui_lab.screens.browsing import Browser, screen_text, until
from tui_lab.screens import corpus_files
from tui_lab.screens.dialogs import Dialog, TextDialog

TEXT = "The cat sat on the mat.\nÉté naïf: 猫 and a tab\there.\n" * 60


@pytest.fixture
def texts(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """A lab whose registry is its own: one text here, one to be fetched, one only at hand."""
    shipped = lab.root / "nothing-ships"
    shipped.mkdir()
    monkeypatch.setattr(Lab, "places", lambda self, kind: [self.root / kind, shipped])
    (lab.corpus / "cats.txt").write_text(TEXT)
    digest = hashlib.sha256(TEXT.encode()).hexdigest()
    (lab.corpus / "registry.toml").write_text(
        f'''
[cats]
title = "A cat, many times"
kind = "text"
licence = "MIT"
source = "made for this test"

[far]
kind = "text"
url = "http://127.0.0.1:9/far.txt"
sha256 = "{digest}"
bytes = {len(TEXT.encode())}
licence = "public domain"

[byhand]
kind = "text"
sha256 = "{digest}"
'''
    )
    return lab


def browser(lab: Lab, **settings) -> Browser:
    return Browser(lab, "corpus", memory={"corpus": {"tokenizer": "bpe"}}, **settings)


async def ready(pilot) -> None:
    screen = pilot.app.screen
    await until(pilot, lambda: screen.entries and screen.table.key)
    await pilot.pause()


async def idle(pilot) -> None:
    await until(pilot, lambda: pilot.app.screen.job is None)
    await pilot.pause()


async def read_it(pilot) -> None:
    await ready(pilot)
    await pilot.press("enter")
    await until(pilot, lambda: pilot.app.screen.has_class("-reading"))
    await idle(pilot)
    await until(pilot, lambda: pilot.app.screen.query_one("#map").has_focus)
    await pilot.press("right", "right")
    await pilot.pause()


@pytest.mark.parametrize("size", [(80, 24), (120, 36), (200, 50)], ids=str)
def test_the_text_as_the_model_sees_it_at_each_size(snap_compare, texts: Lab, size) -> None:
    assert snap_compare(browser(texts), terminal_size=size, run_before=read_it)


def test_boundaries_show_without_colour(
    snap_compare, texts: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bar stands between the tokens."""
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap_compare(browser(texts), terminal_size=(80, 24), run_before=read_it)


async def test_the_list_tells_what_is_here_and_how_to_get_the_rest(texts: Lab) -> None:
    async with browser(texts).run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        text = screen_text(pilot.app)
        assert "3 corpora, 1 here, 0 prepared" in text
        assert "✓ here" in text and "↓ f fetches it" in text and "✗ absent" in text
        assert "MIT" in text and "made for this test" in text


async def test_statistics_count_with_the_chosen_tokenizer(texts: Lab) -> None:
    async with browser(texts).run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        pilot.app.screen.kinds.current = "bytes"
        await pilot.press("s")
        pane = pilot.app.screen.query_one("#pane")
        await until(pilot, lambda: "Most frequent tokens" in pane.text)
        size = f"{len(TEXT.encode()):,}".replace(",", " ")
        assert f"bytes         {size}" in pane.text
        assert "bytes/token   1.00" in pane.text and "of 257 occur" in pane.text


async def test_switching_the_tokenizer_reads_again_and_is_remembered(texts: Lab) -> None:
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await read_it(pilot)
        many = len(app.screen.query_one("#map").pieces)
        await pilot.press("z")  # gpt2 comes after bpe, bytes after that
        await idle(pilot)
        await pilot.press("z")
        await idle(pilot)
        await until(pilot, lambda: ("cats", "bytes") in app.screen.texts)
        await pilot.pause()
        pieces = app.screen.query_one("#map").pieces
        assert len(pieces) == corpus_files.PAGE != many
        assert app.settings.of("corpus")["tokenizer"] == "bytes"


async def test_paging_goes_through_the_whole_text(texts: Lab) -> None:
    """Every token of the corpus is on one page, in order: the pages spell the text."""
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        app.screen.kinds.current = "bytes"
        await pilot.press("enter")
        await until(pilot, lambda: app.screen.has_class("-reading"))
        text, seen = app.screen.texts["cats", "bytes"], b""
        for page in range(text.pages):
            await until(pilot, lambda page=page: app.screen.page == page)
            seen += b"".join(piece.data for piece in app.screen.query_one("#map").pieces)
            await pilot.press("n")
        assert seen.decode() == TEXT
        await pilot.press("b")
        assert app.screen.page == text.pages - 2


async def test_preparing_makes_token_files(texts: Lab) -> None:
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("p")
        await until(pilot, lambda: any("is prepared" in said for said in app.said))
        await until(pilot, lambda: app.screen.prepared.get("cats"))
        assert "1 prepared" in screen_text(app)
    assert list((texts.corpus / "prepared").glob("cats-bpe-*/manifest.json"))


async def test_a_job_shows_its_progress_and_stops_on_escape(
    texts: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slowness is the only thing that is made up."""
    begun = threading.Event()

    def slow(lab, name, tokenizer, progress):
        while True:
            progress("encoding", 1, 4)
            begun.wait(0.005)

    monkeypatch.setattr("engine.corpora.prepare", slow)
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("p")
        await until(pilot, lambda: "25 %" in app.screen.query_one("#job").text)
        await pilot.press("s")  # one at a time
        assert any("under way" in said for said in app.said)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen.job is None)
        assert any("stopped" in said for said in app.said)


async def test_fetching_asks_first_and_explains_a_failure(texts: Lab) -> None:
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("down", "f")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        assert "http://127.0.0.1:9/far.txt" in app.screen.body and "kB" in app.screen.body
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, Dialog))
        assert not (texts.corpus / "far.txt").exists() and not app.said
        await pilot.press("f")
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await pilot.press("y")
        await until(pilot, lambda: any("cannot download 'far'" in said for said in app.said))
        assert not list(texts.corpus.glob("*far*"))


async def test_a_corpus_without_an_address_comes_from_a_file_at_hand(
    texts: Lab, tmp_path: Path
) -> None:
    source = tmp_path / "copy.txt"
    source.write_text(TEXT)
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("end", "f")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        app.screen.query_one("#answer").value = str(source)
        await pilot.press("enter")
        await until(pilot, lambda: (texts.corpus / "byhand.txt").is_file())
        await until(pilot, lambda: app.screen.selected and app.screen.selected.available)


async def test_adding_a_file_asks_for_path_and_name(texts: Lab, tmp_path: Path) -> None:
    source = tmp_path / "My own notes.txt"
    source.write_text(TEXT)
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        app.screen.query_one("#answer").value = str(tmp_path / "not there")
        await pilot.press("enter")
        await pilot.pause()
        assert "is not there" in screen_text(app)  # the dialog stays and says why
        app.screen.query_one("#answer").value = str(source)
        await pilot.press("enter")
        await until(pilot, lambda: "called" in getattr(app.screen, "question", ""))
        assert app.screen.query_one("#answer").value == "My-own-notes"
        await pilot.press("enter")
        await until(pilot, lambda: any("is added" in said for said in app.said))
        await until(pilot, lambda: any(e.name == "My-own-notes" for e in app.screen.entries))


async def test_a_binary_file_is_refused_and_the_app_stays(texts: Lab, tmp_path: Path) -> None:
    source = tmp_path / "noise.bin"
    source.write_bytes(bytes(range(256)) * 40)
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("a")
        for words in ("Add which", "called"):
            await until(pilot, lambda w=words: w in getattr(app.screen, "question", ""))
            if words == "Add which":
                app.screen.query_one("#answer").value = str(source)
            await pilot.press("enter")
        await until(pilot, lambda: any("binary" in said for said in app.said))
        await idle(pilot)
        assert len(app.screen.entries) == 3


async def test_an_absent_text_says_how_to_get_it(texts: Lab) -> None:
    app = browser(texts)
    async with app.run_test(size=(120, 30)) as pilot:
        await ready(pilot)
        await pilot.press("down", "enter")
        await until(pilot, lambda: any("f fetches it" in said for said in app.said))
        assert app.screen.job is None


async def test_a_dialog_leaves_the_screen_behind_it_in_place(texts: Lab) -> None:
    """Stylesheets are shared by all screens: a dialog's must not move what another one laid out."""
    app = browser(texts)
    async with app.run_test(size=(80, 24)) as pilot:
        await ready(pilot)
        before = app.screen.table.region
        await pilot.press("a")
        await until(pilot, lambda: isinstance(app.screen, TextDialog))
        await pilot.press("escape")
        await until(pilot, lambda: not isinstance(app.screen, TextDialog))
        await pilot.pause()
        assert app.screen.table.region == before
