"""What becomes of modules on a chip, in the words of the legality table, before anything is made.

    operators = Operators(model, runs)
    operators.uses(precision)     {OpUse(layer="...q_proj", op="MatMul", precision="w4a16", rank=3)}
    operators.takes(chip, before, after)

`autoneural.npu.uses` reads the same from exported graphs; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from autoneural.compress.fake_quant import output_quantizers
from autoneural.compress.precision import VECTOR_BITS, Precision, bits_for, tie_groups
from autoneural.compress.report import Run
from autoneural.compress.wiring import trace
from autoneural.model import layers
from autoneural.target.chips import Chip
from autoneural.target.legality import OpUse, legal
from autoneural.target.precision import WIDE, Formats, write

_READ = (nn.Linear, nn.Conv1d, nn.Conv2d, layers.MatMul, layers.Concat)


@dataclass(frozen=True, kw_only=True)
class Form:
    """The operator that a module becomes; `weight`: the path whose weight rule holds for it."""

    op: str
    variant: str
    rank: int
    weight: str | None = None


@torch.inference_mode()
def read_forms(model: nn.Module, runs: Iterable[Run]) -> dict[str, Form]:
    """The forms of linears, convolutions, products and concatenations that `runs` reach.

    A weight that several modules share goes by the first of them, as in `quantize`.
    """
    owners: dict[int, str] = {}
    for path, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), path)
    found: dict[str, Form] = {}
    pads = WeakTensorKeyDictionary()

    def padded(module: layers.SamePad, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        size, wide = inputs[0].shape[-2:], output.shape[-2:]
        # 'Same' puts the odd row last, so an odd total is what makes the two sides differ.
        pads[output] = any((b - a) % 2 for a, b in zip(size, wide, strict=True))

    def look(path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            weight = getattr(module, "weight", None)
            owner = None if weight is None else owners[id(weight)]
            found.setdefault(path, _form(module, inputs, bool(pads.get(inputs[0])), owner))

        return hook

    with ExitStack() as stack:
        for path, module in model.named_modules(remove_duplicate=False):
            if isinstance(module, layers.SamePad):
                stack.callback(module.register_forward_hook(padded).remove)
            elif isinstance(module, _READ):
                stack.callback(module.register_forward_hook(look(path)).remove)
        for run in runs:
            run(model)
    return found


def _form(module: nn.Module, inputs: tuple[Tensor, ...], uneven: bool, owner: str | None) -> Form:
    rank = inputs[0].ndim
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return Form(op="Conv", variant=_conv_variant(module, uneven), rank=rank, weight=owner)
    if isinstance(module, nn.Linear):
        wide = "wide" if max(module.weight.shape) >= WIDE else ""
        if module.bias is not None:  # flattened to rows, see matmul_add_to_gemm.py
            return Form(op="Gemm", variant=wide, rank=2, weight=owner)
        return Form(op="MatMul", variant=wide, rank=rank, weight=owner)
    if isinstance(module, layers.MatMul):
        same = inputs[0].shape[:-2] == inputs[1].shape[:-2]
        return Form(op="MatMul", variant="" if same else "broadcast", rank=rank)
    return Form(op="Concat", variant="", rank=rank)


def _conv_variant(module: nn.Conv1d | nn.Conv2d, uneven: bool) -> str:
    inputs = module.weight.shape[1]
    words = {
        "1x1": module.groups == 1 and math.prod(module.kernel_size) == 1,
        "depthwise": module.groups > 1 and inputs == 1,
        "grouped": module.groups > 1 and inputs > 1,
        "asymmetric": uneven,
        "dilated": max(module.dilation) > 1,
        "bias": module.bias is not None,
    }
    return " ".join(word for word, holds in words.items() if holds)


class Operators:
    """The products, convolutions and states of a quantised model, and what each of them reads."""

    def __init__(self, model: nn.Module, runs: Sequence[Run]) -> None:
        self._paths = [path for path, _ in output_quantizers(model)]
        self.forms = read_forms(model, runs)
        modules = dict(model.named_modules(remove_duplicate=False))
        readers = {p: modules[p] for p, form in self.forms.items() if form.op != "Concat"}
        self.wiring = trace(model, runs, readers)

    def uses(self, precision: Precision) -> set[OpUse]:
        """Every operator in the widths that `precision` gives it."""
        sources = {}
        for group in tie_groups(precision.entries, self._paths):
            sources[group[-1]] = group[0]  # in the order of the model: what is written, the state
        found: set[OpUse] = set()
        for path, form in self.forms.items():
            if path in self.wiring:
                found.add(_product(path, form, self.wiring[path], precision))
            elif path in sources:
                found |= set(_state(path, form, sources[path], precision))
        return found

    def takes(self, chip: Chip, before: Precision, after: Precision) -> bool:
        """Whether the table says that the chip takes all that `after` has and `before` has not.

        What was never probed is not taken.
        """
        new = self.uses(after) - self.uses(before)
        return all(
            legal(chip, u.op, u.precision, variant=u.variant, rank=u.rank).accepted for u in new
        )


def _product(path: str, form: Form, sources: Sequence[str], precision: Precision) -> OpUse:
    read = [bits_for(precision.activations, source) for source in sources]
    second = bits_for(precision.activations, f"{path}.second")
    if form.weight is None and second is not None:
        read[1] = second
    constant = None if form.weight is None else bits_for(precision.weights, form.weight)
    formats = _formats(read, constant, bits_for(precision.activations, path))
    if form.weight is not None and constant is None:
        formats = Formats(floating="fp32")
    return _use(path, form, form.op, formats)


def _state(path: str, form: Form, source: str, precision: Precision) -> Iterator[OpUse]:
    written, kept = (bits_for(precision.activations, p) for p in (source, path))
    yield _use(path, form, form.op, _formats([kept], None, kept))
    if written != kept:
        yield _use(path, form, "Convert", _formats([written], None, kept))


def _formats(read: Sequence[int | None], constant: int | None, output: int | None) -> Formats:
    known = tuple(bits for bits in read if bits is not None)
    if len(known) < len(read) or output is None:
        return Formats(floating="fp32")
    granularity = "" if constant is None else "tensor" if constant == VECTOR_BITS else "channel"
    return Formats(activations=known, constant=constant, granularity=granularity, output=output)


def _use(path: str, form: Form, op: str, formats: Formats) -> OpUse:
    return OpUse(
        layer=path, op=op, precision=write(op, formats), rank=form.rank, variant=form.variant
    )
