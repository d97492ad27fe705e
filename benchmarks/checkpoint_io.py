"""A checkpoint of 1.5 GB: what a save in the background costs training, how fast it is loaded.

    python -m benchmarks.checkpoint_io [--saves 10] [--apart 4] [--rounds 3] [--only save load]

Saving: as in `background_save`, for a network of 127 million parameters with its moments; what one
save costs in all, the copy and the look at every weight included, is what the steps that it touches
take beyond those around them. In turn with it a thread writes as many bytes from memory that is
there past the cache, and flushes them: what this disk costs training at the least.
Loading: `load_weights` and `load_training`, every byte proven by its hash, against reading the same
files in order into one buffer that is used again, in turn: from the page cache, and from the disk
after the kernel was told to drop them. Into the tensors that a run has when it goes on or back, and
into memory that the system has to find and clear first, as for a network that is not there yet.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import background_save, quiet
from benchmarks.ratios import Ratio, of_rounds
from benchmarks.report import machine_facts, write_result
from engine.checkpoints import CheckpointInfo, describe, direct
from engine.checkpoints.load import load_training, load_weights
from engine.checkpoints.save import CHUNK, save
from engine.config import Config
from engine.lab import Lab

SECONDS, SHARE = 0.6, 0.5
"""Of training that one save may cost; of the plain read's rate that loading must reach."""
NETWORK = {
    "data.corpus": "python-docs",
    "model.n_layer": 18,
    "model.n_embd": 768,
    "model.n_head": 12,
    "model.context_length": 256,
    "train.batch_size": 2,
}
"""1.5 GB with its moments, in float32."""
CHECKPOINT_BYTES = 1_542_900_000
"""What a save of `NETWORK` writes, about."""
TENSORS = 54
"""Matrices of 768 × 3072 in the checkpoint that is loaded, which has as many numbers."""
BUFFER = 4 << 20  # bytes that the plain read asks for at once
PLAIN, INTO, FRESH = "read", "loaded", "loaded into new memory"


class BytesAlone:
    """A `background_save.Writer` of as many bytes as a checkpoint of `NETWORK` has."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._bytes = torch.frombuffer(direct.memory(size), dtype=torch.uint8).random_()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    @property
    def busy(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self) -> None:
        self._path.unlink(missing_ok=True)
        data = memoryview(self._bytes.numpy())
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        for start in range(0, len(data), CHUNK):
            direct.write_all(descriptor, data[start : start + CHUNK])
        os.fsync(descriptor)
        os.close(descriptor)


def saving(folder: Path, saves: int, apart: int) -> dict[str, Any]:
    """What each save cost training, in seconds, and what writing its bytes alone did."""
    lab = Lab.init(folder / "lab")
    config = Config().with_values(NETWORK | background_save.SETTINGS)
    writer = BytesAlone(folder / "bytes", CHECKPOINT_BYTES)
    recorder, saved = background_save.record(lab, config, saves, apart, writer)
    plain = [step.seconds for step in recorder.steps if step.save is None]
    alone = recorder.costs(by_writer=True) or recorder.costs(disturbed=True, by_writer=True)
    return {
        "seconds_of_the_bytes_alone": alone,
        "checkpoint_bytes": max(event.bytes for event in saved),
        "saves": saves,
        "seconds_a_save": recorder.costs() or recorder.costs(disturbed=True),
        "disturbed": not recorder.costs(),
        "seconds_held": recorder.held[background_save.WARM_UP :],
        "seconds_written": [event.seconds for event in saved][background_save.WARM_UP :],
        "median_step_seconds": statistics.median(plain),
    }


def loading(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds of a plain read and of loading, in turn, from the cache and from the disk."""
    info = _checkpoint(folder)
    into = dict(load_weights(info)), dict(load_training(info).tensors)
    loads: dict[str, Callable[[CheckpointInfo], None]] = {
        PLAIN: _read_plainly,
        INTO: lambda info: _load(info, *into),
        FRESH: _load,
    }
    found: dict[str, Any] = {"bytes": info.bytes, "discarded": 0}
    for place in ("page cache", "disk"):
        kept: list[dict[str, float]] = []
        noisy: list[dict[str, float]] = []
        for number in range(rounds + 1):
            sides = list(loads) if number % 2 else list(loads)[::-1]
            seconds: dict[str, float] = {}
            with quiet.Watch() as watch:
                for side in sides:
                    if place == "disk":
                        _drop(info)
                    began = time.perf_counter()
                    loads[side](info)
                    seconds[side] = time.perf_counter() - began
            if not number:  # brings the files into the cache
                continue
            (kept if watch.others <= quiet.LIMIT else noisy).append(seconds)
            rates = ", ".join(
                f"{side} at {info.bytes / seconds[side] / 1e9:.2f} GB/s" for side in loads
            )
            print(f"    {place}: {rates}; others took {watch.others:.0%}", flush=True)
        found[place] = kept or noisy
        found["discarded"] += len(noisy) if kept else 0
    return found


