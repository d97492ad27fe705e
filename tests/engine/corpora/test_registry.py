"""Which corpora there are: shipped ones, the lab's own in front of them, and clear refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engine.corpora import add, find_corpus, list_corpora, remove
from engine.errors import CorpusError
from engine.lab import Lab, builtin_dir


def test_an_empty_lab_has_the_shipped_corpora(lab: Lab) -> None:
    """A newcomer has text to train on without a download, and a licence for each."""
    entries = {entry.name: entry for entry in list_corpora(lab)}
    assert {"python-docs", "python-stdlib", "tiny"} <= set(entries)
    assert all(entries[name].available for name in ("python-docs", "python-stdlib", "tiny"))
    assert all(entry.licence and entry.source and not entry.own for entry in entries.values())


def test_entries_to_fetch_state_what_they_must_yield(lab: Lab) -> None:
    """Nothing is fetched on trust: each entry that is not built in has a SHA-256 and a size."""
    for name in ("verdict", "tinyshakespeare", "wikitext-2", "wikitext-2-valid"):
        entry = find_corpus(lab, name)
        assert re.fullmatch(r"[0-9a-f]{64}", entry.sha256)
        assert entry.bytes
        assert not entry.available
    assert find_corpus(lab, "tinyshakespeare").url.startswith("https://")


def test_the_checkout_itself_is_a_lab_whose_corpora_are_not_its_own() -> None:
    entry = find_corpus(Lab(builtin_dir("corpus").parent), "tiny")
    assert entry.available
    assert not entry.own


def test_the_labs_own_entry_wins(lab: Lab) -> None:
    (lab.corpus / "mine.txt").write_text("hello")
    (lab.corpus / "registry.toml").write_text('[tiny]\ntitle = "mine"\nfile = "mine.txt"\n')
    entry = find_corpus(lab, "tiny")
    assert (entry.title, entry.path, entry.own) == ("mine", lab.corpus / "mine.txt", True)
    assert list_corpora(lab)[0] == entry, "the lab's own come first"


def test_paths_of_a_registry_are_read_from_its_folder(lab: Lab) -> None:
    (lab.corpus / "registry.toml").write_text('[mine]\npaths = ["texts"]\n')
    assert not find_corpus(lab, "mine").available
    (lab.corpus / "texts").mkdir()
    assert find_corpus(lab, "mine").paths == (lab.corpus / "texts",)


def test_an_unknown_corpus_names_the_nearest(lab: Lab) -> None:
    with pytest.raises(CorpusError, match="unknown corpus 'python-doc'") as caught:
        find_corpus(lab, "python-doc")
    assert "python-docs" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[mine]\nlicense = 'MIT'\n", "unknown key 'license'"),
        ("[mine]\nkind = 'video'\n", "kind = 'video'"),
        ("[mine]\nkind = 'files'\n", "no paths"),
        ("[mine]\nbytes = 'many'\n", "bytes must be"),
        ("[mine]\nfile = '../../etc/passwd'\n", "plain file name"),
        ("mine = 1\n", "must be a section"),
        ("[mine\n", "not valid TOML"),
    ],
)
def test_a_wrong_registry_is_refused_by_field(lab: Lab, text: str, words: str) -> None:
    (lab.corpus / "registry.toml").write_text(text)
    with pytest.raises(CorpusError, match=re.escape(words)):
        list_corpora(lab)


def test_added_by_reference_and_removed_without_touching_the_files(
    lab: Lab, tmp_path: Path
) -> None:
    """Adding copies nothing, keeps what people wrote, and removing leaves their files alone."""
    (lab.corpus / "registry.toml").write_text("# my notes\n")
    source = tmp_path / "story.txt"
    source.write_text("Once upon a time.\n")
    entry = add(lab, "story", [source], licence="CC0-1.0", source="my attic")
    assert (entry.path, entry.licence, entry.bytes, entry.own) == (source, "CC0-1.0", 18, True)
    assert len(entry.sha256) == 64
    assert find_corpus(lab, "story") == entry
    assert (lab.corpus / "registry.toml").read_text() == "# my notes\n"
    remove(lab, "story")
    assert source.exists()
    with pytest.raises(CorpusError, match="unknown corpus"):
        find_corpus(lab, "story")
    with pytest.raises(CorpusError, match="was not added"):
        remove(lab, "tiny")


def test_a_name_is_taken_once(lab: Lab, tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("one")
    add(lab, "a", [source])
    with pytest.raises(CorpusError, match="already"):
        add(lab, "a", [source])
    assert add(lab, "a", [source], title="again", replace=True).title == "again"
    with pytest.raises(CorpusError, match="already"):
        add(lab, "tiny", [source], replace=True)


@pytest.mark.parametrize("name", ["", "../up", "-dash", ".hidden", "a/b", "a\nb", "x" * 101])
def test_names_that_would_leave_the_folder_are_refused(lab: Lab, tmp_path: Path, name: str) -> None:
    source = tmp_path / "a.txt"
    source.write_text("one")
    with pytest.raises(CorpusError, match="cannot be a corpus's name"):
        add(lab, name, [source])


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "holds no text"), (b"\x7fELF\0\0", "is binary"), (b" \n", "is empty")],
)
def test_what_is_not_text_is_not_added(
    lab: Lab, tmp_path: Path, content: bytes, words: str
) -> None:
    source = tmp_path / "a.bin"
    source.write_bytes(content)
    with pytest.raises(CorpusError, match=words):
        add(lab, "a", [source])
    assert not (lab.corpus / "added.toml").exists(), "nothing half-written"


def test_an_absent_path_and_an_unwritable_lab_are_refused(lab: Lab, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not there"):
        add(lab, "a", [tmp_path / "nothing"])
    source = tmp_path / "a.txt"
    source.write_text("one")
    blocked = Lab(tmp_path / "blocked")
    blocked.root.mkdir()
    blocked.corpus.write_text("a file where the folder should be")
    with pytest.raises(CorpusError, match="cannot write"):
        add(blocked, "a", [source])
