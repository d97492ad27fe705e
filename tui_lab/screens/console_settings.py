"""The console's sampling settings: a slider or a field for each."""

from __future__ import annotations

from dataclasses import replace

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from engine.generation.params import SamplingParams
from tui_lab.generations import stops_to_text, text_to_stops
from tui_lab.widgets.scale import Scale
from tui_lab.widgets.slider import SeedField, Slider
from tui_lab.widgets.text_field import TextField

HIGHEST_SEED = 2**63 - 1
_BOUNDS = SamplingParams.RANGES
SCALES: dict[str, tuple[str, Scale]] = {
    "temperature": (
        "temperature",
        Scale(*_BOUNDS["temperature"], step=0.05, coarse=0.25, track=(0, 2)),
    ),
    "top_k": ("top-k", Scale(*_BOUNDS["top_k"], digits=0, log=True, track=(1, 1000), off=0)),
    # Zero is refused by the settings themselves: nothing would be left to choose from.
    "top_p": ("top-p", Scale(0.01, 1.0, step=0.01, coarse=0.1, track=(0, 1))),
    "min_p": ("min-p", Scale(*_BOUNDS["min_p"], step=0.01, coarse=0.05, track=(0, 0.5))),
    "repetition_penalty": (
        "repetition",
        Scale(*_BOUNDS["repetition_penalty"], step=0.05, coarse=0.25),
    ),
    "max_tokens": (
        "length",
        Scale(*_BOUNDS["max_tokens"], digits=0, log=True, track=(1, 10_000)),
    ),
}
"""Sliders in the order of the screen: label and scale. What may be typed is what the engine takes;
the tracks show the part of it that is of use."""


class ConsoleSettings(Vertical):
    """Gives and takes `SamplingParams`."""

    def compose(self) -> ComposeResult:
        defaults = SamplingParams()
        for name, (label, scale) in SCALES.items():
            yield Slider(label, scale, getattr(defaults, name), id=name)
        yield SeedField("seed", HIGHEST_SEED, id="seed")
        with Horizontal(id="stop-row"):
            yield Static("  stop at", id="stop-label", markup=False)
            yield TextField(placeholder="text|text, \\n", id="stop")

    @property
    def params(self) -> SamplingParams:
        """The settings as they stand; seed None means a fresh one each time."""
        values = {name: self.query_one(f"#{name}", Slider).value for name in SCALES}
        return SamplingParams(
            **values | {"top_k": int(values["top_k"]), "max_tokens": int(values["max_tokens"])},
            seed=self.query_one(SeedField).value,
            stop=text_to_stops(self.query_one("#stop", TextField).value),
        )

    def show(self, params: SamplingParams) -> None:
        """Set every slider and field."""
        for name in SCALES:
            self.query_one(f"#{name}", Slider).value = getattr(params, name)
        self.query_one(SeedField).value = params.seed
        self.query_one("#stop", TextField).value = stops_to_text(params.stop)

    def used(self, seed: int) -> None:
        """Tell which seed was drawn."""
        field = self.query_one(SeedField)
        field.last = seed
        field.refresh()


def with_seed(params: SamplingParams, seed: int) -> SamplingParams:
    """The settings with a seed drawn for them, if they have none."""
    return params if params.seed is not None else replace(params, seed=seed)
