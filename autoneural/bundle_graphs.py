"""What each graph of a bundle takes and gives: names and shapes, from the model's configuration.

vision    pixel_values [1,3,S,S]                         -> image_features [1,N,H]
prefill,  inputs_embeds [1,T,H]  cos, sin [1,1,T,d]      -> hidden_states [1,T,H]
verify,   mask [1,1,T,C+T]       past_conv [1,H,L-1]     -> conv_window [1,H,L-1+T]
decode    past key, value [1,kv,C,d]                     -> present key, value [1,kv,T,d]
head      hidden_states [1,1,H]                          -> logits [1,1,V]

Shapes are those of the longest past: where a graph has a `past_block`, C is a size that grows.

A graph may come in parts. Part k returns `hidden.<layer>` [1,T,H], the residual stream after that
layer, and part k+1 takes it; every other tensor of the whole is an input of the parts that read it
or the output of one part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from autoneural.config import ModelConfig
from autoneural.errors import UserError
from autoneural.manifest import DECODERS, GraphSpec, LayerState, TensorSpec

HIDDEN = "hidden."

Shapes = Mapping[str, tuple[int, ...]]


def check_graphs(
    graphs: Iterable[GraphSpec], model: ModelConfig, state: Sequence[LayerState]
) -> None:
    """UserError naming the first graph, whole or in parts, that does not fit the model."""
    keyed: defaultdict[tuple[str, int, int, int], list[GraphSpec]] = defaultdict(list)
    blocks: dict[int, str] = {}
    for graph in graphs:
        if graph.role in DECODERS:
            blocks.setdefault(graph.past_block, graph.file)
        keyed[graph.role, graph.width, graph.context, graph.image_size].append(graph)
    if len(blocks) > 1:
        found = ", ".join(f"{block} in {file}" for block, file in blocks.items())
        raise UserError(f"past_block: {found}; the decoders of a target share their past")
    for parts in keyed.values():
        check_graph(_joined(sorted(parts, key=lambda graph: graph.part)), model, state)


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


def growing_axes(state: Iterable[LayerState]) -> Mapping[str, int]:
    """Inputs of a decoder with a `past_block` that grow with the past, and along which axis."""
    layers = [layer for layer in state if layer.kind == "attention"]
    return {"mask": 3, **{past: 2 for layer in layers for past, _ in state_names(layer)}}


def open_axes(graph: GraphSpec, state: Sequence[LayerState]) -> Mapping[str, tuple[int, ...]]:
    """Tensors of a decoder and the axes along which they may be shorter than the manifest says."""
    presents = {present: 2 for layer in state for _, present in state_names(layer)}
    rows = {"inputs_embeds": 1, "cos": 2, "sin": 2, "mask": 2, "hidden_states": 1, **presents}
    kinds = ((rows, graph.any_width), (growing_axes(state), graph.past_block > 0))
    found: defaultdict[str, tuple[int, ...]] = defaultdict(tuple)
    for axes, are_open in kinds:
        for name, axis in axes.items() if are_open else ():
            found[name] += (axis,)
    return found


def _joined(parts: Sequence[GraphSpec]) -> GraphSpec:
    """The whole graph that `parts`, in their order, make up."""
    numbers = [graph.part for graph in parts]
    if numbers != list(range(len(parts))):
        raise UserError(f"{parts[0].file}: its parts are {numbers}, not 0 to {len(parts) - 1}")
    inputs: dict[str, TensorSpec] = {}
    outputs: dict[str, TensorSpec] = {}
    link: list[TensorSpec] = []
    for graph in parts:
        streams, others = _split(graph.inputs)
        if streams != link:
            raise UserError(f"{graph.file}: takes {_named(streams)}, is given {_named(link)}")
        for tensor in others:
            if inputs.setdefault(tensor.name, tensor) != tensor:
                raise UserError(f"{graph.file}: {tensor.name} is not what the earlier parts take")
        link, others = _split(graph.outputs)
        for tensor in others:
            if outputs.setdefault(tensor.name, tensor) is not tensor:
                raise UserError(f"{graph.file}: {tensor.name} is an output of an earlier part too")
    if link:
        raise UserError(f"{parts[-1].file}: returns {_named(link)}, but no part follows")
    return replace(parts[0], inputs=tuple(inputs.values()), outputs=tuple(outputs.values()))


def _split(tensors: Iterable[TensorSpec]) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """(residual streams between parts, the rest)."""
    streams: list[TensorSpec] = []
    others: list[TensorSpec] = []
    for tensor in tensors:
        (streams if tensor.name.startswith(HIDDEN) else others).append(tensor)
    return streams, others


def _named(tensors: Iterable[TensorSpec]) -> str:
    texts = (f"{t.name} {t.dtype} {list(t.shape)} x {t.scale}" for t in tensors)
    return ", ".join(texts) or "no residual stream"


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
    if graph.past_block > context:
        raise UserError(
            f"{graph.file}: past_block {graph.past_block} exceeds the context, {context}"
        )
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
                heads = text.kv_heads(layer.layer)
                inputs[past] = (1, heads, context, text.head_dim)
                outputs[present] = (1, heads, new, text.head_dim)
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
