"""What only a CUDA device can show. Deselected by default; `benchmarks/gpu.sh` runs these."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from engine import control, events
from engine.lab import Lab
from engine.model import KVCache, experts
from engine.objectives import Loss, Pretrain
from tests.campaign.faults import changed
from tests.engine.model.shapes import draw_config, randomised
from tests.engine.test_session import Run, assert_same, final_state, tiny_config

MODERN = {
    "model__norm": "rmsnorm",
    "model__position": "rope",
    "model__mlp": "swiglu",
    "model__qk_norm": True,
    "model__dropout": 0.0,
}
SPECIAL = MODERN | {
    "model__window": 4,
    "model__window_layers": "alternate",
    "model__learned_sinks": True,
}

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_training_on_the_gpu_learns_in_every_precision(small_lab: Lab, precision: str) -> None:
    run = Run()
    config = tiny_config(train__device="cuda", train__precision=precision, train__max_steps=60)
    run.train(small_lab, config)
    losses = list(run.losses().values())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3
    stats = run.of(events.DeviceStats)[-1]
    assert 0 < stats.used <= stats.total and stats.reserved is not None


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("shape", [MODERN, SPECIAL, MODERN | {"model__n_expert": 4}])
def test_modern_networks_learn_on_the_gpu(
    small_lab: Lab, shape: dict[str, Any], compiled: bool
) -> None:
    """Windows and sinks by FlexAttention, experts by grouped products; eager and compiled."""
    run = Run()
    config = tiny_config(
        train__device="cuda", train__precision="bfloat16", train__compile=compiled,
        train__max_steps=60, **shape,
    )  # fmt: skip
    run.train(small_lab, config)
    losses = list(run.losses().values())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3


@pytest.mark.parametrize("seed", range(20))
def test_every_kernel_computes_the_same_on_the_gpu(seed: int) -> None:
    """Logits and gradients by FlexAttention and the fused kernels, against the CPU's written-out
    path."""
    config = replace(draw_config(seed), head_dim=32)
    tokens = torch.randint(0, 40, (2, config.context_length))
    plain = randomised(replace(config, attention="reference"), 40)
    plain(tokens).logsumexp(-1).sum().backward()
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    for kind in ("sdpa", "flex", "auto"):
        model = randomised(replace(config, attention=kind), 40).cuda()
        logits = model(tokens.cuda())
        torch.testing.assert_close(logits.cpu(), plain(tokens), atol=2e-3, rtol=2e-3)
        logits.logsumexp(-1).sum().backward()
        for name, parameter in model.named_parameters():
            if name in expected:
                scale = expected[name].abs().max().clamp(min=1e-2)
                error = (parameter.grad.cpu() - expected[name]).abs().max() / scale
                assert error < 2e-2, (kind, name, float(error))


def test_grouped_products_are_the_experts_one_by_one() -> None:
    """In bfloat16, against the same experts in float32."""
    config = draw_config(0, n_expert=6, n_expert_active=2, n_embd=64, n_head=2, n_hidden=48)
    model = randomised(config, 40).blocks[0].mlp
    x = torch.randn(3, 20, 64)
    expected = model(x)
    model.cuda()
    assert experts.groups_products(x.cuda().bfloat16())
    with torch.autocast("cuda", torch.bfloat16):
        given = model(x.cuda()).float().cpu()
    assert (given - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_the_cache_on_the_gpu_reads_as_without() -> None:
    for seed in range(10):
        config = draw_config(seed)
        model = randomised(config, 40).cuda()
        tokens = torch.randint(0, 40, (2, config.context_length), device="cuda")
        cache = KVCache(config, 2, config.context_length, device=tokens.device)
        pieces = [model(tokens[:, at : at + 1], cache) for at in range(tokens.shape[1])]
        torch.testing.assert_close(torch.cat(pieces, 1), model(tokens), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("which", ["cuda", "cuda:1"])
def test_a_run_resumed_on_the_gpu_goes_on_from_the_same_state(small_lab: Lab, which: str) -> None:
    if which == "cuda:1" and torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    whole, first, second = Run(), Run({4: [control.Stop()]}), Run()
    config = tiny_config(train__device=which)
    whole.train(small_lab, config, name="whole")
    first.train(small_lab, config, name="cut")
    second.resume(small_lab, "cut")
    for step, loss in (first.losses() | second.losses()).items():
        assert loss == pytest.approx(whole.losses()[step], rel=1e-4)


def test_a_nan_on_the_gpu_is_skipped_on_the_device(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fused optimiser reads the verdict there: the step that saw NaN changes nothing."""
    real, calls = Pretrain.loss, {"count": 0}

    def poisoned(self: Pretrain, model: Any, batch: Any) -> Loss:
        calls["count"] += 1
        factor = float("nan") if calls["count"] == 4 else 1.0
        return changed(real(self, model, batch), lambda x: x * factor)

    def states(max_steps: int, name: str) -> dict[str, torch.Tensor]:
        calls["count"] = 0
        config = tiny_config(
            train__device="cuda", train__accumulate=1, train__max_steps=max_steps,
            schedule__kind="constant",
        )  # fmt: skip
        run = Run()
        run.train(small_lab, config, name=name)
        losses = run.losses()
        assert [step for step in losses if math.isnan(losses[step])] == [4] * (max_steps >= 4)
        state = final_state(small_lab, name)
        beside = ("cpu", "cuda", "guard.")
        return {key: value for key, value in state.items() if not key.startswith(beside)}

    monkeypatch.setattr(Pretrain, "loss", poisoned)
    assert_same(states(3, "before"), states(4, "after"))


