"""A Hugging Face folder as a run of the lab: listed, verified, sampled, evaluated, trained on.

    checkpoints/<run>/  run.json  config.toml  status.json  tokenizer/  step_000000/

All that can be refused is refused before the run's folder is made, which appears whole. Tensors
are read one by one into the memory that the checkpoint is written from, so that a model is in
memory once. Needs torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine.arithmetic import count_parameters, parameter_table
from engine.checkpoints.load import TYPES
from engine.checkpoints.save import SaveResult, write_checkpoint
from engine.checkpoints.snapshot import Memory
from engine.config import Config
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange import hf_config
from engine.exchange.families import FAMILIES, Family
from engine.exchange.hf_folder import HfFolder, Stored, read_folder
from engine.exchange.weights import check_shapes, from_hf, tied_twice
from engine.keeper import FRESH, RANDOM
from engine.lab import Lab
from engine.plain_file import open_plain
from engine.progress import Progress
from engine.resuming import IMPORTED
from engine.runs import build_run, check_writable
from engine.status import Status, write_status

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types that weights may be stored in; all become float32."""
FINE_TUNING = {
    "optimizer.lr": 1e-4,
    "schedule.min_lr": 1e-5,
    "train.batch_size": 4,
    "train.max_steps": 1000,
}
"""What a run of such a model begins with: the rate from which a trained network does not unlearn,
and a batch that a context of thousands leaves room for. All of it can be set when it is trained."""


@dataclass(frozen=True)
class Imported:
    """A run that is there."""

    run: str
    path: Path
    checkpoint: Path
    class_name: str
    n_parameters: int
    bytes: int


