"""Whole runs, small: what is written, what is obeyed, and that a resumed run is the same run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from engine import control, device, events
from engine.checkpoints import list_checkpoints
from engine.checkpoints.load import load_training, load_weights
from engine.checkpoints.snapshot import Memory, Snapshot
from engine.config import Config, from_dict
from engine.control import Inbox
from engine.errors import CheckpointError, ConfigError, CorpusError, EngineError, InputError
from engine.lab import Lab
from engine.metrics import read_metrics
from engine.objectives import Loss, Pretrain
from engine.session import resume_training, run_training
from tests.campaign.faults import changed


def tiny_config(**changes: Any) -> Config:
    """Two layers, 16 wide, characters: a step takes a few milliseconds."""
    base = from_dict(
        {
            "model": {
                "n_layer": 2, "n_head": 2, "n_embd": 16, "context_length": 16, "dropout": 0.1,
            },
            "data": {"corpus": "small", "tokenizer": "char"},
            "optimizer": {"lr": 1e-2},
            "schedule": {"warmup_steps": 3},
            "train": {
                "batch_size": 4, "accumulate": 2, "max_steps": 8, "eval_every": 4, "threads": 1,
                "precision": "float32", "device": "cpu",
            },
            "sample": {"every": 4, "max_tokens": 4, "prompts": ["the "]},
            "save": {"every": 3},
        },
        "test",
    )  # fmt: skip
    return base.with_values({key.replace("__", "."): value for key, value in changes.items()})


class Run:
    """Trains in the calling thread; `on` maps a step to commands given right after it."""

    def __init__(self, on: dict[int, list[control.Command]] | None = None) -> None:
        self.inbox, self.seen, self.on = Inbox(), [], on or {}

    def emit(self, event: events.Event) -> None:
        self.seen.append(event)
        if isinstance(event, events.StepDone):
            for command in self.on.pop(event.step, []):
                self.inbox.put(command, "test")

    def train(self, lab: Lab, config: Config, **options: Any) -> events.Finished:
        return run_training(lab, config, emit=self.emit, inbox=self.inbox, **options)

    def resume(self, lab: Lab, name: str, **options: Any) -> events.Finished:
        return resume_training(lab, name, emit=self.emit, inbox=self.inbox, **options)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    def losses(self) -> dict[int, float]:
        return {step.step: step.loss for step in self.of(events.StepDone)}


def final_state(lab: Lab, name: str) -> dict[str, torch.Tensor]:
    """Weights, moments and random state of a run's newest checkpoint."""
    newest = list_checkpoints(lab.checkpoints / name)[-1]
    training = load_training(newest)
    return load_weights(newest) | training.tensors | training.rng


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []


def assert_resumes(lab: Lab, config: Config) -> None:
    """Stopped after five steps and resumed, a run of `config` is the uninterrupted one."""
    whole, first, second = Run(), Run({5: [control.Stop()]}), Run()
    whole.train(lab, config, name="whole")
    first.train(lab, config, name="cut")
    second.resume(lab, "cut")
    assert first.losses() | second.losses() == whole.losses()
    assert_same(final_state(lab, "whole"), final_state(lab, "cut"))


def test_a_run_leaves_its_whole_story_in_its_folder(small_lab: Lab) -> None:
    run = Run()
    finished = run.train(small_lab, tiny_config(), preset="micro")
    folder = small_lab.checkpoints / "micro-small"
    assert finished.run == "micro-small" and finished.reason == "completed"
    names = {path.name for path in folder.iterdir()}
    assert {"run.json", "config.toml", "tokenizer", "metrics.jsonl", "events.jsonl"} <= names
    assert [path.name for path in folder.glob("step_*")] == ["step_000008"]
    metrics = read_metrics(folder)
    assert list(metrics["step"]) == list(range(1, 9))
    assert list(metrics["loss"]) == list(run.losses().values())
    assert [math.isfinite(value) for value in metrics["val_loss"]] == [False] * 3 + [True] + [
        False
    ] * 3 + [True]
    assert len(run.of(events.SampleDone)) == 2 and len(run.of(events.EvalDone)) == 2


def test_the_first_loss_is_the_logarithm_of_the_vocabulary(small_lab: Lab) -> None:
    run = Run()
    run.train(small_lab, tiny_config(model__dropout=0, train__max_steps=1))
    vocabulary = run.of(events.RunStarted)[0].vocab_size
    assert run.losses()[1] == pytest.approx(math.log(vocabulary), abs=0.15)


def test_stopped_at_any_step_and_resumed_is_the_uninterrupted_run(small_lab: Lab) -> None:
    """Dropout on, accumulation 2: the losses, weights, moments and random state, to the bit."""
    whole = Run()
    whole.train(small_lab, tiny_config(), name="whole")
    expected = final_state(small_lab, "whole")
    for step in range(1, 8):
        name = f"cut-{step}"
        first, second = Run({step: [control.Stop()]}), Run()
        assert first.train(small_lab, tiny_config(), name=name).step == step
        second.resume(small_lab, name)
        assert first.losses() | second.losses() == whole.losses()
        assert_same(final_state(small_lab, name), expected)


