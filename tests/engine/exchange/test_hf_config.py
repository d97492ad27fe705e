"""config.json: read as transformers reads it, and refused by name where we could not honour it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
import transformers

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.exchange import hf_config
from engine.exchange.families import FAMILIES, family_of
from engine.exchange.weights import from_hf
from engine.model import GPT
from tests.engine.exchange.pairs import KINDS, difference, draw_member, network

VOCAB = 40
LLAMA: dict[str, Any] = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 24, "intermediate_size": 20,
    "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
PLAIN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}


def of(kind: str, **changed: Any) -> dict[str, Any]:
    extra: dict[str, Any] = {"qwen3_moe": {"moe_intermediate_size": 12}, "gpt_oss": PLAIN_ROPE}
    base = LLAMA | extra.get(kind, {})
    if kind in ("mixtral", "qwen3_moe", "gpt_oss"):
        base = base | EXPERTS
    values = base | {"model_type": kind, "num_key_value_heads": 1, "head_dim": 12} | changed
    return {name: value for name, value in values.items() if value is not ...}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def assert_equal_network(values: dict[str, Any]) -> ModelConfig:
    """The network that we read computes what the class makes of the very same file."""
    kind = values["model_type"]
    theirs_config = transformers.AutoConfig.for_model(**values)
    theirs_config._attn_implementation = "eager"
    theirs_config._experts_implementation = "eager"
    torch.manual_seed(1)
    theirs = getattr(transformers, FAMILIES[kind].class_name)(theirs_config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.2)
    config, vocab_size = hf_config.from_hf(values)
    state = on_disk(theirs, kind)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    model = GPT(config, vocab_size).eval()
    ours = from_hf(state.__getitem__, shapes, config, vocab_size, FAMILIES[kind])
    model.load_state_dict(dict(ours))
    tokens = torch.randint(0, VOCAB, (2, 48))
    assert difference(model, theirs, tokens) < 2e-5
    return config


def on_disk(model: torch.nn.Module, kind: str) -> dict[str, torch.Tensor]:
    """A class's tensors as its folders name them."""
    state = dict(model.state_dict())
    if kind not in ("mixtral", "qwen3_moe"):
        return state
    for name in [name for name in state if ".experts." in name]:
        where, _, what = name.rpartition(".")
        block = where.replace(".mlp.", ".block_sparse_moe.") if kind == "mixtral" else where
        names = {"gate_up_proj": ("w1", "w3"), "down_proj": ("w2",)}[what]
        if kind != "mixtral":
            names = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": (what,)}[what]
        for expert, stacked in enumerate(state.pop(name)):
            for part, tensor in zip(names, stacked.chunk(len(names)), strict=True):
                state[f"{block}.{expert}.{part}.weight"] = tensor
    if kind == "mixtral":
        state = {name.replace(".mlp.", ".block_sparse_moe."): t for name, t in state.items()}
    return state


