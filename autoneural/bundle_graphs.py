"""What each graph of a bundle takes and gives: names and shapes, from the model's configuration.

vision    pixel_values [1,3,S,S]                         -> image_features [1,N,H]
prefill,  inputs_embeds [1,T,H]  cos, sin [1,1,T,d]      -> hidden_states [1,T,H]
verify,   mask [1,1,T,C+T]       past_conv [1,H,L-1]     -> conv_window [1,H,L-1+T]
decode    past key, value [1,kv,C,d]                     -> present key, value [1,kv,T,d]
head      hidden_states [1,1,H]                          -> logits [1,1,V]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.manifest import GraphSpec, LayerState, TensorSpec

Shapes = Mapping[str, tuple[int, ...]]


def check_graph(graph: GraphSpec, model: ModelConfig, state: Sequence[LayerState]) -> None:
    """UserError naming the first tensor that is missing, unknown or of another shape."""
    if graph.role in ("vision", "head"):
        inputs, outputs = _ends(graph, model)
    else:
        inputs, outputs = _decoder(graph, model, state)
    for what, wanted, given in (
        ("input", inputs, graph.inputs),
        ("output", outputs, graph.outputs),
    ):
        _compare(f"{graph.file}: {what}", wanted, given)


def state_names(layer: LayerState) -> list[tuple[str, str]]:
    """(graph input, graph output) of each part of one layer's state."""
    if layer.kind == "conv":
        return [(layer.past, layer.present)]
    return [(f"{layer.past}.{part}", f"{layer.present}.{part}") for part in ("key", "value")]


def _ends(graph: GraphSpec, model: ModelConfig) -> tuple[Shapes, Shapes]:
    width = model.text.hidden_size
    if graph.role == "head":
        return {"hidden_states": (1, 1, width)}, {"logits": (1, 1, model.text.vocab_size)}
    side = graph.image_size
    return {"pixel_values": (1, 3, side, side)}, {"image_features": (1, -1, width)}


def _decoder(
    graph: GraphSpec, model: ModelConfig, state: Sequence[LayerState]
) -> tuple[Shapes, Shapes]:
    text, new, context = model.text, graph.width, graph.context
    if not 0 < new <= context:
        raise UserError(f"{graph.file}: width {new} is not between 1 and the context, {context}")
    inputs: dict[str, tuple[int, ...]] = {
        "inputs_embeds": (1, new, text.hidden_size),
        "cos": (1, 1, new, text.head_dim),
        "sin": (1, 1, new, text.head_dim),
        "mask": (1, 1, new, context + new),
    }
    outputs: dict[str, tuple[int, ...]] = {"hidden_states": (1, new, text.hidden_size)}
    kept = text.conv_L_cache - 1
    for layer in state:
        for past, present in state_names(layer):
            if layer.kind == "conv":
                inputs[past] = (1, text.hidden_size, kept)
                outputs[present] = (1, text.hidden_size, kept + new)
            else:
                inputs[past] = (1, text.num_key_value_heads, context, text.head_dim)
                outputs[present] = (1, text.num_key_value_heads, new, text.head_dim)
    return inputs, outputs


def _compare(where: str, wanted: Shapes, given: Sequence[TensorSpec]) -> None:
    """-1 in a wanted shape is any size."""
    shapes = {tensor.name: tensor.shape for tensor in given}
    for name in sorted(wanted.keys() ^ shapes.keys()):
        raise UserError(f"{where} {name} is {'missing' if name in wanted else 'unknown'}")
    for name, shape in wanted.items():
        found = shapes[name]
        fits = len(found) == len(shape) and all(
            n in (-1, m) for n, m in zip(shape, found, strict=True)
        )
        if not fits:
            raise UserError(f"{where} {name} is {list(found)}, not {list(shape)}")
