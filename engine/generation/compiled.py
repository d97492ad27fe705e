"""The compiled steps of one model: looked for, made behind, and used once they are there.

A text begins eagerly, always. Meanwhile a thread loads the step from this user's cache, or has it
compiled by a process of its own (`engine.generation.compiling`), and the text goes on with it from
wherever it has come to: keys and values stay where they are. The machine code holds no weights, so
that it serves every checkpoint of the same shape, in this process and in later ones; each model
binds its own, where they lie. Where nothing can be compiled, texts go on eagerly.

Knows nothing of text.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from engine import machine
from engine.atomic import discard
from engine.device import as_current
from engine.errors import EngineError, in_words
from engine.generation.compiling import Recipe
from engine.generation.layout import lay_in_rows
from engine.generation.step import (
    MOST_ROWS,
    Form,
    inputs_of,
    is_possible,
    reads_all,
    weights_of,
)
from engine.model import GPT, KVCache

When = Literal["never", "kept", "behind", "before"]
"""When to use a compiled step: never; if it lies in the cache; compiling it behind the first text;
compiling it before the second token."""
State = Literal["compiling", "compiled", "failed"]

LONGEST = 3600.0
"""Seconds after which what a compilation has left counts as left by one that was ended."""
KEPT = 32
"""Packages of 3 to 5 MB kept in the cache, those used last."""


class CompiledStep:
    """A loaded package, with the weights of `model`."""

    def __init__(self, package: Path, model: GPT, form: Form) -> None:
        """Raises what PyTorch raises for a package that it cannot load."""
        self._model, self._form = model, form
        device = model.wte.weight.device
        loaded = torch._inductor.aoti_load_package(
            package,
            run_single_threaded=True,
            device_index=-1 if device.index is None else device.index,
        )
        # Past the wrapper around it, which parses a description at every call.
        self._run = loaded.loader.run
        self._weights: list[Tensor] = []
        self._counted = torch.empty(0, dtype=torch.long)
        self._unused: list[Tensor] = []
        self._recorded_for: KVCache | None = None

    def bind(self) -> None:
        """Take the weights that the model has now."""
        lay_in_rows(self._model)
        self._recorded_for = None
        self._weights = weights_of(self._model)

    def __call__(self, tokens_B1: Tensor, cache: KVCache) -> tuple[Tensor, Tensor, Tensor]:
        """Read the next token of each text in `cache`: logits, their softmax and its entropy, as
        `Step.forward` gives them."""
        logits_BV, own_BV, entropy_B, _, _ = self._read(tokens_B1, cache, self._no_draw(cache))
        return logits_BV, own_BV, entropy_B

    def draw(
        self, tokens_B1: Tensor, cache: KVCache, race_BV: Tensor, temperature: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same, and draw: the tokens (B, 1), and what is told of them."""
        *_, drawn_B1, told_BX = self._read(tokens_B1, cache, [race_BV, temperature])
        return drawn_B1, told_BX

    def _read(self, tokens_B1: Tensor, cache: KVCache, draw: list[Tensor]) -> list[Tensor]:
        if len(self._counted) <= cache.most_slots:
            self._counted = torch.arange(2 * (cache.most_slots + 1), device=cache.device)
        whole = reads_all(cache)
        inputs = inputs_of(tokens_B1, cache, self._counted, self._form, whole=whole) + draw
        found = self._replay(inputs, cache) if whole else self._run_of(inputs)
        cache.end(1)
        return found

    def _no_draw(self, cache: KVCache) -> list[Tensor]:
        """For those who draw otherwise, or not at all."""
        if not self._unused:
            shape = cache.layers[0].k.shape[0], self._model.vocab_size
            self._unused = [torch.ones(each, device=cache.device) for each in (shape, 1)]
        return self._unused

    def _run_of(self, inputs: list[Tensor]) -> list[Tensor]:
        return self._run([*self._weights, *inputs])

    @torch.inference_mode()
    def _replay(self, inputs: list[Tensor], cache: KVCache) -> list[Tensor]:
        """The same on CUDA, where a token costs one launch instead of hundreds: its kernels are
        recorded at the first of a text and replayed. (No GPU was at hand: this has never run.)"""
        if self._recorded_for is not cache:
            kept = [x for layer in cache.layers for x in (layer.k, layer.v)]
            addresses = {tensor.data_ptr() for tensor in kept}
            # What changes has one place of its own; keys and values stay where they are.
            self._inputs = [x if x.data_ptr() in addresses else x.clone() for x in inputs]
            self._run([*self._weights, *self._inputs])  # outside of a recording first, as it must
            self._graph, self._recorded_for = torch.cuda.CUDAGraph(), cache
            # Other threads, as one that trains, may take memory meanwhile.
            with (
                as_current(cache.device),
                torch.cuda.graph(self._graph, capture_error_mode="thread_local"),
            ):
                self._found = self._run([*self._weights, *self._inputs])
        for place, new in zip(self._inputs, inputs, strict=True):
            if place is not new:
                place.copy_(new)
        self._graph.replay()
        *found, told_BX = self._found
        return [*found, told_BX.clone()]  # the next token is drawn before this one is looked at


