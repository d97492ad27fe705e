"""The step that is compiled, uncompiled: the same network as the one that is read with a cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.generation import compiling
from engine.generation import step as step_module
from engine.generation.compiling import Recipe, compile_step
from engine.generation.decoding import new_cache, read
from engine.generation.params import SamplingParams
from engine.generation.quantised import quantise_linear
from engine.generation.sampling import LIKELIEST, next_token_probabilities, tell, winners
from engine.generation.step import Form, Step, inputs_of, is_possible, weights_of
from engine.model import GPT, KVCache
from tests.engine.model.shapes import draw_config, randomised

CPU = torch.device("cpu")
VOCAB, PROMPT = 33, 5
COUNTED = torch.arange(100)
DRAWN = SamplingParams(temperature=0.7)


def caches(model: GPT, padding: list[int], tokens: int) -> tuple[KVCache, KVCache]:
    """Two that have read the same prompts."""
    ids = torch.randint(VOCAB, (len(padding), min(PROMPT, model.config.context_length)))
    both = []
    for _ in range(2):
        params = SamplingParams(max_tokens=tokens, sinks=2)
        both.append(new_cache(model, torch.tensor(padding), ids.shape[1], params, CPU))
        read(model, both[-1], ids, lambda: False)
    return both[0], both[1]


@pytest.mark.parametrize("padding", [[0], [0, 3, 1]])
@pytest.mark.parametrize("seed", range(16))
def test_it_is_the_network_for_every_shape_and_form(seed: int, padding: list[int]) -> None:
    """Any norm, positions, heads, windows, experts, sinks; alone, in padded rows, in streams that
    wrap; with all slots read, as on CUDA, or the filled ones."""
    follow(seed, padding, Step, may_be_whole=True)


@pytest.mark.parametrize("seed", range(8))
def test_sixteen_rows_are_summed_in_tiles(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a processor with AVX2 does it, whichever is here."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    widths: list[int] = []
    in_tiles = step_module._in_tiles

    def counted(weight_OI: torch.Tensor, x_BI: torch.Tensor, outputs: int) -> torch.Tensor:
        widths.append(len(x_BI))
        return in_tiles(weight_OI, x_BI, outputs)

    monkeypatch.setattr(step_module, "_in_tiles", counted)
    follow(seed, [0, 3] * 8 if seed % 2 else [0] * 16, Step, may_be_whole=False)
    assert set(widths) == {16}


@pytest.mark.parametrize("outputs", [1, 2, 31, 65, 96, 97])
@pytest.mark.parametrize("rows", [1, 2, 3, 5, 8, 16])
@pytest.mark.parametrize("capability", ["AVX2", "AVX512"])
def test_products_of_any_width_are_whole(
    capability: str, rows: int, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many outputs a loop sums at once, and whether they divide the width or not."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    linear = torch.nn.Linear(step_module.LONG, outputs, bias=outputs % 2 == 0)
    x_B1I = torch.randn(rows, 1, step_module.LONG)
    with torch.inference_mode():
        torch.testing.assert_close(step_module._product(linear, x_B1I), linear(x_B1I))


@pytest.mark.campaign
@pytest.mark.parametrize("padding", [[0], [0, 3, 1], [0] * 16])
@pytest.mark.parametrize("seed", range(8))
def test_compiled_it_is_the_same(seed: int, padding: list[int], tmp_path: Path) -> None:
    """Half a minute each. Memory that results share must not be written before it has been read."""

    def compiled(model: GPT, form: Form) -> Callable[..., list[torch.Tensor]]:
        compile_step(Recipe.of(model, form, CPU), tmp_path / "step.pt2")
        run = torch._inductor.aoti_load_package(tmp_path / "step.pt2").loader.run
        return lambda weights, inputs, draw: run([*weights, *inputs, *draw])

    follow(seed, padding, compiled, may_be_whole=False)


@pytest.mark.campaign
def test_a_compiler_that_refuses_the_flags_is_asked_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag = "cpp.enable_floating_point_contract_flag"
    monkeypatch.setitem(compiling.SCHEDULED, flag, "fast -fno-such-flag")
    model = randomised(draw_config(0), VOCAB)
    form = Form.of(caches(model, [0], 4)[0])
    compile_step(Recipe.of(model, form, CPU), tmp_path / "step.pt2")
    assert (tmp_path / "step.pt2").stat().st_size > 10_000


@torch.inference_mode()
def follow(
    seed: int, padding: list[int], make: Callable[[GPT, Form], Callable], *, may_be_whole: bool
) -> None:
    """Logits, softmax and entropy after each token are those of the model itself, and so are keys
    and values."""
    config = draw_config(seed)
    model = randomised(config, VOCAB)
    relative = config.position != "learned" and not config.windowed
    room = config.context_length - min(PROMPT, config.context_length) + 1
    tokens = room if any(padding) and relative else room + 6
    plain, stepped = caches(model, padding, tokens)
    form = Form.of(stepped)
    whole = may_be_whole and seed % 2 == 1 and not form.stream
    form = replace(form, masked=form.masked or whole)
    step = make(model, form)
    for _ in range(min(14, tokens - 1)):
        if plain.stream is None and plain.n == plain.steps:
            break  # learned positions, which are read anew
        newest_B1 = torch.randint(VOCAB, (len(padding), 1))
        expected_BV = model.logits(read(model, plain, newest_B1, lambda: False))
        inputs = inputs_of(newest_B1, stepped, COUNTED, form, whole=whole)
        race_BV = torch.empty(len(padding), VOCAB).exponential_()
        temperature = torch.tensor([DRAWN.temperature])
        found = step(weights_of(model), inputs, [race_BV, temperature])
        logits_BV, own_BV, entropy_B, drawn_B1, told_BX = found
        stepped.end(1)
        torch.testing.assert_close(logits_BV, expected_BV, atol=5e-5, rtol=1e-4)
        torch.testing.assert_close(own_BV, expected_BV.softmax(-1), atol=1e-5, rtol=1e-3)
        expected_B = torch.distributions.Categorical(logits=expected_BV).entropy()
        torch.testing.assert_close(entropy_B, expected_B, atol=1e-4, rtol=1e-3)
        chances_BV = next_token_probabilities(logits_BV, newest_B1, DRAWN)
        assert drawn_B1[:, 0].tolist() == winners(chances_BV, race_BV).tolist()
        told = tell(own_BV, entropy_B, drawn_B1[:, 0], LIKELIEST)
        torch.testing.assert_close(told_BX, told)
    for a, b in zip(plain.layers, stepped.layers, strict=True):
        torch.testing.assert_close(a.k, b.k, atol=1e-4, rtol=1e-4)  # either may go on with it
        torch.testing.assert_close(a.v, b.v, atol=1e-4, rtol=1e-4)


def test_the_step_has_no_weights_of_its_own() -> None:
    """What is compiled of it serves every model of the shape, and none is copied."""
    model = randomised(ModelConfig(n_layer=1, n_head=2, n_embd=8, context_length=8), VOCAB)
    _, cache = caches(model, [0], 2)
    assert not Step(model, Form.of(cache)).state_dict()
    addresses = {tensor.data_ptr() for tensor in model.state_dict().values()}
    assert {tensor.data_ptr() for tensor in weights_of(model)} == addresses


def test_what_has_no_step() -> None:
    """A quantised model has other arithmetic, and one of mixed types none that is tested."""
    config = ModelConfig(n_layer=1, n_head=2, n_embd=32, context_length=8)
    assert is_possible(GPT(config, VOCAB))
    quantised = GPT(config, VOCAB)
    quantise_linear(quantised)
    mixed = GPT(config, VOCAB)
    mixed.lm_head.half()
    assert not any(map(is_possible, (quantised, mixed, torch.nn.Linear(2, 2))))