def test_looking_at_a_run_does_not_change_it(small_lab: Lab) -> None:
    """Evaluations, samples, saves, a pause and single steps leave the losses to the bit."""
    quiet, busy = Run(), Run()
    config = tiny_config(train__eval_every=0, sample__every=0, save__every=0)
    quiet.train(small_lab, config)
    busy.on = {
        1: [control.EvalNow(), control.SaveNow(), control.Sample("the ", request="r")],
        2: [control.Pause(), control.Step(2), control.Sample("a"), control.Resume()],
        3: [control.Pause(), control.Step(1), control.Resume()],
    }
    busy.train(small_lab, config)
    assert busy.losses() == quiet.losses()
    assert len(busy.of(events.TokenGenerated)) == 200


def test_the_runs_device_is_the_current_one_until_its_last_word(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events, random states and memory are those of the device that PyTorch means unasked."""
    meant: list[torch.device] = []

    @contextmanager
    def as_current(of: torch.device) -> Iterator[None]:
        meant.append(of)
        yield
        meant.clear()

    copied: list[bool] = []
    take = Memory.take

    def watched(*arguments: Any) -> Snapshot:
        copied.append(bool(meant))
        return take(*arguments)

    monkeypatch.setattr(device, "as_current", as_current)
    monkeypatch.setattr(Memory, "take", watched)
    told: list[bool] = []
    run_training(
        small_lab,
        tiny_config(),
        emit=lambda event: told.append(bool(meant)) if isinstance(event, events.Finished) else None,
        inbox=Inbox(),
    )
    assert copied and all(copied)
    assert told == [True] and not meant


def test_single_steps_stop_again_by_themselves(small_lab: Lab) -> None:
    run = Run({2: [control.Pause(), control.Step(3)]})
    steps_when_idle: list[int] = []

    def wait(seconds: float) -> bool:
        steps_when_idle.append(len(run.losses()))
        run.inbox.put(control.Resume())
        return True

    run.inbox.wait = wait  # type: ignore[method-assign]
    run.train(small_lab, tiny_config())
    assert steps_when_idle == [5] and len(run.losses()) == 8


def test_a_pause_and_a_stop_take_effect_inside_an_evaluation(small_lab: Lab) -> None:
    """The pause holds it, a sample is answered meanwhile, and the stop ends it without a result."""
    run = Run()
    asked = {4: control.Pause(), 8: control.Stop()}  # by windows scored, four in a batch

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.EvalProgress) and event.done in asked:
            run.inbox.put(asked.pop(event.done), "test")
        if isinstance(event, events.Paused):
            run.inbox.put(control.Sample("the ", request="r"))
            run.inbox.put(control.Resume())

    finished = run_training(small_lab, tiny_config(), emit=emit, inbox=run.inbox)
    kinds = [type(event) for event in run.seen]
    held, answered, resumed = (
        kinds.index(kind) for kind in (events.Paused, events.TokenGenerated, events.Resumed)
    )
    first_eval = next(
        index
        for index, event in enumerate(run.seen)
        if isinstance(event, events.Phase) and event.phase == "evaluating"
    )
    assert first_eval < held < answered < resumed
    assert (finished.step, finished.reason) == (4, "stopped") and not run.of(events.EvalDone)


def test_accumulation_is_one_larger_batch(small_lab: Lab) -> None:
    weights = []
    for batch_size, accumulate in ((8, 1), (2, 4)):
        config = tiny_config(
            model__dropout=0,
            train__batch_size=batch_size,
            train__accumulate=accumulate,
            train__max_steps=1,
        )
        finished = Run().train(small_lab, config)
        weights.append(load_weights(list_checkpoints(small_lab.checkpoints / finished.run)[-1]))
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=1e-6, rtol=1e-5)


def test_a_learning_rate_set_by_hand_scales_the_rest_of_the_schedule(small_lab: Lab) -> None:
    plain, steered = Run(), Run({4: [control.SetLearningRate(1e-3)]})
    plain.train(small_lab, tiny_config())
    steered.train(small_lab, tiny_config())
    plain_lr = [step.lr for step in plain.of(events.StepDone)]
    lr = [step.lr for step in steered.of(events.StepDone)]
    assert lr[:4] == plain_lr[:4] and lr[4] == pytest.approx(1e-3)
    assert lr[7] / plain_lr[7] == pytest.approx(lr[4] / plain_lr[4])
    applied = steered.of(events.ControlApplied)[0]
    assert (applied.command, applied.after, applied.who) == ("SetLearningRate", "0.001", "test")


def test_a_loss_that_is_not_finite_never_reaches_the_weights(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3 to 5 give NaN: each is skipped and shouted about, and the third pauses the run."""
    real, calls = Pretrain.loss, {"count": 0}

    def poisoned(self: Pretrain, model: Any, batch: Any) -> Loss:
        calls["count"] += 1
        loss = real(self, model, batch)
        return changed(loss, lambda x: x * math.nan) if 2 < calls["count"] <= 5 else loss

    monkeypatch.setattr(Pretrain, "loss", poisoned)
    run = Run()

    def resume_when_paused(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.Paused):
            run.inbox.put(control.Resume())

    run_training(
        small_lab, tiny_config(train__accumulate=1), emit=resume_when_paused, inbox=run.inbox
    )
    losses = run.losses()
    assert [step for step in losses if math.isnan(losses[step])] == [3, 4, 5]
    assert len(run.of(events.Paused)) == 1
    assert sum("skipped" in alert.title for alert in run.of(events.Alert)) == 4
    assert all(torch.isfinite(t).all() for t in final_state(small_lab, "run-small").values())


def test_a_file_can_stop_a_run(small_lab: Lab) -> None:
    run = Run()

    def emit(event: events.Event) -> None:
        run.emit(event)
        if isinstance(event, events.StepDone) and event.step == 2:
            (small_lab.checkpoints / "run-small" / "control" / "stop").touch()

    finished = run_training(small_lab, tiny_config(), emit=emit, inbox=run.inbox)
    assert (finished.step, finished.reason) == (2, "stop file") and finished.checkpoint
    again = Run().resume(small_lab, "run-small")
    assert again.reason == "completed"


def test_a_name_in_use_gets_a_number_and_nothing_is_overwritten(small_lab: Lab) -> None:
    config = tiny_config(train__max_steps=1)
    names = [Run().train(small_lab, config, name="mine").run for _ in range(3)]
    assert names == ["mine", "mine-2", "mine-3"]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ({"train__max_steps": 0, "train__max_tokens": 1000}, math.ceil(1000 / (8 * 16))),
        ({"train__max_steps": 5, "train__max_tokens": 10**6}, 5),
        ({"train__max_steps": 0, "train__epochs": 0.05}, None),
    ],
)
def test_a_run_is_as_long_as_the_shortest_length_that_is_set(
    small_lab: Lab, lengths: dict[str, Any], expected: int | None
) -> None:
    run = Run()
    finished = run.train(small_lab, tiny_config(**lengths, train__eval_every=0))
    started = run.of(events.RunStarted)[0]
    assert finished.step == started.max_steps
    assert finished.step == (expected or math.ceil(0.05 * started.steps_per_epoch))


