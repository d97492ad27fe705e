"""`tui-lab corpus …`: what there is to learn from, and making it ready."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.text import visible
from tui_lab import format as fmt
from tui_lab.cli.common import console, current_lab, note, on_terminal, say, say_json, table

if TYPE_CHECKING:
    from engine.corpora import CorpusEntry, CorpusStatistics, PreviewToken
    from engine.corpora.digest import Progress
    from engine.lab import Lab
    from engine.tokenizers import Tokenizer

app = typer.Typer(no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A registered corpus; see: tui-lab corpus list.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
TokenizerOption = Annotated[
    str, typer.Option(help="bytes, char, word, bpe, gpt2, a run, or a saved tokenizer's folder.")
]
VocabSize = Annotated[int, typer.Option(help="Entries of a trained vocabulary (bpe, word).")]

COUNT_UNASKED = 64_000_000  # bytes up to which `show` counts without being asked


@app.callback()
def group() -> None:
    pass


@app.command("list")
def list_command(json: Json = False) -> None:
    """Every corpus that this lab knows, and whether its text is here."""
    from engine.corpora import list_corpora

    entries = list_corpora(current_lab())
    if json:
        for entry in entries:
            say_json(_facts(entry))
        return
    rows = [
        (
            entry.name,
            "here" if entry.available else "to fetch" if entry.kind == "text" else "missing",
            fmt.size(entry.bytes) if entry.bytes is not None else "–",
            entry.licence or "–",
            entry.title or entry.source,
        )
        for entry in entries
    ]
    table(("corpus", "text", "size", "licence", "title"), rows, right=(2,))


@app.command()
def show(
    name: Name,
    tokens: Annotated[
        int, typer.Option(help="Show this many tokens as the model sees them.", min=0)
    ] = 0,
    start: Annotated[int, typer.Option(help="First token to show.", min=0)] = 0,
    tokenizer: TokenizerOption = "bpe",
    vocab_size: VocabSize = 1024,
    stats: Annotated[
        bool | None, typer.Option(help="Count documents, words and tokens (default: to 64 MB).")
    ] = None,
    json: Json = False,
) -> None:
    """What a corpus is and holds; with --tokens, its text cut at token boundaries."""
    from engine.corpora import find_corpus, preview, statistics

    lab = current_lab()
    entry = find_corpus(lab, name)
    if tokens:
        with _progress("", quiet=True) as progress:
            shown = preview(
                lab, name, _tokenizer(lab, name, tokenizer, vocab_size, progress), start, tokens
            )
        _show_tokens(shown, json)
        return
    if stats is None:
        stats = entry.available and (entry.bytes or 0) <= COUNT_UNASKED
    counted = None
    if stats:
        with _progress(f"counting {name}", quiet=json) as progress:
            cutter = _tokenizer(lab, name, tokenizer, vocab_size, progress)
            counted = statistics(lab, name, cutter, progress)
    if json:
        say_json(_facts(entry) | ({"statistics": _statistics(counted)} if counted else {}))
        return
    table(("", name), [*_described(entry), *(_counted_rows(counted) if counted else ())])


@app.command()
def fetch(
    name: Name,
    from_file: Annotated[
        Path | None, typer.Option("--from", help="A copy at hand, instead of the download.")
    ] = None,
    json: Json = False,
) -> None:
    """Bring a corpus's text into this lab; its SHA-256 is checked before it is put in place."""
    from engine import corpora

    with _progress(f"fetching {name}", quiet=json) as progress:
        entry = corpora.fetch(current_lab(), name, from_file=from_file, progress=progress)
    if json:
        say_json(_facts(entry))
    else:
        say(f"{entry.name}: {fmt.size(entry.bytes or 0)}, {entry.path or entry.title}")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    paths: Annotated[
        list[str], typer.Argument(help="Text, .jsonl, .parquet, .gz, or folders of them.")
    ],
    field: Annotated[str, typer.Option(help="JSON field or Parquet column of the text.")] = "text",
    title: Annotated[str, typer.Option(help="What it is, in a few words.")] = "",
    licence: Annotated[str, typer.Option(help="Under what terms it may be used.")] = "",
    source: Annotated[str, typer.Option(help="Where it comes from.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="Replace one added before.")] = False,
    json: Json = False,
) -> None:
    """Register files or folders as a corpus. Nothing is copied: they are read where they are."""
    from engine import corpora

    with _progress(f"reading {name}", quiet=json) as progress:
        entry = corpora.add(
            current_lab(),
            name,
            paths,
            field=field,
            title=title,
            licence=licence,
            source=source,
            replace=replace,
            progress=progress,
        )
    if json:
        say_json(_facts(entry))
    else:
        say(f"added {entry.name}: {fmt.size(entry.bytes or 0)}; train on it: --corpus {entry.name}")


@app.command()
def remove(name: Name) -> None:
    """Forget a corpus that was added, and its prepared tokens. Its files stay."""
    from engine import corpora

    corpora.remove(current_lab(), name)
    say(f"removed {name}; its files were left alone")


@app.command()
def prepare(
    name: Name,
    tokenizer: TokenizerOption = "bpe",
    vocab_size: VocabSize = 1024,
    workers: Annotated[
        int | None, typer.Option(help="Threads that tokenize (default: one a core).", min=1)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Hash every shard; build anew what was damaged.")
    ] = False,
    json: Json = False,
) -> None:
    """Tokenize a corpus into shards, ready for training. Training does so by itself."""
    from engine import corpora

    lab = current_lab()
    began = time.monotonic()
    with _progress(f"preparing {name}", quiet=json) as progress:
        cutter = _tokenizer(lab, name, tokenizer, vocab_size, progress)
        prepared = corpora.prepare(
            lab, name, cutter, progress=progress, workers=workers, check=check
        )
    if json:
        say_json(
            {
                "corpus": name,
                "path": str(prepared.path),
                "tokenizer": cutter.kind,
                "vocab_size": cutter.vocab_size,
                "tokens": prepared.n_tokens,
                "bytes": prepared.n_bytes,
                "documents": prepared.n_documents,
                "digest": prepared.digest,
                "seconds": round(time.monotonic() - began, 3),
            }
        )
        return
    ratio = prepared.n_bytes / prepared.n_tokens
    say(
        f"{name}: {fmt.thousands(prepared.n_tokens)} tokens, {ratio:.2f} bytes each, "
        f"{fmt.thousands(prepared.n_documents)} documents, {fmt.size(prepared.size)} on disk"
    )
    say(str(prepared.path))


def _tokenizer(
    lab: Lab, corpus: str, reference: str, vocab_size: int, progress: Progress
) -> Tokenizer:
    """A kind means the one that belongs to the corpus; anything else names a saved one."""
    from engine import tokenizers
    from engine.corpora import get_tokenizer

    if reference in tokenizers.KINDS:
        return get_tokenizer(lab, corpus, reference, vocab_size, progress)
    return tokenizers.find(lab, reference)


def _facts(entry: CorpusEntry) -> dict[str, Any]:
    where = [str(path) for path in entry.paths] or ([str(entry.path)] if entry.path else [])
    return {
        "name": entry.name,
        "title": entry.title,
        "kind": entry.kind,
        "available": entry.available,
        "bytes": entry.bytes,
        "source": entry.source,
        "licence": entry.licence,
        "url": entry.url,
        "sha256": entry.sha256,
        "paths": where,
        "note": entry.note,
        "own": entry.own,
    }


def _described(entry: CorpusEntry) -> Iterator[tuple[str, str]]:
    facts = _facts(entry)
    for key in ("title", "kind", "source", "licence", "url", "sha256", "note"):
        if facts[key]:
            yield key, str(facts[key])
    for path in facts["paths"]:
        yield "path", path
    if not entry.available:
        yield "text", f"not here: tui-lab corpus fetch {entry.name}"
    if entry.bytes is not None:
        yield "size", fmt.size(entry.bytes)


def _statistics(counted: CorpusStatistics) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(counted)


def _counted_rows(counted: CorpusStatistics) -> Iterator[tuple[str, str]]:
    yield "documents", fmt.thousands(counted.documents)
    lengths = (counted.shortest, counted.median, counted.longest)
    yield (
        "lengths",
        "shortest {}, median {}, longest {} characters".format(*map(fmt.thousands, lengths)),
    )
    yield (
        "characters",
        f"{fmt.thousands(counted.characters)}, {counted.distinct_characters} distinct",
    )
    yield "words", fmt.thousands(counted.words)
    yield "lines", fmt.thousands(counted.lines)
    if counted.tokens is not None:
        yield (
            "tokenizer",
            f"{counted.tokenizer}, {fmt.thousands(counted.vocab_size or 0)} entries, "
            + (f"{fmt.thousands(counted.vocab_used or 0)} of them used"),
        )
        yield "tokens", f"{fmt.thousands(counted.tokens)}, {counted.bytes_per_token:.2f} bytes each"
        often = "  ".join(
            f"{text!r} {fmt.count(times)}" for _, text, times in counted.frequent[:10]
        )
        yield "most frequent", often


def _show_tokens(shown: list[PreviewToken], json: bool) -> None:
    """JSON and pipes: one token a line. A terminal: running text with a bar at each boundary."""
    if json:
        for token, text in shown:
            say_json({"token": token, "text": text})
        return
    if not on_terminal():
        for token, text in shown:
            say(f"{token}\t{visible(text, lines=False)}")
        return
    from rich.text import Text

    drawn = Text()
    for _, text in shown:
        drawn.append(visible(text, lines=False))
        drawn.append("│", style="dim")
        if "\n" in text:
            drawn.append("\n")
    console().print(drawn)


@contextmanager
def _progress(title: str, *, quiet: bool) -> Iterator[Progress]:
    """A bar on a terminal; on stderr, a plain line every few seconds; nothing when `quiet`."""
    if quiet:
        yield lambda what, done, total: None
        return
    if not on_terminal():
        yield _Lines(title)
        return
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console(), transient=True) as bar:
        task = bar.add_task(visible(title, lines=False), total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(
                task, description=visible(what, lines=False), completed=done, total=total or None
            )

        yield show


class _Lines:
    """Progress where nothing can be redrawn: a line after a second, then one every five."""

    def __init__(self, title: str) -> None:
        self._title, self._next = title, time.monotonic() + 1

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + 5
        share = f" {done / total:.0%}" if total else ""
        note(f"{self._title}: {what}{share}")
