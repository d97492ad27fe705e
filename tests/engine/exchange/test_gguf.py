"""GGUF files: llama.cpp reads them, cuts text into the same tokens, and continues it the same."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoints.save import save
from engine.config import Config
from engine.config.sections import ModelConfig
from engine.errors import InputError, TokenizerError
from engine.exchange.gguf import export_gguf
from engine.exchange.gguf_networks import network_of
from engine.exchange.gguf_vocabulary import PUBLISHED, pre_tokenizer
from engine.exchange.tokenizers import read_tokenizer
from engine.exchange.vocabulary import bpe_vocabulary
from engine.generation.load import load_generator
from engine.lab import Lab
from engine.model import GPT
from engine.model.cache import KVCache
from engine.runs import RunFolder
from engine.tokenizers import BpeTokenizer, ByteTokenizer, Gpt2Tokenizer, Tokenizer
from engine.tokenizers.split import GPT4, QWEN2
from tests.conftest import small_text
from tests.engine.exchange.llama_server import ask
from tests.engine.model.shapes import randomised

torch.set_num_threads(1)

COUNT = 64
LEAD = 1e-3
"""Logits that a chosen token is ahead, at least: what is nearer could be chosen otherwise by the
rounding of llama.cpp, whose GELU is a table in float16. The seeds are chosen for it."""
LLAMA: dict[str, Any] = {
    "norm": "rmsnorm",
    "position": "rope",
    "mlp": "swiglu",
    "bias": False,
    "n_kv_head": 2,
    "tie_embeddings": False,
}
EXPERTS = {"n_expert": 4, "n_expert_active": 2}
GPT_OSS = LLAMA | EXPERTS | {"mlp": "swiglu-clamped", "learned_sinks": True}
SCALED = {"rope_factor": 4.0, "rope_original_context": 40}
NETWORKS: dict[str, tuple[int, dict[str, Any]]] = {
    "gpt2": (11, {}),
    "gpt2 without biases": (7, {"bias": False, "tie_embeddings": False}),
    "llama": (8, LLAMA),
    "llama with biases": (8, LLAMA | {"bias": True, "tie_embeddings": True, "n_kv_head": 1}),
    "llama, wide heads": (
        0,
        LLAMA
        | {"n_embd": 44, "n_head": 6, "head_dim": 32, "n_hidden": 100, "rope_base": 500_000.0},
    ),
    "llama, linear": (1, LLAMA | SCALED | {"rope_scaling": "linear"}),
    "llama, llama3": (2, LLAMA | SCALED | {"rope_scaling": "llama3"}),
    "llama, yarn": (11, LLAMA | SCALED | {"rope_scaling": "yarn"}),
    "mistral, its window no less than the context": (8, LLAMA | {"window": 160}),
    "qwen2": (2, LLAMA | {"qkv_bias": True}),
    "qwen3": (2, LLAMA | {"qk_norm": True, "norm_eps": 1e-6}),
    "qwen3, yarn": (5, LLAMA | SCALED | {"qk_norm": True, "rope_scaling": "yarn"}),
    "mixtral": (4, LLAMA | EXPERTS),
    "mixtral, one expert a token": (9, LLAMA | EXPERTS | {"n_expert_active": 1}),
    "qwen3moe": (6, LLAMA | EXPERTS | {"qk_norm": True}),
    "gpt-oss": (2, GPT_OSS | {"bias": True, "window": 12, "window_layers": "alternate"}),
    "gpt-oss without biases": (13, GPT_OSS | {"tie_embeddings": True}),
    "gpt-oss, yarn": (1, GPT_OSS | SCALED | {"bias": True, "rope_scaling": "yarn"}),
}
TEXTS = (
    "the cat sat on the mat",
    "It's 2031, and 'LL they'Ll we'VE don't 12345 1 22 3.14\r\n\r\n  x = [1, 20]\n\n\t return\n",
    "naïve Straße 汉字 かな 한글 عربى ١٢٣ ⅷ½ 🙂🏽 a\u0301 \u00a0\u2003\u3000 \u0000\u0007 ﬁ 'ſo",
    "   \n \n   ends in white space  \n  \t ",
    "<|endoftext|> is text like any other",
    "\n",
)
PROMPTS = ("the cat sat", "rain fell on the roof.\nthe dog")


def random_texts() -> tuple[str, ...]:
    """Short pieces of every kind that a pattern tells apart, in any order."""
    draw = random.Random(5)
    pieces = (
        *" \t\n\r\x0b\x85\u00a0\u2028\u3000",
        *("  ", "    ", "\r\n", "\n\n", " \n", "'s", "'LL", "'", "’", "'ſ"),
        *("a", "Be", "the", "ÄÖ", "ǅ"),
        *("7", "42", "2031", "½", "Ⅷ", "٣", "漢", "字かな", "\u0301", "\u200d"),
        *("🙂", "()", "_", "==", "\x00"),
    )  # fmt: skip
    return tuple("".join(draw.choices(pieces, k=draw.randint(1, 30))) for _ in range(80))


RANDOM_TEXTS = random_texts()


def shape(**changed: Any) -> ModelConfig:
    values: dict[str, Any] = {
        "n_layer": 2, "n_head": 4, "n_embd": 48, "context_length": 160,
    }  # fmt: skip
    return ModelConfig(**(values | changed))


def trained_bpe() -> BpeTokenizer:
    """As older versions cut text, in pairs of digits; learned from words, quotes, indentation and
    single digits: no pair of digits in it."""
    more = (
        "if it's 1:\n    they're 2, we'll 3\n\n\nnaïve Straße 汉字汉字 🙂🙂 ...  ((x)) == y\n" * 40
    )
    return BpeTokenizer.train([small_text(200), more], 400, GPT4)


def read_bpe(directory: Path, pattern: str) -> Tokenizer:
    """A tokenizer of the package tokenizers that cuts text by `pattern`, read as a folder's is."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Theirs

    theirs = Theirs(models.BPE())
    theirs.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    theirs.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    numbers = " ".join(str(17 * number) for number in range(400))
    theirs.train_from_iterator([small_text(100), numbers, *RANDOM_TEXTS], trainer)
    directory.mkdir()
    theirs.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<|end|>"}')
    return read_tokenizer(directory)


