"""The checkpoints as rows of a table, and what the detail says of one. No widgets, no files."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len

from tui_lab.comparison import written
from tui_lab.format import ago, count, number, percent, rate, size, thousands
from tui_lab.widgets.pane import Line, Piece, fact, title
from tui_lab.widgets.table import Cell, Column, Row

if TYPE_CHECKING:
    from engine.checkpoints import CheckpointInfo, Inspection, TensorInfo, TensorStatistics

COLUMNS = (
    Column("best", ""),
    Column("run", "run", grow=True, most=36, least=10),
    Column("step", "step", right=True),
    Column("val_loss", "val loss", right=True),
    Column("kind", "kind", priority=3, most=10),
    Column("bytes", "size", right=True, priority=2),
    Column("time", "age", right=True, priority=1),
    Column("checked", "checked"),
)

VIEWS = ("overview", "parameters", "tensors", "statistics", "configuration")

Checked = Mapping[Any, Sequence[str]]
"""By path: what `verify` said (nothing: sound); paths that were not verified are not there."""


def matches(info: CheckpointInfo, words: Sequence[str]) -> bool:
    best = "best" if info.best else ""
    text = f"{info.run} {info.step} {info.kind} {info.path.name} {best}".lower()
    return all(word in text for word in words)


def checkpoint_row(info: CheckpointInfo, own: bool, checked: Checked, now: float) -> Row:
    return Row(
        str(info.path),
        (
            Cell("★" if info.best else "", "warn"),
            info.run if own else f"{info.run} (shipped)",
            thousands(info.step),
            number(info.val_loss, 3),
            Cell(info.kind or "–", "muted"),
            Cell(size(info.bytes), "muted"),
            Cell(ago(max(0.0, now - info.time)), "muted"),
            _state(info, checked),
        ),
    )


def _state(info: CheckpointInfo, checked: Checked) -> Cell:
    if info.path in checked:
        return Cell("✗ broken", "bad") if checked[info.path] else Cell("✓ sound", "good")
    return Cell("–", "muted") if info.complete else Cell("✗ not whole", "bad")


def heading(shown: int, total: int, run: str | None) -> str:
    text = f"{total} checkpoint{'s' * (total != 1)}"
    if shown != total:
        text = f"{shown} of {text}"
    return f"{text} of {run}" if run else f"{text}, all runs"


def overview(inspection: Inspection, own: bool, checked: Checked, now: float) -> list[Line]:
    """What it is, whether it is sound, and the training state in it."""
    info, meta = inspection.info, inspection.meta
    best = [("  ★ the run's best", "warn")] if info.best else []
    lines = [
        title(f"{info.run}, step {thousands(info.step)}"),
        fact("validation", number(info.val_loss), *best),
        fact("tokens seen", thousands(info.tokens)),
        fact("parameters", thousands(inspection.n_parameters)),
        fact("saved", f"{ago(max(0.0, now - info.time))} ago, {info.kind or 'kind unknown'}"),
        fact("size", size(info.bytes)),
        fact("bytes", *verdict(info, checked)),
        (),
        title("Training state"),
        *_training(inspection),
        (),
        title("Origin"),
        *(fact(name, str(value)[:16]) for name, value in _mapping(meta.get("digests")).items()),
        fact("made by", ", ".join(f"{n} {v}" for n, v in _mapping(meta.get("versions")).items())),
        fact("folder", f"checkpoints/{info.run}/{info.path.name}" if own else str(info.path)),
    ]
    if not own:
        lines += [(), (("It ships with tui-lab and cannot be deleted.", "muted"),)]
    return lines


def verdict(info: CheckpointInfo, checked: Checked) -> list[Piece]:
    """Whether every byte is as it was saved, as far as is known."""
    if info.path not in checked:
        if info.complete:
            return [("not checked yet, ", "muted"), ("v", "strong"), (" checks them", "muted")]
        return [("✗ not whole: a file is missing or has the wrong size", "bad")]
    problems = checked[info.path]
    if not problems:
        return [("✓ sound: every file is as it was saved", "good")]
    return [(f"✗ broken: {'; '.join(problems)}", "bad")]


def _training(inspection: Inspection) -> list[Line]:
    state, meta = inspection.state, inspection.meta
    tensors = inspection.training_tensors
    if not tensors and not state:
        return [(("none: it can be talked to and measured, not resumed", "muted"),)]
    rng = [tensor.name.removeprefix("rng.") for tensor in tensors if tensor.name.startswith("rng.")]
    moments = [tensor for tensor in tensors if not tensor.name.startswith("rng.")]
    moved = sum(tensor.bytes for tensor in moments)
    lines = [fact("optimiser", f"{len(moments)} tensors, {size(moved)}")]
    lr = _found(state, "lr", "learning_rate")
    if isinstance(lr, int | float):
        lines.append(fact("learning rate", rate(float(lr))))
    position = _mapping(meta.get("data"))
    if position:
        said = ", ".join(f"{name} {written(value)}" for name, value in position.items())
        lines.append(fact("data position", said))
    here = ", ".join(rng)
    lines.append(fact("random state", here if rng else ("absent", "warn")))
    return lines


def _found(values: Mapping[str, Any], *names: str) -> Any:
    return next((values[name] for name in names if name in values), None)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def parameters(inspection: Inspection, width: int) -> list[Line]:
    """The parameters by part of the network; the blocks' like tensors are one line."""
    groups: dict[str, list[TensorInfo]] = {}
    for tensor in inspection.tensors:
        name = re.sub(r"^blocks\.\d+\.", "blocks.*.", tensor.name)
        groups.setdefault(name, []).append(tensor)
    total = inspection.n_parameters or 1
    first = max([len(name) for name in groups], default=8)
    lines: list[Line] = [title(f"{thousands(inspection.n_parameters)} parameters"), ()]
    room = max(0, min(30, width - first - 40))
    for name, tensors in groups.items():
        number_of = sum(tensor.count for tensor in tensors)
        times = f"{len(tensors)} ×" if len(tensors) > 1 else ""
        bar = "▇" * round(room * number_of / total)
        share = percent(number_of / total)
        text = f"  {times:>5} {_shape(tensors[0].shape):<13}{count(number_of):>8} {share:>7}  "
        lines.append(((f"{name:<{first}}", ""), (text, ""), (bar, "muted")))
    tied = _mapping(inspection.meta.get("tied"))
    if tied:
        said = ", ".join(f"{name} is {other}" for name, other in tied.items())
        lines += [(), (("tied: ", "muted"), (said, ""))]
    return lines


