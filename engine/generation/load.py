"""A checkpoint made ready to generate: its network, weights and tokenizer on a device.

Knows where a checkpoint keeps what; nothing of training or terminals. Building the network draws no
random numbers: a console may load a checkpoint in a process that is training another run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine import tokenizers
from engine.arithmetic import count_parameters
from engine.checkpoints import CheckpointInfo, find_checkpoint
from engine.checkpoints.load import load_meta, load_weights
from engine.config import Config, from_dict
from engine.device import choose_device
from engine.errors import CheckpointError, ConfigError, InputError, TokenizerError
from engine.generation.compiled import State, Steps, When
from engine.generation.default import default_reference
from engine.generation.generate import GeneratedToken, encode_prompt, generate
from engine.generation.layout import lay_out
from engine.generation.params import SamplingParams
from engine.generation.quantised import check_kind, quantise_linear
from engine.generation.scoring import ScoredToken, score
from engine.lab import Lab
from engine.model import GPT
from engine.tokenizers import Tokenizer


@dataclass
class Generator:
    """A model that can be talked to, and where it came from."""

    model: GPT
    tokenizer: Tokenizer
    device: torch.device
    info: CheckpointInfo
    config: Config
    """The configuration of the run that made it."""
    meta: dict[str, Any] = field(repr=False)
    """The checkpoint's own facts: digests, data position, versions."""
    steps: Steps | None = field(default=None, repr=False)
    """Compiled ones, once `compile` was called."""

    def compile(
        self,
        when: When,
        *,
        allowed: Callable[[], bool] = lambda: True,
        told: Callable[[State, str], None] = lambda state, words: None,
    ) -> None:
        """Decode by compiled steps from now on, as `engine.generation.compiled.Steps` tells."""
        self.steps = Steps(self.model, self.device, when, allowed=allowed, told=told)

    def stream(
        self,
        prompt: str,
        params: SamplingParams,
        should_stop: Callable[[], bool] = lambda: False,
        *,
        continued: Sequence[int] = (),
        alternatives: int = 5,
        crop: bool = False,
    ) -> Iterator[GeneratedToken]:
        """`engine.generation.generate.generate` with this model; raises what that raises."""
        return generate(
            self.model,
            self.tokenizer,
            prompt,
            params,
            device=self.device,
            continued=continued,
            should_stop=should_stop,
            alternatives=alternatives,
            crop=crop,
            steps=self.steps,
        )

    def score(
        self,
        prompt: str,
        tokens: Sequence[int],
        run: Path,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> list[ScoredToken]:
        """What this model makes of `tokens` after `prompt`, which a model of the run in the folder
        `run` wrote: one each; none if it was stopped. Raises InputError when the tokenizers
        differ, since the same numbers are then other texts."""
        digest = tokenizers.load_of_run(run).digest
        if digest != self.tokenizer.digest:
            raise InputError(
                f"'{self.info.run}' and '{run.name}' have different tokenizers",
                "only models of one tokenizer can be compared token by token",
            )
        prompt_ids = encode_prompt(self.tokenizer, prompt)
        return score(
            self.model,
            self.tokenizer,
            [*prompt_ids, *tokens],
            device=self.device,
            first=len(prompt_ids),
            should_stop=should_stop,
        )


def load_generator(
    lab: Lab,
    reference: str = "",
    device: str = "auto",
    problems: list[str] | None = None,
    quantise: str = "",
) -> Generator:
    """The checkpoint that `reference` means (`run`, `run@best`, `run@500`, a path), in eval mode.

    An empty reference takes the newest checkpoint of the lab, or else a shipped one. Broken
    checkpoints that were passed over are named in `problems`. `quantise`: "int8", or "" for the
    weights as they are. Raises CheckpointError, also for an absent or foreign tokenizer,
    DeviceError, and InputError for a kind of quantisation that is not known.
    """
    chosen = choose_device(device)
    info = find_checkpoint(lab, reference or default_reference(lab), problems)
    return load_to_generate(info, chosen, quantise)


def load_to_generate(info: CheckpointInfo, device: torch.device, quantise: str = "") -> Generator:
    """As `load_checkpoint`, with weights stored for reading one token at a time, or quantised: the
    numbers differ from the checkpoint's own by rounding. Raises InputError for an unknown kind."""
    check_kind(quantise)
    generator = load_checkpoint(info, device)
    if quantise:
        quantise_linear(generator.model)
    else:
        lay_out(generator.model)
    return generator


def load_checkpoint(info: CheckpointInfo, device: torch.device) -> Generator:
    """The checkpoint's model and tokenizer on `device`. Raises CheckpointError."""
    meta = load_meta(info)
    config = read_config(meta, info)
    tokenizer = load_tokenizer(info, meta)
    weights = load_weights(info, device)
    _check_size(config, tokenizer, weights, info)
    with torch.device("meta"):  # shapes alone: no memory, and no draw from the global generator
        model = GPT(config.model, tokenizer.vocab_size)
    set_weights(model, weights, info)
    return Generator(model.eval(), tokenizer, device, info, config, meta)


def _check_size(
    config: Config, tokenizer: Tokenizer, weights: dict[str, Tensor], info: CheckpointInfo
) -> None:
    """Refuse a configuration of another network before building it: one of a billion layers would
    take for ever even without memory. Raises CheckpointError."""
    there = sum(tensor.numel() for tensor in weights.values())
    if config.model.n_layer > len(weights) or (
        count_parameters(config.model, tokenizer.vocab_size) != there
    ):
        raise CheckpointError(
            f"'{info.path}': its weights do not fit its configuration and tokenizer",
            f"it holds {there:,} numbers in {len(weights)} tensors",
        )


def read_config(meta: dict[str, Any], info: CheckpointInfo) -> Config:
    """The configuration that a checkpoint's meta data holds. Raises CheckpointError."""
    values = meta.get("config")
    try:
        if not isinstance(values, dict):
            raise ConfigError("it holds none")
        return from_dict(values, "meta.json")
    except ConfigError as error:
        raise CheckpointError(
            f"'{info.path}': its configuration cannot be read: {error.title}",
            "it may come from another version of tui-lab",
        ) from error


def load_tokenizer(info: CheckpointInfo, meta: dict[str, Any]) -> Tokenizer:
    """The tokenizer in the run's folder.

    Raises CheckpointError when it is absent, broken, or not the one of the checkpoint: the weights
    would load all the same, and speak nonsense.
    """
    directory = info.path.parent / "tokenizer"
    try:
        tokenizer = tokenizers.load_of_run(info.path.parent)
    except TokenizerError as error:
        raise CheckpointError(
            f"run '{info.run}': its tokenizer cannot be loaded: {error.title}",
            error.hint or f"'{directory}' must hold the tokenizer that the run was trained with",
        ) from error
    if digests(meta).get("tokenizer", tokenizer.digest) != tokenizer.digest:
        raise CheckpointError(
            f"run '{info.run}': '{directory}' is not the tokenizer it was trained with",
            "put the original files back",
        )
    return tokenizer


def digests(meta: dict[str, Any]) -> dict[str, Any]:
    """What the checkpoint was trained on, by digest: `tokenizer` and `corpus`."""
    found = meta.get("digests")
    return found if isinstance(found, dict) else {}


def set_weights(model: GPT, weights: dict[str, Tensor], info: CheckpointInfo) -> None:
    """Put `weights` in the model without copying. Raises CheckpointError when they do not fit."""
    try:
        model.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise CheckpointError(
            f"'{info.path}': its weights do not fit its configuration and tokenizer",
            lines[1] if len(lines) > 1 else lines[0],
        ) from error
