"""docs/reliability.json, what each row last found at full size, and the page made from it."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.report import machine_facts
from tests.campaign.row import Result, Row, all_rows

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
SHOWN = 20  # failures of a row that are kept


def keep(row: Row, result: Result, seconds: float) -> None:
    """Remember what a row found, and write the page anew."""
    data = read()
    data[row.name] = {
        "number": row.number,
        "trials": result.trials,
        "failed": len(result.failures),
        "failures": result.failures[:SHOWN],
        "figures": result.figures,
        "seconds": round(seconds),
        "commit": _commit(),
        **machine_facts(),
        "when": time.strftime("%Y-%m-%d %H:%M"),
    }
    DATA.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(render(data))


def read() -> dict[str, Any]:
    return json.loads(DATA.read_text()) if DATA.exists() else {}


def render(data: dict[str, Any]) -> str:
    """The page: one table, and what each row did."""
    lines = [
        "# Reliability",
        "",
        "Every fault below was made on purpose, as often as the table says, on the program as it",
        "is. A trial fails when it does not end as the row says it must. Repeat it with `make",
        "campaign` (all rows), or `python -m tests.campaign ROW` (one of them); a small slice of",
        "every row runs in `make test`.",
        "",
        "| # | fault | trials | failed | date | minutes |",
        "|---|---|---:|---:|---|---:|",
    ]
    rows = [row for row in all_rows() if row.name in data]
    for row in rows:
        found = data[row.name]
        minutes = f"{found['seconds'] / 60:.1f}"
        date = found["when"].split()[0]
        lines.append(
            f"| {row.number} | [{row.fault}](#{row.name}) | {found['trials']:,} "
            f"| {found['failed']:,} | {date} | {minutes} |"
        )
    for row in rows:
        lines += ["", f'<a id="{row.name}"></a>', f"## {row.number}. {row.fault}", ""]
        lines += _about(row, data[row.name])
    return "\n".join(lines) + "\n"


def _about(row: Row, found: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [f"What must happen: {row.must}", "", "| figure | value |", "|---|---|"]
    lines += [f"| {name} | {_figure(value)} |" for name, value in found["figures"].items()]
    lines += ["", f"{found['when']}, commit {found['commit']}, {found['machine']}, "]
    lines[-1] += f"{found['cores']} cores, Python {found['python']}, {versions}."
    lines.append(f"Again: `python -m tests.campaign {row.name}`")
    if found["failures"]:
        lines += ["", "Failed:", "", *(f"- {line}" for line in found["failures"])]
    return lines


def _figure(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"
