"""Eight bits: within half a step of the weights, close to the network, a quarter of the memory."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.generation.generate import generate
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.generation.quantised import Int8Linear, check_kind, quantise_linear
from engine.tokenizers import build
from tests.engine.model.shapes import draw_config, randomised

CPU = torch.device("cpu")
BYTES = build("bytes", lambda: iter(()), 257)


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, 64])
@pytest.mark.parametrize(("inputs", "outputs"), [(96, 64), (96, 65), (20, 7), (64, 1)])
def test_a_layer_is_its_rounded_weights(rows: int, inputs: int, outputs: int) -> None:
    """Few rows by the int8 kernel, many by a float product: the same layer, of any size."""
    torch.manual_seed(rows)
    linear = nn.Linear(inputs, outputs)
    layer = Int8Linear(linear)
    stored = (layer.weight.float() * layer.scale[:, None])[:outputs]
    assert ((stored - linear.weight).abs() <= layer.scale[:outputs, None] * 0.5001).all()
    x = torch.randn(2, rows, inputs)
    expected = x @ stored.T + linear.bias
    # bfloat16 has eight bits: each of 96 terms is off by at most 2^-8 of itself, by chance.
    assert (layer(x) - expected).abs().max() < 0.02
    assert layer(x).shape == expected.shape


@torch.no_grad()
@pytest.mark.parametrize("seed", range(8))
def test_a_quantised_network_is_nearly_the_network(seed: int) -> None:
    model = randomised(draw_config(seed, n_expert=0), 257)
    tokens = torch.randint(0, 257, (1, model.config.context_length))
    before = model(tokens).log_softmax(-1)
    quantise_linear(model)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    after = model(tokens).log_softmax(-1)
    divergence = (before.exp() * (before - after)).sum(-1).mean()
    assert 0 < divergence < 0.02


def test_memory_is_a_quarter_and_it_speaks() -> None:
    config = ModelConfig(n_layer=2, n_head=2, n_embd=64, context_length=32, position="rope")
    model = randomised(config, 257)
    before = sum(p.numel() * p.element_size() for p in model.blocks.parameters())
    quantise_linear(model)
    tensors = [*model.blocks.parameters(), *model.blocks.buffers()]
    after = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert after < 0.3 * before
    params = SamplingParams(temperature=0.0, max_tokens=40)
    assert len(list(generate(model, BYTES, "abc", params, device=CPU))) == 40


@torch.no_grad()
def test_another_layout_is_the_same_network() -> None:
    for seed in range(6):
        model = randomised(draw_config(seed), 257)
        tokens = torch.randint(0, 257, (1, model.config.context_length))
        before, state = model(tokens), {k: v.clone() for k, v in model.state_dict().items()}
        lay_out(model)
        torch.testing.assert_close(model(tokens), before, atol=1e-4, rtol=1e-4)
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_another_kind_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="quantise = 'int3'"):
        check_kind("int3")
