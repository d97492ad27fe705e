"""Labs with runs in them, made by the engine's own writers but without training.

The curves are a formula, the weights a freshly initialised tiny GPT, the times are fixed: so a
screen shows the same on every machine, and every file is what a real run would have written.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from unittest.mock import patch

from engine import events as ev
from engine.config import Config
from engine.lab import Lab
from engine.runs import RunFolder, RunWriter

NOW = 1_800_000_000.0
"""The fixed clock's time: hand it to the app as `clock=lambda: NOW`."""
HOUR = 3600.0

TINY = {
    "model.n_layer": 2,
    "model.n_head": 2,
    "model.n_embd": 32,
    "model.context_length": 32,
    "data.tokenizer": "bytes",
    "data.corpus": "python-docs",
    "train.batch_size": 8,
}


def tiny_config(**values) -> Config:
    """A configuration small enough to make at once; keywords are `section__field`."""
    return Config().with_values(
        {
            **TINY,
            "train.max_steps": 400,
            **{key.replace("__", "."): value for key, value in values.items()},
        }
    )


def make_run(
    lab: Lab,
    name: str,
    *,
    steps: int = 400,
    hours_ago: float = 2.2,
    saves: tuple[int, ...] = (),
    end: str = "completed",
    level: float = 1.6,
    seed: int = 1,
    preset: str = "micro",
    **values,
) -> Path:
    """A run that got to `steps`. `end`: completed, stopped, failed, crashed, or running."""
    config = tiny_config(**values)
    folder = RunFolder.create(lab, name, config, {"preset": preset, "seed": config.train.seed})
    begun = NOW - hours_ago * HOUR
    writer = RunWriter(folder)
    rng = random.Random(seed)
    tokens_per_step = config.train.batch_size * config.model.context_length
    writer(_started(folder, config, begun, tokens_per_step))
    for step in range(1, steps + 1):
        time = begun + 0.05 * step
        smooth = level + (5.5 - level) * math.exp(-step / 60)
        noise = rng.gauss(0, 0.05)
        lr = config.optimizer.lr * min(1.0, step / 40) * (1 - 0.8 * step / config.train.max_steps)
        writer(
            ev.StepDone(
                step=step,
                tokens=step * tokens_per_step,
                loss=smooth + noise,
                lr=lr,
                grad_norm=0.4 + abs(noise),
                tokens_per_second=48_000.0,
                mfu=0.3,
                memory_bytes=200_000_000,
                time=time,
            )
        )
        if step % 50 == 0:
            writer(_evaluated(step, smooth + 0.12, time))
    for step in saves:
        kind = "final" if step == saves[-1] else "periodic"
        save_weights(folder.path, config, step, kind, begun + 0.05 * step)
    _end(writer, folder, end, steps, begun)
    _settle(folder.path, begun, end, steps)
    return folder.path


def _started(folder: RunFolder, config: Config, time: float, tokens_per_step: int) -> ev.RunStarted:
    return ev.RunStarted(
        run=folder.name, path=str(folder.path), config="", step=0, tokens=0,
        max_steps=config.train.max_steps, steps_per_epoch=100.0, tokens_per_step=tokens_per_step,
        n_parameters=34_656, flops_per_token=2e5, context_length=32, vocab_size=257,
        train_tokens=90_000, val_tokens=10_000, bytes_per_token=1.0, device="cpu",
        device_name="a processor", precision="float32", threads=1, peak_flops=0.0, peak_source="",
        pid=4242, host="here", time=time,
    )  # fmt: skip


def _evaluated(step: int, loss: float, time: float) -> ev.EvalDone:
    return ev.EvalDone(
        step=step,
        tokens=10_000,
        val_loss=loss,
        perplexity=math.exp(loss),
        bits_per_byte=loss / math.log(2),
        best=True,
        seconds=0.2,
        time=time,
    )


def _end(writer: RunWriter, folder: RunFolder, end: str, steps: int, begun: float) -> None:
    time = begun + 0.05 * steps
    if end == "failed":
        writer(ev.Failed(step=steps, title="out of memory in the backward pass", time=time))
    elif end in ("completed", "stopped"):
        writer(
            ev.Finished(run=folder.name, step=steps, tokens=0, reason=end, seconds=1.0, time=time)
        )
    if end in ("running", "crashed"):
        writer.flush()
    else:
        writer.close()
    if end != "running":
        folder.close()


def _settle(path: Path, begun: float, end: str, steps: int) -> None:
    """Put fixed times where the writers used the clock."""
    identity = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**identity, "created": begun}))
    status = json.loads((path / "status.json").read_text())
    status |= {"seconds": 0.05 * steps, "tokens": steps * 256, "updated": begun}
    if end == "crashed":
        status |= {"pid": 0}
    (path / "status.json").write_text(json.dumps(status))


def save_weights(
    run_path: Path, config: Config, step: int, kind: str = "periodic", time: float = NOW - HOUR
) -> Path:
    """A real checkpoint of an untrained model: loads, verifies, can be talked to."""
    import torch

    from engine.checkpoints.save import save
    from engine.model import GPT
    from engine.tokenizers import build

    torch.set_num_threads(1)
    torch.manual_seed(step)
    tokenizer = build("bytes", lambda: iter(("",)), 257)
    tokenizer.save(run_path / "tokenizer")
    weights = GPT(config.model, tokenizer.vocab_size).state_dict()
    training = {f"exp_avg.{name}": torch.zeros_like(t) for name, t in weights.items()}
    training["rng.cpu"] = torch.get_rng_state()
    meta = {
        "step": step,
        "tokens": step * 256,
        "val_loss": 3.0 - step / 400,
        "config": config.to_dict(),
        "vocab_size": tokenizer.vocab_size,
        "digests": {"tokenizer": tokenizer.digest, "corpus": "0" * 64},
        "data": {"epoch": step // 100, "index": step % 100, "seed": config.train.seed},
    }
    state = {"step": step, "tokens": step * 256, "lr": 3e-4, "best_val_loss": 2.0}
    with patch("time.time", lambda: time):
        return save(run_path, weights, training, state, meta, kind=kind, policy="all").path


def four_runs(lab: Lab, *, weights: bool = True) -> None:
    """A finished run, one stopped half-way, one that failed, one whose process is gone."""
    first, second = ((200, 400), (150, 200)) if weights else ((), ())
    make_run(lab, "micro-docs", saves=first, hours_ago=50.2, level=1.5)
    make_run(
        lab, "micro-docs-2", saves=second, steps=200, end="stopped", hours_ago=5.2, level=1.9,
        optimizer__lr=3e-4, model__dropout=0.1, seed=2,
    )  # fmt: skip
    make_run(lab, "wide", end="failed", steps=120, hours_ago=3.2, level=2.2, seed=3, preset="char")
    make_run(
        lab, "long-name-of-a-run-that-was-tried-once", end="crashed", steps=300, hours_ago=0.7,
        level=2.0, seed=4, train__batch_size=16,
    )  # fmt: skip
