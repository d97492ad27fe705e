"""How a run does, in one short line of pieces: the right end of the top bar."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tui_lab.format import duration, percent

if TYPE_CHECKING:
    from tui_lab.state import RunState
    from tui_lab.widgets.lines import Piece

DOTS = {"preparing": "warning", "training": "good", "paused": "warning"}
DOTS |= {"finished": "good", "failed": "error"}


def status_pieces(
    run: RunState | None,
    ui_share: float,
    unicode: bool,
    *,
    short: bool = False,
    slow_link: bool = False,
) -> list[Piece]:
    """The most important piece first, since a narrow line drops the last ones.

    `short` leaves out what the Train screen says itself.
    """
    dot = "● " if unicode else "* "
    pieces: list[Piece] = []
    if run is None:
        pieces.append(("idle", "muted"))
    else:
        word = "stopping" if run.live and run.stopping else (run.live and run.phase) or run.status
        pieces += [(dot, DOTS[run.status]), (word, "text")]
        if run.started and run.live and not short:
            pieces.append((f"  {percent(run.progress)}", "text"))
            if (eta := run.eta) is not None:
                pieces.append((f"  {duration(eta)} left", "muted"))
        if run.elsewhere and not short:
            pieces.append(("  attached", "muted"))
            if run.started:
                pieces.append((f" {run.started.host} {run.started.pid}", "muted"))
    if slow_link:
        pieces.append(("   slow link", "warning"))
    pieces.append((f"   UI {ui_share * 100:.1f} %", "muted"))
    return pieces
