"""The judge of updates: what is not finite never passes, a spike is one only against the usual."""

from __future__ import annotations

import math

import pytest
import torch

from engine.guard import FEWEST, WINDOW, DeviceGuard, Guard, HostGuard

both = pytest.mark.parametrize("kind", [HostGuard, DeviceGuard])
"""The judge on the host, and the one in tensors: they must judge alike."""


def feed(guard: Guard, norms: list[float], losses: list[float] | None = None) -> list[bool]:
    pairs = zip(losses or [1.0] * len(norms), norms, strict=True)
    return [bool(guard.allows(torch.tensor(loss), torch.tensor(norm))) for loss, norm in pairs]


@both
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_wherever_it_is(kind: type[Guard], bad: float) -> None:
    guard = kind(10.0)
    assert feed(guard, [1.0, bad, 1.0], [1.0, 1.0, bad]) == [True, False, False]
    assert guard.verdicts() == (2, 2, 0)
    assert feed(guard, [1.0]) == [True] and guard.verdicts() == (0, 2, 0)


@both
def test_an_infinite_norm_is_the_scalers_business(kind: type[Guard]) -> None:
    guard = kind(10.0, scaled=True)
    assert feed(guard, [1.0] * FEWEST + [math.inf]) == [True] * (FEWEST + 1)
    assert feed(guard, [1.0], [math.nan]) == [False]


@both
def test_a_spike_needs_enough_norms_to_be_one(kind: type[Guard]) -> None:
    guard = kind(10.0, skip_spikes=True)
    assert all(feed(guard, [1.0] * (FEWEST - 1) + [1000.0]))
    assert feed(guard, [1000.0]) == [False]
    assert guard.verdicts() == (1, 1, 1)


@both
def test_a_spike_is_made_and_counted_unless_it_is_to_be_skipped(kind: type[Guard]) -> None:
    guard = kind(10.0)
    assert feed(guard, [1.0] * FEWEST + [11.0, 9.0]) == [True] * (FEWEST + 2)
    assert guard.verdicts() == (0, 0, 1)


@both
def test_no_nan_enters_the_window(kind: type[Guard]) -> None:
    """With one in it, every later norm would compare false, or every one would be skipped."""
    guard = kind(10.0, skip_spikes=True)
    feed(guard, [1.0] * FEWEST + [math.nan] * 5)
    assert feed(guard, [1.1, 50.0, 1.2]) == [True, False, True]


@both
def test_a_lasting_change_becomes_the_new_usual(kind: type[Guard]) -> None:
    guard = kind(10.0, skip_spikes=True)
    feed(guard, [1.0] * WINDOW)
    after = feed(guard, [20.0] * WINDOW)
    assert not any(after[: WINDOW // 2]) and all(after[-WINDOW // 4 :])


@both
def test_a_resumed_guard_goes_on_where_it_was(kind: type[Guard]) -> None:
    norms = [1.0 + 0.01 * step for step in range(60)]
    whole, first, second = (kind(1.2, skip_spikes=True) for _ in range(3))
    expected = feed(whole, norms)
    head = feed(first, norms[:40])
    second.restore(first.tensors(first.memory()))
    assert head + feed(second, norms[40:]) == expected and not all(expected)
    assert second.verdicts() == whole.verdicts()


@both
def test_a_memory_is_a_moment_and_does_not_change_later(kind: type[Guard]) -> None:
    guard = kind(10.0)
    feed(guard, [1.0, 2.0])
    kept = guard.memory()
    before = {name: tensor.clone() for name, tensor in guard.tensors(kept).items()}
    feed(guard, [1.0, math.nan])
    guard.forgive()
    now = guard.tensors(kept)
    assert all(torch.equal(now[name], before[name]) for name in before)


def test_both_judges_judge_alike_and_read_each_others_memory() -> None:
    draw = torch.Generator().manual_seed(5)
    norms = torch.rand(400, generator=draw).exp().tolist()
    for index in range(0, 400, 7):
        norms[index] *= 40.0
    for index in range(0, 400, 11):
        norms[index] = math.nan
    host, device = HostGuard(10.0, skip_spikes=True), DeviceGuard(10.0, skip_spikes=True)
    assert feed(host, norms[:200]) == feed(device, norms[:200])
    ours, theirs = host.tensors(host.memory()), device.tensors(device.memory())
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    host.restore(theirs)
    device.restore(ours)
    assert feed(host, norms[200:]) == feed(device, norms[200:])
    assert host.verdicts() == device.verdicts() and host.verdicts().spikes > 30
