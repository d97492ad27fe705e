"""The side of `transformers`: its GPT-2 and PyTorch's AdamW, in a plain training loop.

python -m benchmarks.peers.transformers_gpt2 --shape 384 [--precision bfloat16] [--compile]
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from benchmarks.gate import Gate, add_side_options
from benchmarks.peers.nanogpt import BETAS, CLIP, LEARNING_RATE, WEIGHT_DECAY, autocast
from engine import machine
from engine.bench.shapes import SHAPES
from engine.device import choose_device

TOKENS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add_side_options(parser)
    options = parser.parse_args()
    shape, device = SHAPES[options.shape], choose_device(options.device)
    torch.set_num_threads(machine.cores())
    torch.manual_seed(1337)
    gate = Gate(device, shape.tokens_per_step, options.precision, compiled=options.compile)

    import transformers

    config = transformers.GPT2Config(
        vocab_size=shape.vocab_size, n_positions=shape.context, n_embd=shape.n_embd,
        n_layer=shape.n_layer, n_head=shape.n_head, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    model = transformers.GPT2LMHeadModel(config).train().to(device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, weight_decay=WEIGHT_DECAY, fused=True
    )
    run = torch.compile(model) if options.compile else model
    data = np.random.default_rng(1).integers(shape.vocab_size, size=TOKENS, dtype=np.int64)
    places = np.arange(shape.context)
    while gate.passed():
        starts = np.random.randint(len(data) - shape.context, size=(shape.batch, 1))
        ids = torch.from_numpy(data[starts + places]).to(device)  # its loss shifts the targets
        with autocast(device, options.precision):
            loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
