"""Layers that are a product of two smaller ones: `<path>.down` to the rank, `<path>.up` from it.

    y = up(down(x)),   up.weight @ down.weight  ~  the weight of the one layer, [out, in]

`down` is a module with a range of its own, as every step is; `up` has the bias. A config names such
layers in `ranks`, so a factorised model is a plain checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from autoneural.errors import UserError

Layer = nn.Linear | nn.Conv2d
_TIED = "language_model.lm_head"


class Factorised(nn.Module):
    """Stands for `layer`, a linear or a 1x1 convolution, with `rank` channels in the middle."""

    def __init__(self, layer: Layer, rank: int) -> None:
        super().__init__()
        outputs, inputs = layer.weight.shape[:2]
        bias = layer.bias is not None
        like = {"device": layer.weight.device, "dtype": layer.weight.dtype}
        self.down: Layer
        self.up: Layer
        if isinstance(layer, nn.Linear):
            self.down = nn.Linear(inputs, rank, bias=False, **like)
            self.up = nn.Linear(rank, outputs, bias=bias, **like)
        else:
            self.down = nn.Conv2d(inputs, rank, 1, layer.stride, bias=False, **like)  # pyright: ignore[reportArgumentType]
            self.up = nn.Conv2d(rank, outputs, 1, bias=bias, **like)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))

    @property
    def rank(self) -> int:
        return self.down.weight.shape[0]


def is_factorisable(path: str, module: nn.Module) -> bool:
    """Whether the layer may be a product of two; the head may not, its matrix is the embedding."""
    if isinstance(module, nn.Conv2d):
        return set(module.kernel_size) == {1} and module.groups == 1
    return isinstance(module, nn.Linear) and path != _TIED


def factorise_layers(model: nn.Module, ranks: Mapping[str, int]) -> None:
    """Put a new `Factorised` in the place of each named layer, in place.

    Raises UserError naming the layer that the model does not have, or that has not so many ranks.
    """
    modules = dict(model.named_modules())
    for path, rank in ranks.items():
        layer = modules.get(path)
        if layer is None or not is_factorisable(path, layer):
            raise UserError(f"ranks: {path}: no linear layer or 1x1 convolution of its own here")
        assert isinstance(layer, Layer)
        most = min(layer.weight.shape[:2])
        if rank > most:
            raise UserError(f"ranks: {path}: {rank} is too high, its matrix has {most}")
        model.set_submodule(path, Factorised(layer, rank))
