"""Tokenizers that are read: we give the ids of the folder, and refuse what is hostile by name."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from typer.testing import CliRunner

from engine.errors import TokenizerError
from engine.exchange.tokenizer_document import document_of
from engine.exchange.tokenizers import read_tokenizer, write_tokenizer
from engine.exchange.vocabulary import TokenType, bpe_vocabulary
from engine.generation.generate import encode_prompt
from engine.tokenizers import HfTokenizer, StreamDecoder, Tokenizer, build, load
from tests.engine.exchange.tokenizer_samples import (
    HARD,
    PROSE,
    QUICK,
    TEXTS,
    THEIRS,
    reference_ids,
)
from tui_lab.cli import app


@pytest.mark.parametrize("name", THEIRS)
def test_a_folder_that_is_read_gives_their_ids(
    name: str, read: dict[str, tuple[Tokenizer, Any, Path]]
) -> None:
    tokenizer, reference, _ = read[name]
    assert tokenizer.kind == "hf"
    assert tokenizer.vocab_size == len(reference)
    assert tokenizer.eot_id == reference.eos_token_id
    for text in (PROSE, *HARD):
        assert tokenizer.encode(text) == reference_ids(reference, text)


@pytest.mark.parametrize("name", THEIRS)
@given(text=TEXTS)
@QUICK
def test_any_text_gives_their_ids_their_text_and_exact_bytes(
    name: str, read: dict[str, tuple[Tokenizer, Any, Path]], text: str
) -> None:
    """The sum of the byte lengths is what bits per byte divides by."""
    tokenizer, reference, _ = read[name]
    ids = tokenizer.encode(text)
    assert ids == reference_ids(reference, text)
    assert tokenizer.eot_id not in ids
    if "▁" in text:
        return  # cannot be told from a space
    whole = normalizers.NFC().normalize_str(text) if name == "qwen" else text
    prefixed = name == "llama2" and bool(text)
    prefixed |= name == "mistral" and bool(text) and not text.startswith(" ")
    lengths = tokenizer.byte_lengths()
    assert int(lengths[ids].sum()) == len(whole.encode()) + prefixed
    assert tokenizer.decode_continuation(ids) == " " * prefixed + whole
    if prefixed or not whole.startswith(" ") or tokenizer.reading.byte_level:
        assert tokenizer.decode(ids) == whole
    decoder = StreamDecoder(tokenizer)
    streamed = "".join([decoder.push(token) for token in ids]) + decoder.flush()
    assert streamed == tokenizer.decode_continuation(ids)


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen"])
@given(text=TEXTS, at=st.integers(0, 40))
@QUICK
def test_a_safe_cut_changes_no_ids(
    name: str, read: dict[str, tuple[Tokenizer, Any, Path]], text: str, at: int
) -> None:
    tokenizer = read[name][0]
    text = f"{text}word {text}"
    cut = tokenizer.safe_cut(text, min(at, len(text)))
    parts = tokenizer.encode(text[:cut]) + tokenizer.encode(text[cut:])
    assert parts == tokenizer.encode(text)


def test_long_texts_have_safe_cuts(read: dict[str, tuple[Tokenizer, Any, Path]]) -> None:
    """A corpus is encoded in parts; SentencePiece's space before a text leaves no cut."""
    assert read["llama3"][0].safe_cut(PROSE, 30_000) > 29_000
    assert read["llama2"][0].safe_cut(PROSE, 30_000) == 0


@pytest.mark.parametrize("name", THEIRS)
def test_special_and_added_tokens(name: str, read: dict[str, tuple[Tokenizer, Any, Path]]) -> None:
    tokenizer, reference, _ = read[name]
    assert tokenizer.token_text(tokenizer.eot_id) == "</s>"
    assert tokenizer.byte_lengths()[tokenizer.eot_id] == 0
    if "<|tool|>" in (added := reference.get_added_vocab()):
        assert tokenizer.encode("a<|tool|>b")[1] == added["<|tool|>"]
        assert tokenizer.token_bytes(added["<|tool|>"]) == b"<|tool|>"


def test_a_prompt_begins_as_the_file_says_and_a_corpus_does_not(tmp_path: Path) -> None:
    """Llama was never trained on a text without `<s>`; Qwen on none with one."""
    for name, before in (("llama2", ["<s>"]), ("qwen", [])):
        theirs = THEIRS[name]()
        if before:
            theirs.post_processor = processors.TemplateProcessing(
                "<s> $A", special_tokens=[("<s>", theirs.token_to_id("<s>"))]
            )
        directory = tmp_path / name
        PreTrainedTokenizerFast(tokenizer_object=theirs, eos_token="</s>").save_pretrained(
            directory
        )
        tokenizer = read_tokenizer(directory)
        plain, prompt = tokenizer.encode("some words"), encode_prompt(tokenizer, "some words")
        assert [tokenizer.token_text(token) for token in tokenizer.beginning] == before
        assert prompt == [*tokenizer.beginning, *plain]
        assert prompt == AutoTokenizer.from_pretrained(directory)("some words")["input_ids"]


