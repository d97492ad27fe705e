"""What outlives a text of the console: the clipboard, a file, the settings of the next start."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, InputError
from engine.generation.params import PARAM_NAMES, SamplingParams
from engine.text import visible
from tui_lab import generation_file
from tui_lab.generations import Generation
from tui_lab.screens.dialogs import TextDialog

if TYPE_CHECKING:
    from tui_lab.screens.console import ConsoleScreen


class Keeping:
    """A part of `ConsoleScreen`."""

    def action_copy(self: ConsoleScreen) -> None:
        chosen = self.chosen()
        if chosen is not None:
            self.app.copy_to_clipboard(visible(chosen.whole))
            self.lab_app.notify_safe(
                f"copied {len(chosen.whole)} characters to the clipboard: "
                f"text {chosen.number}, with its prompt, by {chosen.label}"
            )

    def action_save(self: ConsoleScreen) -> None:
        chosen = self.chosen()
        if chosen is not None:
            self.run_worker(self._save(chosen))

    async def _save(self: ConsoleScreen, generation: Generation) -> None:
        def check(name: str) -> Path:
            path = self.lab_app.lab.root / Path(name.strip() or "?").expanduser()
            if path.exists():
                raise InputError(f"{path} exists already", "choose another name")
            if not path.parent.is_dir():
                raise InputError(f"{path.parent} is not a directory", "make it first")
            return path

        path = await self.lab_app.ask(
            TextDialog(
                "Save this text",
                f"{generation.heading()}\nA name that ends in .json also keeps the tokens with "
                "their probabilities, the settings, the seed and the checkpoint.",
                f"generation-{generation.number}.txt",
                check,
                ok="Save",
            )
        )
        if path is not None:
            try:
                generation_file.write(path, generation)
            except EngineError as error:
                self.lab_app.show_error(error)
            else:
                self.lab_app.notify_safe(f"saved {path}")

    @property
    def memory(self: ConsoleScreen) -> dict[str, Any]:
        """What is remembered between starts."""
        return self.lab_app.settings.of(self.NAME)

    def recall(self: ConsoleScreen) -> None:
        """Prompts and settings as they were left."""
        memory = self.memory
        prompts = memory.get("prompts")
        if isinstance(prompts, list):
            self.prompt.prompts = [text for text in prompts if isinstance(text, str)]
        values = {name: memory[name] for name in PARAM_NAMES if name in memory}
        if isinstance(values.get("stop"), list):
            values["stop"] = tuple(values["stop"])
        # A file that somebody edited: what cannot be used is the default.
        with suppress(EngineError, TypeError, ValueError):
            self.settings.show(SamplingParams(**values))

    def remember(self: ConsoleScreen) -> None:
        params = self.settings.params
        values = {name: getattr(params, name) for name in PARAM_NAMES}
        values["stop"] = list(params.stop)
        self.memory.pop("seed", None)
        self.memory.update({name: value for name, value in values.items() if value is not None})
        self.memory["prompts"] = self.prompt.prompts
        self.lab_app.settings.save()
