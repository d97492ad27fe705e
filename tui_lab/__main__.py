"""The `tui-lab` command: the whole program's entry, and the one place that shows its errors."""

from __future__ import annotations

import os
import sys

from engine.errors import EngineError
from engine.text import visible


def main() -> None:
    """Run the command line. Engine errors become one clear line (and a hint) on stderr."""
    # `--debug` is taken wherever it stands: nobody should have to know that it is a global option.
    debug = ["--debug"] if "--debug" in sys.argv else []
    try:
        if len(sys.argv) == 1 and "_TUI_LAB_COMPLETE" not in os.environ:
            # The bare command opens the app: a fifth of its time to first paint would be Typer's.
            from tui_lab.launch import launch

            launch(None)
            return
        from tui_lab.cli import app

        app([*debug, *(argument for argument in sys.argv[1:] if argument != "--debug")])
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


if __name__ == "__main__":
    main()
