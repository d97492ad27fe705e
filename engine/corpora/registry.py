"""Which corpora there are: the shipped registry behind the lab's own.

Three files are read, the later winning by name: the shipped `registry.toml`, the lab's own
`corpus/registry.toml` (written by people), and `corpus/added.toml` (written by `add`). Knows where
a corpus lies and under what licence; does not read its text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.corpora import interpreter
from engine.errors import CorpusError, did_you_mean
from engine.lab import Lab
from engine.toml import read_toml

KINDS = ("python-docs", "python-stdlib", "text", "files")
ADDED = "added.toml"


@dataclass(frozen=True)
class CorpusEntry:
    """One registered corpus. `path` and `bytes` are None while its text is not there.

    `sha256` is that of the file a fetch must yield (empty: none was stated), or, for a corpus that
    was added, its content when it was added. `paths` are the files and folders of kind `files`;
    `field` is the JSONL field or Parquet column that holds the text.
    """

    name: str
    kind: str
    title: str = ""
    source: str = ""
    licence: str = ""
    sha256: str = ""
    url: str = ""
    note: str = ""
    file: str = ""
    field: str = "text"
    paths: tuple[Path, ...] = ()
    path: Path | None = None
    available: bool = False
    bytes: int | None = None
    own: bool = False


_TEXT_FIELDS = ("title", "kind", "source", "licence", "sha256", "url", "note", "file", "field")
_KNOWN = {*_TEXT_FIELDS, "bytes", "paths"}


def list_corpora(lab: Lab) -> list[CorpusEntry]:
    """Every registered corpus, the lab's own first, then by the registry's order.

    Raises CorpusError when a registry file cannot be read or has a wrong entry.
    """
    found = read_entries(lab)
    return sorted(found.values(), key=lambda entry: not entry.own)


def find_corpus(lab: Lab, name: str) -> CorpusEntry:
    """The corpus called `name`. Raises CorpusError naming the nearest known one."""
    found = read_entries(lab, only=name)
    if name in found:
        return found[name]
    raise CorpusError(f"unknown corpus '{name}'", did_you_mean(name, read_entries(lab)))


def read_entries(lab: Lab, only: str | None = None) -> dict[str, CorpusEntry]:
    """The entries by name; `only` reads no more than that one (sizes take a moment)."""
    found: dict[str, CorpusEntry] = {}
    for place in reversed(lab.places("corpus")):
        for file in ("registry.toml", ADDED):
            path = place / file
            own = place == lab.corpus and (file == ADDED or len(lab.places("corpus")) > 1)
            for name, values in read_registry(path).items():
                if only is None or name == only:
                    entry = _entry(name, values, path)
                    found[name] = _locate(replace(entry, own=own), lab, place)
    return found


def read_registry(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of one registry file; none when there is no such file. Raises CorpusError."""
    try:
        tables = read_toml(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise CorpusError(f"cannot read '{path}': {error.strerror}") from None
    except ValueError as error:
        raise CorpusError(f"'{path}' is not valid TOML: {error}", "fix or remove it") from None
    for name, values in tables.items():
        if not isinstance(values, dict):
            raise CorpusError(f"{path}: '{name}' must be a section", f"write [{name}] above it")
    return tables


def _entry(name: str, values: dict[str, Any], path: Path) -> CorpusEntry:
    for key, value in values.items():
        if key not in _KNOWN:
            raise CorpusError(f"{path}: [{name}] has an unknown key '{key}'", _near(key))
        wanted = int if key == "bytes" else list if key == "paths" else str
        if not isinstance(value, wanted):
            raise CorpusError(f"{path}: [{name}] {key} must be a {wanted.__name__}")
    kind = values.get("kind", "files" if "paths" in values else "text")
    if kind not in KINDS:
        raise CorpusError(f"{path}: [{name}] kind = '{kind}'", f"one of {', '.join(KINDS)}")
    if kind == "files" and not values.get("paths"):
        raise CorpusError(f"{path}: [{name}] has no paths", 'add: paths = ["folder/file.txt"]')
    known = {field.name for field in fields(CorpusEntry)}
    plain = {key: value for key, value in values.items() if key in known and key != "paths"}
    paths = tuple(Path(item).expanduser() for item in values.get("paths", ()))
    return CorpusEntry(**(plain | {"name": name, "kind": kind, "paths": paths}))


def _near(key: str) -> str:
    return did_you_mean(key, _KNOWN)


def _locate(entry: CorpusEntry, lab: Lab, place: Path) -> CorpusEntry:
    """`entry` with where its text lies now and how much there is."""
    if entry.kind == "python-docs":
        size = interpreter.docs_bytes()
        return replace(entry, available=size > 0, bytes=size or None)
    if entry.kind == "python-stdlib":
        folder = interpreter.library()
        size = interpreter.library_bytes()
        return replace(entry, path=folder, available=size > 0, bytes=size or None)
    if entry.kind == "files":
        # Relative paths are read from the folder of the registry that names them.
        paths = tuple(path if path.is_absolute() else place / path for path in entry.paths)
        there = all(path.exists() for path in paths)
        size = entry.bytes
        if there and size is None and all(path.is_file() for path in paths):
            size = sum(path.stat().st_size for path in paths)
        return replace(entry, paths=paths, path=paths[0], available=there, bytes=size)
    file = entry.file or f"{entry.name}.txt"
    if Path(file).name != file:
        raise CorpusError(f"corpus '{entry.name}': file = '{file}' must be a plain file name")
    for folder in (lab.corpus, place):
        path = folder / file
        if path.is_file():
            size = path.stat().st_size
            return replace(entry, file=file, path=path, available=True, bytes=size)
    return replace(entry, file=file)
