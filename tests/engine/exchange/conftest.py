"""What the tests of the exchange share: tokenizers on both sides, a run, a folder of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from engine.exchange.export import export_hf
from engine.exchange.tokenizers import read_tokenizer, write_tokenizer
from engine.lab import Lab
from engine.tokenizers import Tokenizer, build
from tests.engine.exchange.making import VOCAB, run_with
from tests.engine.exchange.pairs import network
from tests.engine.exchange.tokenizer_samples import EXTRA, OURS, PROSE, THEIRS


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="session")
def ours() -> dict[str, Tokenizer]:
    return {kind: build(kind, lambda: [PROSE, EXTRA], 800) for kind in (*OURS, "word")}


@pytest.fixture(scope="session")
def written(
    ours: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, Any]]:
    """The folder of each kind, with a Llama's config.json beside, and what loads from it."""
    made = {}
    for kind in OURS:
        directory = tmp_path_factory.mktemp(kind)
        write_tokenizer(ours[kind], directory)
        facts = {"model_type": "gpt2" if kind == "gpt2" else "llama"}
        (directory / "config.json").write_text(json.dumps(facts))
        made[kind] = directory, AutoTokenizer.from_pretrained(directory)
    return made


@pytest.fixture(scope="session")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Tokenizer, Any, Path]]:
    """What we read of each folder, what AutoTokenizer reads, and the folder."""
    made = {}
    for name, train in THEIRS.items():
        directory = tmp_path_factory.mktemp(name)
        fast = PreTrainedTokenizerFast(tokenizer_object=train(), eos_token="</s>")
        fast.save_pretrained(directory)
        reference = AutoTokenizer.from_pretrained(directory, split_special_tokens=True)
        made[name] = read_tokenizer(directory), reference, directory
    return made


@pytest.fixture
def run(lab: Lab) -> str:
    run_with(lab, "run", network("llama", 7, VOCAB))
    return "run"


@pytest.fixture
def folder(run: str, lab: Lab, tmp_path: Path) -> Path:
    export_hf(lab, run, tmp_path / "model")
    return tmp_path / "model"
