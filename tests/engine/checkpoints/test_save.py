"""A save is whole or not there, is what was given, and does not hold up training."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine import atomic
from engine.checkpoints import list_checkpoints, newest_verified, verify
from engine.checkpoints.background import BackgroundSaver
from engine.checkpoints.load import load_meta, load_training, load_weights
from engine.checkpoints.retention import clean_leftovers
from engine.checkpoints.save import SaveError, save
from engine.errors import CheckpointError
from tests.engine.checkpoints.making import checkpoint, meta, tensors, training_tensors


def test_what_is_loaded_is_what_was_saved(tmp_path: Path) -> None:
    """Every type and shape, bit for bit, by our loader and by the safetensors library."""
    given = tensors()
    path = checkpoint(tmp_path, 5)
    (info,) = list_checkpoints(tmp_path)
    ours, theirs = load_weights(info), load_file(path / "model.safetensors")
    assert ours.keys() == theirs.keys() == given.keys() - {"lm_head.weight"}
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype == given[name].dtype
        assert torch.equal(tensor, given[name])
        assert torch.equal(theirs[name], given[name])


def test_large_files_come_back_whatever_part_of_them_a_thread_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that end anywhere, reads that yield less than was asked for, and one of nothing."""
    real = os.preadv
    monkeypatch.setattr("engine.checkpoints.load.PART", 300_001)
    monkeypatch.setattr(
        os, "preadv", lambda fd, views, at: real(fd, [views[0][: 70_000 + at % 7]], at)
    )
    weight = torch.randn(1500, 1000)
    save(tmp_path, {"w": weight, "b": torch.arange(7)}, None, None, meta(1))
    (info,) = list_checkpoints(tmp_path)
    assert torch.equal(load_weights(info)["w"], weight)
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: 0)
    with pytest.raises(CheckpointError, match="ended while it was read"):
        load_weights(info)


def test_tensors_are_read_into_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where name, type, shape and place allow it; the rest comes in memory of its own. Parts end
    anywhere, and large and small tensors alternate in the file."""
    monkeypatch.setattr("engine.checkpoints.load.PART", 300_001)
    given = {
        "a": torch.randn(400, 300),
        "b": torch.randn(7),
        "c": torch.randn(300, 400),
        "d": torch.randn(250, 401),
        "e": torch.randn(90_000),
        "f": torch.randn(100_000).bfloat16(),
        "g": torch.randn(350, 500).bfloat16(),
    }
    save(tmp_path, given, {f"m.{name}": t for name, t in given.items()}, {}, meta(1))
    (info,) = list_checkpoints(tmp_path)
    shared = torch.zeros(100_000)
    into = {
        "a": torch.zeros(400, 300).requires_grad_(),
        "b": torch.zeros(7),  # too small to be worth it
        "c": torch.zeros(400, 300).t(),  # not in this order
        "d": torch.zeros(401, 250),  # of another shape
        "e": shared[:90_000],
        "f": shared,  # of another type
        "absent": torch.zeros(9),
    }
    read = [load_weights(info, into=into)]
    again = {f"m.{name}": torch.zeros_like(tensor) for name, tensor in into.items()}
    read.append({n[2:]: t for n, t in load_training(info, again).tensors.items()})
    for found in read:
        assert found.keys() == given.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in given.items())
    same = [name for name, tensor in read[0].items() if tensor is into.get(name)]
    assert same == ["a", "e"]
    assert torch.equal(into["e"], given["e"])
    assert not into["d"].any()


def test_tied_tensors_are_not_read_into_each_other(tmp_path: Path) -> None:
    """Two of a file, one of the run: the second is memory of its own, and the hash still right."""
    first, second = torch.randn(300, 300), torch.randn(300, 300)
    save(tmp_path, {"a": first, "b": second}, None, None, meta(1))
    (info,) = list_checkpoints(tmp_path)
    one = torch.zeros(300, 300)
    found = load_weights(info, into={"a": one, "b": one})
    assert torch.equal(found["a"], first)
    assert torch.equal(found["b"], second)


def test_what_is_damaged_is_found_wherever_it_is_read_into(tmp_path: Path) -> None:
    weight = torch.randn(300, 400)
    save(tmp_path, {"w": weight}, None, None, meta(1))
    (info,) = list_checkpoints(tmp_path)
    with open(info.path / "model.safetensors", "r+b") as file:
        file.seek(100_000)
        byte = file.read(1)[0]
        file.seek(100_000)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(CheckpointError, match="damaged"):
        load_weights(info, into={"w": torch.zeros(300, 400)})


@pytest.mark.parametrize("at", [0, 2 << 20, 5_000_000])
def test_one_bit_that_the_disk_keeps_wrong_is_found_by_reading_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At the beginning, in the middle and near the end of what is written past the cache."""
    sync, flipped = os.fsync, []

    def damage(descriptor: int) -> None:
        sync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.name == "model.safetensors":
            with open(path, "r+b") as file:
                file.seek(at)
                byte = file.read(1)[0]
                file.seek(at)
                file.write(bytes([byte ^ 4]))
            flipped.append(at)

    monkeypatch.setattr(os, "fsync", damage)
    with pytest.raises(SaveError, match="does not read back"):
        save(tmp_path, {"w": torch.zeros(1_300_000)}, None, None, meta(1))
    assert flipped
    assert not list(tmp_path.iterdir())


