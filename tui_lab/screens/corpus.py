"""The Corpus screen: what text there is, what it is made of, and how the model sees it.

Counting, preparing and fetching are jobs in a thread, one at a time, that can be stopped. The
preview reads the very token files that training reads, so that nothing is shown that is not so.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Container, Horizontal, Vertical
from textual.widgets import Static

from engine.errors import CorpusError, EngineError
from tui_lab.format import size, thousands
from tui_lab.job import Cancelled, Job
from tui_lab.keys import bindings
from tui_lab.screens import corpus_rows as rows
from tui_lab.screens.base import LabScreen
from tui_lab.screens.corpus_files import PAGE, Text, existing_path, given_name, survey
from tui_lab.screens.dialogs import Dialog, TextDialog
from tui_lab.widgets.pane import Pane
from tui_lab.widgets.table import Table
from tui_lab.widgets.token_map import TokenMap
from tui_lab.widgets.views import Views

if TYPE_CHECKING:
    from engine.corpora import CorpusEntry, CorpusStatistics
    from engine.tokenizers import Tokenizer
    from tui_lab.app import LabApp

KINDS = ("bytes", "char", "word", "bpe", "gpt2")
VOCAB_SIZE = 1024
"""Entries of the vocabularies trained here (bpe, word), the presets' own default."""


