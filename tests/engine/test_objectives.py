"""What a step minimises: the same however its products are cut or padded."""

from __future__ import annotations

import pytest
import torch

from engine.config.sections import ModelConfig
from engine.model import GPT
from engine.objectives import Pretrain

VOCAB = 50


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("cap", [0.0, 3.0])
def test_an_output_matrix_padded_to_a_multiple_gives_the_same_loss_and_gradients(
    cap: float, tied: bool
) -> None:
    config = ModelConfig(
        n_layer=1,
        n_head=2,
        n_embd=16,
        context_length=8,
        logit_softcap=cap,
        tie_embeddings=tied,
    )
    torch.manual_seed(1)
    model = GPT(config, VOCAB)
    batch = torch.randint(VOCAB, (3, 9))
    found = {}
    for multiple in (1, 64, 25):  # as it is, padded, and a multiple that it is already
        model.zero_grad()
        loss = Pretrain(config, multiple=multiple).loss(model, batch)
        loss.minimised.backward()
        found[multiple] = (loss.nats.detach(), model.lm_head.weight.grad.clone())
    for multiple in (64, 25):
        torch.testing.assert_close(found[multiple], found[1])
    assert model(batch[:, :-1]).shape == (3, 8, VOCAB)
