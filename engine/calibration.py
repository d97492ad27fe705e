"""Twenty steps of a configuration here, to see by how much the plan is off, and to put it right.

Brings together the plan (`engine.planner`), a measured run (`engine.trial`) and what is remembered
of the difference (`engine.correction`). No torch in this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from engine import survey
from engine.config import Config
from engine.correction import Correction, remember
from engine.errors import DeviceError, EngineError
from engine.lab import Lab
from engine.planner import Plan, plan
from engine.trial import STEPS, Trial, run_trial


@dataclass(frozen=True)
class Calibration:
    """What was expected of the run that was measured, and what came. Seconds, bytes."""

    predicted_step_seconds: float
    predicted_memory: int
    trial: Trial
    correction: Correction
    kept: bool
    """Whether later plans will find the correction."""

    @property
    def time_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_step_seconds / self.trial.step_seconds - 1

    @property
    def memory_error(self) -> float:
        """Predicted over measured, less one."""
        return self.predicted_memory / self.trial.peak_memory - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        errors = {"time_error": self.time_error, "memory_error": self.memory_error}
        return asdict(self) | errors


def calibrate(
    lab: Lab,
    config: Config,
    device: str | None = None,
    *,
    steps: int = STEPS,
    should_stop: Callable[[], bool] = lambda: False,
    expecting: Callable[[Plan], None] = lambda drawn: None,
) -> Calibration | None:
    """Train `steps` steps of `config` in a process of its own, compare, and remember; None when
    `should_stop` said so.

    On the configured corpus where it is prepared, else on random text of as many different tokens.
    `expecting` is told the uncorrected plan before the run. Raises DeviceError for a device that is
    not here, EngineError when the run fails, and what planning raises.
    """
    facts = survey.survey_device(config, device)
    if not facts.here:
        raise DeviceError(
            f"'{facts.name}' is not here to be measured", "calibrate on a machine that has it"
        )
    if survey.measure_device(facts):
        facts = survey.survey_device(config, device)
    corpus = survey.survey_corpus(lab, config)
    # Nothing is saved, so the plan that is compared saves nothing either.
    measured = replace(config, save=replace(config.save, policy="none"))
    if device is not None:
        measured = replace(measured, train=replace(measured.train, device=device))
    drawn = plan(measured, corpus, facts)
    if drawn.step_seconds is None:
        raise EngineError(
            f"nothing is known of the rates of '{facts.name}': there is no plan to put right",
            "give the rate of an earlier run: --rate",
        )
    expecting(drawn)
    trial = run_trial(
        measured,
        corpus.vocab_size,
        compiled=drawn.compiled,
        steps=steps,
        corpus=lab if corpus.exact else None,
        should_stop=should_stop,
    )
    if trial is None:
        return None
    correction = Correction(
        time=trial.step_seconds / drawn.step_seconds,
        memory=trial.peak_memory - drawn.memory.total,
        date=time.strftime("%Y-%m-%d"),
        about=_in_words(config),
    )
    kept = remember(facts, drawn.compiled, correction)
    return Calibration(drawn.step_seconds, drawn.memory.total, trial, correction, kept)


def _in_words(config: Config) -> str:
    model, train = config.model, config.train
    return (
        f"{model.n_embd}×{model.n_layer}×{model.n_head}, context {model.context_length}, "
        f"batch {train.batch_size}"
    )
