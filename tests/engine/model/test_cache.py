"""With the cache as without: every network, a text in any pieces, padded rows, and streams."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.model import GPT, KVCache
from engine.model.attend import seen
from engine.model.rope import rotation
from tests.engine.model.shapes import assert_same, draw_config, randomised

VOCAB = 40
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def in_pieces(model: GPT, cache: KVCache, tokens_BT: Tensor, draw: random.Random) -> Tensor:
    """The logits of a text read a few tokens at a time."""
    pieces = []
    while cache.n < tokens_BT.shape[1]:
        size = min(draw.choice((1, 1, 2, 5)), cache.largest_chunk)
        pieces.append(model(tokens_BT[:, cache.n : cache.n + size], cache))
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("seed", range(80))
@torch.no_grad()
def test_a_text_in_pieces_reads_as_a_whole(seed: int) -> None:
    draw = random.Random(seed)
    config = draw_config(seed)
    model = randomised(config, VOCAB)
    tokens = torch.randint(0, VOCAB, (2, config.context_length))
    cache = KVCache(config, 2, config.context_length, device=CPU)
    assert_same(in_pieces(model, cache, tokens, draw), model(tokens))


@pytest.mark.parametrize("seed", range(80))
@torch.no_grad()
def test_rows_of_different_lengths_read_as_if_alone(seed: int) -> None:
    """Padding at the left, whatever stands in it, is seen by nobody."""
    draw = random.Random(seed)
    config = draw_config(seed)
    model = randomised(config, VOCAB)
    longest = config.context_length
    padding = torch.tensor([0, draw.randint(1, longest - 1), draw.randint(0, longest - 1)])
    tokens = torch.randint(0, VOCAB, (3, longest))
    cache = KVCache(config, 3, longest, device=CPU, padding=padding)
    logits = in_pieces(model, cache, tokens, draw)
    assert logits.isfinite().all()
    for row, first in enumerate(padding.tolist()):
        alone = model(tokens[row : row + 1, first:])
        assert_same(logits[row, first:], alone[0])


@pytest.mark.parametrize("seed", range(20))
@torch.no_grad()
def test_windows_alone_need_no_longer_cache_for_a_longer_text(seed: int) -> None:
    """A model whose layers all have a window reads past its context, in the memory of a window."""
    draw = random.Random(seed)
    config = draw_config(
        seed, position="rope", context_length=12, window=5, window_layers="all",
        rope_scaling="none", rope_factor=1.0,
    )  # fmt: skip
    model = randomised(config, VOCAB)
    tokens = torch.randint(0, VOCAB, (1, 60))
    cache = KVCache(config, 1, 60, device=CPU)
    assert cache.layers[0].k.shape[2] == 5 + config.sink_tokens
    longer = randomised(draw_config(
        seed, position="rope", context_length=60, window=5, window_layers="all",
        rope_scaling="none", rope_factor=1.0,
    ), VOCAB)  # fmt: skip
    longer.load_state_dict(model.state_dict())
    read = in_pieces(model, cache, tokens, draw)
    assert_same(read, longer(tokens))


class PlainStream:
    """StreamingLLM as its paper tells it, a token at a time, with lists and no cleverness: keys are
    kept unturned, the first `sinks` and the newest; all are turned by their place among them."""

    def __init__(self, model: GPT, sinks: int) -> None:
        self.model, self.sinks = model, sinks
        self.kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in model.blocks]

    def __call__(self, token: Tensor) -> Tensor:
        model, config = self.model, self.model.config
        x = model.wte(token[None, None])
        for layer, block in enumerate(model.blocks):
            window = config.window_of(layer)
            kept, sinks, size = self.kept[layer], self.sinks, config.context_length
            if window and window + config.sink_tokens <= size:
                sinks, size = config.sink_tokens, window + config.sink_tokens
            H, G, D = config.n_head, config.kv_heads, config.head_width
            qkv = block.attn.qkv(block.ln_1(x)).view(H + 2 * G, D)
            q, k, v = qkv.split((H, G, G))
            if config.qk_norm:
                q, k = block.attn.q_norm(q), block.attn.k_norm(k)
            kept.append((k, v))
            if len(kept) > size:
                del kept[sinks]
            keys, values = (torch.stack(part) for part in zip(*kept, strict=True))  # (S, G, D)
            places = torch.arange(len(kept))
            if config.position == "rope":
                keys = rotation(config, places)(keys)
                q = rotation(config, places[-1:])(q[None])[0]
            times = H // G
            scores = torch.einsum("hd,shd->hs", q, keys.repeat_interleave(times, 1)) / D**0.5
            visible = seen(places[-1:], places, window, config.sink_tokens)
            scores = scores.masked_fill(~visible, float("-inf"))
            if block.attn.sinks is not None:
                scores = torch.cat((scores, block.attn.sinks[:, None]), 1)
            weights = scores.softmax(-1)[:, : len(kept)]
            y = torch.einsum("hs,shd->hd", weights, values.repeat_interleave(times, 1))
            x = x + block.attn.proj(y.reshape(1, 1, H * D))
            x = x + block.mlp(block.ln_2(x))
        return model.logits(model.ln_f(x))[0, 0]


@pytest.mark.parametrize("seed", range(30))
@torch.no_grad()
def test_a_stream_is_the_papers(seed: int) -> None:
    """Five contexts long, token by token, against the plain algorithm; memory never grows."""
    draw = random.Random(seed)
    config = draw_config(seed, position=draw.choice(("rope", "none")), context_length=9)
    sinks = draw.randint(0, 4)
    model = randomised(config, VOCAB)
    stream, plain = KVCache(config, 1, 0, device=CPU, stream=sinks), PlainStream(model, sinks)
    tokens = torch.randint(0, VOCAB, (45,))
    memory = stream.bytes
    for token in tokens:
        ours, theirs = model(token[None, None], stream)[0, 0], plain(token)
        assert_same(ours, theirs)
    assert stream.bytes == memory
    assert stream.layers[-1].k.shape[2] <= config.context_length + 4


@torch.no_grad()
def test_a_stream_in_chunks_forgets_before_it_reads() -> None:
    """The chunk's last token sees what it sees alone; inside the context all of them do."""
    config = ModelConfig(n_layer=1, n_head=2, n_embd=24, context_length=12, position="rope")
    model = randomised(config, VOCAB)
    tokens = torch.randint(0, VOCAB, (1, 40))
    one, many = (KVCache(config, 1, 0, device=CPU, stream=2) for _ in range(2))
    for first, size in ((0, 5), (5, 7), (12, 3), (15, 8), (23, 1), (24, 10)):
        chunk = tokens[:, first : first + size]
        alone = torch.cat([model(token[None], one) for token in chunk.T], dim=1)
        together = model(chunk, many)
        assert_same(together[:, -1], alone[:, -1])
        if first + size <= 12:
            assert_same(together, alone)
    assert many.largest_chunk == 10


