"""Conv(Pad(x, p, 0), w, pads=q) -> Conv(x, w, pads=p+q)

'Same' padding of a strided convolution is asymmetric, so PyTorch needs a Pad of its own; ONNX and
every NPU take asymmetric pads in the convolution. Padding with zero is exact in integers too,
because every encoding holds zero exactly.
"""

from __future__ import annotations

import onnx_ir as ir


class FoldPadIntoConv(ir.passes.InPlacePass):
    """Only constant pads of zero, on spatial axes, of a value that only the convolution reads."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        modified = False
        for node in list(model.graph):
            if node.op_type != "Conv":
                continue
            pad = node.inputs[0].producer() if node.inputs[0] is not None else None
            pads = _foldable_pads(pad) if pad is not None else None
            if pad is None or pads is None:
                continue
            rank = len(pads) // 2
            own = node.attributes["pads"].as_ints() if "pads" in node.attributes else [0] * 2 * rank
            node.attributes["pads"] = ir.AttrInt64s(
                "pads", [a + b for a, b in zip(pads, own, strict=True)]
            )
            node.replace_input_with(0, pad.inputs[0])
            model.graph.remove(pad, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _foldable_pads(pad: ir.Node) -> list[int] | None:
    """Spatial pads (begins, then ends) of a Pad that may be folded, else None."""
    output = pad.outputs[0]
    if pad.op_type != "Pad" or len(output.uses()) != 1 or output.is_graph_output():
        return None
    mode = pad.attributes["mode"].as_string() if "mode" in pad.attributes else "constant"
    if mode != "constant" or (len(pad.inputs) > 3 and pad.inputs[3] is not None):
        return None
    if len(pad.inputs) > 2 and pad.inputs[2] is not None:
        fill = ir.convenience.get_const_tensor(pad.inputs[2])
        if fill is None or fill.numpy().any():
            return None
    amounts_value = pad.inputs[1]
    tensor = None if amounts_value is None else ir.convenience.get_const_tensor(amounts_value)
    if tensor is None:
        return None
    amounts = tensor.numpy().tolist()
    rank = len(amounts) // 2
    begins, ends = amounts[:rank], amounts[rank:]
    if any(begins[:2] + ends[:2]) or min(amounts) < 0:
        return None
    return begins[2:] + ends[2:]
