"""What the app remembers between starts: a TOML file in the platform's configuration directory.

`TUI_LAB_CONFIG_DIR` overrides where. A broken or unwritable file never stops the app: what cannot
be read is the default, what cannot be written is forgotten.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


def config_dir() -> Path:
    """The directory of the settings and of the app's own log (not necessarily there yet)."""
    if named := os.environ.get("TUI_LAB_CONFIG_DIR"):
        return Path(named).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "tui-lab"
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA", Path.home())) / "tui-lab"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tui-lab"


@dataclass
class Settings:
    """Plain values; `memory` holds what single screens remember, a table for each screen."""

    theme: str = "dark"  # dark, light, contrast
    refresh: float = 4.0  # looks at the training thread, a second
    budget: float = 0.01  # share of a core the screen may use while training uses all of them
    slow_link: str = "auto"  # auto: when the terminal takes its data slowly; always; never
    smoothing: int = 0  # points averaged in the bright loss curve; 0: by the run's length
    zoom: str = "so far"  # the steps that the loss chart shows: so far, plan, recent
    log_scale: bool = False  # the chart's loss axis
    compile: bool = True  # a checkpoint that is talked to, for speed, behind its first text
    ascii: str = "auto"  # auto: when the locale is not UTF-8; always; never
    memory: dict[str, dict[str, Any]] = field(default_factory=dict)

    path: Path | None = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, path: Path | None = None) -> Settings:
        """The settings in `path` (by default in `config_dir()`), each wrong value replaced."""
        from engine.toml import read_toml

        path = path or config_dir() / "settings.toml"
        settings = cls(path=path)
        try:
            values = read_toml(path)
        except (OSError, ValueError):
            return settings
        for spec in fields(cls):
            value = values.get(spec.name)
            kind = type(getattr(settings, spec.name))
            if spec.name != "path" and type(value) is kind:
                setattr(settings, spec.name, value)
        settings._bound()
        return settings

    def _bound(self) -> None:
        self.refresh = min(max(self.refresh, 0.5), 30.0)
        self.budget = min(max(self.budget, 0.001), 1.0)
        self.smoothing = min(max(self.smoothing, 0), 100_000)

    def of(self, screen: str) -> dict[str, Any]:
        """What `screen` remembers: a table of TOML values that it may read and change."""
        table = self.memory.setdefault(screen, {})
        if not isinstance(table, dict):
            table = self.memory[screen] = {}
        return table

    def save(self) -> None:
        """Write the file; nothing happens where that is not allowed, or without a path."""
        if self.path is None:
            return
        import tomli_w

        from engine.atomic import write_text

        values = {spec.name: getattr(self, spec.name) for spec in fields(self)}
        del values["path"]
        with suppress(OSError, TypeError, ValueError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self.path, tomli_w.dumps(values))


def is_unicode(settings: Settings) -> bool:
    """Whether Braille, blocks and arrows may be drawn here."""
    if settings.ascii != "auto":
        return settings.ascii == "never"
    encoding = getattr(sys.__stdout__, "encoding", None) or "utf-8"
    return encoding.lower().replace("-", "").startswith("utf")
