"""`tui-lab doctor`: whether this machine, terminal and lab are fit for the work, line by line."""

from __future__ import annotations

import locale
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Annotated

import typer

from engine.errors import TokenizerError
from engine.lab import KINDS, Lab
from tui_lab import format
from tui_lab.cli.common import current_lab, note, on_terminal, say, say_json

PACKAGES = ("torch", "textual", "tiktoken", "rustbpe", "safetensors", "numpy")
SMALLEST = (80, 24)
LITTLE_DISK = 2 * 10**9


@dataclass(frozen=True)
class Check:
    """`state`: ok, warn (works, less well), fail (the main job does not work)."""

    name: str
    state: str
    found: str
    remedy: str = ""


def register(app: typer.Typer) -> None:
    app.command("doctor", help="Check machine, terminal and lab.")(doctor)


def doctor(
    json: Annotated[bool, typer.Option("--json", help="One JSON object a check.")] = False,
) -> None:
    """Look at everything the lab needs, with remedies. Exit status 1 if it cannot run."""
    lab = current_lab()
    failed = False
    for check in checks(lab):
        failed |= check.state == "fail"
        if json:
            say_json(asdict(check))
            continue
        say(f"{check.state:<5} {check.name:<11} {check.found}")
        if check.remedy:
            say(f"{'':<17} {check.remedy}")
    if failed:
        raise typer.Exit(1)


def checks(lab: Lab) -> Iterator[Check]:
    """One by one, so that the quick ones are on the screen while torch loads."""
    yield from _versions()
    yield from _terminal()
    yield _screen()
    yield from _lab(lab)
    yield _gpt2(lab)
    yield _memory()
    note("loading torch …")
    yield from _torch()


def _versions() -> Iterator[Check]:
    from engine import __version__

    yield Check("tui-lab", "ok", f"{__version__}, Python {platform.python_version()}")
    found, absent = [], []
    for package in PACKAGES:
        try:
            found.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            absent.append(package)
    needed = [package for package in absent if package != "rustbpe"]
    state = "fail" if needed else "warn" if absent else "ok"
    remedy = f"absent: {', '.join(absent)}; reinstall tui-lab" if needed else ""
    if state == "warn":
        remedy = "rustbpe is absent: bpe tokenizers are trained in slow Python instead"
    yield Check("packages", state, ", ".join(found), remedy)


def _terminal() -> Iterator[Check]:
    if not on_terminal():
        yield Check("terminal", "ok", "none on stdout: commands print plain lines")
        return
    columns, lines = shutil.get_terminal_size()
    enough = columns >= SMALLEST[0] and lines >= SMALLEST[1]
    remedy = "" if enough else f"the app wants {SMALLEST[0]} columns and {SMALLEST[1]} lines"
    yield Check("terminal", "ok" if enough else "warn", f"{columns} × {lines}", remedy)

    term, depth = os.environ.get("TERM", ""), os.environ.get("COLORTERM", "")
    if "NO_COLOR" in os.environ:
        yield Check("colours", "ok", "none, as NO_COLOR asks")
    elif depth in ("truecolor", "24bit"):
        yield Check("colours", "ok", "16 million")
    elif "256" in term:
        yield Check("colours", "ok", "256")
    else:
        remedy = "if the terminal can do more: export COLORTERM=truecolor"
        yield Check("colours", "warn", f"16 at most (TERM={term or 'unset'})", remedy)
    encoding = locale.getencoding()
    unicode = encoding.lower().replace("-", "") == "utf8"
    remedy = "" if unicode else "charts fall back to ASCII; for better ones: export LANG=C.UTF-8"
    yield Check("unicode", "ok" if unicode else "warn", encoding, remedy)


def _screen() -> Check:
    """What the newest session of the app has cost, from the file that it keeps."""
    from tui_lab import screen_cost

    cost = screen_cost.last()
    if cost is None:
        return Check("screen", "ok", "the app has not been open here yet")
    place = f"process {cost.pid}" if cost.running else f"{format.moment(cost.time)}, ended"
    slow = ", slow link" if cost.slow_link else ""
    rate = f"{format.size(cost.bytes_per_second)}/s to the terminal"
    whole = f"{format.size(cost.bytes)} in {format.duration(cost.seconds)}"
    found = f"{rate}, {whole}, {cost.share:.1%} of a core at {cost.columns} × {cost.lines}"
    return Check("screen", "ok", f"{found}{slow} ({place})")


def _lab(lab: Lab) -> Iterator[Check]:
    unwritable = []
    for kind in KINDS:
        folder = lab.root / kind
        place = folder if folder.exists() else lab.root
        if not os.access(place, os.W_OK | os.X_OK):
            unwritable.append(kind)
    if unwritable:
        remedy = "make it writable, or work in another lab: tui-lab init DIR; cd DIR"
        yield Check("lab", "fail", f"{lab.root}: cannot write {', '.join(unwritable)}", remedy)
    else:
        yield Check("lab", "ok", f"{lab.root}, writable")
    free = shutil.disk_usage(lab.root).free
    little = free < LITTLE_DISK
    remedy = "checkpoints may not fit: make room, or train with --no-save" if little else ""
    yield Check("disk", "warn" if little else "ok", f"{format.size(free)} free", remedy)


def _gpt2(lab: Lab) -> Check:
    from engine.tokenizers.gpt2 import Gpt2Tokenizer

    try:
        Gpt2Tokenizer.local(lab)
    except TokenizerError as error:
        return Check("gpt2", "warn", error.title, error.hint)
    return Check("gpt2", "ok", "GPT-2's vocabulary is on this machine")


def _memory() -> Check:
    from engine import machine

    total, free = machine.memory_total(), machine.memory_available()
    return Check("memory", "ok", f"{format.size(free)} free of {format.size(total)}")


def _torch() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        remedy = "pip install torch; on a GPU machine by the command of pytorch.org"
        yield Check("torch", "fail", f"cannot be loaded: {error}", remedy)
        return
    from engine import device, machine

    chosen = device.choose_device("auto")
    gpu_idle = chosen.type == "cpu" and machine.has_nvidia_driver()
    remedy = ""
    if gpu_idle:
        remedy = "an NVIDIA driver is here, but this torch cannot use it: install torch for CUDA"
    yield Check(
        "device",
        "warn" if gpu_idle else "ok",
        f"{chosen}: {device.device_name(chosen)} (torch {torch.__version__})",
        remedy,
    )
    precision = device.choose_precision(chosen)
    native = precision != "float32"
    yield Check(
        "precision",
        "ok",
        f"{precision} in hardware" if native else "float32: no 16-bit units that training can use",
    )
    if chosen.type == "cuda":
        if machine.nvml() is None:
            remedy = "for load, temperature and power: pip install 'tui-lab[gpu]'"
            yield Check("telemetry", "warn", "nvidia-ml-py is absent or finds no driver", remedy)
        else:
            yield Check("telemetry", "ok", "load, temperature and power are shown")
    threads, cores = torch.get_num_threads(), machine.cores()
    few = threads < cores // 2
    remedy = "OMP_NUM_THREADS holds torch back; unset it" if few else ""
    found = f"{threads} for torch, {cores} usable {'core' if cores == 1 else 'cores'}"
    yield Check("threads", "warn" if few else "ok", found, remedy)
