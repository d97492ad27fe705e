"""A checkpoint as a Hugging Face folder that `AutoModelForCausalLM` and `AutoTokenizer` load.

    DIR/  config.json  generation_config.json  model.safetensors  tokenizer.json  …

Written beside its place under a temporary name, flushed, and renamed: the folder is there whole or
not at all. Weights are cut and converted one tensor at a time. Needs torch.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine import atomic
from engine.arithmetic import parameter_table
from engine.checkpoints import CheckpointInfo, find_checkpoint
from engine.checkpoints.load import load_meta, load_weights
from engine.checkpoints.snapshot import DTYPES
from engine.checkpoints.tensors import SIZES, lay_out
from engine.config.sections import ModelConfig
from engine.errors import CheckpointError, InputError
from engine.exchange import hf_config
from engine.exchange.families import Family, family_of
from engine.exchange.hf_folder import CONFIG, GENERATION, INDEX, WEIGHTS
from engine.exchange.weights import Piece, pieces
from engine.generation.load import load_tokenizer, read_config
from engine.lab import Lab
from engine.tokenizers import HfTokenizer, Tokenizer

TYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
SHARD_BYTES = 5_000_000_000
"""Above this the weights are cut into several files, as `save_pretrained` does."""
ROOM = 64 << 20  # bytes kept free beside the weights, for the tokenizer and the small files


@dataclass(frozen=True)
class Exported:
    """A folder that is there. `bytes`: of all its files."""

    path: Path
    class_name: str
    dtype: str
    files: tuple[str, ...]
    bytes: int


def export_hf(
    lab: Lab,
    reference: str,
    directory: Path,
    *,
    dtype: str = "float32",
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] = lambda done, total: None,
    problems: list[str] | None = None,
) -> Exported:
    """Write the checkpoint that `reference` means to `directory`.

    `progress(done, total)` counts bytes of weights. `overwrite` replaces an earlier folder of a
    model, never anything else. Broken checkpoints that were passed over are named in `problems`.
    Raises InputError for a network that no public class has (by the name of the field), for a
    `directory` that is in use, and when it cannot be written; CheckpointError, TokenizerError.
    """
    if dtype not in TYPES:
        raise InputError(f"dtype = '{dtype}': not one of {', '.join(TYPES)}")
    info = find_checkpoint(lab, reference, problems)
    meta = load_meta(info)
    model = read_config(meta, info).model
    family = family_of(model)
    tokenizer = load_tokenizer(info, meta)
    _check_place(directory, overwrite)
    state = load_weights(info)
    _check_state(state, model, tokenizer.vocab_size, info)
    shards = list(
        _shards(model, tokenizer.vocab_size, family, SIZES[DTYPES[TYPES[dtype]]], shard_bytes)
    )
    parent = directory.absolute().parent
    temporary = parent / f".tmp-{directory.name}-{os.getpid()}"
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _check_room(parent, sum(size for _, size in shards))
        atomic.discard(temporary)
        temporary.mkdir()
        _write_facts(temporary, model, family, tokenizer, dtype)
        _write_tokenizer(tokenizer, temporary)
        _write_weights(temporary, shards, state, TYPES[dtype], progress)
        atomic.sync_directory(temporary)
        _put_in_place(temporary, directory)
        atomic.sync_directory(parent)
    except OSError as error:
        raise InputError(
            f"cannot write '{directory}': {error.strerror or error}",
            "choose another folder; nothing was left behind",
        ) from error
    finally:
        atomic.discard(temporary)  # there only if something failed
    files = sorted(path for path in directory.iterdir() if path.is_file())
    return Exported(
        path=directory,
        class_name=family.class_name,
        dtype=dtype,
        files=tuple(path.name for path in files),
        bytes=sum(path.stat().st_size for path in files),
    )


Shard = tuple[list[Piece], int]
"""What one file holds, and its bytes."""


def _shards(
    model: ModelConfig, vocab_size: int, family: Family, item: int, limit: int
) -> Iterator[Shard]:
    """The tensors in the order of the network, as many to a file as fit into `limit` bytes; one
    that is larger by itself has a file of its own. `item`: bytes of a number."""
    held: list[Piece] = []
    size = 0
    for piece in pieces(model, vocab_size, family):
        more = item * torch.Size(piece.shape).numel()
        if held and size + more > limit:
            yield held, size
            held, size = [], 0
        held.append(piece)
        size += more
    yield held, size


def _check_state(
    state: dict[str, Tensor], model: ModelConfig, vocab_size: int, info: CheckpointInfo
) -> None:
    """Refuse weights that are not those of the configuration and the tokenizer beside them."""
    wanted = {name: shape for name, shape, _ in parameter_table(model, vocab_size)}
    there = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(wanted.keys() | there.keys()):
        if wanted.get(name) != there.get(name):
            raise CheckpointError(
                f"'{info.path}': its weights do not fit its configuration and tokenizer",
                f"'{name}' is {there.get(name, 'missing')}, and should be "
                f"{wanted.get(name, 'absent')}",
            )


def _check_place(directory: Path, overwrite: bool) -> None:
    """Refuse a place that holds something, unless it is a model's folder to be replaced."""
    if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
        raise InputError(f"'{directory}' is not a folder", "name a folder that is new or empty")
    held = sorted(directory.iterdir()) if directory.is_dir() else []
    if not held:
        return
    if not overwrite:
        raise InputError(
            f"'{directory}' is not empty: nothing was written",
            "name another folder, or replace the model in it: --overwrite",
        )
    # Replacing removes what is there: it must not be somebody's home.
    foreign = [path.name for path in held if path.is_dir() and not path.is_symlink()]
    if foreign or not (directory / CONFIG).is_file():
        why = f"it holds the folder '{foreign[0]}'" if foreign else f"it has no {CONFIG}"
        raise InputError(
            f"'{directory}' is not the folder of a model: {why}; nothing was written",
            "name another folder",
        )


