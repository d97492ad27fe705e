"""`tui-lab generate`: text from a checkpoint, once or in conversation."""

from __future__ import annotations

import os
import secrets
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import InputError
from engine.generation.params import SamplingParams
from tui_lab.cli.common import current_lab, note, on_terminal, say_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.generation.generate import GeneratedToken
    from engine.generation.load import Generator

SEPARATOR = "---"
"""A line of its own between the samples of `--count`."""

SMALL_MODEL = 5_000_000
"""Parameters below which one thread generates as fast as two."""


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="run, run@best, run@500 or a path; default: the newest checkpoint of the lab.",
            show_default=False,
        ),
    ] = "",
    prompt: Annotated[
        str | None, typer.Option("--prompt", "-p", help="The text to continue.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read the prompt from a file (one final newline is dropped)."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0: off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep this mass of tokens; 1: off.")] = 1.0,
    min_p: Annotated[
        float, typer.Option(help="Drop tokens below this share of the likeliest; 0: off.")
    ] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1 repeats less; 1: off.")] = 1.0,
    max_tokens: Annotated[int, typer.Option("--max-tokens", "-n", help="Length at most.")] = 200,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same text (default: a fresh one).")
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(help="End before this text (repeatable).")
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, help="Samples, with seeds one apart, divided by lines of ---.")
    ] = 1,
    crop: Annotated[
        bool, typer.Option("--crop", help="Keep only the newest tokens of a prompt too long.")
    ] = False,
    echo: Annotated[
        bool | None,
        typer.Option("--echo/--no-echo", help="Show the prompt too (default: on a terminal only)."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the text to a file, whole or not at all.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="One object a sample: text, tokens, probabilities.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cuda, cuda:1, mps or cpu.")] = "auto",
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads; 0: one for a small model, else all cores.")
    ] = 0,
) -> None:
    """Generate text from a checkpoint; without a prompt, talk to it.

    The prompt is --prompt, --file, or what is piped in (one final newline is dropped); an empty
    one starts as documents of the corpus do. With none of these, in a terminal, you are asked for
    one again and again. Piped, the continuation alone is printed.

    On a terminal each token is coloured by the probability that the model itself gave it: from
    green (at least 0.7) over cyan (0.4), yellow (0.15) and magenta (0.05) to red.
    """
    params = SamplingParams(
        repetition_penalty=repetition_penalty,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
        seed=seed,
        stop=tuple(stop or ()),
    )
    text = _read_prompt(prompt, file)
    if out is not None:
        _check_writable(out)
    if text is None and (json or out is not None or count > 1):
        raise InputError("no prompt", "pass --prompt TEXT, --file FILE, or pipe one in")
    generator = _load(checkpoint, device)
    _set_threads(generator, threads)
    if text is None:
        from tui_lab.cli.talk import talk

        talk(generator, params, crop=crop)
        return
    if crop:
        _note_crop(generator, text)
    echo = on_terminal() and out is None if echo is None else echo
    params = params if seed is not None else replace(params, seed=secrets.randbits(31))
    try:
        if out is not None or json:
            samples = [_sample(generator, text, each, crop) for each in _seeds(params, count)]
            _deliver(samples, echo=echo, out=out, json=json)
        else:
            for number, each in enumerate(_seeds(params, count)):
                if number:
                    sys.stdout.write(f"{SEPARATOR}\n")
                _stream(generator, text, each, crop=crop, echo=echo)
    except KeyboardInterrupt:
        note("\ninterrupted" + (": nothing was written" if out is not None else ""))
        raise typer.Exit(130) from None


def _read_prompt(prompt: str | None, file: Path | None) -> str | None:
    """The prompt from wherever it comes; None: ask for one."""
    if prompt is not None and file is not None:
        raise InputError("--prompt and --file are both given", "choose one of them")
    if prompt is not None:
        return prompt
    if file is None and sys.stdin.isatty():
        return None
    name = "standard input" if file is None else f"'{file}'"
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode("utf-8").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise InputError(f"cannot read the prompt from {name}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(
            f"the prompt in {name} is not UTF-8 text (byte {error.start})", "convert it to UTF-8"
        ) from None


