"""A pickle is a program: refused where a checkpoint is expected, and run only when told to."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints import find_checkpoint
from engine.checkpoints.pickles import starts_pickle
from engine.checkpoints.tensors import lay_out, read_header
from engine.checkpoints.trusted import NeedsCode, read_trusted
from engine.errors import CheckpointError
from engine.lab import Lab


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = str(canary)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.canary,)


def payload(form: str, canary: Path) -> bytes:
    out = io.BytesIO()
    if form.isdecimal():
        return pickle.dumps(Payload(canary), protocol=int(form))
    torch.save({"w": Payload(canary)}, out, _use_new_zipfile_serialization=form == "zip")
    return out.getvalue()


@pytest.mark.parametrize("form", ["2", "4", "5", "zip", "legacy"])
@pytest.mark.parametrize("name", ["model.pt", "model.PTH", "model.bin", "model.ckpt", "model"])
def test_a_pickle_is_refused_and_told_why(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    """By its ending, or by how it begins; torch's loader is not even asked."""
    file = tmp_path / name
    file.write_bytes(payload(form, tmp_path / "canary"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("torch.load was called"))
    with pytest.raises(CheckpointError, match="is a pickle, which can run any program") as caught:
        find_checkpoint(lab, str(file))
    assert "--trust" in caught.value.hint
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("form", ["4", "zip", "legacy"])
def test_a_pickle_under_the_name_of_weights_is_named_as_one(tmp_path: Path, form: str) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(payload(form, tmp_path / "canary"))
    with pytest.raises(CheckpointError, match="it is a pickle"):
        read_header(file)


def test_weights_whose_header_has_an_unlucky_length_are_no_pickle(tmp_path: Path) -> None:
    """A header of 640 bytes makes a file begin with 0x80 0x02, as a pickle does."""
    header, _ = lay_out([("w" * 480, "F32", (1,)), ("b" * 10, "F32", (1,))])
    text = header[8:].rstrip() + b" " * (640 - len(header[8:].rstrip()))
    file = tmp_path / "model.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    assert file.read_bytes()[:2] == b"\x80\x02"
    assert not starts_pickle(file.read_bytes()[:8])
    assert len(read_header(file)) == 2


def test_a_file_that_is_none_is_said_to_be_a_file(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CheckpointError, match="is a file, and a checkpoint is a folder"):
        find_checkpoint(lab, str(tmp_path / "notes.txt"))


def test_trusted_tensors_are_listed(tmp_path: Path) -> None:
    content = {"model": {"w": torch.zeros(2, 3), "b": torch.ones(3).bfloat16()}, "step": 3}
    torch.save(content, tmp_path / "x.pt")
    found = read_trusted(tmp_path / "x.pt")
    assert [(t.name, t.dtype, t.shape, t.bytes) for t in found] == [
        ("model.w", "F32", (2, 3), 24),
        ("model.b", "BF16", (3,), 6),
    ]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["4", "zip", "legacy"])
def test_code_runs_only_when_told_to(tmp_path: Path, form: str) -> None:
    file, canary = tmp_path / "x.pt", tmp_path / "canary"
    file.write_bytes(payload(form, canary))
    with pytest.raises(CheckpointError) as caught:
        read_trusted(file)
    assert isinstance(caught.value, NeedsCode)
    assert not canary.exists()
    with pytest.raises(CheckpointError, match=r"holds no tensor|cannot be read"):
        read_trusted(file, run_code=True)
    assert canary.exists()


def test_what_is_no_pickle_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"PK\x03\x04 and nothing more")
    with pytest.raises(CheckpointError, match=r"cannot be read|holds more"):
        read_trusted(tmp_path / "x.pt")
