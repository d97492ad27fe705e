"""A checkpoint in words, tables and text histograms, for `tui-lab checkpoints show` and `diff`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tui_lab import format
from tui_lab.cli import common

if TYPE_CHECKING:
    from engine.checkpoints import Inspection, TensorInfo, TensorStatistics

BARS = " ▁▂▃▄▅▆▇█"


def as_record(path: Path, stats: bool, tensor: str | None) -> dict[str, Any]:
    """Everything that `show` says, as one JSON object."""
    from engine.checkpoints import inspect, tensor_statistics

    seen = inspect(path)
    record = {
        "run": seen.info.run,
        "path": str(path),
        "meta": seen.meta,
        "state": seen.state,
        "bytes": seen.info.bytes,
        "complete": seen.info.complete,
        "best": seen.info.best,
        "n_parameters": seen.n_parameters,
        "tensors": [_tensor_record(item) for item in seen.tensors],
        "training_tensors": [_tensor_record(item) for item in seen.training_tensors],
    }
    if stats or tensor:
        record["statistics"] = [asdict(item) for item in tensor_statistics(path, tensor)]
    return record


def _tensor_record(tensor: TensorInfo) -> dict[str, Any]:
    return {key: value for key, value in asdict(tensor).items() if key != "offset"}


def describe(path: Path, stats: bool) -> None:
    """Print the whole description; with `stats` the tensors are read."""
    from engine.checkpoints import inspect

    seen = inspect(path)
    _facts(seen)
    _configuration(seen)
    _heading("parameters")
    common.table(["part", "tensors", "parameters", "share"], _parts(seen), right=[1, 2, 3])
    if stats:
        _statistics(path)
    else:
        _heading("tensors")
        common.table(["name", "type", "shape", "size"], _collapsed(seen.tensors), right=[3])
    _training(seen)


def tensors(found: list[TensorInfo]) -> None:
    """Print the tensors of a file that is no checkpoint."""
    common.table(["name", "type", "shape", "size"], _collapsed(found), right=[3])
    numbers = sum(tensor.count for tensor in found)
    common.say(f"{len(found)} tensors, {format.thousands(numbers)} numbers")


def tensors_as_record(path: Path, found: list[TensorInfo]) -> dict[str, Any]:
    return {"path": str(path), "tensors": [_tensor_record(item) for item in found]}


def _facts(seen: Inspection) -> None:
    info = seen.info
    age = format.ago(max(0.0, time.time() - info.time))
    words = [info.kind, "best of its run" if info.best else "", "" if info.complete else "BROKEN"]
    common.say(f"{info.run}/{info.path.name}")
    rows = [
        ("step", format.thousands(info.step)),
        ("tokens", format.thousands(info.tokens)),
        ("validation loss", format.number(info.val_loss)),
        ("kind", ", ".join(word for word in words if word)),
        ("saved", f"{format.moment(info.time)} ({age} ago)"),
        ("size", format.size(info.bytes)),
        ("parameters", format.thousands(seen.n_parameters)),
        ("path", str(info.path)),
    ]
    rows += [(f"{name} version", value) for name, value in _flat(seen.meta.get("versions"))]
    _pairs(rows)


def _configuration(seen: Inspection) -> None:
    config = seen.meta.get("config")
    if isinstance(config, dict):
        _heading("configuration")
        _pairs((key, value) for key, value in _flat(config) if value != "")


def _parts(seen: Inspection) -> list[list[str]]:
    """The parameter table: embeddings, each block, norm, output; then the total."""
    parts: dict[str, list[TensorInfo]] = {}
    for tensor in seen.tensors:
        match = re.match(r"blocks\.\d+", tensor.name)
        part = match.group() if match else tensor.name.rpartition(".")[0] or tensor.name
        parts.setdefault(part, []).append(tensor)
    total = max(1, seen.n_parameters)
    counts = {part: sum(tensor.count for tensor in members) for part, members in parts.items()}
    rows = [
        [part, str(len(members)), format.thousands(counts[part]), _share(counts[part], total)]
        for part, members in parts.items()
    ]
    tied = seen.meta.get("tied")
    for name, owner in tied.items() if isinstance(tied, dict) else ():
        rows.append([f"{name} = {owner}", "0", "0", "tied"])
    rows.append(["total", str(len(seen.tensors)), format.thousands(seen.n_parameters), "100 %"])
    return rows


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %"


def _collapsed(tensors: Iterable[TensorInfo]) -> list[list[str]]:
    """One row a tensor; tensors that are alike in every block share a row, named `blocks.*`."""
    groups: dict[tuple[str, str, tuple[int, ...]], list[TensorInfo]] = {}
    for tensor in tensors:
        name = re.sub(r"^blocks\.\d+\.", "blocks.*.", tensor.name)
        groups.setdefault((name, tensor.dtype, tensor.shape), []).append(tensor)
    return [
        [
            members[0].name if len(members) == 1 else f"{name}  ×{len(members)}",
            dtype,
            _shape(shape),
            format.size(sum(tensor.bytes for tensor in members)),
        ]
        for (name, dtype, shape), members in groups.items()
    ]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(str(size) for size in shape) or "scalar"


def _statistics(path: Path) -> None:
    from engine.checkpoints import tensor_statistics

    _heading("tensors")
    columns: list[tuple[str, bool, Any]] = [  # header, whether a number, how to show it
        ("name", False, lambda item: item.name),
        ("shape", False, lambda item: _shape(item.shape)),
        ("norm", True, lambda item: _figure(item.norm)),
        ("mean", True, lambda item: _figure(item.mean)),
        ("std", True, lambda item: _figure(item.std)),
        ("min", True, lambda item: _figure(item.minimum)),
        ("max", True, lambda item: _figure(item.maximum)),
        ("NaN, inf", True, lambda item: str(item.non_finite or "–")),
        ("histogram", False, lambda item: histogram(item.counts, 16)),
    ]
    if common.on_terminal() and common.console().width < 110:
        columns = [column for column in columns if column[0] not in ("shape", "norm", "mean")]
    rows = [[show(item) for _, _, show in columns] for item in tensor_statistics(path)]
    right = [index for index, (_, number, _) in enumerate(columns) if number]
    common.table([header for header, _, _ in columns], rows, right=right)


def one_tensor(path: Path, name: str) -> None:
    """One tensor's statistics and an upright histogram."""
    from engine.checkpoints import tensor_statistics

    (item,) = tensor_statistics(path, name)
    common.say(f"{item.name}  {item.dtype}  {_shape(item.shape)}")
    names = ("norm", "mean", "std", "minimum", "maximum")
    _pairs((name, _figure(getattr(item, name))) for name in names)
    _pairs([("not finite", str(item.non_finite))])
    for line in _upright(item):
        common.say(line)