def import_hf(
    lab: Lab,
    directory: Path,
    *,
    name: str = "",
    corpus: str = "",
    context_length: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Make a run of the model in `directory`; its checkpoint is step 0, its moments are fresh.

    `name`: of the run; empty: the folder's. `corpus`: what it will be trained and evaluated on
    unless told otherwise. `context_length`: a shorter one than the model's, to train on windows of
    that length; 0: the model's own. `progress(done, total)` counts bytes read.

    Raises InputError naming the file, field or tensor that cannot be taken; TokenizerError;
    SaveError. No run is left behind then.
    """
    check_writable(lab.checkpoints)
    folder = read_folder(directory)
    published, vocab_size = hf_config.from_hf(folder.config)
    family = FAMILIES[folder.config["model_type"]]
    check_shapes(folder.shapes, published, vocab_size, family)
    _check_types(folder)
    tokenizer = _read_tokenizer(directory)
    if tokenizer.vocab_size != vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {vocab_size}",
            "they belong to different models",
        )
    model = _with_context(published, context_length)
    config = _config(model, tokenizer, corpus)
    memory = Memory()
    shapes = {row: shape for row, shape, _ in parameter_table(model, vocab_size)}
    try:
        room = memory.model.allot(shapes)
    except (RuntimeError, MemoryError, OSError) as error:
        raise InputError(
            f"'{directory}' does not fit in memory: "
            f"{4 * count_parameters(model, vocab_size):,} bytes in float32",
            "free some memory, or take a machine with more",
        ) from error
    _fill(room, folder, published, vocab_size, family, progress)

    origin = {"format": "hf", "class": family.class_name, "folder": directory.resolve().name}
    identity = {"origin": origin, "seed": config.train.seed, "tokenizer_digest": tokenizer.digest}
    saved: list[SaveResult] = []
    path = build_run(
        lab,
        name or _name(directory),
        config,
        identity,
        lambda folder: saved.append(_save(folder, memory, room, config, tokenizer, origin)),
    )
    return Imported(
        run=path.name,
        path=path,
        checkpoint=path / saved[0].path.name,
        class_name=family.class_name,
        n_parameters=count_parameters(model, vocab_size),
        bytes=saved[0].bytes,
    )


def _save(
    run_path: Path,
    memory: Memory,
    weights: Mapping[str, Tensor],
    config: Config,
    tokenizer: Tokenizer,
    origin: dict[str, Any],
) -> SaveResult:
    """Put tokenizer, checkpoint and status into the run's folder."""
    tokenizer.save(run_path / "tokenizer")
    seeded = torch.Generator().manual_seed(config.train.seed)
    meta = {
        "step": 0,
        "tokens": 0,
        "val_loss": None,
        "config": config.to_dict(),
        "vocab_size": tokenizer.vocab_size,
        "line": 0,
        "precision": "float32",
        # No corpus: it was trained on none of this lab's, and may go on with any.
        "digests": {"tokenizer": tokenizer.digest},
        "origin": origin,
    }
    state = {FRESH: True, "progress": Progress().to_dict()}
    snapshot = memory.take(weights, {f"{RANDOM}cpu": seeded.get_state()}, state, meta, IMPORTED)
    saved = write_checkpoint(run_path, snapshot)
    count = count_parameters(config.model, tokenizer.vocab_size)
    status = Status(
        "stopped", reason=IMPORTED, n_parameters=count, max_steps=config.train.max_steps
    )
    write_status(run_path, status, durable=True)
    return saved


def _read_tokenizer(directory: Path) -> Tokenizer:
    from engine.exchange.tokenizers import read_tokenizer

    return read_tokenizer(directory)


def _config(model: ModelConfig, tokenizer: Tokenizer, corpus: str) -> Config:
    values: dict[str, Any] = {
        **FINE_TUNING,
        "data.tokenizer": tokenizer.kind,
        "data.vocab_size": max(2, tokenizer.vocab_size),
    }
    if corpus:
        values["data.corpus"] = corpus
    return replace(Config(), model=model).with_values(values)


def _with_context(model: ModelConfig, context_length: int) -> ModelConfig:
    """The model with a shorter context: what is turned by its place needs no other weights."""
    if not context_length or context_length == model.context_length:
        return model
    if model.position == "learned":
        raise InputError(
            f"context_length = {context_length}: the model has learned {model.context_length} "
            "positions",
            "leave it out",
        )
    if context_length > model.context_length:
        raise InputError(
            f"context_length = {context_length}: the model was trained at {model.context_length}",
            "choose a shorter one",
        )
    return replace(model, context_length=context_length)


def _name(directory: Path) -> str:
    """A run's name from the folder's, with what no name may hold left out."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", directory.resolve().name).strip("-.")
    return plain[:80] or IMPORTED


def _check_types(folder: HfFolder) -> None:
    for name, stored in folder.tensors.items():
        if stored.info.dtype not in FLOATS:
            raise InputError(
                f"the tensor '{name}' is stored as {stored.info.dtype}: quantised weights cannot "
                "be imported",
                f"types that can: {', '.join(FLOATS)}",
            )


def _fill(
    room: dict[str, Tensor],
    folder: HfFolder,
    model: ModelConfig,
    vocab_size: int,
    family: Family,
    progress: Callable[[int, int], None],
) -> None:
    """Read the folder's tensors into `room`, one of ours at a time."""
    total, done = sum(stored.info.bytes for stored in folder.tensors.values()), 0

    def read(name: str) -> Tensor:
        nonlocal done
        tensor = read_tensor(folder.tensors[name])
        done += folder.tensors[name].info.bytes
        progress(done, total)
        return tensor

    twice = tied_twice(folder.shapes, model, family)
    if twice is not None and not torch.equal(read(twice[0]), read(twice[1])):
        raise InputError(
            f"the tensors '{twice[0]}' and '{twice[1]}' differ, and config.json ties them",
            "set tie_word_embeddings to false in config.json if both are meant",
        )
    done = 0
    for name, tensor in from_hf(read, folder.shapes, model, vocab_size, family):
        if not bool(tensor.isfinite().all()):
            raise InputError(
                f"the weights '{name}' hold numbers that are not finite",
                "the folder is damaged, or its model was",
            )
        room[name].copy_(tensor)


def read_tensor(stored: Stored) -> Tensor:
    """One tensor of a folder, of the type that it is stored in. Raises InputError."""
    info, filled = stored.info, 0
    data = torch.empty(info.bytes, dtype=torch.uint8)
    view = memoryview(data.numpy())
    try:
        with open_plain(stored.file, follow=True) as file:
            file.seek(info.offset, os.SEEK_SET)
            while filled < info.bytes:
                count = file.readinto(view[filled:])
                if not count:
                    raise InputError(f"'{stored.file}' ended while it was read")
                filled += count
    except OSError as error:
        raise InputError(f"cannot read '{stored.file}': {error.strerror}") from error
    return data.view(TYPES[info.dtype]).view(info.shape)
