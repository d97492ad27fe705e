"""Compiled steps: ready behind the text, the same tokens before and after, and never in the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import torch

from engine import machine
from engine.config.sections import ModelConfig
from engine.generation import compiled, fetching
from engine.generation.beam import Beams, beam_search
from engine.generation.compiled import CompiledStep, Steps
from engine.generation.decoding import AHEAD
from engine.generation.generate import GeneratedToken, generate, generate_batch
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.model import GPT, KVCache
from engine.tokenizers import build
from tests.engine.model.shapes import randomised

pytestmark = [  # one process makes the package for all; a minute of compiling
    pytest.mark.xdist_group("compiled"),
    pytest.mark.campaign,
]

CPU = torch.device("cpu")
BYTES = build("bytes", lambda: iter(()), 257)
SHAPE = ModelConfig(n_layer=2, n_head=4, n_kv_head=2, n_embd=16, context_length=24, position="rope")
"""More than one head of keys: a cache of one lies in a row whether or not it is full."""
GREEDY = SamplingParams(temperature=0.0, max_tokens=20)
DRAWN = SamplingParams(temperature=1.0, top_k=40, repetition_penalty=1.1, max_tokens=20, seed=5)
PLAIN = SamplingParams(temperature=0.7, max_tokens=20, seed=5)
"""Such as the step draws itself."""


@pytest.fixture(scope="module", autouse=True)
def weights_fetched_ahead() -> Iterator[None]:
    """As in networks that are larger than a processor's caches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching, "pays", lambda model, device: device == "cpu")
        yield


@pytest.fixture(scope="module")
def kept(weights_fetched_ahead: None) -> Path:
    """The package of one row, made once by the process that compiles, behind a text."""
    torch.set_num_threads(1)
    told: list[str] = []
    steps = Steps(model(), CPU, "behind", told=lambda state, words: told.append(state))
    try:
        first = next(generate(model(), BYTES, "ab", GREEDY, device=CPU, steps=steps))
        assert first.index == 0
        assert told == [], "the first token waits for nothing"
        text(model(), GREEDY, steps)
        steps.wait()
    finally:
        steps.close()
    assert told == ["compiling", "compiled"]
    (package,) = (machine.cache_dir() / "steps").iterdir()
    return package


def model(seed: int = 0) -> GPT:
    return randomised(SHAPE, 257, seed)


def text(which: GPT, params: SamplingParams, steps: Steps | None = None) -> list[GeneratedToken]:
    return list(generate(which, BYTES, "ab", params, device=CPU, steps=steps))


def ids(tokens: list[GeneratedToken]) -> list[int]:
    return [token.token for token in tokens]


class Late:
    """Steps that are ready after some tokens: a switch in the midst of a text of two tokens."""

    def __init__(self, steps: Steps, eager: int) -> None:
        self._steps, self._begins = steps, 2 + eager
        self.begin, self.give_up = steps.begin, steps.give_up

    def next(self, cache: KVCache) -> object | None:
        step = self._steps.next(cache)
        return None if cache.n < self._begins else step


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """As many as compiled steps have been run."""
    done: list[None] = []
    run = CompiledStep._run_of

    def counted(self: CompiledStep, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
        done.append(None)
        return run(self, inputs)

    monkeypatch.setattr(CompiledStep, "_run_of", counted)
    return done


@pytest.mark.parametrize("params", [GREEDY, DRAWN, PLAIN], ids=["greedy", "filtered", "plain"])
@pytest.mark.parametrize("eager", [0, 7])
def test_the_tokens_are_the_same_before_and_after(
    kept: Path, runs: list[None], params: SamplingParams, eager: int
) -> None:
    """Also drawn ones: the generator and the filters know nothing of the switch. The last token is
    read into the cache's last slot."""
    which = model()
    expected = text(which, params)
    steps = Steps(which, CPU, "kept")
    text(which, params, steps)
    steps.wait()
    runs.clear()
    got = text(which, params, Late(steps, eager))  # type: ignore[arg-type]
    ahead = len(runs) - (len(expected) - 1 - eager)
    assert 0 <= ahead < AHEAD if params is PLAIN else ahead == 0
    assert ids(got) == ids(expected)
    for ours, theirs in zip(got, expected, strict=True):
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-5)
        assert ours.entropy == pytest.approx(theirs.entropy, abs=1e-4)
        assert ours.alternative_ids == theirs.alternative_ids


