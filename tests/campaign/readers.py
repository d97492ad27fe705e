"""Everything that reads a file which anybody may have written, with a sound file to begin from.

A reader takes the damaged file the way the program would: through the same functions, and on to
whatever uses what they return. It returns when it has accepted the file, and raises EngineError
when it has refused it. Whether that is right is judged by whoever calls. Needs torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from engine import events, run_lock, status, tokenizers
from engine.answers import Answers, answers_folder
from engine.assembly import assemble
from engine.checkpoints import describe, find_checkpoint, inspect, list_checkpoints, verify
from engine.checkpoints.layout import MANIFEST, META, MODEL, STATE, TRAINING
from engine.checkpoints.load import load_training, load_weights
from engine.checkpoints.proof import render_manifest
from engine.config.load import load_file
from engine.control import Inbox, Sample, to_record
from engine.corpora.registry import read_entries
from engine.corpora.shards import open_prepared
from engine.generation.load import load_checkpoint
from engine.generation.params import SamplingParams
from engine.lab import Lab
from engine.metrics import EVENTS_FILE, METRICS_FILE, MetricsTail, read_events, read_metrics
from engine.resuming import preview
from engine.run_lock import LOCK_FILE, RunLock
from engine.runs import CONFIG_FILE, RUN_FILE, RunFolder, list_runs, summarise
from engine.session import Machine, Material
from engine.spool import _read as read_command
from engine.spool import inbox_folder
from tests.campaign import mutations
from tui_lab.cli import checkpoint_report
from tui_lab.cli.config import problems
from tui_lab.cli.runs import _table as table_of_runs

Mutate = Callable[[random.Random, bytes], bytes]
ANSWER = "fuzz-1"


@dataclass
class Reader:
    """`file` is damaged by `mutate` and then read by `read`. `seal`: the checkpoint's manifest is
    made to agree with the damaged file, as somebody who means harm would."""

    name: str
    file: Path
    mutate: Mutate
    read: Callable[[], object]
    seal: bool = False

    def __post_init__(self) -> None:
        self.sound = self.file.read_bytes()
        manifest = self.file.with_name(MANIFEST)
        self.manifest = manifest.read_bytes() if self.seal else b""

    def place(self, data: bytes) -> None:
        overwrite(self.file, data)
        if self.seal:
            overwrite(self.file.with_name(MANIFEST), sealed(self.manifest, self.file))

    def mend(self) -> None:
        overwrite(self.file, self.sound)
        if self.seal:
            overwrite(self.file.with_name(MANIFEST), self.manifest)


def overwrite(path: Path, data: bytes) -> None:
    """In place: some file systems flush to the disk a file that is emptied and written anew."""
    with path.open("r+b", buffering=0) as file:
        file.write(data)
        file.truncate()


def sealed(manifest: bytes, file: Path) -> bytes:
    """`manifest` with size and hash of `file` as it is now."""
    body = json.loads(manifest)
    body.pop("sha256")
    if file.name != MANIFEST:
        data = file.read_bytes()
        body["files"][file.name] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
    return render_manifest(body)


def sealed_manifest(rng: random.Random, data: bytes) -> bytes:
    """A manifest that lies and carries the right hash of itself."""
    damaged = mutations.of_json(rng, data)
    try:
        body = json.loads(damaged)
        body.pop("sha256", None)
        return render_manifest(body)
    except (ValueError, RecursionError, AttributeError, TypeError):
        return damaged


def make_readers(lab: Lab, run: Path, tokenizer_folders: list[Path]) -> list[Reader]:
    """Readers of every file of the run `run` in `lab`, and of the lab's own."""
    step = describe_newest(run)
    resumed = Resumed(lab, run)
    entries = lab.corpus / "added.toml"
    run_lock.TELL_SECONDS = 0.0  # nobody writes the file while it is read
    lock = RunLock(run)
    lock.acquire()  # so that the one who comes second reads what stands in it

    def headers() -> None:
        list_checkpoints(run)
        verify(step)
        quietly(checkpoint_report.describe, step, False)

    def statistics() -> None:
        headers()
        quietly(checkpoint_report.describe, step, True)

    def weights() -> None:
        for tensor in load_weights(describe(step)).values():
            assert tensor.float().sum() is not None
        assert load_checkpoint(describe(step), torch.device("cpu")).model is not None

    def facts() -> None:
        headers()
        assert find_checkpoint(lab, f"{run.name}@best") is not None
        assert inspect(step).n_parameters >= 0
        preview(lab, run.name)

    def runs() -> None:
        summary = summarise(run)
        quietly(table_of_runs, list_runs(lab))
        status.judged(status.read_status(run))
        assert RunFolder(run, lock).identity is not None
        assert summary.name == run.name

    def history() -> None:
        assert len(read_metrics(run)) > 1
        tail = MetricsTail(run)
        tail.poll()
        tail.poll()

    def told() -> None:
        for record in read_events(run):
            with contextlib.suppress(TypeError, ValueError):  # as its readers do
                events.from_record(record)

    def config() -> None:
        list(problems(run / CONFIG_FILE))
        load_file(run / CONFIG_FILE)

    def locked() -> None:
        RunLock(run).acquire()

    def prepared() -> None:
        found = open_prepared(resumed.material.prepared.path)
        found.tokens().slice(0, 10)
        found.document_starts()

    found = [
        Reader("safetensors header", step / MODEL, mutations.of_tensors, statistics),
        Reader("safetensors to torch", step / MODEL, mutations.of_tensors, weights, seal=True),
        Reader("training tensors", step / TRAINING, mutations.of_tensors, resumed.go, seal=True),
        Reader("manifest", step / MANIFEST, mutations.of_json, headers),
        Reader("manifest, its own hash right", step / MANIFEST, sealed_manifest, weights),
        Reader("meta.json", step / META, mutations.of_json, facts),
        Reader("meta.json to torch", step / META, mutations.of_json, weights, seal=True),
        Reader("state.json", step / STATE, mutations.of_json, headers),
        Reader("state.json to torch", step / STATE, mutations.of_json, resumed.go, seal=True),
        Reader("configuration", run / CONFIG_FILE, mutations.of_toml, config),
        Reader("metrics.jsonl", run / METRICS_FILE, mutations.of_lines, history),
        Reader("events.jsonl", run / EVENTS_FILE, mutations.of_lines, told),
        Reader("status.json", run / status.STATUS_FILE, mutations.of_json, runs),
        Reader("run.json", run / RUN_FILE, mutations.of_json, runs),
        Reader("run.lock", run / LOCK_FILE, mutations.of_json, locked),
        Reader("corpus registry", entries, mutations.of_toml, lambda: read_entries(lab, "small")),
        Reader(
            "prepared corpus",
            resumed.material.prepared.path / "manifest.json",
            mutations.of_json,
            prepared,
        ),
        *command_readers(run),
    ]
    for folder in tokenizer_folders:
        found.append(
            Reader(
                f"tokenizer.json ({folder.name})",
                folder / "tokenizer.json",
                mutations.of_json,
                lambda folder=folder: speak(tokenizers.load(folder)),
            )
        )
    return found


