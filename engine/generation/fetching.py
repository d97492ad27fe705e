"""Weights asked for before a loop comes to them, and past the caches, in compiled steps.

A token reads every weight, key and value once and none again before all others. Read as usual, each
pushes out of the caches what the token needs at every turn, and is gone when its turn comes. An
x86-64 processor can be asked for memory that will be read once ("non-temporal"): it then keeps what
it had. Measured on two cores of an EPYC with AVX2, in turn with the same step without: 384×6×6 in
float32 takes 0.81 of the time, in bfloat16 0.63, 256×4×4 0.66, 768×4×12 with 50 304 tokens 0.84;
four texts at once 0.84, sixteen, which arithmetic bounds, the same. Where the last cache has 32 MB,
which other cores use too: 384×6×6 0.96, in bfloat16 (21 MB) 0.75, 256×4×4 (13 MB) 0.78,
128×4×4 (3 MB) the same.

Inductor has no setting for it: the line is put behind the loads that it writes.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from engine import machine

if TYPE_CHECKING:
    from torch import nn

AHEAD = 2048
"""Bytes. 1024 and 4096 were as good."""
LARGE_CACHE = 32 << 20
"""Bytes: taken for the size of a last cache of which the system tells nothing."""
SHARE = 1 / 4
"""Of the last cache: what stays in it from token to token."""


def pays(model: nn.Module, device: str) -> bool:
    """Whether the weights of `model` pass through the caches of `device` without staying there."""
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    is_known = (sys.platform, platform.machine()) == ("linux", "x86_64")  # and its compilers
    return device == "cpu" and is_known and size > SHARE * (machine.last_cache() or LARGE_CACHE)


@contextmanager
def ahead() -> Iterator[None]:
    """While it lasts, code that Inductor writes for a processor fetches every matrix that it was
    given `AHEAD` bytes ahead. Not for two threads at once. Does nothing where Inductor is made
    otherwise than that of PyTorch 2.11 to 2.14."""
    try:
        from torch._inductor.codegen.cpp import CppVecKernel, cexpr_index
        from torch._inductor.virtualized import V
    except ImportError:
        yield
        return
    load = CppVecKernel.load

    def fetch(kernel: Any, name: str, index: Any, loaded: Any) -> None:
        given = V.graph.graph_inputs.get(name)
        if hasattr(loaded, "is_fetched") or given is None or len(given.get_size()) < 2:
            return
        place = kernel.rename_indexing(index)
        if kernel._try_get_const_stride(place, kernel.itervars[kernel.tiling_idx]) == 1:
            loaded.is_fetched = True  # the same load is asked for once for every text
            address = f"{kernel.args.input(name)} + {cexpr_index(place)}"
            kernel.loads.writeline(f"__builtin_prefetch((const char*)({address}) + {AHEAD}, 0, 0);")

    def load_and_fetch(kernel: Any, name: str, index: Any) -> Any:
        loaded = load(kernel, name, index)
        with suppress(AttributeError):
            fetch(kernel, name, index, loaded)
        return loaded

    CppVecKernel.load = load_and_fetch
    try:
        yield
    finally:
        CppVecKernel.load = load
