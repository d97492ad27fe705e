"""Beam search: the sequences and scores of `transformers`, greedy with one beam, clear refusals."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.errors import EngineError, InputError
from engine.generation.beam import Beams, beam_search
from engine.generation.generate import generate
from engine.generation.params import SamplingParams
from engine.tokenizers import build
from engine.tokenizers.char import CharTokenizer
from tests.engine.generation.test_parity import CPU, LETTERS, VOCAB, lively_pair
from tests.engine.generation.toy import TableModel, says
from tests.engine.model.shapes import randomised

PAD = 1
BYTES = build("bytes", lambda: iter(()), 257)


class Ending(CharTokenizer):
    """The letters, of which one ends a text."""

    eot_id: int | None = None  # type: ignore[assignment]

    def __init__(self, end: int | None) -> None:
        super().__init__(LETTERS.characters)
        self.eot_id = end


@pytest.mark.parametrize(
    ("kind", "seed", "settings"),
    [
        ("gpt2", 3, Beams(4, 25)),
        ("gpt2", 5, Beams(3, 40, length_penalty=0.0, early_stopping="never")),
        ("llama", 0, Beams(5, 30, length_penalty=2.0, early_stopping=True)),
        ("mistral", 1, Beams(2, 40, length_penalty=-1.0)),
        ("qwen3_moe", 0, Beams(3, 25, length_penalty=0.6, early_stopping="never")),
        ("gpt_oss", 7, Beams(4, 20)),
    ],
)
@pytest.mark.parametrize("place", [None, 9, -1], ids=["length", "early-end", "late-end"])
def test_sequences_and_scores_equal_transformers(
    kind: str, seed: int, settings: Beams, place: int | None, tmp_path: Path
) -> None:
    """Texts that run to their length, and texts that a token ends which the best ones have."""
    ours, theirs = lively_pair(kind, seed, tmp_path, std=0.25)
    prompt = torch.randint(0, VOCAB, (7,)).tolist()
    tokenizer = Ending(None)
    if place is not None:
        best = beam_search(ours, tokenizer, prompt, settings, device=CPU)[0]
        tokenizer = Ending(best.tokens[place])
    expected = theirs.generate(
        torch.tensor([prompt]),
        max_new_tokens=settings.max_tokens,
        num_beams=settings.beams,
        num_return_sequences=settings.beams,
        length_penalty=settings.length_penalty,
        early_stopping=settings.early_stopping,
        eos_token_id=tokenizer.eot_id,
        pad_token_id=PAD,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    found = beam_search(ours, tokenizer, prompt, settings, device=CPU)
    for one, row in zip(found, expected.sequences.tolist(), strict=True):
        continuation = row[len(prompt) :]
        assert list(one.tokens) == continuation[: len(one.tokens)]
        assert {*continuation[len(one.tokens) :]} <= {PAD}
    scores = [one.score for one in found]
    assert scores == pytest.approx(expected.sequences_scores.tolist(), rel=1e-5)
    if settings.length_penalty <= 1:  # above, those that ended are dropped for longer ones
        assert any(one.reason == "eot" for one in found) == (place is not None)


def test_one_beam_is_greedy() -> None:
    """Also where it ends: greedy generation does not look beyond its end-of-text token."""
    for seed in range(6):
        config = ModelConfig(n_layer=2, n_head=2, n_embd=24, context_length=40, position="rope")
        model = randomised(config, 257, seed)
        params = SamplingParams(temperature=0.0, max_tokens=30)
        greedy = [t.token for t in generate(model, BYTES, "some", params, device=CPU)]
        (beam,) = beam_search(
            model, BYTES, "some", Beams(1, 30, early_stopping="never"), device=CPU
        )
        assert list(beam.tokens) == greedy
    said = [*BYTES.encode("abc"), BYTES.eot_id]
    (beam,) = beam_search(says(said), BYTES, "a", Beams(1, 5), device=CPU)
    assert (beam.text, beam.reason) == ("bc", "eot")
    assert beam.tokens == (*BYTES.encode("bc"), BYTES.eot_id)


def test_beams_find_what_greedy_misses() -> None:
    """The likeliest first token leads to nothing likely; the second to a certain text."""
    table_VV = torch.full((VOCAB, VOCAB), 0.01)
    table_VV[0, 1], table_VV[0, 2] = 0.5, 0.45
    table_VV[1, 3:] = 0.02
    table_VV[2, 4] = 50.0
    model = TableModel((table_VV / table_VV.sum(-1, keepdim=True)).log())
    (greedy,) = beam_search(model, LETTERS, [0], Beams(1, 2), device=CPU)
    best = beam_search(model, LETTERS, [0], Beams(2, 2), device=CPU)[0]
    assert greedy.tokens[0] == 1
    assert best.tokens == (2, 4)
    assert best.score > greedy.score
    first = table_VV[0, 2] / table_VV[0].sum() * table_VV[2, 4] / table_VV[2].sum()
    assert best.score == pytest.approx(float(first.log()) / 2, abs=1e-5)


def test_a_search_can_be_stopped() -> None:
    """What had ended by then is all that is returned."""
    answers = iter([False, False, True])
    model = says(BYTES.encode("abcdef"))
    stopped = beam_search(
        model, BYTES, "a", Beams(2, 5), device=CPU, should_stop=lambda: next(answers)
    )
    assert stopped == []


def test_beams_outgrow_the_context_as_streams() -> None:
    """With relative positions memory stays; with learned ones the search is refused at once."""
    config = ModelConfig(n_layer=1, n_head=2, n_embd=24, context_length=12, position="rope")
    found = beam_search(randomised(config, 257), BYTES, "abc", Beams(3, 40), device=CPU)
    assert [len(one.tokens) for one in found] == [40, 40, 40]
    with pytest.raises(InputError, match="max_tokens = 6 outgrow") as caught:
        beam_search(says(BYTES.encode("abc")), BYTES, "abc", Beams(2, 6), device=CPU)
    assert "at most 5" in caught.value.hint


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("beams", 0), ("beams", 257), ("max_tokens", 0), ("length_penalty", float("nan")),
        ("early_stopping", "soon"), ("sinks", -1),
    ],
)  # fmt: skip
def test_settings_outside_their_bounds_are_named(field: str, value: object) -> None:
    with pytest.raises(InputError, match=field):
        Beams(**{field: value})  # type: ignore[arg-type]


def test_diverged_weights_are_an_error_in_words() -> None:
    model = says(BYTES.encode("abc"))
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(EngineError, match="not finite"):
        beam_search(model, BYTES, "a", Beams(2, 3), device=CPU)
