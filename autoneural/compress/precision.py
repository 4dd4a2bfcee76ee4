"""Precision as data: which module gets how many bits, and which ranges are one range.

Rules are globs over module paths (`*` crosses dots); the first that matches decides. A tie is a
list of path patterns whose outputs share one encoding, so integers pass between them unchanged;
`{layer}` in a pattern matches one path component and makes one tie per value.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from autoneural.compress.observer import ObserverName

VECTOR_BITS = 16  # norm weights and layer scales: a few values, multiplied element by element
LAYER_NORM_BITS = 8  # but HTP before v73 takes only these for a LayerNorm (target/legality.json)


@dataclass(frozen=True)
class Rule:
    """Modules that match `pattern` get `bits`; None leaves them in floating point."""

    pattern: str
    bits: int | None


@dataclass(frozen=True)
class FixedRange:
    """Outputs whose range is known before any data: [-maximum, maximum], or [0, maximum]."""

    pattern: str
    maximum: float
    signed: bool = False


@dataclass(frozen=True)
class MaskPaths:
    """Where an additive attention mask enters: its input, the raw scores, and their sum."""

    mask: str
    scores: str
    masked: str


@dataclass(frozen=True, kw_only=True)
class Precision:
    """A whole recipe. Weight rules are for matrices and filters; vectors are always 16 bits.

    `symmetric`: patterns of outputs whose zero point is the middle, whatever their range.
    """

    name: str
    weights: tuple[Rule, ...]
    activations: tuple[Rule, ...] = (Rule("*", 16),)
    fixed: tuple[FixedRange, ...] = ()
    symmetric: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    mask: MaskPaths | None = None
    observer: ObserverName = "minmax"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict, for recipe.json."""
        return asdict(self)


def bits_for(rules: Iterable[Rule], path: str) -> int | None:
    """Bits of the first rule that matches `path`; None when none does."""
    return next((rule.bits for rule in rules if fnmatchcase(path, rule.pattern)), None)


def tie_groups(ties: Iterable[tuple[str, ...]], paths: Iterable[str]) -> list[list[str]]:
    """The groups of `paths` that share an encoding; groups of one are left out."""
    paths = list(paths)
    groups: list[list[str]] = []
    for patterns in ties:
        members: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            layer = next((m for p in patterns if (m := _match(p, path)) is not None), None)
            if layer is not None:
                members[layer].append(path)
        groups += [group for group in members.values() if len(group) > 1]
    return groups


def _match(pattern: str, path: str) -> str | None:
    """What `{layer}` stands for when `path` fits, '' for a pattern without it, else None."""
    regex = re.escape(pattern).replace(r"\{layer\}", r"([^.]+)")
    found = re.fullmatch(regex, path)
    return None if found is None else "".join(found.groups())


_DECODER = "language_model.model"
_LAYER = f"{_DECODER}.layers.{{layer}}"
_ATTENTION = f"{_LAYER}.self_attn"
_VLM_TIES = (
    (
        "projector.linear_2",
        "language_model.model.embed_tokens",
        "language_model.model.inputs_embeds",
    ),
    (f"{_LAYER}.conv.gate_in", f"{_LAYER}.conv.window"),
    # A mean stays inside the range of what it averages; at 256 px the pool is not even there.
    ("vision_encoder.msfa.ffn.pw_proj.bn", "vision_encoder.msfa.pool"),
)
_CACHE_TIES = tuple(
    (f"{_ATTENTION}.{name}_rows", f"{_ATTENTION}.{name}s") for name in ("key", "value")
)
# In a cache of 16 bits also what computes the rows: then nothing is rounded on the way in.
_CACHE16_TIES = tuple(
    (f"{_ATTENTION}.{source}", *tie)
    for source, tie in zip(("k_rotary.add", "v_proj"), _CACHE_TIES, strict=True)
)
_VLM_FIXED = (
    FixedRange("vision_encoder.pixels", 1.0),
    FixedRange(f"{_DECODER}.cos", 1.0, signed=True),
    FixedRange(f"{_DECODER}.sin", 1.0, signed=True),
    FixedRange("*.softmax", 1.0),
    # QNN documents scale 1/65536, zero point 0 for the 16-bit Sigmoid.
    FixedRange("*.sigmoid", 65535 / 65536),
)
_VLM_MASK = MaskPaths(
    mask=f"{_DECODER}.mask",
    scores=f"{_DECODER}.layers.*.self_attn.scores",
    masked=f"{_DECODER}.layers.*.self_attn.mask_add",
)
# The table of positions is a constant, read without calling the module; the second operand of a
# product is read as it was written.
_ACTIVATIONS = (Rule("*.position_embedding", None), Rule("*.second", None), Rule("*", 16))
_SECOND_OPERANDS = "vision_encoder.*.second"
_CACHE = tuple(
    f"{_DECODER}.layers.*.self_attn.{name}" for name in ("key_rows", "keys", "value_rows", "values")
)
_CONVOLUTIONS = (Rule("*.conv.conv", 8), Rule("*.position_embedding", 16))

_W4A16 = Precision(
    name="w4a16",
    weights=(*_CONVOLUTIONS, Rule(f"{_DECODER}.layers.*", 4), Rule("*", 8)),
    activations=_ACTIVATIONS,
    fixed=_VLM_FIXED,
    ties=(*_VLM_TIES, *_CACHE16_TIES),
    mask=_VLM_MASK,
)
# Rows are computed in 16 bits and converted once, where they enter the cache of 8; keys and values
# of the vision encoder where a product reads them, as chips do unasked. Symmetric: the engine
# multiplies by signed integers (target/htp_product.py), and as int8 of zero point 0, which other
# tools use, a cache is the same integers less 128.
_W4A16KV8 = replace(
    _W4A16,
    name="w4a16kv8",
    activations=(
        *(Rule(pattern, 8) for pattern in (*_CACHE, _SECOND_OPERANDS)),
        *_ACTIVATIONS,
    ),
    ties=(*_VLM_TIES, *_CACHE_TIES),
    symmetric=(*_CACHE, _SECOND_OPERANDS),
)
_W8A16 = replace(_W4A16, name="w8a16", weights=(*_CONVOLUTIONS, Rule("*", 8)))

PRECISIONS: dict[str, Precision] = {p.name: p for p in (_W4A16, _W4A16KV8, _W8A16)}
