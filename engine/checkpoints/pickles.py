"""Files that hold a checkpoint of another kind, and why they are not read.

A pickle (`.pt`, `.pth`, `.bin`, `.ckpt`) is a program: reading it runs whatever it says. Such files
are known by their ending or their first bytes, and refused with the remedy. Reading one under
`--trust` is `trusted`; this module opens nothing but those first bytes, and needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from engine.errors import CheckpointError
from engine.plain_file import open_plain

ENDINGS = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".pickle")
_ZIP = b"PK\x03\x04"
_PROTOCOLS = tuple(bytes((0x80, protocol)) for protocol in range(2, 6))


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, or a zip of pickles, by its ending or its first bytes."""
    return path.suffix.lower() in ENDINGS or starts_pickle(_head(path))


def starts_pickle(head: bytes) -> bool:
    """Whether a file that begins with these 8 bytes is a pickle or a zip of pickles."""
    # A safetensors file may begin with 0x80 as well: there it is a length, whose upper half is 0.
    # From protocol 4 on the length of a frame stands there, after its mark.
    framed = head[2:3] == b"\x95"
    return head.startswith(_ZIP) or (head.startswith(_PROTOCOLS) and (framed or any(head[4:8])))


def refuse_file(path: Path) -> None:
    """Raise CheckpointError if `path` is a file: checkpoints are folders."""
    if not path.is_file():
        return
    if is_pickle(path):
        raise CheckpointError(
            f"'{path}' is a pickle, which can run any program when it is read: it was not opened",
            "ask its maker for safetensors; to list its tensors all the same: "
            f"tui-lab checkpoints show '{path}' --trust",
        )
    raise CheckpointError(
        f"'{path}' is a file, and a checkpoint is a folder", "name a run, or run/step_000500"
    )


def _head(path: Path) -> bytes:
    try:
        with open_plain(path, follow=True) as file:
            return file.read(8)
    except OSError:
        return b""