class Steps:
    """Compiled steps of `model`, one for each form of text. All but `close` is for one thread."""

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        when: When = "kept",
        *,
        allowed: Callable[[], bool] = lambda: True,
        told: Callable[[State, str], None] = lambda state, words: None,
    ) -> None:
        """`allowed` is asked before something is compiled, which takes a core for seconds. `told`
        hears, from another thread, what becomes of it; of a failure the reason, once."""
        self._model, self._device, self._when = model, device, when
        self._allowed, self._told = allowed, told
        self._ready: dict[Form, CompiledStep] = {}
        self._begun: set[Form] = set()
        self._looked: set[Form] = set()
        self._bound: set[Form] = set()
        self._threads: list[threading.Thread] = []
        self._child: subprocess.Popen[str] | None = None
        self._given_up = (
            when == "never" or device.type not in ("cpu", "cuda") or not is_possible(model)
        )

    def begin(self) -> None:
        """A new text: weights may have been replaced since the last, and a compilation that was not
        allowed may be now."""
        self._bound.clear()
        self._looked = set(self._begun)

    def next(self, cache: KVCache) -> CompiledStep | None:
        """The step for the texts in `cache`, if it is there. Else it is looked for, or made."""
        if self._given_up:
            return None
        form = Form.of(cache)
        step = self._ready.get(form)
        if step is None:
            if form not in self._looked and form.rows <= MOST_ROWS:
                self._looked.add(form)
                self._look_for(form)
            if self._when != "before":
                return None
            self.wait()
            step = self._ready.get(form)
        if step is not None and form not in self._bound:
            step.bind()
            self._bound.add(form)
        return step

    def give_up(self, error: Exception) -> None:
        """A step has failed: texts go on eagerly, this one from where it is."""
        self._told("failed", in_words(error))
        self.close()

    def wait(self) -> None:
        """Until nothing is being looked for or made."""
        while self._threads:
            self._threads.pop().join()

    def close(self) -> None:
        """End what is being compiled, and begin nothing more."""
        self._given_up = True
        if (child := self._child) is not None and child.stdin is not None:
            with suppress(OSError):
                child.stdin.close()  # it ends when this does

    def _look_for(self, form: Form) -> None:
        assert isinstance(self._model, GPT)
        recipe = Recipe.of(self._model, form, self._device)
        package = machine.cache_dir() / "steps" / f"{recipe.key()}.pt2"
        if not package.exists() and (self._when == "kept" or not self._allowed()):
            return
        self._begun.add(form)
        thread = threading.Thread(
            target=self._get, args=(form, recipe, package), name="compiling", daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def _get(self, form: Form, recipe: Recipe, package: Path) -> None:
        """In a thread of its own. Never raises: without a step, texts go on eagerly."""
        try:
            _check_private(package.parent)
            if not package.exists():
                self._told("compiling", "")
                started = time.perf_counter()
                self._compile(recipe, package)
                self._told("compiled", f"in {time.perf_counter() - started:.0f} s")
            package.touch()
            assert isinstance(self._model, GPT)
            self._ready[form] = CompiledStep(package, self._model, form)
        except Exception as error:
            if not self._given_up:
                self._told("failed", in_words(error))
            self._given_up = True

    def _compile(self, recipe: Recipe, package: Path) -> None:
        """Raises EngineError with the compiler's own last words."""
        command = [sys.executable, "-P", "-m", "engine.generation.compiling"]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,  # ctrl-c is for the text; compilers end with their chief
        ) as child:
            assert child.stdin is not None and child.stderr is not None
            self._child = child
            if self._given_up:
                self.close()
            asked = {"recipe": asdict(recipe), "path": str(package)}
            with suppress(OSError, ValueError):  # it has ended, or is to end
                child.stdin.write(json.dumps(asked) + "\n")
                child.stdin.flush()
            words = child.stderr.read().strip().splitlines()
        if child.returncode or not package.exists():
            raise EngineError(words[-1] if words else f"the compiler ended by {child.returncode}")
        _prune(package.parent)


def _check_private(folder: Path) -> None:
    """Make `folder` if it is not there. Raises EngineError unless this user alone can write in it:
    what lies there is run."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    facts = folder.stat()
    if hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022):
        raise EngineError(f"others can write in '{folder}'", f"chmod 700 '{folder}'")


def _prune(folder: Path) -> None:
    """Remove all but the packages used last, and what a compilation that was ended has left."""
    packages = sorted(folder.glob("*.pt2"), key=lambda path: -path.stat().st_mtime)
    for path in packages[KEPT:]:
        path.unlink(missing_ok=True)
    for path in folder.glob(".compiling-*"):
        if time.time() - path.stat().st_mtime > LONGEST:
            discard(path)
