"""`tui-lab corpus …` as a person and a script meet it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from engine.corpora import find_corpus
from engine.lab import Lab


def corpus(lab: Lab, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in its own process, piped."""
    command = [sys.executable, "-m", "tui_lab", "--lab", str(lab.root), "corpus", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def rows(done: subprocess.CompletedProcess[str]) -> list[dict]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def on_terminal(lab: Lab, *arguments: str) -> str:
    """What the command writes to a pseudo-terminal of 80×24."""
    main, terminal = pty.openpty()
    command = [sys.executable, "-m", "tui_lab", "--lab", str(lab.root), "corpus", *arguments]
    environment = os.environ | {"COLUMNS": "80", "LINES": "24", "TERM": "xterm-256color"}
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    written = b""
    try:
        while block := os.read(main, 65536):
            written += block
    except OSError:  # the other side has gone
        pass
    os.close(main)
    assert process.wait(60) == 0, written.decode()
    return written.decode()


def test_list_piped_is_tab_separated_and_plain(small_lab: Lab) -> None:
    done = corpus(small_lab, "list")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0] == ["corpus", "text", "size", "licence", "title"]
    states = {line[0]: line[1] for line in lines[1:]}
    assert states["small"] == "here"
    assert states["python-docs"] == "here"
    assert states["tinyshakespeare"] == "to fetch"


def test_list_as_json(small_lab: Lab) -> None:
    listed = {row["name"]: row for row in rows(corpus(small_lab, "list", "--json"))}
    assert listed["small"]["own"] is True
    assert listed["verdict"]["available"] is False
    assert len(listed["verdict"]["sha256"]) == 64


def test_add_show_prepare_remove(small_lab: Lab, tmp_path: Path) -> None:
    """The whole way of a corpus of one's own."""
    source = tmp_path / "notes.jsonl"
    source.write_text('{"body": "a note on cats"}\n{"body": "another note on cats"}\n')
    done = corpus(small_lab, "add", "notes", str(source), "--field", "body", "--licence", "CC0-1.0")
    assert done.returncode == 0, done.stderr
    assert "--corpus notes" in done.stdout

    (shown,) = rows(corpus(small_lab, "show", "notes", "--tokenizer", "bytes", "--json"))
    assert shown["licence"] == "CC0-1.0"
    assert shown["statistics"]["documents"] == 2
    assert shown["statistics"]["tokens"] == shown["statistics"]["bytes"] + 1

    (made,) = rows(corpus(small_lab, "prepare", "notes", "--tokenizer", "char", "--json"))
    assert made["tokens"] == made["bytes"] == len("a note on cats\nanother note on cats")
    assert Path(made["path"], "manifest.json").is_file()
    shard = Path(made["path"], "shard-00000.bin")
    good = shard.read_bytes()
    shard.write_bytes(bytes(len(good)))
    check = ("prepare", "notes", "--tokenizer", "char", "--check", "--json")
    assert [row["path"] for row in rows(corpus(small_lab, *check))] == [made["path"]]
    assert shard.read_bytes() == good

    assert corpus(small_lab, "remove", "notes").returncode == 0
    assert source.exists()
    assert not Path(made["path"]).exists()


def test_tokens_as_the_model_sees_them(small_lab: Lab) -> None:
    start = ("--tokenizer", "bytes", "--start", "1", "--tokens", "3")
    text = find_corpus(small_lab, "small").path.read_text()
    shown = rows(corpus(small_lab, "show", "small", *start, "--json"))
    assert shown == [{"token": ord(c), "text": c} for c in text[1:4]]
    piped = corpus(small_lab, "show", "small", *start).stdout
    assert piped == "".join(f"{ord(c)}\t{c}\n" for c in text[1:4])


def test_prepare_piped_says_what_it_made(small_lab: Lab) -> None:
    done = corpus(small_lab, "prepare", "small", "--vocab-size", "300")
    assert done.returncode == 0, done.stderr
    assert re.match(r"small: [\d ]+ tokens, \d\.\d\d bytes each, 1 documents", done.stdout)
    assert "\x1b" not in done.stdout + done.stderr


def test_on_a_terminal_it_is_drawn_with_a_bar_and_boundaries(small_lab: Lab) -> None:
    assert "%" in on_terminal(small_lab, "prepare", "small", "--vocab-size", "300")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_terminal(small_lab, "show", "small"))
    assert re.search(r"documents +1", shown)
    assert max(map(len, shown.splitlines())) <= 80
    cut = on_terminal(small_lab, "show", "small", "--tokens", "30", "--vocab-size", "300")
    assert cut.count("│") == 30


def test_text_that_would_steer_the_terminal_is_made_visible(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "hostile.txt"
    source.write_text("before \x1b]52;c;eA==\x07\x1b[2J after \u202e")
    assert corpus(lab, "add", "hostile", str(source), "--title", "\x1b[31mred").returncode == 0
    for arguments in (["list"], ["show", "hostile"], ["show", "hostile", "--tokens", "9"]):
        written = on_terminal(lab, *arguments)
        assert "\x1b]52" not in written
        assert "\x1b[2J" not in written
        assert "\x1b[31mred" not in written
        assert "\u202e" not in written


@pytest.mark.parametrize(
    ("arguments", "title", "hint"),
    [
        (["show", "python-doc"], "unknown corpus 'python-doc'", "python-docs"),
        (["fetch", "wikitext-2"], "has no address", "--from FILE"),
        (["prepare", "verdict"], "not here yet", "tui-lab corpus fetch verdict"),
        (["add", "x", "/nothing/there"], "is not there", "a file or a folder"),
        (["add", "x", sys.executable], "binary", "UTF-8 text"),
        (["remove", "tiny"], "was not added", ""),
        (["show", "tiny", "--tokens", "1", "--start", "99999999"], "has no token", "it has"),
    ],
)
def test_bad_input_is_one_clear_line(lab: Lab, arguments: list[str], title: str, hint: str) -> None:
    done = corpus(lab, *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert title in done.stderr.splitlines()[0]
    assert hint in done.stderr
    assert "Traceback" not in done.stderr


def test_fetch_from_a_copy_at_hand(lab: Lab, tmp_path: Path) -> None:
    import hashlib

    copy = tmp_path / "copy.txt"
    copy.write_text("at hand\n")
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    (lab.corpus / "registry.toml").write_text(f'[it]\nsha256 = "{digest}"\n')
    done = corpus(lab, "fetch", "it", "--from", str(copy))
    assert done.returncode == 0, done.stderr
    assert (lab.corpus / "it.txt").read_text() == "at hand\n"


def test_torch_stays_out(lab: Lab) -> None:
    """Preparing a corpus must not wait for torch, nor need it."""
    script = (
        "import sys; sys.argv = ['tui-lab', '--lab', sys.argv[1], 'corpus', 'prepare', 'tiny'];"
        "from tui_lab.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(lab.root)], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False False"
