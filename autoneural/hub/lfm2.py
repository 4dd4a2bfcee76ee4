"""LFM2 and LFM2.5 of Liquid AI, as transformers writes them (`model_type` lfm2). Torch-free.

LFM2 Technical Report, arXiv 2511.23404. The values are read as transformers' `Lfm2Config` reads
them: keys that it ignores (`block_norm_eps`, `num_heads`, `theta`, ...) are ignored here.
"""

from __future__ import annotations

from autoneural.config import LayerType, TextConfig
from autoneural.hub.folder import ModelFolder
from autoneural.hub.reading import Fields, Reading
from autoneural.parts import PartConfig


def read_lfm2(folder: ModelFolder, fields: Fields) -> Reading:
    """A language model alone."""
    return Reading(
        config=PartConfig(name=folder.title, config=text_config(fields)),
        rename=lambda name: f"language_model.{name}",
        has_tokenizer=True,
    )


def text_config(fields: Fields) -> TextConfig:
    """`fields` of an LFM2 configuration. UserError for a value that is wrong or not supported."""
    if fields.has("quantization_config"):
        fields.refuse("quantised already; import the original weights")
    fields.only("conv_bias", False)
    # Liquid's own spelling wins over transformers'.
    fields.only("tie_embedding" if fields.has("tie_embedding") else "tie_word_embeddings", True)
    hidden_size = fields.integer("hidden_size", 2560)
    heads = fields.integer("num_attention_heads", 32, most=1024)
    try:
        return TextConfig(
            hidden_size=hidden_size,
            intermediate_size=intermediate_size(fields),
            layer_types=_layer_types(fields),
            num_attention_heads=heads,
            num_key_value_heads=fields.integer("num_key_value_heads", 8, most=1024),
            head_dim=fields.integer("head_dim", hidden_size // heads, most=1024),
            conv_L_cache=fields.integer("conv_L_cache", 3, most=64),
            norm_eps=fields.number("norm_eps", 1e-5),
            rope_theta=_rope_theta(fields),
            vocab_size=fields.integer("vocab_size", 65_536, most=2**22),
            max_position_embeddings=fields.integer("max_position_embeddings", 128_000, most=2**30),
        )
    except ValueError as error:
        fields.refuse(str(error))


def intermediate_size(fields: Fields) -> int:
    """The width of the feed-forward: two thirds of what is written, times a factor, rounded up.

    The floats are those of transformers' Lfm2MLP: another order would round otherwise.
    """
    width = fields.integer("intermediate_size", 12_288)
    width = fields.integer("block_ff_dim", width)
    if not fields.flag("block_auto_adjust_ff_dim", True):
        return width
    width = int(2 * width / 3)
    multiple = fields.integer("block_multiple_of", 256, most=65_536)
    width = int(fields.number("block_ffn_dim_multiplier", 1.0) * width)
    return multiple * ((width + multiple - 1) // multiple)


def _layer_types(fields: Fields) -> tuple[LayerType, ...]:
    count = fields.integer("num_hidden_layers", 32, most=512)
    if fields.has("layer_types"):
        kinds = fields.items("layer_types", str)
        if len(kinds) != count:
            fields.refuse(f"layer_types: {len(kinds)} of them for {count} layers")
        return kinds
    attention = range(count)
    if fields.has("full_attn_idxs"):
        attention = fields.items("full_attn_idxs", int)
    return tuple("full_attention" if i in attention else "conv" for i in range(count))


def _rope_theta(fields: Fields) -> float:
    # transformers 5 writes rope_parameters; before it there were rope_theta and rope_scaling.
    rope = fields.inside("rope_parameters" if fields.has("rope_parameters") else "rope_scaling")
    rope.only("rope_type", "default")
    rope.only("type", "default")
    rope.only("partial_rotary_factor", 1.0)
    return rope.number("rope_theta", fields.number("rope_theta", 1_000_000.0))
