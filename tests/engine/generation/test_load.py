"""Loading a checkpoint to generate from: the right weights, the right words when it cannot be."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from engine import tokenizers
from engine.checkpoints import find_checkpoint
from engine.checkpoints.load import load_weights
from engine.errors import CheckpointError, DeviceError, InputError, TokenizerError
from engine.generation.default import default_reference
from engine.generation.load import load_generator
from engine.generation.params import SamplingParams
from engine.lab import Lab
from tests.campaign.readers import sealed
from tests.tiny_run import CONTEXT, make_tiny_run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Lab:
    return make_tiny_run(tmp_path_factory.mktemp("lab"))[0]


@pytest.fixture
def copy(trained: Lab, tmp_path: Path) -> Lab:
    """The same lab to break."""
    shutil.copytree(trained.root, tmp_path / "copy")
    return Lab(tmp_path / "copy")


def test_the_loaded_model_has_the_saved_weights_and_speaks(trained: Lab) -> None:
    generator = load_generator(trained, "tiny@20", "cpu")
    assert generator.info.step == 20
    assert not generator.model.training
    saved = load_weights(find_checkpoint(trained, "tiny@20"))
    loaded = generator.model.state_dict()
    assert loaded.keys() == saved.keys()
    assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    tokens = list(generator.stream("the ", SamplingParams(max_tokens=40, seed=1)))
    assert len(tokens) == 40
    assert generator.config.model.context_length == CONTEXT
    again = list(generator.stream("the ", SamplingParams(max_tokens=40, seed=1)))
    assert tokens == again


def test_a_checkpoint_speaks_in_eight_bits(trained: Lab) -> None:
    """Nearly as it does in floats; an unknown kind is refused before anything is loaded."""
    plain, small = (load_generator(trained, "tiny", "cpu", quantise=q) for q in ("", "int8"))
    params = SamplingParams(temperature=0.0, max_tokens=20)
    first, of_small = (next(iter(g.stream("the ", params))) for g in (plain, small))
    assert of_small.probability == pytest.approx(first.probability, abs=0.05)
    assert len(list(small.stream("the ", params))) == 20
    with pytest.raises(InputError, match="int3"):
        load_generator(trained, "tiny", "cpu", quantise="int3")


def test_tied_weights_are_one_matrix_after_loading(trained: Lab) -> None:
    model = load_generator(trained, "tiny", "cpu").model
    assert model.lm_head.weight.data_ptr() == model.wte.weight.data_ptr()


@pytest.mark.parametrize(
    ("n_layer", "why"), [(1000, "do not fit its configuration"), (10**9, "cannot be read")]
)
def test_a_network_that_the_tensors_do_not_fit_is_refused_before_it_is_built(
    copy: Lab, n_layer: int, why: str
) -> None:
    """Its meta data may be hashed rightly: whoever wrote them meant harm."""
    step = copy.checkpoints / "tiny/step_000030"
    facts = json.loads((step / "meta.json").read_text())
    facts["config"]["model"]["n_layer"] = n_layer
    (step / "meta.json").write_text(json.dumps(facts))
    manifest = (step / "manifest.json").read_bytes()
    (step / "manifest.json").write_bytes(sealed(manifest, step / "meta.json"))
    began = time.monotonic()
    with pytest.raises(CheckpointError, match=why):
        load_generator(copy, "tiny@30", "cpu")
    assert time.monotonic() - began < 5


def test_a_link_in_the_place_of_a_run_s_tokenizer_is_refused(copy: Lab, tmp_path: Path) -> None:
    folder = copy.checkpoints / "tiny/tokenizer"
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="symbolic link"):
        load_generator(copy, "tiny", "cpu")
    folder.unlink()
    folder.mkdir()
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere/tokenizer.json")
    with pytest.raises(CheckpointError, match="symbolic link"):
        load_generator(copy, "tiny", "cpu")
    with pytest.raises(TokenizerError, match="symbolic link"):
        tokenizers.find(copy, "tiny")


def test_loading_draws_no_random_number(trained: Lab) -> None:
    """The console loads checkpoints in the process that trains another run."""
    before = torch.get_rng_state()
    load_generator(trained, "tiny", "cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_reference_the_labs_newest_run_is_taken(trained: Lab, copy: Lab) -> None:
    assert default_reference(trained) == "tiny"
    shutil.copytree(copy.checkpoints / "tiny", copy.checkpoints / "alpha")
    meta = copy.checkpoints / "alpha" / "step_000030"
    shutil.rmtree(meta)  # alpha's newest is now step 20, saved before tiny's step 30
    assert default_reference(copy) == "tiny"
    shutil.rmtree(copy.checkpoints / "tiny")
    assert default_reference(copy) == "alpha"
    assert load_generator(copy, "", "cpu").info.step == 20


def test_a_lab_without_runs_says_how_to_get_one(tmp_path: Path, monkeypatch) -> None:
    empty = Lab.init(tmp_path / "empty")
    monkeypatch.setattr("engine.lab.builtin_dir", lambda kind: empty.root / "nothing" / kind)
    with pytest.raises(CheckpointError) as caught:
        default_reference(empty)
    assert "tui-lab train" in caught.value.hint


def test_a_missing_tokenizer_names_the_run(copy: Lab) -> None:
    shutil.rmtree(copy.checkpoints / "tiny" / "tokenizer")
    with pytest.raises(CheckpointError, match="run 'tiny': its tokenizer"):
        load_generator(copy, "tiny", "cpu")


def test_another_tokenizer_is_refused(copy: Lab) -> None:
    """It would load, and speak nonsense: same size, other characters."""
    folder = copy.checkpoints / "tiny" / "tokenizer"
    size = tokenizers.load(folder).vocab_size
    shutil.rmtree(folder)
    other = "".join(chr(0x430 + i) for i in range(size))
    tokenizers.build("char", lambda: iter([other]), 0).save(folder)
    assert tokenizers.load(folder).vocab_size in (size, size + 1)
    with pytest.raises(CheckpointError, match="not the tokenizer it was trained with"):
        load_generator(copy, "tiny", "cpu")


def test_a_damaged_weight_file_is_refused(copy: Lab) -> None:
    """One flipped bit loads silently in every public format; here it must not."""
    path = copy.checkpoints / "tiny" / "step_000030" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_generator(copy, "tiny/step_000030", "cpu")
    problems: list[str] = []
    assert load_generator(copy, "tiny", "cpu", problems).info.step == 20
    assert len(problems) >= 1


def test_bad_references_and_devices_are_named(trained: Lab) -> None:
    with pytest.raises(CheckpointError, match="tinny"):
        load_generator(trained, "tinny", "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError):
            load_generator(trained, "tiny", "cuda")


def test_a_prompt_that_cannot_be_spelt_names_the_character(trained: Lab) -> None:
    with pytest.raises(TokenizerError, match="☃"):
        load_generator(trained, "tiny", "cpu").stream("the ☃", SamplingParams())
