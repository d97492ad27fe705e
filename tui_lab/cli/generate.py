"""`tui-lab generate`: text from a checkpoint or from all of a run, once or in conversation.

Knows the options and which of them go together; what is done with them is told beside (`prompts`,
`samples`, `across`, `talk`).
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import InputError
from engine.generation.params import SamplingParams
from tui_lab.cli.common import current_lab, note, on_terminal
from tui_lab.cli.prompts import read_prompts
from tui_lab.cli.samples import (
    SEPARATOR,
    Stopwatch,
    check_out,
    deliver,
    sample,
    search,
    show,
)
from tui_lab.cli.speed import Compile, tell, when

if TYPE_CHECKING:
    from engine.generation.beam import Beams
    from engine.generation.compiled import When
    from engine.generation.load import Generator

SMALL_MODEL = 5_000_000
"""Parameters below which one thread generates as fast as two."""


SAMPLED_ONLY = (
    "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop", "alternatives",
)  # fmt: skip
"""Options, by the names of their parameters, that a beam search has no use for."""


def register(app: typer.Typer) -> None:
    app.command("generate")(generate)


def generate(
    context: typer.Context,
    checkpoint: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="run, run@best, run@500 or a path; default: the newest checkpoint of the lab.",
            show_default=False,
        ),
    ] = "",
    run: Annotated[
        str, typer.Option("--run", help="The same as CHECKPOINT.", show_default=False)
    ] = "",
    every: Annotated[
        bool, typer.Option("--all", help="From every checkpoint of the run: a table, oldest first.")
    ] = False,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", "-p", help="The text to continue (repeatable: all at once)."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(help="Read the prompt from a file (one final newline is dropped)."),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(help='A prompt a line; a .jsonl file: "text" or {"prompt": "text"} a line.'),
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
    sinks: Annotated[
        int,
        typer.Option(help="First tokens kept of a text that outgrows the context (RoPE or none)."),
    ] = 4,
    beams: Annotated[
        int, typer.Option(min=0, help="Beam search with this many, instead of sampling; 0: off.")
    ] = 0,
    length_penalty: Annotated[
        float, typer.Option(help="Of beams: 0 compares sums, 1 means; more favours long texts.")
    ] = 1.0,
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
        Path | None,
        typer.Option(
            "--out",
            "--output",
            help="Write to a new file, whole or not at all; with --all a .md, .csv or .jsonl.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the file of --out if it is there.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="One object a sample: text, tokens, probabilities.")
    ] = False,
    alternatives: Annotated[
        int, typer.Option(min=0, max=1000, help="Likeliest tokens told with each, with --json.")
    ] = 5,
    stats: Annotated[
        bool, typer.Option("--stats", "-v", help="Tokens/s, first token, cache memory, on stderr.")
    ] = False,
    quantise: Annotated[
        str, typer.Option(help="int8: weights in eight bits.", show_default=False)
    ] = "",
    compile: Compile = None,
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
        sinks=sinks,
    )
    if run and checkpoint:
        raise InputError(f"'{checkpoint}' and --run '{run}' are both given", "choose one of them")
    reference = run or checkpoint
    _check_together(every, beams, count, json=json, out=out)
    _check_search(context, beams)
    prompts = read_prompts(prompt or (), file, prompts_file)
    if out is not None:
        check_out(out, overwrite)
    if prompts is None and (json or out is not None or count > 1 or every or beams):
        raise InputError("no prompt", "pass --prompt TEXT, --file FILE, or pipe one in")
    if prompts is not None and seed is None:
        params = replace(params, seed=secrets.randbits(31))
    if every:
        from tui_lab.cli.across import check_form, checkpoints_of, sample_all

        if out is not None:
            check_form(out)
        _check_device(device)
        found = checkpoints_of(current_lab(), reference)
        sample_all(
            found,
            prompts or (),
            params,
            device=device,
            crop=crop,
            quantise=quantise,
            json=json,
            output=out,
            loaded=lambda generator: _make_ready(generator, threads, when(compile, "kept")),
        )
        return
    settings = _beams(beams, params, length_penalty) if beams else None
    generator = _load(reference, device, quantise)
    if prompts is None:
        from tui_lab.cli.talk import talk

        _set_threads(generator, threads)
        talk(generator, params, crop=crop, compile=when(compile, "behind"))
        return
    _make_ready(generator, threads, when(compile, "kept"))
    if crop:
        _note_crop(generator, prompts)
    echo = on_terminal() and out is None if echo is None else echo
    try:
        if len(prompts) == 1 and not (beams or json or out is not None):
            for number, each in enumerate(_seeds(params, count, 1)):
                if number:
                    sys.stdout.write(f"{SEPARATOR}\n")
                _stream(generator, prompts[0], each, crop=crop, echo=echo, stats=stats)
            return
        samples = (
            search(generator, prompts, settings, crop=crop, stats=stats)
            if settings is not None
            else _samples(
                generator, prompts, params, count, crop=crop, alternatives=alternatives, stats=stats
            )
        )
        if out is not None:
            deliver(list(samples), echo=echo, out=out, json=json, overwrite=overwrite)
        else:
            for number, one in enumerate(samples):
                show(one, number=number, echo=echo, json=json)
    except KeyboardInterrupt:
        note("\ninterrupted" + (": nothing was written" if out is not None else ""))
        raise typer.Exit(130) from None


def _check_together(every: bool, beams: int, count: int, *, json: bool, out: Path | None) -> None:
    """Refuse options that exclude each other. Raises InputError."""
    if every and beams:
        raise InputError("--all and --beams are both given", "choose one of them")
    for name, there in (("--all", every), ("--beams", bool(beams))):
        if there and count > 1:
            raise InputError(f"--count {count} does not go with {name}", "leave one of them out")
    if every and json and out is not None:
        raise InputError("--all --json writes to stdout", "for a file name it .jsonl: --output")


def _check_search(context: typer.Context, beams: int) -> None:
    """Refuse what a search would ignore, and what only a search heeds. Raises InputError."""

    def refuse(names: Sequence[str], why: str, remedy: str) -> None:
        for name in names:
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                raise InputError(f"--{name.replace('_', '-')} does not go with {why}", remedy)

    if beams:
        why = "--beams: a beam search draws nothing, it looks for the likeliest text"
        refuse(SAMPLED_ONLY, why, "leave one of them out")
    else:
        refuse(("length_penalty",), "sampling: it compares beams", "add --beams N, or leave it out")


def _beams(beams: int, params: SamplingParams, length_penalty: float) -> Beams:
    from engine.generation.beam import Beams

    return Beams(beams, params.max_tokens, length_penalty, sinks=params.sinks)


def _check_device(device: str) -> None:
    from engine.device import check_device_name

    check_device_name(device)


def _load(reference: str, device: str, quantise: str) -> Generator:
    """The generator to talk to; what was named wrongly is refused before torch loads."""
    from engine.checkpoints import find_checkpoint
    from engine.device import choose_device
    from engine.generation.default import default_reference

    _check_device(device)
    lab, problems = current_lab(), []
    info = find_checkpoint(lab, reference or default_reference(lab), problems)
    for problem in problems:
        note(f"skipped a broken checkpoint: {problem}")
    if not reference:
        note(f"{info.run}, step {info.step}")

    from engine.generation.load import load_to_generate

    return load_to_generate(info, choose_device(device), quantise)


def _set_threads(generator: Generator, threads: int) -> None:
    """A token of a small model is too little work to share: two threads gain nothing on free cores,
    and waiting for each other on busy ones (beside a training) they lose a factor of fifty."""
    import torch

    small = sum(p.numel() for p in generator.model.parameters()) < SMALL_MODEL
    if threads or (small and generator.device.type == "cpu"):
        torch.set_num_threads(threads or 1)


def _make_ready(generator: Generator, threads: int, compile: When) -> None:
    """For texts that nobody talks about: only who asks for a compiler waits for it."""
    _set_threads(generator, threads)
    generator.compile(compile, told=tell)


def _note_crop(generator: Generator, prompts: Sequence[str]) -> None:
    context = generator.config.model.context_length
    for prompt in prompts:
        length = len(generator.tokenizer.encode(prompt))
        if length > context:
            note(f"the prompt's oldest {length - context} of {length} tokens are left out (--crop)")


def _seeds(params: SamplingParams, count: int, apart: int) -> Iterator[SamplingParams]:
    for number in range(count):
        yield replace(params, seed=((params.seed or 0) + number * apart) % 2**63)


def _samples(
    generator: Generator,
    prompts: Sequence[str],
    params: SamplingParams,
    count: int,
    *,
    crop: bool,
    alternatives: int,
    stats: bool,
) -> Iterator[dict[str, Any]]:
    """`count` rounds over all prompts: no two texts share a seed."""
    for each in _seeds(params, count, len(prompts)):
        yield from sample(
            generator, prompts, each, crop=crop, alternatives=alternatives, stats=stats
        )


def _stream(
    generator: Generator,
    prompt: str,
    params: SamplingParams,
    *,
    crop: bool,
    echo: bool,
    stats: bool,
) -> None:
    """Token by token to stdout, as it comes."""
    from tui_lab.cli.paint import Painter

    painter = Painter()
    if echo:
        painter.prompt(prompt)
    watch = Stopwatch()
    for token in generator.stream(prompt, params, alternatives=0, crop=crop):
        watch.count(token)
        painter.token(token.text, token.probability)
    painter.end()
    if stats:
        note(watch.told())
