"""Low-rank adapters (LoRA, arXiv 2106.09685) through `peft`: y = W x + (alpha / r) B A x.

W stays frozen, A and B train; merged, the model is a plain checkpoint again. peft wraps a layer in
place: `<path>.weight` becomes `<path>.base_layer.weight`, beside `<path>.lora_A.default.weight` and
`<path>.lora_B.default.weight`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import ADAPTER

_BASE = ".base_layer."
_NAME = "default"


def adaptable(model: VLM) -> list[str]:
    """The linears of the language model's layers: by name, without the head."""
    return [
        name
        for name, module in model.named_modules()
        if name.startswith("language_model.model.layers.") and isinstance(module, nn.Linear)
    ]


def add_adapters(model: VLM, rank: int) -> None:
    """Put adapters of `rank`, scaled by 2, beside the language model's linears, in place.

    They add nothing yet: B is zero. Raises UserError where peft is installed and does not load.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ModuleNotFoundError as error:
        if error.name == "peft":
            raise
        # peft imports transformers, and that a torchvision which may not fit this torch.
        raise UserError(f"lora: peft does not load: {error}; see `python -m pip check`") from error
    root = nn.ModuleDict({"model": model})  # peft would read the configuration of a bare VLM
    names = [f"model.{name}" for name in adaptable(model)]
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)
    inject_adapter_in_model(config, root, adapter_name=_NAME)


@torch.no_grad()
def merged(model: VLM) -> dict[str, Tensor]:
    """The weights of `model`, adapters added in, under the names of a model without them."""
    from peft.tuners.lora import Linear

    weights = {
        name.replace(_BASE, "."): tensor
        for name, tensor in model.state_dict().items()
        if ADAPTER not in name
    }
    for name, module in model.named_modules():
        if isinstance(module, Linear):
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + module.get_delta_weight(_NAME)
    return weights
