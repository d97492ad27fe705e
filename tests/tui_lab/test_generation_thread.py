"""The console's thread: order, cancelling, failures, what it keeps. Its generators are fakes."""

from __future__ import annotations

import threading
import time

from engine.generation.params import SamplingParams
from engine.lab import Lab
from tests.tui_lab.console_fakes import FakeGenerator, loader
from tui_lab.generation_thread import (
    KEPT,
    Ended,
    GenerationThread,
    Loaded,
    LoadFailed,
    Loading,
    Started,
    Token,
)


def wait(thread: GenerationThread) -> list:
    until = time.monotonic() + 10
    while thread.busy and time.monotonic() < until:
        time.sleep(0.002)
    assert not thread.busy
    reports = list(thread.out)
    thread.out.clear()
    return reports


def test_a_request_loads_streams_and_ends(lab: Lab):
    thread = GenerationThread(lab, loader(FakeGenerator()))
    thread.generate("a", "/run", "Once", SamplingParams(max_tokens=3))
    kinds = [type(report) for report in wait(thread)]
    assert kinds == [Loading, Loaded, Started, Token, Token, Token, Ended]
    thread.generate("b", "/run", "Once", SamplingParams(max_tokens=1))
    assert [type(report) for report in wait(thread)] == [Started, Token, Ended], "loaded once"
    thread.close()


def test_cancelling_ends_before_the_next_token(lab: Lab):
    generator = FakeGenerator(gate=threading.Semaphore(2))
    thread = GenerationThread(lab, loader(generator))
    thread.generate("a", "/run", "", SamplingParams(max_tokens=1000))
    until = time.monotonic() + 10
    while sum(isinstance(report, Token) for report in list(thread.out)) < 2:
        assert time.monotonic() < until
        time.sleep(0.002)
    thread.cancel("a")
    reports = wait(thread)
    assert sum(isinstance(report, Token) for report in reports) == 2
    assert reports[-1].reason == "cancelled"


def test_what_is_cancelled_before_it_began_never_runs(lab: Lab):
    generator = FakeGenerator()
    thread = GenerationThread(lab, loader(generator))
    thread.cancel("a")
    thread.generate("a", "/run", "", SamplingParams())
    assert wait(thread)[-1].reason == "cancelled"
    assert generator.prompts == []


def test_a_broken_checkpoint_is_told_and_the_thread_goes_on(lab: Lab):
    thread = GenerationThread(lab, loader(FakeGenerator()))
    thread.generate("a", "/broken", "", SamplingParams())
    reports = wait(thread)
    assert [type(report) for report in reports] == [Loading, LoadFailed, Ended]
    assert "damaged" in reports[-1].error.title
    thread.generate("b", "/run", "", SamplingParams(max_tokens=1))
    assert wait(thread)[-1].reason == "length"


def test_an_unforeseen_exception_is_a_failure_in_words(lab: Lab):
    """Also a BaseException: it would kill the thread, and the console would wait for ever."""

    class Bad:
        def stream(self, *args, **options):
            raise MemoryError("no room\nfor this")

    thread = GenerationThread(lab, lambda lab, reference: Bad())
    thread.generate("a", "/run", "", SamplingParams())
    assert wait(thread)[-1].error.title == "MemoryError: no room"
    thread.generate("b", "/run", "", SamplingParams())
    assert wait(thread)[-1].reason == "failed"


def test_only_a_few_checkpoints_stay_in_memory(lab: Lab):
    thread = GenerationThread(lab, loader(FakeGenerator()))
    for name in ("a", "b", "c"):
        thread.load(name)
    loads = [report for report in wait(thread) if isinstance(report, Loading)]
    assert len(loads) == 3 > KEPT
    thread.load("c")
    assert wait(thread) == []
    thread.load("a")
    assert [type(report) for report in wait(thread)] == [Loading, Loaded]