def _checkpoint(folder: Path) -> CheckpointInfo:
    """As large as that of `saving`, of random numbers."""
    torch.manual_seed(0)
    shapes = [(768, 3072)] * TENSORS
    model = {f"blocks.{i}.weight": torch.randn(shape) for i, shape in enumerate(shapes)}
    moments = {
        f"optimizer.{kind}.blocks.{i}.weight": torch.randn(shape)
        for kind in ("exp_avg", "exp_avg_sq")
        for i, shape in enumerate(shapes)
    }
    run = folder / "run"
    run.mkdir()
    saved = save(run, model, moments, {"progress": {}}, {"step": 1, "tokens": 1})
    return describe(saved.path)


def _load(
    info: CheckpointInfo,
    weights: dict[str, Tensor] | None = None,
    moments: dict[str, Tensor] | None = None,
) -> None:
    """Into the tensors that are given, or new ones."""
    found, training = load_weights(info, into=weights), load_training(info, moments)
    assert len(training.tensors) == 2 * len(found)


def _read_plainly(info: CheckpointInfo) -> None:
    buffer = bytearray(BUFFER)
    for path in sorted(info.path.iterdir()):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def _drop(info: CheckpointInfo) -> None:
    """Let the kernel forget the files: what is clean is gone from the cache at once."""
    for path in info.path.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both, with `ratios` against their targets."""
    found: dict[str, Any] = {}
    ratios: list[Ratio] = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if "load" in options.only:
            loaded = found["loading"] = loading(Path(name), options.rounds)
            ratios += [
                of_rounds(
                    "Loading",
                    f"1.5 GB from the {place} into {where}, as a share of the rate of a plain read",
                    [seconds[PLAIN] / seconds[side] for seconds in loaded[place]],
                    target,
                )
                for place in ("page cache", "disk")
                for side, where, target in (
                    (INTO, "a run that goes on or back", SHARE),
                    (FRESH, "memory that the system finds first", None),
                )
            ]
        if "save" in options.only:
            saved = found["saving"] = saving(Path(name), options.saves, options.apart)
            costs = saved["seconds_a_save"]
            ratios.append(
                of_rounds(
                    "Saving",
                    f"{saved['checkpoint_bytes'] / 1e9:.1f} GB in the background, in seconds of "
                    "training",
                    costs,
                    SECONDS,
                    at_least=False,
                    discarded=options.saves - len(costs),
                    note="others were at work in each" if saved["disturbed"] else "",
                )
            )
            if alone := saved["seconds_of_the_bytes_alone"]:
                ratios.append(
                    of_rounds(
                        "Saving",
                        "as many bytes written by a thread that does nothing else, in seconds of "
                        "training",
                        alone,
                        None,
                    )
                )
    return found | {"ratios": [ratio.to_dict() for ratio in ratios]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--apart", type=int, default=4, help="steps from one save to the next")
    parser.add_argument("--rounds", type=int, default=3, help="of loading, from each place")
    parser.add_argument("--only", nargs="+", choices=("load", "save"), default=("load", "save"))
    parser.add_argument("--folder", type=Path, help="on the disk that is to be measured")
    result = machine_facts() | measure(parser.parse_args())
    for ratio in result["ratios"]:
        print(f"  {Ratio(**{key: ratio[key] for key in ratio if key != 'met'})}")
    write_result("checkpoint-io", result)


if __name__ == "__main__":
    main()
