"""Facts found without torch: which device a name means here, and a corpus in tokens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from engine import machine, peaks, survey
from engine.bench import limits
from engine.config import Config
from engine.corpora import get_tokenizer, prepare
from engine.errors import CorpusError, DeviceError
from engine.lab import Lab
from engine.machine import Gpu

CONFIG = Config().with_values(
    {"data.corpus": "mine", "data.tokenizer": "char", "model.context_length": 16}
    | {"train.max_steps": 10}
)
CARDS = [
    Gpu(0, "NVIDIA H100 PCIe", 80 * 10**9, 70 * 10**9, (9, 0)),
    Gpu(1, "Tesla T4", 16 * 10**9, 15 * 10**9, (7, 5)),
]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab.init(tmp_path)
    (made.corpus / "mine.txt").write_text("abc def\n" * 500)
    (made.corpus / "registry.toml").write_text('[mine]\nkind = "text"\nfile = "mine.txt"\n')
    return made


def test_a_corpus_is_estimated_until_it_is_prepared_then_exact(lab: Lab) -> None:
    before = survey.survey_corpus(lab, CONFIG)
    assert not before.exact
    assert not before.vocab_exact
    assert before.train_tokens + before.val_tokens == 4000
    assert list((lab.corpus).glob("prepared*")) == []  # looking must not prepare

    prepare(lab, "mine", get_tokenizer(lab, "mine", "char", 0))
    after = survey.survey_corpus(lab, CONFIG)
    assert after.exact
    assert after.vocab_exact
    assert after.vocab_size == len(set("abc def\n"))
    assert after.train_tokens + after.val_tokens == 4000


def test_the_corpus_a_plan_names_must_exist(lab: Lab) -> None:
    with pytest.raises(CorpusError, match="unknown corpus 'min'"):
        survey.plan_run(lab, CONFIG.with_values({"data.corpus": "min"}), "cpu")


def test_sizes_of_vocabularies_that_nothing_is_trained_for(lab: Lab) -> None:
    sizes = {}
    for kind in ("bytes", "gpt2", "bpe"):
        facts = survey.survey_corpus(lab, CONFIG.with_values({"data.tokenizer": kind}))
        sizes[kind] = (facts.vocab_size, facts.vocab_exact)
    assert sizes == {"bytes": (257, True), "gpt2": (50257, True), "bpe": (1024, False)}


def test_a_plan_of_this_machine(lab: Lab) -> None:
    drawn = survey.plan_run(lab, CONFIG, "cpu", tokens_per_second=100.0)
    assert drawn.device.kind == "cpu"
    assert 0 < drawn.device.memory_free <= drawn.device.memory_total
    assert drawn.seconds == drawn.tokens / 100.0


def test_devices_by_name_where_there_are_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: CARDS)
    monkeypatch.setattr(survey, "_torch_is_for_cpus", lambda: False)
    first = survey.survey_device(CONFIG)
    assert (first.kind, first.name, first.precision) == ("cuda", "NVIDIA H100 PCIe", "bfloat16")
    assert (first.peak_flops, first.peak_source) == (756e12, "published")
    second = survey.survey_device(CONFIG, "cuda:1")
    assert (second.name, second.precision, second.peak_flops) == ("Tesla T4", "float16", 65e12)
    with pytest.raises(DeviceError, match=r"'cuda:2' asked for.*cuda:1 \(Tesla T4\)"):
        survey.survey_device(CONFIG, "cuda:2")
    assert survey.survey_device(CONFIG, "cpu").kind == "cpu"


def test_a_gpu_that_is_not_here_is_planned_as_published(lab: Lab) -> None:
    facts = survey.survey_device(CONFIG, "h100")
    assert (facts.here, facts.kind, facts.precision) == (False, "cuda", "bfloat16")
    assert (facts.peak_flops, facts.bandwidth) == (989e12, 3.35e12)
    assert "published" in facts.peak_source and "data sheet" in facts.peak_source
    assert survey.survey_device(CONFIG, "v100").precision == "float16"
    drawn = survey.plan_run(lab, CONFIG, "h100", gpus=64)
    assert (drawn.parallel.gpus, drawn.parallel.machines) == (64, 8)
    alone = survey.plan_run(lab, CONFIG, "h100")
    assert alone.parallel is None and alone.gpu_hours == alone.seconds / 3600
    with pytest.raises(DeviceError, match="unknown device 'h10'"):
        survey.plan_run(lab, CONFIG, "h10")
    with pytest.raises(DeviceError, match="GPUs alone"):
        survey.plan_run(lab, CONFIG, "cpu", gpus=4)


def test_a_cpus_rates_are_measured_once_in_a_process_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a rate there is no time in the plan; torch must not come into this process. What that
    process does is done here, with a buffer that takes no second."""
    monkeypatch.setenv("TUI_LAB_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(limits, "BYTES", {"cpu": 1 << 20})
    for measured in (peaks.measured_peak, peaks.measured_bandwidth):
        measured.cache_clear()  # what other tests have measured in this process
    config = CONFIG.with_values({"train.precision": "float32", "train.threads": 1})
    facts = survey.survey_device(config, "cpu")
    assert (facts.peak_flops, facts.bandwidth) == (0.0, 0.0)

    def run(command: list[str], **_: object) -> None:
        assert command[:3] == [sys.executable, "-m", "engine.peaks"]
        name, precision, threads = command[3:]
        peaks.main(name, precision, int(threads))

    monkeypatch.setattr(survey.subprocess, "run", run)
    assert survey.measure_device(facts)
    facts = survey.survey_device(config, "cpu")
    assert facts.peak_flops > 1e8 and facts.bandwidth > 1e8
    assert facts.peak_source == "measured here"
    assert not survey.measure_device(facts)


def test_auto_ignores_a_gpu_that_the_installed_torch_cannot_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "gpus", lambda: CARDS)
    monkeypatch.setattr(machine, "is_apple_silicon", lambda: False)
    monkeypatch.setattr(survey, "_torch_is_for_cpus", lambda: True)
    assert survey.survey_device(CONFIG).kind == "cpu"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpus", list)
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: False)
    with pytest.raises(DeviceError, match="'cuda' asked for"):
        survey.survey_device(CONFIG, "cuda")
    monkeypatch.setattr(machine, "has_nvidia_driver", lambda: True)
    assert survey.survey_device(CONFIG, "cuda").memory_total == 0


def test_the_precision_that_is_configured_wins() -> None:
    config = CONFIG.with_values({"train.precision": "float32"})
    assert survey.survey_device(config, "cpu").precision == "float32"


def test_free_disk_of_a_folder_that_is_not_made_yet(tmp_path: Path) -> None:
    assert survey.disk_free(tmp_path / "not" / "there") > 0
