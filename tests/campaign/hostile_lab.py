"""A lab whose every string wants to command the terminal, in files as a hostile hand would make
them; and the session, the generator and the settings of an app that is opened on it.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomli_w

from engine import events
from engine.corpora import add
from engine.lab import Lab
from tests.campaign.hostile import blob, without_surrogates
from tests.tui_lab import fakes
from tests.tui_lab.console_fakes import FakeToken
from tests.tui_lab.labs import NOW, make_run, tiny_config

RUNS = ("hostile-one", "hostile-two")


def make(folder: Path, first: int) -> Lab:
    """The lab in `folder`; each of its strings begins with the text number `first`."""
    bad = blob(first)
    written = without_surrogates(bad)
    lab = Lab.init(folder)
    for number, name in enumerate(RUNS):
        path = make_run(lab, name, steps=60, end="failed" if number else "stopped", seed=number)
        _checkpoint(path, bad)
        _rewrite(path, bad)
    _corpora(lab, written)
    _presets(lab, written)
    named = written.replace("/", "").replace("\x00", "")
    odd = lab.checkpoints / named.encode()[:90].decode(errors="ignore")
    odd.mkdir()
    (odd / "run.json").write_text(json.dumps({"name": bad, "title": bad}))
    return lab


def _checkpoint(run: Path, bad: str) -> None:
    """A sound checkpoint with hostile names of tensors and hostile metadata."""
    import torch

    from engine.checkpoints.save import save
    from engine.tokenizers import build

    build("char", lambda: iter((without_surrogates(bad),)), 0).save(run / "tokenizer")
    bad = without_surrogates(bad)
    names = ("", "blocks.0.", "lm_head.")
    tensors = {f"{name}{bad[at * 40 :][:120]}": torch.ones(2, 2) for at, name in enumerate(names)}
    training = {f"exp_avg.{bad[:60]}": torch.zeros(2), "rng.cpu": torch.get_rng_state()}
    meta: dict[str, Any] = {
        "step": 60,
        "tokens": 1,
        "val_loss": 2.0,
        "config": {bad: {bad: bad}, "model": {"n_layer": bad}},
        "vocab_size": 5,
        "digests": {bad: bad},
        "versions": {bad: bad},
        "tied": {bad: bad},
        "data": {bad: bad},
    }
    save(run, tensors, training, {"step": 60, "lr": 0.1, bad: bad}, meta, kind="final")


def _rewrite(run: Path, bad: str) -> None:
    """Identity, status, configuration and history of a run, as anybody can write them."""
    identity = json.loads((run / "run.json").read_text())
    for key in ("title", "preset", "corpus", "tokenizer", "host", "device", "command_line"):
        identity[key] = bad
    identity["versions"] = {bad: bad}
    (run / "run.json").write_text(json.dumps(identity))
    status = json.loads((run / "status.json").read_text())
    status |= dict.fromkeys(("device", "reason", "error", "host", "phase"), bad)
    if run.name == RUNS[0]:
        status |= {"state": "running", "updated": NOW, "advanced": NOW, "since": NOW}
    (run / "status.json").write_text(json.dumps(status))
    config = tiny_config(sample__prompts=(without_surrogates(bad),)).to_dict()
    config["title"] = config["data"]["corpus"] = without_surrogates(bad)
    (run / "config.toml").write_text(tomli_w.dumps(config))
    with open(run / "events.jsonl", "a") as file:
        for event in said(bad):
            file.write(json.dumps(events.to_record(event)) + "\n")


def said(bad: str, at: float = NOW) -> list[events.Event]:
    """What a hostile run says, short of its end."""
    return [
        events.Preparing(time=at, what=bad, done=1, total=2),
        events.Alert(time=at, level="error", title=bad, hint=bad),
        events.Alert(time=at, level=bad, title=bad, hint=bad),
        fakes.sample_done(1, at, text=bad, prompt=bad, request=""),
        fakes.sample_done(1, at, text=" ", prompt=bad, error=bad),
        events.ControlApplied(time=at, step=1, command=bad, before=bad, after=bad, who=bad),
        events.CheckpointSaved(time=at, step=1, path=bad, bytes=1, seconds=0.1, kind=bad),
        events.Phase(time=at, step=1, phase=bad),
    ]


def _corpora(lab: Lab, bad: str) -> None:
    source = lab.root / "text.txt"
    bad = bad.replace("\x00", "")  # with one the file would be refused as binary
    # Once more, and in lines: enough for a tokenizer to learn, and for a page to show.
    source.write_text(bad + "\n" + bad.replace("[", "\n[") + "\nwords " * 60)
    add(lab, "hostile-text", [source])
    words = dict.fromkeys(("title", "source", "licence", "note"), bad)
    absent = {"kind": "text", "file": "absent.txt", "url": f"https://x.invalid/{bad}", **words}
    (lab.corpus / "registry.toml").write_text(tomli_w.dumps({"hostile-absent": absent}))


def _presets(lab: Lab, bad: str) -> None:
    values: dict[str, Any] = {
        "title": bad,
        "sample": {"prompts": [bad]},
        "data": {"corpus": "hostile-text"},
    }
    values["train"] = {"max_steps": 50}
    (lab.configs / "a-hostile.toml").write_text(tomli_w.dumps(values))
    name = bad.replace("/", "").replace("\x00", "").encode()[:80].decode(errors="ignore")
    (lab.configs / f"b{name}.toml").write_text(tomli_w.dumps(values))
    (lab.configs / "c-broken.toml").write_text(tomli_w.dumps({bad: {bad: bad}}))


class Session(fakes.FakeSession):
    """Says hostile things when it begins, and fails with them when it is told to stop."""

    def __init__(self, first: int) -> None:
        super().__init__(pause=0.02)
        self.bad = blob(first)

    def run_training(self, lab, told, *, emit, **keywords):  # type: ignore[no-untyped-def]
        def twisted(event: events.Event) -> None:
            if isinstance(event, events.RunStarted):
                bad = self.bad
                event = replace(event, device=bad, device_name=bad, precision=bad, host=bad)
                emit(event)
                for other in said(self.bad, time.time()):
                    emit(other)
            elif isinstance(event, events.Finished):
                emit(events.Failed(step=event.step, title=self.bad, hint=self.bad))
            else:
                emit(event)

        emit(events.Preparing(what=self.bad, done=1, total=2))
        return super().run_training(lab, fakes.config(), emit=twisted, **keywords)


class Generator:
    """Stands in for a model with a hostile vocabulary: every text is a token."""

    def __init__(self, first: int) -> None:
        self.first = first

    def stream(self, prompt, params, should_stop):  # type: ignore[no-untyped-def]
        count = 30
        for index in range(count):
            text = blob(self.first + index)[:60]
            reason = "length" if index == count - 1 else ""
            yield FakeToken(index, index, text, 0.5, ((text, 0.5), ("\x1b[70999m", 0.2)), reason)


def settings(first: int) -> dict[str, Any]:
    """What the app remembers, in a file that anybody may have written."""
    bad = without_surrogates(blob(first))
    return {
        "console": {"source": bad, "prompts": [bad, bad], "stop": [bad]},
        "corpus": {"tokenizer": "char"},
    }
