"""A mixture of experts: many MLPs, of which each token goes through the few that a router picks.

More parameters at the same arithmetic per token (Shazeer et al. 2017; Switch, Fedus et al. 2021;
Mixtral, Jiang et al. 2024). Knows nothing of losses: what the router did is told to a `Routing`,
from which `engine.objectives` makes the one that keeps the experts evenly busy.

Legend of shape suffixes: N tokens, C width of the residual stream, E experts, K experts of a token,
F hidden width, M = N·K pairs of token and expert.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config.sections import ModelConfig
from engine.model.mlp import bend


class Routing:
    """What the routers of all layers did in one pass, one entry a layer."""

    def __init__(self) -> None:
        self.logits: list[Tensor] = []
        """(N, E) before the softmax, with their gradient."""
        self.chosen: list[Tensor] = []
        """(N, K) numbers of the experts."""

    def balance_loss(self) -> Tensor:
        """E · Σ f·p over the experts, the mean over the layers: K when all are equally busy.

        f is the share of tokens that went to an expert, p its mean probability (Switch, equations
        4 to 6, with K choices as `transformers` counts them). f has no gradient; p has, and pushes
        down the most where f is largest. Each layer counts by itself: an expert idle in one layer
        is not made up for by its namesake in another.
        """
        losses = []
        for logits_NE, chosen_NK in zip(self.logits, self.chosen, strict=True):
            E = logits_NE.shape[-1]
            load_E = _load(chosen_NK, E)
            losses.append(E * (load_E * logits_NE.float().softmax(-1).mean(0)).sum())
        return torch.stack(losses).mean()

    @torch.no_grad()
    def statistics(self) -> Tensor:
        """(4,) for the screen: the balance loss; the busiest and the idlest expert's load over the
        even share, each of the layer where it is worst; the routers' mean entropy in nats."""
        most, least, entropies = [], [], []
        for logits_NE, chosen_NK in zip(self.logits, self.chosen, strict=True):
            E, K = logits_NE.shape[-1], chosen_NK.shape[-1]
            relative_E = _load(chosen_NK, E) * E / K
            most.append(relative_E.max())
            least.append(relative_E.min())
            log_p_NE = logits_NE.float().log_softmax(-1)
            entropies.append(-(log_p_NE.exp() * log_p_NE).sum(-1).mean())
        return torch.stack(
            (
                self.balance_loss(),
                torch.stack(most).max(),
                torch.stack(least).min(),
                torch.stack(entropies).mean(),
            )
        )


def _load(chosen_NK: Tensor, E: int) -> Tensor:
    """(E,) experts a token that went to each; they add up to K."""
    counts_E = torch.zeros(E, device=chosen_NK.device)
    ones = torch.ones((), device=chosen_NK.device).expand(chosen_NK.numel())
    return counts_E.scatter_add(0, chosen_NK.flatten(), ones) / chosen_NK.shape[0]


