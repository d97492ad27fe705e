"""Reads the text of a corpus, document by document, never more than a few megabytes at a time.

Takes plain text, JSON lines and Parquet, each also under gzip where that makes sense, from files
and folders. Knows nothing of tokens. Text is passed on as it stands: only a byte-order mark is
dropped, and line ends are kept.
"""

from __future__ import annotations

import codecs
import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from engine.corpora import interpreter
from engine.corpora.registry import CorpusEntry, find_corpus
from engine.errors import CorpusError, did_you_mean
from engine.lab import Lab

BLOCK = 1 << 20  # bytes of a text file read at once
PEEK = 1 << 20  # bytes looked at to tell whether a file in a folder is text

OnBytes = Callable[[int], None]


@dataclass(frozen=True)
class Piece:
    """A document, or part of one that is longer than a block; `ends` on its last piece."""

    text: str
    ends: bool = True


@dataclass(frozen=True)
class SourceFile:
    """A file to read. `optional`: found in a folder, so left out when it is not text."""

    path: Path
    optional: bool = False


def documents(lab: Lab, name: str) -> Iterator[str]:
    """The corpus's documents in order; one above about a megabyte comes in consecutive pieces.

    Raises CorpusError when the corpus is unknown, not there yet, empty, or not text.
    """
    for piece in pieces(find_corpus(lab, name)):
        yield piece.text


def pieces(entry: CorpusEntry, on_bytes: OnBytes | None = None) -> Iterator[Piece]:
    """Every document of `entry` in pieces. `on_bytes` hears how many source bytes were read.

    Raises CorpusError as `documents` does, and when no file holds any text.
    """
    require_available(entry)
    count = on_bytes or (lambda _: None)
    text_seen = False
    for piece in _all_pieces(entry, count):
        text_seen = text_seen or not piece.text.isspace()
        yield piece
    if not text_seen:
        where = f" ('{entry.path}')" if entry.path else ""
        raise CorpusError(f"corpus '{entry.name}' is empty{where}", "it holds no text to learn")


def require_available(entry: CorpusEntry) -> None:
    """Raise CorpusError with what to do when the text of `entry` is not on this machine."""
    if entry.available:
        return
    if entry.kind == "python-docs":
        raise CorpusError(
            "this Python was installed without its help topics (pydoc_data)",
            "choose another corpus, as python-stdlib or tiny",
        )
    if entry.kind == "python-stdlib":
        raise CorpusError("this Python was installed without its library's source")
    if entry.kind == "files":
        gone = next((path for path in entry.paths if not path.exists()), entry.paths[0])
        raise CorpusError(f"corpus '{entry.name}': '{gone}' is not there", "was it moved?")
    command = f"tui-lab corpus fetch {entry.name}"
    raise CorpusError(
        f"corpus '{entry.name}' is not here yet",
        f"run: {command}" if entry.url else f"run: {command} --from FILE",
    )


def source_files(entry: CorpusEntry) -> list[SourceFile]:
    """The files that `entry` is read from, in order; none for the help topics."""
    if entry.kind == "python-docs":
        return []
    if entry.kind == "python-stdlib":
        return [SourceFile(path, optional=True) for path in interpreter.library_files()]
    if entry.kind == "text":
        return [SourceFile(entry.path)] if entry.path else []
    found = []
    for path in entry.paths:
        if path.is_dir():
            found += [SourceFile(file, optional=True) for file in _walk(path)]
        else:
            found.append(SourceFile(path))
    return found


def is_text(path: Path) -> bool:
    """Whether the file begins as text, or is of a format that holds text. Raises OSError."""
    if path.suffix == ".parquet":
        return True
    with _open(path) as file:
        try:
            head = file.read(PEEK)
        except (OSError, EOFError, zlib.error):
            return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if not name.startswith(".") and path.is_file() and path.stat().st_size:
                yield path


def _all_pieces(entry: CorpusEntry, count: OnBytes) -> Iterator[Piece]:
    if entry.kind == "python-docs":
        for text in interpreter.help_topics():
            count(len(text.encode()))
            yield Piece(text)
        return
    for source in source_files(entry):
        try:
            if source.optional and not is_text(source.path):
                count(source.path.stat().st_size)
                continue
            yield from _file_pieces(source.path, entry.field, count)
        except (OSError, EOFError, zlib.error) as error:
            reason = getattr(error, "strerror", None) or error
            raise CorpusError(
                f"cannot read '{source.path}': {reason}", "check that it is whole and readable"
            ) from error


