"""The optimiser of a run: which parameters decay, and which implementation runs where."""

from __future__ import annotations

import torch
from torch import nn

from engine.config.sections import OptimizerConfig

FUSED_DEVICES = ("cuda", "cpu", "mps")
"""Where PyTorch has AdamW as one kernel over all parameters; elsewhere one call per operation."""


def decay_groups(model: nn.Module) -> dict[str, list[str]]:
    """Names of the parameters under `decay` and `no_decay`, a tied one listed once.

    Weight decay pulls towards zero what multiplies activations. Matrices decay, the token
    embedding with them (tied, it *is* the output matrix; untied it is treated alike, as nanoGPT
    does). Biases and norms are offsets and gains, not weights of inputs, and each position's
    embedding is trained by one place in the window alone: none of them decays.
    """
    groups: dict[str, list[str]] = {"decay": [], "no_decay": []}
    for name, parameter in model.named_parameters():  # each shared parameter once
        place = "wpe" in name.split(".")
        # The biases of stacked experts are two-dimensional too.
        decays = parameter.dim() >= 2 and not place and not name.endswith("bias")
        groups["decay" if decays else "no_decay"].append(name)
    return groups


def build_optimizer(
    model: nn.Module, config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) over two groups; β₂ = 0.95 rather than 0.999, as GPT-3.

    The order of groups and parameters is a function of the model alone, and each group carries its
    parameters' names, so that a checkpoint can be read without the network.
    """
    named = dict(model.named_parameters())
    decay = {"decay": config.weight_decay, "no_decay": 0.0}
    groups = [
        {"params": [(name, named[name]) for name in names], "weight_decay": decay[group]}
        for group, names in decay_groups(model).items()
        if names
    ]
    optimizer = torch.optim.AdamW(
        groups, lr=config.lr, betas=config.betas, fused=device.type in FUSED_DEVICES
    )
    _allot_moments(optimizer)
    return optimizer


def _allot_moments(optimizer: torch.optim.Optimizer) -> None:
    """Allocate the moments now rather than in the first step, one group after the other: memory
    that does not suffice is then found before a single weight has changed."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            place = parameter.device if group["fused"] else "cpu"
            optimizer.state[parameter] = {
                "step": torch.zeros((), dtype=torch.float32, device=place),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
