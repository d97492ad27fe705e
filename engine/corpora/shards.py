"""A prepared corpus on disk: token shards, where documents begin, and a manifest that binds them.

    <corpus>-<tokenizer>-<digest>/
      shard-00000.bin …   tokens, little-endian uint16 or uint32, 64 Mi a shard
      documents.bin       int64: the token index at which each document begins
      manifest.json       counts, sizes and SHA-256 of the above, digests of corpus and tokenizer

A folder under its final name is complete: it was built under another one and renamed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np

from engine import atomic
from engine.corpora.digest import file_digest
from engine.data import TokenStream, map_file
from engine.errors import CorpusError

FORMAT = 1
SHARD_TOKENS = 64 << 20
MANIFEST = "manifest.json"
DOCUMENTS = "documents.bin"


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
        """All tokens, mapped into memory. Raises CorpusError when a shard cannot be opened."""
        try:
            return TokenStream.from_files(
                [self.path / name for name, _, _ in self.shards], self.dtype
            )
        except OSError as error:
            raise _damaged(self.path, f"{error.filename}: {error.strerror}") from None

    def document_starts(self) -> np.ndarray:
        """The token index at which each document begins: (n_documents,) int64, ascending."""
        try:
            return map_file(self.path / DOCUMENTS, "<i8")
        except OSError as error:
            raise _damaged(self.path, f"{DOCUMENTS}: {error.strerror}") from None

    @property
    def size(self) -> int:
        """Bytes of the shards on disk."""
        return self.n_tokens * np.dtype(self.dtype).itemsize

    def verify(self) -> list[str]:
        """What is wrong with the files' content, in words; reads and hashes all of them."""
        expected = {name: sha256 for name, _, sha256 in self.shards}
        expected[DOCUMENTS] = self.documents_sha256
        return [
            f"{name}: its content is not what was written"
            for name, sha256 in expected.items()
            if file_digest(self.path / name) != sha256
        ]


def open_prepared(path: Path) -> Prepared:
    """The prepared corpus in folder `path`; sizes are checked, contents are not.

    Raises CorpusError when it is absent or damaged.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            raise _damaged(path, f"format {manifest['format']}, this version reads {FORMAT}")
        prepared = Prepared(
            path=path,
            shards=tuple((s["file"], s["tokens"], s["sha256"]) for s in manifest["shards"]),
            **{name: manifest[name] for name in _PLAIN},
        )
        width = np.dtype(prepared.dtype).itemsize
        sizes = {name: tokens * width for name, tokens, _ in prepared.shards}
        sizes[DOCUMENTS] = prepared.n_documents * 8
        if sum(tokens for _, tokens, _ in prepared.shards) != prepared.n_tokens:
            raise _damaged(path, "the shards do not add up to its tokens")
        for name, size in sizes.items():
            found = (path / name).stat().st_size
            if found != size:
                raise _damaged(path, f"{name} has {found} bytes, {size} were written")
    except OSError as error:
        name = Path(error.filename).name if error.filename else MANIFEST
        raise _damaged(path, f"{name}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, f"{MANIFEST}: {error!r}") from None
    return prepared


_PLAIN = (
    "corpus", "tokenizer", "n_tokens", "n_bytes", "n_documents", "digest",
    "corpus_digest", "tokenizer_digest", "dtype", "documents_sha256",
)  # fmt: skip


def _damaged(path: Path, what: str) -> CorpusError:
    return CorpusError(f"prepared corpus '{path}' is damaged: {what}", f"remove it: rm -r '{path}'")


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
                self._file = _HashedFile(self._path / f"shard-{len(self._shards):05}.bin")
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
        atomic.write_json(self._path / MANIFEST, manifest)

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
