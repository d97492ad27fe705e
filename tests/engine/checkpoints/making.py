"""Small real checkpoints for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.checkpoints.save import save
from engine.config import Config
from engine.lab import Lab
from engine.runs import RunFolder

CONFIG = Config().with_values({"train.max_steps": 100, "model.n_layer": 2})


def tensors(seed: int = 0) -> dict[str, torch.Tensor]:
    """Every kind of tensor that a model or an optimiser may have, the output layer tied."""
    generator = torch.Generator().manual_seed(seed)
    embedding = torch.randn(50, 8, generator=generator)
    return {
        "lm_head.weight": embedding,
        "wte.weight": embedding,
        "blocks.0.attn.qkv.weight": torch.randn(24, 8, generator=generator).bfloat16(),
        "blocks.1.attn.qkv.weight": torch.randn(24, 8, generator=generator).bfloat16(),
        "half": torch.randn(3, generator=generator).half(),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "whole": torch.arange(7, dtype=torch.int64),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "turned": torch.randn(6, 4, generator=generator).T,
    }


def training_tensors() -> dict[str, torch.Tensor]:
    return {"optimizer.exp_avg.wte.weight": torch.ones(50, 8), "rng.cpu": torch.get_rng_state()}


def meta(step: int, val_loss: float | None = None, **more: Any) -> dict[str, Any]:
    facts = {"step": step, "tokens": step * 100, "val_loss": val_loss}
    return facts | {"config": CONFIG.to_dict(), "vocab_size": 50, **more}


def checkpoint(
    run_path: Path,
    step: int,
    val_loss: float | None = None,
    *,
    kind: str = "periodic",
    policy: str = "all",
    seed: int = 0,
) -> Path:
    saved = save(
        run_path,
        tensors(seed),
        training_tensors(),
        {"progress": {"step": step}},
        meta(step, val_loss),
        kind=kind,
        policy=policy,
    )
    return saved.path


def run(lab: Lab, name: str = "first", config: Config = CONFIG) -> Path:
    """A run's folder, let go of."""
    with RunFolder.create(lab, name, config, {"preset": "micro"}) as folder:
        return folder.path


def flip(path: Path, position: int = -20) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
