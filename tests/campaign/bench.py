"""A lab to attack, everything that the program does to a lab, and what came of it.

Knows afterwards whether a payload ran, and whether anybody read or changed anything outside. What
is planted in it is not known here. Needs torch.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from typer.main import get_command

from engine import control, metrics, spool, tokenizers
from engine.checkpoints import (
    delete,
    delete_run,
    inspect,
    list_checkpoints,
    newest_verified,
)
from engine.config import load_file
from engine.errors import EngineError
from engine.generation.load import load_generator
from engine.lab import Lab
from engine.runs import list_runs
from engine.session import resume_training
from engine.status import own_status, write_status
from tests.campaign.outside import Outside
from tests.campaign.sound import Sound
from tui_lab.cli import app

RUN = "tiny"
STEP = "step_000030"
GO_ON = {"train.max_steps": 32}
FREED = ("prepared",)


class Bench:
    """A lab with one trained run, a place outside it, and what became of both."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.run = lab, lab.checkpoints / RUN
        self.outside = Outside(folder / "outside")
        self.canary = folder / "canary"
        self.sound = Sound(lab.root)
        self.refused = self.accepted = self.loads = 0
        self._around = self._names()
        self._commands = get_command(app)  # making it takes ten times what most commands take
        os.environ["TUI_LAB_CACHE_DIR"] = str(folder / "outside-cache")
        os.environ["TUI_LAB_CONFIG_DIR"] = str(folder / "outside-config")
        load = torch.load

        def watched(*values: Any, **named: Any) -> Any:
            self.loads += 1
            return load(*values, **named)

        torch.load = watched

    def _names(self) -> set[Path]:
        """Everything in the lab that is not below its checkpoints, where new things may be."""
        inside = self.lab.checkpoints
        every = self.lab.root.rglob("*")
        return {path for path in every if inside not in path.parents and path != inside}

    def attempt(self, what: Callable[..., Any], *values: Any, **named: Any) -> list[str]:
        """Do it; what it raised that is no refusal, in words."""
        try:
            what(*values, **named)
        except (EngineError, SystemExit):
            self.refused += 1
        except Exception as error:  # that is what is looked for
            name = getattr(what, "__name__", str(what))
            return [f"{name} {values[-1:]}: {type(error).__name__}: {error}"]
        else:
            self.accepted += 1
        return []

    def command(self, *words: str) -> list[str]:
        """A command line; in this process, as torch takes seconds to load."""
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            patch("sys.stdin", io.StringIO()),
        ):
            return self.attempt(
                self._commands.main, ["--lab", str(self.lab.root), *words], standalone_mode=False
            )

    def read_everything(self) -> list[str]:
        """All that looks at runs, and loads them."""
        lab, run, step = self.lab, self.run, self.run / STEP
        wrong = self.attempt(list_runs, lab)
        looks = (list_checkpoints, newest_verified, metrics.read_metrics, metrics.read_events)
        # A run that is a link is found by nobody, so that nobody would look there.
        for look in () if run.is_symlink() else looks:
            wrong += self.attempt(look, run)
        wrong += self.attempt(inspect, step)
        wrong += self.attempt(load_generator, lab, RUN)
        wrong += self.attempt(load_generator, lab, f"{RUN}/{STEP}")
        wrong += self.attempt(tokenizers.find, lab, RUN)
        wrong += self.attempt(load_file, run / "config.toml", follow=False)
        for words in (
            ("runs",),
            ("checkpoints", "list"),
            ("checkpoints", "show", RUN, "--stats"),
            ("checkpoints", "verify", "--all"),
        ):
            wrong += self.command(*words)
        return wrong

    def resume(self) -> list[str]:
        return self.attempt(
            resume_training,
            self.lab,
            RUN,
            overrides=GO_ON,
            emit=lambda event: None,
            inbox=control.Inbox(),
        )

    def send(self) -> list[str]:
        """Steer the run from another process's side, as if it were alive."""
        if self.run.is_symlink():
            return []
        with contextlib.suppress(OSError):
            write_status(self.run, own_status(), durable=False)
        return self.attempt(spool.send, self.run, control.Stop())

    def remove_everything(self) -> list[str]:
        """Delete a checkpoint, then the run."""
        return self.attempt(delete, self.run / STEP) + self.attempt(delete_run, self.run)

    def traces(self, say: Callable[..., None]) -> list[str]:
        """What has happened that must not happen, in words."""
        wrong = []
        if self.canary.exists():
            shutil.rmtree(self.canary)
            say("count", 1, "payloads executed")
            wrong.append("the payload ran")
        reads, changes = self.outside.seen()
        new = {path for path in self._names() - self._around if path.name not in FREED}
        changes += [f"made {path}" for path in new if "planted" not in path.name]
        say("count", len(reads), "read outside")
        say("count", len(changes), "written outside")
        return wrong + reads + changes

    def mend(self) -> None:
        self.loads = 0
        self.outside.mend()
        self.sound.mend()
