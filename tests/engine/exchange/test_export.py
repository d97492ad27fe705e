"""Folders that are written: what is exported transformers loads, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoints import list_checkpoints, verify
from engine.checkpoints.load import load_weights
from engine.errors import InputError, TokenizerError
from engine.exchange.export import export_hf
from engine.exchange.importing import import_hf
from engine.generation.load import load_generator
from engine.lab import Lab
from engine.runs import find_run
from engine.tokenizers import WordTokenizer
from tests.conftest import small_text
from tests.engine.exchange.making import VOCAB, load_theirs, no_leftovers, run_with
from tests.engine.exchange.pairs import KINDS, difference, draw_member, network, tokens_for
from tests.engine.model.shapes import randomised


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