class CorpusScreen(LabScreen):
    NAME = "corpus"
    CSS_PATH = "corpus.tcss"
    BINDINGS = bindings(NAME)
    AUTO_FOCUS = "#corpora"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[CorpusEntry] = []
        self.prepared: dict[str, list[rows.PreparedFacts]] = {}
        self.counted: dict[tuple[str, str], CorpusStatistics] = {}
        self.texts: dict[tuple[str, str], Text] = {}
        self.page = 0
        self.job: Job | None = None
        self._shown: tuple[str, str, int] | None = None  # the page that the map holds

    def compose_body(self) -> ComposeResult:
        with Vertical(id="page"):
            yield Pane(id="head")
            with Container(id="main"):
                yield Table(rows.COLUMNS, id="corpora")
                with Vertical(id="detail"):
                    with Horizontal(id="strips"):
                        yield Views(rows.VIEWS, id="views")
                        yield Static(id="between")
                        yield Views(KINDS, id="kinds")
                    yield Pane(id="job")
                    yield Pane(id="pane")
                    yield TokenMap(id="map")
                    yield Pane(id="token")

    def on_mount(self) -> None:
        for name in ("#head", "#job", "#token"):
            self.query_one(name).can_focus = False
        remembered = self.lab_app.settings.of(self.NAME).get("tokenizer")
        self.kinds.set_reactive(Views.current, remembered if remembered in KINDS else "bpe")

    def on_screen_resume(self) -> None:
        self.look()

    def on_unmount(self) -> None:
        if self.job is not None:
            self.job.cancel()

    @property
    def table(self) -> Table:
        return self.query_one("#corpora", Table)

    @property
    def views(self) -> Views:
        return self.query_one("#views", Views)

    @property
    def kinds(self) -> Views:
        return self.query_one("#kinds", Views)

    @property
    def selected(self) -> CorpusEntry | None:
        return next((entry for entry in self.entries if entry.name == self.table.key), None)

    @property
    def choice(self) -> tuple[str, str]:
        """The corpus under the cursor and the kind of tokenizer."""
        return self.table.key or "", self.kinds.current

    # Looking at the files.

    def look(self) -> None:
        self.run_worker(self._look, exclusive=True, group="look")

    async def _look(self) -> None:
        try:
            entries, prepared = await asyncio.to_thread(survey, self.lab_app.lab)
        except EngineError as error:
            self.lab_app.show_error(error)
            return
        changed = {e.name for e in self.entries} - {e.name for e in entries if e in self.entries}
        for known in (self.counted, self.texts):
            for key in [key for key in known if key[0] in changed]:
                del known[key]
        self.entries, self.prepared = entries, prepared
        self.table.set_rows([rows.corpus_row(e, prepared.get(e.name, ())) for e in entries])
        head = rows.heading(entries, prepared)
        self.query_one("#head", Pane).show([((head, ""),)])
        self.fit()

    # Showing.

    def tick(self, app: LabApp) -> None:
        if self.job is not None:
            self.show_job()

    def show_job(self) -> None:
        pane = self.query_one("#job", Pane)
        pane.show([rows.working(self.job, pane.size.width)] if self.job else [])

    def on_resize(self) -> None:
        self.call_after_refresh(self.fit)

    def fit(self) -> None:
        """Above the detail the table takes what it needs; beside it, all there is."""
        height = max(3, min(len(self.table.rows) + 1, self.size.height * 2 // 5))
        self.table.styles.height = "1fr" if self.has_class("-wide") else height
        self.show_detail()

    def show_detail(self) -> None:
        entry, view = self.selected, self.views.current
        for name in rows.VIEWS:
            self.set_class(name == view, f"-{name}")
        text = self.texts.get(self.choice) if view == "preview" else None
        self.set_class(text is not None, "-reading")
        self._show_keys(entry, view)
        pane = self.query_one("#pane", Pane)
        if entry is None:
            pane.show(())
        elif text is not None:
            self._show_page(entry.name, text)
        elif view == "about":
            pane.show(rows.about(entry, self.prepared.get(entry.name, ())), keep_place=False)
        elif view == "statistics" and self.choice in self.counted:
            width = max(30, pane.size.width - 1)
            pane.show(rows.statistics(self.counted[self.choice], width), keep_place=False)
        else:
            pane.show(rows.invitation(entry, view, self.kinds.current), keep_place=False)

    def _show_page(self, name: str, text: Text) -> None:
        shown = (name, text.tokenizer.digest, self.page)
        if shown != self._shown:
            self._shown = shown
            self.query_one(TokenMap).show_pieces(text.page(self.page))

    def _show_keys(self, entry: CorpusEntry | None, view: str) -> None:
        absent = entry is not None and not entry.available
        hidden = {"count", "read", "prepare"} if absent else {"fetch"}
        if view == "about":
            hidden.add("tokenizer")
        if view != "preview":
            hidden.add("next")
        self.keybar.show(hidden=frozenset(hidden))

    @on(Table.Moved)
    def _moved(self) -> None:
        self.page = 0
        self.show_detail()

    @on(Table.Activated)
    def _activated(self) -> None:
        self.action_read()

    @on(Views.Changed, "#views")
    def _view_changed(self) -> None:
        self.show_detail()

    @on(Views.Changed, "#kinds")
    def _kind_changed(self) -> None:
        settings = self.lab_app.settings
        settings.of(self.NAME)["tokenizer"] = self.kinds.current
        settings.save()
        self.page = 0
        self.show_detail()
        if self.views.current == "preview":
            self.action_read()

    @on(TokenMap.Turned)
    def _turned(self, event: TokenMap.Turned) -> None:
        self.action_page(event.by)

    @on(TokenMap.Moved)
    def _token(self, event: TokenMap.Moved) -> None:
        text = self.texts.get(self.choice)
        if text is None or event.piece is None:
            return
        place = (self.page, text.pages, self.page * PAGE + event.index, text.prepared.n_tokens)
        line = rows.token_line(place, event.piece.token, event.piece.data)
        self.query_one("#token", Pane).show([line])

    # Jobs.

    def start(self, what: str, work: Callable[[Job], Any], then: Callable[[Any], None]) -> None:
        """Do `work(job)` in a thread, then `then(result)` here; one job at a time."""
        if self.job is not None:
            self.lab_app.notify_safe(f"{self.job.what} is under way; esc stops it")
            return
        self.job = Job(what)
        self.show_job()
        self.run_worker(partial(self._run, self.job, work, then), group="job")

    async def _run(self, job: Job, work: Callable[[Job], Any], then: Callable[[Any], None]) -> None:
        try:
            result = await asyncio.to_thread(work, job)
            if not job.cancelled:
                then(result)
        except Cancelled:
            self.lab_app.notify_safe("stopped; nothing half-made was left behind")
        except EngineError as error:
            self.lab_app.show_error(error)
        finally:
            self.job = None
            self.show_job()
            self.look()

    def _with_tokenizer(self, job: Job, name: str, kind: str) -> Tokenizer:
        from engine.corpora import get_tokenizer

        return get_tokenizer(self.lab_app.lab, name, kind, VOCAB_SIZE, job.progress)

    def _prepare(self, job: Job, name: str, kind: str) -> Text:
        from engine.corpora import prepare

        tokenizer = self._with_tokenizer(job, name, kind)
        done = prepare(self.lab_app.lab, name, tokenizer, progress=job.progress)
        return Text(tokenizer, done)

    def _ready(self) -> CorpusEntry | None:
        """The corpus under the cursor if its text is here; else says what to do."""
        entry = self.selected
        if entry is not None and not entry.available:
            hint = "f fetches it" if entry.url else "f takes it from a file at hand"
            self.lab_app.show_error(CorpusError(f"the text of '{entry.name}' is not here", hint))
            return None
        return entry

    # Keys.

    def action_view(self, by: int) -> None:
        self.views.turn(by)

    def action_tokenizer(self, by: int) -> None:
        if self.views.current == "about":
            self.views.current = "preview"
        self.kinds.turn(by)

    def action_clear(self) -> None:
        if self.job is not None:
            self.job.cancel()
        else:
            self.table.focus()

    def action_read(self) -> None:
        self.views.current = "preview"
        entry, choice = self._ready(), self.choice
        if entry is None:
            return

        def show(text: Text) -> None:
            self.texts[choice] = text
            self.show_detail()
            if self.choice == choice and self.table.has_focus:
                self.query_one(TokenMap).focus()

        if choice in self.texts:
            show(self.texts[choice])
        else:
            self.start(f"reading {entry.name}", lambda job: self._prepare(job, *choice), show)

    def action_page(self, by: int) -> None:
        text = self.texts.get(self.choice)
        if text is not None and self.views.current == "preview":
            self.page = max(0, min(self.page + by, text.pages - 1))
            self.show_detail()

    def action_count(self) -> None:
        from engine.corpora import statistics

        self.views.current = "statistics"
        entry, choice = self._ready(), self.choice
        if entry is None or choice in self.counted:
            return

        def work(job: Job) -> CorpusStatistics:
            tokenizer = self._with_tokenizer(job, *choice)
            return statistics(self.lab_app.lab, entry.name, tokenizer, job.progress)

        def show(found: CorpusStatistics) -> None:
            self.counted[choice] = found
            self.show_detail()

        self.start(f"counting {entry.name}", work, show)

    def action_prepare(self) -> None:
        entry, choice = self._ready(), self.choice
        if entry is None:
            return

        def say(text: Text) -> None:
            self.texts[choice] = text
            tokens = thousands(text.prepared.n_tokens)
            self.lab_app.notify_safe(f"{entry.name} is prepared: {tokens} {choice[1]} tokens")

        self.start(f"preparing {entry.name}", lambda job: self._prepare(job, *choice), say)

    def action_fetch(self) -> None:
        entry = self.selected
        if entry is None:
            return
        if entry.available:
            self.lab_app.notify_safe(f"the text of {entry.name} is here already")
            return
        self.run_worker(partial(self._fetch, entry), exclusive=True, group="ask")

    async def _fetch(self, entry: CorpusEntry) -> None:
        from engine.corpora import fetch

        app, source = self.lab_app, None
        much = size(entry.bytes) if entry.bytes else "of unknown size"
        checked = f"Its SHA-256 must be {entry.sha256[:16]}…"
        if entry.url:
            body = f"{much}, licence {entry.licence or 'not stated'}, from\n{entry.url}\n{checked}"
            if not await app.ask(Dialog(f"Fetch '{entry.name}'?", body, yes="Fetch")):
                return
        else:
            body = f"No address serves this file. {much}. {checked}"
            asked = TextDialog(f"Where is '{entry.name}'?", body, "", existing_path, ok="Take it")
            source = await app.ask(asked)
            if source is None:
                return
        self.start(
            f"fetching {entry.name}",
            lambda job: fetch(app.lab, entry.name, from_file=source, progress=job.progress),
            lambda done: app.notify_safe(f"{done.name} is here"),
        )

    def action_add(self) -> None:
        self.run_worker(self._add, exclusive=True, group="ask")

    async def _add(self) -> None:
        from engine.corpora import add

        app = self.lab_app
        body = "Text, JSON lines, gzip, Parquet, or a folder of them. It is read where it lies."
        path = await app.ask(
            TextDialog("Add which file or folder?", body, "", existing_path, ok="Next")
        )
        if path is None:
            return
        suggested = re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem).strip("-.") or "corpus"
        name = await app.ask(
            TextDialog("What shall it be called?", str(path), suggested, given_name)
        )
        if name is None:
            return

        def show(entry: CorpusEntry) -> None:
            app.notify_safe(f"{entry.name} is added")

        self.start(
            f"adding {name}", lambda job: add(app.lab, name, [path], progress=job.progress), show
        )