LLAMA3 = {
    "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.mark.parametrize(
    "values",
    [
        of("llama", rope_theta=500.0),
        of("llama", rope_theta=500.0, rope_scaling={"type": "linear", "factor": 2.0}),
        of("llama", rope_scaling=LLAMA3, rope_theta=1000.0),
        of("llama", rope_parameters=LLAMA3 | {"rope_theta": 1000.0}),
        of("llama", rope_parameters=YARN | {"rope_theta": 300.0}),
        of("llama", rope_parameters=YARN | {"attention_factor": 1.138629436111989}),
        of("llama", rope_scaling=LLAMA3, rope_parameters=PLAIN_ROPE["rope_parameters"]),
        of("llama", attention_bias=True, mlp_bias=True, num_key_value_heads=None),
        of("llama", tie_word_embeddings=True, head_dim=None, rms_norm_eps=1e-2),
        of("mistral", sliding_window=5),
        of("mistral", sliding_window=None, num_key_value_heads=2),
        of("mistral", num_attention_heads=5, num_key_value_heads=1),
        of("llama", rope_scaling=YARN | {"truncate": False}),
        of("llama", rope_scaling=YARN | {"truncate": None}),
        of("gpt_oss", rope_parameters=YARN | {"truncate": False, "rope_theta": 150_000.0}),
        of("qwen2"),
        of("qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=0),
        of("qwen2", use_sliding_window=True, sliding_window=5, rms_norm_eps=1e-2,
           layer_types=["sliding_attention", "full_attention"]),
        of("qwen3", use_sliding_window=True, sliding_window=5, max_window_layers=0),
        of("qwen3", use_sliding_window=True, sliding_window=5, max_window_layers=2),
        of("qwen3", use_sliding_window=True, sliding_window=5,
           layer_types=["sliding_attention", "full_attention"]),
        of("qwen3", use_sliding_window=False, sliding_window=5),
        of("qwen3", head_dim=..., num_key_value_heads=2),
        of("mixtral", sliding_window=4),
        of("mixtral"),
        of("qwen3_moe", norm_topk_prob=True),
        of("qwen3_moe", use_sliding_window=True, sliding_window=4),
        of("gpt_oss", sliding_window=4),
        of("gpt_oss", sliding_window=4, layer_types=["sliding_attention"] * 2),
        of("gpt_oss", head_dim=...),
        {"model_type": "gpt2", "vocab_size": VOCAB, "n_embd": 24, "n_layer": 2, "n_head": 2,
         "n_positions": 64, "n_inner": 20},
    ],
    ids=lambda values: values["model_type"],
)  # fmt: skip
def test_a_file_means_what_the_class_takes_it_for(values: dict[str, Any]) -> None:
    """Both spellings of RoPE, the ways to say a window, fields null and fields left out."""
    assert_equal_network(values)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_file_leaves_out_has_the_class_s_own_value(kind: str) -> None:
    """Defaults differ from class to class: read against the installed classes."""
    values = of(kind, num_key_value_heads=..., head_dim=..., num_experts_per_tok=...)
    values = {name: v for name, v in values.items() if name != "num_local_experts"}
    values |= {"num_attention_heads": 64, "hidden_size": 512}
    if kind == "gpt2":
        values = {"model_type": "gpt2"}
    theirs = transformers.AutoConfig.for_model(**values)
    ours, vocab_size = hf_config.from_hf(values)
    assert vocab_size == theirs.vocab_size
    assert ours.context_length == theirs.max_position_embeddings
    assert (ours.n_layer, ours.n_head) == (theirs.num_hidden_layers, theirs.num_attention_heads)
    assert ours.tie_embeddings == theirs.tie_word_embeddings
    if kind == "gpt2":
        assert ours.norm_eps == theirs.layer_norm_epsilon
        assert ours.hidden_width == 4 * theirs.n_embd
        return
    head = getattr(theirs, "head_dim", None) or theirs.hidden_size // theirs.num_attention_heads
    assert ours.head_width == head
    assert ours.kv_heads == theirs.num_key_value_heads
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.rope_base == theirs.rope_parameters["rope_theta"]
    assert ours.window == (getattr(theirs, "sliding_window", None) or 0)
    if ours.n_expert:
        count = getattr(theirs, "num_local_experts", None) or theirs.num_experts
        assert ours.n_expert == count
        assert ours.n_expert_active == theirs.num_experts_per_tok


REFUSED = [
    ("model_type", {"model_type": "bloom"}),
    ("architectures", of("llama", architectures=["LlamaForTokenClassification"])),
    ("quantization_config", of("llama", quantization_config={"quant_method": "mxfp4"})),
    ("hidden_act", of("llama", hidden_act="gelu")),
    ("activation_function", {"model_type": "gpt2", "activation_function": "gelu"}),
    ("scale_attn_by_inverse_layer_idx", {"model_type": "gpt2"} | {
        "scale_attn_by_inverse_layer_idx": True}),
    ("mlp_bias", of("llama", attention_bias=True)),
    ("attention_bias", of("qwen3", attention_bias=True)),
    ("attention_bias", of("gpt_oss", attention_bias=False)),
    ("rope_parameters", of("gpt_oss", rope_parameters=...)),
    ("rope_scaling.rope_type", of("llama", rope_scaling={"rope_type": "dynamic", "factor": 2.0})),
    ("rope_scaling.type", of("llama", rope_scaling={"type": "longrope", "factor": 2.0})),
    ("rope_scaling.factor", of("llama", rope_scaling={"type": "linear"})),
    ("low_freq_factor", of("llama", rope_scaling=LLAMA3 | {"low_freq_factor": 2.0})),
    ("beta_fast", of("llama", rope_scaling=YARN | {"beta_fast": 16})),
    ("truncate", of("llama", rope_scaling=YARN | {"truncate": "no"})),
    ("attention_factor", of("llama", rope_scaling=YARN | {"attention_factor": 1.5})),
    ("mscale", of("llama", rope_scaling=YARN | {"mscale": 1.0, "mscale_all_dim": 0.7})),
    ("partial_rotary_factor", of("llama", partial_rotary_factor=0.5)),
    ("partial_rotary_factor", of("llama", rope_parameters={"partial_rotary_factor": 0.5})),
    ("rope_parameters", of("qwen3", rope_parameters={
        "full_attention": {"rope_theta": 1e4}, "sliding_attention": {"rope_theta": 1e5}})),
    ("rope_parameters", of("llama", rope_parameters=[1])),
    ("max_window_layers", of("qwen3", use_sliding_window=True, max_window_layers=1)),
    ("layer_types", of("qwen3", use_sliding_window=True,
                       layer_types=["full_attention", "sliding_attention"])),
    ("layer_types", of("qwen3", layer_types=["sliding_attention"] * 2)),
    ("layer_types", of("gpt_oss", layer_types=["sliding_attention"])),
    ("layer_types", of("gpt_oss", layer_types=["linear_attention"] * 2)),
    ("layer_types", of("mistral", layer_types=["sliding_attention", "full_attention"])),
    ("decoder_sparse_step", of("qwen3_moe", decoder_sparse_step=2)),
    ("mlp_only_layers", of("qwen3_moe", mlp_only_layers=[0])),
    ("swiglu_limit", of("gpt_oss", swiglu_limit=5.0)),
    ("swiglu_alpha", of("gpt_oss", swiglu_alpha=1.0)),
    ("num_hidden_layers", of("llama", num_hidden_layers=...)),
    ("num_hidden_layers", of("llama", num_hidden_layers="2")),
    ("n_layer", of("qwen3", num_hidden_layers=2_000_000_000)),
    ("hidden_size", of("llama", hidden_size=-24)),
    ("hidden_size", of("llama", hidden_size=10**30)),
    ("num_attention_heads", of("llama", num_attention_heads=True)),
    ("rms_norm_eps", of("llama", rms_norm_eps=float("nan"))),
    ("norm_eps", of("llama", rms_norm_eps=0.0)),
    ("n_kv_head", of("llama", num_attention_heads=3, num_key_value_heads=2)),
    ("vocab_size", of("llama", vocab_size=None)),
]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "values"), REFUSED, ids=[f"{i}-{field}" for i, (field, _) in enumerate(REFUSED)]
)
def test_what_we_do_not_compute_is_refused_by_name(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"config\.json") as caught:
        hf_config.from_hf(values)
    assert field in caught.value.title
    assert len(caught.value.title) < 300


