"""The classic GPT: tokens and learned positions in, a distribution over the next token out.

Knows nothing of tokenizers, losses, devices or generation: those take it as they find it.

Legend of shape suffixes: B windows, T positions, C width of the residual stream, V vocabulary.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.errors import InputError
from engine.model.block import NORM_EPS, Block
from engine.model.init import initialise


class GPT(nn.Module):
    """GPT-2's network (Radford et al. 2019) in any size.

    With GPT-2's shape and weights its logits are those of `transformers`' GPT2LMHeadModel; a test
    holds them equal. A tied output matrix is one parameter, and `state_dict` names it once
    (`wte.weight`); loading accepts both spellings.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        C = config.n_embd
        self.wte = nn.Embedding(vocab_size, C)
        # Attention by itself sees a set; a learned vector for each place makes it a sequence. It
        # knows `context_length` places and not one more.
        self.wpe = nn.Embedding(config.context_length, C)
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        # Pre-norm blocks never normalise their sum, so it is done once before it is read.
        self.ln_f = nn.LayerNorm(C, eps=NORM_EPS, bias=config.bias)
        self.lm_head = nn.Linear(C, vocab_size, bias=False)
        if config.tie_embeddings:
            # The vector that stands for a token on the way in also scores it on the way out: a
            # third of a small model's parameters saved, and a better one (Press & Wolf 2017).
            self.lm_head.weight = self.wte.weight
            self.register_state_dict_post_hook(_drop_tied_head)
            self.register_load_state_dict_pre_hook(_restore_tied_head)
        initialise(self, config.n_layer)

    def features(self, tokens_BT: Tensor) -> Tensor:
        """What the output matrix reads, after the final norm: (B, T, C).

        `tokens_BT`: integer ids below `vocab_size`. Raises InputError when T is above the context.
        """
        T, context = tokens_BT.shape[1], self.config.context_length
        if context < T:
            raise InputError(
                f"{T} tokens are longer than the model's context_length of {context}",
                "shorten the input, or train with a larger model.context_length",
            )
        x_BTC = self.dropout(self.wte(tokens_BT) + self.wpe.weight[:T])
        for block in self.blocks:
            x_BTC = block(x_BTC)
        return self.ln_f(x_BTC)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Logits (B, T, V): row t scores every candidate for position t + 1, from 0 … t alone."""
        return self.lm_head(self.features(tokens_BT))


def _drop_tied_head(_: nn.Module, state: dict[str, Any], prefix: str, __: Any) -> None:
    state.pop(f"{prefix}lm_head.weight", None)


def _restore_tied_head(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    if f"{prefix}wte.weight" in state:
        state.setdefault(f"{prefix}lm_head.weight", state[f"{prefix}wte.weight"])
