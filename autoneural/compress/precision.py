"""Precision as data: which module gets how many bits, and which ranges are one range.

Rules are globs over module paths (`*` crosses dots); the first that matches decides. A tie is a
list of path patterns whose outputs share one encoding, so integers pass between them unchanged;
`{layer}` in a pattern matches one path component and makes one tie per value.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from autoneural.compress.observer import ObserverName

VECTOR_BITS = 16  # norm weights and layer scales: a few values, multiplied element by element


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
    """A whole recipe. Weight rules are for matrices and filters; vectors are always 16 bits."""

    name: str
    weights: tuple[Rule, ...]
    activations: tuple[Rule, ...] = (Rule("*", 16),)
    fixed: tuple[FixedRange, ...] = ()
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
_VLM_TIES = (
    (
        "projector.linear_2",
        "language_model.model.embed_tokens",
        "language_model.model.inputs_embeds",
    ),
    (f"{_LAYER}.conv.gate_in", f"{_LAYER}.conv.window"),
    (f"{_LAYER}.self_attn.k_rotary.add", f"{_LAYER}.self_attn.keys"),
    (f"{_LAYER}.self_attn.v_proj", f"{_LAYER}.self_attn.values"),
    # A mean stays inside the range of what it averages; at 256 px the pool is not even there.
    ("vision_encoder.msfa.ffn.pw_proj.bn", "vision_encoder.msfa.pool"),
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
# The table of positions is a constant, read without calling the module.
_ACTIVATIONS = (Rule("*.position_embedding", None), Rule("*", 16))
_CONVOLUTIONS = (Rule("*.conv.conv", 8), Rule("*.position_embedding", 16))


def _vlm_precision(name: str, *decoder: Rule) -> Precision:
    return Precision(
        name=name,
        weights=(*_CONVOLUTIONS, *decoder, Rule("*", 8)),
        activations=_ACTIVATIONS,
        fixed=_VLM_FIXED,
        ties=_VLM_TIES,
        mask=_VLM_MASK,
    )


PRECISIONS: dict[str, Precision] = {
    precision.name: precision
    for precision in (
        _vlm_precision("w4a16", Rule(f"{_DECODER}.layers.*", 4)),
        _vlm_precision("w8a16"),
    )
}
