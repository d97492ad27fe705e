"""What the experiment of the stream measures is what it says: plain passes give the same."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from benchmarks.reading import attention_mass, read, read_within
from engine.config.sections import ModelConfig
from engine.model import GPT

CONTEXT = 16


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def model(**changed: object) -> GPT:
    """A random network whose attention is far from even."""
    torch.manual_seed(0)
    values = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": CONTEXT}
    network = GPT(ModelConfig(**values, position="rope", **changed), 11).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("weight") and weight.ndim == 2:
                weight.mul_(15)
    return network


def nats(network: GPT, tokens_RN: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits = network(tokens_RN[:, :-1]).transpose(1, 2)
    return functional.cross_entropy(logits, tokens_RN[:, 1:], reduction="none")


@pytest.mark.parametrize("stream", [4, 0, None])
def test_inside_the_context_every_way_reads_as_one_pass(stream: int | None) -> None:
    network = model()
    tokens = torch.randint(11, (3, CONTEXT + 1))
    found = read(network, tokens, stream, [])
    torch.testing.assert_close(found.losses_RN, nats(network, tokens), atol=1e-5, rtol=0)


def test_beyond_it_the_ways_differ_and_the_rolling_ones_are_flat() -> None:
    """With everything kept, the losses are those of a network with a longer context; memory grows
    there and nowhere else."""
    network, longer = model(), model()
    object.__setattr__(longer.config, "context_length", 4 * CONTEXT)
    tokens = torch.randint(11, (2, 4 * CONTEXT + 1))
    marks = [CONTEXT, 2 * CONTEXT, 4 * CONTEXT]
    found = {stream: read(network, tokens, stream, marks) for stream in (4, 0, None)}
    torch.testing.assert_close(found[None].losses_RN, nats(longer, tokens), atol=1e-4, rtol=0)
    assert not torch.allclose(found[4].losses_RN[:, -8:], found[0].losses_RN[:, -8:], atol=1e-3)
    sizes = {stream: [size for _, size, _ in one.memory] for stream, one in found.items()}
    assert sizes[4] == sizes[0] == [sizes[4][0]] * 3
    assert sizes[None] == [sizes[4][0], 2 * sizes[4][0], 4 * sizes[4][0]]


def test_the_control_gives_every_token_half_a_context_or_more() -> None:
    """Each is scored once, from a window that begins with the first token of all, and holds at
    least half a context before it."""
    network = model()
    tokens = torch.randint(11, (2, 3 * CONTEXT + 6))
    found = read_within(network, tokens)
    torch.testing.assert_close(found[:, :CONTEXT], nats(network, tokens[:, : CONTEXT + 1]))
    windows = {}
    for start in range(38):
        window = tokens[:, start : start + CONTEXT + 1].clone()
        window[:, 0] = tokens[:, 0]
        windows[start] = nats(network, window)
    for token in range(CONTEXT, found.shape[1]):
        allowed = range(token - CONTEXT + 1, token - CONTEXT // 2 + 1)
        candidates = [windows[start][:, token - start] for start in allowed if start in windows]
        assert any(torch.allclose(found[:, token], one, atol=1e-5) for one in candidates)


def test_attention_is_even_where_nothing_is_told_apart() -> None:
    """Zero queries look everywhere alike; a sink with logit 0 then counts as one position more."""
    for sinks in (False, True):
        network = model(learned_sinks=sinks)
        with torch.no_grad():
            for block in network.blocks:
                block.attn.qkv.weight.zero_()
                block.attn.qkv.bias.zero_()
        own = [block.attn.attend for block in network.blocks]
        found = attention_mass(network, torch.randint(11, (2, CONTEXT)))
        queries = range(CONTEXT // 2, CONTEXT)
        even = sum(1 / (query + 1 + sinks) for query in queries) / len(queries)
        assert found.first == [pytest.approx([even] * 2, abs=1e-6)] * 2
        assert found.learned == ([pytest.approx([even] * 2, abs=1e-6)] * 2 if sinks else [])
        assert [block.attn.attend for block in network.blocks] == own


def test_of_the_queries_given_those_alone_are_counted() -> None:
    """The means over two disjoint sets of queries make up the mean over all."""
    network = model()
    tokens = torch.randint(11, (3, CONTEXT + 1))
    some = torch.rand(3, CONTEXT) < 0.5
    whole = attention_mass(network, tokens)
    parts = [attention_mass(network, tokens, queries) for queries in (some, ~some)]
    counts = [queries[:, CONTEXT // 2 :].sum().item() for queries in (some, ~some)]
    for layer in range(2):
        mean = sum(
            torch.tensor(part.first[layer]) * count / sum(counts)
            for part, count in zip(parts, counts, strict=True)
        )
        torch.testing.assert_close(mean, torch.tensor(whole.first[layer]))
        assert parts[0].first[layer] != parts[1].first[layer]
    with pytest.raises(ValueError, match="no query"):
        attention_mass(network, tokens, torch.zeros_like(some))


def test_the_length_of_the_first_value_is_over_that_of_the_others() -> None:
    """Told for each head of queries, two of which share a value here."""
    network = model(bias=False, n_kv_head=1)
    tokens = torch.randint(11, (3, CONTEXT))
    found = attention_mass(network, tokens).values
    block = network.blocks[0]
    with torch.no_grad():
        v_BTD = block.ln_1(network.wte(tokens)) @ block.attn.qkv.weight[-8:].T
    lengths = v_BTD.norm(dim=-1)
    expected = (lengths[:, 0].mean() / lengths[:, 1:].mean()).item()
    assert found[0] == [pytest.approx(expected, rel=1e-5)] * 2
    assert abs(expected - 1) > 0.01
