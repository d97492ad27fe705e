"""What can be known before a run without doing its work: the device, and the corpus in tokens.

No torch. Figures that only torch or a whole pass over the corpus could tell are estimated, and say
so (`exact` is False), or are 0 when nothing is known.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from engine import machine, peaks
from engine.config import Config
from engine.correction import remembered
from engine.errors import CorpusError, DeviceError, TokenizerError
from engine.hardware import BY_NAME, Card, Fleet, card_called, find_card
from engine.lab import Lab
from engine.planner import CorpusFacts, DeviceFacts, Plan, plan
from engine.threads import usual_threads

VOCABULARY = {"gpt2": 50257, "bytes": 257, "char": 96}
"""Sizes of vocabularies that no setting decides; `char` is an estimate (printable ASCII)."""


def plan_run(
    lab: Lab,
    config: Config,
    device: str | None = None,
    *,
    gpus: int = 0,
    tokens_per_second: float | None = None,
    rate_source: str = "",
) -> Plan:
    """The plan of `config` in this lab on this machine, put right by what was measured here.

    `device` may also name a GPU that this machine lacks, as `engine.hardware` lists them. `gpus`
    plans for that many; 0 for one device. Raises CorpusError, DeviceError, InputError.
    """
    facts, fleet = survey_device(config, device), None
    if gpus or not facts.here:
        fleet = Fleet(_card(facts), gpus or 1)
    return plan(
        config,
        survey_corpus(lab, config),
        facts,
        tokens_per_second=tokens_per_second,
        rate_source=rate_source,
        disk_free=disk_free(lab.checkpoints) if facts.here else None,
        correction=lambda compiled: remembered(facts, compiled),
        fleet=fleet,
    )


def _card(facts: DeviceFacts) -> Card:
    """What is published of the device. Raises DeviceError for one that no fleet is made of."""
    card = card_called(facts.name)
    if card is None:
        raise DeviceError(
            f"several devices are planned of GPUs alone, and '{facts.name}' is not among them",
            f"name one with --device: {', '.join(BY_NAME)}",
        )
    return card


def _elsewhere(config: Config, card: Card) -> DeviceFacts:
    """A card that this machine need not have."""
    has_bfloat16 = card.name not in ("v100", "t4")
    precision = _given(config) or ("bfloat16" if has_bfloat16 else "float16")
    peak, memory = card.peak(precision), round(card.memory)
    return DeviceFacts(
        "cuda",
        card.title,
        precision,
        memory,
        memory,
        peak,
        f"{peaks.PUBLISHED_SOURCE} ({card.source})",
        card.bandwidth,
        has_bfloat16=has_bfloat16,
        here=False,
    )


def survey_device(config: Config, device: str | None = None) -> DeviceFacts:
    """The device that `train.device` (or `device`) would mean here; or the GPU of that kind, as
    published, where `device` names one.

    Raises DeviceError for an unknown name, or a GPU that the machine plainly lacks.
    """
    wanted = device or config.train.device
    if not machine.is_device_name(wanted):
        return _elsewhere(config, find_card(wanted))
    name = machine.check_device_name(wanted)
    gpus = [] if name in ("cpu", "mps") else machine.gpus()
    if name == "auto" and (not gpus or _torch_is_for_cpus()):
        name = "mps" if machine.is_apple_silicon() else "cpu"
    if name == "mps" and sys.platform != "darwin":
        raise DeviceError("device 'mps' asked for, but this is no Mac", "use --device cpu")
    if name in ("cpu", "mps"):
        return _processor(config, name)
    index = int(name.partition(":")[2] or 0) if name != "auto" else 0
    if not gpus and not machine.has_nvidia_driver():
        raise DeviceError(
            f"device '{name}' asked for, but this machine has no NVIDIA driver", "use --device cpu"
        )
    if index >= len(gpus):
        if gpus:
            here = ", ".join(f"cuda:{gpu.index} ({gpu.name})" for gpu in gpus)
            raise DeviceError(f"device '{name}' asked for, but the GPUs here are {here}")
        precision = _given(config) or "bfloat16"
        return DeviceFacts("cuda", "a GPU (install nvidia-ml-py to see which)", precision)
    gpu = gpus[index]
    precision = _given(config) or ("bfloat16" if gpu.capability >= (8, 0) else "float16")
    peak, card = peaks.published_peak(gpu.name, precision), card_called(gpu.name)
    return DeviceFacts(
        "cuda",
        gpu.name,
        precision,
        gpu.memory_total,
        gpu.memory_free,
        peak,
        peaks.PUBLISHED_SOURCE if peak else "",
        card.bandwidth if card else 0.0,
        has_bfloat16=gpu.capability >= (8, 0),
    )


def _given(config: Config) -> str:
    return "" if config.train.precision == "auto" else config.train.precision


def _torch_is_for_cpus() -> bool:
    try:
        return metadata.version("torch").endswith("+cpu")
    except metadata.PackageNotFoundError:
        return True


def _processor(config: Config, kind: str) -> DeviceFacts:
    fastest = "bfloat16" if kind == "cpu" and machine.cpu_has_bfloat16() else "float32"
    precision = _given(config) or fastest
    name, threads = machine.cpu_name(), config.train.threads or usual_threads(precision)
    peak = bandwidth = 0.0
    if kind == "cpu":
        peak = peaks.remembered_peak(name, precision, threads)
        bandwidth = peaks.remembered_bandwidth(name, threads)
    return DeviceFacts(
        kind,
        name,
        precision,
        machine.memory_total(),
        machine.memory_available(),
        peak,
        peaks.MEASURED_SOURCE if peak else "",
        bandwidth,
        threads,
        has_bfloat16=kind == "cpu" and machine.cpu_has_bfloat16(),
        last_cache=machine.last_cache() if kind == "cpu" else 0,
    )


def measure_device(facts: DeviceFacts) -> bool:
    """Have what `facts` lacks of a processor's rates measured, for later plans to find; whether
    there was anything to do. A few seconds, in a process of its own: torch is large, and so is what
    it measures with."""
    if not facts.here or facts.kind != "cpu" or (facts.peak_flops and facts.bandwidth):
        return False
    command = [sys.executable, "-m", "engine.peaks", facts.name, facts.precision]
    subprocess.run(
        [*command, str(facts.threads)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # a plan without a rate says so
    )
    return True


def survey_corpus(lab: Lab, config: Config) -> CorpusFacts:
    """The corpus of `config` in tokens: exact if it is prepared, else from its bytes.

    Raises CorpusError for an unknown corpus, and for one that is prepared and too short.
    """
    from engine.corpora import find_corpus

    data = config.data
    entry = find_corpus(lab, data.corpus)
    prepared = _prepared_tokens(lab, config) if entry.available else None
    if prepared is not None:
        vocab_size, boundary, n_tokens = prepared
        return CorpusFacts(vocab_size, True, boundary, n_tokens - boundary, True, True)
    vocab_size = VOCABULARY.get(data.tokenizer, data.vocab_size)
    exact = data.tokenizer in ("gpt2", "bytes")
    if entry.bytes is None:
        return CorpusFacts(vocab_size, exact, None, None, False, entry.available)
    n_tokens = round(entry.bytes / bytes_per_token(data.tokenizer, vocab_size))
    val_tokens = round(n_tokens * data.val_fraction)
    return CorpusFacts(vocab_size, exact, n_tokens - val_tokens, val_tokens, False, entry.available)


def bytes_per_token(kind: str, vocab_size: int) -> float:
    """A rough figure for English prose; source code has a third fewer.

    A trained BPE gains about 0.35 bytes with each doubling of its vocabulary (1 024: 2.6).
    """
    if kind in ("bytes", "char"):
        return 1.0
    if kind == "word":
        return 4.5
    return 3.5 if kind == "gpt2" else max(1.0, 2.6 + 0.35 * math.log2(vocab_size / 1024))


def _prepared_tokens(lab: Lab, config: Config) -> tuple[int, int, int] | None:
    """(vocabulary, where validation begins, all tokens) of shards already there for `config`."""
    from engine import tokenizers
    from engine.corpora import find_prepared
    from engine.data import split

    data = config.data
    try:
        if data.tokenizer in tokenizers.UNTRAINED:
            tokenizer = tokenizers.build(data.tokenizer, lambda: (), data.vocab_size, lab)
        else:
            size = "" if data.tokenizer == "char" else f"-{data.vocab_size}"
            pattern = f"{data.corpus}-{data.tokenizer}{size}-{'?' * 12}"
            kept = sorted((lab.corpus / "prepared" / "tokenizers").glob(pattern), key=_age)
            if not kept:
                return None
            tokenizer = tokenizers.load(kept[-1])
        prepared = find_prepared(lab, data.corpus, tokenizer)
    except (TokenizerError, CorpusError):
        return None
    if prepared is None:
        return None
    starts = prepared.document_starts()
    boundary = split(prepared.n_tokens, data.val_fraction, config.model.context_length, starts)
    return tokenizer.vocab_size, boundary, prepared.n_tokens


def _age(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def disk_free(path: Path) -> int | None:
    """Bytes free where `path` (or its nearest existing parent) lies; None when nobody tells."""
    for place in (path, *path.parents):
        if place.exists():
            try:
                return shutil.disk_usage(place).free
            except OSError:
                return None
    return None