def test_training_state_comes_back(tmp_path: Path) -> None:
    """Moments, random state and loop state: what an exact resume is made of."""
    torch.manual_seed(3)
    checkpoint(tmp_path, 5, 2.5)
    expected = torch.rand(4)
    (info,) = list_checkpoints(tmp_path)
    saved = load_training(info)
    torch.set_rng_state(saved.rng["cpu"])
    assert torch.equal(torch.rand(4), expected)
    assert saved.state == {"progress": {"step": 5}}
    assert torch.equal(saved.tensors["optimizer.exp_avg.wte.weight"], torch.ones(50, 8))
    assert load_meta(info)["tied"] == {"lm_head.weight": "wte.weight"}


def test_equal_moments_are_all_kept(tmp_path: Path) -> None:
    """Only the model's tied tensors are stored once: an optimiser asks for each of its names."""
    moment = torch.ones(3)
    save(tmp_path, tensors(), {"a": moment, "b": moment}, {}, meta(1))
    assert load_training(list_checkpoints(tmp_path)[0]).tensors.keys() == {"a", "b"}


def test_weights_only(tmp_path: Path) -> None:
    """A shipped checkpoint needs no moments; it says so when somebody would resume it."""
    save(tmp_path, tensors(), None, None, meta(1))
    (info,) = list_checkpoints(tmp_path)
    assert verify(info.path) == []
    assert load_weights(info)
    with pytest.raises(Exception, match="weights only"):
        load_training(info)


def test_saved_is_said_only_when_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the protocol: files flushed, manifest last, folder, rename, parent, word."""
    done: list[str] = []
    sync, rename = os.fsync, os.rename

    def note_sync(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def note_rename(path: Path, target: Path) -> None:
        done.append(f"rename to {target.name}")
        rename(path, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "rename", note_rename)
    saver = BackgroundSaver(tmp_path, on_saved=lambda result: done.append("saved"))
    saver.snapshot(tensors(), training_tensors(), {}, meta(7))
    saver.wait()
    assert sorted(done[:4]) == [
        "meta.json",
        "model.safetensors",
        "state.json",
        "training.safetensors",
    ]
    temporary = f".tmp-7-{os.getpid()}"
    assert done[4:] == ["manifest.json", temporary, "rename to step_000007", tmp_path.name, "saved"]


def test_saving_a_step_again_never_leaves_nothing(tmp_path: Path) -> None:
    """Resume, then save at once: the second save has its own folder, and is the one that counts."""
    first = checkpoint(tmp_path, 500)
    second = checkpoint(tmp_path, 500, seed=1)
    assert second != first
    newest, problems = newest_verified(tmp_path)
    assert newest is not None
    assert newest.path == second
    assert problems == []
    assert verify(second) == []
    third = checkpoint(tmp_path, 500, policy="rolling")
    assert [info.path for info in list_checkpoints(tmp_path)] == [third]


def test_leftovers_of_the_dead_are_cleaned(tmp_path: Path) -> None:
    """A killed save leaves a temporary folder; the next start removes it, not a live process's."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    dead, alive = tmp_path / f".tmp-5-{gone.pid}", tmp_path / f".tmp-6-{os.getppid()}"
    for folder in (dead, alive):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
    clean_leftovers(tmp_path)
    assert not dead.exists()
    assert alive.exists()


