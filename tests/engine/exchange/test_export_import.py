"""Whole folders: what is exported transformers loads; what it writes is imported and trained on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from engine import control, events
from engine.checkpoints import list_checkpoints, verify
from engine.checkpoints.load import load_weights
from engine.config import Config
from engine.corpora import add
from engine.errors import ConfigError, EngineError, InputError, TokenizerError
from engine.exchange.export import export_hf
from engine.exchange.importing import import_hf
from engine.exchange.tokenizers import write_tokenizer
from engine.generation.load import load_generator
from engine.generation.params import SamplingParams
from engine.lab import Lab
from engine.runs import find_run
from engine.session import resume_training, run_training
from engine.tokenizers import BpeTokenizer, WordTokenizer
from tests.conftest import WORDS, small_text
from tests.engine.exchange.making import run_with
from tests.engine.exchange.pairs import (
    KINDS,
    as_theirs,
    difference,
    draw_member,
    network,
    reference,
    tokens_for,
)
from tests.engine.model.shapes import randomised

VOCAB = 257  # bytes and the end of text


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


def load_theirs(folder: Path) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    ).eval()


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith(".tmp-")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_out_and_comes_back(kind: str, lab: Lab, tmp_path: Path) -> None:
    """Ours to a folder in one file and in shards, transformers' own folder back into a run."""
    ours = network(kind, 7, VOCAB)
    tokens = tokens_for(ours.config, VOCAB, 7)
    run_with(lab, "run", ours)
    seen: list[tuple[int, int]] = []
    told = export_hf(
        lab, "run", tmp_path / "out", progress=lambda *done: seen.append(done), shard_bytes=20_000
    )
    assert seen[-1][0] == seen[-1][1] > 0
    assert seen == sorted(seen)
    assert len([name for name in told.files if name.endswith(".safetensors")]) > 1
    assert told.bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    theirs = load_theirs(tmp_path / "out")
    assert type(theirs).__name__ == told.class_name
    assert difference(ours, theirs, tokens) < 1e-5
    assert theirs.generation_config.eos_token_id == VOCAB - 1

    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    for limit, name in (("10KB", "sharded"), ("1GB", "whole")):
        theirs.save_pretrained(tmp_path / name, max_shard_size=limit)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name / file).write_bytes((tmp_path / "out" / file).read_bytes())
        made = import_hf(lab, tmp_path / name)
        assert made.run == name
        assert made.class_name == told.class_name
        (info,) = list_checkpoints(made.path)
        assert info.path == made.checkpoint
        assert (info.step, info.kind, info.complete) == (0, "imported", True)
        assert verify(info.path) == []
        assert find_run(lab, name).status == "stopped"
        back = load_generator(lab, name, "cpu")
        assert difference(back.model, theirs, tokens) < 1e-5
        assert back.tokenizer.kind == "bytes"
    assert no_leftovers(tmp_path)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_become_float32_again(dtype: str, lab: Lab, tmp_path: Path) -> None:
    """Out in sixteen bits (experts and GPT-2's transposed matrices too), back in thirty-two."""
    for kind in ("gpt2", "qwen3_moe"):
        ours = network(kind, 7, VOCAB)
        run_with(lab, kind, ours)
        export_hf(lab, kind, tmp_path / kind, dtype=dtype)
        narrow = load_file(tmp_path / kind / "model.safetensors")
        wanted = getattr(torch, dtype)
        assert {tensor.dtype for tensor in narrow.values()} == {wanted}
        assert load_theirs(tmp_path / kind).dtype == wanted
        made = import_hf(lab, tmp_path / kind, name=f"{kind}-back")
        back = load_weights(list_checkpoints(made.path)[0])
        for name, tensor in ours.state_dict().items():
            assert torch.equal(back[name], tensor.to(wanted).float()), name