def test_a_step_that_fails_leaves_the_text_to_go_on_without(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    which = model()
    steps = Steps(which, CPU, "kept", told=lambda *words: told.append(words))
    text(which, GREEDY, steps)
    steps.wait()
    run, calls = CompiledStep._run_of, iter(range(100))

    def failing(self: CompiledStep, inputs: list[torch.Tensor]) -> object:
        if next(calls) == 5:
            raise RuntimeError("Expected a miracle")
        return run(self, inputs)

    monkeypatch.setattr(CompiledStep, "_run_of", failing)
    assert ids(text(which, GREEDY, steps)) == ids(text(which, GREEDY))
    assert told == [("failed", "RuntimeError: Expected a miracle")]
    assert next(calls) == 6  # and was not asked again


def test_it_serves_every_model_of_the_shape_and_weights_that_changed(kept: Path) -> None:
    """What is kept holds no weights: neither another checkpoint's nor old ones can be spoken."""
    which = model(seed=1)
    lay_out(which)  # as a loaded checkpoint is
    steps = Steps(which, CPU, "before")
    assert ids(text(which, GREEDY, steps)) == ids(text(model(seed=1), GREEDY))
    which.load_state_dict(model(seed=2).state_dict(), assign=True)
    assert ids(text(which, GREEDY, steps)) == ids(text(model(seed=2), GREEDY))
    assert ids(text(model(seed=1), GREEDY)) != ids(text(model(seed=2), GREEDY))


def test_a_search_and_a_batch_of_other_forms_stay_right(kept: Path) -> None:
    """They have no step of their own here, and take none that is not theirs."""
    which = model()
    steps = Steps(which, CPU, "kept")
    text(which, GREEDY, steps)
    steps.wait()

    def found(steps: Steps | None) -> tuple[list, list]:
        best = beam_search(which, BYTES, "ab", Beams(3, 8), device=CPU, steps=steps)
        rows = generate_batch(which, BYTES, ["ab", "abc"], GREEDY, device=CPU, steps=steps)
        return [one.tokens for one in best], [(row, token.token) for row, token in rows]

    assert found(steps) == found(None)


def test_nothing_is_compiled_that_was_not_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One text, a machine that is busy training, a refusal: no process is begun; a later text of a
    machine that has become free begins one."""
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path))
    begun: list[Path] = []
    monkeypatch.setattr(Steps, "_compile", lambda self, recipe, package: begun.append(package))
    which, free = model(), False
    steps = Steps(which, CPU, "behind", allowed=lambda: free)
    for one in (Steps(which, CPU, "kept"), Steps(which, CPU, "never"), steps):
        text(which, GREEDY, one)
        one.wait()
    assert begun == []
    free = True
    text(which, GREEDY, steps)
    steps.wait()
    assert len(begun) == 1


def test_without_a_compiler_texts_come_all_the_same_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    told: list[tuple[str, str]] = []
    which = model()
    steps = Steps(which, CPU, "before", told=lambda *news: told.append(news))
    for _ in range(2):
        assert ids(text(which, GREEDY, steps)) == ids(text(which, GREEDY))
    assert [state for state, _ in told] == ["compiling", "failed"]
    assert "no-such-compiler" in told[1][1]


def test_what_is_given_up_ends_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path))
    told: list[str] = []
    steps = Steps(model(), CPU, "behind", told=lambda state, words: told.append(state))
    text(model(), GREEDY, steps)
    until(lambda: steps._child is not None)
    child = psutil.Process(steps._child.pid)
    steps.close()
    steps.wait()
    assert not child.is_running()
    assert told == ["compiling"], "who gave it up need not be told"


def test_code_that_others_could_have_put_there_is_not_run(
    kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / "steps"
    folder.mkdir()
    (folder / kept.name).write_bytes(kept.read_bytes())
    folder.chmod(0o777)
    told: list[tuple[str, str]] = []
    steps = Steps(model(), CPU, "before", told=lambda *news: told.append(news))
    text(model(), GREEDY, steps)
    assert [state for state, _ in told] == ["failed"]
    assert str(folder) in told[0][1]


def test_the_cache_keeps_what_was_used_last(tmp_path: Path) -> None:
    now = time.time()
    for age in range(compiled.KEPT + 3):
        path = tmp_path / f"{age}.pt2"
        path.touch()
        compiled.os.utime(path, (now - age, now - age))
    compiled._prune(tmp_path)
    left = {int(path.stem) for path in tmp_path.iterdir()}
    assert left == set(range(compiled.KEPT))


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)
