"""Every ratio that this program is held to, on the machine at hand: `make bench`.

    python -m benchmarks [--nanogpt DIR] [--data DIR] [--only PART …] [--quick]

Peers are those that are here: `transformers` from the environment, nanoGPT from a checkout that is
named. Each part's figures are kept as soon as it ends, in benchmarks/results/<date>-<device>.json
and on docs/performance.md; a part that fails leaves the others, and its own earlier figures, as
they are. Run it on a quiet machine: it takes an hour or two (`--quick` under three minutes, which
shows that everything works, and is not kept).
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks import performance_page
from benchmarks.parts import PARTS, NotHere, Options
from benchmarks.report import RESULTS, machine_facts
from benchmarks.training import add_data_option
from engine import atomic
from engine.config import Config
from engine.survey import survey_device


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    add_data_option(parser)
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--device", default="auto", help="cpu or cuda")
    parser.add_argument("--quick", action="store_true", help="under three minutes; nothing is kept")
    parser.add_argument("--out", type=Path, help=f"folder of the result (default: {RESULTS.name})")
    asked = parser.parse_args()
    # Whoever ends this (`timeout` in gpu.sh) ends the peers: some of them are stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if asked.nanogpt is not None and not (asked.nanogpt / "model.py").is_file():
        parser.error(f"--nanogpt {asked.nanogpt}: there is no model.py in it")
    device = survey_device(Config(), asked.device)
    if device.kind not in ("cpu", "cuda"):
        parser.error(f"no peer is measured on {device.kind}; use --device cpu")
    options = Options(
        device.kind,
        asked.nanogpt.resolve() if asked.nanogpt else None,
        Path(asked.data).resolve() if asked.data else None,
        asked.quick,
    )
    keeping = not asked.quick or asked.out is not None
    book = Book.open(asked.out or RESULTS, device.name, device.kind, fresh=not keeping)
    if options.nanogpt is None:
        print("nanoGPT is not compared with: name a checkout with --nanogpt DIR", flush=True)
    failed = run(options, book, asked.only or list(PARTS), keeping)
    if keeping:
        print(f"wrote {book.path}")
        if asked.out is None:
            performance_page.write()
    tell(book)
    sys.exit(1 if failed else 0)


def run(options: Options, book: Book, names: list[str], keeping: bool) -> list[str]:
    """The parts called `names`, one after another; the names of those that failed."""
    failed = []
    for number, name in enumerate(names, 1):
        print(f"== {name} ({number} of {len(names)})", flush=True)
        began = time.perf_counter()
        try:
            found = PARTS[name](options)
        except NotHere as lack:
            print(f"  not measured: {lack}", flush=True)
            continue
        except (Exception, subprocess.SubprocessError) as error:
            failed.append(name)
            book.failed[name] = f"{type(error).__name__}: {error}"
            traceback.print_exc()
        else:
            seconds = round(time.perf_counter() - began, 1)
            book.add(name, found | {"seconds": seconds})
            print(f"  took {seconds:.0f} s", flush=True)
        if keeping:
            book.write()
    return failed


class Book:
    """The result file of a device and a day; what is in it already stays until it is measured
    anew."""

    def __init__(self, path: Path, facts: dict[str, Any], parts: dict[str, Any]) -> None:
        self.path, self.facts, self.parts = path, facts, parts
        self.failed: dict[str, str] = {}

    @classmethod
    def open(cls, folder: Path, device: str, kind: str, *, fresh: bool = False) -> Book:
        """The file of today, with what is in it already unless `fresh`."""
        facts = machine_facts() | {"device": device, "kind": kind}
        path = folder / f"{facts['date']}-{performance_page.slug(device)}.json"
        kept = path.is_file() and not fresh
        parts = json.loads(path.read_text())["parts"] if kept else {}
        return cls(path, facts, parts)

    def add(self, name: str, found: dict[str, Any]) -> None:
        self.parts[name] = {"measured": time.strftime("%Y-%m-%d %H:%M"), **found}
        self.failed.pop(name, None)

    def ratios(self) -> list[dict[str, Any]]:
        """All ratios, part by part."""
        known = [name for name in PARTS if name in self.parts]
        return [ratio for name in known for ratio in self.parts[name]["ratios"]]

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = {**self.facts, "ratios": self.ratios(), "failed": self.failed, "parts": self.parts}
        atomic.write_text(self.path, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")


def tell(book: Book) -> None:
    """What was met, in a line a ratio that has a target."""
    aimed = [ratio for ratio in book.ratios() if ratio["target"] is not None]
    met = sum(ratio["met"] for ratio in aimed)
    for ratio in aimed:
        if not ratio["met"]:
            figure = "never" if ratio["value"] is None else f"{ratio['value']:.3g}"
            word = "at least" if ratio["at_least"] else "at most"
            print(f"MISSED {ratio['name']}: {figure}, {word} {ratio['target']:g}")
    for name, why in book.failed.items():
        print(f"FAILED {name}: {why.splitlines()[0]}")
    print(f"{met} of {len(aimed)} targets met")


if __name__ == "__main__":
    main()