@torch.no_grad()
def test_rows_can_be_chosen_anew() -> None:
    """Beams that live on take their past with them."""
    config = draw_config(3, position="rope", context_length=20)
    model = randomised(config, VOCAB)
    tokens = torch.randint(0, VOCAB, (3, 10))
    cache = KVCache(config, 3, 20, device=CPU)
    model(tokens, cache)
    chosen = torch.tensor([2, 0, 2, 1])
    cache.select(chosen)
    more = torch.randint(0, VOCAB, (4, 1))
    whole = torch.cat((tokens[chosen], more), dim=1)
    assert_same(model(more, cache)[:, -1], model(whole)[:, -1])


def test_grouped_heads_are_kept_once() -> None:
    many = ModelConfig(n_head=8, n_embd=64, context_length=32)
    few = ModelConfig(n_head=8, n_kv_head=2, n_embd=64, context_length=32)
    sizes = [KVCache(config, 1, 32, device=CPU).bytes for config in (many, few)]
    assert sizes[0] == 4 * sizes[1]


def test_what_a_cache_cannot_do_is_refused() -> None:
    learned = ModelConfig(n_layer=1, n_head=1, n_embd=8, context_length=8)
    with pytest.raises(InputError, match="learned positions"):
        KVCache(learned, 1, 0, device=CPU, stream=4)
    rope = ModelConfig(n_layer=1, n_head=1, n_embd=8, context_length=8, position="rope")
    with pytest.raises(InputError, match="below the model's context_length of 8"):
        KVCache(rope, 1, 0, device=CPU, stream=8)
    with pytest.raises(InputError, match="different lengths"):
        KVCache(rope, 2, 0, device=CPU, stream=2, padding=torch.tensor([0, 1]))
    cache = KVCache(rope, 1, 8, device=CPU)
    with pytest.raises(InputError, match="9 tokens"):
        randomised(rope, VOCAB)(torch.zeros(1, 9, dtype=torch.long), cache)
