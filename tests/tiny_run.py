"""A really trained, really saved run that takes a fraction of a second: for tests that load one."""

from __future__ import annotations

from pathlib import Path

from engine import control, events
from engine.config import Config
from engine.corpora import add
from engine.lab import Lab
from tests.conftest import small_text

CONTEXT = 16
SETTINGS = {
    "model.n_layer": 1,
    "model.n_head": 2,
    "model.n_embd": 16,
    "model.context_length": CONTEXT,
    "data.corpus": "small",
    "data.tokenizer": "char",
    "optimizer.lr": 0.01,
    "schedule.warmup_steps": 0,
    "train.batch_size": 8,
    "train.max_steps": 30,
    "train.eval_every": 10,
    "train.precision": "float32",
    "train.device": "cpu",
    "train.threads": 1,
    "save.policy": "all",
    "save.every": 10,
    "sample.every": 0,
}


def make_tiny_run(root: Path, name: str = "tiny", **changed: object) -> tuple[Lab, list]:
    """A lab with the corpus `small` and a run with checkpoints at 10, 20 and 30; and its events."""
    from engine.session import run_training

    lab = Lab.init(root)
    source = root / "small.txt"
    source.write_text(small_text())
    add(lab, "small", [source])
    config = Config().with_values(SETTINGS | {k.replace("__", "."): v for k, v in changed.items()})
    said: list[events.Event] = []
    run_training(lab, config, emit=said.append, inbox=control.Inbox(), name=name)
    return lab, said
