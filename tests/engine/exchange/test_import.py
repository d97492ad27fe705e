"""Folders that are read: what is not whole makes no run."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoints import list_checkpoints, verify
from engine.errors import CheckpointError, EngineError, InputError
from engine.exchange.export import export_hf
from engine.exchange.importing import import_hf
from engine.exchange.tokenizers import write_tokenizer
from engine.generation.load import load_generator
from engine.lab import Lab
from engine.runs import find_run, list_runs
from engine.tokenizers import BpeTokenizer
from tests.conftest import small_text
from tests.engine.exchange.making import VOCAB, run_with
from tests.engine.exchange.pairs import draw_member
from tests.engine.model.shapes import randomised


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


KILLED = """
import sys, time
from pathlib import Path
from engine.exchange import importing
from engine.lab import Lab

def hang(*_, **__):
    print("nearly there", flush=True)
    time.sleep(60)

importing.write_status = hang
importing.import_hf(Lab.find(Path(sys.argv[1])), Path(sys.argv[2]), name="new")
"""


def test_an_import_that_is_killed_leaves_no_run(folder: Path, lab: Lab) -> None:
    """Killed with all but its status on the disk; the next import clears what is left of it."""
    own = {path.name for path in lab.checkpoints.iterdir()}
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(lab.root), str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "nearly there\n"
    child.kill()
    child.wait()
    (left,) = {path for path in lab.checkpoints.iterdir() if path.name not in own}
    assert list_checkpoints(left), "it was killed too early to tell"
    assert "new" not in {run.name for run in list_runs(lab)}
    with pytest.raises(CheckpointError, match="unknown run"):
        find_run(lab, "new")
    done = import_hf(lab, folder, name="new")
    assert done.run == "new"
    assert done.checkpoint.parent == done.path == find_run(lab, "new").path
    assert verify(done.checkpoint) == []
    assert {path.name for path in lab.checkpoints.iterdir()} == own | {"new"}


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
