"""A process of its own that compiles one step: `python -P -m engine.generation.compiling`.

It reads a recipe (`Recipe`, as JSON, one line) from its standard input, and writes a package for
`torch._inductor.aoti_load_package` where the recipe says. The package holds machine code and no
weights: whoever loads it brings its own, of the same shapes, and need not wait again.

Apart from the program that wants it, for compiling is seconds of Python that would hold up a screen
and a text in the making. It is as nice as can be to everybody, and ends when its standard input
does, as it does when the program ends in whatever way.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from engine import machine
from engine.config.sections import ModelConfig
from engine.device import as_current
from engine.errors import in_words
from engine.generation import fetching
from engine.generation.step import Form, Step, inputs_of, weights_of
from engine.model import GPT, KVCache

if TYPE_CHECKING:
    from torch.export import ExportedProgram

OPTIONS: dict[str, Any] = {
    # A product and the sum it goes into are one instruction: else they are two.
    "cpp.enable_floating_point_contract_flag": "fast",
    "aot_inductor.precompile_headers": False,  # dearer than the one compilation that would use them
    # Tracing asks whether all slots are filled, to know whether they lie in a row, and would refuse
    # every text that fills its context; the code computes with strides all the same.
    "scalar_asserts": False,
}
"""Of Inductor."""
OPTIONS_ON_CPU = {"memory_planning": True}
"""All intermediate results in one piece of memory: 60 allocations are felt where the weights have
just passed through the caches. Two cores with AVX2: a token of 384×6×6 takes 0.95 of the time, of
128×4×4 0.93; of sixteen texts the same."""
SCHEDULED = {
    "cpp.enable_floating_point_contract_flag": "fast -fschedule-insns -fsched-pressure",
}
"""For GCC, which on x86-64 leaves instructions in the order in which they are written: all weights
of a loop would be in registers before the first is multiplied, and the sums in memory. Inductor
lets nobody add flags; what it takes for this one it writes as it is."""


@dataclass(frozen=True)
class Recipe:
    """All that the machine code depends on, beside the machine and the versions."""

    model: dict[str, Any]
    """The fields of the `ModelConfig`."""
    vocab_size: int
    form: dict[str, Any]
    """The fields of the `Form`."""
    dtype: str
    device: str
    """With its number, where there may be several of a kind."""
    threads: int
    """Loops are cut for so many."""
    fetches: bool
    """Weights ahead and past the caches (`engine.generation.fetching`)."""

    @classmethod
    def of(cls, model: GPT, form: Form, device: torch.device) -> Recipe:
        return cls(
            model=asdict(replace(model.config, dropout=0.0)),
            vocab_size=model.vocab_size,
            form=asdict(form),
            dtype=str(model.wte.weight.dtype).removeprefix("torch."),
            device=str(device),
            threads=torch.get_num_threads(),
            fetches=fetching.pays(model, device.type),
        )

    def key(self) -> str:
        """Differs for another processor, PyTorch or source, as the machine code does."""
        facts = [asdict(self), torch.__version__, _processor(self.device), _sources(), OPTIONS]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def compile_step(recipe: Recipe, path: Path) -> None:
    """Write the package to `path`, which ends in .pt2. Raises what PyTorch raises: there is no
    single error for a compiler that is missing, too old, or fails."""
    import torch.export

    torch.set_num_threads(recipe.threads)
    device, dtype = torch.device(recipe.device), getattr(torch, recipe.dtype)
    with torch.device("meta"):
        model = GPT(ModelConfig(**recipe.model), recipe.vocab_size)
    form = Form(**recipe.form)
    with torch.no_grad(), as_current(device):
        cache, inputs = _example(model.config, form, dtype, device)
        # Shapes are all that counts: nothing writes to this memory, so that it takes none.
        weights = [torch.empty_like(w, dtype=dtype, device=device) for w in weights_of(model)]
        draw = [torch.ones(form.rows, recipe.vocab_size), torch.ones(1)]
        exported = torch.export.export(
            Step(model, form),
            (weights, inputs, [each.to(device) for each in draw]),
            dynamic_shapes=([{}] * len(weights), _lengths(cache, form), [{}, {}]),
            prefer_deferred_runtime_asserts_over_guards=True,
        )
        with fetching.ahead() if recipe.fetches else nullcontext():
            _compile(exported, path, recipe.device)


def _compile(exported: ExportedProgram, path: Path, device: str) -> None:
    from torch._inductor import aoti_compile_and_package
    from torch._inductor.cpp_builder import is_gcc

    options = OPTIONS | (OPTIONS_ON_CPU if device == "cpu" else {})
    if device == "cpu" and is_gcc():
        with suppress(RuntimeError):  # from a compiler that will have none of it: without
            scheduled = options | SCHEDULED
            aoti_compile_and_package(exported, package_path=str(path), inductor_configs=scheduled)
            return
    aoti_compile_and_package(exported, package_path=str(path), inductor_configs=options)


def _example(
    config: ModelConfig, form: Form, dtype: torch.dtype, device: torch.device
) -> tuple[KVCache, list[Tensor]]:
    """Inputs of the form, as long as those of a text in its midst: loops are shared among cores
    where that pays for these. None of the lengths are 0 or 1 or equal by chance."""
    padding = (torch.arange(form.rows, device=device) + 1) % 2 if form.padded else None
    cache = KVCache(
        config,
        form.rows,
        min(251, config.context_length),
        device=device,
        dtype=dtype,
        padding=padding,
        stream=min(1, config.context_length - 1) if form.stream else None,
    )
    cache.end(max(2, min(127, config.context_length // 2)))
    tokens_B1 = torch.zeros(form.rows, 1, dtype=torch.long, device=device)
    counted = torch.arange(config.context_length + 7, device=device)
    return cache, inputs_of(tokens_B1, cache, counted, form)


def _lengths(cache: KVCache, form: Form) -> list[dict[int, Any]]:
    """Which lengths of the inputs differ from text to text, in their order."""
    lengths: list[dict[int, Any]] = [{}]
    for window in cache.kinds:
        filled = torch.export.Dim(f"filled_{window}", min=2)
        lengths += [{}, {}, {0: filled}]
        if form.stream:
            lengths.append({0: filled})
        elif form.masked:
            lengths.append({3: filled})
    total = {window: torch.export.Dim(f"total_{window}", min=2) for window in cache.kinds}
    of_layers = [{2: total[cache.config.window_of(layer)]} for layer in range(len(cache.layers))]
    return lengths + of_layers + of_layers


def _processor(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{machine.cpu_name()} {torch.backends.cpu.get_cpu_capability()}"


def _sources() -> str:
    """A digest of the sources of the network, of the step, and this one."""
    here = Path(__file__).parent
    own = [here / "step.py", here / "sampling.py", here / "fetching.py", Path(__file__)]
    files = [*sorted((here.parent / "model").glob("*.py")), *own]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _end_with(parent: IO[str]) -> None:
    """End this process, and the compilers that it started, when `parent` ends."""
    while parent.readline():
        pass
    with suppress(AttributeError, OSError):  # no groups on Windows
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(1)


def main() -> None:
    with suppress(AttributeError, OSError):
        os.nice(19)
    asked = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with, args=(sys.stdin,), daemon=True).start()
    path = Path(asked["path"])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compiling-") as scratch:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch
        made = Path(scratch) / "step.pt2"
        try:
            compile_step(Recipe(**asked["recipe"]), made)
        except Exception as error:
            sys.exit(f"\n{in_words(error)}")  # the last line that the parent reads
        os.replace(made, path)


if __name__ == "__main__":
    main()
