"""Which parameters decay, that the update is AdamW's or Muon's, and what is remembered of it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from engine import muon
from engine.config.sections import ModelConfig, OptimizerConfig
from engine.errors import CheckpointError
from engine.model import GPT
from engine.optim import Optimizer, parameter_groups

MODERN = {"norm": "rmsnorm", "mlp": "swiglu", "qk_norm": True, "position": "rope", "bias": False}


def network(**values: object) -> GPT:
    torch.manual_seed(0)
    shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 8}
    return GPT(ModelConfig(**shape | values), 30)


def optimizer_of(model: GPT, **values: object) -> Optimizer:
    return Optimizer(model, model.config, OptimizerConfig(**values))


def give_gradients(model: nn.Module, seed: int = 0, scale: float = 1.0) -> None:
    """The same for the same seed, whatever the gradients' memory is."""
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        gradient = scale * torch.randn(p.shape, generator=generator)
        if p.grad is None:
            p.grad = gradient
        else:
            p.grad.copy_(gradient)


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_matrices_decay_and_biases_norms_positions_do_not() -> None:
    groups = parameter_groups(network(tie_embeddings=False))
    assert "wte.weight" in groups["decay"]
    assert "lm_head.weight" in groups["decay"]
    assert "blocks.1.attn.qkv.weight" in groups["decay"]
    assert "wpe.weight" in groups["no_decay"]
    assert all(n.endswith("weight") and ".ln_" not in f".{n}" for n in groups["decay"])
    assert {n for n in groups["no_decay"] if n.endswith("weight") and "ln_" not in n} == {
        "wpe.weight"
    }


def test_muon_takes_the_matrices_inside_the_blocks_and_no_others() -> None:
    """Embeddings are looked up, the output scores, a router chooses: none is a map of activations
    to activations, for which the orthogonal step is argued."""
    groups = parameter_groups(network(n_expert=4, **MODERN), "muon")
    kinds = {name.split(".", 2)[2] for name in groups["matrices"]}
    assert kinds == {"attn.qkv.weight", "attn.proj.weight", "mlp.fc_weight", "mlp.proj_weight"}
    assert {"wte.weight", "blocks.0.mlp.router.weight"} <= set(groups["decay"])


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("tied", [True, False])
def test_every_parameter_is_in_one_group_once(tied: bool, name: str) -> None:
    """A tied matrix listed twice would be updated twice a step."""
    model = network(tie_embeddings=tied)
    names = [name for group in parameter_groups(model, name).values() for name in group]
    assert len(names) == len(set(names))
    assert set(names) == {name for name, _ in model.named_parameters()}


def test_the_parameters_are_views_of_one_tensor_and_keep_their_values() -> None:
    """Everything else reads and writes them as before: loading, evaluation, checkpoints."""
    model, before = network(), state_of(network())
    flat = optimizer_of(model).flat
    memory = flat.value.untyped_storage().data_ptr()
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
        assert p.untyped_storage().data_ptr() == memory and p.data_ptr() % 64 == 0
        assert p.grad is not None and p.grad.count_nonzero() == 0
    assert model.lm_head.weight is model.wte.weight
    model.load_state_dict({name: p + 1 for name, p in before.items()}, strict=False)
    assert torch.equal(flat.named(flat.values)["wte.weight"], before["wte.weight"] + 1)


def test_decay_acts_on_its_group_alone() -> None:
    """With zero gradients the only movement is decay: p ← p·(1 − lr·λ)."""
    model = network()
    before = state_of(model)
    optimizer_of(model, lr=0.1, weight_decay=0.5).step()
    decaying = set(parameter_groups(model)["decay"])
    for name, p in model.named_parameters():
        factor = 0.95 if name in decaying else 1.0
        torch.testing.assert_close(p.detach(), before[name] * factor)


@pytest.mark.parametrize("scale", [0.001, 1.0])
def test_the_update_is_that_of_torchs_own_adamw_and_clipping(scale: float) -> None:
    """Ten steps, with gradients that are clipped and such that are not."""
    mine, theirs = network(), network()
    optimizer = optimizer_of(mine, lr=0.01)
    groups = parameter_groups(theirs)
    named = dict(theirs.named_parameters())
    reference = torch.optim.AdamW(
        [
            {"params": [named[n] for n in groups["decay"]], "weight_decay": 0.1},
            {"params": [named[n] for n in groups["no_decay"]], "weight_decay": 0.0},
        ],
        lr=0.01,
        betas=(0.9, 0.95),
    )
    for step in range(10):
        for model in (mine, theirs):
            give_gradients(model, seed=step, scale=scale)
        norm = torch.nn.utils.clip_grad_norm_(theirs.parameters(), 1.0)
        torch.testing.assert_close(optimizer.gradient_norm(), norm)
        reference.step()
        optimizer.update(optimizer.gradient_norm(), True)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_refused_update_changes_nothing(name: str) -> None:
    """Not the weights, not the moments, whatever the gradients are: the verdict may be a tensor
    that nobody has looked at."""
    model = network()
    optimizer = optimizer_of(model, name=name)
    give_gradients(model)
    optimizer.step()
    before = state_of(model) | {k: m.clone() for k, m in optimizer.moments().items()}
    for verdict in (False, torch.tensor(False)):
        give_gradients(model)
        model.ln_f.weight.grad.fill_(float("nan"))
        model.blocks[0].attn.proj.weight.grad[0, 0] = float("inf")
        optimizer.update(optimizer.gradient_norm(), verdict)
        after = state_of(model) | optimizer.moments()
        assert all(torch.equal(after[key], before[key]) for key in before)


