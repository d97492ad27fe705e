"""Which parameters decay, and that the update is AdamW's."""

from __future__ import annotations

import pytest
import torch

from engine.config.sections import ModelConfig, OptimizerConfig
from engine.model import GPT
from engine.optim import build_optimizer, decay_groups

CPU = torch.device("cpu")


def network(**values: object) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}
    return GPT(ModelConfig(**shape | values), 30)


def test_matrices_decay_and_biases_norms_positions_do_not() -> None:
    groups = decay_groups(network(tie_embeddings=False))
    assert "wte.weight" in groups["decay"]
    assert "lm_head.weight" in groups["decay"]
    assert "blocks.1.attn.qkv.weight" in groups["decay"]
    assert "wpe.weight" in groups["no_decay"]
    assert all(n.endswith("weight") and ".ln_" not in f".{n}" for n in groups["decay"])
    assert {n for n in groups["no_decay"] if n.endswith("weight") and "ln_" not in n} == {
        "wpe.weight"
    }


@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group_once(tied: bool) -> None:
    """A tied matrix listed twice would be updated twice a step."""
    model = network(tie_embeddings=tied)
    optimizer = build_optimizer(model, OptimizerConfig(), CPU)
    updated = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert len(updated) == len(set(updated))
    assert set(updated) == {id(p) for p in model.parameters()}


def test_decay_acts_on_its_group_alone() -> None:
    """With zero gradients the only movement is decay: p ← p·(1 − lr·λ)."""
    model = network()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5), CPU)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()
    decaying = set(decay_groups(model)["decay"])
    for name, p in model.named_parameters():
        factor = 0.95 if name in decaying else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor)


def test_the_update_is_adamws() -> None:
    """First step by hand: with bias correction it is lr·sign(g), after the decay."""
    model = network()
    name, parameter = next(iter(model.named_parameters()))
    assert name == "wte.weight"
    before = parameter.detach().clone()
    optimizer = build_optimizer(model, OptimizerConfig(lr=0.01, weight_decay=0.1), CPU)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    expected = before * (1 - 0.01 * 0.1) - 0.01 * parameter.grad.sign()
    torch.testing.assert_close(parameter.detach(), expected, atol=1e-6, rtol=1e-4)


def test_names_and_moments_travel_in_the_state() -> None:
    """A checkpoint reads names from the groups; two builds must agree on the order."""
    first, second = (build_optimizer(network(), OptimizerConfig(), CPU) for _ in range(2))
    names = [group["param_names"] for group in first.state_dict()["param_groups"]]
    assert names == [group["param_names"] for group in second.state_dict()["param_groups"]]
    assert names[0] == decay_groups(network())["decay"]
    assert first.param_groups[0]["fused"] is True
