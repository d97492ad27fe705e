"""The network itself: its shapes, its start, its causality, and what it refuses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.model import GPT

TINY = ModelConfig(n_layer=2, n_head=2, n_embd=48, context_length=16)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_nano_gives_the_golden_shape_and_first_loss() -> None:
    """REFERENCES.md: (2, 64) ids give (2, 64, 50257) logits; the first loss is ln V = 10.82."""
    nano = ModelConfig(n_layer=6, n_head=4, n_embd=256, context_length=256, tie_embeddings=False)
    model = GPT(nano, 50257)
    batch = torch.randint(0, 50257, (2, 65))
    with torch.no_grad():
        logits = model(batch[:, :-1])
    assert logits.shape == (2, 64, 50257)
    loss = functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(50257), abs=0.1)


def test_a_position_never_sees_its_future() -> None:
    """Changing a token must change nothing before it, and something at and after it."""
    model = GPT(TINY, 50).eval()
    tokens = torch.randint(0, 50, (1, 16))
    changed = tokens.clone()
    changed[0, 9] = (changed[0, 9] + 1) % 50
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:9].max() == 0
    assert (difference[9:] > 0).all()


def test_the_order_of_tokens_matters() -> None:
    """Without position embeddings the last logits would not notice a swap of earlier tokens."""
    model = GPT(TINY, 50).eval()
    with torch.no_grad():
        a = model(torch.tensor([[1, 2, 3]]))[0, -1]
        b = model(torch.tensor([[2, 1, 3]]))[0, -1]
    assert not torch.allclose(a, b, atol=1e-6)


def test_initialisation_follows_gpt2() -> None:
    """0.02 for what reads the residual stream, 0.02/√(2L) for what writes to it."""
    model = GPT(ModelConfig(n_layer=8, n_head=2, n_embd=128, context_length=64), 300)
    block = model.blocks[3]
    for matrix in (block.attn.qkv, block.mlp.fc, model.wte, model.wpe):
        assert matrix.weight.std().item() == pytest.approx(0.02, rel=0.03)
    for matrix in (block.attn.proj, block.mlp.proj):
        assert matrix.weight.std().item() == pytest.approx(0.02 / math.sqrt(16), rel=0.03)
    assert block.attn.qkv.bias.abs().max() == 0
    assert (block.ln_1.weight == 1).all()


def test_the_same_seed_starts_the_same_network() -> None:
    torch.manual_seed(7)
    first = GPT(TINY, 50).state_dict()
    torch.manual_seed(7)
    second = GPT(TINY, 50).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_tied_matrix_is_one_parameter_and_stored_once() -> None:
    """Saved twice it would cost disk; restored into two tensors it would come untied."""
    model = GPT(TINY, 50)
    state = {name: value + 1 for name, value in model.state_dict().items()}
    assert "lm_head.weight" not in state
    other = GPT(TINY, 50)
    other.load_state_dict(state)  # strict
    assert other.lm_head.weight is other.wte.weight
    assert torch.equal(other.lm_head.weight, state["wte.weight"])


def test_an_untied_model_stores_its_output_matrix() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, tie_embeddings=False), 50)
    assert "lm_head.weight" in model.state_dict()
    assert model.lm_head.weight is not model.wte.weight


def test_loading_still_notices_a_missing_tensor() -> None:
    state = GPT(TINY, 50).state_dict()
    del state["blocks.1.mlp.fc.weight"]
    with pytest.raises(RuntimeError, match=r"blocks\.1\.mlp\.fc\.weight"):
        GPT(TINY, 50).load_state_dict(state)


def test_input_longer_than_the_context_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"17 tokens .* context_length of 16"):
        GPT(TINY, 50)(torch.zeros(1, 17, dtype=torch.long))


def test_without_bias_no_layer_has_one() -> None:
    model = GPT(ModelConfig(n_layer=1, n_head=1, n_embd=8, bias=False), 50)
    assert not [name for name, _ in model.named_parameters() if name.endswith("bias")]


def test_dropout_acts_in_training_alone() -> None:
    config = ModelConfig(n_layer=1, n_head=1, n_embd=16, context_length=8, dropout=0.5)
    model = GPT(config, 50)
    tokens = torch.randint(0, 50, (1, 8))
    assert not torch.equal(model(tokens), model(tokens))
    model.eval()
    assert torch.equal(model(tokens), model(tokens))
