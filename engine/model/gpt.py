"""A GPT: tokens in, a distribution over the next token out. Classic or modern, as configured.

Knows nothing of tokenizers, losses, devices or generation: those take it as they find it.

Legend of shape suffixes: B windows, T positions, C width of the residual stream, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.model.attend import causal_sight
from engine.model.attention import Reading
from engine.model.block import Block
from engine.model.cache import KVCache
from engine.model.experts import Routing
from engine.model.init import initialise
from engine.model.norm import build_norm
from engine.model.rope import rotation


class GPT(nn.Module):
    """One family of networks, of which GPT-2 (Radford et al. 2019) is the default point.

    With a public class's shape and weights its logits are that class's: GPT-2, Llama, Qwen2, Qwen3,
    Mistral, Mixtral, Qwen3-MoE and GPT-OSS, as `transformers` has them; tests hold them equal. A
    tied output matrix is one parameter, and `state_dict` names it once (`wte.weight`); loading
    accepts both spellings.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        self.recompute = False
        """Training keeps nothing of a block but its input, and runs it again in the backward pass:
        a third more arithmetic, and memory for one block instead of all (Chen et al. 2016)."""
        C = config.n_embd
        self.wte = nn.Embedding(vocab_size, C)
        # Attention by itself sees a set; a learned vector for each place makes it a sequence. It
        # knows `context_length` places and not one more.
        learned = config.position == "learned"
        self.wpe = nn.Embedding(config.context_length, C) if learned else None
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        # Pre-norm blocks never normalise their sum, so it is done once before it is read.
        self.ln_f = build_norm(config)
        self.lm_head = nn.Linear(C, vocab_size, bias=False)
        if config.tie_embeddings:
            # The vector that stands for a token on the way in also scores it on the way out: a
            # third of a small model's parameters saved, and a better one (Press & Wolf 2017).
            self.lm_head.weight = self.wte.weight
            self.register_state_dict_post_hook(_drop_tied_head)
            self.register_load_state_dict_pre_hook(_restore_tied_head)
        initialise(self, config.n_layer)

    def features(
        self, tokens_BT: Tensor, cache: KVCache | None = None, routing: Routing | None = None
    ) -> Tensor:
        """What the output matrix reads, after the final norm: (B, T, C).

        `tokens_BT`: integer ids below `vocab_size`; with a `cache` the next ones of a text that it
        holds the beginning of, and is extended by. `routing` takes down what the routers do.
        Raises InputError when T, or with a cache the whole text, is above the context.
        """
        readings = self._readings(tokens_BT, cache)
        x_BTC = self.wte(tokens_BT)
        if self.wpe is not None:
            T = tokens_BT.shape[1]
            x_BTC = x_BTC + (self.wpe.weight[:T] if cache is None else self.wpe(cache.positions(T)))
        x_BTC = self.dropout(x_BTC)
        for layer, block in enumerate(self.blocks):
            kept = None if cache is None else cache.layers[layer]
            reading = readings[self.config.window_of(layer)]
            if self.recompute and torch.is_grad_enabled():
                given = x_BTC, reading, kept, routing
                draws = self.config.dropout > 0  # nothing else does
                x_BTC = checkpoint(block, *given, use_reentrant=False, preserve_rng_state=draws)
            else:
                x_BTC = block(x_BTC, reading, kept, routing)
        if cache is not None:
            cache.end(tokens_BT.shape[1])
        return self.ln_f(x_BTC)

    def logits(self, features: Tensor, multiple: int = 1) -> Tensor:
        """Scores (…, V) from what `features` gave, (…, C).

        `multiple`: zeros are added to the output matrix until its rows are one of it, and their
        scores are thrown away: for tensor cores, which read 16 bytes at once, where a vocabulary
        of 50 257 ends in the midst of them. Worth its copy of the matrix for many tokens alone.
        """
        weight, missing = self.lm_head.weight, -self.vocab_size % multiple
        if missing:
            padded = functional.pad(weight, (0, 0, 0, missing))
            logits = functional.linear(features, padded)[..., : self.vocab_size]
        else:
            logits = self.lm_head(features)
        cap = self.config.logit_softcap
        # Nearly the identity below the cap, flat above: no single token's score can run away.
        return cap * (logits / cap).tanh() if cap else logits

    def forward(
        self, tokens_BT: Tensor, cache: KVCache | None = None, routing: Routing | None = None
    ) -> Tensor:
        """Logits (B, T, V): row t scores every candidate for position t + 1, from 0 … t alone."""
        return self.logits(self.features(tokens_BT, cache, routing))

    def _readings(self, tokens_BT: Tensor, cache: KVCache | None) -> dict[int, Reading]:
        """By window, how its layers read the tokens."""
        config, T, device = self.config, tokens_BT.shape[1], tokens_BT.device
        turns = config.position == "rope"
        if cache is None:
            self._check_length(T)
            turn = rotation(config, torch.arange(T, device=device)) if turns else None
            windows = {config.window_of(layer) for layer in range(min(2, config.n_layer))}
            return {
                window: Reading(causal_sight(T, window, config.sink_tokens, device), turn)
                for window in windows
            }
        if cache.stream is None and not config.windowed:
            self._check_length(cache.n + T)
        readings = {}
        for window, view in cache.begin(T).items():
            turn = rotation(config, view.query_places) if turns else None
            places = view.key_places
            turn_kept = rotation(config, places) if turns and places is not None else None
            readings[window] = Reading(view.sight, turn, turn_kept)
        return readings

    def _check_length(self, T: int) -> None:
        context = self.config.context_length
        if context < T:
            raise InputError(
                f"{T} tokens are longer than the model's context_length of {context}",
                "shorten the input, or train with a larger model.context_length",
            )


def _drop_tied_head(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    state.pop(f"{prefix}lm_head.weight", None)


def _restore_tied_head(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    if f"{prefix}wte.weight" in state:
        state.setdefault(f"{prefix}lm_head.weight", state[f"{prefix}wte.weight"])