@pytest.mark.parametrize(
    "way",
    [
        {"optimizer__name": "muon"},
        {"train__compile": "on"},
        {"train__compile": "on", "optimizer__name": "muon"},
        {"train__recompute": "on"},
        {"train__loss_chunk": 16},
    ],
)
def test_every_way_of_a_step_learns_on_the_gpu(small_lab: Lab, way: dict[str, Any]) -> None:
    """In bfloat16, against the plain step: the same loss at the end, nearly."""
    ends = []
    for ways in ({}, way):
        run = Run()
        config = tiny_config(
            train__device="cuda", train__precision="bfloat16", train__max_steps=60,
            model__dropout=0.0, **ways,
        )  # fmt: skip
        run.train(small_lab, config)
        assert not [alert for alert in run.of(events.Alert) if alert.level != "info"]
        ends.append(sum(list(run.losses().values())[-5:]) / 5)
    assert ends[1] < run.losses()[1] - 0.3
    assert "muon" in way.values() or ends[1] == pytest.approx(ends[0], abs=0.15)


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 9),
    reason="needs units for 8-bit products",
)
@pytest.mark.parametrize("compiled", ["off", "on"])
def test_products_in_8_bits_learn_as_those_in_16(small_lab: Lab, compiled: str) -> None:
    ends = []
    for float8 in (False, True):
        run = Run()
        config = tiny_config(
            train__device="cuda", train__precision="bfloat16", train__max_steps=60,
            model__n_embd=64, model__dropout=0.0, train__float8=float8, train__compile=compiled,
        )  # fmt: skip
        run.train(small_lab, config)
        ends.append(sum(list(run.losses().values())[-5:]) / 5)
    assert ends[1] == pytest.approx(ends[0], abs=0.15)


def test_a_refused_update_on_the_gpu_leaves_muon_as_it_was() -> None:
    """The verdict is a tensor that the host never reads."""
    from engine.config.sections import OptimizerConfig
    from engine.optim import Optimizer

    config = draw_config(0)
    model = randomised(config, 40).cuda()
    optimizer = Optimizer(model, config, OptimizerConfig(name="muon"), "bfloat16")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad.fill_(math.nan)
    optimizer.update(optimizer.gradient_norm(), torch.tensor(False, device="cuda"))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert optimizer.is_finite()
