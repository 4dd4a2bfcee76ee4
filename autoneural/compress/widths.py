"""The widths of a model that are nobody else's business: hidden units and where their numbers are.

    part         units                                rows of                    columns of
    mlp          hidden units of a decoder MLP        w1, w3                     w2
    attention    key/value groups of the decoder      q, k, v                    out_proj
    vision       hidden channels of a vision block    expansion, norms, dw       projection
    heads        query heads of a vision block        query                      output
    projector    hidden units of the connector        linear_1                   linear_2

A unit is an equal run of channels, the same in every row of the table. What a residual stream or
another block reads is not here: those widths stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from autoneural.config import MobileNetV5Config, ModelConfig, VisionConfig
from autoneural.errors import UserError
from autoneural.model.low_rank import Factorised
from autoneural.model.vision_encoder import (
    AttentionBlock,
    EdgeResidualBlock,
    InvertedResidualBlock,
    MobileNetV5,
)
from autoneural.model.vit import EncoderLayer
from autoneural.model.vlm import VLM

WIDTH_PARTS = ("mlp", "attention", "vision", "heads", "projector")
LAYERS = "language_model.model.layers"
BLOCKS = "vision_encoder.blocks"
_VIT_LAYERS = "vision_encoder.encoder.layers"


@dataclass(frozen=True, kw_only=True)
class Width:
    """`rows`: modules whose output channels are the units; `norms`: those of them that are norms.

    `consumer`: the module whose input channels they are. Paths of modules with parameters.
    """

    path: str
    part: str
    units: int
    rows: tuple[str, ...]
    consumer: str
    norms: tuple[str, ...] = ()

    def parameters(self, model: nn.Module) -> int:
        """How many numbers belong to the units."""
        parameters = [p for path in self.rows for p in model.get_submodule(path).parameters()]
        columns = model.get_submodule(self.consumer).get_parameter("weight")
        return sum(p.numel() for p in (*parameters, columns))


def find_widths(model: VLM, parts: Iterable[str]) -> list[Width]:
    """The widths of those parts. Raises UserError when the model has none of one of them."""
    parts = list(parts)
    widths = [width for width in _all_widths(model) if width.part in parts]
    for part in parts:
        if not any(width.part == part for width in widths):
            raise UserError(f"parts: {part}: {model.config.name} has none")
    return widths


def _all_widths(model: VLM) -> Iterator[Width]:
    kinds = model.config.text.layer_types
    for index in range(len(kinds)):
        path = f"{LAYERS}.{index}"
        if kinds[index] == "full_attention":
            names, units = ("q_proj", "k_proj", "v_proj"), model.config.text.kv_heads(index)
            yield _width(model, f"{path}.self_attn", "attention", names, "out_proj", units)
        yield _width(model, f"{path}.feed_forward", "mlp", ("w1", "w3"), "w2")
    yield _width(model, "projector", "projector", ("linear_1",), "linear_2")
    for path, module in model.vision_encoder.named_modules(prefix="vision_encoder"):
        if isinstance(module, EdgeResidualBlock):
            yield _width(model, path, "vision", ("conv_exp", "bn1"), "conv_pwl")
        elif isinstance(module, InvertedResidualBlock):
            middle = () if isinstance(module.dw_mid, nn.Identity) else ("dw_mid.conv", "dw_mid.bn")
            names = ("pw_exp.conv", "pw_exp.bn", *middle)
            yield _width(model, path, "vision", names, "pw_proj.conv")
        elif isinstance(module, AttentionBlock):
            names, units = ("attn.query.proj",), module.attn.num_heads
            yield _width(model, path, "heads", names, "attn.output.proj", units)
        elif isinstance(module, EncoderLayer):
            yield _width(model, path, "vision", ("mlp.fc1",), "mlp.fc2")


def _width(
    model: nn.Module, path: str, part: str, names: Sequence[str], consumer: str, units: int = 0
) -> Width:
    """Without `units` every output channel of the first module is one."""
    rows = tuple(_half(model, f"{path}.{name}", "up") for name in names)
    channels = model.get_submodule(rows[0]).get_parameter("weight").shape[0]
    return Width(
        path=path,
        part=part,
        units=units or channels,
        rows=rows,
        consumer=_half(model, f"{path}.{consumer}", "down"),
        norms=tuple(row for row in rows if row.endswith(("bn", "bn1"))),
    )


def _half(model: nn.Module, path: str, half: str) -> str:
    """Of a factorised layer the half that has the channels, else the layer."""
    return f"{path}.{half}" if isinstance(model.get_submodule(path), Factorised) else path


def cut_width(
    state: dict[str, Tensor], width: Width, kept: Tensor, norm_gains: Mapping[str, float]
) -> None:
    """Leave only the units `kept` (indices, ascending) in `state`, in place.

    A norm divides by the mean over all its channels: its gain makes up for those that are gone.
    """
    for path in width.rows:
        for name in (f"{path}.weight", f"{path}.bias"):
            if name in state:
                state[name] = state[name].unflatten(0, (width.units, -1))[kept].flatten(0, 1)
        state[f"{path}.weight"] = state[f"{path}.weight"] * norm_gains.get(path, 1.0)
    name = f"{width.consumer}.weight"
    state[name] = state[name].unflatten(1, (width.units, -1))[:, kept].flatten(1, 2)


def with_widths(config: ModelConfig, units: Mapping[str, int]) -> ModelConfig:
    """The config in which each width, named by its path, has so many units."""
    text = config.text
    layers = range(text.num_hidden_layers)
    mlp = [units.get(f"{LAYERS}.{i}.feed_forward", text.mlp_width(i)) for i in layers]
    heads = [
        0 if kind == "conv" else units.get(f"{LAYERS}.{i}.self_attn", text.kv_heads(i))
        for i, kind in enumerate(text.layer_types)
    ]
    if any(f"{LAYERS}.{i}.feed_forward" in units for i in layers):
        text = replace(text, intermediate_sizes=tuple(mlp))
    if any(f"{LAYERS}.{i}.self_attn" in units for i in layers):
        text = replace(text, key_value_heads=tuple(heads))
    hidden = units.get("projector", config.projector.hidden_size)
    projector = replace(config.projector, hidden_size=hidden)
    return replace(config, text=text, projector=projector, vision=_vision(config, units))


def _vision(config: ModelConfig, units: Mapping[str, int]) -> VisionConfig:
    vision = config.vision
    if not isinstance(vision, MobileNetV5Config):
        layers = range(vision.num_hidden_layers)
        sizes = tuple(units.get(f"{_VIT_LAYERS}.{i}", vision.mlp_width(i)) for i in layers)
        changed = any(f"{_VIT_LAYERS}.{i}" in units for i in layers)
        return replace(vision, intermediate_sizes=sizes) if changed else vision
    stages = [list(stage) for stage in vision.stages]
    for s, stage in enumerate(stages):
        for b, block in enumerate(stage):
            count = units.get(f"{BLOCKS}.{s}.{b}")
            if count is not None:
                field = "num_heads" if block.type == "mqa" else "hidden"
                stage[b] = replace(block, **{field: count})  # pyright: ignore[reportArgumentType]
    hidden = units.get("vision_encoder.msfa.ffn", vision.fusion_hidden)
    return replace(vision, stages=tuple(map(tuple, stages)), fusion_hidden=hidden)


def droppable_blocks(model: VLM, part: str) -> list[str]:
    """Paths of blocks that may be left out whole: `layers` of the decoder, `blocks` of the encoder.

    Of the encoder those that add to what they read, but for the last block of a stage.
    """
    if part == "layers":
        return [f"{LAYERS}.{i}" for i in range(model.config.text.num_hidden_layers)]
    if not isinstance(model.vision_encoder, MobileNetV5):
        return [f"{_VIT_LAYERS}.{i}" for i in range(len(model.vision_encoder.encoder.layers))]
    found = []
    for s, stage in enumerate(model.vision_encoder.blocks.children()):
        residual = [b for b, block in enumerate(stage.children()) if hasattr(block, "add")]
        # One must stay, whichever.
        spared = 1 if len(residual) == len(list(stage.children())) else 0
        found += [f"{BLOCKS}.{s}.{b}" for b in residual[spared:]]
    return found
