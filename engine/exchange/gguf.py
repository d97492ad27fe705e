"""A checkpoint as a GGUF file that llama.cpp runs: metadata, vocabulary and weights in one file.

Which networks can be: `gguf_networks`; their tensors: `gguf_tensors`; the tokens of a text:
`gguf_vocabulary`. Needs torch, and the package gguf (an extra), which writes the format.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from engine import atomic
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange.families import Family
from engine.exchange.gguf_networks import network_of
from engine.exchange.gguf_tensors import to_gguf, wants_float32
from engine.exchange.gguf_vocabulary import NEVER, check_names, pre_tokenizer
from engine.exchange.vocabulary import BpeVocabulary, bpe_vocabulary
from engine.generation.load import Generator, load_generator
from engine.lab import Lab
from engine.text import visible

if TYPE_CHECKING:
    import gguf

TYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class ExportedFile:
    """A file that is there. `architecture`: llama.cpp's name for the network; `pre_tokenizer`: its
    name for the rule that cuts text."""

    path: Path
    architecture: str
    pre_tokenizer: str
    dtype: str
    bytes: int


def export_gguf(
    lab: Lab,
    reference: str,
    path: Path,
    *,
    dtype: str = "float16",
    progress: Callable[[int, int], None] = lambda done, total: None,
    problems: list[str] | None = None,
) -> ExportedFile:
    """Write the checkpoint that `reference` means to the file `path`, replacing what is there.

    `dtype`: of the matrices; norms, biases and routers stay in float32. `progress(done, total)`
    counts bytes of weights. Broken checkpoints that were passed over are named in `problems`.
    Raises InputError when the package is absent, for a network that llama.cpp does not have (by the
    name of the field), for weights that `dtype` cannot hold and for a file that cannot be written;
    TokenizerError for a vocabulary that would give other ids there; CheckpointError.
    """
    if dtype not in TYPES:
        raise InputError(f"dtype = '{dtype}': not one of {', '.join(TYPES)}")
    check_package()
    source = load_generator(lab, reference, "cpu", problems)
    model = source.config.model
    network = network_of(model)
    vocabulary = bpe_vocabulary(source.tokenizer)
    check_names(vocabulary)
    pre = pre_tokenizer(vocabulary)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder", "name the file to write, such as model.gguf")
    folder = path.absolute().parent
    # A folder of our own: nobody else can have put a link where the package opens its file.
    temporary = folder / f".tmp-{path.name}-{threading.get_native_id()}-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.discard(temporary)
        temporary.mkdir(mode=0o700)
        written = temporary / path.name
        _write(written, source, network, vocabulary, pre, dtype, progress)
        os.replace(written, path)
        atomic.sync_directory(folder)
    except OSError as error:
        raise InputError(
            f"cannot write '{path}': {error.strerror or error}",
            "choose another place; nothing was left behind",
        ) from error
    finally:
        atomic.discard(temporary)
    return ExportedFile(path, network.model_type, pre, dtype, path.stat().st_size)


def check_package() -> None:
    """Raises InputError with the remedy where gguf is not installed."""
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise InputError(
            "writing a GGUF file needs the package gguf", "run: pip install 'tui-lab[gguf]'"
        ) from None


def _write(
    path: Path,
    source: Generator,
    network: Family,
    vocabulary: BpeVocabulary,
    pre: str,
    dtype: str,
    progress: Callable[[int, int], None],
) -> None:
    import gguf

    model = source.config.model
    state = source.model.state_dict()
    writer = gguf.GGUFWriter(path, network.model_type)
    try:
        writer.add_name(visible(source.info.run, lines=False))
        writer.add_file_type(
            {
                "float32": gguf.LlamaFileType.ALL_F32,
                "bfloat16": gguf.LlamaFileType.MOSTLY_BF16,
                "float16": gguf.LlamaFileType.MOSTLY_F16,
            }[dtype]
        )
        _add_shape(writer, model, len(vocabulary.tokens))
        _add_vocabulary(writer, vocabulary, pre)
        total = _add_tensors(writer, state, model, network, dtype)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        done = 0
        for name, tensor in to_gguf(state, model, network):
            numbers = _converted(name, tensor, dtype).numpy()
            writer.write_tensor_data(numbers)
            done += numbers.nbytes
            progress(done, total)
        writer.flush()
        assert writer.fout is not None
        os.fsync(writer.fout[0].fileno())
    finally:
        writer.close()


def _add_shape(writer: gguf.GGUFWriter, model: ModelConfig, vocab_size: int) -> None:
    writer.add_vocab_size(vocab_size)
    writer.add_context_length(model.context_length)
    writer.add_embedding_length(model.n_embd)
    writer.add_block_count(model.n_layer)
    writer.add_feed_forward_length(model.hidden_width)
    writer.add_head_count(model.n_head)
    writer.add_head_count_kv(model.kv_heads)
    writer.add_key_length(model.head_width)
    writer.add_value_length(model.head_width)
    if model.norm == "layernorm":
        writer.add_layer_norm_eps(model.norm_eps)
    else:
        writer.add_layer_norm_rms_eps(model.norm_eps)
    if model.n_expert:
        writer.add_expert_count(model.n_expert)
        writer.add_expert_used_count(model.n_expert_active)
        writer.add_expert_feed_forward_length(model.hidden_width)
    if model.learned_sinks:
        # Obligatory: a window as wide as the context hides nothing.
        writer.add_sliding_window(model.window or model.context_length)
    if model.position == "rope":
        _add_rope(writer, model)


def _add_rope(writer: gguf.GGUFWriter, model: ModelConfig) -> None:
    import gguf

    writer.add_rope_dimension_count(model.head_width)
    writer.add_rope_freq_base(model.rope_base)
    if model.rope_scaling not in ("linear", "yarn"):
        return  # of llama3 the file holds what each pair's speed is divided by
    writer.add_rope_scaling_type(gguf.RopeScalingType(model.rope_scaling))
    writer.add_rope_scaling_factor(model.rope_factor)
    if model.rope_scaling == "yarn":
        original = model.rope_original_context or int(model.context_length / model.rope_factor)
        writer.add_rope_scaling_orig_ctx_len(original)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: BpeVocabulary, pre: str) -> None:
    assert vocabulary.eos_id is not None
    writer.add_tokenizer_model("gpt2")  # byte-level BPE, whoever's
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types([int(kind) for kind in vocabulary.types])
    writer.add_token_merges(vocabulary.merges or [NEVER])
    writer.add_eos_token_id(vocabulary.eos_id)
    bos = vocabulary.eos_id if vocabulary.bos_id is None else vocabulary.bos_id
    writer.add_bos_token_id(bos)
    # A prompt is continued as it is: the network has read texts from anywhere in a document.
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)


def _add_tensors(
    writer: gguf.GGUFWriter,
    state: dict[str, Tensor],
    model: ModelConfig,
    network: Family,
    dtype: str,
) -> int:
    """Name and shape of every tensor for the file's head; their bytes in all."""
    import gguf
    import numpy as np

    kinds = {
        "float32": gguf.GGMLQuantizationType.F32,
        "bfloat16": gguf.GGMLQuantizationType.BF16,
        "float16": gguf.GGMLQuantizationType.F16,
    }
    total = 0
    shapes = {name: tensor.to("meta") for name, tensor in state.items()}
    for name, tensor in to_gguf(shapes, model, network):
        kind = "float32" if wants_float32(name) else dtype
        size = tensor.numel() * TYPES[kind].itemsize
        writer.add_tensor_info(
            name, tuple(tensor.shape), np.dtype(np.float32), size, raw_dtype=kinds[kind]
        )
        total += size
    return total


def _converted(name: str, tensor: Tensor, dtype: str) -> Tensor:
    """The tensor in the type that the file has it in; bfloat16 as integers, which numpy knows.
    Raises InputError for a number that float16 cannot hold."""
    kept = tensor.float() if wants_float32(name) else tensor.to(TYPES[dtype])
    if kept.dtype == torch.float16 and kept.isinf().any() and not tensor.isinf().any():
        raise InputError(
            f"the tensor '{name}' has numbers above 65504, which float16 cannot hold",
            "take --dtype bfloat16 or float32",
        )
    kept = kept.contiguous()
    return kept.view(torch.int16) if kept.dtype == torch.bfloat16 else kept