def tensors(inspection: Inspection) -> list[Line]:
    """Every tensor of the model with type, shape and size; the optimiser's as one sum."""
    first = max([cell_len(tensor.name) for tensor in inspection.tensors], default=8)
    head = f"{'tensor':<{first}}  {'type':<5} {'shape':<15}{'size':>9}"
    lines: list[Line] = [((head, "muted"),)]
    for tensor in inspection.tensors:
        text = f"  {tensor.dtype:<5} {_shape(tensor.shape):<15}{size(tensor.bytes):>9}"
        lines.append(((f"{tensor.name:<{first}}", ""), (text, "")))
    total = sum(tensor.bytes for tensor in inspection.tensors)
    lines.append(((f"{'model':<{first}}", "muted"), (f"  {'':<21}{size(total):>9}", "strong")))
    extra = sum(tensor.bytes for tensor in inspection.training_tensors)
    if extra:
        lines.append(
            ((f"{'training state':<{first}}", "muted"), (f"  {'':<21}{size(extra):>9}", ""))
        )
    return lines


def _shape(shape: Sequence[int]) -> str:
    return "×".join(str(length) for length in shape) or "scalar"


def statistics(found: Sequence[TensorStatistics], width: int) -> list[Line]:
    """Norm, mean, spread, range and histogram of each tensor that was read."""
    first = max([cell_len(one.name) for one in found], default=8)
    numbers = ("norm", "mean", "std", "min", "max")
    head = f"{'tensor':<{first}}" + "".join(f"{name:>10}" for name in numbers)
    bins = max(0, min(32, width - len(head) - 3))
    lines: list[Line] = [((head + ("  histogram" if bins >= 9 else ""), "muted"),)]
    for one in found:
        values = (one.norm, one.mean, one.std, one.minimum, one.maximum)
        pieces: list[Piece] = [
            (f"{one.name:<{first}}", ""),
            ("".join(f"{_short(value):>10}" for value in values), ""),
        ]
        if one.non_finite:
            pieces.append((f"  {one.non_finite} not finite", "bad"))
        elif one.minimum is not None and one.minimum == one.maximum:
            pieces.append(("  all equal", "muted"))
        elif bins >= 8 and any(one.counts):
            pieces.append((f"  {histogram(one.counts, 32 if bins >= 32 else bins)}", "muted"))
        lines.append(tuple(pieces))
    return lines


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.2e}" if value and not 0.001 <= abs(value) < 10000 else f"{value:.3f}"


def histogram(counts: Sequence[int], width: int) -> str:
    """The counts as blocks, gathered into at most `width`; a bin with anything in it shows."""
    step = -(-len(counts) // width)
    groups = [sum(counts[at : at + step]) for at in range(0, len(counts), step)]
    top = max(groups) or 1
    return "".join(" ▁▂▃▄▅▆▇█"[math.ceil(value / top * 8)] for value in groups)


def configuration(inspection: Inspection) -> list[Line]:
    """The configuration that was saved, section by section."""
    lines: list[Line] = []
    for name, section in _mapping(inspection.meta.get("config")).items():
        if not isinstance(section, Mapping):
            continue
        lines += [()] * bool(lines) + [title(f"[{name}]")]
        for key, value in section.items():
            lines.append(fact(key, written(value), width=16))
    return lines or [(("It holds no configuration.", "muted"),)]
