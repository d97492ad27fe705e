"""Damage is found, named, and never loaded; hostile files end in a typed error."""

from __future__ import annotations

import hashlib
import json
import os
import random
from contextlib import suppress
from pathlib import Path

import pytest

from engine.checkpoints import (
    check_belongs,
    describe,
    inspect,
    list_checkpoints,
    newest_verified,
    verify,
)
from engine.checkpoints.load import load_training, load_weights
from engine.checkpoints.proof import render_manifest
from engine.checkpoints.save import save
from engine.checkpoints.tensors import MAX_HEADER, read_header, read_json
from engine.errors import CheckpointError
from tests.engine.checkpoints.making import checkpoint, flip, meta, tensors, training_tensors

FILES = ("model.safetensors", "training.safetensors", "state.json", "meta.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_found_in_any_file(tmp_path: Path, name: str) -> None:
    """safetensors alone loads a flipped bit silently: the hashes do not, and name the file."""
    path = checkpoint(tmp_path, 1)
    whole = (path / name).read_bytes()
    for position in random.Random(5).sample(range(len(whole)), 12):
        (path / name).write_bytes(whole)
        flip(path / name, position)
        problems = verify(path)
        assert problems
        assert name in problems[0]


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_checkpoint_of_the_first_format_is_proven_and_loaded(tmp_path: Path, name: str) -> None:
    """Its files' hashes are SHA-256: as good as ever, and as quick to find a flipped bit."""
    path = checkpoint(tmp_path, 1)
    manifest = read_json(path / "manifest.json")
    assert manifest["format"] == 2
    assert all("sha256" not in entry for entry in manifest["files"].values())
    manifest.pop("sha256")
    manifest["format"] = 1
    for file, facts in manifest["files"].items():
        digest = hashlib.sha256((path / file).read_bytes()).hexdigest()
        manifest["files"][file] = {"bytes": facts["bytes"], "sha256": digest}
    (path / "manifest.json").write_bytes(render_manifest(manifest))
    (info,) = list_checkpoints(tmp_path)
    assert verify(path) == []
    assert load_weights(info).keys() == tensors().keys() - {"lm_head.weight"}
    assert load_training(info).tensors
    flip(path / name, 30)
    assert name in verify(path)[0]


@pytest.mark.parametrize("entry", [{}, {"md5": "0"}, {"xxh3_128": None}, {"sha256": 5}])
def test_a_file_without_a_known_hash_is_not_proven(tmp_path: Path, entry: dict) -> None:
    path = checkpoint(tmp_path, 1)
    manifest = read_json(path / "manifest.json")
    manifest.pop("sha256")
    size = manifest["files"]["model.safetensors"]["bytes"]
    manifest["files"]["model.safetensors"] = {"bytes": size} | entry
    (path / "manifest.json").write_bytes(render_manifest(manifest))
    assert "model.safetensors" in verify(path)[0]
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_weights(list_checkpoints(tmp_path)[0])


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["gone", "empty", "short", "link", "folder", "pipe"])
def test_every_damage_is_found(tmp_path: Path, name: str, damage: str) -> None:
    path = checkpoint(tmp_path, 1)
    file = path / name
    whole = file.read_bytes()
    file.unlink()
    if damage == "empty":
        file.touch()
    elif damage == "short":
        file.write_bytes(whole[:-2])
    elif damage == "link":
        elsewhere = tmp_path / "elsewhere"
        elsewhere.write_bytes(whole)
        file.symlink_to(elsewhere)
    elif damage == "folder":
        file.mkdir()
    elif damage == "pipe":
        os.mkfifo(file)
    problems = verify(path)
    assert problems
    assert name in problems[0]
    assert not list_checkpoints(tmp_path)[0].complete or damage == "link"


def test_the_previous_checkpoint_is_used_and_the_broken_one_named(tmp_path: Path) -> None:
    checkpoint(tmp_path, 1)
    broken = checkpoint(tmp_path, 2)
    flip(broken / "model.safetensors")
    newest, problems = newest_verified(tmp_path)
    assert newest is not None
    assert newest.step == 1
    assert "step_000002" in problems[0]
    info = list_checkpoints(tmp_path)[1]
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_weights(info)
    flip(broken / "training.safetensors")
    with pytest.raises(CheckpointError, match=r"training\.safetensors"):
        load_training(info)


def test_files_of_another_checkpoint_are_found(tmp_path: Path) -> None:
    """Swapped files and a renamed folder: each sound in itself, and not what the name says."""
    one, two = checkpoint(tmp_path, 1), checkpoint(tmp_path, 2, seed=1)
    (one / "model.safetensors").write_bytes((two / "model.safetensors").read_bytes())
    assert "model.safetensors" in verify(one)[0]
    two.rename(tmp_path / "step_000009")
    assert "holds step 2, not 9" in verify(tmp_path / "step_000009")[0]


def test_every_broken_file_is_named_and_the_reading_is_told(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 1)
    flip(path / "model.safetensors")
    (path / "state.json").unlink()
    told: list[int] = []
    problems = verify(path, told.append)
    assert len(problems) == 2
    assert "model.safetensors" in "".join(problems)
    assert "state.json" in "".join(problems)
    sizes = [(path / name).stat().st_size for name in FILES if (path / name).exists()]
    assert told[-1] == sum(sizes) - (path / "manifest.json").stat().st_size


