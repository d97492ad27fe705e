"""Fetching, against a real server in this process: only the stated content gets into the lab."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.corpora import documents, fetch
from engine.errors import CorpusError
from engine.lab import Lab

TEXT = b"A text that is served.\n" * 40_000
SHA256 = hashlib.sha256(TEXT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    stall = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404, "Not Found")
            return
        body = TEXT.replace(b"served", b"forged") if self.path == "/forged" else TEXT
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/stalled":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.stall.wait(10)
        self.wfile.write(body[:5000] if self.path == "/torn" else body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.handle_error = lambda *_: None  # a client that hangs up is part of the test
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    _Handler.stall.set()
    server.shutdown()
    server.server_close()


def register(lab: Lab, url: str, sha256: str = SHA256) -> None:
    (lab.corpus / "registry.toml").write_text(f'[it]\nurl = "{url}"\nsha256 = "{sha256}"\n')


def left(lab: Lab) -> list[str]:
    return sorted(path.name for path in lab.corpus.iterdir() if path.name != "registry.toml")


def test_what_is_stated_is_put_in_place(lab: Lab, address: str) -> None:
    register(lab, address + "/text")
    told: list[tuple[str, int, int]] = []
    entry = fetch(lab, "it", progress=lambda *args: told.append(args))
    assert entry.available
    assert entry.path == lab.corpus / "it.txt"
    assert entry.path.read_bytes() == TEXT
    assert "".join(documents(lab, "it")).encode() == TEXT
    assert told[-1] == ("downloading", len(TEXT), len(TEXT))
    assert left(lab) == ["it.txt"]


def test_what_is_here_is_not_fetched_again(lab: Lab) -> None:
    register(lab, "http://127.0.0.1:9/nobody")
    (lab.corpus / "it.txt").write_bytes(TEXT)
    assert fetch(lab, "it").available


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/forged", "has SHA-256 .* thrown away"),
        ("/missing", "the server answered 404"),
        ("/torn", "broke off|IncompleteRead"),
        ("/stalled", "timed out"),
    ],
)
def test_anything_else_leaves_nothing_behind(lab: Lab, address: str, path: str, words: str) -> None:
    register(lab, address + path)
    with pytest.raises(CorpusError, match=words) as caught:
        fetch(lab, "it", timeout=0.5)
    assert "--from FILE" in caught.value.hint
    assert left(lab) == []


def test_without_a_network_the_way_out_is_named(lab: Lab) -> None:
    register(lab, "http://127.0.0.1:9/refused")
    with pytest.raises(CorpusError, match="cannot download 'it'") as caught:
        fetch(lab, "it", timeout=0.5)
    assert "tui-lab corpus fetch it --from FILE" in caught.value.hint
    assert left(lab) == []


def test_a_local_file_is_never_opened_through_the_address(lab: Lab) -> None:
    """A registry must not make a fetch read files: only http goes over the wire."""
    register(lab, "file:///etc/hostname")
    with pytest.raises(CorpusError, match="is not http"):
        fetch(lab, "it")


def test_a_copy_at_hand_is_checked_too(lab: Lab, tmp_path: Path) -> None:
    register(lab, "")
    copy = tmp_path / "copy.txt"
    copy.write_bytes(TEXT[:-1])
    with pytest.raises(CorpusError, match="is not the file that 'it' names"):
        fetch(lab, "it", from_file=copy)
    assert left(lab) == []
    copy.write_bytes(TEXT)
    assert fetch(lab, "it", from_file=copy).available
    with pytest.raises(CorpusError, match="cannot read"):
        fetch(lab, "it", from_file=tmp_path / "nothing")


def test_cancelled_half_way(lab: Lab, address: str) -> None:
    register(lab, address + "/text")

    def cancel(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(lab, "it", progress=cancel)
    assert left(lab) == []


def test_what_cannot_be_fetched_says_why(lab: Lab) -> None:
    with pytest.raises(CorpusError, match="needs no fetching"):
        fetch(lab, "python-docs")
    with pytest.raises(CorpusError, match="has no address") as caught:
        fetch(lab, "wikitext-2")
    assert "--from FILE" in caught.value.hint
    register(lab, "http://127.0.0.1:9/x", sha256="")
    with pytest.raises(CorpusError, match="no sha256"):
        fetch(lab, "it")


def test_a_lab_that_cannot_be_written(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.corpus.write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match="cannot write"):
        fetch(lab, "verdict", from_file=tmp_path / "corpus")
