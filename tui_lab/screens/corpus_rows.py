"""The corpora as rows of a table, and what the detail says of one. No widgets, no files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.cells import cell_len

from engine.text import visible
from tui_lab.format import count, percent, size, thousands
from tui_lab.job import Job
from tui_lab.widgets.pane import Line, Piece, fact, title
from tui_lab.widgets.table import Cell, Column, Row

if TYPE_CHECKING:
    from engine.corpora import CorpusEntry, CorpusStatistics

COLUMNS = (
    Column("name", "corpus", grow=True, most=30, least=10),
    Column("bytes", "size", right=True),
    Column("state", "text"),
    Column("licence", "licence", priority=2, most=16),
    Column("prepared", "prepared", priority=1, most=22),
)

VIEWS = ("about", "statistics", "preview")
BAR = "━"


@dataclass(frozen=True)
class PreparedFacts:
    """What one folder of token files says of itself."""

    tokenizer: str
    tokens: int
    size: int


def corpus_row(entry: CorpusEntry, prepared: Sequence[PreparedFacts]) -> Row:
    if entry.available:
        state = Cell("✓ here", "good")
    elif entry.url:
        state = Cell("↓ f fetches it", "")
    else:
        state = Cell("✗ absent", "warn")
    kinds = ", ".join(dict.fromkeys(facts.tokenizer for facts in prepared))
    return Row(
        entry.name,
        (
            entry.name,
            size(entry.bytes) if entry.bytes else "–",
            state,
            Cell(entry.licence or "–", "muted"),
            Cell(kinds or "–", "muted"),
        ),
    )


def about(entry: CorpusEntry, prepared: Sequence[PreparedFacts]) -> list[Line]:
    """Where it comes from, under what licence, and what was made of it here."""
    lines = [title(entry.title or entry.name), ()]
    if entry.available:
        lines.append(fact("text", ("✓ here", "good")))
    elif entry.url:
        lines.append(fact("text", ("not here: ", "warn"), ("f", "strong"), " fetches it"))
    else:
        said = " takes it from a file at hand"
        lines.append(fact("text", ("not here: ", "warn"), ("f", "strong"), said))
    lines += [
        fact("size", size(entry.bytes) if entry.bytes else "not known"),
        fact("licence", entry.licence or "not stated"),
        fact("source", entry.source or "not stated"),
    ]
    if entry.url:
        lines.append(fact("address", entry.url))
    lines.append(fact("SHA-256", entry.sha256 or "not stated"))
    if entry.paths:
        lines.append(fact("paths", ", ".join(str(path) for path in entry.paths)))
    lines.append(fact("registered", "in this lab" if entry.own else "with tui-lab"))
    if entry.note:
        lines.append(fact("note", entry.note))
    lines += [(), title("Prepared for training")]
    for facts in prepared:
        said = f"{thousands(facts.tokens)} tokens, {size(facts.size)}"
        lines.append(fact(facts.tokenizer, said))
    if not prepared:
        lines.append((("not yet: ", "muted"), ("p", "strong"), (" does it", "muted")))
    return lines


def statistics(found: CorpusStatistics, width: int) -> list[Line]:
    """Counts of text and of tokens, and the most frequent tokens with their share."""
    lines = [
        title("Text"),
        fact("documents", thousands(found.documents)),
        fact("bytes", thousands(found.bytes)),
        fact("characters", thousands(found.characters), f"  {found.distinct_characters} distinct"),
        fact("lines", thousands(found.lines)),
        fact("words", thousands(found.words)),
        fact("lengths", f"{thousands(found.shortest)} – {thousands(found.longest)} characters, "
             f"median {thousands(found.median)}"),
    ]  # fmt: skip
    if found.tokens is None:
        return lines
    used = f"{thousands(found.vocab_used or 0)} of {thousands(found.vocab_size or 0)}"
    share = (found.vocab_used or 0) / max(1, found.vocab_size or 1)
    lines += [
        (),
        title(f"Tokens: {found.tokenizer}"),
        fact("tokens", thousands(found.tokens)),
        fact("bytes/token", f"{found.bytes_per_token:.2f}"),
        fact("vocabulary", f"{used} occur, {percent(share)}"),
        (),
        title("Most frequent tokens"),
    ]
    return lines + _frequent(found, width)


def _frequent(found: CorpusStatistics, width: int) -> list[Line]:
    top = max((number for _, _, number in found.frequent), default=1)
    names = [quoted(text) for _, text, _ in found.frequent]
    first = min(24, max([cell_len(name) for name in names], default=4))
    room = max(4, min(40, width - first - 26))
    lines: list[Line] = []
    for (token, _, number), name in zip(found.frequent, names, strict=True):
        share = percent(number / max(1, found.tokens or 1))
        pieces: tuple[Piece, ...] = (
            (f"{token:>6} ", "muted"),
            (name + " " * (first - cell_len(name)), ""),
            (f" {count(number):>7} {share:>7}  ", ""),
            (BAR * max(1, round(room * number / top)), "muted"),
        )
        lines.append(pieces)
    return lines


def quoted(text: str) -> str:
    """A token's text between quotes, white space to be seen, on one line."""
    shown = text.replace("\n", "⏎").replace("\t", "→")
    return f"'{visible(shown, lines=False)}'" if text else "end of text"


def invitation(entry: CorpusEntry, view: str, kind: str) -> list[Line]:
    """What to press where there is nothing to show yet."""
    if not entry.available:
        said = " fetches it" if entry.url else " takes it from a file at hand"
        return [(("Its text is not here: ", "muted"), ("f", "strong"), (said, "muted"))]
    key, does = ("s", "counts") if view == "statistics" else ("enter", "reads")
    how = f" {does} it as {kind} tokens, "
    return [((key, "strong"), (how, "muted"), ("z", "strong"), (" changes them", "muted"))]


def token_line(place: tuple[int, int, int, int], token: int, data: bytes) -> Line:
    """The token under the cursor. `place`: page, pages, token's number, tokens."""
    page, pages, number, tokens = place
    return (
        (f"page {thousands(page + 1)} of {thousands(pages)}", "muted"),
        (f"  token {thousands(number)} of {thousands(tokens)}", ""),
        (f"  id {token}", "strong"),
        (f"  {quoted(data.decode(errors='replace'))}", ""),
        (f"  {data[:12].hex(' ')}", "muted"),
    )


def working(job: Job, width: int) -> Line:
    """What a job is doing, and how far it is."""
    share = job.share
    stop: Piece = ("  esc stops", "muted")
    if share is None:
        done = f" {size(job.done)}" if job.done else ""
        return ((f"{job.what} …{done}", "warn"), stop)
    room = max(6, min(30, width - len(job.what) - 22))
    full = round(room * share)
    return (
        (f"{job.what} ", "warn"),
        ("▰" * full + "▱" * (room - full), ""),
        (f" {percent(share)}", "warn"),
        stop,
    )


def heading(entries: Sequence[CorpusEntry], prepared: Mapping[str, object]) -> str:
    here = sum(entry.available for entry in entries)
    ready = sum(bool(prepared.get(entry.name)) for entry in entries)
    return f"{len(entries)} corpora, {here} here, {ready} prepared"
