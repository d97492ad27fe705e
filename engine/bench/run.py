"""Everything that `tui-lab bench` measures, in order, one finding at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine import machine
from engine.bench.generation import generation_rate
from engine.bench.limits import BYTES, COPY, READ, bandwidth, matmul_peak
from engine.bench.shapes import SHAPES
from engine.bench.training import training_rate
from engine.config import Config
from engine.device import choose_device, device_name
from engine.generation.compiled import When

TRAINED = ("384", "128")
GENERATED = "384"
PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Effort:
    """Seconds that each measurement takes once warm, the shapes that are trained, and whether
    generation waits for its compiled step or takes one that is kept."""

    matmul: float = 0.6
    memory: float = 1.0
    training: float = 6.0
    generation: float = 4.0
    trained: tuple[str, ...] = TRAINED
    compiled: When = "behind"


QUICK = Effort(0.2, 0.3, training=1.5, generation=1.0, trained=("128",), compiled="kept")


@dataclass(frozen=True)
class Finding:
    """One measurement. `what`: device, matmul, memory, training, generation; `name`: of which
    precision or network; `figures`: by name, in FLOP/s, bytes, seconds, tokens a second."""

    what: str
    name: str
    figures: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"what": self.what, "name": self.name, **self.figures}


@dataclass(frozen=True)
class Own:
    """A configuration of the user's to time beside the usual shapes."""

    name: str
    config: Config
    vocab_size: int


Tell = Callable[[str, str, float], None]
"""Told what is measured, what is being done for it, and which share of that, 0 to 1."""


def bench(
    device: str,
    *,
    effort: Effort = Effort(),
    settings: dict[str, Any] | None = None,
    own: Sequence[Own] = (),
    tell: Tell = lambda name, doing, share: None,
) -> Iterator[Finding]:
    """Measure `device` and the engine on it. `settings`: fields of every configuration trained.

    Threads are all cores, or `train.threads`. Raises DeviceError, ConfigError, and what a run
    raises.
    """
    import torch

    settings = {"train.device": device, **(settings or {})}
    where = choose_device(device)
    torch.set_num_threads(int(settings.get("train.threads", 0)) or machine.cores())
    facts = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    yield Finding("device", device_name(where), {"device": where.type, **facts})

    peaks = {}
    for precision in PRECISIONS:
        if precision == "float16" and where.type == "cpu":
            continue  # no processor trains in it
        tell(f"matmul, {precision}", "measuring", 0.0)
        peaks[precision] = matmul_peak(where, precision, effort.matmul)
        yield Finding("matmul", precision, {"flops": peaks[precision]})
    tell("memory", "measuring", 0.0)
    memory = bandwidth(where, effort.memory)
    about = {"read_is": READ, "copy_is": COPY, "size": BYTES.get(where.type, BYTES["cpu"])}
    yield Finding("memory", "", {"read": memory.read, "copy": memory.copy, **about})

    usual = [SHAPES[name] for name in effort.trained]
    for one in (*(Own(str(shape), shape.config(), shape.vocab_size) for shape in usual), *own):
        name = f"training {one.name}"
        rate = training_rate(
            one.config.with_values(settings),
            one.vocab_size,
            seconds=effort.training,
            tell=lambda doing, share, name=name: tell(name, doing, share),
        )
        peak = peaks.get(rate.precision, 0.0)
        share = {"peak_flops": peak, "mfu": rate.flops / peak if peak else None}
        yield Finding("training", one.name, asdict(rate) | share)

    shape = SHAPES[GENERATED]
    for one in (Own(shape.title, shape.config(), shape.vocab_size), *own):
        name = f"generation {one.name}"
        made = generation_rate(
            one.config.model,
            one.vocab_size,
            where,
            seconds=effort.generation,
            when=effort.compiled,
            tell=lambda doing, share, name=name: tell(name, doing, share),
        )
        share = {"roofline": made.roofline(memory.read)}
        yield Finding("generation", one.name, asdict(made) | share)