def make_run(lab: Lab, name: str, model: GPT, tokenizer: Tokenizer) -> None:
    """A run with one checkpoint of those weights."""
    fields = {f"model.{field}": value for field, value in vars(model.config).items()}
    config = Config().with_values(fields | {"train.max_steps": 1})
    with RunFolder.create(lab, name, config, {"preset": "test"}) as folder:
        tokenizer.save(folder.path / "tokenizer")
        facts = {
            "step": 1,
            "tokens": 1,
            "val_loss": None,
            "config": config.to_dict(),
            "vocab_size": tokenizer.vocab_size,
            "digests": {"tokenizer": tokenizer.digest},
        }
        save(folder.path, model.state_dict(), {}, {}, facts, kind="final", policy="all")


def greedy(model: GPT, ids: list[int], stop: int) -> tuple[list[int], float]:
    """The next COUNT tokens, never `stop`, and the smallest lead that one had over the next."""
    cache = KVCache(
        model.config, 1, len(ids) + COUNT, device=torch.device("cpu"), dtype=torch.float32
    )
    found, lead, unread = [], float("inf"), ids
    with torch.no_grad():
        for _ in range(COUNT):
            logits = model.logits(model.features(torch.tensor([unread]), cache)[0, -1])
            logits[stop] = float("-inf")
            (best, second), (chosen, _) = logits.topk(2)
            lead = min(lead, (best - second).item())
            unread = [int(chosen)]
            found += unread
    return found, lead


