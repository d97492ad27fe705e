"""Runs with a given network in them, as training would have left them, and models of theirs."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers

from engine.checkpoints.save import save
from engine.config import Config
from engine.config.sections import ModelConfig
from engine.lab import Lab
from engine.model import GPT
from engine.runs import RunFolder
from engine.tokenizers import ByteTokenizer, Tokenizer

VOCAB = 257  # bytes and the end of text


def run_with(lab: Lab, name: str, model: GPT, tokenizer: Tokenizer | None = None) -> Path:
    """A run called `name` whose only checkpoint, of step 1, has the weights of `model`."""
    tokenizer = tokenizer or ByteTokenizer()
    config = config_for(model.config, tokenizer)
    with RunFolder.create(lab, name, config, {}) as folder:
        tokenizer.save(folder.path / "tokenizer")
        meta = {
            "step": 1,
            "tokens": 1,
            "val_loss": None,
            "config": config.to_dict(),
            "vocab_size": tokenizer.vocab_size,
            "digests": {"tokenizer": tokenizer.digest},
        }
        save(folder.path, model.state_dict(), None, None, meta)
        return folder.path


def config_for(model: ModelConfig, tokenizer: Tokenizer) -> Config:
    values = {"data.tokenizer": tokenizer.kind, "train.max_steps": 10}
    return Config(model=model).with_values(values)


def load_theirs(folder: Path) -> torch.nn.Module:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", experts_implementation="eager"
    ).eval()


def no_leftovers(folder: Path) -> bool:
    return not [path for path in folder.iterdir() if path.name.startswith(".tmp-")]