def test_muon_is_torchs_own_muon_for_a_matrix_of_its_own() -> None:
    """Five steps against `torch.optim.Muon`, which makes them in bfloat16; ours here in float32."""
    mine, theirs = network(), network()
    optimizer = optimizer_of(mine, name="muon", lr=0.02, clip=0.0)
    names = [n for n in parameter_groups(mine, "muon")["matrices"] if not n.endswith("qkv.weight")]
    named = dict(theirs.named_parameters())
    reference = torch.optim.Muon(
        [named[name] for name in names], lr=0.02, adjust_lr_fn="match_rms_adamw"
    )
    start = state_of(mine)
    for step in range(5):
        for model in (mine, theirs):
            give_gradients(model, seed=step)
        reference.step()
        optimizer.step()
    for name, p in mine.named_parameters():
        if name in names:
            moved = (named[name] - start[name]).norm()
            assert (p - named[name]).norm() < 0.03 * moved, name
            assert moved > 0


@pytest.mark.parametrize("shape", [(16, 32), (64, 256), (128, 1024)])
@pytest.mark.parametrize("smallest", [1.0, 1e-2, 1e-6])
def test_a_long_matrix_is_made_orthogonal_by_its_gram_matrix_as_by_itself(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], smallest: float
) -> None:
    """Singular values from 1 down to `smallest`, against the plain iteration in float64."""
    torch.manual_seed(0)
    rows, columns = shape
    left, _ = torch.linalg.qr(torch.randn(2, rows, rows, dtype=torch.float64))
    right, _ = torch.linalg.qr(torch.randn(2, columns, rows, dtype=torch.float64))
    x = left @ torch.diag(torch.logspace(0, math.log10(smallest), rows).double()) @ right.mT
    used: list[torch.Size] = []
    by_gram = muon._by_gram
    monkeypatch.setattr(muon, "_by_gram", lambda x: used.append(x.shape) or by_gram(x))
    ours = muon.orthogonalise(x.float())
    assert used == [x.shape]
    assert muon.orthogonalise(x[:, :, :rows].float().contiguous()).shape[-1] == rows
    assert muon.orthogonalise(x.bfloat16()).shape == x.shape
    assert len(used) == 1, "neither for a square one nor for 16 bits"
    a, b, c = muon.COEFFICIENTS
    exact = x / torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)
    for _ in range(muon.STEPS):
        gram = exact @ exact.mT
        exact = a * exact + (b * gram + c * gram @ gram) @ exact
    assert (ours - exact).norm() < 1e-3 * exact.norm()


def test_joined_matrices_are_made_orthogonal_one_by_one() -> None:
    """Queries, keys and values are three maps; so are a gated MLP's halves, and each expert's."""
    model = network(n_kv_head=1, n_expert=2, **MODERN)
    before = state_of(model)
    optimizer = optimizer_of(model, name="muon", lr=1.0, weight_decay=0.0, clip=0.0)
    give_gradients(model)
    optimizer.step()
    moved = {name: p.detach() - before[name] for name, p in model.named_parameters()}
    qkv = moved["blocks.0.attn.qkv.weight"]
    halves = moved["blocks.0.mlp.fc_weight"]
    parts = [*qkv.split((16, 8, 8)), *(half for expert in halves for half in expert.chunk(2))]
    parts += [*moved["blocks.1.mlp.proj_weight"], moved["blocks.1.attn.proj.weight"]]
    for part in parts:
        scale = 0.2 * max(part.shape) ** 0.5
        values = torch.linalg.svdvals(part / scale)
        assert float(values.min()) > 0.4 and float(values.max()) < 1.4


def test_what_is_remembered_goes_by_name_and_comes_back() -> None:
    model, other = network(), network()
    first, second = optimizer_of(model, name="muon"), optimizer_of(other, name="muon")
    give_gradients(model)
    first.step()
    saved = {key: tensor.clone() for key, tensor in first.moments().items()}
    assert {"momentum.blocks.0.mlp.fc.weight", "exp_avg_sq.wte.weight"} <= set(saved)
    second.restore(saved)
    assert all(torch.equal(saved[key], tensor) for key, tensor in second.moments().items())


def test_moments_of_another_model_or_optimizer_are_refused() -> None:
    """Some would broadcast, and train on without a word."""
    optimizer = optimizer_of(network())
    good = {key: tensor.clone() for key, tensor in optimizer.moments().items()}
    shape = good["exp_avg.wpe.weight"].shape
    for wrong in (torch.zeros(3, 2), torch.zeros(1), torch.zeros(shape).long()):
        with pytest.raises(CheckpointError, match=r"'exp_avg' of 'wpe\.weight'"):
            optimizer.restore(good | {"exp_avg.wpe.weight": wrong})
    with pytest.raises(CheckpointError) as refused:
        optimizer_of(network(), name="muon").restore(good)
    assert "optimizer.name" in refused.value.hint


def test_a_number_that_is_not_finite_is_found_wherever_it_is() -> None:
    model = network()
    optimizer = optimizer_of(model)
    assert optimizer.is_finite()
    with torch.no_grad():
        model.wpe.weight[3, 3] = 3e38  # its square is not finite, it is
    assert optimizer.is_finite()
    optimizer.moments()["exp_avg.ln_f.bias"][2] = float("nan")
    assert not optimizer.is_finite()


def test_the_learning_rates_keep_their_ratio() -> None:
    optimizer = optimizer_of(network(), name="muon", lr=1e-3, muon_lr=2e-2)
    optimizer.set_rate(5e-4)
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == {"matrices": pytest.approx(1e-2), "decay": 5e-4, "no_decay": 5e-4}