def test_what_float16_cannot_hold_is_not_written(lab: Lab, tmp_path: Path) -> None:
    ours = network("llama", 7, VOCAB)
    ours.wte.weight.data[3, 2] = 70_000.0
    run_with(lab, "run", ours)
    with pytest.raises(InputError, match=r"embed_tokens\.weight.* float16 cannot hold"):
        export_hf(lab, "run", tmp_path / "out", dtype="float16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lab"]


# Where a folder is written ---------------------------------------------------------------------


@pytest.fixture
def run(lab: Lab) -> str:
    run_with(lab, "run", network("llama", 7, VOCAB))
    return "run"


def test_nothing_is_overwritten_unasked(run: str, lab: Lab, tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()  # an empty one is as good as none
    export_hf(lab, run, target)
    (target / "mine.txt").write_text("a note")
    before = (target / "model.safetensors").read_bytes()
    with pytest.raises(InputError, match="not empty"):
        export_hf(lab, run, target, dtype="bfloat16")
    assert (target / "model.safetensors").read_bytes() == before
    export_hf(lab, run, target, dtype="bfloat16", overwrite=True)
    assert len((target / "model.safetensors").read_bytes()) < len(before)
    assert not (target / "mine.txt").exists()
    assert no_leftovers(tmp_path)


def test_overwriting_takes_a_model_s_folder_and_no_other(
    run: str, lab: Lab, tmp_path: Path
) -> None:
    """`--overwrite` with a home directory, a lab, or a run must not be the end of it."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not the folder of a model: it has no config"):
        export_hf(lab, run, home, overwrite=True)
    (home / "config.json").write_text("{}")
    (home / "photos").mkdir()
    with pytest.raises(InputError, match="'photos'"):
        export_hf(lab, run, home, overwrite=True)
    with pytest.raises(InputError, match="not the folder of a model"):
        export_hf(lab, run, lab.checkpoints / "run", overwrite=True)
    link = tmp_path / "link"
    link.symlink_to(home)
    with pytest.raises(InputError, match="is not a folder"):
        export_hf(lab, run, link, overwrite=True)
    with pytest.raises(InputError, match="is not a folder"):
        export_hf(lab, run, home / "letter.txt", overwrite=True)
    assert (home / "letter.txt").read_text() == "dear"
    assert no_leftovers(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(
    run: str, lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    export_hf(lab, run, target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.exchange.export.atomic.write_all", full)
    with pytest.raises(InputError, match="No space left"):
        export_hf(lab, run, target, dtype="bfloat16", overwrite=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert no_leftovers(tmp_path)


def test_what_has_no_class_and_what_has_no_form_is_refused(lab: Lab, tmp_path: Path) -> None:
    model = replace(draw_member("llama", 7), mlp="relu2")
    run_with(lab, "odd", randomised(model, VOCAB))
    with pytest.raises(InputError, match=r"model\.mlp = 'relu2': no class of transformers has it"):
        export_hf(lab, "odd", tmp_path / "out")
    words = WordTokenizer.train(iter([small_text(40)]), 40)
    run_with(lab, "words", randomised(draw_member("llama", 7), words.vocab_size), words)
    with pytest.raises(TokenizerError, match="word tokenizer"):
        export_hf(lab, "words", tmp_path / "out")
    with pytest.raises(InputError, match="dtype = 'int8'"):
        export_hf(lab, "words", tmp_path / "out", dtype="int8")
    assert not (tmp_path / "out").exists()
    assert no_leftovers(tmp_path)


# What is not imported --------------------------------------------------------------------------


@pytest.fixture
def folder(run: str, lab: Lab, tmp_path: Path) -> Path:
    export_hf(lab, run, tmp_path / "model")
    return tmp_path / "model"


def damage(folder: Path, **changed: Any) -> None:
    """Write the folder's tensors again, some with other numbers, None without them."""
    state = load_file(folder / "model.safetensors")
    for name, tensor in changed.items():
        state[name.replace("__", ".")] = tensor
    kept = {name: tensor for name, tensor in state.items() if tensor is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def configure(folder: Path, **changed: Any) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changed))


