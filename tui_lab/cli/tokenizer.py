"""`tui-lab tokenizer …`: train one, look into one, and see what it makes of a text."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.errors import InputError
from engine.text import visible
from tui_lab import format as fmt
from tui_lab.cli.common import console, current_lab, note, on_terminal, say, say_json, table

if TYPE_CHECKING:
    from engine.tokenizers import Tokenizer

app = typer.Typer(no_args_is_help=True)

SAMPLE_BYTES = 8_000_000  # of the training text, encoded once to measure bytes per token and speed

Reference = Annotated[
    str,
    typer.Option(
        "--tokenizer",
        "-t",
        metavar="REF",
        help="A folder, a run's name, or a kind that needs no training (bytes, gpt2).",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder to write the tokenizer to.")],
    files: Annotated[list[Path] | None, typer.Argument(help="UTF-8 text files.")] = None,
    corpus: Annotated[str, typer.Option(help="Learn from this corpus instead of files.")] = "",
    kind: Annotated[str, typer.Option(help="bytes, char, word, bpe or gpt2.")] = "bpe",
    vocab_size: Annotated[
        int, typer.Option(help="Tokens at most, special ones included (bpe, word).")
    ] = 1024,
    force: Annotated[bool, typer.Option("--force", help="Replace the one in --out.")] = False,
    json: AsJson = False,
) -> None:
    """Learn a vocabulary from text and save it."""
    if bool(files) == bool(corpus):
        raise InputError("name either files or --corpus to learn from", "tui-lab corpus list")
    if (out / "tokenizer.json").exists() and not force:
        raise InputError(f"'{out}' already holds a tokenizer", "name another folder, or --force")
    from engine.tokenizers import build

    lab = current_lab()
    texts = _corpus_texts(lab, corpus) if corpus else _file_texts(files or [])
    reading = _Reading(texts)
    with _busy(f"learning a {kind} vocabulary from {corpus or _names(files or [])}", quiet=json):
        begun = time.perf_counter()
        tokenizer = build(kind, reading, vocab_size, lab)
        seconds = time.perf_counter() - begun
        measured = _measure(tokenizer, texts())
    tokenizer.save(out)
    facts = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "bytes": reading.bytes,
        "train_seconds": round(seconds, 3),
        **measured,
        "digest": tokenizer.digest,
        "path": str(out),
    }
    if json:
        say_json(facts)
        return
    asked = kind in ("bpe", "word") and tokenizer.vocab_size < vocab_size
    short = f" (of {fmt.thousands(vocab_size)}: the text gives no more)" if asked else ""
    say(f"kind         {tokenizer.kind}")
    say(f"vocabulary   {fmt.thousands(tokenizer.vocab_size)} tokens{short}")
    if reading.bytes:
        say(f"learned from {fmt.size(reading.bytes)}")
    say(f"time         {fmt.duration(seconds)}")
    say(f"bytes/token  {measured['bytes_per_token']:.3f}")
    say(f"encodes      {measured['encode_mb_per_second']:.1f} MB/s")
    say(f"digest       {tokenizer.digest[:12]}")
    say(f"saved        {out}")


@app.command()
def show(
    reference: Annotated[str, typer.Argument(metavar="REF", help="A folder, a run, or a kind.")],
    limit: Annotated[int, typer.Option(help="Tokens in each list.", min=1)] = 10,
    json: AsJson = False,
) -> None:
    """Describe a tokenizer and its vocabulary."""
    from engine.tokenizers import find

    tokenizer = find(current_lab(), reference)
    lengths = tokenizer.byte_lengths()
    longest = sorted(range(tokenizer.vocab_size), key=lambda token: (-lengths[token], token))
    ordinary = [token for token in range(tokenizer.vocab_size) if lengths[token]]
    # In bpe and gpt2 the first 256 tokens are bytes: what was learned begins behind them.
    learned = [token for token in ordinary if lengths[token] > 1] or ordinary
    lists = {
        "first": learned[:limit],
        "last": learned[-limit:],
        "longest": longest[:limit],
    }
    facts = {
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "special_tokens": tokenizer.special_tokens,
        "mean_bytes": round(float(lengths[ordinary].mean()), 3),
        "digest": tokenizer.digest,
    }
    if json:
        for name, tokens in lists.items():
            facts[name] = [[token, tokenizer.token_text(token)] for token in tokens]
        say_json(facts)
        return
    special = ", ".join(f"{name} = {token}" for name, token in tokenizer.special_tokens.items())
    say(f"kind         {tokenizer.kind}")
    say(f"vocabulary   {fmt.thousands(tokenizer.vocab_size)} tokens")
    say(f"special      {special or 'none'}")
    say(f"mean length  {facts['mean_bytes']} bytes (each token counted once)")
    say(f"digest       {tokenizer.digest}")
    for name, tokens in lists.items():
        if not on_terminal():
            say()  # a drawn table brings its own space
        rows = [(token, _quoted(tokenizer.token_text(token)), lengths[token]) for token in tokens]
        table([f"{name} ids", "token", "bytes"], rows, right=(0, 2))


@app.command()
def encode(
    tokenizer: Reference,
    text: Annotated[str | None, typer.Argument(help="The text; without it, stdin.")] = None,
    file: Annotated[Path | None, typer.Option(help="Encode this file.")] = None,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show the text's tokens.")] = False,
    json: AsJson = False,
) -> None:
    """Print the token ids of a text.

    With --tokens every other token is reversed on a terminal; piped, one line a token: id, text.
    """
    from engine.tokenizers import find

    if text is not None and file is not None:
        raise InputError("give a text or --file, not both")
    chosen = find(current_lab(), tokenizer)
    content = text if text is not None else _input_text(file)
    ids = chosen.encode_array(content).tolist()
    n_bytes = len(content.encode("utf-8", "surrogatepass"))
    if json:
        facts: dict[str, Any] = {"kind": chosen.kind, "bytes": n_bytes, "tokens": len(ids)}
        facts["ids"] = ids
        if tokens:
            facts["texts"] = [chosen.token_text(token) for token in ids]
        say_json(facts)
    elif tokens:
        _show_tokens(chosen, ids)
    else:
        say(" ".join(map(str, ids)))
    if on_terminal() and not json and ids:
        note(
            f"{fmt.thousands(len(ids))} tokens, {fmt.thousands(n_bytes)} bytes, "
            f"{n_bytes / len(ids):.2f} bytes/token"
        )


@app.command()
def decode(
    tokenizer: Reference,
    ids: Annotated[list[str] | None, typer.Argument(help="Token ids; without, stdin.")] = None,
) -> None:
    """Print the text of token ids.

    Ids are separated by spaces, commas or newlines. Piped, the text is exact, with no newline
    added; on a terminal, control characters are shown as glyphs.
    """
    from engine.tokenizers import find

    chosen = find(current_lab(), tokenizer)
    written = " ".join(ids) if ids else _input_text(None)
    text = chosen.decode([_token_id(word) for word in re.split(r"[\s,\[\]]+", written) if word])
    if on_terminal():
        say(text)
    else:
        sys.stdout.buffer.write(text.encode())
        sys.stdout.flush()


def _token_id(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) < 10):
        raise InputError(f"'{word[:40]}' is not a token id", "ids are whole numbers, from 0 on")
    return int(word)


def _show_tokens(tokenizer: Tokenizer, ids: list[int]) -> None:
    """The text with its boundaries. Reverse video, since it is there without colour too."""
    if not on_terminal():
        for token in ids:
            say(f"{token}\t{visible(tokenizer.token_text(token), lines=False)}")
        return
    from rich.text import Text

    drawn = Text()
    for index, token in enumerate(ids):
        text = tokenizer.token_text(token)
        shown = visible(text, lines=False) + ("\n" if text.endswith("\n") else "")
        drawn.append(shown, "reverse" if index % 2 else "")
    console().print(drawn)


def _quoted(text: str) -> str:
    """A token in quotes (its spaces count), cut to one short line."""
    shown = visible(text, lines=False)
    return f"'{shown}'" if len(shown) <= 40 else f"'{shown[:40]}…' ({len(shown)} characters)"


def _names(files: list[Path]) -> str:
    return files[0].name if len(files) == 1 else f"{len(files)} files"


def _input_text(file: Path | None) -> str:
    """The whole of a file or of stdin, as UTF-8 text."""
    if file is None and sys.stdin.isatty():
        raise InputError("there is nothing to read", "give it as an argument, or pipe it in")
    try:
        data = sys.stdin.buffer.read() if file is None else file.read_bytes()
        return data.decode()
    except OSError as error:
        raise InputError(f"cannot read '{file}': {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{file or 'stdin'} is not UTF-8 text (byte {error.start})") from None


def _corpus_texts(lab: Any, name: str) -> Callable[[], Iterable[str]]:
    from engine.corpora import documents, find_corpus

    find_corpus(lab, name)  # an unknown name is refused before anything is said
    return lambda: documents(lab, name)


def _file_texts(files: list[Path]) -> Callable[[], Iterable[str]]:
    for path in files:
        if path.is_dir():
            raise InputError(f"'{path}' is a folder", "make a corpus of it: tui-lab corpus add")
    return lambda: (part for path in files for part in _read_parts(path))


def _read_parts(path: Path) -> Iterator[str]:
    """A text file in parts of whole lines, so that none need fit in memory."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while part := file.read(1 << 22):
                yield part + file.readline()
    except OSError as error:
        raise InputError(f"cannot read '{path}': {error.strerror}") from error
    except UnicodeDecodeError:
        raise InputError(f"'{path}' is not UTF-8 text") from None


