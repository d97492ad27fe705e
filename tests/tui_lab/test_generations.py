"""The words in which a generation is told, and the stop texts as they are typed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.generation.params import SamplingParams
from tui_lab.generation_thread import Token
from tui_lab.generations import Generation, again, settings, stops_to_text, text_to_stops


@given(st.lists(st.text(min_size=1), max_size=4))
def test_stop_texts_survive_being_typed(stops):
    """Newlines, bars and backslashes too: they are what stop texts are made of."""
    assert text_to_stops(stops_to_text(tuple(stops))) == tuple(stops)


def test_stop_texts_as_a_person_types_them():
    assert text_to_stops(r"\n\n|def ") == ("\n\n", "def ")
    assert text_to_stops("") == ()


def generation() -> Generation:
    params = SamplingParams(top_k=40, seed=7, stop=("\n",))
    return Generation(1, "r1", "/x", "micro @ 500", "Once", params, asked=10.0)


def test_the_settings_name_what_is_not_the_default_and_the_seed():
    assert settings(generation().params) == "temp 0.8 · top-k 40 · stop \\n · seed 7"


def test_the_rate_leaves_out_the_wait_for_the_first_token():
    """A rate that counts the loading says nothing about the model."""
    one = generation()
    one.started = 12.0
    for index in range(11):
        one.add(Token("r1", "x", 0.5, (), 12.5 + index * 0.1))
    assert one.tokens_per_second is not None
    assert abs(one.tokens_per_second - 10) < 1e-6
    assert one.first_token_seconds == 0.5
    assert one.figures() == "11 tokens · 10.0 tok/s · first 500 ms"
    assert one.whole == "Once" + "x" * 11


def test_once_more_keeps_the_seed_and_nothing_of_what_came():
    one = generation()
    one.add(Token("r1", "x", 0.5, (), 11.0))
    two = again(one, 2, "r2", 20.0)
    assert (two.params, two.prompt, two.reference) == (one.params, one.prompt, one.reference)
    assert (two.tokens, two.text, two.first) == (0, [], None)
    two.add(Token("r2", "y", 0.5, (), 21.0))
    assert one.text == ["x"]
