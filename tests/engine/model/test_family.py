"""What holds for every network of the family: causality, one function by all kernels, its table."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.arithmetic import active_parameters, matmul_parameters, parameter_table
from engine.config.architecture import check_architecture
from engine.config.sections import ModelConfig
from engine.errors import ConfigError
from engine.model import GPT, Routing
from tests.engine.model.shapes import assert_same, draw_config, randomised

VOCAB = 40


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def tokens_for(config: ModelConfig, rows: int = 2, length: int | None = None) -> torch.Tensor:
    return torch.randint(0, VOCAB, (rows, length or config.context_length))


@pytest.mark.parametrize("seed", range(60))
def test_every_kernel_computes_the_same(seed: int) -> None:
    """Logits and every gradient: written out, fused, and FlexAttention's own."""
    config = draw_config(seed)
    models = [randomised(replace(config, attention=kind), VOCAB) for kind in ("reference", "sdpa")]
    tokens = tokens_for(config)
    results = []
    for model in models:
        logits = model(tokens)
        logits.logsumexp(-1).sum().backward()
        results.append((logits.detach(), {n: p.grad for n, p in model.named_parameters()}))
    (logits, gradients), (others, other_gradients) = results
    assert_same(others, logits)
    for name, gradient in gradients.items():
        if gradient is not None:
            torch.testing.assert_close(
                other_gradients[name], gradient, atol=2e-4, rtol=2e-3, msg=lambda m, n=name: n + m
            )
    flex = randomised(replace(config, attention="flex"), VOCAB)
    with torch.no_grad():
        assert_same(flex(tokens), logits)


@pytest.mark.parametrize("seed", range(20))
def test_no_position_sees_its_future(seed: int) -> None:
    config = draw_config(seed)
    model = randomised(config, VOCAB)
    tokens = tokens_for(config, rows=1)
    changed = tokens.clone()
    at = config.context_length // 2
    changed[0, at] = (changed[0, at] + 1) % VOCAB
    with torch.no_grad():
        difference = (model(tokens) - model(changed)).abs().amax(-1)[0]
    assert difference[:at].max() < 1e-6  # an expert's block may grow by a row, and round otherwise
    assert difference[at] > 1e-4


def test_a_window_hides_what_lies_before_it_and_sinks_bring_it_back() -> None:
    """One layer, window 4: position 10 sees 7 … 10, and the first two with two sinks."""
    config = ModelConfig(
        n_layer=1, n_head=2, n_embd=24, context_length=12, window=4, position="rope"
    )
    for sinks, seen in ((0, {7, 8, 9, 10}), (2, {0, 1, 7, 8, 9, 10})):
        model = randomised(replace(config, sink_tokens=sinks), VOCAB)
        tokens = tokens_for(config, rows=1)
        moved = set()
        for at in range(11):
            changed = tokens.clone()
            changed[0, at] = (changed[0, at] + 1) % VOCAB
            with torch.no_grad():
                if not torch.equal(model(tokens)[0, 10], model(changed)[0, 10]):
                    moved.add(at)
        assert moved == seen


def test_alternating_windows_begin_with_the_first_layer() -> None:
    config = ModelConfig(n_layer=3, window=4, window_layers="alternate")
    assert [config.window_of(layer) for layer in range(3)] == [4, 0, 4]


@pytest.mark.parametrize("position", ["rope", "none"])
def test_rope_depends_on_distance_alone(position: str) -> None:
    """A text moved along by padding that nobody sees must read the same: a window of 3 forgets."""
    config = ModelConfig(
        n_layer=1, n_head=2, n_embd=24, context_length=20, window=3, position=position
    )
    model = randomised(config, VOCAB)
    text = tokens_for(config, rows=1, length=8)
    shifted = torch.cat((tokens_for(config, rows=1, length=9), text), dim=1)
    with torch.no_grad():
        assert_same(model(text)[0, 4:], model(shifted)[0, 13:])