@pytest.mark.parametrize(("policy", "kept"), [("none", []), ("rolling", [8]), ("all", [3, 6, 8])])
def test_the_policy_decides_what_is_kept(small_lab: Lab, policy: str, kept: list[int]) -> None:
    finished = Run().train(small_lab, tiny_config(save__policy=policy))
    found = [info.step for info in list_checkpoints(small_lab.checkpoints / finished.run)]
    assert [step for step in found if step != finished.best_step] == [
        step for step in kept if step != finished.best_step
    ]
    assert (finished.best_step in found) == (policy == "all" or finished.best_step in kept)
    assert bool(finished.checkpoint) == bool(kept)


@pytest.mark.parametrize(
    ("changes", "error", "named"),
    [
        ({"data__corpus": "smal"}, CorpusError, "small"),
        ({"train__device": "cuda"}, InputError, "cuda"),
        ({"train__device": "gpu"}, InputError, "gpu"),
        ({"model__context_length": 5000}, CorpusError, "longest"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_leaves_nothing(
    small_lab: Lab, changes: dict[str, Any], error: type, named: str
) -> None:
    run = Run()
    with pytest.raises(error) as caught:
        run.train(small_lab, tiny_config(**changes))
    assert named in str(caught.value)
    assert list(small_lab.checkpoints.iterdir()) == []
    failed = run.of(events.Failed)[0]
    assert failed.title == caught.value.title and failed.traceback == ""


def test_resuming_refuses_what_would_be_another_run(small_lab: Lab, tmp_path: Path) -> None:
    Run({2: [control.Stop()]}).train(small_lab, tiny_config(), name="a")
    with pytest.raises(ConfigError, match="cannot change"):
        Run().resume(small_lab, "a", overrides={"model.n_embd": "32"})
    with pytest.raises(CheckpointError, match="'b'"):
        Run().resume(small_lab, "b")
    (small_lab.root / "small.txt").write_text("another text altogether. " * 500)
    with pytest.raises(EngineError, match="not what run 'a' was trained on"):
        Run().resume(small_lab, "a")


def test_a_resumed_run_can_be_made_longer(small_lab: Lab) -> None:
    Run().train(small_lab, tiny_config(), name="a")
    with pytest.raises(InputError, match="done all of its 8 steps"):
        Run().resume(small_lab, "a")
    finished = Run().resume(small_lab, "a", overrides={"train.max_steps": 10})
    assert finished.step == 10
    assert list(read_metrics(small_lab.checkpoints / "a")["step"]) == list(range(1, 11))


def test_an_exception_inside_the_engine_is_told_with_its_traceback(
    small_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Pretrain, model: Any, batch: Any) -> Loss:
        raise KeyboardInterrupt("not an Exception")

    monkeypatch.setattr(Pretrain, "loss", broken)
    run = Run()
    with pytest.raises(KeyboardInterrupt):
        run.train(small_lab, tiny_config())
    assert "not an Exception" in run.of(events.Failed)[0].traceback
