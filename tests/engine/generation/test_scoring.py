"""Scoring a text: the model's own distribution, whatever the text's length and the network."""

from __future__ import annotations

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.errors import EngineError, InputError
from engine.generation.generate import encode_prompt, generate
from engine.generation.load import load_generator
from engine.generation.params import SamplingParams
from engine.generation.scoring import score
from engine.model import GPT
from engine.tokenizers import build
from tests.engine.model.shapes import draw_config
from tests.tiny_run import make_tiny_run

CPU = torch.device("cpu")
BYTES = build("bytes", lambda: iter(()), 257)


def gpt(context: int = 16, **settings) -> GPT:
    torch.manual_seed(3)
    shape = ModelConfig(n_layer=2, n_head=2, n_embd=16, context_length=context, **settings)
    return GPT(shape, 257)


def text(length: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(257, (length,), generator=generator).tolist()


def test_inside_the_context_it_is_the_plain_log_softmax():
    """One forward pass over the whole, read off where each next token stands."""
    model, ids = gpt(context=200), text(200)
    with torch.no_grad():
        model.eval()
        log_TV = model(torch.tensor([ids]))[0].log_softmax(-1)
    model.train()
    scored = score(model, BYTES, ids, device=CPU)
    assert model.training, "left as it was found"
    assert len(scored) == len(ids) - 1
    for t, one in enumerate(scored):
        own_V = log_TV[t].exp()
        assert one.token == ids[t + 1]
        assert one.probability == pytest.approx(float(own_V[one.token]), rel=1e-4)
        assert one.entropy == pytest.approx(float(-(own_V * log_TV[t]).sum()), rel=1e-4)
        best = own_V.topk(5)
        assert list(one.alternative_ids) == best.indices.tolist()
        assert [name for name, _ in one.alternatives] == [
            BYTES.token_text(token) for token in best.indices.tolist()
        ]


@pytest.mark.parametrize("seed", range(12))
def test_what_a_model_wrote_it_scores_as_it_wrote_it(seed):
    """The difference between a model and itself is nothing: any network, through cache or not."""
    torch.manual_seed(seed)
    config = draw_config(seed, context_length=32)
    model = GPT(config, 257).eval()
    params = SamplingParams(max_tokens=24, seed=seed)
    drawn = list(generate(model, BYTES, "hello", params, device=CPU))
    ids = encode_prompt(BYTES, "hello") + [token.token for token in drawn]
    scored = score(model, BYTES, ids, device=CPU, first=5)
    assert len(scored) == len(drawn) > 0
    for token, one in zip(drawn, scored, strict=True):
        assert one.probability == pytest.approx(token.probability, rel=1e-3, abs=1e-7)
        assert one.entropy == pytest.approx(token.entropy, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("first", [1, 7, 16, 17, 40])
def test_beyond_the_context_each_token_is_judged_by_half_a_context_or_more(first):
    """Every token once, in order; each as a forward pass over some window that ends before it."""
    model, ids = gpt(context=16).eval(), text(90)
    scored = score(model, BYTES, ids, device=CPU, first=first)
    assert [one.token for one in scored] == ids[first:]
    for place, one in enumerate(scored, first):
        with torch.no_grad():
            possible = {
                round(
                    float(
                        model(torch.tensor([ids[place - n : place]]))[0, -1].softmax(-1)[one.token]
                    ),
                    7,
                )
                for n in range(min(8, place), min(16, place) + 1)
            }
        assert any(abs(one.probability - each) < 2e-7 for each in possible)


def test_a_checkpoint_scores_what_another_of_its_tokenizer_wrote(tmp_path):
    """Its own text as it wrote it; a run's with another tokenizer not at all, for the same numbers
    are other texts there."""
    lab = make_tiny_run(tmp_path)[0]
    generator = load_generator(lab, "tiny@20", "cpu")
    run = generator.info.path.parent
    drawn = list(generator.stream("the", SamplingParams(max_tokens=6, seed=1)))
    scored = generator.score("the", [token.token for token in drawn], run)
    for token, one in zip(drawn, scored, strict=True):
        assert one.probability == pytest.approx(token.probability, rel=1e-3, abs=1e-7)
    BYTES.save(tmp_path / "other" / "tokenizer")
    with pytest.raises(InputError, match="different tokenizers"):
        generator.score("the", [1], tmp_path / "other")


def test_what_cannot_be_scored_is_refused():
    model = gpt()
    with pytest.raises(InputError, match="first = 0"):
        score(model, BYTES, [1, 2], device=CPU, first=0)
    with pytest.raises(InputError, match="token 257"):
        score(model, BYTES, [1, 257], device=CPU)
    assert score(model, BYTES, text(60), device=CPU, should_stop=lambda: True) == []
    assert score(model, BYTES, [1], device=CPU) == []
    with torch.no_grad():
        model.ln_f.weight.fill_(float("nan"))
    with pytest.raises(EngineError, match="not finite"):
        score(model, BYTES, [1, 2], device=CPU)
