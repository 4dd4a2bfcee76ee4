"""What a model takes in memory on a chip: planned from shapes and widths, before anything is built.

    weights      integers, scales and biases of each graph; all widths of the decoder share theirs,
                 and so do all image sizes of the encoder, unless the chip's table says otherwise
    state        keys and values of attention at the whole context, columns of short convolutions
    activations  of each graph, the most that is alive at one time (`live_values.py`); one graph
                 runs at a time, so of all graphs the largest
    host         the table that token ids are looked up in: 16 bits, on the host

Beside it stands a baseline of the same sizes without what AutoNeural (arXiv 2512.02924) changed:
attention in every layer of the decoder, and a ViT for its encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from autoneural.bench.live_values import peak_bytes
from autoneural.compress.cost import stored_bytes, weight_bytes
from autoneural.compress.precision import Precision, bits_for
from autoneural.config import PRESETS, ModelConfig, TextConfig, ViTConfig
from autoneural.errors import UserError
from autoneural.export.bundle import ExportOptions
from autoneural.export.graphs import GraphKey, build_graph, graph_keys
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM, fix_image_size
from autoneural.target.chips import Chip

BASELINE_CONTEXT = 1024
"""Of the baseline that arXiv 2512.02924 compares its 4096 tokens with."""
_TWINS = {"autoneural-1.5b": "vit-1.5b", "autoneural-0.6b": "vit-0.6b", "cockpit-tiny": "vit-tiny"}
_ACTIVATION_BITS = 16
_EMBEDDING_BYTES = 2
_LANGUAGE = ("prefill", "verify", "decode")


@dataclass(frozen=True, kw_only=True)
class GraphMemory:
    """Bytes of one graph; `state` is what it reads of the decoder's, the same of every width."""

    role: str
    width: int
    image_size: int
    weights: int
    state: int
    activations: int

    @property
    def name(self) -> str:
        """For people: `vision 512 px`, `prefill AR-128`, `head`."""
        if self.role == "vision":
            return f"vision {self.image_size} px"
        return f"{self.role} AR-{self.width}" if self.role in _LANGUAGE else self.role


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a whole model at one context: what graphs share is counted once.

    `kv` as the precision has it; `kv_int8` and `kv_int16` as it could be.
    """

    context: int
    graphs: tuple[GraphMemory, ...]
    weights: int
    kv: int
    kv_int8: int
    kv_int16: int
    conv_state: int
    host_embedding: int

    @property
    def activations(self) -> int:
        """Of the largest graph."""
        return max(graph.activations for graph in self.graphs)

    @property
    def total(self) -> int:
        """Weights, state and activations; without the host's table."""
        return self.weights + self.kv + self.conv_state + self.activations

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in bytes."""
        return {**asdict(self), "activations": self.activations, "total": self.total}


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """The model on a chip, and what it is compared with: `compared` says in words what that is.

    `baselines`: at 1024 tokens, and at as many as the model has.
    """

    model: str
    chip: Chip
    precision: str
    memory: Memory
    baselines: tuple[Memory, ...]
    compared: str
    binaries: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, in bytes. `binaries`: files of the bundle for that chip, where it has any."""
        chip = self.chip
        return {
            "model": self.model,
            "chip": chip.name,
            "vtcm_mb": chip.vtcm_mb,
            "weight_sharing": chip.weight_sharing,
            "precision": self.precision,
            **self.memory.to_dict(),
            "binaries": self.binaries,
            "compared": self.compared,
            "baselines": [memory.to_dict() for memory in self.baselines],
        }


def plan_memory(
    config: ModelConfig,
    precision: Precision,
    chip: Chip,
    *,
    context: int,
    image_sizes: Sequence[int] = (),
    binaries: dict[str, int] | None = None,
) -> MemoryPlan:
    """The plan of a model of `config`; `image_sizes` () is the model's own.

    Raises UserError for a context or an image size that the model does not have.
    """
    sizes = tuple(image_sizes) or (config.vision.image_size,)
    shared = chip.weight_sharing is not False
    baseline, compared = baseline_of(config)
    return MemoryPlan(
        model=config.name,
        chip=chip,
        precision=precision.name,
        memory=measure(config, precision, context, sizes, shared=shared),
        baselines=tuple(
            measure(baseline, precision, tokens, sizes, shared=shared)
            for tokens in sorted({min(BASELINE_CONTEXT, context), context})
        ),
        compared=compared,
        binaries=binaries or {},
    )


def baseline_of(config: ModelConfig) -> tuple[ModelConfig, str]:
    """The same sizes with attention in every layer and a ViT, and what that is in words.

    The ViT is that of the preset whose encoder the model has; a model with an encoder of its own
    keeps it.
    """
    layers = config.text.num_hidden_layers
    text = replace(config.text, layer_types=("full_attention",) * layers, key_value_heads=())
    other = replace(config, text=text, ranks={})
    encoder = "its own encoder"
    twin = next((t for name, t in _TWINS.items() if _same_encoder(config, PRESETS[name])), None)
    if twin is not None:
        other = replace(other, vision=PRESETS[twin].vision, resize="squash", tiling=None)
        encoder = f"the encoder of {twin}"
    return other, f"the same decoder with attention in all {layers} layers, and {encoder}"


