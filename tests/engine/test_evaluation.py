"""Evaluation: exactly which tokens are scored, what the figures mean, and what it leaves alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.sections import ModelConfig
from engine.data import Windows
from engine.errors import CorpusError
from engine.evaluation import evaluate, perplexity
from engine.model import GPT
from engine.stream import TokenStream
from tests.engine.generation.toy import TableModel

CPU = torch.device("cpu")
VOCAB = 11


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def stream(n: int = 200, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCAB, n).astype(np.uint16)


def windows(
    tokens: np.ndarray, context: int = 8, stride: int = 0, start: int = 0, stop: int | None = None
) -> Windows:
    return Windows(TokenStream([tokens]), start, stop or len(tokens), context, stride)


def table_model(seed: int = 1) -> TableModel:
    table_VV = torch.randn(VOCAB, VOCAB, generator=torch.Generator().manual_seed(seed))
    return TableModel(table_VV)


def gpt(dropout: float = 0.0) -> GPT:
    torch.manual_seed(3)
    shape = ModelConfig(n_layer=1, n_head=2, n_embd=16, context_length=8, dropout=dropout)
    return GPT(shape, VOCAB)


def score(model, cut: Windows, byte_lengths: np.ndarray | None = None, **options):
    options = {"batch_size": 4, "device": CPU, "precision": "float32"} | options
    return evaluate(model, cut, byte_lengths, **options)


def bigram_nats(model: TableModel, tokens: np.ndarray) -> np.ndarray:
    """The cost of each token but the first: a table model sees no more than the token before."""
    log_VV = model.lm_head.weight.T.detach().double().log_softmax(1).numpy()
    return -log_VV[tokens[:-1], tokens[1:]]


@given(
    n=st.integers(10, 120),
    context=st.integers(1, 9),
    stride=st.integers(0, 12),
    batch_size=st.integers(1, 7),
)
@settings(max_examples=80, deadline=None)
def test_each_target_is_scored_once_and_the_mean_is_over_those(n, context, stride, batch_size):
    """Against plain arithmetic on the tokens, for overlapping, touching and spaced windows."""
    tokens, model = stream(n), table_model()
    result = score(model, windows(tokens, context, stride), batch_size=batch_size)
    step = stride or context
    scored = sorted(
        {
            target
            for start in range(0, n - context, step)
            for target in range(start, start + context)
        }
    )
    assert result.tokens == len(scored)
    assert result.loss == pytest.approx(bigram_nats(model, tokens)[scored].mean(), rel=1e-6)
    assert result.perplexity == pytest.approx(math.exp(result.loss))
    assert (result.context, result.stride) == (context, step)
    assert result.windows == len(range(0, n - context, step))


def test_overlapping_windows_give_the_later_targets_their_context() -> None:
    """With stride 1 all but the first window's targets are predicted from a full context."""
    model, tokens = gpt().eval(), stream(40)
    result = score(model, windows(tokens, context=8, stride=1))
    with torch.no_grad():
        rows = [
            model(torch.from_numpy(tokens[s : s + 8].astype(np.int64))[None]) for s in range(32)
        ]
    log = [row[0].double().log_softmax(1) for row in rows]
    nats = [-log[0][i, tokens[i + 1]].item() for i in range(8)]
    nats += [-log[s][7, tokens[s + 8]].item() for s in range(1, 32)]
    assert result.tokens == len(nats) == 39
    assert result.loss == pytest.approx(np.mean(nats), abs=1e-6)


def test_the_batch_size_does_not_matter() -> None:
    model, tokens = gpt(), stream(300)
    losses = [
        score(model, windows(tokens, stride=3), batch_size=size).loss for size in (1, 5, 64, 1000)
    ]
    assert max(losses) - min(losses) < 1e-6


def test_nothing_outside_the_part_is_touched() -> None:
    """The validation part begins at its boundary: other tokens before and after change nothing."""
    tokens, model = stream(100), table_model()
    inside = score(model, windows(tokens, start=40, stop=80))
    changed = tokens.copy()
    changed[:40], changed[80:] = 0, 0
    assert score(model, windows(changed, start=40, stop=80)).loss == inside.loss
    changed[40] = (changed[40] + 1) % VOCAB
    assert score(model, windows(changed, start=40, stop=80)).loss != inside.loss


