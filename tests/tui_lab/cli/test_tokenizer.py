"""`tui-lab tokenizer`: what it prints when piped, where tokenizers come from, how it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.errors import EngineError, InputError, TokenizerError
from engine.tokenizers import BpeTokenizer, load
from tui_lab.cli import app

TEXT = "The cat sat on the mat.\nThe other cat sat on the other mat.\n" * 40


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty lab with one text file, as the working directory."""
    (tmp_path / "cats.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    result = CliRunner().invoke(app, ["tokenizer", *arguments], input=stdin)
    if isinstance(result.exception, EngineError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result


def test_train_saves_and_reports_the_real_size(lab: Path) -> None:
    result = run("train", "cats.txt", "--out", "t", "--vocab-size", "5000")
    tokenizer = load(lab / "t")
    assert tokenizer.kind == "bpe"
    assert 257 < tokenizer.vocab_size < 400
    assert f"vocabulary   {tokenizer.vocab_size} tokens (of 5 000" in result.stdout
    assert "bytes/token" in result.stdout
    assert tokenizer.digest[:12] in result.stdout
    assert "learning a bpe vocabulary from cats.txt" in result.stderr  # progress keeps off stdout


def test_train_as_json_is_one_object(lab: Path) -> None:
    result = run("train", "cats.txt", "--out", "t", "--kind", "char", "--json")
    facts = json.loads(result.stdout)
    assert facts["kind"] == "char"
    assert facts["vocab_size"] == len(set(TEXT))
    assert facts["bytes"] == len(TEXT)
    assert facts["bytes_per_token"] == 1.0
    assert result.stderr == ""


def test_train_learns_from_a_registered_corpus(lab: Path) -> None:
    run("train", "--corpus", "tiny", "--kind", "word", "--out", "t", "--vocab-size", "100")
    assert load(lab / "t").vocab_size == 100


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "t"], "name either files or --corpus"),
        (["cats.txt", "--corpus", "tiny", "--out", "t"], "name either files or --corpus"),
        (["absent.txt", "--out", "t"], "cannot read 'absent.txt'"),
        ([".", "--out", "t"], "'.' is a folder"),
        (["binary", "--out", "t"], "'binary' is not UTF-8 text"),
        (["empty", "--out", "t"], "there is no text"),
        (["cats.txt", "--out", "t", "--kind", "bppe"], "unknown kind of tokenizer 'bppe'"),
        (["cats.txt", "--out", "t", "--vocab-size", "9"], "vocab_size = 9: too small for bpe"),
        (["--corpus", "tinny", "--out", "t"], "unknown corpus 'tinny'"),
    ],
)
def test_train_refuses_and_writes_nothing(lab: Path, arguments: list[str], said: str) -> None:
    (lab / "binary").write_bytes(b"\xff\x00\xfe")
    (lab / "empty").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run("train", *arguments)
    assert said in caught.value.title
    assert not (lab / "t").exists()


def test_a_tokenizer_is_replaced_only_by_force(lab: Path) -> None:
    """Runs may depend on it."""
    run("train", "cats.txt", "--out", "t")
    before = (lab / "t" / "tokenizer.json").read_bytes()
    with pytest.raises(InputError, match="'t' already holds a tokenizer"):
        run("train", "cats.txt", "--out", "t", "--kind", "char")
    assert (lab / "t" / "tokenizer.json").read_bytes() == before
    run("train", "cats.txt", "--out", "t", "--kind", "char", "--force")
    assert load(lab / "t").kind == "char"


def test_encode_prints_ids_and_decode_gives_the_bytes_back(lab: Path) -> None:
    assert run("encode", "-t", "gpt2", "Hello world").stdout == "15496 995\n"
    assert run("decode", "-t", "gpt2", "15496", "995").stdout == "Hello world"
    assert run("decode", "-t", "gpt2", stdin="[15496,\n995]").stdout == "Hello world"
    text = "tab\tbell\x07 é\r\n"
    ids = run("encode", "-t", "bytes", stdin=text.encode()).stdout
    assert run("decode", "-t", "bytes", stdin=ids).stdout_bytes == text.encode()


def test_encode_reads_a_file(lab: Path) -> None:
    run("train", "cats.txt", "--out", "t")
    ids = run("encode", "-t", "t", "--file", "cats.txt").stdout.split()
    assert load(lab / "t").decode([int(word) for word in ids]) == TEXT


def test_encode_shows_tokens_one_a_line_when_piped(lab: Path) -> None:
    """Characters that a terminal obeys are glyphs there, in the ids they are counted as usual."""
    result = run("encode", "-t", "bytes", "--tokens", "a\x1b\n")
    assert result.stdout == "97\ta\n27\t␛\n10\t␊\n"


def test_encode_as_json(lab: Path) -> None:
    facts = json.loads(run("encode", "-t", "gpt2", "--json", "--tokens", "Hello world").stdout)
    expected = {"kind": "gpt2", "bytes": 11, "tokens": 2, "ids": [15496, 995]}
    assert facts == expected | {"texts": ["Hello", " world"]}


def test_a_run_lends_its_tokenizer(lab: Path) -> None:
    BpeTokenizer([(104, 105)]).save(lab / "checkpoints" / "first" / "tokenizer")
    assert run("encode", "-t", "first", "hi!").stdout == "256 33\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["encode", "-t", "bpe", "x"], "a bpe tokenizer has to be trained first"),
        (["encode", "-t", "nowhere", "x"], "no tokenizer called 'nowhere'"),
        (["encode", "-t", "bytes", "--file", "absent"], "cannot read 'absent'"),
        (["encode", "-t", "bytes", "x", "--file", "cats.txt"], "not both"),
        (["decode", "-t", "bytes", "300"], "token 300 is not in the vocabulary"),
        (["decode", "-t", "bytes", "six"], "'six' is not a token id"),
        (["decode", "-t", "bytes", "9" * 5000], "is not a token id"),
        (["show", "nowhere"], "no tokenizer called 'nowhere'"),
    ],
)
def test_bad_input_is_one_clear_error(lab: Path, arguments: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        run(*arguments)
    assert said in caught.value.title
    assert caught.value.exit_code == 2


def test_an_unknown_character_is_named(lab: Path) -> None:
    run("train", "cats.txt", "--out", "t", "--kind", "char")
    with pytest.raises(TokenizerError, match="character 'Z'"):
        run("encode", "-t", "t", "Zebra")


def test_stdin_that_is_not_text_is_refused(lab: Path) -> None:
    with pytest.raises(InputError, match=r"stdin is not UTF-8 text \(byte 1\)"):
        run("encode", "-t", "bytes", stdin=b"a\xff")


def test_show_lists_what_was_learned(lab: Path) -> None:
    run("train", "cats.txt", "--out", "t", "--vocab-size", "265")
    output = run("show", "t", "--limit", "3").stdout
    tokenizer = load(lab / "t")
    assert tokenizer.digest in output
    assert "<|endoftext|> = 264" in output
    assert f"256\t'{tokenizer.token_text(256)}'\t{len(tokenizer.token_bytes(256))}" in output
    facts = json.loads(run("show", "t", "--json", "--limit", "2").stdout)
    assert facts["first"][0] == [256, tokenizer.token_text(256)]
    longest = max(range(265), key=lambda token: len(tokenizer.token_bytes(token)))
    assert facts["longest"][0][0] == longest


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom tui_lab.cli import app\n"
        "try:\n    app(['tokenizer', 'train', '--help'])\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'numpy', 'tiktoken'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
