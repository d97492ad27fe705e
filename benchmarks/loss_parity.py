"""Whether the fast step costs loss: default settings against float32, seed by seed.

    python -m benchmarks.loss_parity --data DIR [--seeds 5] [--steps 500]

Preset `char-cpu` on tiny Shakespeare, compiled, in the precision that the device's default is,
against the same in float32 uncompiled: same seeds, same batches, the whole validation split. The
means may differ by no more than one standard deviation of the seeds in float32.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.ratios import Ratio
from benchmarks.training import EMBEDDED, add_data_option, add_text
from engine import control, events
from engine.config import load_preset
from engine.config.load import override
from engine.lab import Lab
from engine.session import run_training

TEXT = "tinyshakespeare"
SEEDS, STEPS = 5, 500
SIDES = {
    "default": {"train.compile": "on"},
    "float32": {"train.compile": "off", "train.precision": "float32"},
}


def measure(
    data: Path | None, device: str, *, seeds: int = SEEDS, steps: int = STEPS
) -> dict[str, Any]:
    """Final losses of both sides by seed. Without `data` the embedded text serves."""
    losses: dict[str, list[float]] = {side: [] for side in SIDES}
    precision = ""
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.init(Path(folder))
        corpus = add_text(lab, TEXT if data else EMBEDDED, data)
        for seed in range(1, seeds + 1):
            for side, settings in SIDES.items():
                common = {
                    "data.corpus": corpus,
                    "train.seed": seed,
                    "train.max_steps": steps,
                    "train.eval_every": 0,
                    "train.device": device,
                    "sample.every": 0,
                    "save.policy": "none",
                }
                config = override(load_preset(lab, "char-cpu"), common | settings)
                said: list[events.Event] = []
                run_training(lab, config, emit=said.append, inbox=control.Inbox(), name=side)
                loss = [event for event in said if isinstance(event, events.EvalDone)][-1].val_loss
                losses[side].append(loss)
                if side == "default":
                    [started] = [e for e in said if isinstance(e, events.RunStarted)]
                    precision = started.precision
            print(
                f"    seed {seed}: {losses['default'][-1]:.4f} in {precision}, "
                f"{losses['float32'][-1]:.4f} in float32",
                flush=True,
            )
    ratio = compare(losses, steps)
    print(f"  {ratio}", flush=True)
    return {
        "steps": steps,
        "precision": precision,
        "losses": losses,
        "corpus": corpus,
        "ratios": [ratio.to_dict()],
    }


def compare(losses: dict[str, list[float]], steps: int) -> Ratio:
    """How far the default's mean loss lies above float32's, in float32's standard deviations."""
    means = {side: statistics.mean(values) for side, values in losses.items()}
    deviation = statistics.stdev(losses["float32"])
    return Ratio(
        "Loss of the fast step",
        f"loss above that of float32 after {steps:,} steps, in standard deviations of the seeds",
        (means["default"] - means["float32"]) / deviation,
        1.0,
        at_least=False,
        rounds=len(losses["float32"]),
        note=f"{means['default']:.4f} against {means['float32']:.4f} ± {deviation:.4f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_data_option(parser)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    data = Path(options.data) if options.data else None
    measure(data, options.device, seeds=options.seeds, steps=options.steps)


if __name__ == "__main__":
    main()
