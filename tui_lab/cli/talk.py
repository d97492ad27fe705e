"""The conversation of `tui-lab generate`: a prompt, its continuation, and again.

Knows a loaded generator. Lines that begin with a slash are commands; ctrl-c ends the sample in
hand, ctrl-d the conversation.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from engine.errors import EngineError, InputError, did_you_mean
from engine.generation.params import PARAM_NAMES, SamplingParams
from tui_lab.cli.common import note, say
from tui_lab.cli.paint import Painter
from tui_lab.cli.speed import in_words

if TYPE_CHECKING:
    from engine.generation.compiled import When
    from engine.generation.load import Generator

HELP = """\
type a text to continue it; \\n in it is a new line; nothing starts from nothing
/set NAME VALUE   change a setting, as /set temperature 0.5 (none: take it back)
/show             the settings
/again            the last prompt once more
/help             this
ctrl-c ends the sample, ctrl-d (or /quit) leaves"""


def talk(
    generator: Generator,
    params: SamplingParams,
    *,
    crop: bool = False,
    compile: When = "behind",
    ask: Callable[[str], str] = input,
) -> None:
    """Ask for prompts with `ask` until it raises EOFError, and stream what follows each.

    What becomes of compiling is told after a text, never inside it.
    """
    with suppress(ImportError):  # where there is one, it gives `input` editing and history
        import readline  # noqa: F401
    info = generator.info
    note(f"{info.run}, step {info.step}, on {generator.device}. /help says how, ctrl-d leaves.")
    news: deque[str] = deque()
    generator.compile(compile, told=lambda *told: news.append(in_words(*told)))
    prompt = ""
    while True:
        try:
            line = ask("› ")
        except EOFError:
            say()
            return
        except KeyboardInterrupt:
            note("\nctrl-d leaves")
            continue
        try:
            if not line.startswith("/"):
                prompt = line.replace("\\n", "\n")
            elif line.strip() == "/quit":
                return
            elif line.strip() != "/again":
                params = command(line, params)
                continue
            _answer(generator, prompt, params, crop)
            while news:
                note(f"[{news.popleft()}]")
        except EngineError as error:
            note(f"error: {error.title}" + (f"\nhint:  {error.hint}" if error.hint else ""))


def command(line: str, params: SamplingParams) -> SamplingParams:
    """Obey a line that begins with a slash; the settings afterwards. Raises InputError."""
    name, *words = line[1:].split(maxsplit=2) or [""]
    if name == "help":
        say(HELP)
    elif name == "show":
        for setting in PARAM_NAMES:
            say(f"{setting:20}{_shown(getattr(params, setting))}")
    elif name == "set":
        if len(words) != 2:
            raise InputError("/set needs a name and a value", "as in /set temperature 0.5")
        params = with_setting(params, words[0].replace("-", "_"), words[1])
        say(f"{words[0]} = {_shown(getattr(params, words[0].replace('-', '_')))}")
    else:
        known = ("again", "help", "quit", "set", "show")
        raise InputError(f"unknown command '/{name}'", did_you_mean(name, known))
    return params


def with_setting(params: SamplingParams, name: str, value: str) -> SamplingParams:
    """`params` with one field changed from text; `none` takes back its default."""
    if name not in PARAM_NAMES:
        raise InputError(f"unknown setting '{name}'", did_you_mean(name, PARAM_NAMES))
    default = getattr(SamplingParams(), name)
    if value.strip().lower() == "none":
        return replace(params, **{name: default})
    if name == "stop":
        return replace(params, stop=(*params.stop, value.replace("\\n", "\n")))
    kind = float if isinstance(default, float) else int
    try:
        return replace(params, **{name: kind(value)})
    except ValueError:
        what = "a number" if kind is float else "a whole number"
        raise InputError(f"{name} = {value!r}: not {what}") from None


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(repr, value)) or "none"
    return "none" if value is None else str(value)


def _answer(generator: Generator, prompt: str, params: SamplingParams, crop: bool) -> None:
    painter = Painter()
    started = time.perf_counter()
    count, reason = 0, "cancelled"
    try:
        stream = generator.stream(prompt, params, alternatives=0, crop=crop)
        painter.prompt(prompt)
        for token in stream:
            painter.token(token.text, token.probability)
            count, reason = count + 1, token.reason or reason
    except KeyboardInterrupt:
        pass
    painter.end()
    seconds = time.perf_counter() - started
    note(f"[{count} tokens, {count / max(seconds, 1e-9):.0f} a second, {reason}]")
