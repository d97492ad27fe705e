"""Length, time and warnings of a run that nobody has started yet."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from engine.config import Config
from engine.correction import Correction
from engine.errors import ConfigError
from engine.hardware import Fleet, find_card
from engine.planner import (
    CorpusFacts,
    DeviceFacts,
    Plan,
    count_steps,
    count_windows,
    plan,
    with_recompute,
)

BASE = Config().with_values(
    {
        "model.n_layer": 2,
        "model.n_head": 2,
        "model.n_embd": 64,
        "model.context_length": 100,
        "train.batch_size": 10,
        "train.accumulate": 2,
        "train.max_steps": 1000,
    }
)
CORPUS = CorpusFacts(1000, True, 900_001, 100_000, exact=True, available=True)
CARD = DeviceFacts("cuda", "Example", "bfloat16", 24 * 10**9, 24 * 10**9, 100e12, "published")


def made(corpus: CorpusFacts = CORPUS, device: DeviceFacts = CARD, **values: object) -> Plan:
    known = {
        name: values.pop(name)
        for name in ("tokens_per_second", "disk_free", "correction", "fleet")
        if name in values
    }
    keys = {name.replace("__", "."): value for name, value in values.items()}
    return plan(BASE.with_values(keys), corpus, device, **known)


def titles(drawn: Plan, level: str) -> str:
    return "\n".join(m.title for m in drawn.messages if m.level == level)


def test_windows_are_counted_as_the_data_counts_them() -> None:
    """A window needs the token that follows it; the planner must not disagree with the loop."""
    import numpy as np

    from engine.data import Windows
    from engine.stream import TokenStream

    for n, context, stride in [(101, 100, 0), (100, 100, 0), (5000, 64, 16), (5000, 64, 100)]:
        windows = Windows(TokenStream([np.zeros(n, np.uint16)]), 0, n, context, stride)
        assert count_windows(n, context, stride) == len(windows)


def test_length_is_the_shortest_that_is_set() -> None:
    """9 000 windows of 100 tokens, 20 a step: an epoch is 450 steps of 2 000 tokens."""
    drawn = made()
    assert (drawn.steps, drawn.tokens_per_step, drawn.tokens) == (1000, 2000, 2_000_000)
    assert drawn.epochs == pytest.approx(1000 / 450)
    assert made(train__epochs=2.0).steps == 900
    assert made(train__epochs=2.0, train__max_tokens=100_001).steps == 51
    assert made(train__max_tokens=1).steps == 1


def test_epochs_of_an_unknown_corpus_are_not_guessed() -> None:
    unknown = CorpusFacts(1000, False, None, None, exact=False, available=True)
    drawn = made(unknown, train__max_steps=0, train__epochs=3.0)
    assert drawn.steps is None
    assert drawn.seconds is None
    assert drawn.epochs == 3.0
    with pytest.raises(ConfigError, match="no length"):
        count_steps(Config(), None)


def test_time_takes_a_known_rate_before_the_model() -> None:
    drawn = made(tokens_per_second=4000.0)
    assert drawn.seconds == pytest.approx(500)
    assert drawn.step_seconds == pytest.approx(0.5)
    modelled = made()
    assert modelled.seconds == pytest.approx(1000 * modelled.step_seconds)
    assert modelled.tokens_per_second == pytest.approx(2000 / modelled.step_seconds)
    assert modelled.rate_source.startswith("modelled from 100 TFLOP/s, published")
    assert "20 GB/s of memory, assumed" in modelled.rate_source
    faster = made(device=replace(CARD, bandwidth=1e12))
    assert faster.seconds < modelled.seconds
    assert "assumed" not in faster.rate_source
    nothing = made(device=DeviceFacts("cuda", "Example", "bfloat16"))
    assert nothing.seconds is None
    assert nothing.rate_source == ""


def test_a_correction_puts_time_and_memory_right_and_is_named() -> None:
    learnt = Correction(1.25, 3 * 10**8, "2026-11-25", "another shape")
    plain, right = made(), made(correction=lambda compiled: learnt)
    assert right.step_seconds == pytest.approx(1.25 * plain.step_seconds)
    assert right.memory.total == plain.memory.total + 3 * 10**8
    assert right.rate_source.endswith("corrected by 1.25 from a calibration of 2026-11-25")
    given = made(correction=lambda compiled: learnt, tokens_per_second=4000.0)
    assert given.seconds == pytest.approx(500)


def test_the_correction_is_that_of_the_mode_the_run_would_have() -> None:
    asked = []
    made(correction=asked.append, train__compile="on")
    made(correction=asked.append, train__compile="off")
    assert asked == [True, False]


def test_evaluations_and_compiling_take_time_too() -> None:
    quiet = made(train__eval_every=0)
    busy = made(train__eval_every=10)
    assert busy.evaluation_seconds > 10 * quiet.evaluation_seconds > 0
    assert busy.seconds == quiet.seconds
    compiled = made(train__compile="on")
    assert compiled.compile_seconds > 1
    assert compiled.whole_seconds == pytest.approx(
        compiled.seconds + compiled.compile_seconds + compiled.evaluation_seconds
    )
    assert made(data__val_fraction=0.0).evaluation_seconds == 0.0


def test_several_gpus_share_the_text_and_each_has_its_own_windows() -> None:
    """The step grows with them; so an epoch is fewer steps, and a step waits for its gradients."""
    fleet = Fleet(find_card("h100"), 8)
    one, eight = made(), made(fleet=fleet)
    assert eight.tokens_per_step == 8 * one.tokens_per_step
    assert eight.steps == one.steps
    assert made(train__max_tokens=10**6, fleet=fleet).steps == 63
    assert eight.step_seconds > one.step_seconds
    assert eight.parallel.waited_seconds == pytest.approx(eight.step_seconds - one.step_seconds)
    assert eight.gpu_hours == pytest.approx(eight.seconds * 8 / 3600)
    assert eight.memory == one.memory
    assert "8 times as large, 160 windows" in titles(eight, "info")
    assert "trains on one device" in titles(eight, "info")
    assert one.parallel is None and one.gpu_hours is None


def test_total_flops_are_tokens_times_flops() -> None:
    drawn = made()
    assert drawn.flops == drawn.tokens * drawn.flops_per_token


def test_too_large_a_batch_is_told_with_what_fits_and_is_the_same_step() -> None:
    large = made(
        train__batch_size=8192, train__accumulate=1, model__n_layer=24, train__recompute="off"
    )
    (message,) = [m for m in large.messages if m.level == "error"]
    assert "does not fit" in message.title
    (line,) = [line for line in message.hint.splitlines() if "--batch-size" in line]
    words = line.split()
    batch = int(words[words.index("--batch-size") + 1])
    accumulate = int(line.partition("train.accumulate=")[2].split()[0])
    assert batch * accumulate == 8192
    smaller = made(train__batch_size=batch, train__accumulate=accumulate, model__n_layer=24)
    assert "fit" not in titles(smaller, "error") + titles(smaller, "warning")
    assert smaller.tokens_per_step == large.tokens_per_step
    assert f"({smaller.memory.total / 1e9:.1f} GB)" in line


def test_a_model_that_never_fits_is_told_so() -> None:
    tiny_card = DeviceFacts("cuda", "Example", "bfloat16", 10**8, 10**8)
    hint = made(device=tiny_card).messages[0].hint
    assert hint.splitlines() == [
        "not even one window fits as it is",
        "a smaller model, or a device with more memory",
    ]


def test_what_looks_wrong_is_said() -> None:
    short = CorpusFacts(1000, True, 900, 100, exact=True, available=True)
    assert "validation part has 100 tokens: no window of context 100" in titles(
        made(short), "error"
    )
    noisy = CorpusFacts(1000, True, 90_000, 500, exact=True, available=True)
    assert "noisy" in titles(made(noisy), "warning")
    absent = CorpusFacts(1000, True, None, None, exact=False, available=False)
    assert "not here yet" in titles(made(absent), "error")
    assert "warm-up" in titles(made(schedule__warmup_steps=1000), "warning")
    assert "never falls" in titles(made(schedule__min_lr=0.1), "warning")
    assert "skips 50% of the text" in titles(made(data__stride=200), "warning")
    assert "overfitting" in titles(made(train__max_steps=100_000), "info")
    assert "checkpoints take" in titles(made(disk_free=10**6), "error")
    assert "renormalised" in titles(made(model__n_expert=4, model__n_expert_active=1), "warning")
    assert "balance_loss" in titles(made(model__n_expert=4, model__balance_loss=0.0), "info")


def test_a_sensible_run_is_left_in_peace() -> None:
    assert made(disk_free=10**12).messages == ()


def test_errors_come_first() -> None:
    drawn = made(train__max_steps=100_000, disk_free=10**6, schedule__min_lr=0.1)
    assert [m.level for m in drawn.messages] == ["error", "warning", "info"]


def test_a_plan_is_json() -> None:
    assert json.loads(json.dumps(made().to_dict()))["memory"]["total"] == made().memory.total


def test_auto_computes_activations_again_where_that_alone_makes_the_run_fit() -> None:
    config = Config().with_values({"train.max_steps": 10})
    needs = {"auto": 100, "on": 60, "off": 100}
    for memory, decided in ((1000, "auto"), (80, "on"), (30, "auto")):
        found = with_recompute(config, lambda c: needs[c.train.recompute], memory)
        assert found.train.recompute == decided
    kept = config.with_values({"train.recompute": "off"})
    assert with_recompute(kept, lambda c: needs[c.train.recompute], 80) == kept
