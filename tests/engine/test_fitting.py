"""What to change when a run does not fit: every way out that is named really is one."""

from __future__ import annotations

import pytest

from engine.config import Config
from engine.config.load import parse_assignments
from engine.fitting import Remedy, largest_batch, remedies, smaller_batch
from engine.footprint import training_memory

GB = 10**9
BASE = Config().with_values(
    {
        "model.n_layer": 12,
        "model.n_embd": 768,
        "model.n_head": 12,
        "model.context_length": 512,
        "train.batch_size": 64,
        "train.max_steps": 100,
        "train.precision": "float32",
    }
)


def needs(config: Config) -> int:
    return training_memory(config, 20_000, config.train.precision, "cuda").total


def carried_out(config: Config, remedy: Remedy) -> Config:
    """The configuration that somebody who types the flags gets."""
    words = remedy.flags.split()
    values = parse_assignments([word for word in words if "=" in word])
    if "--batch-size" in words:
        values["train.batch_size"] = words[words.index("--batch-size") + 1]
    return config.with_values(values)


@pytest.mark.parametrize("room", [28 * GB, 12 * GB, 6 * GB, 4 * GB, 3 * GB])
def test_every_way_out_fits_and_takes_what_it_says(room: int) -> None:
    """The flags are typed by a person, and are then the only thing that counts."""
    assert needs(BASE) > 28 * GB
    found = remedies(BASE, needs, room, has_bfloat16=True)
    assert found
    for remedy in found:
        changed = carried_out(BASE, remedy)
        assert needs(changed) == remedy.bytes <= room
        if "context" not in remedy.words:
            windows = changed.train.batch_size * changed.train.accumulate
            assert windows == 64, "the step must stay the step"


def test_sixteen_bits_are_proposed_where_the_device_has_them() -> None:
    def flags(has_bfloat16: bool) -> str:
        found = remedies(BASE, needs, 25 * GB, has_bfloat16=has_bfloat16)
        return " ".join(remedy.flags for remedy in found)

    assert "bfloat16" in flags(True)
    assert "bfloat16" not in flags(False)


def test_recomputation_is_proposed_once() -> None:
    def flags(config: Config) -> str:
        return " ".join(r.flags for r in remedies(config, needs, 28 * GB, has_bfloat16=False))

    assert "train.recompute=on" in flags(BASE)
    already = BASE.with_values({"train.recompute": "on", "train.batch_size": 512})
    assert "recompute" not in flags(already)


def test_nothing_is_promised_where_nothing_helps() -> None:
    assert remedies(BASE, needs, GB // 10, has_bfloat16=True) == []


def test_the_largest_batch_fits_and_the_next_does_not() -> None:
    for room in (3 * GB, 20 * GB, 300 * GB):
        batch = largest_batch(BASE, needs, room)
        assert needs(BASE.with_values({"train.batch_size": batch})) <= room
        assert needs(BASE.with_values({"train.batch_size": batch + 1})) > room
    assert largest_batch(BASE, needs, GB // 10) == 0


def test_a_smaller_batch_is_the_same_step() -> None:
    config = BASE.with_values({"train.batch_size": 12, "train.accumulate": 2})
    assert smaller_batch(config) == "--batch-size 6 --set train.accumulate=4"
    assert smaller_batch(config, most=5) == "--batch-size 4 --set train.accumulate=6"
    assert smaller_batch(config.with_values({"train.batch_size": 1})) == ""
