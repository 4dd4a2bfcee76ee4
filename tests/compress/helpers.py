"""How far two sets of outputs are apart."""

import torch

SAME = 1e-5  # what the rounding of fp32 leaves of an exact rewrite


def distance(before: list[torch.Tensor], after: list[torch.Tensor]) -> float:
    """The largest relative error of any of the tensors."""
    return max(float((b - a).norm() / b.norm()) for b, a in zip(before, after, strict=True))
