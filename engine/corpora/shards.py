"""A prepared corpus on disk: token shards, where documents begin, and a manifest that binds them.

    <corpus>-<tokenizer>-<digest>/
      shard-00000.bin …   tokens, little-endian uint16 or uint32, 64 Mi a shard
      documents.bin       int64: the token index at which each document begins
      manifest.json       counts, sizes and SHA-256 of the above and of itself, digests of corpus
                          and tokenizer

A folder under its final name is complete: it was built under another one and renamed. A file in it
that is newer than the manifest, which was written last, was changed since.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from engine import atomic
from engine.corpora.digest import Progress, file_digest
from engine.errors import CorpusError
from engine.plain_file import read_plain
from engine.stream import REMEDY, NumberFile, TokenStream, fits_memory

FORMAT = 1
SHARD_TOKENS = 64 << 20
MANIFEST = "manifest.json"
DOCUMENTS = "documents.bin"
MANIFEST_LIMIT = 64 << 20  # bytes: some 10¹³ tokens


@dataclass(frozen=True)
class Prepared:
    """Token shards that were checked for presence and size. `n_bytes`: UTF-8 bytes of the text."""

    path: Path
    corpus: str
    tokenizer: str
    n_tokens: int
    n_bytes: int
    n_documents: int
    digest: str
    corpus_digest: str
    tokenizer_digest: str
    dtype: str
    shards: tuple[tuple[str, int, str], ...]  # (file, tokens, sha256)
    documents_sha256: str

    def tokens(self) -> TokenStream:
        """All tokens, to learn or measure from: what was prepared, or CorpusError.

        A small corpus is read into memory and compared with its hash. A larger one stays where it
        lies, and is as it was when this was first called: `prepare` calls it before it judges.
        """
        return self._tokens

    @cached_property
    def _tokens(self) -> TokenStream:
        return TokenStream.open(self._shard_files, self.dtype)

    def peek(self) -> TokenStream:
        """All tokens, to look at some: nothing is held, and only sizes are checked."""
        return TokenStream.watch(self._shard_files, self.dtype)

    def document_starts(self) -> TokenStream:
        """The token index at which each document begins, ascending. Raises CorpusError."""
        file = NumberFile(self.path / DOCUMENTS, self.n_documents, self.documents_sha256)
        return TokenStream.open([file], "<i8")

    @property
    def is_held(self) -> bool:
        """Whether `tokens` reads all of it into memory, and so checks its content."""
        return fits_memory(self._shard_files, self.dtype)

    @property
    def _shard_files(self) -> list[NumberFile]:
        return [NumberFile(self.path / name, *rest) for name, *rest in self.shards]

    @property
    def size(self) -> int:
        """Bytes of the shards on disk."""
        return self.n_tokens * np.dtype(self.dtype).itemsize

    def verify(self, progress: Progress | None = None) -> list[str]:
        """What is wrong with the files' content, in words; reads and hashes all of them."""
        expected = {name: sha256 for name, _, sha256 in self.shards}
        expected[DOCUMENTS] = self.documents_sha256
        problems, done = [], 0
        for name, sha256 in expected.items():
            if file_digest(self.path / name, progress, done, self.size) != sha256:
                problems.append(f"{name}: its content is not what was written")
            done += (self.path / name).stat().st_size
        return problems

    def last_change(self) -> tuple[int, str]:
        """When the last of its files but the manifest was changed (ns), and which that is.

        Raises CorpusError when one is gone.
        """
        names = [*(name for name, _, _ in self.shards), DOCUMENTS]
        try:
            return max((_changed_at(self.path / name), name) for name in names)
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def changed_file(self) -> str:
        """A file that is newer than the manifest: perhaps changed, perhaps only copied. Empty when
        there is none. Raises CorpusError when one is gone."""
        changed, name = self.last_change()
        try:
            return name if changed > _changed_at(self.path / MANIFEST) else ""
        except OSError as error:
            raise _unreadable(self.path, error) from None


def _changed_at(path: Path) -> int:
    """The time of the inode counts too: it is set by what keeps the time of the content, as moving
    another file here does."""
    stat = path.stat()
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def open_prepared(path: Path) -> Prepared:
    """The prepared corpus in folder `path`; sizes are checked, contents are not.

    Raises CorpusError when it is absent or damaged.
    """
    try:
        manifest = json.loads(read_plain(path / MANIFEST, MANIFEST_LIMIT, follow=True))
        if manifest.pop("sha256") != _seal(manifest):
            raise _damaged(path, f"{MANIFEST}: its content is not what was written")
        if manifest["format"] != FORMAT:
            raise _damaged(path, f"format {manifest['format']}, this version reads {FORMAT}")
        prepared = Prepared(
            path=path,
            shards=tuple((s["file"], s["tokens"], s["sha256"]) for s in manifest["shards"]),
            **{name: manifest[name] for name in (*_WORDS, *_COUNTS)},
        )
        if problem := _implausible(prepared):
            raise _damaged(path, f"{MANIFEST}: {problem}")
        width = np.dtype(prepared.dtype).itemsize
        sizes = {name: tokens * width for name, tokens, _ in prepared.shards}
        sizes[DOCUMENTS] = prepared.n_documents * 8
        for name, size in sizes.items():
            found = (path / name).stat().st_size
            if found != size:
                raise _damaged(path, f"{name} has {found} bytes, {size} were written")
    except OSError as error:
        raise _unreadable(path, error) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{MANIFEST}: {error!r}") from None
    return prepared


