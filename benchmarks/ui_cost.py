"""What drawing costs training: preset `micro` in the app against headless, interleaved.

    python -m benchmarks.ui_cost [--pairs 5] [--steps N] [--preset micro] [--append]

The app draws in a real pseudo-terminal of 120×36. Both train the same configuration (evaluation,
samples and saving off: they are not what is compared); the rate is taken from each run's own
metrics.jsonl, from the first quarter of its steps to the last. Pairs during which other processes
took more than 3 % of the machine are not counted, unless there are no others. What the app says of
its own cost is told beside. `--append` adds the pairs to those of today's result, so that a quiet
machine need not be had for long at a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import quiet
from benchmarks.report import RESULTS, machine_facts, write_result
from benchmarks.terminal import Terminal
from engine.config import load_preset, to_toml
from engine.config.load import override
from engine.lab import Lab

LIMIT = 0.98
LIMITS = {"medium": 0.99}
"""Of presets that are made for a GPU, which the screen does not compete for."""
SECONDS, TRIAL_STEPS = 30.0, 40
"""How long a run is, and the steps of the one that finds out how many that takes."""
BYTES_LIMIT = 10_000
"""Bytes a second to the terminal."""
SCRIPT = str(Path(sys.executable).with_name("tui-lab"))


def make_lab(folder: Path, steps: int, preset: str = "micro") -> Lab:
    """A lab whose own `micro` is the shipped `preset`, as long as the benchmark needs it."""
    lab = Lab.init(folder)
    config = load_preset(lab, preset)
    settings: dict[str, Any] = {
        "train.max_steps": steps,
        "train.eval_every": steps * 2,
        "sample.every": 0,
        "save.policy": "none",
    }
    if config.data.tokenizer == "gpt2":  # its vocabulary need not be on the machine
        settings["data.tokenizer"] = "bpe"
    config = override(config, settings)
    (lab.root / "configs").mkdir(exist_ok=True)
    (lab.root / "configs" / "micro.toml").write_text(to_toml(config))
    return lab


def steps_per_second(run: Path) -> float:
    """From the first quarter of the steps on: compiling and warming up are not drawing."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [record for record in records if "loss" in record]
    counted = [record for record in steps if record["step"] >= steps[-1]["step"] / 4]
    first, last = counted[0], counted[-1]
    return (last["step"] - first["step"]) / (last["time"] - first["time"])


def newest_run(lab: Lab, known: set[Path]) -> Path:
    [run] = set((lab.root / "checkpoints").glob("*/")) - known
    return run


def headless(lab: Lab) -> None:
    subprocess.run(
        [SCRIPT, "train", "--config", "micro", "--json"],
        cwd=lab.root,
        check=True,
        stdout=subprocess.DEVNULL,
    )


@dataclass(frozen=True)
class Drawn:
    """What an app drew while it trained: bytes a second, and the share of a core that it says its
    screen took."""

    bytes_per_second: float
    share: float


def in_the_app(lab: Lab, steps: int) -> Drawn:
    """Train in the app until the run has ended."""
    known = set((lab.root / "checkpoints").glob("*/"))
    folders = {name: str(lab.root / name) for name in ("config", "cache")}
    environment = {"TUI_LAB_CONFIG_DIR": folders["config"], "TUI_LAB_CACHE_DIR": folders["cache"]}
    command = [SCRIPT, "--start", "micro"]
    with Terminal(command, cwd=lab.root, environment=environment) as terminal:
        # The heading: from here on steps are drawn, and no longer what is prepared.
        begun = terminal.wait_for(" left", seconds=120)
        before = terminal.size
        deadline = time.monotonic() + 60 + steps * 2
        while time.monotonic() < deadline:
            time.sleep(0.5)
            for run in set((lab.root / "checkpoints").glob("*/")) - known:
                events = run / "events.jsonl"
                if events.exists() and '"event": "finished"' in events.read_text():
                    rate = (terminal.size - before) / (time.perf_counter() - begun)
                    return Drawn(rate, own_share(lab))
            if terminal.process.poll() is not None:
                raise RuntimeError("the app ended before its run did")
    raise TimeoutError("the run did not end")