def _check_writable(out: Path) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    folder = out.parent
    if out.is_dir():
        raise InputError(f"--out '{out}' is a directory", "name a file")
    if not folder.is_dir():
        raise InputError(f"--out '{out}': there is no directory '{folder}'", "make it first")
    if not os.access(folder, os.W_OK):
        raise InputError(f"--out '{out}': no permission to write in '{folder}'")


def _load(reference: str, device: str) -> Generator:
    """The generator to talk to; what was named wrongly is refused before torch loads."""
    from engine.checkpoints import find_checkpoint
    from engine.device import check_device_name, choose_device
    from engine.generation.default import default_reference

    check_device_name(device)
    lab, problems = current_lab(), []
    info = find_checkpoint(lab, reference or default_reference(lab), problems)
    for problem in problems:
        note(f"skipped a broken checkpoint: {problem}")
    if not reference:
        note(f"{info.run}, step {info.step}")

    from engine.generation.load import load_checkpoint

    return load_checkpoint(info, choose_device(device))


def _set_threads(generator: Generator, threads: int) -> None:
    """A token of a small model is too little work to share: two threads gain nothing on free cores,
    and waiting for each other on busy ones (beside a training) they lose a factor of fifty."""
    import torch

    small = sum(p.numel() for p in generator.model.parameters()) < SMALL_MODEL
    if threads or (small and generator.device.type == "cpu"):
        torch.set_num_threads(threads or 1)


def _note_crop(generator: Generator, text: str) -> None:
    length, context = len(generator.tokenizer.encode(text)), generator.config.model.context_length
    if length > context:
        note(f"the prompt's oldest {length - context} of {length} tokens are left out (--crop)")


def _seeds(params: SamplingParams, count: int) -> Iterator[SamplingParams]:
    for number in range(count):
        yield replace(params, seed=((params.seed or 0) + number) % 2**63)


def _stream(
    generator: Generator, prompt: str, params: SamplingParams, *, crop: bool, echo: bool
) -> None:
    """Token by token to stdout, as it comes."""
    from tui_lab.cli.paint import Painter

    painter = Painter()
    if echo:
        painter.prompt(prompt)
    for token in generator.stream(prompt, params, alternatives=0, crop=crop):
        painter.token(token.text, token.probability)
    painter.end()


def _sample(
    generator: Generator, prompt: str, params: SamplingParams, crop: bool
) -> dict[str, Any]:
    """One sample as the object that `--json` prints."""
    started = time.perf_counter()
    tokens: list[GeneratedToken] = list(generator.stream(prompt, params, crop=crop))
    return {
        "run": generator.info.run,
        "step": generator.info.step,
        "prompt": prompt,
        "text": "".join(token.text for token in tokens),
        "reason": tokens[-1].reason,
        "seed": params.seed,
        "seconds": round(time.perf_counter() - started, 4),
        "tokens": [
            {
                "token": token.token,
                "text": token.text,
                "probability": token.probability,
                "alternatives": [list(pair) for pair in token.alternatives],
            }
            for token in tokens
        ],
    }


def _deliver(samples: list[dict[str, Any]], *, echo: bool, out: Path | None, json: bool) -> None:
    """Samples that are done: as JSON lines or plain text, to stdout or to a file."""
    if out is None:
        for sample in samples:
            say_json(sample)
        return
    from engine.atomic import write_text

    if json:
        from json import dumps

        text = "".join(dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
    else:
        texts = [(sample["prompt"] if echo else "") + sample["text"] for sample in samples]
        text = f"\n{SEPARATOR}\n".join(texts) + "\n"
    try:
        write_text(out, text)
    except OSError as error:
        raise InputError(f"cannot write '{out}': {error.strerror}") from error
    note(f"wrote {sum(len(sample['tokens']) for sample in samples)} tokens to '{out}'")
