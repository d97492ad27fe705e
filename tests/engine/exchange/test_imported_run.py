"""What an imported run is for: it speaks as before, is trained on, and goes out again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine import control, events
from engine.checkpoints import list_checkpoints
from engine.checkpoints.load import load_weights
from engine.config import Config
from engine.corpora import add
from engine.errors import ConfigError, InputError
from engine.exchange.export import export_hf
from engine.exchange.importing import import_hf
from engine.generation.load import load_generator
from engine.generation.params import SamplingParams
from engine.lab import Lab
from engine.runs import find_run
from engine.session import resume_training, run_training
from engine.tokenizers import BpeTokenizer
from tests.conftest import WORDS, small_text
from tests.engine.exchange.making import load_theirs
from tests.engine.exchange.pairs import (
    as_theirs,
    difference,
    network,
    reference,
)


def train(lab: Lab, **overrides: Any) -> list[events.Event]:
    heard: list[events.Event] = []
    values = {
        "data.corpus": "small", "train.max_steps": 2, "train.device": "cpu", "sample.every": 0,
        "train.threads": 1, "train.eval_every": 0,
    } | {key.replace("__", "."): value for key, value in overrides.items()}  # fmt: skip
    resume_training(lab, "model", overrides=values, emit=heard.append, inbox=control.Inbox())
    return heard


def test_an_imported_run_is_trained_on(folder: Path, small_lab: Lab) -> None:
    """With fresh moments, on the corpus that is named then; what it came as stays."""
    lab = small_lab
    import_hf(lab, folder, name="model")
    came = load_weights(list_checkpoints(lab.checkpoints / "model")[0])
    heard = train(lab)
    done = [event for event in heard if isinstance(event, events.StepDone)]
    assert [event.step for event in done] == [1, 2]
    found = list_checkpoints(lab.checkpoints / "model")
    assert [info.step for info in found] == [0, 2]
    assert all(torch.equal(came[name], t) for name, t in load_weights(found[0]).items())
    assert not torch.equal(came["wte.weight"], load_weights(found[1])["wte.weight"])
    # From here on it is a run like any other: its moments are there, its corpus stays.
    with pytest.raises(ConfigError, match=r"data\.corpus cannot change"):
        train(lab, data__corpus="tiny", train__max_steps=3)
    config = find_run(lab, "model").config()
    assert config.data.corpus == "small"
    again: list[events.Event] = []
    resume_training(
        lab, "model", overrides={"train.max_steps": 3}, emit=again.append, inbox=control.Inbox()
    )
    assert [e.step for e in again if isinstance(e, events.StepDone)] == [3]


def test_training_it_in_one_go_or_in_two_is_the_same(folder: Path, small_lab: Lab) -> None:
    """Nothing of the fresh start is lost at the first save: moments, data order, random state."""
    losses = {}
    for name, stops in (("one", (4,)), ("two", (2, 4))):
        import_hf(small_lab, folder, name=name, corpus="small")
        heard: list[events.Event] = []
        for stop in stops:
            values = {"train.max_steps": stop, "train.threads": 1, "sample.every": 0}
            values |= {"schedule.kind": "constant", "schedule.warmup_steps": 0}
            resume_training(
                small_lab, name, overrides=values, emit=heard.append, inbox=control.Inbox()
            )
        losses[name] = [e.loss for e in heard if isinstance(e, events.StepDone)]
    assert len(losses["one"]) == 4
    assert losses["one"] == losses["two"]


def test_a_new_run_cannot_take_the_kind_that_only_comes_with_a_model(small_lab: Lab) -> None:
    config = Config().with_values(
        {"data.corpus": "small", "data.tokenizer": "hf", "train.max_steps": 1}
    )
    with pytest.raises(InputError, match=r"data\.tokenizer = 'hf'"):
        run_training(small_lab, config, emit=lambda event: None, inbox=control.Inbox())


def test_the_text_that_transformers_continues(lab: Lab, tmp_path: Path) -> None:
    """AutoTokenizer, AutoModelForCausalLM and generate on a run really trained: our greedy text."""
    source = tmp_path / "verse.txt"
    source.write_text((" ".join(WORDS) + ".\n") * 150)
    add(lab, "verse", [source])
    config = Config().with_values(
        {
            "data.corpus": "verse", "data.tokenizer": "bpe", "data.vocab_size": 300,
            "model.n_layer": 2, "model.n_head": 4, "model.n_kv_head": 2, "model.n_embd": 48,
            "model.context_length": 64, "model.norm": "rmsnorm", "model.position": "rope",
            "model.mlp": "swiglu", "model.bias": False, "train.max_steps": 60,
            "train.batch_size": 8, "optimizer.lr": 5e-3, "schedule.warmup_steps": 5,
            "train.device": "cpu", "train.threads": 1, "train.eval_every": 0, "sample.every": 0,
            "train.precision": "float32",
        }
    )  # fmt: skip
    run_training(lab, config, name="trained", emit=lambda event: None, inbox=control.Inbox())
    export_hf(lab, "trained", tmp_path / "out")
    ours = load_generator(lab, "trained", "cpu")
    assert isinstance(ours.tokenizer, BpeTokenizer)
    prompt = "the cat sat on"
    params = SamplingParams(temperature=0.0, max_tokens=40)
    text = "".join(token.text for token in ours.stream(prompt, params))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    theirs = load_theirs(tmp_path / "out")
    asked = tokenizer(prompt, return_tensors="pt")
    told = theirs.generate(**asked, max_new_tokens=40, do_sample=False)
    assert tokenizer.decode(told[0]) == prompt + text
    assert len(set(text.split())) > 8  # it has learned to recite, and repeats no single word


def sentencepiece_like(folder: Path, vocab_size: int) -> None:
    """Llama-2's kind of tokenizer (▁ for spaces, bytes for what is unknown), learned here."""
    import tokenizers
    from tokenizers import decoders, models, normalizers, trainers

    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
         decoders.Strip(" ", 1, 0)]
    )  # fmt: skip
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=special[:3])
    made.train_from_iterator([small_text(100)], trainer)
    document = json.loads(made.to_str())
    words = [word for word in document["model"]["vocab"] if word not in special]
    document["model"]["vocab"] = {word: i for i, word in enumerate([*special, *words])}
    (folder / "tokenizer.json").write_text(json.dumps(document))
    settings = {"tokenizer_class": "LlamaTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_model_with_a_tokenizer_of_its_own(small_lab: Lab, tmp_path: Path) -> None:
    """A table longer than the vocabulary, as published models have: spoken, trained, exported."""
    lab, folder = small_lab, tmp_path / "model"
    vocab_size = 700
    ours = network("mistral", 7, vocab_size)
    theirs = reference(ours.config, vocab_size)
    theirs.load_state_dict(as_theirs(ours.config, ours.state_dict()), strict=False)
    for facts in (theirs.config, theirs.generation_config):
        facts.bos_token_id, facts.eos_token_id = 1, 2
    theirs.save_pretrained(folder)
    sentencepiece_like(folder, 300)
    import_hf(lab, folder, name="model", corpus="small")
    loaded = load_generator(lab, "model", "cpu")
    assert loaded.tokenizer.kind == "hf"
    assert loaded.tokenizer.vocab_size == vocab_size
    assert loaded.tokenizer.eot_id == 2
    text = "the cat sat — on the mät"
    known = transformers.AutoTokenizer.from_pretrained(folder)
    assert loaded.tokenizer.encode(text) == known(text, add_special_tokens=False)["input_ids"]
    tokens = torch.tensor([loaded.tokenizer.encode(text)[:6]])
    assert difference(loaded.model, theirs, tokens) < 1e-5
    assert [event.step for event in train(lab) if isinstance(event, events.StepDone)] == [1, 2]
    export_hf(lab, "model@0", tmp_path / "again")
    values = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (values["bos_token_id"], values["eos_token_id"]) == (1, 2)
    assert difference(loaded.model, load_theirs(tmp_path / "again"), tokens) < 1e-5
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / "again")
    assert again(text, add_special_tokens=False)["input_ids"] == loaded.tokenizer.encode(text)
