"""The optimiser of a run: which parameters it treats how, and one update of all of them.

AdamW for everything, or Muon for the matrices of the blocks and AdamW for the rest. Parameters lie
in one tensor (`engine.flat`), so that an update is a pass over memory and not a walk over layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from engine.config.sections import ModelConfig, OptimizerConfig
from engine.errors import CheckpointError
from engine.flat import Flat
from engine.muon import update_matrices

FUSED_DEVICES = ("cuda", "cpu", "mps")
"""Where PyTorch has AdamW as one kernel over all numbers; elsewhere one call per operation."""
SCALING_DEVICES = ("cuda", "cpu")
"""Where that kernel takes a scale of the gradients, which clipping is; else they are multiplied."""


def parameter_groups(model: nn.Module, name: str = "adamw") -> dict[str, list[str]]:
    """Names of the parameters under `matrices`, `decay` and `no_decay`, a tied one listed once.

    Weight decay pulls towards zero what multiplies activations. Matrices decay, the token
    embedding with them (tied, it *is* the output matrix; untied it is treated alike, as nanoGPT
    does). Biases and norms are offsets and gains, not weights of inputs, and each position's
    embedding is trained by one place in the window alone: none of them decays. Under `muon` the
    matrices inside the blocks have a group of their own, but for the routers': theirs choose.
    """
    groups: dict[str, list[str]] = {"matrices": [], "decay": [], "no_decay": []}
    for full, parameter in model.named_parameters():  # each shared parameter once
        place = "wpe" in full.split(".")
        # The biases of stacked experts are two-dimensional too.
        decays = parameter.dim() >= 2 and not place and not full.endswith("bias")
        inside = decays and name == "muon" and full.startswith("blocks.") and "router" not in full
        groups["matrices" if inside else "decay" if decays else "no_decay"].append(full)
    return {group: names for group, names in groups.items() if names}


class Optimizer(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter 2019; β₂ = 0.95 rather than 0.999, as GPT-3), perhaps with Muon.

    The order of groups and parameters is a function of the model alone. What it remembers goes by
    the parameters' names, so that a checkpoint can be read without the network. Moments are
    allotted at once: memory that does not suffice is found before a single weight has changed.
    """

    def __init__(
        self,
        model: nn.Module,
        shape: ModelConfig,
        config: OptimizerConfig,
        precision: str = "float32",
    ) -> None:
        """`precision`: of the matrix products, where Muon makes some."""
        self.flat = Flat(model, parameter_groups(model, config.name))
        self.config = config
        self.device = self.flat.value.device
        self._pieces = _matrices(self.flat, shape)
        self._lower = torch.bfloat16 if precision == "bfloat16" else torch.float32
        groups = []
        for group, values in self.flat.values.items():
            whole = nn.Parameter(values)
            whole.grad = self.flat.gradients[group]
            decay = 0.0 if group == "no_decay" else config.weight_decay
            groups.append({"params": [whole], "name": group, "weight_decay": decay})
        super().__init__(groups, {"lr": config.lr})
        for group in self.param_groups:
            (whole,) = group["params"]
            if group["name"] == "matrices":
                self.state[whole] = {"momentum": torch.zeros_like(whole)}
                continue
            self.state[whole] = {
                "step": torch.zeros((), dtype=torch.float32, device=self.device),
                "exp_avg": torch.zeros_like(whole),
                "exp_avg_sq": torch.zeros_like(whole),
            }

    def set_rate(self, lr: float) -> None:
        """AdamW's learning rate; Muon's keeps its ratio to it."""
        ratio = (self.config.muon_lr or self.config.lr) / self.config.lr if self.config.lr else 1.0
        for group in self.param_groups:
            group["lr"] = lr * ratio if group["name"] == "matrices" else lr

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Gradients are zero, and stay where they are whatever is asked."""
        self.flat.gradient.zero_()

    def gradient_norm(self) -> Tensor:
        """The norm of all gradients together: ()."""
        return torch.linalg.vector_norm(self.flat.gradient)

    def clip(self, norm: Tensor) -> None:
        """Scale the gradients down to the configured norm, as `clip_grad_norm_` does."""
        if self.config.clip:
            self.flat.gradient.mul_(self._coefficient(norm))

    def _coefficient(self, norm: Tensor) -> Tensor:
        return (self.config.clip / (norm + 1e-6)).clamp(max=1.0)

    def step(self, closure: Any = None) -> None:
        """One update by the gradients as they are."""
        self.update(None, True)

    @torch.no_grad()
    def update(self, norm: Tensor | None, allowed: Tensor | bool) -> None:
        """One update, by gradients whose norm is `norm`, clipped; None: that are clipped already.

        `allowed`: false, or a tensor that is, and nothing changes. A tensor is never waited for.
        """
        if allowed is False:
            return
        coefficient = None
        if norm is not None and self.config.clip:
            coefficient = self._coefficient(norm)
            if self.device.type not in SCALING_DEVICES:
                self.flat.gradient.mul_(coefficient)
                coefficient = None
            elif self.device.type == "cpu" and float(coefficient) == 1.0:
                coefficient = None
        refused = (~allowed).float() if isinstance(allowed, Tensor) else None
        for group in self.param_groups:
            if group["name"] == "matrices":
                self._muon(group, coefficient, refused)
            else:
                self._adamw(group, coefficient, refused)

    def _adamw(
        self, group: dict[str, Any], coefficient: Tensor | None, refused: Tensor | None
    ) -> None:
        (whole,) = group["params"]
        state = self.state[whole]
        beta1, beta2 = self.config.betas
        adamw(
            [whole],
            [whole.grad],
            [state["exp_avg"]],
            [state["exp_avg_sq"]],
            [],
            [state["step"]],
            fused=self.device.type in FUSED_DEVICES,
            grad_scale=None if coefficient is None else coefficient.reciprocal(),
            found_inf=refused,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )

    def _muon(
        self, group: dict[str, Any], coefficient: Tensor | None, refused: Tensor | None
    ) -> None:
        (whole,) = group["params"]
        gradient, momentum = whole.grad, self.state[whole]["momentum"]
        mu: Any = self.config.momentum
        lr: Any = group["lr"]
        if coefficient is not None:
            gradient = gradient * coefficient
        if refused is not None:
            # What is not finite would get in through a product with zero: so it is replaced.
            gradient = torch.where(refused.bool(), 0.0, gradient)
            mu, lr = torch.where(refused.bool(), 1.0, mu), lr * (1.0 - refused)
        momentum.lerp_(gradient, 1.0 - mu)
        ahead = gradient.lerp(momentum, mu)  # Nesterov's: where the momentum will have led
        whole.mul_(1.0 - lr * group["weight_decay"])
        update_matrices(self._cut(whole.data), self._cut(ahead), lr, self._lower)

    def _cut(self, whole: Tensor) -> list[Tensor]:
        return [
            whole[start : start + rows * columns].view(rows, columns)
            for start, rows, columns in self._pieces
        ]

    def moments(self) -> dict[str, Tensor]:
        """What it remembers, as `kind.parameter`: views, which the next update changes."""
        found: dict[str, Tensor] = {}
        for name, place in self.flat.places.items():
            for kind, tensor in self._states()[place.group].items():
                found[f"{kind}.{name}"] = (
                    place.view({place.group: tensor}) if tensor.dim() else tensor
                )
        return found

    def restore(self, saved: Mapping[str, Tensor]) -> None:
        """Take back what `moments` gave; what was read into its place already stays there. Raises
        CheckpointError when something is missing, or was never this network's; nothing else has
        changed then."""
        mine = self.moments()
        for key, tensor in mine.items():
            kind, _, name = key.partition(".")
            if key not in saved:
                another = any(other.endswith(f".{name}") for other in saved)
                raise CheckpointError(
                    f"the checkpoint has no optimiser state '{kind}' for '{name}'",
                    "it was trained with another optimizer.name: resume with that one"
                    if another
                    else "its model differs from the run's configuration: resume another one",
                )
            if saved[key].shape != tensor.shape or not saved[key].is_floating_point():
                raise CheckpointError(
                    f"the optimiser's '{kind}' of '{name}' does not fit the model",
                    "resume another checkpoint",
                )
        for key, tensor in mine.items():
            if saved[key].data_ptr() != tensor.data_ptr():
                tensor.copy_(saved[key])

    def is_finite(self) -> bool:
        """Whether every weight and every moment is a finite number. Waits for the device."""
        tensors = [self.flat.value]
        tensors += [tensor for states in self._states().values() for tensor in states.values()]
        # A sum reads each number once, on all cores, and makes no copy: a fortieth of the time of
        # `isfinite`, and three quarters of that of a norm, which works on one.
        sums = torch.stack([tensor.sum(dtype=torch.float32) for tensor in tensors])
        if bool(torch.isfinite(sums).all()):
            return True
        # Large numbers may add up to infinity; only then is every number looked at.
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)

    def _states(self) -> dict[str, dict[str, Tensor]]:
        """By group: each moment of all its parameters in one tensor, and the count of steps."""
        return {group["name"]: self.state[group["params"][0]] for group in self.param_groups}


def _matrices(flat: Flat, shape: ModelConfig) -> list[tuple[int, int, int]]:
    """(start, rows, columns) in the group `matrices` of everything that is one matrix to Muon.

    Queries, keys and values share a tensor, as do a gated MLP's halves, and the experts: what was
    joined for speed alone has directions of its own.
    """
    pieces = []
    for name, place in flat.places.items():
        if place.group != "matrices":
            continue
        *stacked, height, columns = place.shape
        if name.endswith("attn.qkv.weight"):
            kept = shape.kv_heads * shape.head_width
            parts = [height - 2 * kept, kept, kept]
        elif shape.gated and ".mlp.fc" in name:
            parts = [height // 2] * 2
        else:
            parts = [height]
        start = place.start
        for rows in parts * math.prod(stacked):
            pieces.append((start, rows, columns))
            start += rows * columns
    return pieces
