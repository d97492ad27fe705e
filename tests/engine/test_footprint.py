"""The memory formulas against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.arithmetic import matmul_parameters
from engine.config import Config
from engine.config.sections import ModelConfig, SaveConfig, TrainConfig
from engine.device import autocast
from engine.footprint import activation_bytes, checkpoint_bytes, disk_bytes, training_memory
from engine.model import GPT

CPU = torch.device("cpu")
VOCAB = 64


def small(**values: object) -> Config:
    shape = {"n_layer": 3, "n_head": 4, "n_embd": 64, "context_length": 48}
    return Config(model=ModelConfig(**shape | values), train=TrainConfig(batch_size=6, max_steps=1))


def kept_by_autograd(config: Config, precision: str) -> int:
    """Bytes of all tensors saved for the backward pass up to the logits, parameters left out."""
    torch.set_num_threads(1)
    model = GPT(config.model, VOCAB)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        pointer = tensor.untyped_storage().data_ptr()
        if pointer not in own:
            kept[pointer] = tensor
        return tensor

    tokens = torch.zeros(6, config.model.context_length, dtype=torch.long)
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with hooks, autocast(CPU, precision):
        model(tokens)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("attention", ["auto", "sdpa", "reference"])
def test_activations_are_what_autograd_keeps(
    attention: str, dropout: float, precision: str
) -> None:
    """Within 3 %: norms' statistics and the token ids are left out of the formula."""
    config = small(attention=attention, dropout=dropout)
    measured = kept_by_autograd(config, precision)
    if precision == "bfloat16":
        measured -= 2 * matmul_parameters(config.model, VOCAB)  # counted with the weights
    assert activation_bytes(config, precision, "cpu") == pytest.approx(measured, rel=0.03)


def test_parts_add_up_and_follow_the_shape() -> None:
    config = small()
    memory = training_memory(config, VOCAB, "float32", "cpu")
    assert memory.total == sum(size for _, size in memory.parts())
    assert memory.gradients == memory.weights == memory.optimizer // 2
    doubled = replace(config, train=replace(config.train, batch_size=12))
    assert training_memory(doubled, VOCAB, "float32", "cpu").activations == 2 * memory.activations
    assert training_memory(config, VOCAB, "float32", "cuda").host_saving == memory.host_saving
    assert "snapshot" not in dict(training_memory(config, VOCAB, "float32", "cuda").parts())


def test_disk_follows_the_save_policy() -> None:
    """Rolling needs two for a moment: the old one goes only when the new one is durable."""
    config, one = small(), checkpoint_bytes(1000)
    assert one == 12_000

    def disk(policy: str, every: int, steps: int | None) -> int | None:
        return disk_bytes(replace(config, save=SaveConfig(policy=policy, every=every)), 1000, steps)

    assert disk("none", 100, 1000) == 0
    assert disk("rolling", 100, None) == 2 * one
    assert disk("all", 100, 1000) == 12 * one
    assert disk("all", 0, 1000) == 3 * one
    assert disk("all", 100, None) is None
