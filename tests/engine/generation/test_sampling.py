"""The sampling functions against transformers' logits processors, and what no input may break."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.generation.params import SamplingParams
from engine.generation.sampling import (
    apply_temperature,
    exponential_races,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    new_generator,
    next_token_probabilities,
    penalize_repetition,
    winners,
)

NOTHING = torch.tensor([], dtype=torch.long)
# Whole numbers on purpose: ties are the rule, not the exception.
LOGITS = st.lists(st.integers(-6, 6).map(float), min_size=1, max_size=24).map(torch.tensor)
PARAMS = st.builds(
    SamplingParams,
    repetition_penalty=st.floats(1.0, 2.0),
    temperature=st.floats(0.0, 5.0),
    top_k=st.integers(0, 30),
    top_p=st.floats(0.0, 1.0, exclude_min=True),
    min_p=st.floats(0.0, 1.0),
)


def random_logits(seed: int, size: int = 500) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)) * 3


def sample(probabilities: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    race, *_ = exponential_races([generator], len(probabilities), torch.device("cpu"))
    return winners(probabilities[None], race)[0]


def processed(processors, previous: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    scores = logits[None]
    for processor in processors:
        scores = processor(previous[None], scores)
    return scores[0]


@pytest.mark.parametrize("seed", range(5))
def test_each_function_equals_its_transformers_processor(seed: int) -> None:
    """The definitions are the ecosystem's: settings carry over from other tools."""
    from transformers.generation import logits_process as theirs

    logits = random_logits(seed)
    previous = torch.tensor([3, 9, 9, 77, 400])
    pairs = [
        (theirs.RepetitionPenaltyLogitsProcessor(1.3), penalize_repetition(logits, previous, 1.3)),
        (theirs.TemperatureLogitsWarper(0.7), apply_temperature(logits, 0.7)),
        (theirs.TopKLogitsWarper(17), keep_top_k(logits, 17)),
        (theirs.TopPLogitsWarper(0.83), keep_top_p(logits, 0.83)),
        (theirs.MinPLogitsWarper(0.05), keep_min_p(logits, 0.05)),
    ]
    for processor, ours in pairs:
        expected = processed([processor], previous, logits).softmax(0)
        torch.testing.assert_close(ours.softmax(0), expected, msg=type(processor).__name__)
        assert torch.equal(ours.softmax(0) == 0, expected == 0)


@pytest.mark.parametrize("seed", range(5))
def test_the_whole_chain_equals_transformers(seed: int) -> None:
    """The order is part of the definition: another order gives another distribution."""
    from transformers.generation import logits_process as theirs

    params = SamplingParams(1.4, 1.6, top_k=60, top_p=0.9, min_p=0.04)
    logits, previous = random_logits(seed), torch.tensor([1, 2, 3, 250])
    chain = [
        theirs.RepetitionPenaltyLogitsProcessor(1.4),
        theirs.TemperatureLogitsWarper(1.6),
        theirs.TopKLogitsWarper(60),
        theirs.TopPLogitsWarper(0.9),
        theirs.MinPLogitsWarper(0.04),
    ]
    expected = processed(chain, previous, logits).softmax(0)
    ours = next_token_probabilities(logits, previous, params)
    torch.testing.assert_close(ours, expected)
    assert 1 < int((ours > 0).sum()) < 60  # the filters did bite

    swapped = processed([chain[0], *chain[2:], chain[1]], previous, logits).softmax(0)
    assert not torch.allclose(ours, swapped, atol=1e-4)


def test_top_p_keeps_the_token_that_crosses() -> None:
    """0.5 + 0.3 crosses 0.6: both stay. 0.5 alone crosses 0.45: one stays."""
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    assert (keep_top_p(logits, 0.6) > -torch.inf).tolist() == [True, True, False, False]
    assert (keep_top_p(logits, 0.45) > -torch.inf).tolist() == [True, False, False, False]
    assert (keep_top_p(logits, 0.81) > -torch.inf).tolist() == [True, True, True, False]


