"""A real short run in a process of its own, measured, compared with the plan, and remembered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from engine import calibration, peaks
from engine.config import Config
from engine.correction import remembered
from engine.errors import DeviceError, EngineError, InputError
from engine.lab import Lab
from engine.survey import survey_device
from engine.trial import WARM, resident_peak, run_trial

SMALL = Config().with_values(
    {
        "model.n_layer": 1,
        "model.n_head": 2,
        "model.n_embd": 16,
        "model.context_length": 16,
        "data.corpus": "tiny",
        "data.tokenizer": "bytes",
        "train.batch_size": 4,
        "train.max_steps": 1000,
        "train.device": "cpu",
        "train.precision": "float32",
        "train.threads": 1,
        "train.compile": "off",
    }
)


@pytest.fixture(autouse=True)
def _known_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(peaks, "remembered_peak", lambda name, precision, threads: 1e11)
    monkeypatch.setattr(peaks, "remembered_bandwidth", lambda name, threads: 1e10)


def test_a_real_run_is_measured_and_what_it_taught_is_kept(lab: Lab) -> None:
    """End to end: the process, its clock and its memory, the comparison, the cache; and nothing in
    the lab."""
    expected = []
    found = calibration.calibrate(lab, SMALL, steps=WARM + 5, expecting=expected.append)
    assert found is not None and found.kept
    trial = found.trial
    assert (trial.steps, trial.compiled, trial.threads) == (5, False, 1)
    assert trial.low <= trial.step_seconds <= trial.high < 5
    assert 150e6 < trial.assembled <= trial.peak_memory < 2e9
    assert found.predicted_step_seconds == expected[0].step_seconds
    kept = remembered(survey_device(SMALL), False)
    assert kept == found.correction
    assert kept.time == pytest.approx(trial.step_seconds / expected[0].step_seconds)
    assert kept.memory == trial.peak_memory - expected[0].memory.total
    assert list(lab.checkpoints.iterdir()) == []


def test_a_run_that_fails_is_told_in_its_own_words(lab: Lab) -> None:
    """A process that says nothing, and one that says why."""
    with pytest.raises(EngineError, match="exit code 3 and no result") as refused:
        script = "import sys; sys.stderr.write('the reason\\n'); sys.exit(3)"
        run_trial(SMALL, 257, compiled=False, python=(sys.executable, "-c", script))
    assert refused.value.hint == "the reason"
    with pytest.raises(EngineError, match="cannot be read") as refused:
        script = (
            "import sys, json, pathlib\n"
            "pathlib.Path(sys.argv[1], 'result.json').write_text("
            "json.dumps({'error': 'the corpus cannot be read', 'hint': 'mend it'}))"
        )
        run_trial(SMALL, 257, compiled=False, python=(sys.executable, "-c", script))
    assert refused.value.hint == "mend it"


def test_it_can_be_left_off() -> None:
    """Somebody who presses the key again does not wait for twenty steps of a large model."""
    python = (sys.executable, "-c", "import time; time.sleep(60)")
    stopped = run_trial(SMALL, 257, compiled=False, should_stop=lambda: True, python=python)
    assert stopped is None


def test_what_cannot_be_measured_is_refused(lab: Lab) -> None:
    with pytest.raises(InputError, match="3 steps"):
        run_trial(SMALL, 257, compiled=False, steps=3)
    with pytest.raises(DeviceError, match="not here to be measured"):
        calibration.calibrate(lab, SMALL, "h100")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc")
def test_a_processs_peak_is_its_own_and_not_its_parents() -> None:
    """`getrusage` in a child begins with what its parent had: a calibration made from the app
    would measure the app."""
    ballast = bytearray(300_000_000)
    code = "from engine.trial import resident_peak; print(resident_peak())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < 200_000_000 < resident_peak()
    assert len(ballast) == 300_000_000