def test_facts_are_proven_before_training_goes_on(tmp_path: Path) -> None:
    """What meta.json says is believed when a run is resumed, though no tensor needs it."""
    path = checkpoint(tmp_path, 1)
    flip(path / "meta.json", 30)
    with pytest.raises(CheckpointError, match=r"meta\.json"):
        load_training(list_checkpoints(tmp_path)[0])


def test_a_checkpoint_belongs_to_its_tokenizer_and_its_corpus(tmp_path: Path) -> None:
    """Of the same shape with another tokenizer all loads, and what is learned on is nonsense."""
    facts = meta(1) | {"digests": {"tokenizer": "t", "corpus": "c"}}
    save(tmp_path, tensors(), training_tensors(), {"progress": {}}, facts)
    info = list_checkpoints(tmp_path)[0]
    check_belongs(info, "t", "c")
    with pytest.raises(CheckpointError, match="the tokenizer is not what run"):
        check_belongs(info, "other", "c")
    with pytest.raises(CheckpointError, match="the corpus is not what run"):
        check_belongs(info, "t", "other")
    check_belongs(describe(checkpoint(tmp_path, 2)), "any", "any")


def test_a_manifest_cannot_point_outside(tmp_path: Path) -> None:
    """A name with a separator in the manifest is refused before any file is opened."""
    path = checkpoint(tmp_path, 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("sha256")
    manifest["files"]["../../secret"] = {"bytes": 1, "sha256": "0"}
    (path / "manifest.json").write_bytes(render_manifest(manifest))
    assert "no valid entry" in verify(path)[0]


def header(value: object) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE = {
    "nothing": b"",
    "a length alone": (8).to_bytes(8, "little"),
    "a length beyond the file": (10**12).to_bytes(8, "little") + b"{}",
    "the largest length": b"\xff" * 8 + b"{}",
    "no JSON": header(b"{nonsense"),
    "no object": header(b"[]      "),
    "not UTF-8": header(b'{"\xff\xfe": 1}'),
    "deep nesting": header(b'{"a":' + b"[" * 200_000),
    "a huge number": header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 10_000 + b"]}}"),
    "a name twice": header(b'{"a":%b,"a":%b}' % ((json.dumps(entry()).encode(),) * 2)) + bytes(8),
    "a separator in a name": header({"../a": entry()}) + bytes(8),
    "an entry that is a list": header({"a": []}),
    "an unknown type": header({"a": entry(dtype="F33")}) + bytes(8),
    "a type that is a list": header({"a": entry(dtype=[])}) + bytes(8),
    "a negative size": header({"a": entry(shape=[-2])}) + bytes(8),
    "a size that is true": header({"a": entry(shape=[True, 2])}) + bytes(8),
    "a size that is a float": header({"a": entry(shape=[2.0])}) + bytes(8),
    "a product that overflows": header({"a": entry(shape=[2**62] * 60)}) + bytes(8),
    "bytes that do not fit the shape": header({"a": entry(shape=[3])}) + bytes(8),
    "offsets in the wrong order": header({"a": entry(offsets=[8, 0])}) + bytes(8),
    "three offsets": header({"a": entry(offsets=[0, 8, 8])}) + bytes(8),
    "offsets beyond the file": header({"a": entry(offsets=[0, 8])}) + bytes(4),
    "bytes that nobody owns": header({"a": entry()}) + bytes(9),
    "a hole": header({"a": entry(offsets=[4, 12])}) + bytes(12),
    "an overlap": header({"a": entry(), "b": entry(offsets=[4, 12])}) + bytes(12),
    "metadata that is no text": header({"__metadata__": {"a": 1}}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_headers_end_in_a_typed_error(tmp_path: Path, what: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(HOSTILE[what])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_header(file)


def test_a_header_longer_than_the_bound_is_not_read(tmp_path: Path) -> None:
    """A sparse file may claim gigabytes of header without having them on the disk."""
    file = tmp_path / "model.safetensors"
    with open(file, "wb") as out:
        out.write((MAX_HEADER + 1).to_bytes(8, "little"))
        out.truncate(MAX_HEADER + 100)
    with pytest.raises(CheckpointError, match="claims"):
        read_header(file)


def test_mutated_checkpoints_never_crash_a_reader(tmp_path: Path) -> None:
    """Random bytes overwritten anywhere: found by verify, and a typed error or a description."""
    path = checkpoint(tmp_path, 1)
    originals = {name: (path / name).read_bytes() for name in FILES}
    rng = random.Random(11)
    for _ in range(300):
        name = rng.choice(FILES)
        data = bytearray(originals[name])
        for _ in range(rng.choice((1, 4, 40))):
            place = rng.randrange(min(len(data), 2000))
            data[place : place + 1] = rng.randbytes(rng.choice((0, 1, 1, 2)))
        (path / name).write_bytes(data)
        if data != originals[name]:
            assert verify(path)
        list_checkpoints(tmp_path)
        with suppress(CheckpointError):
            inspect(path).config  # noqa: B018
        (path / name).write_bytes(originals[name])
    assert verify(path) == []