# Which class a network is --------------------------------------------------------------------


NOWHERE = {
    "mlp": "relu2", "position": "none", "logit_softcap": 5.0, "norm": "layernorm",
    "sink_tokens": 2,
}  # fmt: skip


@pytest.mark.parametrize("field", NOWHERE)
def test_a_setting_that_no_class_has_is_refused_by_its_name(field: str) -> None:
    window = {"window": 4} if field == "sink_tokens" else {}
    model = replace(draw_member("llama", 1), rope_scaling="none", rope_factor=1.0, **window)
    with pytest.raises(InputError) as caught:
        family_of(replace(model, **{field: NOWHERE[field]}))
    assert f"model.{field} = " in str(caught.value)
    assert "no class of transformers" in caught.value.title
    if field in ("mlp", "logit_softcap", "sink_tokens"):
        assert caught.value.title.endswith("no class of transformers has it")


def test_every_field_is_accounted_for() -> None:
    """A field added to the network must not be exported as if it were not there."""
    of_the_shape = {
        "n_layer", "n_embd", "n_hidden", "context_length", "norm_eps", "rope_base", "rope_factor",
        "rope_original_context", "rope_truncate", "n_expert_active", "tie_embeddings",
    }  # fmt: skip
    of_training = {"balance_loss", "dropout", "attention"}
    checked = set().union(*(family.needs for family in FAMILIES.values()))
    # By the fields of the family, or written into config.json whatever they are.
    assert {field.name for field in fields(ModelConfig)} - checked == of_the_shape | of_training


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_any_field_is_seen(kind: str) -> None:
    """Two networks that differ in a field have different files, or one of them none."""
    model = network(kind, 3, VOCAB).config
    family = family_of(model)
    written = hf_config.to_hf(model, family, VOCAB, None, "float32")
    others = {
        "n_kv_head": 1 if model.kv_heads != 1 else 0, "head_dim": model.head_width + 2,
        "qk_norm": not model.qk_norm, "qkv_bias": not model.qkv_bias,
        "learned_sinks": not model.learned_sinks,
        "bias": not model.bias, "window": 3, "rope_base": 77.0, "norm_eps": 1e-3,
        "renormalise": not model.renormalise, "tie_embeddings": not model.tie_embeddings,
        "n_hidden": model.hidden_width + 1, "logit_softcap": 3.0,
    }  # fmt: skip
    for field, value in others.items():
        changed = replace(model, **{field: value})
        if kind == "gpt2" and field == "rope_base":
            continue  # it turns nothing there
        if field == "renormalise" and not model.n_expert:
            continue
        if field == "n_kv_head" and changed.kv_heads == model.kv_heads:
            continue
        try:
            other = family_of(changed)
        except InputError:
            continue
        again = hf_config.to_hf(changed, other, VOCAB, None, "float32")
        assert again != written, field
