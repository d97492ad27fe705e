"""Tokenizers out and in: `AutoTokenizer` gives our ids, and we give those of the folders we read.

The folders to read are trained here, so that nothing is downloaded.
"""

from __future__ import annotations

import json
import pickle
import re
import sys
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import pytest
import regex
import tokenizers as hf
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode
from typer.testing import CliRunner

from engine.errors import TokenizerError
from engine.exchange.tokenizer_document import document_of
from engine.exchange.tokenizers import read_tokenizer, write_tokenizer
from engine.exchange.vocabulary import TokenType, bpe_vocabulary
from engine.generation.generate import encode_prompt
from engine.tokenizers import BpeTokenizer, HfTokenizer, StreamDecoder, Tokenizer, build, load
from engine.tokenizers.hf_document import LETTERS_END
from engine.tokenizers.split import SPLITS, Split
from tui_lab.cli import app

torch.set_num_threads(1)

OURS = ("bytes", "char", "bpe", "gpt2")
PROSE = "\n\n".join(topics.topics[name] for name in sorted(topics.topics))[:60_000]
EXTRA = "Zürich, naïve café — 東京 😀 \t\r\n’"
LLAMA3 = next(pattern for pattern in LETTERS_END if "{1,3}" in pattern)
HARD = (
    "",
    " ",
    "a\n\n  ",
    "x   \n\n y\n 12345 it's IT'S 'ſ\n\n",
    "one <|endoftext|> two </s> three <|tool|>",
    "  \n \t\r\n\r\nend   ",
    "Zürich — 東京 😀 e\u0301 \x00\x1c\x85\u2028",
)
# Whitespace, digits and specials in runs, among everything that Unicode has.
TEXTS = st.lists(
    st.text(max_size=12)
    | st.sampled_from(
        ["  ", "\n\n", "\r\n", " the", "don't", "'LL", "123", "<|endoftext|>", "</s>"]
    ),
    max_size=8,
).map("".join)
# A character that one table of Unicode has and an older one lacks is a letter to one of them only.
KNOWN = st.characters(exclude_categories=("Cs", "Cn"))
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def ours() -> dict[str, Tokenizer]:
    return {kind: build(kind, lambda: [PROSE, EXTRA], 800) for kind in (*OURS, "word")}


@pytest.fixture(scope="module")
def written(
    ours: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Any]]:
    """The folder of each kind, with a Llama's config.json beside, and what loads from it."""
    made = {}
    for kind in OURS:
        directory = tmp_path_factory.mktemp(kind)
        write_tokenizer(ours[kind], directory)
        facts = {"model_type": "gpt2" if kind == "gpt2" else "llama"}
        (directory / "config.json").write_text(json.dumps(facts))
        made[kind] = directory, AutoTokenizer.from_pretrained(directory)
    return made


def byte_level(normalizer: Any = None, pattern: str = "") -> hf.Tokenizer:
    tokenizer = hf.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(hf.Regex(pattern), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROSE.splitlines(keepends=True), trainer)
    tokenizer.add_tokens([hf.AddedToken("<|tool|>", special=False)])
    return tokenizer


def sentencepiece(legacy: bool) -> hf.Tokenizer:
    """Llama 2's (`legacy`: the space comes from a normalizer), or Mistral's newer form."""
    tokenizer = hf.Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(PROSE.split(" ")[:4000], trainer)
    document = json.loads(tokenizer.to_str())
    # As published: the bytes are pieces of the vocabulary, not special tokens.
    document["added_tokens"] = document["added_tokens"][:3]
    return hf.Tokenizer.from_str(json.dumps(document))


THEIRS = {
    "gpt2": byte_level,
    "llama3": lambda: byte_level(pattern=LLAMA3),
    "qwen": lambda: byte_level(normalizers.NFC(), LLAMA3.replace("{1,3}", "")),
    "llama2": lambda: sentencepiece(legacy=True),
    "mistral": lambda: sentencepiece(legacy=False),
}


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any, Path]]:
    """What we read of each folder, what AutoTokenizer reads, and the folder."""
    made = {}
    for name, train in THEIRS.items():
        directory = tmp_path_factory.mktemp(name)
        fast = PreTrainedTokenizerFast(tokenizer_object=train(), eos_token="</s>")
        fast.save_pretrained(directory)
        reference = AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
        made[name] = read_tokenizer(directory), reference, directory
    return made


def reference_ids(reference: Any, text: str) -> list[int]:
    return reference.encode(text, add_special_tokens=False)


# Out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OURS)
def test_the_written_folder_gives_our_ids_and_text(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]]
) -> None:
    """Real text, whitespace at both ends, and a special token's name in the text."""
    tokenizer, loaded = ours[kind], written[kind][1]
    assert loaded.is_fast
    assert loaded.eos_token_id == loaded.bos_token_id == tokenizer.eot_id
    assert len(loaded) == tokenizer.vocab_size
    for text in (PROSE, *(HARD if kind != "char" else ("", "a\n\n  ", "<|endoftext|>"))):
        ids = tokenizer.encode(text)
        assert loaded.encode(text) == ids
        assert loaded.decode(ids) == text
    if tokenizer.eot_id is not None:
        ended = [*tokenizer.encode("end"), tokenizer.eot_id]
        assert loaded.decode(ended, skip_special_tokens=True) == "end"
        assert loaded.decode(ended) == "end<|endoftext|>"