class Answers(dict[str, dict[str, Any]]):
    """By the name of a file: `model` and `tokenizer`, and llama.cpp's `ids` and `tokens`."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """llama.cpp's answers about every network, and about every kind of tokenizer."""
    pytest.importorskip("xllamacpp")
    pytest.importorskip("tokenizers")
    lab = Lab.init(tmp_path_factory.mktemp("gguf") / "lab")
    bpe, told, jobs = trained_bpe(), Answers(), []

    def add(name: str, model: GPT, tokenizer: Tokenizer, texts: Sequence[str], **more: Any) -> None:
        run = f"run-{len(jobs)}"
        make_run(lab, run, model, tokenizer)
        path = lab.root / f"{run}.gguf"
        export_gguf(lab, run, path, dtype="float32")
        told[name] = {"model": model, "tokenizer": tokenizer}
        jobs.append({"path": str(path), "texts": texts, "prompts": (), "count": COUNT} | more)

    for name, (seed, fields) in NETWORKS.items():
        model = randomised(shape(**fields), bpe.vocab_size, seed)
        add(name, model, bpe, (), prompts=PROMPTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.exchange.gguf_tensors._interleaved", lambda rows, D: rows)
        seed, fields = NETWORKS["llama"]
        model = randomised(shape(**fields), bpe.vocab_size, seed)
        add("pairs left as halves", model, bpe, (), prompts=PROMPTS)
    kinds = {
        "bpe": BpeTokenizer.train([small_text(200), "2031 42 7\n" * 40], 400),
        "bpe, pairs of digits": bpe,
        "bytes": ByteTokenizer(),
        "gpt2": Gpt2Tokenizer.local(),
    }
    for pattern, pre in PUBLISHED.items():
        if pre != "gpt-2" and pattern != QWEN2.pattern:
            kinds[pre] = read_bpe(lab.root / pre, pattern)
    for kind, tokenizer in kinds.items():
        model = randomised(shape(n_embd=8, n_layer=1), tokenizer.vocab_size)
        add(f"tokens of {kind}", model, tokenizer, TEXTS + RANDOM_TEXTS)
    for name, answer in zip(told, ask(jobs), strict=True):
        told[name] |= answer
    return told


@pytest.mark.parametrize("name", NETWORKS)
def test_llama_cpp_continues_a_text_as_we_do(answers: Answers, name: str) -> None:
    """The same 64 tokens, greedily: every weight is in its place, and every number of the shape."""
    told = answers[name]
    tokenizer = told["tokenizer"]
    for prompt, theirs in zip(PROMPTS, told["tokens"], strict=True):
        ours, lead = greedy(told["model"], tokenizer.encode(prompt), tokenizer.eot_id)
        assert lead > LEAD, "a choice too close to call: take another seed"
        assert theirs == ours


def test_a_wrong_layout_would_be_seen(answers: Answers) -> None:
    """Pairs of RoPE left as halves, which llama.cpp reads as noise, give other tokens."""
    assert answers["pairs left as halves"]["tokens"] != answers["llama"]["tokens"]


@pytest.mark.parametrize(
    "kind", ("bpe", "bpe, pairs of digits", "bytes", "gpt2", "llama-bpe", "qwen2")
)
def test_llama_cpp_cuts_text_as_we_do(answers: Answers, kind: str) -> None:
    """The same ids for any text: white space at its end, digits, all scripts, contractions."""
    told = answers[f"tokens of {kind}"]
    for text, theirs in zip(TEXTS + RANDOM_TEXTS, told["ids"], strict=True):
        assert theirs == told["tokenizer"].encode(text), repr(text)


MODERN = LLAMA | {"n_layer": 2}
REFUSED: dict[str, dict[str, Any]] = {
    "model.window = 64": MODERN | {"window": 64},
    "model.sink_tokens = 4": MODERN | {"window": 160, "sink_tokens": 4},
    "model.mlp = 'relu2'": MODERN | {"mlp": "relu2"},
    "model.logit_softcap = 30.0": {"logit_softcap": 30.0},
    "model.position = 'none'": MODERN | {"position": "none"},
    "model.learned_sinks = true": MODERN | {"learned_sinks": True},
    "model.n_kv_head = 2": {"n_kv_head": 2},
    "model.head_dim = 8": {"head_dim": 8},
    "model.bias = true": MODERN | {"qk_norm": True, "bias": True},
    "model.rope_scaling = 'llama3'": MODERN | SCALED | {"qk_norm": True, "rope_scaling": "llama3"},
    "model.renormalise = false": MODERN | EXPERTS | {"renormalise": False},
    "model.window_layers = 'all'": GPT_OSS | {"window": 12},
    "model.n_expert = 1000": MODERN | {"n_expert": 1000},
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_llama_cpp_does_not_have_is_refused_by_name(told: str) -> None:
    """The title names the field and its value, and what the nearest architecture has."""
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        network_of(shape(**REFUSED[told]))
    assert caught.value.hint


def test_tokens_across_a_cut_that_only_we_do_not_make_are_refused() -> None:
    """A pair of digits, and a line break with the spaces after it, would have other ids there."""
    for text, told in (("10 11 10 11 x10\n" * 50, "digits"), ("\n  \n" * 50 + "\n  ", "newline")):
        bpe = BpeTokenizer.train([text], 300, GPT4)
        with pytest.raises(TokenizerError, match=told):
            pre_tokenizer(bpe_vocabulary(bpe))
    assert pre_tokenizer(bpe_vocabulary(trained_bpe())) == "qwen2"


@pytest.fixture
def one_run(lab: Lab) -> Lab:
    model = randomised(shape(**LLAMA | {"n_layer": 1}), 257)
    make_run(lab, "run", model, ByteTokenizer())
    return lab


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_matrices_are_stored_in_the_type_asked_for(one_run: Lab, dtype: str) -> None:
    """Matrices in 16 bits, norms in 32; all as numbers that round to it; bytes told as they go."""
    gguf = pytest.importorskip("gguf")
    path, seen = one_run.root / "model.gguf", []
    made = export_gguf(one_run, "run", path, dtype=dtype, progress=lambda *done: seen.append(done))
    assert (made.architecture, made.bytes) == ("llama", path.stat().st_size)
    assert seen[-1][0] == seen[-1][1] == sum(t.n_bytes for t in gguf.GGUFReader(path).tensors)
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    name = {"float16": "F16", "bfloat16": "BF16"}[dtype]
    assert found["blk.0.ffn_up.weight"].tensor_type.name == name
    assert found["blk.0.attn_norm.weight"].tensor_type.name == "F32"
    ours = load_generator(one_run, "run", "cpu").model.state_dict()["wte.weight"]
    data = torch.from_numpy(found["token_embd.weight"].data.copy())
    theirs = data.view(getattr(torch, dtype)).view(ours.shape)
    assert torch.equal(theirs, ours.to(getattr(torch, dtype)))


def test_a_failed_export_leaves_the_earlier_file_and_nothing_else(lab: Lab) -> None:
    """A number that float16 cannot hold is found while writing: the old file stays as it was."""
    pytest.importorskip("gguf")
    model = randomised(shape(**LLAMA | {"n_layer": 1}), 257)
    with torch.no_grad():
        model.blocks[0].mlp.proj.weight[0, 0] = 1e6
    make_run(lab, "run", model, ByteTokenizer())
    path = lab.root / "out" / "model.gguf"
    export_gguf(lab, "run", path, dtype="bfloat16")
    before = path.read_bytes()
    with pytest.raises(InputError, match=re.escape("blk.0.ffn_down.weight")):
        export_gguf(lab, "run", path, dtype="float16")
    assert path.read_bytes() == before
    assert [one.name for one in path.parent.iterdir()] == ["model.gguf"]


def test_without_the_package_its_extra_is_named(
    one_run: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is written."""
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError) as caught:
        export_gguf(one_run, "run", one_run.root / "model.gguf")
    assert "tui-lab[gguf]" in caught.value.hint
    assert not (one_run.root / "model.gguf").exists()