def _upright(item: TensorStatistics) -> Iterator[str]:
    if item.minimum is None or item.maximum is None or not item.counts:
        return
    most, bins = max(item.counts) or 1, len(item.counts)
    for index, count in enumerate(item.counts):
        low = item.minimum + (item.maximum - item.minimum) * index / bins
        yield f"{low:>11.4g}  {'█' * round(40 * count / most):40}  {count}"


def histogram(counts: tuple[int, ...], width: int) -> str:
    """Counts as a row of block characters, `width` wide; a bin with anything in it shows."""
    if not counts:
        return ""
    per = max(1, len(counts) // width)
    merged = [sum(counts[start : start + per]) for start in range(0, len(counts), per)]
    most = max(merged) or 1
    return "".join(BARS[-(-8 * count // most)] for count in merged)


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _training(seen: Inspection) -> None:
    _heading("training state")
    if not seen.training_tensors:
        common.say("none: this checkpoint holds weights only and cannot be resumed")
        return
    kinds: dict[str, list[TensorInfo]] = {}
    for tensor in seen.training_tensors:
        kinds.setdefault(".".join(tensor.name.split(".")[:2]), []).append(tensor)
    rows = [
        (kind, f"{len(members)} tensor(s), {format.size(sum(t.bytes for t in members))}")
        for kind, members in kinds.items()
    ]
    _pairs([*rows, *_flat(seen.state)])


def _heading(title: str) -> None:
    common.say(f"\n{title}")


def _pairs(rows: Iterable[tuple[str, Any]]) -> None:
    for key, value in rows:
        text = str(value)
        common.say(f"  {key:<26} {text if len(text) <= 400 else text[:400] + '…'}")


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as `section.key` pairs; long lists as their length."""
    if not isinstance(values, Mapping):
        return
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and prefix.count(".") < 6:
            yield from _flat(value, f"{name}.")
        elif isinstance(value, list) and len(value) > 12:
            yield name, f"[{len(value)} values]"
        else:
            yield name, value


def differences(a: Path, b: Path) -> list[tuple[str, str, str]]:
    """(what, in a, in b) for every figure, setting and tensor that differs."""
    from engine.checkpoints import inspect

    first, second = inspect(a), inspect(b)
    rows = _unlike(_summary(first), _summary(second))
    rows += _unlike(*(_settings(seen) for seen in (first, second)))
    tensors = [
        {tensor.name: f"{tensor.dtype} {_shape(tensor.shape)}" for tensor in seen.tensors}
        for seen in (first, second)
    ]
    return rows + _unlike(*tensors)


def _settings(seen: Inspection) -> dict[str, Any]:
    """The configuration, if there is one; a field that is not in it has its default."""
    from engine.config.schema import default_values

    values = dict(_flat(seen.meta.get("config")))
    return default_values() | values if values else {}


def _summary(seen: Inspection) -> dict[str, Any]:
    from engine.checkpoints import hashes

    files = seen.manifest.get("files")
    model = files.get("model.safetensors") if isinstance(files, dict) else None
    hash_name, weights_hash = hashes.promised(model if isinstance(model, dict) else {})
    digests = dict(_flat(seen.meta.get("digests")))
    digests.pop("config", None)  # its fields are compared one by one
    return {
        "step": seen.info.step,
        "tokens": seen.info.tokens,
        "validation loss": format.number(seen.info.val_loss),
        "kind": seen.info.kind,
        "parameters": seen.n_parameters,
        "weights (hash)": f"{hash_name} {weights_hash[:12]}".strip(),
        **{f"{name} (sha256)": str(value)[:12] for name, value in digests.items()},
        **{f"{name} version": value for name, value in _flat(seen.meta.get("versions"))},
    }


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    keys = list(dict.fromkeys([*a, *b]))
    pairs = [(key, a.get(key, "–"), b.get(key, "–")) for key in keys]
    return [(key, str(mine), str(other)) for key, mine, other in pairs if mine != other]