def test_new_folders_are_private(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, 1)
    assert path.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in path.iterdir())


KILLED = """
import sys, torch
from pathlib import Path
from engine.checkpoints.background import BackgroundSaver
saver = BackgroundSaver(Path(sys.argv[1]), on_saved=lambda r: print(r.step, flush=True))
weights = {"w": torch.zeros(2_000_000)}
for step in range(1, 100000):
    weights["w"].fill_(step)
    saver.snapshot(weights, weights, {"step": step}, {"step": step, "tokens": step})
"""


def test_kill_while_saving_loses_no_acknowledged_save(tmp_path: Path) -> None:
    """Kill -9 at random moments: the newest sound checkpoint is the acknowledged one or newer."""
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline()
    time.sleep(0.13)
    child.send_signal(signal.SIGKILL)
    said = [int(line) for line in child.stdout.read().split()]
    child.wait()
    newest, problems = newest_verified(tmp_path)
    assert newest is not None
    assert problems == []
    assert newest.step >= max(said, default=1)
    assert set(load_weights(newest)["w"].tolist()) == {float(newest.step)}
    assert json.loads((newest.path / "state.json").read_text()) == {"step": newest.step}


def test_files_of_another_layout_load(tmp_path: Path) -> None:
    """Another program may put narrow tensors before wide ones: those have to be moved."""
    from engine.checkpoints.proof import render_manifest

    path = checkpoint(tmp_path, 1)
    header = {
        "a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [3, 11]},
    }
    text = json.dumps(header).encode()
    data = bytes([1, 2, 3]) + torch.tensor([0.5, -2.0]).numpy().tobytes()
    file = len(text).to_bytes(8, "little") + text + data
    (path / "model.safetensors").write_bytes(file)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest.pop("sha256")
    digest = hashlib.sha256(file).hexdigest()
    manifest["files"]["model.safetensors"] = {"bytes": len(file), "sha256": digest}
    (path / "manifest.json").write_bytes(render_manifest(manifest))
    loaded = load_weights(list_checkpoints(tmp_path)[0])
    assert {name: tensor.tolist() for name, tensor in loaded.items()} == {
        "a": [1, 2, 3],
        "b": [0.5, -2.0],
    }


@pytest.mark.parametrize("planted", ["file", "link", "folder"])
def test_what_is_planted_at_the_temporary_name_is_in_nobodys_way(
    tmp_path: Path, planted: str
) -> None:
    """A file, or a link to a folder elsewhere: removed and never followed."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("kept")
    temporary = run / f".tmp-5-{os.getpid()}"
    if planted == "file":
        temporary.write_text("in the way")
    elif planted == "link":
        temporary.symlink_to(elsewhere)
    else:
        temporary.mkdir()
        (temporary / "model.safetensors").symlink_to(elsewhere / "precious")
    assert verify(checkpoint(run, 5)) == []
    assert [path.name for path in elsewhere.iterdir()] == ["precious"]
    assert (elsewhere / "precious").read_text() == "kept"


def test_an_error_of_closing_is_an_error_of_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system reports a lost write when the file is closed."""
    close = os.close

    def failing(descriptor: int) -> None:
        written = "model.safetensors" in os.readlink(f"/proc/self/fd/{descriptor}")
        close(descriptor)
        if written:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "close", failing)
    with pytest.raises(SaveError, match="Input/output error"):
        checkpoint(tmp_path, 1)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_is_no_failed_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C while saving in the foreground goes up as itself, and leaves nothing half."""

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoint(tmp_path, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_small_file_is_never_written_through_a_link(tmp_path: Path) -> None:
    """Someone plants links at every name that a writer of this process might take."""
    victim = tmp_path / "victim"
    victim.write_text("kept")
    name = f".tmp-run.json-{threading.get_native_id()}-{os.getpid()}"
    (tmp_path / name).symlink_to(victim)
    atomic.write_text(tmp_path / "run.json", "{}")
    assert victim.read_text() == "kept"
    assert not (tmp_path / "run.json").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json", "victim"]
