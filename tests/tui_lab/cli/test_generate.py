"""`tui-lab generate` on a really saved run: what goes to stdout, to files, to a terminal."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.errors import InputError
from engine.generation.params import SamplingParams
from engine.lab import Lab
from tests.tiny_run import CONTEXT, make_tiny_run
from tui_lab.cli import app
from tui_lab.cli.talk import command, talk, with_setting

ARGUMENTS = ["--device", "cpu", "--seed", "5", "-n", "12"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    return make_tiny_run(tmp_path_factory.mktemp("lab"))[0]


def run(lab: Lab, *arguments: str, text: str | bytes | None = None):
    """The command in this process. EngineErrors come out as they go to `__main__`."""
    runner = CliRunner()
    command_line = ["--lab", str(lab.root), "generate", *ARGUMENTS, *arguments]
    result = runner.invoke(app, command_line, input=text)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_piped_output_is_the_continuation_alone(lab: Lab) -> None:
    """`tui-lab generate … > file` must hold no colour, no banner and no prompt."""
    result = run(lab, "tiny", "--prompt", "the ")
    assert result.exit_code == 0
    assert result.stdout.endswith("\n")
    assert len(result.stdout.rstrip("\n")) in (11, 12)
    assert "\x1b" not in result.stdout
    assert run(lab, "tiny", "--prompt", "the ").stdout == result.stdout  # the seed holds
    echoed = run(lab, "tiny", "--prompt", "the ", "--echo").stdout
    assert echoed == "the " + result.stdout


def test_prompt_file_and_pipe_say_the_same(lab: Lab, tmp_path: Path) -> None:
    """One final newline, which every editor and `echo` adds, is not part of the prompt."""
    file = tmp_path / "prompt.txt"
    file.write_text("the cat\n")
    expected = run(lab, "tiny", "-p", "the cat").stdout
    assert run(lab, "tiny", "--file", str(file)).stdout == expected
    assert run(lab, "tiny", text="the cat\n").stdout == expected


def test_json_has_every_token_with_its_probability(lab: Lab) -> None:
    lines = run(lab, "tiny@20", "-p", "the", "--json", "--count", "2").stdout.splitlines()
    first, second = map(json.loads, lines)
    assert (first["run"], first["step"], first["prompt"]) == ("tiny", 20, "the")
    assert (first["seed"], second["seed"]) == (5, 6)
    assert first["text"] == "".join(token["text"] for token in first["tokens"])
    assert len(first["tokens"]) == 12
    assert all(0 < token["probability"] <= 1 for token in first["tokens"])
    assert first["reason"] == "length"
    plain = run(lab, "tiny@20", "-p", "the", "--count", "2").stdout
    assert [text.rstrip("\n") for text in plain.split("---\n")] == [
        first["text"].rstrip("\n"),
        second["text"].rstrip("\n"),
    ]


def test_without_a_reference_the_newest_run_answers(lab: Lab) -> None:
    result = run(lab, "-p", "the")
    assert "tiny, step 30" in result.stderr
    assert result.stdout == run(lab, "tiny", "-p", "the").stdout


def test_stop_strings_end_the_text_before_them(lab: Lab) -> None:
    whole = run(lab, "tiny", "-p", "the").stdout
    stop = whole[4:6]
    assert run(lab, "tiny", "-p", "the", "--stop", stop).stdout.strip("\n") == (
        whole[: whole.index(stop)].rstrip("\n")
    )


def test_out_writes_the_whole_text_or_nothing(lab: Lab, tmp_path: Path) -> None:
    out = tmp_path / "sample.txt"
    result = run(lab, "tiny", "-p", "the", "--out", str(out))
    assert result.stdout == ""
    assert out.read_text().rstrip("\n") == run(lab, "tiny", "-p", "the").stdout.rstrip("\n")
    assert [path.name for path in tmp_path.iterdir()] == ["sample.txt"]
    with pytest.raises(InputError, match="no directory"):
        run(lab, "tiny", "-p", "the", "--out", str(tmp_path / "absent" / "x"))
    with pytest.raises(InputError, match="is a directory"):
        run(lab, "tiny", "-p", "the", "--out", str(tmp_path))


def test_out_replaces_no_file_unasked(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    """Neither one that was there nor one that somebody makes meanwhile; as --all and export do."""
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    with pytest.raises(InputError, match="already") as caught:
        run(lab, "tiny", "-p", "the", "--out", str(out))
    assert "--overwrite" in caught.value.hint
    monkeypatch.setattr("tui_lab.cli.generate.check_out", lambda *_: None)
    with pytest.raises(InputError, match="already"):
        run(lab, "tiny", "-p", "the", "--out", str(out))
    assert out.read_text() == "mine"
    run(lab, "tiny", "-p", "the", "--out", str(out), "--overwrite")
    assert out.read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_prompt_longer_than_the_context_names_both_numbers(lab: Lab) -> None:
    prompt = "the cat sat on the mat"
    with pytest.raises(InputError, match=f"{len(prompt)} tokens.*{CONTEXT}"):
        run(lab, "tiny", "-p", prompt)
    result = run(lab, "tiny", "-p", prompt, "--crop")
    assert f"oldest {len(prompt) - CONTEXT} of {len(prompt)}" in result.stderr
    assert result.stdout == run(lab, "tiny", "-p", prompt[-CONTEXT:]).stdout


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["tiny", "-p", "a", "--file", "x"], None, "both"),
        (["tiny", "--file", "absent.txt"], None, "absent.txt"),
        (["tiny"], b"\xff\xfe", "not UTF-8"),
        (["tiny", "-p", "a", "--temperature", "9"], None, "temperature = 9"),
        (["tiny", "-p", "a", "--top-p", "0"], None, "top_p = 0"),
        (["tiny@99", "-p", "a"], None, "no step 99"),
        (["absent", "-p", "a"], None, "absent"),
        (["tiny", "-p", "a", "--device", "gpu"], None, "gpu"),
    ],
)
def test_bad_input_is_one_clear_error(lab: Lab, arguments, text, words) -> None:
    with pytest.raises(InputError, match=words) as caught:
        run(lab, *arguments, text=text)
    assert "\n" not in caught.value.title


def test_hostile_samples_cannot_steer_the_terminal(tmp_path: Path) -> None:
    """A model of bytes that has learnt nothing draws control bytes: glyphs, piped as well."""
    lab = make_tiny_run(tmp_path, data__tokenizer="bytes", train__max_steps=1, train__eval_every=0)[
        0
    ]
    output = run(lab, "tiny", "-p", "a", "-n", "99", "--count", "9").stdout
    assert any("\u2400" <= c <= "\u2421" for c in output)  # control bytes were drawn
    assert not any((ord(c) < 32 and c not in "\n\t") or 0x7F <= ord(c) < 0xA0 for c in output)


def test_ctrl_c_exits_130_and_writes_no_file(lab: Lab, tmp_path: Path, monkeypatch) -> None:
    from engine.generation.load import Generator

    whole = Generator.stream

    def interrupted(self, *arguments, **options):
        for token in whole(self, *arguments, **options):
            if token.index == 3:
                raise KeyboardInterrupt
            yield token

    monkeypatch.setattr(Generator, "stream", interrupted)
    result = run(lab, "tiny", "-p", "the")
    assert result.exit_code == 130
    assert len(result.stdout) == 3
    result = run(lab, "tiny", "-p", "the", "--out", str(tmp_path / "x.txt"))
    assert result.exit_code == 130
    assert "nothing was written" in result.stderr
    assert not list(tmp_path.iterdir())


# The process ------------------------------------------------------------------------------------


def test_the_whole_command_in_a_terminal_talks_colours_and_leaves(lab: Lab) -> None:
    """A real process on a real pseudo-terminal: prompt, coloured answer, command, ctrl-d."""
    parent, child = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "tui_lab", "--lab", str(lab.root), "generate", *ARGUMENTS],
        stdin=child,
        stdout=child,
        stderr=child,
        env=environment,
        close_fds=True,
    )
    os.close(child)
    waiting = b""

    def until(mark: str) -> bytes:
        """What came up to and with `mark`."""
        nonlocal waiting
        while mark.encode() not in waiting:
            waiting += os.read(parent, 65536)
        before, _, waiting = waiting.partition(mark.encode())
        return before

    try:
        until("› ")
        os.write(parent, b"the cat\n")
        seen = until("length]")
        until("› ")
        assert b"\x1b[1mthe cat" in seen
        assert any(code in seen for code in (b"\x1b[31m", b"\x1b[35m", b"\x1b[33m", b"\x1b[36m"))
        os.write(parent, b"the \xe2\x98\x83\n")
        until("error: ")  # a character that the tokenizer lacks: said, and on it goes
        until("› ")
        os.write(parent, b"/set temperature 0\n")
        until("temperature = 0.0")
        until("› ")
        os.write(parent, b"\x04")
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def test_an_error_is_a_line_and_a_hint_and_exit_code_2(lab: Lab) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tui_lab", "--lab", str(lab.root), "generate", "tinny", "-p", "a"],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert "unknown run 'tinny'" in result.stderr
    assert "did you mean 'tiny'?" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["generate", "evaluate"])
def test_help_does_not_import_torch(name: str) -> None:
    code = (
        "import sys; from tui_lab.cli import app\n"
        f"try: app(['{name}', '--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Usage" in result.stdout


# The conversation -------------------------------------------------------------------------------


def test_settings_are_changed_by_words() -> None:
    params = SamplingParams()
    assert with_setting(params, "temperature", "0.5").temperature == 0.5
    assert with_setting(params, "top_k", "7").top_k == 7
    assert with_setting(params, "seed", "3").seed == 3
    assert with_setting(with_setting(params, "seed", "3"), "seed", "none").seed is None
    assert with_setting(params, "stop", "\\n").stop == ("\n",)
    for name, value in (("temperature", "hot"), ("top_k", "1.5"), ("temprature", "1")):
        with pytest.raises(InputError, match=name):
            with_setting(params, name, value)


def test_commands_that_are_none_name_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        command("/hlep", SamplingParams())
    assert "help" in caught.value.hint
    with pytest.raises(InputError):
        command("/", SamplingParams())
    with pytest.raises(InputError, match="needs a name and a value"):
        command("/set temperature", SamplingParams())


def test_ctrl_c_ends_the_sample_and_not_the_conversation(lab: Lab, capsys) -> None:
    from engine.generation.load import load_generator

    generator = load_generator(lab, "tiny", "cpu")
    whole = generator.model.features
    calls = 0

    def interrupted(*arguments):
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt
        return whole(*arguments)

    generator.model.features = interrupted
    lines = iter(["the", "/again"])

    def ask(_: str) -> str:
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    talk(generator, SamplingParams(max_tokens=5, seed=1), compile="never", ask=ask)
    said = capsys.readouterr().err
    assert "[2 tokens" in said
    assert "cancelled]" in said
    assert "[5 tokens" in said
    assert not generator.model.training


def test_the_cli_and_the_console_colour_alike() -> None:
    from tui_lab.cli.paint import LEVELS, colour
    from tui_lab.widgets import colouring

    assert tuple(least for least, _ in LEVELS[:-1]) == colouring.LEVELS
    assert tuple(name for _, name in LEVELS) == colouring._ANSI
    for probability in (1.0, 0.7, 0.69, 0.1, 0.0, float("nan")):
        assert colour(probability) == colouring._ANSI[colouring.level(probability)]
