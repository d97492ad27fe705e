"""The runs and checkpoints of a lab, read again only where files changed.

For screens that look every second: a look at two hundred unchanged runs costs a few file
statuses each. Not thread-safe; each screen's worker has its own. No Textual, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from engine.checkpoints import CheckpointInfo, list_checkpoints
from engine.checkpoints.find import run_folders
from engine.checkpoints.layout import checkpoint_folders
from engine.lab import Lab
from engine.runs import RunSummary, summarise
from engine.status import ACTIVE

Signature = tuple[tuple[int, int], ...]


_FILES = ("", "run.json", "config.toml", "status.json", "metrics.jsonl", "events.jsonl")


class Catalogue:
    """Remembers what it read of each run, with the times and sizes of the files it came from."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._runs: dict[Path, tuple[Signature, RunSummary]] = {}
        self._checkpoints: dict[Path, tuple[Signature, list[CheckpointInfo]]] = {}

    def runs(self) -> list[RunSummary]:
        """Every run of the lab and the shipped ones, in no particular order."""
        found = []
        kept = {}
        for path in run_folders(self._lab).values():
            signature = _signature(path / name for name in _FILES)
            known = self._runs.get(path)
            # An active run is read each time: its process may be gone without touching a file.
            if known is None or known[0] != signature or known[1].status in ACTIVE:
                known = (signature, summarise(path, own=self._lab.owns_run(path)))
            kept[path] = known
            found.append(known[1])
        self._runs = kept
        return found

    def checkpoints(self, run: str | None = None) -> list[tuple[CheckpointInfo, bool]]:
        """Each checkpoint of one run, or of all, and whether it is the lab's own (not shipped)."""
        found: list[tuple[CheckpointInfo, bool]] = []
        for name, path in run_folders(self._lab).items():
            if run is not None and name != run:
                continue
            folders = [folder for _, _, folder in checkpoint_folders(path)]
            signature = _signature([path, *folders])
            known = self._checkpoints.get(path)
            if known is None or known[0] != signature:
                known = self._checkpoints[path] = (signature, list_checkpoints(path))
            own = self._lab.owns_run(path)
            found += [(info, own) for info in known[1]]
        return found


def _signature(paths: Iterable[Path]) -> Signature:
    """Time and size of each file; zeros for one that is not there."""
    result = []
    for path in paths:
        try:
            status = path.stat()
            result.append((status.st_mtime_ns, status.st_size))
        except OSError:
            result.append((0, 0))
    return tuple(result)
