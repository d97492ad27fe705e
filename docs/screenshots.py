"""The pictures of the README: every main screen, drawn from real runs made on the spot.

    python docs/screenshots.py [--steps 400]

Trains three short runs of preset `micro` in a temporary lab (a few minutes on two cores), the last
of them inside the app, and writes docs/screenshots/<screen>.svg.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

# The pictures must not depend on the terminal they are made from.
os.environ |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
os.environ.pop("NO_COLOR", None)

from textual.pilot import Pilot

from engine.config import Config, load_preset
from engine.config.load import override
from engine.control import EvalNow, Inbox
from engine.lab import Lab
from engine.session import run_training
from tui_lab.app import LabApp
from tui_lab.keys import SCREENS
from tui_lab.settings import Settings
from tui_lab.widgets.slider import SeedField, Slider

FOLDER = Path(__file__).parent / "screenshots"
SIZE = (120, 36)
PROMPT = "The with statement"


async def until(pilot: Pilot, condition: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the app never got there")
        await pilot.pause(0.2)


def write(app: LabApp, name: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.svg"
    path.write_text(app.export_screenshot(title=f"tui-lab · {SCREENS[name]}"), encoding="utf-8")
    print(f"wrote {path.relative_to(FOLDER.parents[1])}")


def configuration(lab: Lab, steps: int, **values: object) -> Config:
    settings = {"train.max_steps": steps, "train.eval_every": steps // 6, "save.policy": "all"}
    return override(
        load_preset(lab, "micro"),
        settings | {key.replace("__", "."): value for key, value in values.items()},
    )


async def shoot(lab: Lab, steps: int) -> None:
    app = LabApp(lab, Settings())
    async with app.run_test(size=SIZE) as pilot:
        app.start_run(configuration(lab, steps, save__every=steps // 3), preset="micro")
        await until(pilot, lambda: app.run_state is not None and app.run_state.step > steps * 0.7)
        app.trainer.put(EvalNow())
        await pilot.pause(3)
        write(app, "train")
        await until(pilot, lambda: not app.trainer.active)
        await console(app, pilot)
        for name in ("runs", "checkpoints", "corpus", "new_run"):
            app.go(name)
            await pilot.pause(4)  # what is read in the background is there by then
            if name == "runs":
                await pilot.press("space", "down", "space", "down", "space")
                await pilot.pause(2)
            if name == "corpus":
                await pilot.press("right", "right")  # the preview, as the model sees it
                await pilot.pause(4)
            write(app, name)


async def console(app: LabApp, pilot: Pilot) -> None:
    """A text from the run that has just ended, with the cursor in it."""
    app.go("console")
    await pilot.pause(0.5)
    screen = app.screen
    await until(pilot, lambda: screen.source is not None and screen.conversation.idle, 60)
    screen.query_one("#max_tokens", Slider).value = 250
    screen.query_one("#top_k", Slider).value = 50
    screen.query_one(SeedField).value = 1337
    screen.prompt.text = PROMPT
    await pilot.press("enter")
    await until(pilot, lambda: screen.conversation.idle, 120)
    await pilot.press("escape", "up", "up", "up", "up", "right", "right")
    await pilot.pause(0.5)
    write(app, "console")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=400)
    steps = parser.parse_args().steps
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.init(Path(folder) / "lab")
        for name, lr in (("high-rate", 1e-2), ("low-rate", 3e-4)):
            print(f"training {name}")
            config = configuration(lab, steps, optimizer__lr=lr, schedule__min_lr=lr / 10)
            run_training(
                lab, config, emit=lambda event: None, inbox=Inbox(), name=name, preset="micro"
            )
        asyncio.run(shoot(lab, steps))


if __name__ == "__main__":
    main()
