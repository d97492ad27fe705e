"""A text that branches off another: it goes on from tokens, the first of which is chosen."""

from __future__ import annotations

import json

import pytest
import torch

from engine import control
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.generation.generate import generate
from engine.generation.params import SamplingParams
from engine.model import GPT
from engine.tokenizers import build
from tests.engine.generation.toy import says

CPU = torch.device("cpu")
BYTES = build("bytes", lambda: iter(()), 257)
GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


def gpt(**settings) -> GPT:
    torch.manual_seed(3)
    return GPT(ModelConfig(n_layer=2, n_head=2, n_embd=16, context_length=16, **settings), 257)


def run(model, prompt, params: SamplingParams = GREEDY, **options):
    return list(generate(model, BYTES, prompt, params, device=CPU, **options))


def test_a_branch_along_its_own_text_is_that_text():
    """Taking at a place what stands there changes nothing of what follows."""
    model = gpt(position="rope")
    whole = run(model, "ab")
    ids = [token.token for token in whole]
    branch = run(model, "ab", continued=ids[:5])
    assert [token.token for token in branch][:8] == ids[4:12]
    for mine, theirs in zip(branch, whole[4:], strict=False):
        assert mine.probability == pytest.approx(theirs.probability, rel=1e-4)
        assert mine.alternative_ids == theirs.alternative_ids


def test_the_chosen_token_comes_first_with_the_model_s_own_probability():
    model = gpt()
    first = run(model, "ab")[0]
    other = first.alternative_ids[3]
    branch = run(model, "ab", continued=[other])
    assert branch[0].token == other
    assert branch[0].probability == pytest.approx(first.alternatives[3][1], rel=1e-5)
    assert branch[0].alternatives == first.alternatives
    assert branch[0].index == 0
    assert len(branch) == 12, "it counts as one of the tokens asked for"


def test_a_character_begun_before_the_branch_is_ended_by_it():
    """The bytes of é stand on both sides of the place: no replacement character comes of it."""
    first, second = "é".encode()
    branch = run(says([second, ord("x"), ord("y")]), "a", continued=[first, second])
    assert "".join(token.text for token in branch).startswith("éxy")


def test_a_text_that_outgrew_learned_positions_can_be_branched():
    model = gpt()
    params = SamplingParams(temperature=0.0, max_tokens=40)
    ids = [token.token for token in run(model, "ab", params)]
    assert len(run(model, "ab", params, continued=ids[:30])) == 40


def test_a_foreign_token_is_refused_before_anything_is_computed():
    with pytest.raises(InputError, match="token 300"):
        generate(gpt(), BYTES, "a", GREEDY, device=CPU, continued=[1, 300])
    with pytest.raises(InputError, match="token 300"):
        generate(gpt(), BYTES, "a", GREEDY, device=CPU, continued=[300, 1])


def test_a_branch_travels_through_the_spool_and_no_farther_than_its_bounds():
    """Another process writes the record: what is no list of tokens never reaches the model."""
    asked = control.Sample("a", GREEDY, "r", (1, 2, 3))
    record = json.loads(json.dumps(control.to_record(asked)))
    assert control.from_record(record) == asked
    for wrong in (
        [-1],
        [1.0],
        [True],
        ["1"],
        "12",
        [2**31],
        None,
        [1] * (control.MAX_CONTINUED + 1),
    ):
        with pytest.raises(InputError, match="continued"):
            control.from_record({**record, "continued": wrong})
    del record["continued"]
    assert control.from_record(record).continued == ()
