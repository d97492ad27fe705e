"""A history of a million logged steps: kept, drawn, and read from its files by another process."""

from __future__ import annotations

import asyncio
import gc
import json
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from engine import events
from tests.campaign.row import Progress, Result, Row
from tests.tui_lab import fakes
from tests.tui_lab.pilots import make_app, until
from tui_lab.screens import train_view
from tui_lab.state import RunState
from tui_lab.widgets.chart import Chart

MOST_GROWTH = 24e6  # bytes, from a tenth of the history to all of it
MOST_ATTACH = 64e6  # bytes, that reading the whole history from its files takes
MOST_APPLY = 150e-6  # seconds, the mean over a thousandth of the history
MOST_CHART = 0.05  # seconds
MOST_LAG = 0.1  # seconds, what a key may take to be answered
LAG_SECONDS = 5.0
LAG_SECONDS_OF_A_SLICE = 0.8
SLACK_OF_A_SLICE = 10  # the default tests do not have the machine for themselves
FED = 200  # steps a tick while the lag is measured, twenty ticks a second

TOLD = fakes.config(train__max_steps=1_000_000)


def resident() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def said(first: int, last: int) -> Iterator[events.Event]:
    """What a run says of these steps: evaluations, checkpoints and a NaN now and then as well."""
    for step in range(first, last + 1):
        at = fakes.NOON + step * 0.01
        loss = float("nan") if step % 77_777 == 0 else None
        yield fakes.step_done(TOLD, step, at, loss)
        if step % 500 == 0:
            yield fakes.eval_done(step, at, best=False)
            yield events.CheckpointSaved(
                time=at, step=step, path="p", bytes=1, seconds=0.1, kind="rolling"
            )


def fill(run: RunState, first: int, last: int, progress: Progress) -> float:
    """Seconds that the last thousandth of these steps took each, on average."""
    for step in range(first, last + 1, 10_000):
        for event in said(step, min(step + 9_999, last)):
            run.apply(event)
        progress(step // 3)
    count = max(500, last // 1000)
    more = list(said(last + 1, last + count))
    started = time.perf_counter()
    for event in more:
        run.apply(event)
    return (time.perf_counter() - started) / count


async def lag() -> float:
    """Seconds that the event loop came late."""
    asked = time.perf_counter()
    await asyncio.sleep(0.002)
    return time.perf_counter() - asked - 0.002


def percentile_99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


async def draw(
    run: RunState, folder: Path, figures: dict[str, float], size: str, seconds: float
) -> None:
    """The time to build the loss chart, and how long the event loop keeps a key waiting."""
    app = make_app(folder)
    app.run_state = run
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.screen.query(Chart))
        chart = app.screen.query_one("#loss", Chart)
        took = []
        for _ in range(5):
            started = time.perf_counter()
            chart.plot = train_view.loss_plot(run, app.settings, True)
            chart.build(84, 22)
            took.append(time.perf_counter() - started)
        figures[f"chart built at {size}, ms"] = sorted(took)[2] * 1000
        lags: list[float] = []
        step, end = run.step, time.monotonic() + seconds
        fed = time.monotonic()
        while time.monotonic() < end:
            if time.monotonic() >= fed:
                fed += 0.05
                for event in said(step + 1, step + FED):
                    app.trainer.events.append(event)
                step += FED
            lags.append(await lag())
        figures[f"loop lag p99 at {size}, ms"] = percentile_99(lags) * 1000
        assert app.run_state is run and run.step > step - 20 * FED


def write_history(path: Path, steps: int) -> None:
    """The files of a finished run of that many steps."""
    path.mkdir()
    with open(path / "metrics.jsonl", "w") as file:
        for step in range(1, steps + 1):
            file.write(
                f'{{"time": {fakes.NOON + step * 0.01:.4f}, "step": {step}, '
                f'"tokens": {step * 2048}, "loss": {2 + step % 97 / 100:.15f}, '
                f'"lr": 0.0003, "grad_norm": {step % 13 / 10:.15f}, '
                '"tokens_per_second": 48000.12345678912, "mfu": 0.31, '
                f'"memory_bytes": 1200000000, "epoch": {step / 210:.12f}}}\n'
            )
    end = events.Finished(
        time=fakes.NOON + steps,
        run=path.name,
        step=steps,
        tokens=1,
        reason="completed",
        seconds=1.0,
    )
    lines = [events.to_json(event) + "\n" for event in (fakes.started(TOLD), end)]
    (path / "events.jsonl").write_text("".join(lines))
    (path / "status.json").write_text(json.dumps({"state": "finished", "step": steps}))


async def attach(path: Path, steps: int, figures: dict[str, float]) -> list[str]:
    """The whole history read from its files, while keys wait for the same interpreter."""
    app = make_app(path.parent)
    async with app.run_test(size=(120, 36)):
        before, started = resident(), time.perf_counter()
        app.attach(path)
        lags = []
        while app.run_state is None or app.run_state.finished is None:
            lags.append(await lag())
        figures["attach, seconds"] = time.perf_counter() - started
        figures["attach, MB of memory"] = (resident() - before) / 1e6
        run, app_lag = app.run_state, percentile_99(lags)
    figures["attach, MB read"] = (path / "metrics.jsonl").stat().st_size / 1e6
    figures["loop lag p99 while the history is read, ms"] = app_lag * 1000
    failures = []
    if (run.step, run.series.step[-1], run.series.count) != (steps, steps, steps):
        failures.append(f"attached to {steps} steps, read up to {run.step}: {run.series.count}")
    if figures["attach, MB of memory"] > MOST_ATTACH / 1e6:
        failures.append(f"attaching took {figures['attach, MB of memory']:.0f} MB")
    return failures


def run(trials: int, folder: Path, progress: Progress) -> Result:
    """`trials` steps."""
    figures: dict[str, float] = {}
    seconds = LAG_SECONDS if trials == ROW.full else LAG_SECONDS_OF_A_SLICE
    state, tenth = RunState(TOLD, "long"), trials // 10
    state.apply(fakes.started(TOLD))
    early, late = f"{tenth:,} steps", f"{trials:,} steps"
    figures[f"apply at {early}, µs"] = fill(state, 1, tenth, progress) * 1e6
    asyncio.run(draw(state, folder, figures, early, seconds))
    small = resident()
    figures[f"apply at {late}, µs"] = fill(state, state.step + 1, trials, progress) * 1e6
    asyncio.run(draw(state, folder, figures, late, seconds))
    grown = resident() - small
    figures["memory grown in between, MB"] = grown / 1e6
    figures["points kept"] = len(state.series)
    write_history(folder / "long", trials)
    progress(trials * 2 // 3)
    failures = asyncio.run(attach(folder / "long", trials, figures))
    limits = {"apply": MOST_APPLY * 1e6, "chart": MOST_CHART * 1e3, "loop": MOST_LAG * 1e3}
    slack = 1 if trials == ROW.full else SLACK_OF_A_SLICE
    for name, value in figures.items():
        limit = limits.get(name.split()[0])
        if limit is not None and value > limit * slack:
            failures.append(f"{name}: {value:.1f}, more than {limit * slack:.0f}")
    if grown > MOST_GROWTH:
        failures.append(f"from {early} to {late} memory grew by {grown / 1e6:.0f} MB")
    progress(trials)
    return Result(trials, failures, figures)


ROW = Row(
    number="21",
    fault="a history of a million logged steps, kept and drawn, and attached to",
    must="memory stays flat, no lag grows, and whoever attaches reads all of it in bounded memory",
    slice=40_000,
    full=1_000_000,
    run=run,
    quiet=True,
)