def describe_newest(run: Path) -> Path:
    return list_checkpoints(run)[-1].path


def quietly(function: Callable[..., object], *values: object) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        function(*values)


def speak(tokenizer: tokenizers.Tokenizer) -> None:
    """Use it: a table that was accepted must encode and decode."""
    ids = tokenizer.encode("the cat sat\u2028\U0001f600")
    tokenizer.decode(ids)
    tokenizer.token_text(tokenizer.vocab_size - 1)


def command_readers(run: Path) -> list[Reader]:
    """Commands in the spool, and answers to a sample."""
    params = SamplingParams(temperature=0.5, seed=3, stop=("\n",))
    command = to_record(Sample("the ", params, ANSWER)) | {"who": "somebody@host"}
    folder = inbox_folder(run)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    answers_folder(run).mkdir(mode=0o700, parents=True, exist_ok=True)
    asked = folder / "1-1-1.json"
    asked.write_text(json.dumps(command))
    answer = answers_folder(run) / f"{ANSWER}.jsonl"
    done = {"event": "sample_done", "step": 1, "request": ANSWER, "prompt": "a", "text": "b"}
    answer.write_text(json.dumps(done) + "\n")

    return [
        Reader("spool command", asked, mutations.of_json, lambda: read_command(asked)),
        Reader("answer", answer, mutations.of_lines, lambda: Answers(run, ANSWER).poll()),
    ]


class Resumed:
    """A run's parts as resuming builds them, to be filled from a checkpoint again and again."""

    def __init__(self, lab: Lab, run: Path) -> None:
        self.lab, self.run = lab, run
        self.folder = RunFolder(run, RunLock(run))
        self.config = load_file(run / CONFIG_FILE)
        tokenizer = tokenizers.load(run / "tokenizer")
        self.material = Material(lab, self.config, lambda event: None, tokenizer)
        self.machine = Machine(self.config)

    def go(self) -> None:
        info = describe(describe_newest(self.run))
        load_training(info)
        trainer = assemble(
            self.folder,
            self.config,
            self.material,
            self.machine,
            lambda event: None,
            Inbox(),
            info,
        )
        assert trainer is not None
