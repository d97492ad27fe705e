"""Which checkpoint speaks when none is named. No torch: a wrong name is refused before it loads."""

from __future__ import annotations

from engine.checkpoints import list_checkpoints
from engine.checkpoints.find import run_folders
from engine.errors import CheckpointError
from engine.lab import Lab


def default_reference(lab: Lab) -> str:
    """The name of the run with the newest checkpoint: a lab's own before a shipped one.

    A broken one counts: another run must not speak in its place without a word. Raises
    CheckpointError when there is none.
    """
    newest: list[tuple[bool, float, str]] = []
    for name, path in run_folders(lab).items():
        times = [info.time for info in list_checkpoints(path)]
        if times:
            newest.append((path.parent == lab.checkpoints, max(times), name))
    if not newest:
        raise CheckpointError(
            f"no run in '{lab.root}' has a checkpoint", "train one: tui-lab train"
        )
    return max(newest)[2]
