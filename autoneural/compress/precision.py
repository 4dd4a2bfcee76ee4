"""Precision as data: which module gets how many bits, and which ranges are one range.

Rules are globs over module paths (`*` crosses dots); the first that matches decides. A tie is a
list of path patterns whose outputs share one encoding, so integers pass between them unchanged;
`{layer}` in a pattern matches one path component and makes one tie per value. A layer that is a
product of two (`<path>.down`, `<path>.up`) is meant by the path it always had: both have its bits,
and its output is what `up` returns.

As a file (`save_precision`, `load_precision`) it is JSON to be edited: what a file names must be
there, in widths that exist, and equal where ranges are shared.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from autoneural.compress.observer import ObserverName
from autoneural.compress.precision_fields import parse_fields
from autoneural.errors import UserError
from autoneural.files import expand, write_text

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

    `symmetric`: patterns of outputs whose zero point is the middle, whatever their range; where
    outputs share a range, that of the first module decides. `entries`: ties of a state with what
    is written into it, which hold where both have one width; a narrower state is converted once,
    where it is written.
    """

    name: str
    weights: tuple[Rule, ...]
    activations: tuple[Rule, ...] = (Rule("*", 16),)
    fixed: tuple[FixedRange, ...] = ()
    symmetric: tuple[str, ...] = ()
    ties: tuple[tuple[str, ...], ...] = ()
    entries: tuple[tuple[str, ...], ...] = ()
    mask: MaskPaths | None = None
    observer: ObserverName = "minmax"

    def is_symmetric(self, path: str) -> bool:
        """Whether the zero point of the output at `path` is the middle of its range."""
        return any(fnmatchcase(path, pattern) for pattern in self.symmetric)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready dict, for recipe.json and precision.json."""
        return json.loads(json.dumps(asdict(self)))

    @classmethod
    def from_dict(cls, data: Any, where: str = "precision") -> Precision:
        """Inverse of `to_dict`. UserError naming `where` and the key that is not right."""
        fields = parse_fields(data, where)
        for key in ("weights", "activations"):
            if key in fields:
                fields[key] = tuple(Rule(**rule) for rule in fields[key])
        if "fixed" in fields:
            fields["fixed"] = tuple(FixedRange(**fixed) for fixed in fields["fixed"])
        if fields.get("mask") is not None:
            fields["mask"] = MaskPaths(**fields["mask"])
        return cls(**fields)


def save_precision(path: str | Path, precision: Precision) -> None:
    """Write a file that `load_precision` and `autoneural compress --precision` read."""
    write_text(expand(path), json.dumps(precision.to_dict(), indent=1) + "\n")


def load_precision(path: str | Path) -> Precision:
    """Inverse of `save_precision`. UserError, one line, naming the file and the key at fault."""
    try:
        data = json.loads(expand(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    return Precision.from_dict(data, str(path))


def find_precision(name: str | Path | Precision) -> Precision:
    """One of `PRECISIONS` by name, else that of a file. UserError where it is neither."""
    if isinstance(name, Precision):
        return name
    if str(name) in PRECISIONS:
        return PRECISIONS[str(name)]
    if not expand(name).is_file():
        raise UserError(
            f"precision {str(name)!r}: expected one of {', '.join(PRECISIONS)}, or a file"
        )
    return load_precision(name)


def bits_for(rules: Iterable[Rule], path: str) -> int | None:
    """Bits of the first rule that matches `path`; None when none does.

    Of a factorised layer's half the first that matches the half or the layer.
    """
    names = {path, path.removesuffix(".down").removesuffix(".up")}
    matching = (r.bits for r in rules if any(fnmatchcase(name, r.pattern) for name in names))
    return next(matching, None)


def check_paths(precision: Precision, paths: Iterable[str]) -> None:
    """UserError naming the first rule that spells out a module which is not among `paths`."""
    known = set(paths)
    for key in ("weights", "activations"):
        for rule in getattr(precision, key):
            if not set(rule.pattern) & set("*?[") and rule.pattern not in known:
                raise UserError(
                    f"precision {precision.name}: {key}: no module {rule.pattern} has a range"
                )


def shared_ranges(precision: Precision, bits: Mapping[str, int]) -> list[list[str]]:
    """Groups of the paths in `bits` that share an encoding; a later group extends earlier ones.

    Raises UserError naming two modules that share one range and have different widths.
    """
    groups = tie_groups(precision.ties, bits)
    for group in groups:
        for path in group:
            if bits[path] != bits[group[0]]:
                raise UserError(
                    f"precision {precision.name}: activations: {group[0]} has {bits[group[0]]} "
                    f"bits and {path} {bits[path]}, but they share one range; give both the same"
                )
    for group in tie_groups(precision.entries, bits):
        for width in dict.fromkeys(bits[path] for path in group):
            alike = [path for path in group if bits[path] == width]
            groups += [alike] if len(alike) > 1 else []
    return groups


def tie_groups(ties: Iterable[tuple[str, ...]], paths: Iterable[str]) -> list[list[str]]:
    """The groups of `paths` that share an encoding; groups of one are left out."""
    paths = list(paths)
    groups: list[list[str]] = []
    for patterns in ties:
        members: dict[str, list[str]] = defaultdict(list)
        for path in paths:
            name = path.removesuffix(".up")
            layer = next((m for p in patterns if (m := _match(p, name)) is not None), None)
            if layer is not None:
                members[layer].append(path)
        groups += [group for group in members.values() if len(group) > 1]
    return groups


def _match(pattern: str, path: str) -> str | None:
    """What `{layer}` stands for when `path` fits, '' for a pattern without it, else None."""
    found = _regex(pattern).fullmatch(path)
    return None if found is None else "".join(found.groups())


@cache
def _regex(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\{layer\}", r"([^.]+)"))


_DECODER = "language_model.model"
_LAYER = f"{_DECODER}.layers.{{layer}}"
_ATTENTION = f"{_LAYER}.self_attn"
_CACHE_TIES = tuple(
    (f"{_ATTENTION}.{name}_rows", f"{_ATTENTION}.{name}s") for name in ("key", "value")
)
_VLM_TIES = (
    (
        "projector.linear_2",
        "language_model.model.embed_tokens",
        "language_model.model.inputs_embeds",
    ),
    # A mean stays inside the range of what it averages; at 256 px the pool is not even there.
    ("vision_encoder.msfa.ffn.pw_proj.bn", "vision_encoder.msfa.pool"),
    *_CACHE_TIES,
)
# A state as wide as what computes its rows has that encoding: nothing is rounded on the way in.
_VLM_ENTRIES = (
    (f"{_LAYER}.conv.gate_in", f"{_LAYER}.conv.window"),
    *(
        (f"{_ATTENTION}.{source}", *tie)
        for source, tie in zip(("k_rotary.add", "v_proj"), _CACHE_TIES, strict=True)
    ),
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
# In 8 bits symmetric: the engine multiplies by signed integers (target/htp_product.py), and as int8
# of zero point 0, which other tools use, a cache is the same integers less 128. In 16 bits it has
# the encoding of what computes its rows.
_CACHE = tuple(
    f"{_DECODER}.layers.*.self_attn.{name}" for name in ("key_rows", "keys", "value_rows", "values")
)
_CONVOLUTIONS = (Rule("*.conv.conv", 8), Rule("*.position_embedding", 16))

_W4A16 = Precision(
    name="w4a16",
    weights=(*_CONVOLUTIONS, Rule(f"{_DECODER}.layers.*", 4), Rule("*", 8)),
    activations=_ACTIVATIONS,
    fixed=_VLM_FIXED,
    symmetric=(*_CACHE, _SECOND_OPERANDS),
    ties=_VLM_TIES,
    entries=_VLM_ENTRIES,
    mask=_VLM_MASK,
)
# Rows are computed in 16 bits and converted once, where they enter the cache of 8; keys and values
# of the vision encoder where a product reads them, as chips do unasked.
_W4A16KV8 = replace(
    _W4A16,
    name="w4a16kv8",
    activations=(
        *(Rule(pattern, 8) for pattern in (*_CACHE, _SECOND_OPERANDS)),
        *_ACTIVATIONS,
    ),
)
# Half the bytes of what a token costs beside its layers.
_HEAD4 = replace(
    _W4A16KV8,
    name="w4a16kv8head4",
    weights=(Rule("*.embed_tokens", 4), Rule("*.lm_head", 4), *_W4A16.weights),
)
_W8A16 = replace(_W4A16, name="w8a16", weights=(*_CONVOLUTIONS, Rule("*", 8)))
# Chips take depthwise convolutions in 4 bits, but 9 to 25 weights a channel have nothing to make up
# for their errors with, and are 0.2 % of all; what reads pixels is smaller still.
_KEPT_8 = tuple(
    Rule(pattern, 8)
    for pattern in (
        *("*.dw_start.conv", "*.dw_mid.conv", "*.down_conv"),
        *("*.conv_stem.conv", "*.patch_embedding", "*.embed_tokens", "*.lm_head"),
    )
)
_W4A16FULL = replace(_W4A16, name="w4a16full", weights=(*_CONVOLUTIONS, *_KEPT_8, Rule("*", 4)))
# 16 bits where HTP refuses 8 (RMSNorms of rank 4, and all with weights of 16 bits), and where 256
# steps are too few for what they have to span: masks beside scores, the decoder's residual stream,
# positions, logits. States and caches have 8. Widths change from one operator to the next here,
# which export does not write yet: a recipe to measure what 8 bits cost.
_WIDE = (
    *("*norm", "*.bn", "*.bn1", "*.bn2", "*.msfa.pool"),
    *("*.scores", f"{_DECODER}.mask", "*.mask_add", f"{_DECODER}.cos", f"{_DECODER}.sin"),
    *(f"{_DECODER}.embed_tokens", f"{_DECODER}.inputs_embeds", "projector.linear_2"),
    *(f"{_DECODER}.layers.*.operator_add", f"{_DECODER}.layers.*.ffn_add", "*.lm_head"),
)
_W8A8 = replace(
    _W8A16,
    name="w8a8",
    activations=(
        *(Rule(pattern, None) for pattern in ("*.position_embedding", "*.second")),
        *(Rule(pattern, 16) for pattern in _WIDE),
        Rule("*", 8),
    ),
    symmetric=_CACHE,
    entries=_VLM_ENTRIES[:1],  # a symmetric cache of 8 bits has an encoding of its own
    observer="mse",
)

PRECISIONS: dict[str, Precision] = {
    p.name: p for p in (_W4A16, _W4A16KV8, _HEAD4, _W8A16, _W4A16FULL, _W8A8)
}
