"""The generation loop: where it starts and ends, what it shows, and what it must leave alone."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config.sections import ModelConfig
from engine.errors import EngineError, InputError
from engine.generation.generate import encode_prompt, generate, generate_batch
from engine.generation.params import SamplingParams
from engine.generation.sampling import penalize_repetition
from engine.model import GPT
from engine.tokenizers import Tokenizer, build
from tests.engine.generation.toy import TableModel, says
from tests.engine.model.shapes import draw_config, randomised

CPU = torch.device("cpu")
BYTES = build("bytes", lambda: iter(()), 257)
GREEDY = SamplingParams(temperature=0.0, max_tokens=30)


def spell(text: str, end: bool = True) -> list[int]:
    return BYTES.encode(text) + ([BYTES.eot_id] if end else [])


def run(model, prompt, params: SamplingParams = GREEDY, **options):
    return list(generate(model, BYTES, prompt, params, device=CPU, **options))


def text_of(tokens) -> str:
    return "".join(token.text for token in tokens)


def gpt(vocab_size: int = 257, context: int = 16, dropout: float = 0.0) -> GPT:
    torch.manual_seed(3)
    shape = ModelConfig(n_layer=2, n_head=2, n_embd=16, context_length=context, dropout=dropout)
    return GPT(shape, vocab_size)


def test_it_says_what_the_model_says_and_ends_at_end_of_text() -> None:
    tokens = run(says(spell("abcdef")), "a")
    assert text_of(tokens) == "bcdef"
    assert [token.reason for token in tokens] == [""] * 5 + ["eot"]
    assert [token.index for token in tokens] == list(range(6))
    assert tokens[-1].token == BYTES.eot_id
    assert tokens[-1].text == ""


def test_length_ends_it_and_the_last_token_says_so() -> None:
    tokens = run(says(spell("abcdef")), "a", SamplingParams(temperature=0.0, max_tokens=3))
    assert [(token.text, token.reason) for token in tokens] == [
        ("b", ""),
        ("c", ""),
        ("d", "length"),
    ]


@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("d",), "bc"),
        (("def",), "bc"),
        (("b",), ""),
        (("zz", "ef", "cde"), "b"),
        (("efh",), "bcdefg"),  # begins, but does not go on: nothing is lost
        (("fgh",), "bcdefg"),
        (("",), "bcdefg"),
    ],
)
def test_stop_strings_span_tokens_and_nothing_of_them_is_shown(stops, expected) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=30, stop=stops)
    tokens = run(says(spell("abcdefg")), "a", params)
    assert text_of(tokens) == expected
    assert tokens[-1].reason == ("stop" if expected != "bcdefg" else "eot")
    assert all(not token.reason for token in tokens[:-1])


def test_no_text_of_a_possible_stop_is_yielded_early() -> None:
    """A screen cannot take back what it has shown: "de" waits until "f" decides."""
    model = says(spell("abcdefg"))
    params = SamplingParams(temperature=0.0, max_tokens=30, stop=("dex",))
    seen = {}
    for token in generate(model, BYTES, "a", params, device=CPU):
        seen[token.text] = len(model.windows)
    assert seen["c"] == 2  # shown at once
    assert seen["d"] == seen["e"] == seen["f"] == 5  # only once "f" was drawn


class Letters(Tokenizer):
    """A tokenizer of multi-letter pieces, so that a stop string may end inside a token."""

    kind = "letters"

    def __init__(self, pieces: list[str]) -> None:
        super().__init__([piece.encode() for piece in pieces], {})
        self.pieces = pieces

    def encode_array(self, text: str) -> np.ndarray:
        return np.array([self.pieces.index(text)], dtype=np.uint16)

    def settings(self) -> dict:
        return {"pieces": self.pieces}


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=2, max_size=12, unique=True),
    st.lists(st.text("ab", min_size=1, max_size=5), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_the_shown_text_is_the_whole_text_up_to_the_first_stop(pieces, stops) -> None:
    model = says(list(range(len(pieces))), len(pieces), context_length=32)
    params = SamplingParams(temperature=0.0, max_tokens=len(pieces) - 1, stop=tuple(stops))
    tokens = list(generate(model, Letters(pieces), pieces[0], params, device=CPU))
    whole = "".join(pieces[1:])
    ends = [at for stop in stops if (at := whole.find(stop)) >= 0]
    # Greedy generation stops at the first *completed* stop string; one that begins earlier but
    # is completed later is not seen. Any shown text is a beginning and holds no stop string.
    shown = text_of(tokens)
    assert whole.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert tokens[-1].reason == ("stop" if ends else "length")
    if not ends:
        assert shown == whole
    # What each token shows is its own text; only the last may be cut.
    assert [t.text for t in tokens[:-1]] == [pieces[t.token] for t in tokens[:-1]]


def test_the_probability_is_the_models_own_at_every_setting() -> None:
    """Colours mean the same whatever the filters do."""
    table_VV = torch.tensor([[0.5, 0.3, 0.2]]).log().repeat(3, 1)
    tokenizer = Letters(["x", "y", "z"])
    for params in (
        SamplingParams(temperature=0.0, max_tokens=1),
        SamplingParams(temperature=3.0, top_k=1, repetition_penalty=1.1, max_tokens=1),
    ):
        model = TableModel(table_VV.clone())
        (token,) = generate(model, tokenizer, "z", params, device=CPU, alternatives=2)
        assert token.token == 0
        assert token.probability == pytest.approx(0.5, abs=1e-6)
        assert [name for name, _ in token.alternatives] == ["x", "y"]
        assert [p for _, p in token.alternatives] == pytest.approx([0.5, 0.3], abs=1e-6)


def test_characters_of_several_bytes_come_whole() -> None:
    tokens = run(says(spell("aé☃b")), "a")
    assert text_of(tokens) == "é☃b"
    assert "\ufffd" not in text_of(tokens)
    assert tokens[0].text == ""


def test_a_character_cut_by_the_length_is_shown_as_broken() -> None:
    tokens = run(says(spell("a☃")), "a", SamplingParams(temperature=0.0, max_tokens=2))
    assert text_of(tokens) == "\ufffd"


def test_cancelling_ends_with_the_token_in_hand() -> None:
    answers = iter([False, False, True])
    tokens = run(says(spell("abcdef")), "a", should_stop=lambda: next(answers))
    assert text_of(tokens) == "bcd"
    assert tokens[-1].reason == "cancelled"


def test_a_token_is_read_once() -> None:
    model = says(spell("abcdefgh"), context_length=16)
    run(model, "abc", SamplingParams(temperature=0.0, max_tokens=4))
    assert model.windows == [BYTES.encode("abc"), *([i] for i in BYTES.encode("def"))]


def test_a_full_context_of_learned_positions_is_read_anew_from_its_newest_half() -> None:
    model = says(spell("abcdefghij"), context_length=4)
    assert text_of(run(model, "abc")) == "defghij"
    assert model.windows[:5] == [BYTES.encode(piece) for piece in ("abc", "d", "de", "f", "g")]


def test_the_penalty_looks_at_the_newest_context_however_long_the_text() -> None:
    """Also where the context is read anew."""
    context, table_VV = 8, torch.rand(12, 12, generator=torch.Generator().manual_seed(2)) + 0.5
    model = TableModel(table_VV, context_length=context)
    prompts = [[3], [5]]
    params = SamplingParams(temperature=0.0, repetition_penalty=1.6, max_tokens=30)
    expected = {}
    for row, prompt in enumerate(prompts):
        ids = list(prompt)
        for _ in range(params.max_tokens):
            seen = torch.tensor(ids[-context:])
            ids.append(int(penalize_repetition(table_VV[ids[-1]], seen, 1.6).argmax()))
        expected[row] = ids[1:]
    assert len(set(expected[0])) > context, "the penalty has something to do"
    got: dict[int, list[int]] = {0: [], 1: []}
    for row, token in generate_batch(model, BYTES, prompts, params, device=CPU):
        got[row].append(token.token)
    assert got == expected


@pytest.mark.parametrize("seed", range(30))
@torch.no_grad()
def test_inside_the_context_the_cache_changes_nothing(seed: int) -> None:
    """Greedy tokens and their probabilities, for any network, are those of the whole forward."""
    config = draw_config(seed)
    model = randomised(config, 257)
    prompt = [random.Random(seed).randrange(256) for _ in range(1 + seed % 4)]
    params = SamplingParams(temperature=0.0, max_tokens=config.context_length - len(prompt))
    ids = list(prompt)
    for token in generate(model, BYTES, prompt, params, device=CPU):
        own = model(torch.tensor([ids]))[0, -1].softmax(0)
        assert token.probability == pytest.approx(float(own.max()), abs=1e-5)
        assert float(own[token.token]) == pytest.approx(float(own.max()), abs=1e-5)
        assert token.entropy == pytest.approx(float(-(own * own.log()).sum()), abs=1e-3)
        assert token.alternative_ids[0] == token.token
        ids.append(token.token)


@torch.no_grad()
def test_beyond_the_context_memory_stays_and_so_does_the_text() -> None:
    """Five contexts by a stream; and by windows alone, where nothing is forgotten that was seen."""
    for settings_ in ({}, {"window": 5}):
        config = ModelConfig(
            n_layer=2, n_head=2, n_embd=24, context_length=12, position="rope", **settings_
        )
        params = SamplingParams(temperature=0.0, max_tokens=60, sinks=2)
        tokens = list(generate(randomised(config, 257), BYTES, "ab", params, device=CPU))
        assert len(tokens) == 60
        assert {token.cache_bytes for token in tokens} == {tokens[0].cache_bytes}
        assert tokens[0].cache_bytes <= 2 * 2 * 2 * 12 * 12 * 4


def test_a_long_prompt_is_streamed_in_where_positions_are_relative() -> None:
    config = ModelConfig(n_layer=1, n_head=2, n_embd=24, context_length=12, position="rope")
    model = randomised(config, 257)
    params = SamplingParams(temperature=0.0, max_tokens=3)
    long = BYTES.encode("once upon a time there was a model")
    assert len(run(model, long, params)) == 3
    cropped, newest = (run(model, ids, params, crop=True) for ids in (long, long[-12:]))
    assert [t.token for t in cropped] == [t.token for t in newest]


def test_reading_a_long_prompt_can_be_stopped() -> None:
    config = ModelConfig(n_layer=1, n_head=2, n_embd=24, context_length=16, position="rope")
    assert run(randomised(config, 257), [1] * 200, should_stop=lambda: True) == []


def test_ids_outside_the_vocabulary_are_refused() -> None:
    with pytest.raises(InputError, match="token 257 of the prompt"):
        generate(gpt(), BYTES, [1, 257], GREEDY, device=CPU)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("seed", range(12))
def test_a_batch_is_its_prompts_one_by_one(seed: int, temperature: float) -> None:
    """Different lengths, different ends; sampled too, each row from its own seed."""
    config = draw_config(seed, context_length=40)
    model = randomised(config, 257)
    prompts = ["a", "some words", [5], "the longest prompt"]
    params = SamplingParams(
        temperature=temperature, max_tokens=20, seed=7, repetition_penalty=1.2, stop=("q", "5")
    )
    rows: dict[int, list] = {row: [] for row in range(len(prompts))}
    for row, token in generate_batch(model, BYTES, prompts, params, device=CPU):
        rows[row].append(token)
    for row, prompt in enumerate(prompts):
        alone = run(model, prompt, replace(params, seed=7 + row))
        assert [t.token for t in rows[row]] == [t.token for t in alone]
        assert [t.text for t in rows[row]] == [t.text for t in alone]
        assert rows[row][-1].reason == alone[-1].reason
        ours, theirs = ([t.probability for t in tokens] for tokens in (rows[row], alone))
        assert ours == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("position", ["learned", "rope"])
def test_a_batch_that_outgrows_the_context_is_its_prompts_one_by_one(position: str) -> None:
    """Streams go one after the other; learned positions are read anew, each row where it stands."""
    config = ModelConfig(n_layer=2, n_head=2, n_embd=24, context_length=16, position=position)
    model = randomised(config, 257)
    prompts = ["abcdefgh", "ij"]
    params = SamplingParams(temperature=0.0, max_tokens=30)
    rows: dict[int, list[int]] = {0: [], 1: []}
    for row, token in generate_batch(model, BYTES, prompts, params, device=CPU):
        rows[row].append(token.token)
    assert all(len(row) == 30 for row in rows.values())
    if position == "rope":
        alone = [[t.token for t in run(model, prompt, params)] for prompt in prompts]
        assert [rows[0], rows[1]] == alone
    else:
        # Together they are full together: each is what it would be if read anew at that moment.
        assert rows[0] == [t.token for t in run(model, prompts[0], params)]


def test_a_prompt_longer_than_the_context_is_refused_before_anything_runs() -> None:
    model = says(spell("abcdefgh"), context_length=3)
    with pytest.raises(InputError) as caught:
        generate(model, BYTES, "abcd", GREEDY, device=CPU)  # not even iterated
    assert "4" in caught.value.title
    assert "3" in caught.value.title
    assert "--crop" in caught.value.hint
    assert not model.windows

    tokens = run(model, "abcd", crop=True)
    assert model.windows[0] == BYTES.encode("bcd")
    assert text_of(tokens) == "efgh"
    assert text_of(run(model, "abc")) == "defgh"  # exactly the context is fine


def test_an_empty_prompt_starts_where_documents_start() -> None:
    model = says([BYTES.eot_id, *BYTES.encode("hey")])
    assert text_of(run(model, "", SamplingParams(temperature=0.0, max_tokens=3))) == "hey"
    char = build("char", lambda: iter(["ab\n"]), 0)
    assert encode_prompt(char, "") == char.encode("\n")
    assert encode_prompt(build("char", lambda: iter(["ab"]), 0), "") == [0]


def test_same_seed_same_text_and_other_seeds_differ() -> None:
    model = gpt()

    def texts(seed):
        return [t.token for t in run(model, "a", SamplingParams(seed=seed, max_tokens=20))]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert texts(None) != texts(None)


def test_greedy_equals_the_whole_forward() -> None:
    """Only the last position meets the output matrix; the tokens must not notice."""
    model = gpt().eval()
    ids = BYTES.encode("Once upon")
    for token in run(model, "Once upon", SamplingParams(temperature=0.0, max_tokens=7)):
        with torch.no_grad():
            logits = model(torch.tensor([ids[-16:]]))[0, -1]
        assert token.token == int(logits.argmax())
        assert token.probability == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
        ids.append(token.token)


def test_training_does_not_notice_a_sample() -> None:
    """Mode, gradients, global random states: all as before, also between two tokens."""
    model = gpt(dropout=0.5)
    model.blocks[0].eval()  # a frozen part stays as it is
    modes = [module.training for module in model.modules()]
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    for _ in generate(model, BYTES, "a", SamplingParams(max_tokens=3), device=CPU):
        assert [module.training for module in model.modules()] == modes
        assert torch.is_grad_enabled()
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    assert states[2] == random.getstate()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off_while_a_model_in_training_generates() -> None:
    model = says(spell("abcdef"), dropout=0.9).train()
    assert text_of(run(model, "a")) == "bcdef"


def test_diverged_weights_are_an_error_in_words() -> None:
    model = says(spell("abc"))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        run(model, "a")