_WORDS = (
    "corpus", "tokenizer", "digest", "corpus_digest", "tokenizer_digest", "dtype",
    "documents_sha256",
)  # fmt: skip
_COUNTS = ("n_tokens", "n_bytes", "n_documents")


def _seal(manifest: dict[str, Any]) -> str:
    """The hash of everything else in a manifest: a wrong count in it would be believed."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def _implausible(prepared: Prepared) -> str:
    """What no manifest that was written here says; the names in it must not lead elsewhere."""
    words = [getattr(prepared, name) for name in _WORDS] + [sha for *_, sha in prepared.shards]
    counts = [getattr(prepared, name) for name in _COUNTS]
    counts += [tokens for _, tokens, _ in prepared.shards]
    if not all(isinstance(word, str) for word in words):
        return "a word is missing"
    if not all(type(count) is int and count >= 0 for count in counts):
        return "a count is not one"
    if [name for name, *_ in prepared.shards] != [*map(_shard_name, range(len(prepared.shards)))]:
        return "shards are named out of order"
    if prepared.dtype not in ("<u2", "<u4"):
        return f"it holds {prepared.dtype}"
    if sum(tokens for _, tokens, _ in prepared.shards) != prepared.n_tokens:
        return "the shards do not add up to its tokens"
    return ""


def _shard_name(number: int) -> str:
    return f"shard-{number:05}.bin"


def _unreadable(path: Path, error: OSError) -> CorpusError:
    name = Path(error.filename).name if error.filename else MANIFEST
    return _damaged(path, f"{name}: {error.strerror}")


def _damaged(path: Path, what: str) -> CorpusError:
    return CorpusError(f"prepared corpus '{path}' is damaged: {what}", REMEDY)


class ShardWriter:
    """Writes tokens and document starts into folder `path`; `close` makes them durable."""

    def __init__(self, path: Path, dtype: str, shard_tokens: int = SHARD_TOKENS) -> None:
        self._path, self._dtype, self._limit = path, np.dtype(dtype), shard_tokens
        self._shards: list[dict[str, Any]] = []
        self._file: _HashedFile | None = None
        self._documents = _HashedFile(path / DOCUMENTS)
        self.n_tokens = self.n_documents = 0

    def begin_document(self) -> None:
        self._documents.write(np.array(self.n_tokens, "<i8").tobytes())
        self.n_documents += 1

    def write(self, tokens: np.ndarray) -> None:
        """Append `tokens`, beginning another shard where one is full."""
        tokens = np.ascontiguousarray(tokens, self._dtype)
        while len(tokens):
            if self._file is None:
                self._file = _HashedFile(self._path / _shard_name(len(self._shards)))
            used = self.n_tokens - len(self._shards) * self._limit
            part, tokens = np.split(tokens, [self._limit - used])
            self._file.write(part.data)
            self.n_tokens += len(part)
            if used + len(part) == self._limit:
                self._end_shard(self._limit)

    def close(self, facts: dict[str, Any]) -> None:
        """Flush everything to the disk, the manifest last; it carries `facts` beside the sizes."""
        if self._file is not None:
            self._end_shard(self.n_tokens - len(self._shards) * self._limit)
        manifest = {
            "format": FORMAT,
            **facts,
            "n_tokens": self.n_tokens,
            "n_documents": self.n_documents,
            "dtype": self._dtype.str,
            "documents_sha256": self._documents.close(),
            "shards": self._shards,
        }
        atomic.write_json(self._path / MANIFEST, manifest | {"sha256": _seal(manifest)})

    def _end_shard(self, tokens: int) -> None:
        assert self._file is not None
        sha256 = self._file.close()
        self._shards.append({"file": self._file.path.name, "tokens": tokens, "sha256": sha256})
        self._file = None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in (self._file, self._documents):
            if file is not None:
                file.abandon()


class _HashedFile:
    """A file being written, and the hash of what went into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = path.open("wb", buffering=1 << 20)
        self._digest = hashlib.sha256()

    def write(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self._digest.update(data)

    def close(self) -> str:
        """Flush to the disk; the SHA-256 of the whole content."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._digest.hexdigest()

    def abandon(self) -> None:
        """Close without caring whether what is buffered still fits on the disk."""
        try:
            self._file.close()
        except OSError:
            return