@pytest.mark.parametrize("name", THEIRS)
def test_a_run_keeps_what_was_read(
    name: str, read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    """Saved in the run's folder, loaded, sent to another process, and written out again."""
    tokenizer = read[name][0]
    tokenizer.save(tmp_path / "run")
    loaded = load(tmp_path / "run", follow=False)
    assert (loaded.kind, loaded.digest) == ("hf", tokenizer.digest)
    ids = tokenizer.encode(HARD[3])
    assert loaded.encode(HARD[3]) == pickle.loads(pickle.dumps(tokenizer)).encode(HARD[3]) == ids
    write_tokenizer(loaded, tmp_path / "out")
    out = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert reference_ids(out, HARD[3]) == ids
    assert out.eos_token_id == tokenizer.eot_id
    assert read_tokenizer(tmp_path / "out").encode(HARD[3]) == ids


def old_folder(tokenizer: Tokenizer, directory: Path) -> Path:
    """vocab.json and merges.txt alone."""
    vocabulary = bpe_vocabulary(tokenizer)
    vocab = {token: i for i, token in enumerate(vocabulary.tokens)}
    (directory / "vocab.json").write_text(json.dumps(vocab))
    merges = directory / "merges.txt"
    merges.write_text("\n".join(["#version: 0.2", *vocabulary.merges, ""]))
    return merges


def test_gpt2_as_it_was_published_is_our_gpt2(ours: dict[str, Tokenizer], tmp_path: Path) -> None:
    old_folder(ours["gpt2"], tmp_path)
    assert read_tokenizer(tmp_path).digest == ours["gpt2"].digest


def test_a_folder_of_2019_is_read(
    read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    """A table longer than the vocabulary gives ids that no text has."""
    tokenizer, reference, _ = read["gpt2"]
    merges = old_folder(tokenizer, tmp_path)
    (tmp_path / "config.json").write_text('{"vocab_size": 710, "eos_token_id": 1}')
    again = read_tokenizer(tmp_path)
    assert (again.kind, again.vocab_size, again.eot_id) == ("hf", 710, 1)
    assert again.encode(PROSE) == reference_ids(reference, PROSE)
    assert again.decode([709]) == ""
    assert bpe_vocabulary(again).types[701:] == (TokenType.UNUSED,) * 9
    (tmp_path / "config.json").write_text('{"vocab_size": 400}')
    with pytest.raises(TokenizerError, match="vocab_size is 400"):
        read_tokenizer(tmp_path)
    merges.write_text("#version: 0.2\nĠ t\nĠ zzzz\n")
    with pytest.raises(TokenizerError, match=r"merges\.txt: merge 1"):
        read_tokenizer(tmp_path)


def test_the_end_of_text_is_the_models(
    read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    write_tokenizer(read["gpt2"][0], tmp_path)
    for name, value, end in (
        ("config.json", 1, 1),
        ("config.json", [0, 1], 0),
        ("generation_config.json", 1, 1),
    ):
        (tmp_path / name).write_text(json.dumps({"eos_token_id": value}))
        assert read_tokenizer(tmp_path).eot_id == end
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 99999}')
    with pytest.raises(TokenizerError, match="field 'eos_token_id' is '99999'"):
        read_tokenizer(tmp_path)


def test_the_package_is_named_where_it_is_absent(
    read: dict[str, tuple[Tokenizer, Any, Path]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    read["gpt2"][0].save(tmp_path)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    tokenizer = load(tmp_path)
    assert tokenizer.decode([300]) == read["gpt2"][0].decode([300])
    with pytest.raises(TokenizerError, match=r"tui-lab\[hf\]"):
        tokenizer.encode("text")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("model", 3, "field 'model' is not an object"),
        ("model.type", "WordPiece", "field 'model.type' is 'WordPiece'"),
        ("model.type", "Unigram", "field 'model.type' is 'Unigram'"),
        ("model.vocab", {}, "field 'model.vocab' is not an object with tokens"),
        ("model.vocab", {"a": 1}, "has no token '.*' for the byte 0"),
        ("model.vocab", {"a": -1}, "an id that is no whole number"),
        ("model.vocab", {"a": 1 << 40}, "an id that is no whole number"),
        ("model.vocab", {"a": 1, "b": 1}, "an id twice"),
        ("model.vocab", {"\ud800": 1}, "surrogate"),
        ("model.dropout", 0.1, "field 'model.dropout' is 0.1"),
        ("model.end_of_word_suffix", "</w>", "field 'model.end_of_word_suffix'"),
        ("model.merges", [["Ġ", "zzzz"]], "refuses it"),
        ("normalizer", {"type": "Lowercase"}, "field 'normalizer' has the step 'Lowercase'"),
        ("normalizer", {"type": "Sequence", "normalizers": 1}, "'normalizer.normalizers'"),
        ("pre_tokenizer", {"type": "ByteLevel", "add_prefix_space": True}, "adds a space"),
        ("pre_tokenizer", {"type": "Whitespace"}, "byte_fallback"),
        ("pre_tokenizer", [], "a step without a type"),
        ("decoder", {"type": "WordPiece"}, "field 'decoder' has the step 'WordPiece'"),
        ("added_tokens", 5, "field 'added_tokens' is not a list"),
        ("added_tokens", [{"content": "x", "id": "1"}], "entry 0: 'id'"),
        ("added_tokens", [{"content": "x", "id": 1, "lstrip": True}], "'lstrip'"),
        ("added_tokens", [{"content": "x", "id": 1 << 50}], "entry 0: 'id'"),
    ],
)
def test_hostile_fields_are_refused_by_name(
    path: str, value: Any, said: str, ours: dict[str, Tokenizer], tmp_path: Path
) -> None:
    document = json.loads(json.dumps(document_of(ours["bpe"])))
    *above, last = path.split(".")
    node = document
    for name in above:
        node = node[name]
    node[last] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(TokenizerError, match=said) as caught:
        read_tokenizer(tmp_path)
    assert str(tmp_path / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_hostile_file_is_refused_by_name(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: {said}"):
        read_tokenizer(tmp_path)


def test_an_endless_file_and_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"nor vocab\.json"):
        read_tokenizer(tmp_path)
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(TokenizerError, match="more than"):
        read_tokenizer(tmp_path)


def test_code_that_a_folder_names_is_not_looked_at(
    read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    tokenizer = read["gpt2"][0]
    write_tokenizer(tokenizer, tmp_path)
    settings_path = tmp_path / "tokenizer_config.json"
    evil = json.loads(settings_path.read_text()) | {
        "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}
    }
    settings_path.write_text(json.dumps(evil))
    (tmp_path / "evil.py").write_text("raise SystemExit('run')")
    assert read_tokenizer(tmp_path).digest == tokenizer.digest


def test_the_folder_itself_is_no_tokenizer_of_ours(
    read: dict[str, tuple[Tokenizer, Any, Path]],
) -> None:
    """Both files are called tokenizer.json: who mixes them up is told what to do."""
    with pytest.raises(TokenizerError, match="checkpoints import"):
        load(read["gpt2"][2])


@pytest.mark.parametrize("name", ["llama3", "llama2"])
def test_the_command_line_works_on_what_was_read(
    name: str, read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    tokenizer = read[name][0]
    tokenizer.save(tmp_path)
    run, where = CliRunner().invoke, str(tmp_path)
    shown = run(app, ["tokenizer", "show", where, "--json"])
    assert json.loads(shown.stdout)["digest"] == tokenizer.digest
    encoded = run(app, ["tokenizer", "encode", "-t", where, "naïve café"])
    assert encoded.stdout.split() == [str(token) for token in tokenizer.encode("naïve café")]
    decoded = run(app, ["tokenizer", "decode", "-t", where, *encoded.stdout.split()])
    assert decoded.stdout == "naïve café"


def test_a_changed_file_beside_is_refused(
    read: dict[str, tuple[Tokenizer, Any, Path]], tmp_path: Path
) -> None:
    read["gpt2"][0].save(tmp_path)
    beside = tmp_path / "hf_tokenizer.json"
    beside.write_bytes(beside.read_bytes().replace(b"</s>", b"</t>"))
    with pytest.raises(TokenizerError, match="field 'hf_sha256'"):
        load(tmp_path)


def test_arrays_hold_their_ids_in_the_shards_type(
    read: dict[str, tuple[Tokenizer, Any, Path]],
) -> None:
    tokenizer = read["llama3"][0]
    assert isinstance(tokenizer, HfTokenizer)
    array = tokenizer.encode_array(PROSE[:100])
    assert array.dtype == np.uint16
    assert array.flags.writeable


def test_the_kind_of_an_imported_model_is_not_built() -> None:
    with pytest.raises(TokenizerError, match="comes with an imported model"):
        build("hf", lambda: [PROSE], 500)
