"""The one table of keys. Bindings, the footer, the help screen and the palette are read from it.

Knows names of actions, and nothing of what they do. Single letters act only while no text field
has the focus: a focused field takes them first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from textual.binding import Binding


@dataclass(frozen=True)
class Key:
    """One action. `keys` are Textual's names, comma-separated; the first is the one shown.

    `label` stands in the footer (when `footer`), `help` in the help screen and the palette.
    `screen` is "" for keys that work everywhere. `shown` overrides how the key is written. `main`
    keys find room in the footer before the others.
    """

    id: str
    keys: str
    label: str
    help: str
    screen: str
    action: str
    footer: bool = True
    shown: str = ""
    main: bool = False

    @property
    def written(self) -> str:
        """The key as a person reads it: `space`, `.`, `ctrl+p`."""
        if self.shown:
            return self.shown
        first = self.keys.split(",")[0]
        return _WRITTEN.get(first, first)


_WRITTEN = {
    "full_stop": ".",
    "comma": ",",
    "slash": "/",
    "question_mark": "?",
    "plus": "+",
    "minus": "-",
    "left_square_bracket": "[",
    "right_square_bracket": "]",
    "escape": "esc",
    "delete": "del",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
}

SCREENS: dict[str, str] = {
    "train": "Train",
    "runs": "Runs",
    "checkpoints": "Checkpoints",
    "console": "Console",
    "corpus": "Corpus",
    "new_run": "New run",
}
"""Screens by name, in the order of the keys 1 to 6, with the title a person reads."""

APP_KEYS = (
    *(
        Key(name, str(number), title, f"Go to the screen {title}", "", f"go('{name}')", False)
        for number, (name, title) in enumerate(SCREENS.items(), 1)
    ),
    Key("theme", "t", "theme", "Next theme: dark, light, high contrast", "", "next_theme", False),
    Key("slow", "f4", "slow link", "Slow link: draw rarely and coarsely", "", "slow_link", False),
    Key("palette", "ctrl+p", "palette", "Find any command by name", "", "command_palette", False),
    Key("help", "question_mark", "help", "All keys", "", "help"),
    Key("quit", "q,ctrl+q", "quit", "Leave; asks while training", "", "quit_lab"),
)

TRAIN_KEYS = (
    Key("pause", "space", "pause", "Pause, or go on", "train", "toggle_pause", main=True),
    Key("step", "full_stop", "step", "Take one step, then pause", "train", "single_step"),
    Key("save", "s", "save", "Save a checkpoint now", "train", "save", main=True),
    Key("evaluate", "e", "evaluate", "Evaluate on the validation split now", "train", "evaluate"),
    Key("sample", "g", "sample", "Generate a sample from the weights now", "train", "sample"),
    Key("rate", "l", "rate", "Change the learning rate", "train", "learning_rate"),
    Key("stop", "x", "stop", "Stop the run, saving it", "train", "stop", main=True),
    Key("new", "n", "new run", "Set up a new run", "train", "app.go('new_run')"),
    Key("zoom", "z", "zoom", "Chart: the whole run, or its last part", "train", "zoom", False),
    Key("log", "y", "log scale", "Chart: linear or logarithmic loss", "train", "log_scale", False),
    Key(
        "start",
        "enter",
        "start",
        "Nothing trained yet: train preset micro",
        "train",
        "start_preset",
    ),
    Key("talk", "c", "talk", "Talk to the weights: live, or the ended run's", "train", "talk"),
    Key("resume", "r", "resume", "Go on with the run that ended", "train", "resume"),
)

RUNS_KEYS = (
    Key("open", "enter", "checkpoints", "Open the checkpoints of this run", "runs", "open"),
    Key("attach", "a", "attach", "Show this run on Train; steer it if it lives", "runs", "attach"),
    Key("mark", "space", "mark", "Mark this run, to compare it with others", "runs", "mark"),
    Key("filter", "slash", "filter", "Show only the runs with these words", "runs", "filter"),
    Key("sort", "s", "sort", "Sort by the next column", "runs", "sort"),
    Key("curve", "c", "curve", "Chart: loss, validation, learning rate, …", "runs", "curve"),
    Key("axis", "x", "axis", "Chart: by steps, tokens or time", "runs", "axis"),
    Key("details", "d", "details", "The chart, or what differs between runs", "runs", "details"),
    Key("talk", "o", "console", "Talk to this run in the console", "runs", "talk"),
    Key("resume", "r", "resume", "Go on training this run", "runs", "resume"),
    Key("delete", "delete,D", "delete", "Delete this run; asks twice", "runs", "delete"),
    Key("reverse", "S", "reverse", "Sort the other way round", "runs", "reverse", False),
    Key("unmark", "u", "unmark", "Take all marks away", "runs", "unmark", False),
    Key("clear", "escape", "clear", "Take the filter away", "runs", "clear", False),
)

CHECKPOINTS_KEYS = (
    Key(
        "talk",
        "enter,o",
        "console",
        "Talk to this checkpoint in the console",
        "checkpoints",
        "talk",
    ),
    Key("view", "right", "view", "Detail: the next view", "checkpoints", "view(1)", shown="←→"),
    Key("verify", "v", "verify", "Check every byte against its hashes", "checkpoints", "verify"),
    Key(
        "statistics", "s", "statistics", "Read the tensors: norms, spread", "checkpoints", "measure"
    ),
    Key("filter", "slash", "filter", "Show only what has these words", "checkpoints", "filter"),
    Key("all", "a", "all runs", "All runs, or only this one", "checkpoints", "all"),
    Key("resume", "r", "resume", "Go on training from here", "checkpoints", "resume"),
    Key(
        "delete",
        "delete,D",
        "delete",
        "Delete this checkpoint; asks twice",
        "checkpoints",
        "delete",
    ),
    Key("copy", "y", "copy path", "Copy the path to the clipboard", "checkpoints", "copy"),
    Key("back", "left", "view", "Detail: the view before", "checkpoints", "view(-1)", False),
    Key(
        "clear",
        "escape",
        "cancel",
        "Stop what is under way, or the filter",
        "checkpoints",
        "clear",
        False,
    ),
)

CONSOLE_KEYS = (
    Key("generate", "enter", "generate", "Go on with the prompt", "console", "generate"),
    Key(
        "cancel",
        "escape",
        "cancel",
        "Cancel; idle: leave the field",
        "console",
        "cancel",
        main=True,
    ),
    Key("prompt", "p,i", "prompt", "Back to the prompt", "console", "write", False),
    Key("source", "ctrl+o", "checkpoint", "Choose what to talk to", "console", "choose"),
    Key("beside", "ctrl+n,v", "beside", "A second model, side by side", "console", "beside"),
    Key("branch", "b", "branch", "Branch: another token here", "console", "branch"),
    Key("colour", "c", "colour", "Colour: likely, entropy, difference", "console", "colour"),
    Key("repeat", "ctrl+r,r", "repeat", "Again, with the same seed", "console", "repeat"),
    Key("write", "ctrl+s,s", "save", "Save the text at the cursor to a file", "console", "save"),
    Key("copy", "y", "copy", "Copy the text at the cursor", "console", "copy"),
    Key("reuse", "ctrl+t,u", "reuse", "Its prompt and settings back", "console", "reuse"),
    Key("trunk", "backspace", "trunk", "From a branch to where it left", "console", "trunk", False),
    Key("tree", "ctrl+g,g", "go to", "All texts and branches as a tree", "console", "tree", False),
    Key("earlier", "left_square_bracket", "earlier", "Text before", "console", "other(-1)", False),
    Key("later", "right_square_bracket", "later", "Text after", "console", "other(1)", False),
    Key("clear", "ctrl+l", "clear", "Empty the transcript", "console", "clear", False),
    Key(
        "newline",
        "ctrl+j",
        "new line",
        "In the prompt (also shift+enter)",
        "console",
        "newline",
        False,
    ),
)

CORPUS_KEYS = (
    Key("read", "enter", "read", "Read the text as the model sees it", "corpus", "read"),
    Key("view", "right", "view", "Detail: the next view", "corpus", "view(1)", shown="←→"),
    Key("tokenizer", "z", "tokenizer", "Next tokenizer", "corpus", "tokenizer(1)"),
    Key("count", "s", "statistics", "Count documents, bytes and tokens", "corpus", "count"),
    Key("next", "n", "page", "Preview: the next page of text", "corpus", "page(1)"),
    Key("prepare", "p", "prepare", "Turn the text into token files", "corpus", "prepare"),
    Key("fetch", "f", "fetch", "Download this corpus; asks first", "corpus", "fetch"),
    Key("add", "a", "add", "Add a file or a folder as a corpus", "corpus", "add"),
    Key("previous", "b", "page back", "Preview: the page before", "corpus", "page(-1)", False),
    Key("tokenizer_back", "Z", "", "The tokenizer before", "corpus", "tokenizer(-1)", False),
    Key("back", "left", "view", "Detail: the view before", "corpus", "view(-1)", False),
    Key("clear", "escape", "cancel", "Stop what is under way", "corpus", "clear", False),
)

NEW_RUN_KEYS = (
    Key("start_run", "f5,ctrl+enter", "start", "Start training with this form", "new_run", "start"),
    Key("calibrate", "f6", "calibrate", "Measure 20 steps for the plan", "new_run", "calibrate"),
    Key("reset", "f8", "reset", "Put the preset's values back", "new_run", "reset"),
    Key("fold", "f2", "all fields", "Show every field, or the main ones", "new_run", "fold"),
    Key("leave", "escape", "back", "Back to Train; the form is kept", "new_run", "leave"),
)

KEYS: tuple[Key, ...] = (
    *APP_KEYS,
    *TRAIN_KEYS,
    *RUNS_KEYS,
    *CHECKPOINTS_KEYS,
    *CONSOLE_KEYS,
    *CORPUS_KEYS,
    *NEW_RUN_KEYS,
)


def keys_of(screen: str) -> Iterator[Key]:
    """The keys of one screen ("" for the keys that work everywhere), in the table's order."""
    return (key for key in KEYS if key.screen == screen)


def bindings(screen: str) -> list[Binding]:
    """Textual's bindings for one screen's class variable `BINDINGS`."""
    from textual.binding import Binding

    return [
        Binding(key.keys, key.action, key.label, show=key.footer, tooltip=key.help)
        for key in keys_of(screen)
    ]
