"""A Hugging Face folder as it lies on disk: its `config.json`, and which file holds which tensor.

Nothing in it is believed: sizes are bounded, names of files stay inside the folder, and every
header is checked against its file's size. Pickles are never opened. Links are followed, since a
download cache is made of them, and a person names the folder; pipes and devices are not. No torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.checkpoints.pickles import is_pickle
from engine.checkpoints.tensors import MAX_JSON, TensorInfo, parse_header, parse_json
from engine.errors import InputError
from engine.plain_file import open_plain, read_plain

CONFIG = "config.json"
GENERATION = "generation_config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

MAX_CONFIG = 1_000_000  # bytes
MAX_SHARDS = 2_000


@dataclass(frozen=True)
class Stored:
    """A tensor, and the file that it lies in."""

    file: Path
    info: TensorInfo


@dataclass(frozen=True)
class HfFolder:
    """`config`: what config.json says. `tensors`: all that the weights' headers name."""

    path: Path
    config: dict[str, Any]
    tensors: dict[str, Stored]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: stored.info.shape for name, stored in self.tensors.items()}


def read_folder(path: Path) -> HfFolder:
    """The folder at `path`, from its small files and the headers of its weights.

    Raises InputError (CheckpointError for a broken file) naming the file.
    """
    if not path.is_dir():
        what = "is a file" if path.exists() else "is not there"
        raise InputError(f"'{path}' {what}", "name a folder with config.json and model.safetensors")
    config = _json(path / CONFIG, MAX_CONFIG)
    tensors: dict[str, Stored] = {}
    for file in _weight_files(path):
        for info in _header(file):
            if info.name in tensors:
                raise InputError(
                    f"the tensor '{info.name}' is in '{tensors[info.name].file.name}' and in "
                    f"'{file.name}'",
                    "the folder mixes two models",
                )
            tensors[info.name] = Stored(file, info)
    return HfFolder(path, config, tensors)


def _weight_files(path: Path) -> list[Path]:
    """The files of tensors: the one, or those that the index names."""
    if (path / WEIGHTS).exists():
        return [path / WEIGHTS]
    if (path / INDEX).exists():
        return _shards(path)
    pickles = sorted(entry.name for entry in path.iterdir() if is_pickle(entry))
    if pickles:
        raise InputError(
            f"'{path / pickles[0]}' is a pickle, which can run any program when it is read: it was "
            "not opened",
            f"take the model as {WEIGHTS} (most are published as that too)",
        )
    raise InputError(f"there is no {WEIGHTS} in '{path}', and no {INDEX}")


def _shards(path: Path) -> list[Path]:
    index = path / INDEX
    names = _json(index, MAX_JSON).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise InputError(f"'{index}': weight_map is no map from tensors to files")
    files: dict[str, Path] = {}
    for name in names.values():
        if not isinstance(name, str) or not _is_plain(name):
            raise InputError(
                f"'{index}': weight_map names {str(name)[:80]!r}, which is no file of the folder",
                "names ending in .safetensors, without a folder, are",
            )
        files[name] = path / name
    if len(files) > MAX_SHARDS:
        raise InputError(f"'{index}': weight_map names {len(files)} files, above {MAX_SHARDS}")
    return [files[name] for name in sorted(files)]


def _is_plain(name: str) -> bool:
    """Whether a name stays in its folder."""
    ends = name.endswith(".safetensors") and not name.startswith(".")
    return ends and not any(sign in name for sign in "/\\\0:")


def _json(path: Path, limit: int) -> dict[str, Any]:
    try:
        return parse_json(read_plain(path, limit, follow=True), path)
    except FileNotFoundError:
        raise InputError(
            f"there is no {path.name} in '{path.parent}'", "it is no folder of a model"
        ) from None
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error


def _header(path: Path) -> list[TensorInfo]:
    try:
        with open_plain(path, follow=True) as file:
            return parse_header(file, path)
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