def test_the_table_equals_the_real_network() -> None:
    """Names, shapes and counts, without building it."""
    for seed in range(80):
        config = draw_config(seed)
        network = GPT(config, VOCAB)
        table = parameter_table(config, VOCAB)
        assert [(name, tuple(p.shape)) for name, p in network.named_parameters()] == [
            (name, shape) for name, shape, _ in table
        ]


def test_only_active_experts_are_counted_as_work() -> None:
    dense = ModelConfig(n_layer=2, n_head=2, n_embd=32, n_hidden=64, mlp="swiglu", bias=False)
    routed = replace(dense, n_expert=8, n_expert_active=2, n_hidden=32)
    routers = 2 * 8 * 32
    assert matmul_parameters(routed, VOCAB) == matmul_parameters(dense, VOCAB) + routers
    assert active_parameters(routed, VOCAB) == active_parameters(dense, VOCAB) + routers


def test_a_gated_mlp_has_as_many_parameters_as_a_plain_one() -> None:
    for width in (128, 256, 384, 512, 768, 1024):
        plain = ModelConfig(n_embd=width, bias=False)
        gated = replace(plain, mlp="swiglu")
        ours, theirs = (matmul_parameters(config, VOCAB) for config in (gated, plain))
        assert ours == pytest.approx(theirs, rel=0.015)
        assert gated.hidden_width % 8 == 0


def test_the_softcap_bounds_the_logits() -> None:
    config = draw_config(1, logit_softcap=3.0)
    model = randomised(config, VOCAB)
    capped = model(tokens_for(config))
    assert capped.abs().max() < 3
    assert capped.abs().max() > 1


def test_balance_is_least_when_experts_are_evenly_busy() -> None:
    """K when even; more the more uneven; and its gradient pushes the busy one down."""
    even, uneven = Routing(), Routing()
    even.logits, even.chosen = [torch.zeros(8, 4)], [torch.arange(16).view(8, 2) % 4]
    logits = torch.zeros(8, 4, requires_grad=True)
    uneven.logits, uneven.chosen = [logits], [torch.tensor([[0, 1]] * 8)]
    assert even.balance_loss().item() == pytest.approx(2.0)
    skewed = logits + torch.tensor([4.0, 2.0, 0.0, 0.0])
    uneven.logits = [skewed]
    loss = uneven.balance_loss()
    assert loss.item() > 2.5
    loss.backward()
    assert logits.grad is not None and (logits.grad[:, 0] > 0).all()
    assert (logits.grad[:, 2:] < 0).all()
    balance, busiest, idlest, entropy = even.statistics().tolist()
    assert (balance, busiest, idlest) == pytest.approx((2.0, 1.0, 1.0))
    assert entropy == pytest.approx(1.386294, abs=1e-5)
    assert uneven.statistics()[1:3].tolist() == pytest.approx([2.0, 0.0])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"n_head": 5}, "model.n_head"),
        ({"n_kv_head": 4}, "model.n_kv_head"),
        ({"position": "rope", "head_dim": 7}, "model.position"),
        ({"rope_scaling": "yarn", "rope_factor": 2.0}, "model.rope_scaling"),
        ({"position": "rope", "rope_factor": 2.0}, "model.rope_factor"),
        ({"sink_tokens": 2}, "model.sink_tokens"),
        ({"window_layers": "alternate"}, "model.window_layers"),
        ({"attention": "flex", "dropout": 0.1}, "model.attention"),
        ({"n_expert": 1}, "model.n_expert"),
        ({"n_expert": 4, "n_expert_active": 5}, "model.n_expert_active"),
    ],
)
def test_what_does_not_go_together_is_refused_by_name(changes: dict, field: str) -> None:
    config = ModelConfig()
    check_architecture(config)
    with pytest.raises(ConfigError) as refusal:
        check_architecture(replace(config, **changes))
    assert refusal.value.title.startswith(field)
    assert refusal.value.hint
