"""The judge of updates: what is not finite never passes, a spike is one only against the usual."""

from __future__ import annotations

import math

import pytest
import torch

from engine.guard import FEWEST, WINDOW, Guard, Verdicts

CPU = torch.device("cpu")


def feed(guard: Guard, norms: list[float], losses: list[float] | None = None) -> list[bool]:
    pairs = zip(losses or [1.0] * len(norms), norms, strict=True)
    return [bool(guard.allows(torch.tensor(loss), torch.tensor(norm))) for loss, norm in pairs]


def counts(guard: Guard) -> Verdicts:
    return Verdicts(*(int(count) for count in guard.counts.tolist()))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(bad: float) -> None:
    guard = Guard(CPU, 10.0)
    assert feed(guard, [1.0, bad, 1.0], [1.0, 1.0, bad]) == [True, False, False]
    assert counts(guard) == (2, 2, 0)
    assert feed(guard, [1.0]) == [True] and counts(guard) == (0, 2, 0)


def test_an_infinite_norm_is_the_scalers_business() -> None:
    guard = Guard(CPU, 10.0, scaled=True)
    assert feed(guard, [1.0] * FEWEST + [math.inf]) == [True] * (FEWEST + 1)
    assert feed(guard, [1.0], [math.nan]) == [False]


def test_a_spike_needs_enough_norms_to_be_one() -> None:
    guard = Guard(CPU, 10.0, skip_spikes=True)
    assert all(feed(guard, [1.0] * (FEWEST - 1) + [1000.0]))
    assert feed(guard, [1000.0]) == [False]
    assert counts(guard) == (1, 1, 1)


def test_a_spike_is_made_and_counted_unless_it_is_to_be_skipped() -> None:
    guard = Guard(CPU, 10.0)
    assert feed(guard, [1.0] * FEWEST + [11.0, 9.0]) == [True] * (FEWEST + 2)
    assert counts(guard) == (0, 0, 1)


def test_no_nan_enters_the_window() -> None:
    """With one in it, every later norm would compare false, or every one would be skipped."""
    guard = Guard(CPU, 10.0, skip_spikes=True)
    feed(guard, [1.0] * FEWEST + [math.nan] * 5)
    assert feed(guard, [1.1, 50.0, 1.2]) == [True, False, True]


def test_a_lasting_change_becomes_the_new_usual() -> None:
    guard = Guard(CPU, 10.0, skip_spikes=True)
    feed(guard, [1.0] * WINDOW)
    after = feed(guard, [20.0] * WINDOW)
    assert not any(after[: WINDOW // 2]) and all(after[-WINDOW // 4 :])


def test_a_resumed_guard_goes_on_where_it_was() -> None:
    norms = [1.0 + 0.01 * step for step in range(60)]
    whole, first, second = (Guard(CPU, 1.2, skip_spikes=True) for _ in range(3))
    expected = feed(whole, norms)
    head = feed(first, norms[:40])
    second.restore(first.tensors())
    assert head + feed(second, norms[40:]) == expected and not all(expected)
    assert counts(second) == counts(whole)


def test_tensors_are_a_moment_and_do_not_change_later() -> None:
    guard = Guard(CPU, 10.0)
    before = {name: tensor.clone() for name, tensor in guard.tensors().items()}
    kept = guard.tensors()
    feed(guard, [1.0, math.nan])
    guard.forgive()
    assert all(torch.equal(kept[name], before[name]) for name in before)