NORM = "model__norm__weight"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: damage(f, **{NORM: None}), r"'model\.norm\.weight' is missing"),
        (lambda f: damage(f, **{NORM: torch.ones(3)}), r"'model\.norm\.weight' has the shape"),
        (lambda f: damage(f, score=torch.ones(3)), "'score' has no place"),
        (lambda f: damage(f, model__layers__0__mlp__up_proj__weight=None), "is missing"),
        (lambda f: configure(f, rope_scaling={"type": "dynamic", "factor": 2.0}), "rope_scaling"),
        (lambda f: configure(f, num_hidden_layers=1), "has no place"),
        (lambda f: configure(f, vocab_size=300), "has the shape"),
        (lambda f: write_tokenizer(BpeTokenizer.train(iter([small_text(40)]), 300), f), "together"),
        (lambda f: configure(f, model_type="opt"), "model_type = 'opt'"),
        (lambda f: (f / "tokenizer.json").unlink(), r"tokenizer\.json"),
        (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickle"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_whole_makes_no_run(
    spoil: Any, words: str, folder: Path, lab: Lab
) -> None:
    spoil(folder)
    with pytest.raises(EngineError, match=words):
        import_hf(lab, folder, name="new")
    assert not (lab.checkpoints / "new").exists()


def test_numbers_that_are_no_weights_make_no_run(folder: Path, lab: Lab) -> None:
    sound = load_file(folder / "model.safetensors")["model.norm.weight"]
    damage(folder, **{NORM: torch.full_like(sound, float("nan"))})
    with pytest.raises(InputError, match=r"'ln_f\.weight' hold numbers that are not finite"):
        import_hf(lab, folder, name="new")
    damage(folder, **{NORM: torch.ones(sound.shape, dtype=torch.int8)})
    with pytest.raises(InputError, match=r"'model\.norm\.weight' is stored as I8"):
        import_hf(lab, folder, name="new")
    assert not (lab.checkpoints / "new").exists()


def test_a_tied_matrix_stored_twice_must_be_one(lab: Lab, tmp_path: Path) -> None:
    model = replace(draw_member("llama", 7), tie_embeddings=True)
    run_with(lab, "run", randomised(model, VOCAB))
    export_hf(lab, "run", tmp_path / "model")
    embedding = load_file(tmp_path / "model" / "model.safetensors")["model.embed_tokens.weight"]
    damage(tmp_path / "model", lm_head__weight=embedding.clone())
    import_hf(lab, tmp_path / "model", name="same")
    damage(tmp_path / "model", lm_head__weight=embedding + 1)
    with pytest.raises(InputError, match=r"differ, and config\.json ties them"):
        import_hf(lab, tmp_path / "model", name="other")


def test_a_run_that_cannot_be_saved_is_not_left_behind(
    folder: Path, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.exchange.importing.write_checkpoint", broken)
    with pytest.raises(KeyboardInterrupt):
        import_hf(lab, folder, name="new")
    assert not (lab.checkpoints / "new").exists()


def test_names_and_contexts(folder: Path, lab: Lab) -> None:
    """A second import has a name of its own; a shorter context changes nothing within it."""
    first = import_hf(lab, folder)
    second = import_hf(lab, folder)
    assert (first.run, second.run) == ("model", "model-2")
    with pytest.raises(InputError, match="cannot be a run's name"):
        import_hf(lab, folder, name="../new")
    whole = load_generator(lab, "model", "cpu").model
    short = whole.config.context_length - 2
    import_hf(lab, folder, name="short", context_length=short)
    cut = load_generator(lab, "short", "cpu").model
    assert cut.config.context_length == short
    tokens = torch.randint(0, VOCAB, (2, short))
    assert torch.equal(cut(tokens), whole(tokens))
    with pytest.raises(InputError, match="trained at"):
        import_hf(lab, folder, name="long", context_length=10_000)


# What an imported run is for -------------------------------------------------------------------


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