def _check_room(parent: Path, needed: int) -> None:
    disk = shutil.disk_usage(parent)
    if disk.total and disk.free < needed + ROOM:
        raise InputError(
            f"no room in '{parent}': {(needed + ROOM) / 1e9:.2f} GB needed, "
            f"{disk.free / 1e9:.2f} GB free",
            "free some space, or choose --dtype bfloat16",
        )


def _write_facts(
    folder: Path, model: ModelConfig, family: Family, tokenizer: Tokenizer, dtype: str
) -> None:
    values = hf_config.to_hf(model, family, tokenizer.vocab_size, tokenizer.eot_id, dtype)
    if isinstance(tokenizer, HfTokenizer):
        values["bos_token_id"] = tokenizer.bos_id
    atomic.write_json(folder / CONFIG, values)
    ends = {name: values[name] for name in ("bos_token_id", "eos_token_id")}
    known = {name: token for name, token in ends.items() if token is not None}
    atomic.write_json(folder / GENERATION, {"_from_model_config": True, **known})


def _write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    from engine.exchange.tokenizers import write_tokenizer

    write_tokenizer(tokenizer, folder)


def _write_weights(
    folder: Path,
    shards: list[Shard],
    state: dict[str, Tensor],
    dtype: torch.dtype,
    progress: Callable[[int, int], None],
) -> None:
    total, done = sum(size for _, size in shards), 0
    places: dict[str, str] = {}
    for number, (held, size) in enumerate(shards, start=1):
        name = WEIGHTS
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        places |= {piece.name: name for piece in held}
        for written in _write_shard(folder / name, held, state, dtype):
            progress(done + written, total)
        done += size
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        atomic.write_json(folder / INDEX, index)


def _write_shard(
    path: Path, held: list[Piece], state: dict[str, Tensor], dtype: torch.dtype
) -> Iterator[int]:
    """Yields the bytes written so far, after each tensor."""
    header, placed = lay_out([(piece.name, DTYPES[dtype], piece.shape) for piece in held])
    by_name = {piece.name: piece for piece in held}
    done = 0
    with open(path, "xb", buffering=0) as file:
        atomic.write_all(file.fileno(), header)
        for info in placed:
            tensor = by_name[info.name].of(state).to(dtype)
            if dtype == torch.float16 and not bool(tensor.isfinite().all()):
                raise InputError(
                    f"the tensor '{info.name}' has numbers that float16 cannot hold",
                    "choose --dtype bfloat16 or float32; nothing was written",
                )
            atomic.write_all(file.fileno(), memoryview(tensor.view(-1).view(torch.uint8).numpy()))
            done += info.bytes
            yield done
        os.fsync(file.fileno())


def _put_in_place(temporary: Path, directory: Path) -> None:
    """Rename; what was there (`_check_place` has looked at it) goes once the new one is there."""
    if not directory.is_dir() or not any(directory.iterdir()):
        os.rename(temporary, directory)
        return
    aside = temporary.with_name(f"{temporary.name}-old")
    atomic.discard(aside)
    os.rename(directory, aside)
    try:
        os.rename(temporary, directory)
    except BaseException:  # an interrupt too: there must be one of the two
        os.rename(aside, directory)
        raise
    atomic.discard(aside)
