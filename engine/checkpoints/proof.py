"""Whether a checkpoint is what was saved: every byte against the manifest's sizes and hashes.

Reads the whole checkpoint once, in pieces; needs no torch and little memory whatever the files
claim. A manifest carries a hash of itself (SHA-256), so a flipped bit in it is found as well.

Formats of the manifest: 1 names the SHA-256 of each file, 2 its XXH3; all else is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.checkpoints import hashes, layout
from engine.checkpoints.layout import CheckpointInfo, describe, list_checkpoints
from engine.checkpoints.tensors import open_regular, parse_json, read_header, read_json
from engine.errors import CheckpointError

FORMAT = 2
READABLE = (1, 2)
CHUNK = 4 << 20


def render_manifest(body: dict[str, Any]) -> bytes:
    """The manifest's bytes: `body` and, as its last field, the hash of `body` so written."""
    digest = hashlib.sha256(_canonical(body)).hexdigest()
    return _canonical({**body, "sha256": digest})


def _canonical(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=True) + "\n").encode()


def read_manifest(path: Path) -> dict[str, Any]:
    """The checked manifest of the checkpoint at `path`. Raises CheckpointError."""
    file_path = path / layout.MANIFEST
    with open_regular(file_path) as file:
        data = file.read(1_000_001)
    if len(data) > 1_000_000:
        raise CheckpointError(f"'{file_path}' is too large to be a manifest")
    manifest = parse_json(data, file_path)
    digest = manifest.pop("sha256", None)
    if render_manifest(manifest) != data or not isinstance(digest, str):
        raise CheckpointError(f"'{file_path}' is damaged", "its own hash does not match")
    if manifest.get("format") not in READABLE:
        raise CheckpointError(
            f"'{file_path}' has format {manifest.get('format')!r:.40}, this version reads "
            f"{' and '.join(map(str, READABLE))}",
            "a newer tui-lab may read it",
        )
    files = manifest.get("files")
    if not isinstance(files, dict) or not {layout.MODEL, layout.META} <= files.keys():
        raise CheckpointError(f"'{file_path}' names no model")
    for name, entry in files.items():
        plain = name == Path(name).name and not name.startswith(".")
        if not plain or not isinstance(entry, dict) or type(entry.get("bytes")) is not int:
            raise CheckpointError(f"'{file_path}' has no valid entry for {name!r:.80}")
    numbers = layout.parse_step_name(path.name)
    if numbers and manifest.get("step") != numbers[0]:
        raise CheckpointError(
            f"'{path}' holds step {manifest.get('step')!r:.20}, not {numbers[0]}",
            "its folder was renamed or its files come from another checkpoint",
        )
    return manifest


def verify(path: Path, progress: Callable[[int], None] = lambda done: None) -> list[str]:
    """What is wrong with the checkpoint at `path`, in words; empty when every byte is as saved.

    Every file is looked at, whatever is wrong with another. `progress(bytes read so far)` is called
    every few megabytes.
    """
    if path.is_symlink():
        return [f"'{path}' is a symbolic link: it is not followed"]
    if not path.is_dir():
        return [f"'{path}' is not a checkpoint's folder"]
    try:
        manifest = read_manifest(path)
    except CheckpointError as error:
        return [error.title]
    except OSError as error:  # a disk that fails opens files and does not read them
        return [f"cannot read '{path / layout.MANIFEST}': {error.strerror}"]
    problems, done = [], 0

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        progress(done)

    for name, entry in manifest["files"].items():
        try:
            check_file(path / name, entry, on_bytes)
            if name.endswith(".safetensors"):
                read_header(path / name)
            else:
                read_json(path / name)
        except CheckpointError as error:
            problems.append(error.title)
        except OSError as error:
            problems.append(f"cannot read '{path / name}': {error.strerror}")
    return problems


def check_facts(path: Path) -> None:
    """Raise CheckpointError unless manifest and meta data of the checkpoint are as they were saved;
    reads no tensor."""
    check_file(path / layout.META, read_manifest(path)["files"][layout.META])


def check_file(
    path: Path, entry: dict[str, Any], on_bytes: Callable[[int], None] = lambda count: None
) -> None:
    """Raise CheckpointError unless the file has the size and hash that the manifest names."""
    digest, buffer = hashes.matching(entry), memoryview(bytearray(CHUNK))
    with open_regular(path) as file:
        check_size(path, os.fstat(file.fileno()).st_size, entry)
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
            on_bytes(count)
    check_digest(path, digest, entry)


def check_size(path: Path, size: int, entry: dict[str, Any]) -> None:
    if size != entry["bytes"]:
        raise CheckpointError(f"'{path}' has {size} bytes, the manifest says {entry['bytes']}")


def check_digest(path: Path, digest: hashes.Hash, entry: dict[str, Any]) -> None:
    if digest.hexdigest() != hashes.promised(entry)[1]:
        raise CheckpointError(
            f"'{path}' is damaged: its hash is not the one it was saved with",
            "another checkpoint of the run may be good: tui-lab checkpoints verify --all",
        )


def check_belongs(info: CheckpointInfo, tokenizer_digest: str, corpus_digest: str) -> None:
    """Raise CheckpointError unless the checkpoint was made with this tokenizer and this prepared
    corpus: its weights would load beside others all the same, and go on to learn nonsense.

    A checkpoint whose manifest names no digests was saved without a run and belongs anywhere.
    """
    digests = read_manifest(info.path).get("digests")
    if not isinstance(digests, dict):
        return
    for what, digest in (("tokenizer", tokenizer_digest), ("corpus", corpus_digest)):
        if digests.get(what, digest) != digest:
            raise CheckpointError(
                f"the {what} is not what run '{info.run}' was trained on ({info.path.name})",
                f"put the old {what} back, or start a new run",
            )


def newest_verified(run_path: Path) -> tuple[CheckpointInfo | None, list[str]]:
    """The newest sound checkpoint of a run, and what is wrong with the newer ones passed over.

    (None, []) means that the run has no checkpoint; (None, problems) that none of them is sound.
    """
    while True:
        problems: list[str] = []
        deleted = False  # by the run's retention, since they were listed: a newer one is there
        for path in layout.newest_first(run_path):
            found = verify(path)
            if not found:
                beside = {info.path: info for info in list_checkpoints(run_path)}
                return beside.get(path) or describe(path), problems
            if path.exists():
                problems += found
            else:
                deleted = True
        if not deleted:
            return None, problems