@pytest.mark.parametrize("kind", ["bytes", "bpe", "gpt2"])
@given(text=TEXTS)
@QUICK
def test_any_text_gives_our_ids(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]], text: str
) -> None:
    """tiktoken's regular expressions and theirs differ in syntax; they must not in effect."""
    assert written[kind][1].encode(text) == ours[kind].encode(text)


def test_a_character_outside_the_vocabulary_is_refused_by_both(
    ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]]
) -> None:
    with pytest.raises(TokenizerError):
        ours["char"].encode("\u0416")
    with pytest.raises(Exception, match="UNK"):
        written["char"][1].encode("\u0416")


def test_words_are_refused_with_the_reason(ours: dict[str, Tokenizer], tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="space before <unk>"):
        write_tokenizer(ours["word"], tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", OURS)
def test_our_own_come_back_as_they_were(
    kind: str, ours: dict[str, Tokenizer], written: dict[str, tuple[Path, Any]], tmp_path: Path
) -> None:
    """Also when transformers has written the folder anew."""
    directory, loaded = written[kind]
    assert read_tokenizer(directory).digest == ours[kind].digest
    loaded.save_pretrained(tmp_path)
    again = read_tokenizer(tmp_path)
    assert (again.kind, again.digest) == (kind, ours[kind].digest)


@pytest.mark.parametrize("change", ["merge", "pattern", "end", "vocab_size"])
def test_what_is_nearly_ours_is_not_taken_for_it(
    change: str, ours: dict[str, Tokenizer], tmp_path: Path
) -> None:
    tokenizer = ours["bpe"]
    write_tokenizer(tokenizer, tmp_path)
    path = tmp_path / "tokenizer.json"
    document = json.loads(path.read_text())
    if change == "merge":
        merges = document["model"]["merges"]
        merges[0], merges[1] = merges[1], merges[0]
    elif change == "pattern":
        split = document["pre_tokenizer"]["pretokenizers"][0]
        written = split["pattern"]["Regex"]
        split["pattern"]["Regex"] = re.sub(r"\|\\p\{N\}[^|]*", r"|\\p{N}{1,3}", written)
        assert split["pattern"]["Regex"] != written
    elif change == "end":
        (tmp_path / "config.json").write_text('{"eos_token_id": 65}')
    else:
        (tmp_path / "config.json").write_text('{"vocab_size": 1024}')
    path.write_text(json.dumps(document))
    again = read_tokenizer(tmp_path)
    assert again.kind == "hf"
    assert again.eot_id == (65 if change == "end" else tokenizer.eot_id)
    assert again.vocab_size == (1024 if change == "vocab_size" else tokenizer.vocab_size)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    assert again.encode(PROSE[:5000]) == reference.encode(PROSE[:5000])


# In --------------------------------------------------------------------------------------------


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


# Vocabularies ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bytes", "bpe", "gpt2", "llama3"])
def test_a_vocabulary_merged_by_hand_gives_the_ids(
    name: str, ours: dict[str, Tokenizer], read: dict[str, tuple[Tokenizer, Any, Path]]
) -> None:
    """What GGUF is told suffices: the merges, by rank, make of each word its tokens."""
    tokenizer = read[name][0] if name == "llama3" else ours[name]
    vocabulary = bpe_vocabulary(tokenizer)
    ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(vocabulary.merges)}
    ids = {
        token: i
        for i, token in enumerate(vocabulary.tokens)
        if vocabulary.types[i] is TokenType.NORMAL
    }
    letters = bytes_to_unicode()
    assert vocabulary.eos_id == tokenizer.eot_id
    assert vocabulary.types[vocabulary.eos_id] is TokenType.CONTROL
    for word in ("the", "definitions", "statement", "xyzzy", "Zürich"):
        parts = [letters[byte] for byte in word.encode()]
        while len(parts) > 1:
            pairs = list(zip(parts, parts[1:], strict=False))
            best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
            if best not in ranks:
                break
            at = pairs.index(best)
            parts[at : at + 2] = ["".join(best)]
        assert [ids[part] for part in parts] == tokenizer.encode(word)


@pytest.mark.parametrize(("name", "why"), [("char", "token a character"), ("word", "<unk>")])
def test_no_byte_level_vocabulary_of_characters_or_words(
    name: str, why: str, ours: dict[str, Tokenizer]
) -> None:
    with pytest.raises(TokenizerError, match=why):
        bpe_vocabulary(ours[name])


def test_no_byte_level_vocabulary_of_sentencepiece(
    read: dict[str, tuple[Tokenizer, Any, Path]],
) -> None:
    with pytest.raises(TokenizerError, match="SentencePiece"):
        bpe_vocabulary(read["llama2"][0])


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


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS.keys())
@given(text=st.lists(KNOWN | st.sampled_from(["  ", "\n\n", "\r\n", "'LL"])).map("".join))
@QUICK
def test_the_pieces_are_ours_whatever_the_merges(split: Split, text: str) -> None:
    """A rule that differs where a small vocabulary merges nothing would differ elsewhere."""
    text = f"{text} 1234567 {text}"
    document = document_of(BpeTokenizer([(104, 105)], split))
    splitter = hf.Tokenizer.from_str(json.dumps(document)).pre_tokenizer
    pieces = [text[start:end] for _, (start, end) in splitter.pre_tokenize_str(text)]
    assert pieces == regex.findall(split.pattern, text)