def test_bits_per_byte_is_nats_per_ln2_bytes_without_special_tokens() -> None:
    tokens, model = stream(81), table_model()
    lengths = np.array([0, 1, 2, 3, 1, 1, 1, 1, 4, 1, 0], dtype=np.int32)
    result = score(model, windows(tokens, context=8), lengths)
    targets, nats = tokens[1:], bigram_nats(model, tokens)
    text = lengths[targets] > 0
    assert 0 < text.sum() < len(text)
    assert result.bytes == lengths[targets].sum()
    expected = nats[text].sum() / (math.log(2) * lengths[targets].sum())
    assert result.bits_per_byte == pytest.approx(expected, rel=1e-6)
    assert result.loss == pytest.approx(nats.mean(), rel=1e-6)  # special tokens do count here


def test_bits_per_byte_counts_each_overlapped_target_once() -> None:
    tokens, lengths = stream(81), np.ones(VOCAB, dtype=np.int32)
    result = score(table_model(), windows(tokens, context=8, stride=3), lengths)
    assert result.bytes == result.tokens
    assert result.bits_per_byte == pytest.approx(result.loss / math.log(2), rel=1e-6)


def test_bits_per_byte_is_none_when_there_are_no_bytes() -> None:
    assert score(table_model(), windows(stream())).bits_per_byte is None
    nothing = np.zeros(VOCAB, dtype=np.int32)
    assert score(table_model(), windows(stream()), nothing).bits_per_byte is None


@pytest.mark.parametrize(
    ("max_tokens", "stride", "scored"),
    [(0, 0, 192), (24, 0, 24), (31, 0, 24), (3, 0, 8), (10_000, 0, 192), (12, 2, 12), (13, 2, 12)],
)
def test_max_tokens_scores_the_first_windows(max_tokens, stride, scored) -> None:
    tokens, model = stream(200), table_model()
    result = score(model, windows(tokens, stride=stride), max_tokens=max_tokens)
    assert result.tokens == scored
    assert result.loss == pytest.approx(bigram_nats(model, tokens)[:scored].mean(), rel=1e-6)


def test_stopping_leaves_no_result_and_no_trace() -> None:
    model = gpt(dropout=0.5).train()
    answers = iter([False, True])
    told: list[tuple[int, int]] = []
    result = score(
        model,
        windows(stream()),
        should_stop=lambda: next(answers),
        progress=lambda done, total: told.append((done, total)),
    )
    assert result is None
    assert told == [(4, 24)]
    assert all(module.training for module in model.modules())


def test_progress_ends_at_the_total_also_with_a_part_batch() -> None:
    told: list[tuple[int, int]] = []
    score(
        table_model(),
        windows(stream()),
        batch_size=10,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(10, 24), (20, 24), (24, 24)]


def test_training_does_not_notice() -> None:
    """Dropout is off inside, every module's mode is back afterwards, no random number is drawn."""
    model = gpt(dropout=0.5).train()
    model.blocks[0].eval()
    modes = [module.training for module in model.modules()]
    before = torch.get_rng_state()
    first = score(model, windows(stream())).loss
    assert first == score(model, windows(stream())).loss
    assert torch.equal(before, torch.get_rng_state())
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_loss_is_reduced_in_float32_under_autocast() -> None:
    """bfloat16 has 8 bits: summing the loss in it would be off by per cents."""
    exact = score(gpt(), windows(stream(2000))).loss
    rough = score(gpt(), windows(stream(2000)), precision="bfloat16").loss
    assert rough != exact
    assert rough == pytest.approx(exact, abs=2e-3)


def test_no_window_is_an_error_and_not_nan() -> None:
    with pytest.raises(CorpusError, match="no window of 8"):
        score(table_model(), windows(stream(8)))


def test_perplexity_of_a_diverged_model_is_infinite_not_an_overflow() -> None:
    assert perplexity(800.0) == math.inf
    assert math.isnan(perplexity(math.nan))
