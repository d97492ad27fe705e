"""A model whose distribution is a table: what follows depends on the last token alone."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from engine.config.sections import ModelConfig
from engine.model import KVCache


class TableModel(nn.Module):
    """Row i of `table_VV` holds the logits after token i. Dropout shows which mode it is in."""

    def __init__(self, table_VV: Tensor, context_length: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.vocab_size = len(table_VV)
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=1, context_length=context_length)
        self.wte = nn.Embedding(1, 1)  # whose type the cache takes
        self.dropout = nn.Dropout(dropout)
        self.lm_head = nn.Linear(self.vocab_size, self.vocab_size, bias=False)
        self.lm_head.weight = nn.Parameter(table_VV.T.contiguous())
        self.windows: list[list[int]] = []

    def features(self, tokens_BT: Tensor, cache: KVCache | None = None) -> Tensor:
        """`windows` has what was read at once; the cache only counts it."""
        self.windows.append(tokens_BT[0].tolist())
        if cache is not None:
            cache.begin(tokens_BT.shape[1])
            cache.end(tokens_BT.shape[1])
        return self.dropout(nn.functional.one_hot(tokens_BT, self.vocab_size).float())

    def logits(self, features: Tensor) -> Tensor:
        return self.lm_head(features)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.logits(self.features(tokens_BT))


def says(ids: list[int], vocab_size: int = 257, **settings) -> TableModel:
    """A model that continues `ids[0]` by the rest of `ids` almost surely (no id twice)."""
    table_VV = torch.zeros(vocab_size, vocab_size)
    for here, following in pairwise(ids):
        table_VV[here, following] = 20.0
    return TableModel(table_VV, **settings)