def _same_encoder(config: ModelConfig, other: ModelConfig) -> bool:
    size = other.vision.image_size
    return replace(config.vision, image_size=size) == other.vision


def measure(
    config: ModelConfig,
    precision: Precision,
    context: int,
    image_sizes: Sequence[int],
    *,
    shared: bool = True,
) -> Memory:
    """Memory of the graphs that `build` makes; `shared`: graphs of one role share their weights.

    Raises UserError for a context or an image size that the model does not have.
    """
    limit = config.text.max_position_embeddings
    if not 0 < context <= limit:
        raise UserError(f"--context {context}: {config.name} has {limit} positions")
    state = _state_bytes(config.text, precision, context)
    found: list[GraphMemory] = []
    for number, size in enumerate(image_sizes):
        model = _model(config, size)
        for key in _keys(model, context):
            if number == 0 or key.role == "vision":
                found.append(_graph(model, key, precision, sum(state)))
    found.sort(key=lambda graph: graph.role != "vision")
    return Memory(
        context=context,
        graphs=tuple(found),
        weights=sum(_counted(found, shared)),
        kv=state[0],
        kv_int8=_kv_values(config.text, context),
        kv_int16=_kv_values(config.text, context) * 2,
        conv_state=state[1],
        host_embedding=config.text.vocab_size * config.text.hidden_size * _EMBEDDING_BYTES,
    )


def _model(config: ModelConfig, size: int) -> VLM:
    """Its shape for pictures of that size, on the meta device."""
    vision = config.vision
    try:
        if isinstance(vision, ViTConfig) and not vision.num_patches:
            # As a model made for that size; how pictures meet it does not matter here.
            vision = replace(vision, image_size=size)
            config = replace(config, vision=vision, resize="squash", tiling=None)
        else:
            config, _ = fix_image_size(config, {}, size)
    except ValueError as error:
        raise UserError(f"--image-size {size}: {error}") from error
    with torch.device("meta"):
        return VLM(config).eval()


def _keys(model: VLM, context: int) -> list[GraphKey]:
    export = ExportOptions.within(context)
    return graph_keys(model, context, export.prefill_width, export.verify_width)


def _graph(model: VLM, key: GraphKey, precision: Precision, state: int) -> GraphMemory:
    decodes = key.role in _LANGUAGE
    with torch.device("meta"):
        graph = build_graph(model, key)
        peak = peak_bytes(
            graph,
            lambda path: bits_for(precision.activations, path) or _ACTIVATION_BITS,
            DecoderState.past_names(model.config.text) if decodes else (),
        )
    return GraphMemory(
        role=key.role,
        width=key.width,
        image_size=key.image_size,
        weights=_weights(model, key.role, precision),
        state=state if decodes else 0,
        activations=peak,
    )


def _weights(model: VLM, role: str, precision: Precision) -> int:
    if role == "head":
        text, table = model.config.text, "language_model.model.embed_tokens"
        path = table if text.tie_word_embeddings else "language_model.lm_head"
        shape = (text.vocab_size, text.hidden_size)
        return stored_bytes(shape, bits_for(precision.weights, path))
    parts = {"vision": ("vision_encoder.", "projector.")}
    decoder = ("language_model.model.layers.", "language_model.model.embedding_norm")
    prefixes = parts.get(role, decoder)
    held = weight_bytes(model, precision)
    return sum(size for path, size in held.items() if path.startswith(prefixes))


def _counted(graphs: Iterable[GraphMemory], shared: bool) -> list[int]:
    """Weights of the graphs, of those that share them once."""
    parts: dict[str, list[int]] = {}
    for graph in graphs:
        part = "decoder" if graph.role in _LANGUAGE else graph.role
        parts.setdefault(part, []).append(graph.weights)
    return [max(sizes) if shared else sum(sizes) for sizes in parts.values()]


def _kv_values(text: TextConfig, context: int) -> int:
    kinds = enumerate(text.layer_types)
    heads = sum(text.kv_heads(layer) for layer, kind in kinds if kind != "conv")
    return 2 * heads * context * text.head_dim


def _state_bytes(text: TextConfig, precision: Precision, context: int) -> tuple[int, int]:
    """(keys and values, columns of convolutions)."""

    def bits(layer: int, end: str) -> int:
        path = f"language_model.model.layers.{layer}.{end}"
        return bits_for(precision.activations, path) or _ACTIVATION_BITS

    kv = conv = 0
    for layer, kind in enumerate(text.layer_types):
        if kind == "conv":
            conv += bits(layer, "conv.window") * text.hidden_size * (text.conv_L_cache - 1)
        else:
            both = bits(layer, "self_attn.keys") + bits(layer, "self_attn.values")
            kv += both * text.kv_heads(layer) * context * text.head_dim
    return kv // 8, conv // 8