def _file_pieces(path: Path, field: str, count: OnBytes) -> Iterator[Piece]:
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    if path.suffix == ".parquet":
        yield from _parquet_pieces(path, field)
        count(path.stat().st_size)
        return
    with path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        counted = _Counted(raw, count)
        if plain.suffix in (".jsonl", ".ndjson"):
            yield from _json_pieces(file, path, field, counted)
        else:
            yield from _text_pieces(file, path, counted)


class _Counted:
    """Tells how far the file on disk has been read, compressed or not."""

    def __init__(self, raw: BinaryIO, count: OnBytes) -> None:
        self._raw, self._count, self._told = raw, count, 0

    def __call__(self) -> None:
        position = self._raw.tell()
        self._count(position - self._told)
        self._told = position


def _open(path: Path) -> BinaryIO:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _text_pieces(file: BinaryIO, path: Path, counted: _Counted) -> Iterator[Piece]:
    """The whole file as one document, in pieces that end at a line's end where there is one."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, held, first = 0, "", True
    while True:
        block = file.read(BLOCK)
        text = _decode(decoder, block, offset, path)
        offset += len(block)
        counted()
        if first:
            text, first = text.removeprefix("\ufeff"), False
        # What is held back is never empty, so that the last piece can say that it is the last.
        text, held = held + text, ""
        if not block:
            if text:
                yield Piece(text)
            return
        cut = text.rfind("\n", 0, len(text) - 1) + 1 or text.rfind(" ", 0, len(text) - 1) + 1
        if not cut and len(text) > BLOCK:
            cut = len(text) - 1
        if cut:
            yield Piece(text[:cut], ends=False)
        held = text[cut:]


def _decode(decoder: codecs.IncrementalDecoder, block: bytes, offset: int, path: Path) -> str:
    zero = block.find(b"\0")
    try:
        text = decoder.decode(block if zero < 0 else block[:zero], final=not block)
    except UnicodeDecodeError as error:
        # The decoder counts from the unfinished character that it kept of the block before.
        kept = len(error.object) - len(block if zero < 0 else block[:zero])
        at = offset - kept + error.start
        raise CorpusError(
            f"'{path}' is not UTF-8 text: byte offset {at} (0x{error.object[error.start]:02x})",
            "convert it to UTF-8, as iconv does",
        ) from None
    if zero >= 0:
        raise CorpusError(
            f"'{path}' is binary: NUL byte at byte offset {offset + zero}",
            "a corpus is text; extract it first",
        )
    return text


def _json_pieces(file: BinaryIO, path: Path, field: str, counted: _Counted) -> Iterator[Piece]:
    """One document a line: the text under `field`. Empty texts are left out."""
    for number, line in enumerate(file, start=1):
        if number % 64 == 1:
            counted()
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise CorpusError(f"'{path}' line {number} is not JSON: {error}") from None
        if not isinstance(record, dict) or field not in record:
            keys = record if isinstance(record, dict) else ()
            raise CorpusError(
                f"'{path}' line {number} has no field '{field}'", _field_hint(field, keys)
            )
        text = record[field]
        if not isinstance(text, str):
            raise CorpusError(f"'{path}' line {number}: field '{field}' is not a text")
        if text:
            # A lone surrogate is legal in JSON and in no encoding.
            yield Piece(text.encode("utf-8", "replace").decode())
    counted()


def _parquet_pieces(path: Path, field: str) -> Iterator[Piece]:
    """One document a row: the text in column `field`."""
    try:
        from pyarrow import ArrowException, types
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise CorpusError(
            f"'{path}' is Parquet, which needs pyarrow", "run: pip install 'tui-lab[parquet]'"
        ) from None
    try:
        with ParquetFile(path) as table:
            schema = table.schema_arrow
            if field not in schema.names:
                raise CorpusError(
                    f"'{path}' has no column '{field}'", _field_hint(field, schema.names)
                )
            kind = schema.field(field).type
            if not (types.is_string(kind) or types.is_large_string(kind)):
                raise CorpusError(f"'{path}': column '{field}' holds {kind}, not text")
            for batch in table.iter_batches(batch_size=256, columns=[field]):
                for value in batch.column(0):
                    if text := value.as_py():
                        yield Piece(text)
    except ArrowException as error:
        raise CorpusError(f"cannot read '{path}' as Parquet: {error}") from None


def _field_hint(field: str, known: object) -> str:
    near = did_you_mean(field, [str(name) for name in known])  # type: ignore[union-attr]
    return f"name it with --field; {near}" if near else "name it with --field"
