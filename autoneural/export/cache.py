"""Keys and values between steps, as compression froze them: how many bits, which encodings."""

from __future__ import annotations

from collections.abc import Sequence

from autoneural.bundle_graphs import state_names
from autoneural.errors import UserError
from autoneural.export.qdq import Quantization
from autoneural.manifest import LayerState
from autoneural.target.numerics import Encoding

_ATTENTION = "language_model.model.layers.{}.self_attn."
_ENDS = ("keys", "values")
_BYTE = 8


def cache_bits(quantization: Quantization) -> set[int]:
    """The widths of keys and values; none where the model has no attention."""
    ends = tuple(f".self_attn.{end}" for end in _ENDS)
    return {e.bits for path, e in quantization.activations.items() if path.endswith(ends)}


def byte_encodings(layers: Sequence[LayerState], quantization: Quantization) -> dict[str, Encoding]:
    """Of a decoder graph's past and present keys and values, by name.

    Raises UserError where one of them was not frozen in 8 bits.
    """
    found = {}
    for layer in layers:
        if layer.kind != "attention":
            continue
        for end, names in zip(_ENDS, state_names(layer), strict=True):
            encoding = quantization.activations.get(_ATTENTION.format(layer.layer) + end)
            if encoding is None or encoding.bits != _BYTE:
                kept = "no encoding" if encoding is None else f"{encoding.bits} bits"
                raise UserError(
                    f"--kv8: the {end} of layer {layer.layer} have {kept}; compress the model with "
                    "--precision w4a16kv8"
                )
            found.update(dict.fromkeys(names, encoding))
    return found
