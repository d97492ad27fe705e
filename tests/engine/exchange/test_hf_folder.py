"""Folders that anybody may have written: nothing in one is believed, nothing outside is read."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from engine.errors import InputError
from engine.exchange import hf_config, weights
from engine.exchange.families import FAMILIES, family_of
from engine.exchange.hf_folder import INDEX, WEIGHTS, read_folder
from engine.exchange.importing import read_tensor
from tests.engine.exchange.pairs import as_theirs, network

VOCAB = 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder in two shards."""
    model = network("llama", 2, VOCAB)
    values = hf_config.to_hf(model.config, family_of(model.config), VOCAB, 0, "float32")
    (tmp_path / "config.json").write_text(json.dumps(values))
    state = as_theirs(model.config, model.state_dict())
    names = sorted(state)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, tmp_path / file)
    write_index(tmp_path, {name: file for file, held in shards.items() for name in held})
    return tmp_path


def write_index(folder: Path, places: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_shards_are_one_model(folder: Path) -> None:
    found = read_folder(folder)
    assert {stored.file.name for stored in found.tensors.values()} == {
        "a.safetensors",
        "b.safetensors",
    }
    state = as_theirs((model := network("llama", 2, VOCAB)).config, model.state_dict())
    assert found.shapes == {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name, stored in found.tensors.items():
        assert torch.equal(read_tensor(stored), state[name])


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/a.safetensors", "sub/a.safetensors", "..\\a.safetensors",
     ".a.safetensors", "a\0.safetensors", "pytorch_model.bin", "a", 3, None, ["a.safetensors"]],
)  # fmt: skip
def test_an_index_leads_nowhere_else(folder: Path, name: Any) -> None:
    write_index(folder, {"x": name})
    with pytest.raises(InputError, match="no file of the folder"):
        read_folder(folder)


@pytest.mark.parametrize("places", [None, [], "a", {}, 7])
def test_an_index_without_a_map(folder: Path, places: Any) -> None:
    write_index(folder, places)
    with pytest.raises(InputError, match="weight_map"):
        read_folder(folder)


def test_an_index_of_more_files_than_there_can_be(folder: Path) -> None:
    write_index(folder, {str(i): f"{i}.safetensors" for i in range(3000)})
    with pytest.raises(InputError, match="3000 files"):
        read_folder(folder)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    (folder / "b.safetensors").unlink()
    with pytest.raises(InputError, match=r"b\.safetensors"):
        read_folder(folder)


def test_a_tensor_in_two_files_is_named(folder: Path) -> None:
    save_file({"model.norm.weight": torch.ones(3)}, folder / "c.safetensors")
    write_index(folder, {str(i): f"{i}.safetensors" for i in "abc"})
    with pytest.raises(InputError, match=r"'model\.norm\.weight' is in"):
        read_folder(folder)


def test_a_pickle_is_not_opened(folder: Path) -> None:
    """Beside safetensors it is passed over, as published folders have both; alone it is refused."""
    # Reading it would show: it is a program that leaves a mark.
    mark = folder / "mark"
    pickle = f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode()
    (folder / "pytorch_model.bin").write_bytes(pickle)
    assert read_folder(folder).tensors
    (folder / INDEX).unlink()
    for shard in folder.glob("*.safetensors"):
        shard.unlink()
    with pytest.raises(InputError, match=r"pytorch_model\.bin' is a pickle"):
        read_folder(folder)
    (folder / "pytorch_model.bin").rename(folder / WEIGHTS)
    with pytest.raises(InputError, match="broken"):
        read_folder(folder)
    assert not mark.exists()


def test_a_cache_of_links_is_read_and_no_pipe_is_waited_for(folder: Path) -> None:
    (folder / "a.safetensors").rename(folder / "blob")
    (folder / "a.safetensors").symlink_to("blob")
    assert read_folder(folder).tensors
    (folder / "a.safetensors").unlink()
    os.mkfifo(folder / "a.safetensors")
    with pytest.raises(InputError, match="not a plain file"):
        read_folder(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", "[" * 100_000, "x" * 1_100_000, '"a"', "\xff"],
    ids=["empty", "list", "open", "deep", "long", "text", "bytes"],
)
def test_a_config_that_is_none(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"config\.json"):
        read_folder(folder)


def test_no_folder_and_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"there is no config\.json"):
        read_folder(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"there is no model\.safetensors"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        read_folder(tmp_path / "config.json")


def test_a_header_of_absurd_shapes(folder: Path) -> None:
    """Bounds before memory: terabytes are refused from a file of a few bytes."""
    (folder / INDEX).unlink()
    entry = {"dtype": "F32", "shape": [1 << 40, 1 << 20], "data_offsets": [0, 1 << 62]}
    header = json.dumps({"model.embed_tokens.weight": entry}).encode()
    (folder / WEIGHTS).write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(InputError, match="broken"):
        read_folder(folder)


# The tensors of a network --------------------------------------------------------------------


def shapes_of(kind: str, seed: int = 3) -> tuple[Any, dict[str, tuple[int, ...]]]:
    config = network(kind, seed, VOCAB).config
    found = weights.pieces(config, VOCAB, FAMILIES[kind])
    return config, {piece.name: piece.shape for piece in found}


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_tensor_missing_misshapen_or_foreign_is_named(kind: str) -> None:
    config, shapes = shapes_of(kind)
    family = FAMILIES[kind]
    weights.check_shapes(shapes, config, VOCAB, family)
    for name in shapes:
        with pytest.raises(InputError, match="missing") as caught:
            weights.check_shapes(
                {k: v for k, v in shapes.items() if k != name}, config, VOCAB, family
            )
        assert f"'{name}'" in caught.value.title
        with pytest.raises(InputError, match="has the shape") as caught:
            weights.check_shapes(shapes | {name: (*shapes[name], 1)}, config, VOCAB, family)
        assert f"'{name}'" in caught.value.title
    with pytest.raises(InputError, match=r"'score\.weight' has no place"):
        weights.check_shapes(shapes | {"score.weight": (2, 2)}, config, VOCAB, family)


def test_claims_of_millions_of_tensors_end_at_the_first_that_is_not_there() -> None:
    """A config.json of a few bytes may claim a thousand layers of four thousand experts."""
    values = {
        "model_type": "mixtral", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
        "num_hidden_layers": 1000, "num_attention_heads": 1, "num_key_value_heads": 1,
        "max_position_embeddings": 8, "num_local_experts": 4096,
    }  # fmt: skip
    config, vocab_size = hf_config.from_hf(values)
    with pytest.raises(InputError, match="is missing"):
        weights.check_shapes({}, config, vocab_size, FAMILIES["mixtral"])


def test_gpt2_as_it_was_published() -> None:
    """Its folder leaves out the prefix, and stores the causal masks."""
    model = network("gpt2", 5, VOCAB)
    config, family = model.config, FAMILIES["gpt2"]
    theirs = as_theirs(config, model.state_dict())
    stored = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
    context = config.context_length
    for layer in range(config.n_layer):
        stored[f"h.{layer}.attn.bias"] = torch.ones(1, 1, context, context)
        stored[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    shapes = {name: tuple(tensor.shape) for name, tensor in stored.items()}
    back = dict(weights.from_hf(stored.__getitem__, shapes, config, VOCAB, family))
    for name, tensor in model.state_dict().items():
        assert torch.equal(back[name], tensor), name
