"""Non-negative matrix factorisation, and of any weight as a difference of two such.

    V >= 0        V ~ W H,   W, H >= 0, by multiplicative updates (Lee & Seung 2001)
    W = P - N     P, N >= 0 the positive and the negative part, each with half the rank:
                  W ~ [Wp, -Wn] [Hp; Hn], two layers of the same shape as an SVD's

At equal rank the error can only be larger than that of the SVD, which has the least there is.
`low_rank.factorise(method="nmf")` measures by how much, layer by layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

ITERATIONS = 200
_TINY = 1e-12


@torch.no_grad()
def nmf(
    v_MN: Tensor, rank: int, *, iterations: int = ITERATIONS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Non-negative W [M,R] and H [R,N] with W H near `v_MN`, which must not be negative.

    Every update lowers |V - W H|^2 or leaves it. Raises ValueError where V has a negative value.
    """
    if bool((v_MN < 0).any()):
        raise ValueError("nmf: the matrix has negative values")
    generator = torch.Generator().manual_seed(seed)
    size = (float(v_MN.mean()) / rank) ** 0.5

    def start(rows: int, columns: int) -> Tensor:
        noise = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
        return (size * (0.5 + noise)).to(v_MN)

    w_MR, h_RN = start(v_MN.shape[0], rank), start(rank, v_MN.shape[1])
    for _ in range(iterations):
        h_RN *= (w_MR.T @ v_MN) / (w_MR.T @ w_MR @ h_RN).clamp_min(_TINY)
        w_MR *= (v_MN @ h_RN.T) / (w_MR @ (h_RN @ h_RN.T)).clamp_min(_TINY)
    return w_MR, h_RN


def nmf_pair(
    weight_OI: Tensor, rank: int, *, iterations: int = ITERATIONS, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """up [O,R] and down [R,I] with up @ down near `weight_OI`, of any sign.

    A weight of one sign gets the whole rank for it.
    """
    signs = [sign for sign in (1.0, -1.0) if bool((sign * weight_OI > 0).any())]
    ups, downs = [], []
    for index, sign in enumerate(signs):
        share = (rank + index) // len(signs)
        if share:
            part_OI = (sign * weight_OI).clamp_min(0)
            w_OR, h_RI = nmf(part_OI, share, iterations=iterations, seed=seed)
            ups.append(sign * w_OR)
            downs.append(h_RI)
    if not ups:
        return weight_OI.new_zeros(len(weight_OI), rank), weight_OI.new_zeros(
            rank, weight_OI.shape[1]
        )
    return torch.cat(ups, 1), torch.cat(downs, 0)
