"""The experiments run from one command each, and their page says what the results say."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import (
    beyond_the_context,
    classic_and_modern,
    experiments,
    experts_and_dense,
    marked,
    training,
)
from benchmarks.charts import Series, line_chart, ticks
from engine.arithmetic import count_parameters
from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.lab import Lab

FACTS = {
    "date": "2026-01-01",
    "machine": "a machine",
    "python": "3.11",
    "versions": {"torch": "2"},
}


@pytest.fixture
def quick(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """The options of `--quick`, with fewer rates and steps than even that takes."""
    monkeypatch.setattr(classic_and_modern, "RATES", (4e-3, 8e-3))
    monkeypatch.setattr(classic_and_modern, "MOST_RATES", 2)
    return argparse.Namespace(
        quick=True,
        data=None,
        rate=4e-3,
        lab=None,
        set=["train.max_steps=8", "train.eval_every=4"],
    )


def put(folder: Path, name: str, result: dict[str, Any]) -> None:
    (folder / f"2026-01-01-{name}.json").write_text(json.dumps(FACTS | result))


def test_every_experiment_runs_and_is_told_on_the_page(
    lab: Lab, quick: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: runs in a lab, results as JSON, tables and charts. A result that the page
    cannot read, or a chart that no page shows, fails here."""
    contest = classic_and_modern.measure(lab, "tiny", quick)
    for side in ("classic", "modern"):
        assert contest[side]["val_loss"]["low"] <= contest[side]["val_loss"]["mean"]
        assert [run["seed"] for run in contest[side]["runs"]] == [1, 2]
        assert [run["tokens"] for run in contest[side]["runs"]] == [8 * 4 * 16] * 2
    sizes = [contest[side]["parameters"] for side in ("classic", "modern")]
    assert abs(sizes[1] / sizes[0] - 1) < 0.01
    parts = classic_and_modern.measure_parts(lab, "tiny", quick)
    assert set(parts["runs"]) == {"classic", *classic_and_modern.PARTS, "all"}

    experts = experts_and_dense.measure(lab, "tiny", quick)
    active = [experts[side]["active_parameters"] for side in ("dense", "experts")]
    # Equal but for the router: 8 numbers a channel.
    assert active[1] - active[0] == experts["settings"]["model.n_embd"] * 8
    assert set(experts["experts"]["runs"][0]["router"]) > {"router_balance", "router_entropy"}
    monkeypatch.setattr(marked, "DOCUMENTS", 400)
    monkeypatch.setattr(beyond_the_context, "TIMES", 5)
    streams = {
        text: beyond_the_context.measure(lab, text, quick) for text in beyond_the_context.SETTINGS
    }
    assert streams["backcopy"]["models"]["ordinary"]["by_kind"]["rule"]["copies"] == 1

    results = tmp_path / "results"
    results.mkdir()
    for text in experiments.TEXTS:
        put(results, f"classic-and-modern-{text}", contest)
        put(results, f"modern-parts-{text}", parts)
    put(results, "experts-and-dense", experts)
    for text, stream in streams.items():
        put(results, f"beyond-the-context-{text}", stream)
    page, charts = experiments.page(results)
    assert "Not measured yet" not in page
    assert set(re.findall(r"\(experiments/(.*?)\)", page)) == set(charts)
    assert f"{contest['modern']['val_loss']['mean']:.4f}" in page
    assert f"{experts['experts']['val_loss']['mean']:.4f}" in page
    for chart in charts.values():
        ElementTree.fromstring(chart)


def test_a_missing_result_is_named(tmp_path: Path) -> None:
    page, charts = experiments.page(tmp_path)
    assert page.count("Not measured yet") == 6 and not charts


def test_the_page_in_the_repository_is_that_of_the_results() -> None:
    """Nobody edits a figure by hand, and no result is committed without its page."""
    page, charts = experiments.page()
    assert (experiments.DOCS / "experiments.md").read_text() == page
    for name, chart in charts.items():
        assert (experiments.DOCS / "experiments" / name).read_text() == chart


@pytest.mark.parametrize("module", [classic_and_modern, experts_and_dense])
def test_a_verdict_needs_more_than_the_spread(module: ModuleType) -> None:
    """Seeds that overlap name no winner, whichever mean is lower."""
    first, second = ("classic", "modern") if module is classic_and_modern else ("dense", "experts")

    def said(low: float, high: float) -> str:
        other = {"mean": (low + high) / 2, "low": low, "high": high}
        mine = {"mean": 2.0, "low": 1.9, "high": 2.1}
        return module.verdict({first: {"val_loss": mine}, second: {"val_loss": other}})

    assert said(1.5, 1.95).startswith("no winner")
    assert second in said(1.5, 1.8) and "0.350" in said(1.5, 1.8)
    assert said(2.2, 2.4).startswith(first)


def test_the_stream_verdict_says_what_did_not_happen() -> None:
    def said(sinks: float, window: float) -> str:
        tail = {"sinks": sinks, "window": window, "plain": 1.0}
        return beyond_the_context.verdict(
            {"last_quarter": {way: {"ratio": ratio} for way, ratio in tail.items()}}
        )

    assert "stays within 10%" in said(1.09, 3) and "them collapses" in said(1.09, 3)
    assert "does not stay" in said(1.11, 1.2) and "them does not collapse" in said(1.11, 1.2)


def test_the_width_makes_parameters_equal() -> None:
    modern = ModelConfig(
        n_layer=4, n_head=4, n_embd=128, norm="rmsnorm", position="rope", mlp="swiglu", bias=False
    )
    wanted = count_parameters(ModelConfig(n_layer=4, n_head=4, n_embd=128), 65)
    width = classic_and_modern.width_for(modern, wanted, 65)
    found = count_parameters(ModelConfig(**vars(modern) | {"n_hidden": width}), 65)
    assert abs(found / wanted - 1) < 0.01


def test_without_data_the_option_is_named(lab: Lab) -> None:
    with pytest.raises(InputError, match="wikitext-2") as caught:
        training.add_text(lab, "wikitext-2", None)
    assert "--data" in caught.value.hint


def test_a_chart_shows_every_curve_and_escapes_its_names() -> None:
    curves = [Series("<a>", [0, 10], [1, 100], [1, 90], [1, 110]), Series("b", [0, 10], [2, 3])]
    svg = ElementTree.fromstring(line_chart("t", "x", "y", curves, logarithmic=True))
    name = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{name}polyline")) == 2 and len(svg.findall(f"{name}polygon")) == 1
    assert "<a>" in [text.text for text in svg.findall(f"{name}text")]
    with pytest.raises(ValueError, match="nothing"):
        line_chart("t", "x", "y", [])


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0.1, 9.7) == [2, 4, 6, 8]
    assert ticks(1.42, 2.08) == [1.5, 1.6, 1.7, 1.8, 1.9, 2.0]
    assert ticks(3, 3) == [3]
