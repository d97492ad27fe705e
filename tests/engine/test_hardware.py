"""Cards that need not be here: their names, their figures, and several of them together."""

from __future__ import annotations

import pytest

from engine import peaks
from engine.errors import DeviceError, InputError
from engine.footprint import Memory
from engine.hardware import BY_NAME, CARDS, LINK_SHARE, Fleet, card_called, find_card
from engine.parallel import spread

MEMORY = Memory(
    weights=6 * 10**9,
    gradients=4 * 10**9,
    optimizer=8 * 10**9,
    activations=10**9,
    logits=10**9,
    update=0,
    runtime=10**9,
    host_saving=0,
    on_host=False,
)


@pytest.mark.parametrize("name", BY_NAME)
def test_every_card_has_what_a_plan_needs(name: str) -> None:
    """A card whose title the table of peaks does not know would be planned at no speed at all."""
    card = find_card(name)
    assert card.peak("bfloat16") > card.peak("float32") > 1e12
    assert 10e9 < card.memory < 300e9
    assert 100e9 < card.bandwidth < 10e12
    assert card.network < card.link < card.bandwidth
    assert card.source


def test_figures_are_those_of_the_data_sheets() -> None:
    h100, a100 = find_card("h100"), find_card("A100-80GB")
    assert (h100.peak("bfloat16"), h100.bandwidth, h100.link) == (989e12, 3.35e12, 450e9)
    assert (a100.memory, a100.bandwidth, a100.link) == (80e9, 2.039e12, 300e9)
    assert find_card("mi300x").peak("bfloat16") == 1307.4e12


def test_an_unknown_name_is_refused_with_the_nearest_and_all_others() -> None:
    for wrong, near in [("h10", "'h100'"), ("rtx4090", "'rtx-4090'"), ("a100", "'a100-80gb'")]:
        with pytest.raises(DeviceError, match=f"unknown device '{wrong}'") as refused:
            find_card(wrong)
        assert f"did you mean {near}" in refused.value.hint
        assert "mi300x" in refused.value.hint
    with pytest.raises(DeviceError) as refused:
        find_card("abacus")
    assert "did you mean" not in refused.value.hint


def test_a_cuda_name_finds_its_card() -> None:
    """Words count, not their order or what stands between: drivers write names their own way."""
    called = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 PCIe": "h100-pcie",
        "NVIDIA A100-SXM4-40GB": "a100-40gb",
        "NVIDIA GeForce RTX 4090": "rtx-4090",
        "Tesla T4": "t4",
    }
    for title, name in called.items():
        card = card_called(title)
        assert card is not None and card.name == name
    assert card_called("NVIDIA T400 4GB") is None
    assert all(card_called(card.title) is card for card in CARDS)


def test_every_card_is_found_among_the_published_peaks() -> None:
    assert all(peaks.published_peak(card.title, "float16") > 0 for card in CARDS)


def test_an_exchange_takes_what_a_ring_takes() -> None:
    """2·(n - 1)/n of the bytes over each link; between machines over the network, in pieces."""
    card = find_card("h100")
    assert Fleet(card, 1).all_reduce_seconds(1e9) == 0.0
    inside = Fleet(card, 8).all_reduce_seconds(1e9)
    assert inside == pytest.approx(2 * 7 / 8 * 1e9 / 450e9 / LINK_SHARE)
    across = Fleet(card, 64).all_reduce_seconds(1e9)
    assert across == pytest.approx(inside + 2 * 7 / 8 * (1e9 / 8) / 50e9 / LINK_SHARE)
    assert Fleet(card, 64).machines == 8
    with pytest.raises(InputError, match="--gpus 0"):
        Fleet(card, 0)


def test_a_short_step_waits_for_its_gradients_and_a_long_one_hides_them() -> None:
    fleet = Fleet(find_card("h100"), 64)
    hidden, bare = spread(fleet, MEMORY, 1.0, 1.0), spread(fleet, MEMORY, 0.001, 0.001)
    assert hidden.exchange_seconds == bare.exchange_seconds
    assert hidden.waited_seconds == pytest.approx(0.1 * hidden.exchange_seconds)
    assert bare.waited_seconds == pytest.approx(bare.exchange_seconds - 0.001 * 2 / 3)
    assert hidden.efficiency > 0.99 > 0.1 > bare.efficiency


def test_sharing_the_moments_out_leaves_a_gpu_its_part_of_them() -> None:
    parallel = spread(Fleet(find_card("h100"), 8), MEMORY, 1.0, 1.0)
    assert parallel.memory == MEMORY.total
    assert parallel.memory - parallel.memory_sharded == 7 * 10**9