def own_share(lab: Lab) -> float:
    """What the app last wrote of its screen's share of a core; 0 where the run was too short."""
    path = lab.root / "cache" / "screen.json"
    return json.loads(path.read_text())["share"] if path.exists() else 0.0


def usual_steps(preset: str) -> int:
    """As many as take `SECONDS` here."""
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder), TRIAL_STEPS, preset)
        headless(lab)
        return max(TRIAL_STEPS, round(SECONDS * steps_per_second(newest_run(lab, set()))))


def measure(
    pairs: int, steps: int, before: dict[str, Any] | None = None, preset: str = "micro"
) -> dict[str, Any]:
    """`steps`: 0 for the usual ones. `before`: a result whose pairs are counted too."""
    before = before or {}
    rates = before.get("steps_per_second") or {"headless": [], "app": []}
    others = before.get("other_processes") or {"headless": [], "app": []}
    sent, shares = before.get("bytes_per_second", []), before.get("shares_of_a_core", [])
    steps = steps or usual_steps(preset)
    with tempfile.TemporaryDirectory() as folder:
        lab = make_lab(Path(folder), steps, preset)
        for pair in range(pairs):
            for name in ("headless", "app") if pair % 2 == 0 else ("app", "headless"):
                known = set((lab.root / "checkpoints").glob("*/"))
                with quiet.Watch() as watch:
                    if name == "app":
                        drawn = in_the_app(lab, steps)
                        sent.append(drawn.bytes_per_second)
                        shares.append(drawn.share)
                    else:
                        headless(lab)
                rate = steps_per_second(newest_run(lab, known))
                rates[name].append(rate)
                others[name].append(watch.others)
                print(
                    f"  pair {pair + 1} {name}: {rate:.2f} steps/s, "
                    f"other processes {watch.others:.1%}",
                    flush=True,
                )
    ratios = [app / bare for app, bare in zip(rates["app"], rates["headless"], strict=True)]
    noise = [max(two) for two in zip(others["app"], others["headless"], strict=True)]
    kept = [ratio for ratio, share in zip(ratios, noise, strict=True) if share <= quiet.LIMIT]
    return {
        "steps_per_second": rates,
        "other_processes": others,
        "ratios": ratios,
        "quiet_pairs": len(kept),
        "ratio": statistics.median(kept or ratios),
        "limit": LIMITS.get(preset, LIMIT),
        "preset": preset,
        "pairs": len(ratios),
        "steps": steps,
        "bytes_per_second": sent,
        "bytes_limit": BYTES_LIMIT,
        "shares_of_a_core": shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--steps", type=int, default=0, help=f"default: of {SECONDS:.0f} s")
    parser.add_argument("--preset", default="micro", help="what is trained")
    parser.add_argument("--append", action="store_true", help="to today's result")
    arguments = parser.parse_args()
    facts = machine_facts()
    path = RESULTS / f"{facts['date']}-ui-cost.json"
    before = json.loads(path.read_text()) if arguments.append and path.exists() else None
    result = facts | measure(arguments.pairs, arguments.steps, before, arguments.preset)
    print(
        f"training while the app draws: {result['ratio']:.3f} of headless (at least "
        f"{result['limit']}); "
        f"pairs {', '.join(f'{ratio:.3f}' for ratio in result['ratios'])}, "
        f"of them {result['quiet_pairs']} on a quiet machine; "
        f"{statistics.median(result['bytes_per_second']) / 1000:.1f} kB/s to the terminal "
        f"(at most {BYTES_LIMIT / 1000:.0f}), "
        f"{statistics.median(result['shares_of_a_core']):.1%} of a core"
    )
    write_result("ui-cost", result)


if __name__ == "__main__":
    main()
