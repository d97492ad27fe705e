"""Texts, and tokenizers trained here as the published ones were: nothing is downloaded."""

from __future__ import annotations

import json
from pydoc_data import topics
from typing import Any

import tokenizers as hf
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from engine.tokenizers.hf_document import LETTERS_END

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


def reference_ids(reference: Any, text: str) -> list[int]:
    return reference.encode(text, add_special_tokens=False)