class Experts(nn.Module):
    """In the place of an MLP: a router and E of them, their matrices stacked."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        C, F, E = config.n_embd, config.hidden_width, config.n_expert
        wide = 2 * F if config.gated else F
        self.kind, self.n_active = config.mlp, config.n_expert_active
        self.renormalise = config.renormalise
        self.router = nn.Linear(C, E, bias=config.bias)
        self.fc_weight = nn.Parameter(torch.empty(E, wide, C))
        self.proj_weight = nn.Parameter(torch.empty(E, C, F))
        self.fc_bias = nn.Parameter(torch.zeros(E, wide)) if config.bias else None
        self.proj_bias = nn.Parameter(torch.zeros(E, C)) if config.bias else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BTC: Tensor, routing: Routing | None = None) -> Tensor:
        x_NC = x_BTC.flatten(0, -2)
        logits_NE = self.router(x_NC)
        weights_NK, chosen_NK = self.choose(logits_NE)
        if routing is not None:
            routing.logits.append(logits_NE)
            routing.chosen.append(chosen_NK)
        # Tokens sorted by expert: each expert then multiplies one dense block, and an expert's
        # weights are read once however many tokens chose it.
        order_M = chosen_NK.flatten().argsort(stable=True)
        expert_M = chosen_NK.flatten()[order_M]
        x_MC = x_NC[order_M // self.n_active]
        # Not bincount, which waits for the device to find the largest number.
        counts_E = torch.zeros_like(logits_NE[0], dtype=torch.long)
        counts_E = counts_E.scatter_add(0, expert_M, torch.ones_like(expert_M))
        y_MC = self._through(x_MC, expert_M, counts_E)
        # Back to (token, choice) before the sum: every sum has a fixed order, unlike a scatter-add.
        back_NKC = torch.empty_like(y_MC).index_copy(0, order_M, y_MC).view(*chosen_NK.shape, -1)
        y_NC = (back_NKC * weights_NK[..., None].to(back_NKC.dtype)).sum(1)
        return self.dropout(y_NC).view(*x_BTC.shape[:-1], -1)

    def choose(self, logits_NE: Tensor) -> tuple[Tensor, Tensor]:
        """Weight and number of each token's experts, both (N, K), the likeliest first."""
        # In float32: two close experts must not be swapped by rounding.
        weights_NK, chosen_NK = logits_NE.float().softmax(-1).topk(self.n_active, dim=-1)
        if self.renormalise:
            # Else the output shrinks with what the others were given, and learns to be sure.
            weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
        return weights_NK, chosen_NK

    def _through(self, x_MC: Tensor, expert_M: Tensor, counts_E: Tensor) -> Tensor:
        """Every row through its expert; rows are sorted by expert."""
        if groups_products(x_MC):
            dtype = torch.bfloat16  # all that the kernel takes
            ends_E = counts_E.cumsum(0).to(torch.int32)

            def product(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
                h = _grouped_mm()(h.to(dtype), weight.to(dtype).transpose(1, 2), offs=ends_E)
                return h if bias is None else h + bias[expert_M].to(dtype)

            h_MF = bend(product(x_MC, self.fc_weight, self.fc_bias), self.kind)
            return product(h_MF, self.proj_weight, self.proj_bias)
        pieces = []
        for expert, rows in enumerate(x_MC.split(counts_E.tolist())):  # on CUDA this waits
            if not len(rows):
                continue
            x = _rounded(rows)
            bias = None if self.fc_bias is None else self.fc_bias[expert]
            h = bend(functional.linear(x, self.fc_weight[expert], bias), self.kind)
            bias = None if self.proj_bias is None else self.proj_bias[expert]
            pieces.append(functional.linear(h, self.proj_weight[expert], bias)[: len(rows)])
        return torch.cat(pieces)


SIZES = 8
"""Numbers of rows between one power of two and the next."""


def _rounded(rows: Tensor) -> Tensor:
    """`rows`, on a CPU with zeros below them up to one of few sizes, an eighth more at most.

    oneDNN compiles a kernel for every size it meets and keeps a thousand of them: with experts of
    another number of tokens in each step, that is a gigabyte, and a wait for most of them.
    """
    step = (1 << (len(rows).bit_length() - 1)) // SIZES
    missing = -len(rows) % step if step else 0
    if rows.device.type != "cpu" or not missing:
        return rows
    return functional.pad(rows, (0, 0, 0, missing))


def groups_products(x: Tensor) -> bool:
    """Whether all experts' products can be one kernel, with no wait for their sizes."""
    if x.device.type != "cuda" or torch.cuda.get_device_capability(x.device) < (9, 0):
        return False
    return torch.is_autocast_enabled("cuda") or x.dtype == torch.bfloat16


def _grouped_mm() -> Callable[..., Tensor]:
    return getattr(functional, "grouped_mm", None) or torch._grouped_mm
