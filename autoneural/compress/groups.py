"""What changes its precision together, and what that is worth in bytes.

weights    linears and convolutions that read one tensor (q, k and v; w1 and w3), or share one
           matrix (embedding and head): 4 or 8 bits
state      a cache of keys or values with the rows it is given, a convolution's window:
           8 or 16 bits
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from autoneural.compress.fake_quant import weight_quantizers
from autoneural.compress.operators import Operators
from autoneural.compress.precision import Precision, Rule, bits_for, tie_groups
from autoneural.model.state import DecoderState
from autoneural.model.vlm import VLM

Kind = Literal["weights", "state"]
WIDTHS: Mapping[Kind, tuple[int, int]] = {"weights": (4, 8), "state": (8, 16)}
_SCALE_BYTES = 4
_BIAS_BYTES = 4
_STATES = {"conv": ("conv.window",), "full_attention": ("self_attn.keys", "self_attn.values")}


@dataclass(frozen=True, kw_only=True)
class Group:
    """Modules of one precision: weights of `paths`, or their outputs; `count` numbers in all.

    `bits`: the width in the precision that the search starts from.
    """

    kind: Kind
    paths: tuple[str, ...]
    count: int
    bits: int

    @property
    def name(self) -> str:
        """The first path, and how many others there are."""
        rest = len(self.paths) - 1
        return self.paths[0] + (f" and {rest} more" if rest else "")

    @property
    def other(self) -> int:
        """The width that it has not."""
        low, high = WIDTHS[self.kind]
        return low if self.bits == high else high

    @property
    def saved(self) -> int:
        """Bytes that `other` takes less (negative: more)."""
        return self.count * (self.bits - self.other) // 8


def find_groups(
    model: VLM, precision: Precision, operators: Operators, context: int
) -> list[Group]:
    """The groups of a model that was quantised to `precision`, in its order.

    What has another width than those of `WIDTHS` (or is in floating point) is nobody's group.
    """
    return _weight_groups(model, precision, operators) + _state_groups(model, precision, context)


def _weight_groups(model: VLM, precision: Precision, operators: Operators) -> list[Group]:
    readers = {f.weight: path for path, f in operators.forms.items() if f.weight is not None}
    together: dict[tuple[tuple[str, ...], int], list[tuple[str, int]]] = defaultdict(list)
    for path, module, quantizer in weight_quantizers(model):
        bits = bits_for(precision.weights, path)
        if path in readers and bits is not None and bits in WIDTHS["weights"]:
            size = module.get_parameter(quantizer.parameter).numel()
            sources = operators.wiring.get(readers[path], (path,))
            together[sources, bits].append((path, size))
    return [
        Group(
            kind="weights",
            paths=tuple(path for path, _ in members),
            count=sum(size for _, size in members),
            bits=bits,
        )
        for (_, bits), members in together.items()
    ]


def _state_groups(model: VLM, precision: Precision, context: int) -> list[Group]:
    paths = [path for path, _ in model.named_modules()]
    tied = {group[-1]: tuple(group) for group in tie_groups(precision.ties, paths)}
    groups = []
    for path, count in state_sizes(model, context).items():
        bits = bits_for(precision.activations, path)
        if bits in WIDTHS["state"]:
            members = tied.get(path, (path,))
            groups.append(Group(kind="state", paths=members, count=count, bits=bits))
    return groups


def state_sizes(model: VLM, context: int) -> dict[str, int]:
    """Path of the module that holds a state -> how many numbers it keeps between two steps."""
    config = model.config.text
    state = DecoderState.zeros(config, 1, context, device="meta")
    return {
        f"language_model.model.layers.{index}.{name}": tensor.numel()
        for index, (kind, tensors) in enumerate(zip(config.layer_types, state.layers, strict=True))
        for name, tensor in zip(_STATES[kind], tensors, strict=True)
    }


def model_bytes(model: VLM, precision: Precision, context: int) -> int:
    """Weights, their scales, biases, and the state at `context`, of a model quantised to it."""
    total = 0
    for _, module, quantizer in weight_quantizers(model):
        weight = module.get_parameter(quantizer.parameter)
        scales = 1 if quantizer.axis is None else weight.shape[quantizer.axis]
        total += weight.numel() * quantizer.bits // 8 + scales * _SCALE_BYTES
    biases = [p for name, p in model.named_parameters() if name.endswith(".bias")]
    total += sum(bias.numel() for bias in biases) * _BIAS_BYTES
    return total + state_bytes(model, precision, context)


def state_bytes(model: VLM, precision: Precision, context: int) -> int:
    """What the decoder keeps between two steps at `context`, quantised to `precision`."""
    return sum(
        count * (bits_for(precision.activations, path) or 32) // 8
        for path, count in state_sizes(model, context).items()
    )


def with_widths(base: Precision, widths: Mapping[Group, int], name: str) -> Precision:
    """`base`, with a rule for every module of a group that has another width in `widths`."""
    rules: dict[Kind, list[Rule]] = {"weights": [], "state": []}
    for group, bits in widths.items():
        if bits != group.bits:
            rules[group.kind] += [Rule(path, bits) for path in group.paths]
    return replace(
        base,
        name=name,
        weights=(*rules["weights"], *base.weights),
        activations=(*rules["state"], *base.activations),
    )
