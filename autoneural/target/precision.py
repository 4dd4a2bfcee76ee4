"""How the number formats of one operator are written.

    w4a16            4-bit signed constant per output channel, 16-bit activations in and out
    w4a16/tensor     one scale for the constant
    w4a16/block64    one scale per 64 inputs of a channel
    w4a16/lpbq64     the same, and each scale is a whole number of 16ths of the channel's largest
    u16a16           unsigned constant (w: signed, zero point 0; u: unsigned, zero point anywhere)
    a16              activations only, all of 16 bits
    a16xa8           activations of two kinds, in the order in which the operator takes them
    w4a16>a8         the output has another width than the widest activation
    fp16  fp32       floating point

Granularity is written where it is not the usual one of the operator: per channel where a constant
has output channels (Conv, MatMul, ...), per tensor elsewhere. A product of two activations is
always written as a pair (a16xa16), so that it cannot be taken for one with a constant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

LINEAR = frozenset(("Conv", "ConvTranspose", "MatMul", "Gemm"))
BLOCK = "block: "  # begins the name of several operators in a row, which share one precision
PRODUCTS = frozenset(("MatMul", "Gemm", "Einsum"))
FLOATS = ("fp16", "fp32")
WIDE = 2048  # from here on a matrix is a large language model's, and a variant of its own

_PATTERN = re.compile(
    r"(?:(?P<kind>[wu])(?P<constant>\d+))?"
    r"(?P<activations>a\d+(?:xa\d+)*)"
    r"(?:/(?P<granularity>tensor|channel|(?:block|lpbq)\d+))?"
    r"(?:>a(?P<output>\d+))?"
)


@dataclass(frozen=True, kw_only=True)
class Formats:
    """The number formats of one operator: widths in bits, `floating` fp16 or fp32 instead.

    `output` None: as wide as the widest activation.
    """

    activations: tuple[int, ...] = ()
    constant: int | None = None
    unsigned: bool = False
    granularity: str = ""
    output: int | None = None
    floating: str = ""

    @property
    def output_bits(self) -> int:
        """Width of what the operator returns; 0 in floating point."""
        return max(self.activations, default=0) if self.output is None else self.output


def usual_granularity(op: str) -> str:
    """What a constant of `op` has where the precision does not say."""
    return "channel" if op in LINEAR or op.startswith(BLOCK) else "tensor"


def parse(op: str, text: str) -> Formats:
    """The formats that `text` means for operator `op`. Raises ValueError where it means none."""
    if text in FLOATS:
        return Formats(floating=text)
    found = _PATTERN.fullmatch(text)
    if found is None or (found["granularity"] and not found["kind"]):
        raise ValueError(f"not a precision: {text!r}")
    return Formats(
        activations=tuple(int(part[1:]) for part in found["activations"].split("x")),
        constant=int(found["constant"]) if found["kind"] else None,
        unsigned=found["kind"] == "u",
        granularity=(found["granularity"] or usual_granularity(op)) if found["kind"] else "",
        output=int(found["output"]) if found["output"] else None,
    )


def write(op: str, formats: Formats) -> str:
    """The one way in which these formats are written for `op`; inverse of `parse`."""
    if formats.floating:
        return formats.floating
    text = _operands(op, formats.activations, formats.constant is None)
    if formats.constant is not None:
        text = f"{'u' if formats.unsigned else 'w'}{formats.constant}{text}"
        if formats.granularity != usual_granularity(op):
            text += f"/{formats.granularity}"
    if formats.output not in (None, max(formats.activations)):
        text += f">a{formats.output}"
    return text


def _operands(op: str, activations: Sequence[int], alone: bool) -> str:
    pair = op in PRODUCTS and alone
    kinds = activations if pair or len(set(activations)) > 1 else activations[:1]
    return "x".join(f"a{bits}" for bits in kinds)
