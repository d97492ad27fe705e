"""Make the ready-made run `hello-python`: a small GPT trained on the interpreter's own help text.

    python checkpoints/make_hello_python.py

It ships with the program so that a newcomer's console talks at once. The weights are stored in
bfloat16 and without the optimiser's state, which keeps the folder under 4 MB: it can be talked to,
evaluated and inspected, but not resumed.
"""

from __future__ import annotations

import shutil
import socket
import sys
import tempfile
from pathlib import Path

from engine import events
from engine.checkpoints import inspect, list_checkpoints
from engine.checkpoints.load import load_weights
from engine.checkpoints.save import save
from engine.config import resolve
from engine.control import Inbox
from engine.lab import Lab
from engine.session import run_training

NAME = "hello-python"
LIMIT = 4_000_000
CHANGES = {
    "model.n_embd": 160,
    "model.context_length": 256,
    "train.batch_size": 8,
    "train.max_steps": 900,
    "train.log_every": 5,
    "sample.every": 300,
    "save.every": 0,
}


def show(event: events.Event) -> None:
    if isinstance(event, events.EvalDone | events.Finished | events.Failed):
        sys.stderr.write(events.to_json(event) + "\n")


def main() -> None:
    target = Path(__file__).resolve().parent / NAME
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.init(Path(folder))
        config = resolve(lab, "micro", CHANGES)
        run_training(lab, config, emit=show, inbox=Inbox(), name=NAME, preset="micro")
        run_path = lab.checkpoints / NAME
        (trained,) = list_checkpoints(run_path)
        found = inspect(trained.path)
        half = {name: tensor.bfloat16() for name, tensor in load_weights(trained).items()}
        shutil.rmtree(trained.path)
        save(run_path, half, None, None, found.meta, kind="final")
        shutil.rmtree(run_path / "control", ignore_errors=True)
        for private in ("run.lock", "log.txt"):
            (run_path / private).unlink(missing_ok=True)
        for name in ("events.jsonl", "status.json", "run.json"):
            path = run_path / name
            text = path.read_text().replace(f"{lab.root}/", "")
            path.write_text(text.replace(f'"{socket.gethostname()}"', '"elsewhere"'))
        size = sum(path.stat().st_size for path in run_path.rglob("*") if path.is_file())
        if size > LIMIT:
            raise SystemExit(f"{NAME} has {size} bytes, more than {LIMIT}")
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run_path, target)
    sys.stderr.write(f"made {target} ({size} bytes)\n")


if __name__ == "__main__":
    main()
