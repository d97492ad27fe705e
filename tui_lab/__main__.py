"""The `tui-lab` command: the whole program's entry, and the one place that shows its errors."""

from __future__ import annotations

import sys

from engine.errors import EngineError
from engine.text import visible


def main() -> None:
    """Run the command line. Engine errors become one clear line (and a hint) on stderr."""
    from tui_lab.cli import app

    try:
        app()
    except EngineError as error:
        if "--debug" in sys.argv:
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
