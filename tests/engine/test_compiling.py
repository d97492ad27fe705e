"""When a run is compiled, and that one which cannot be compiled trains all the same."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from engine.compiling import CompiledLoss, compiles
from engine.objectives import Loss

PEAK = 1e12


@pytest.mark.parametrize(
    ("setting", "earlier", "flops", "device", "expected"),
    [
        ("on", False, 1.0, "cpu", True),
        ("off", True, 1e20, "cpu", False),
        ("auto", None, 1e12, "cpu", False),  # seconds of work: never worth a wait
        ("auto", None, 1e15, "cpu", True),
        ("auto", None, 1e15, "mps", False),
        ("auto", True, 1.0, "cpu", True),  # resumed: as it was before, to round alike
        ("auto", False, 1e20, "cpu", False),
    ],
)
def test_who_is_compiled(
    setting: str, earlier: bool | None, flops: float, device: str, expected: bool
) -> None:
    assert compiles(setting, earlier, flops, PEAK, device) is expected


def test_an_unknown_peak_compiles_nothing_unasked() -> None:
    assert not compiles("auto", None, 1e20, 0.0, "cpu")


def loss(batch: Tensor) -> Loss:
    nats = batch.float().square().sum()
    return Loss(nats, nats)


def test_without_a_compiler_the_step_runs_as_it_is_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """A machine without g++ trains, only slower."""
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(torch._inductor.config, "fx_graph_cache", False)
    said: list[str] = []
    compiled = CompiledLoss(loss, "cpu", said.append)
    batch = torch.arange(6).view(2, 3)
    for _ in range(3):
        assert float(compiled(batch).nats) == 55.0
    assert len(said) == 1 and not compiled.compiled


def test_what_cannot_be_had_in_one_call_is_compiled_in_many() -> None:
    """Attention that is computed twice with the random state kept, which the C++ of PyTorch 2.13
    does not know."""
    torch._dynamo.reset()
    weight = torch.randn(1, 2, 16, 16, requires_grad=True)

    def twice(batch: Tensor) -> Loss:
        attend = functional.scaled_dot_product_attention
        found = checkpoint(lambda x: attend(x, x, x), weight * batch, use_reentrant=False).sum()
        return Loss(found, found)

    said: list[str] = []
    compiled = CompiledLoss(twice, "cpu", said.append)
    compiled(torch.ones(16)).minimised.backward()
    assert compiled.compiled and not said
    if compiled._options is not None:
        pytest.skip("this PyTorch can have it in one call")


def test_an_error_of_the_loss_itself_is_not_taken_for_the_compilers() -> None:
    """Memory that runs out in the first step must reach the trainer, which knows what to do."""

    def broken(batch: Tensor) -> Loss:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        CompiledLoss(torch.compiler.disable(broken), "cpu")(torch.zeros(1))


def test_a_compiled_step_runs_without_the_interpreters_lock() -> None:
    """A screen must be able to draw, and answer a key, while a large network's step runs."""
    torch._dynamo.reset()
    start = torch.rand(2_000_000, requires_grad=True)

    def long(batch: Tensor) -> Loss:
        x = start + batch
        for _ in range(40):
            x = (x.sin() + x.cos()).exp().log1p()
        return Loss(x.sum(), x.sum())

    step, batch = CompiledLoss(long, "cpu"), torch.zeros(1)
    step(batch).minimised.backward()
    counted, ended = 0, threading.Event()
    forward, backward = [], []

    def count() -> None:
        nonlocal counted
        while not ended.is_set():
            counted += 1
            time.sleep(0)

    other = threading.Thread(target=count)
    other.start()
    try:
        for _ in range(3):
            before = counted
            result = step(batch)
            between = counted
            result.minimised.backward()
            forward.append(between - before)
            backward.append(counted - between)
    finally:
        ended.set()
        other.join()
    assert step.compiled
    assert max(forward) > 100, f"the other thread came round {forward} times"
    assert max(backward) > 100, f"the other thread came round {backward} times"


SHORT_OF_MEMORY = """
import resource
import torch
from engine.compiling import CompiledLoss
from engine.objectives import Loss
from engine.out_of_memory import is_out_of_memory

weight = torch.randn(4000, 64, requires_grad=True)

def loss(batch):
    x = weight + batch
    found = ((x @ x.t()).softmax(-1) @ x).sin().sum()
    return Loss(found, found)

step = CompiledLoss(loss, "cpu")
step(torch.zeros(1)).minimised.backward()
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * 4096 + (40 << 20), resource.RLIM_INFINITY))
try:
    step(torch.zeros(1)).minimised.backward()
except RuntimeError as error:
    print(step.compiled, is_out_of_memory(error), str(error)[:200])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the system limits a process's memory")
def test_memory_that_runs_out_in_a_compiled_step_is_known() -> None:
    """64 MB in a process that may take 40 more."""
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith("True True"), done.stdout + done.stderr
