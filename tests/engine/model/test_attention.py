"""The written-out attention and the fused kernel must be one function."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.model import GPT
from engine.model.attend import Sight, fused_attention, quickest_attention, reference_attention

CAUSAL = Sight(causal=True)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize(("heads", "length", "width"), [(1, 1, 8), (2, 7, 24), (3, 33, 64)])
def test_reference_equals_the_fused_kernel(heads: int, length: int, width: int) -> None:
    """Outputs and gradients of queries, keys and values."""
    q, k, v = (torch.randn(2, heads, length, width, requires_grad=True) for _ in range(3))
    upstream = torch.randn(2, heads, length, width)
    results = []
    for attend in (reference_attention, fused_attention):
        y = attend(q, k, v, CAUSAL, None, 0.0)
        results.append((y, *torch.autograd.grad(y, (q, k, v), upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=1e-5)


def test_the_scale_matters() -> None:
    """The comparison above would be worth nothing if attention ignored its logits' scale."""
    q, k, v = (torch.randn(1, 2, 9, 32) for _ in range(3))
    wrong = reference_attention(q * 32**0.5, k, v, CAUSAL, None, 0.0)
    assert (wrong - fused_attention(q, k, v, CAUSAL, None, 0.0)).abs().max() > 0.1


def test_both_paths_train_alike() -> None:
    """The whole network by either path: the same loss and the same gradients."""
    config = ModelConfig(n_layer=2, n_head=3, n_embd=72, context_length=20)
    fused = GPT(config, 60)
    written = GPT(replace(config, attention="reference"), 60)
    written.load_state_dict(fused.state_dict())
    tokens = torch.randint(0, 60, (2, 20))
    for model in (fused, written):
        model(tokens).logsumexp(-1).sum().backward()
    for (name, p), (_, q) in zip(fused.named_parameters(), written.named_parameters(), strict=True):
        torch.testing.assert_close(
            p.grad, q.grad, atol=2e-4, rtol=1e-4, msg=lambda m, n=name: n + m
        )


def test_reference_attention_drops_weights() -> None:
    q, k, v = (torch.randn(1, 1, 40, 8) for _ in range(3))
    dropped = reference_attention(q, k, v, CAUSAL, None, 0.5)
    assert not torch.allclose(dropped, reference_attention(q, k, v, CAUSAL, None, 0.0))


@pytest.mark.parametrize(
    ("T", "dtype"), [(64, torch.bfloat16), (600, torch.bfloat16), (64, torch.float32)]
)
def test_the_quickest_path_is_one_of_the_two(T: int, dtype: torch.dtype) -> None:
    """Written out in bfloat16 up to a length, where its matrix is small; fused elsewhere."""
    q, k, v = (torch.randn(1, 2, T, 16, dtype=dtype) for _ in range(3))
    expected = reference_attention if (T, dtype) == (64, torch.bfloat16) else fused_attention
    assert torch.equal(
        quickest_attention(q, k, v, CAUSAL, None, 0.0), expected(q, k, v, CAUSAL, None, 0.0)
    )
    assert not torch.equal(
        reference_attention(q, k, v, CAUSAL, None, 0.0), fused_attention(q, k, v, CAUSAL, None, 0.0)
    )
