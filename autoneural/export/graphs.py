"""The static graphs of a model: what is exported, under which names, with which shapes.

    role      inputs                                              outputs
    vision    pixel_values [1,3,S,S]                              image_features [1,N,H]
    prefill,  inputs_embeds [1,T,H]  cos, sin [1,1,T,d]           hidden_states [1,T,H]
    verify,   mask [1,1,T,C+T]  past_conv.i [1,H,L-1]             conv_window.i [1,H,L-1+T]
    decode    past_key_values.i.key, .value [1,kv,C,d]            present.i.key, .value [1,kv,T,d]
    head      hidden_states [1,1,H]                               logits [1,1,V]

T is the width (1 for decode), C the context. Batch is 1. There is one path for every key; the past
of `cpu` decoders is made to grow afterwards (`passes/any_past.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoneural.config import ViTConfig
from autoneural.errors import UserError
from autoneural.manifest import Role
from autoneural.model.language_model import causal_mask, rotary_tables
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

# Graph input -> the module whose encoding it carries. State inputs are not here: they have the
# encoding of the concatenation that they enter.
INPUT_MODULES: Mapping[str, str] = {
    "pixel_values": "vision_encoder.pixels",
    "inputs_embeds": "language_model.model.inputs_embeds",
    "cos": "language_model.model.cos",
    "sin": "language_model.model.sin",
    "mask": "language_model.model.mask",
    "hidden_states": "language_model.model.embedding_norm",
}


@dataclass(frozen=True, kw_only=True)
class GraphKey:
    """What makes two graphs different. `width` is new tokens a step, 0 where it means nothing."""

    role: Role
    part: int = 0
    width: int = 0
    context: int = 0
    image_size: int = 0

    @property
    def name(self) -> str:
        """File stem, unique among the graphs of a bundle: `vision`, `prefill`, `decode`, `head`."""
        return f"{self.role}-{self.part}" if self.part else self.role


@dataclass(frozen=True, kw_only=True)
class TorchGraph:
    """A traceable module of one key, with example inputs and the output names, in order."""

    key: GraphKey
    module: nn.Module
    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]


def graph_keys(
    vlm: VLM,
    context: int,
    prefill_width: int,
    verify_width: int,
    image_sizes: Sequence[int] = (),
) -> list[GraphKey]:
    """The graphs of a bundle: vision (of each size, or the model's own), prefill, verify, decode,
    head."""
    sizes = image_sizes or (vlm.config.vision.image_size,)
    return [
        *(GraphKey(role="vision", image_size=size) for size in sizes),
        GraphKey(role="prefill", width=prefill_width, context=context),
        GraphKey(role="verify", width=verify_width, context=context),
        GraphKey(role="decode", width=1, context=context),
        GraphKey(role="head", width=1),
    ]


def build_graph(vlm: VLM, key: GraphKey) -> TorchGraph:
    """The part of `vlm` that `key` names, sharing its parameters, in eval mode.

    Raises UserError for a vision encoder whose grid is not fixed.
    """
    builders = {"vision": _vision, "head": _head}
    graph = builders.get(key.role, _decoder)(vlm, key)
    graph.module.eval()
    return graph


class VisionGraph(nn.Module):
    """Pixels in [0, 1] -> visual tokens. Child names are the model's, so paths stay the same."""

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.vision_encoder = vlm.vision_encoder
        self.projector = vlm.projector

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.projector(self.vision_encoder(pixel_values))


class DecoderGraph(nn.Module):
    """One step of the decoder over T tokens; the state comes and goes as plain tensors."""

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.language_model = vlm.language_model

    def forward(
        self, inputs_embeds: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, *past: Tensor
    ) -> tuple[Tensor, ...]:
        state = DecoderState.from_tensors(self.language_model.config, past)
        hidden, new = self.language_model.decode(inputs_embeds, cos, sin, mask, state)
        return (hidden, *new.tensors())


class HeadGraph(nn.Module):
    """Hidden states after the closing norm -> logits."""

    def __init__(self, vlm: VLM) -> None:
        super().__init__()
        self.language_model = vlm.language_model

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.language_model.lm_head(hidden_states)


def _vision(vlm: VLM, key: GraphKey) -> TorchGraph:
    vision = vlm.config.vision
    if isinstance(vision, ViTConfig) and vision.num_patches:
        raise UserError(
            f"{key.name}: positions follow the picture, a graph has one grid; "
            "call fix_image_size of autoneural.model.vlm first"
        )
    return TorchGraph(
        key=key,
        module=VisionGraph(vlm),
        inputs={"pixel_values": torch.zeros(1, 3, key.image_size, key.image_size)},
        outputs=("image_features",),
    )


def _decoder(vlm: VLM, key: GraphKey) -> TorchGraph:
    config = vlm.config.text
    # Examples stand amid the context: at its start no past, and so no state, would be looked at.
    committed = key.context // 2
    cos, sin = rotary_tables(config, torch.arange(committed, committed + key.width))
    state = DecoderState.zeros(config, 1, key.context)
    inputs = {
        "inputs_embeds": torch.zeros(1, key.width, config.hidden_size),
        "cos": cos,
        "sin": sin,
        "mask": causal_mask(key.width, committed, key.context),
        **dict(zip(DecoderState.past_names(config), state.tensors(), strict=True)),
    }
    return TorchGraph(
        key=key,
        module=DecoderGraph(vlm),
        inputs=inputs,
        outputs=("hidden_states", *DecoderState.present_names(config)),
    )


def _head(vlm: VLM, key: GraphKey) -> TorchGraph:
    return TorchGraph(
        key=key,
        module=HeadGraph(vlm),
        inputs={"hidden_states": torch.zeros(1, 1, vlm.config.text.hidden_size)},
        outputs=("logits",),
    )
