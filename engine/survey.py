"""What can be known before a run without doing its work: the device, and the corpus in tokens.

No torch. Figures that only torch or a whole pass over the corpus could tell are estimated, and say
so (`exact` is False), or are 0 when nothing is known.
"""

from __future__ import annotations

import math
import shutil
import sys
from importlib import metadata
from pathlib import Path

from engine import machine, peaks
from engine.config import Config
from engine.errors import CorpusError, DeviceError, TokenizerError
from engine.lab import Lab
from engine.planner import CorpusFacts, DeviceFacts, Plan, plan

VOCABULARY = {"gpt2": 50257, "bytes": 257, "char": 96}
"""Sizes of vocabularies that no setting decides; `char` is an estimate (printable ASCII)."""


def plan_run(
    lab: Lab,
    config: Config,
    device: str | None = None,
    *,
    tokens_per_second: float | None = None,
    rate_source: str = "",
) -> Plan:
    """The plan of `config` in this lab on this machine. Raises CorpusError, DeviceError."""
    return plan(
        config,
        survey_corpus(lab, config),
        survey_device(config, device),
        tokens_per_second=tokens_per_second,
        rate_source=rate_source,
        disk_free=disk_free(lab.checkpoints),
    )


def survey_device(config: Config, device: str | None = None) -> DeviceFacts:
    """The device that `train.device` (or `device`) would mean here.

    Raises DeviceError for an unknown name, or a GPU that the machine plainly lacks.
    """
    name = machine.check_device_name(device or config.train.device)
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
    peak = peaks.published_peak(gpu.name, precision)
    source = peaks.PUBLISHED_SOURCE if peak else ""
    return DeviceFacts("cuda", gpu.name, precision, gpu.memory_total, gpu.memory_free, peak, source)


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
    name, peak = machine.cpu_name(), 0.0
    if kind == "cpu":
        peak = peaks.remembered_peak(name, precision, config.train.threads or machine.cores())
    return DeviceFacts(
        kind,
        name,
        precision,
        machine.memory_total(),
        machine.memory_available(),
        peak,
        peaks.MEASURED_SOURCE if peak else "",
    )


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
