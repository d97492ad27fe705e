"""The `tui-lab` command: the whole program's entry, and the one place that shows its errors."""

from __future__ import annotations

import os
import sys
from typing import Any

from engine import machine
from engine.errors import EngineError
from engine.text import visible
from tui_lab import stderr


def main() -> None:
    """Run the command line. Engine errors become one clear line (and a hint) on stderr."""
    stderr.install()
    # `--debug` is taken wherever it stands: nobody should have to know that it is a global option.
    debug = ["--debug"] if "--debug" in sys.argv else []
    try:
        if len(sys.argv) == 1 and "_TUI_LAB_COMPLETE" not in os.environ:
            # The bare command opens the app: a fifth of its time to first paint would be Typer's.
            from tui_lab.launch import launch

            os.environ.update(machine.short_waits())
            launch(None)
            return
        from tui_lab.cli import app

        told = [*debug, *(argument for argument in sys.argv[1:] if argument != "--debug")]
        sys.exit(_obey(app, told))
    except EngineError as error:
        if debug:
            raise
        print(f"error: {visible(error.title)}", file=sys.stderr)  # noqa: T201
        if error.hint:
            print(f"hint:  {visible(error.hint)}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # `tui-lab runs | head`: the reader has had enough, which is no error of ours.
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        # A name too long, a folder that may not be looked into: wherever a path was tried.
        if debug:
            raise
        where = f" '{error.filename}'" if error.filename else ""
        print(f"error: {visible(str(error.strerror or error) + where)}", file=sys.stderr)  # noqa: T201
        sys.exit(1)


def _obey(app: Any, arguments: list[str]) -> int:
    """Run Typer's `app`; the exit code. A refused argument is quoted, and made visible first."""
    import typer

    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.Abort:
        print("aborted", file=sys.stderr)  # noqa: T201
        return 1
    except Exception as error:
        stderr.install()  # Typer has put a hook of its own, which may print a traceback as it is
        # A usage error: its class is Click's, which Typer may carry inside itself.
        if not hasattr(error, "show") or not hasattr(error, "exit_code"):
            raise
        error.show(stderr.VisibleStderr())
        return error.exit_code


if __name__ == "__main__":
    main()
