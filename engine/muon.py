"""Muon: momentum whose matrices are made orthogonal before they are added to the weights.

A gradient of a matrix is dominated by a few directions; AdamW scales each number by itself and
keeps it so. Muon keeps the directions and gives all of them the same length, by five steps of a
Newton–Schulz iteration, so that rare directions are learned as fast as the loud ones. Only for
matrices that multiply activations; embeddings, output and vectors stay with AdamW (Jordan et al.
2024, https://kellerjordan.github.io/posts/muon/; Liu et al. 2025, arXiv 2502.16982).

Legend of shape suffixes: N matrices of one shape, R rows, C columns.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.arithmetic import GRAM_FROM

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic: the steepest at zero that stays bounded. Singular values end between 0.7 and 1.2,
which serves as well as 1."""
STEPS = 5
EPSILON = 1e-7
MATCHING = 0.2
"""AdamW's updates have about this root mean square; Muon's get it too, so that one learning rate
and one weight decay fit both (Liu et al. 2025, section 2.2)."""


def orthogonalise(x_NRC: Tensor) -> Tensor:
    """(N, R, C), R ≤ C: the singular vectors of `x_NRC` with singular values near 1, in its dtype.

    16 bits suffice: what the iteration lacks in precision is less than what it leaves undone.
    """
    a, b, c = COEFFICIENTS
    # A matrix's Frobenius norm is at least its largest singular value, which must not exceed 1.
    norm_N11 = torch.linalg.vector_norm(x_NRC, dim=(1, 2), keepdim=True, dtype=torch.float32)
    x_NRC = x_NRC / norm_N11.clamp(min=EPSILON).to(x_NRC.dtype)
    R, C = x_NRC.shape[1:]
    if x_NRC.dtype == torch.float32 and x_NRC.device.type == "cpu" and C >= GRAM_FROM * R:
        return _by_gram(x_NRC)
    for _ in range(STEPS):
        gram_NRR = x_NRC @ x_NRC.mT
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        x_NRC = torch.baddbmm(x_NRC, poly_NRR, x_NRC, beta=a)
    return x_NRC


def _by_gram(x_NRC: Tensor) -> Tensor:
    """The same iteration, of a norm of at most 1, where x is long.

    Each step multiplies x from the left with a polynomial of x·xᵀ. All of these commute: so they
    are multiplied with one another, R by R, and x with all of them once. In float32: 16 bits would
    lose the small singular values in the squares.
    """
    a, b, c = COEFFICIENTS
    gram_NRR = x_NRC @ x_NRC.mT
    all_NRR: Tensor | None = None
    for step in range(STEPS):
        poly_NRR = torch.baddbmm(gram_NRR, gram_NRR, gram_NRR, beta=b, alpha=c)
        poly_NRR.diagonal(dim1=1, dim2=2).add_(a)
        all_NRR = poly_NRR if all_NRR is None else poly_NRR @ all_NRR
        if step < STEPS - 1:
            gram_NRR = poly_NRR @ gram_NRR @ poly_NRR
    assert all_NRR is not None
    return all_NRR @ x_NRC


def update_matrices(
    values: Sequence[Tensor],
    directions: Sequence[Tensor],
    lr: float | Tensor,
    dtype: torch.dtype,
) -> None:
    """Add to each of `values` its direction made orthogonal, times -lr·0.2·√max(R, C).

    Both are matrices (R, C) of whatever shapes. `dtype`: of the iteration.
    """
    # Those of one shape are worked on together; a tall one lies down, since the Gram matrix of the
    # shorter side is the smaller, and since more lie alike then.
    values, directions = (
        [x.mT if len(x) > x.shape[1] else x for x in xs] for xs in (values, directions)
    )
    shapes: dict[torch.Size, list[int]] = {}
    for index, value in enumerate(values):
        shapes.setdefault(value.shape, []).append(index)
    for (_, columns), indices in shapes.items():
        x_NRC = torch.stack([directions[index] for index in indices]).to(dtype)
        scale = -MATCHING * math.sqrt(columns) * lr
        steps = orthogonalise(x_NRC) * scale
        for index, step in zip(indices, steps, strict=True):
            values[index].add_(step)