def test_among_equals_the_lower_ids_stay() -> None:
    """bfloat16 logits tie often; what survives must not depend on a sort's mood."""
    level = torch.zeros(8)
    assert keep_top_k(level, 3).isfinite().tolist() == [True] * 3 + [False] * 5
    assert keep_top_p(level, 0.5).isfinite().tolist() == [True] * 4 + [False] * 4
    greedy = next_token_probabilities(level, NOTHING, SamplingParams(temperature=0.0))
    assert greedy.tolist() == [1.0] + [0.0] * 7


def test_temperature_zero_is_greedy_after_the_penalty() -> None:
    logits = torch.tensor([2.0, 3.0, 2.5])
    greedy = SamplingParams(temperature=0.0)
    assert next_token_probabilities(logits, NOTHING, greedy).tolist() == [0.0, 1.0, 0.0]
    penalized = SamplingParams(repetition_penalty=1.5, temperature=0.0)
    seen = torch.tensor([1])
    assert next_token_probabilities(logits, seen, penalized).tolist() == [0.0, 0.0, 1.0]


@given(LOGITS, PARAMS, st.data())
@settings(max_examples=200, deadline=None)
def test_any_setting_leaves_a_distribution(logits, params, data) -> None:
    """Every filter keeps at least one token, and the likeliest is always among them."""
    ids = st.lists(st.integers(0, len(logits) - 1), max_size=6)
    previous = torch.tensor(data.draw(ids), dtype=torch.long)
    probabilities = next_token_probabilities(logits, previous, params)
    assert probabilities.isfinite().all()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    likeliest = penalize_repetition(logits, previous, params.repetition_penalty).argmax()
    assert probabilities[likeliest] == probabilities.max()
    if params.top_k:
        assert int((probabilities > 0).sum()) <= params.top_k


@given(LOGITS, st.floats(0.01, 1.0))
@settings(max_examples=100, deadline=None)
def test_top_p_keeps_the_fewest_that_reach_p(logits, p) -> None:
    """The kept mass reaches p, and would not without the least likely one that was kept."""
    kept = keep_top_p(logits, p).isfinite()
    mass = logits.softmax(0)[kept]
    assert mass.sum() >= p - 1e-5
    assert mass.sum() - mass.min() < p + 1e-5


@given(st.integers(0, 2**31), PARAMS)
@settings(max_examples=50, deadline=None)
def test_what_was_dropped_is_never_drawn(seed, params) -> None:
    probabilities = next_token_probabilities(random_logits(seed, 40), NOTHING, params)
    generator = new_generator(seed, torch.device("cpu"))
    for _ in range(20):
        assert probabilities[sample(probabilities, generator)] > 0


def test_the_race_draws_by_the_probabilities() -> None:
    """The exponential race is the distribution: frequencies within five standard errors."""
    probabilities = torch.tensor([0.6, 0.3, 0.0, 0.1])
    generator = new_generator(5, torch.device("cpu"))
    draws = torch.stack([sample(probabilities, generator) for _ in range(8000)])
    frequencies = torch.bincount(draws, minlength=4) / 8000
    allowed = 5 * (probabilities * (1 - probabilities) / 8000).sqrt()
    assert ((frequencies - probabilities).abs() <= allowed).all()


def test_sampling_leaves_the_global_random_state_alone() -> None:
    """A sample drawn during training must not change the training."""
    before = torch.get_rng_state()
    for seed in (1, None):
        generator = new_generator(seed, torch.device("cpu"))
        sample(torch.full((10,), 0.1), generator)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("temperature", [1e-320, 1e-30, 1e-6, 5.0])
def test_extreme_temperatures_stay_finite(temperature: float) -> None:
    params = SamplingParams(temperature=temperature)
    probabilities = next_token_probabilities(torch.tensor([50.0, -3.0, 49.0]), NOTHING, params)
    assert probabilities.isfinite().all()
    assert probabilities.argmax() == 0


def test_diverged_weights_do_not_abort_the_device() -> None:
    """torch.multinomial would kill a CUDA context here, and the training in it."""
    token = sample(torch.full((4,), torch.nan), new_generator(1, torch.device("cpu")))
    assert 0 <= int(token) < 4