class _Reading:
    """Texts passed through and counted; each call starts them, and the counts, again."""

    def __init__(self, texts: Callable[[], Iterable[str]]) -> None:
        self._texts = texts
        self.bytes = 0

    def __call__(self) -> Iterator[str]:
        self.bytes = 0
        for text in self._texts():
            self.bytes += len(text.encode("utf-8", "replace"))
            yield text


def _measure(tokenizer: Tokenizer, texts: Iterable[str]) -> dict[str, float]:
    """Bytes per token and encoding speed over the first SAMPLE_BYTES of `texts`."""
    n_bytes = n_tokens = 0
    seconds = 0.0
    for text in texts:
        if not n_bytes:
            tokenizer.encode_array(text[:64])  # what is built at first use is not speed
        begun = time.perf_counter()
        n_tokens += len(tokenizer.encode_array(text))
        seconds += time.perf_counter() - begun
        n_bytes += len(text.encode("utf-8", "replace"))
        if n_bytes > SAMPLE_BYTES:
            break
    return {
        "bytes_per_token": round(n_bytes / max(n_tokens, 1), 4),
        "encode_mb_per_second": round(n_bytes / max(seconds, 1e-9) / 1e6, 2),
    }


@contextmanager
def _busy(what: str, *, quiet: bool) -> Iterator[None]:
    """Say on stderr that work goes on: a spinner on a terminal, else one line."""
    if quiet:
        yield
    elif not sys.stderr.isatty():
        note(what)
        yield
    else:
        from rich.console import Console
        from rich.text import Text

        with Console(stderr=True).status(Text(visible(what, lines=False))):
            yield
