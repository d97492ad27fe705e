"""The campaign at full size: `python -m tests.campaign [ROW …] [--trials N] [--list]`.

Each row runs in a process of its own, so that one which dies is a failure of that row alone.
Results are kept in docs/reliability.json as each row ends, and docs/reliability.md is written from
them: rows can be repeated one by one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.campaign import report
from tests.campaign.row import Result, Row, all_rows


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="numbers or names; all by default")
    parser.add_argument("--trials", type=int, default=0, help="instead of each row's full size")
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    told = parser.parse_args()
    rows = [row for row in all_rows() if not told.rows or {row.name, row.number} & {*told.rows}]
    if told.list or not rows:
        for row in all_rows():
            print(f"{row.number:>4}  {row.name:24} {row.full:>7}  {row.fault}")
        return 0 if told.list else 2
    if told.one:
        told.one.write_text(json.dumps(asdict(run_here(rows[0], told.trials or rows[0].full))))
        return 0
    bad = 0
    for row in rows:
        trials = told.trials or row.full
        print(f"row {row.number}  {row.fault} ({trials:,} trials)", flush=True)
        started = time.monotonic()
        result = run_apart(row, trials)
        seconds = time.monotonic() - started
        if trials == row.full:
            report.keep(row, result, seconds)
        bad += bool(result.failures)
        word = f"{len(result.failures):,} FAILED" if result.failures else "holds"
        print(f"      {word} after {seconds:.0f} s  {json.dumps(result.figures)}", flush=True)
        for line in result.failures[:10]:
            print(f"      {line}")
    return 1 if bad else 0


def run_apart(row: Row, trials: int) -> Result:
    """The row in a process of its own; one that dies has failed."""
    with tempfile.TemporaryDirectory() as place:
        answer = Path(place) / "result.json"
        command = [sys.executable, "-m", "tests.campaign", row.name, "--trials", str(trials)]
        code = subprocess.run([*command, "--one", str(answer)], check=False).returncode
        if code == 0 and answer.exists():
            return Result(**json.loads(answer.read_text()))
        return Result(trials, [f"the row's own process ended with {code}"])


def run_here(row: Row, trials: int) -> Result:
    """The row in this process, with a bar on stderr."""
    folder = Path(tempfile.mkdtemp(prefix=f"campaign-{row.name}-"))
    started = shown = time.monotonic()
    # A shell starts what it puts into the background deaf to it, and trials would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def progress(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > 1 or done >= trials:
            shown = now
            left = (now - started) / max(done, 1) * (trials - done)
            end = "\r" if sys.stderr.isatty() else "\n"
            print(f"      {done:,} / {trials:,}  {left:.0f} s left   ", end=end, file=sys.stderr)
            shown = now if sys.stderr.isatty() else now + 30

    try:
        return row.run(trials, folder, progress)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
