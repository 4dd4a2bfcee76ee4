"""Why a layer of the emulator parts from the QDQ reference: one line, or None where it does not.

Judged from the differences alone [..., channels], in steps of the output's grid, with what
`target/htp.py` knows of the matrix engine. Likely, not proved.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from autoneural.npu.certificate import LayerCheck
from autoneural.npu.simulate import EngineNode
from autoneural.npu.taps import Layer
from autoneural.target.htp import matrix_engine, round_significand

_AGREES_DB = 60.0
_UNFILLED = 1 / 16
_LUT = ("Gelu", "Sigmoid", "Tanh", "Softmax", "Exp", "RMSNormalization", "LayerNormalization")


def likely_cause(
    check: LayerCheck,
    layer: Layer,
    steps: NDArray[np.int64],
    *,
    engine: EngineNode | None,
    htp: int,
) -> str | None:
    """`steps`: emulator minus reference; convolutions have channels on axis 2 (run, batch, C).

    `engine`: the operator, where it runs on the matrix engine.
    """
    if check.sqnr_qdq_db is None or check.sqnr_qdq_db >= _AGREES_DB or not steps.any():
        return None
    found = _engine_cause(engine, layer, steps, htp) if engine else _other_cause(layer, steps)
    if check.fill is not None and check.fill < _UNFILLED:
        found += f"; output range not filled ({check.fill:.1%} of it)"
    return found


def _engine_cause(engine: EngineNode, layer: Layer, steps: NDArray[np.int64], htp: int) -> str:
    if layer.weight_bits is None:
        return "second operand rounded to 8 bits by the compiler: give it 8 bits in the recipe"
    constant, rest = _per_channel(steps, layer)
    if constant > 2 * rest and htp < 73 and not _snapped(engine, htp):
        return f"v{htp} rounds the multiplier to 11 bits: snap the weight scales"
    share, channel = _outlier(steps, layer)
    if share > 0.5:
        return f"channel {channel} holds {share:.0%} of the error: an outlier channel"
    return f"lower byte of the sum cut off: more than {layer.weight_bits} weight bits would help"


def _snapped(engine: EngineNode, htp: int) -> bool:
    """Whether the multipliers have the bits that the chip keeps: then it rounds none of them."""
    bits = matrix_engine(htp).multiplier_bits
    if bits is None or engine.weight is None or engine.weight.inputs[1] is None:
        return True
    scale = ir.convenience.get_const_tensor(engine.weight.inputs[1])
    assert scale is not None
    m = scale.numpy().astype(np.float64) * engine.x_encoding.scale / engine.y_encoding.scale
    return bool(np.abs(round_significand(m, bits) / m - 1).max() < 1e-5)


def _other_cause(layer: Layer, steps: NDArray[np.int64]) -> str:
    if np.abs(steps).max() > 1 << 12:
        return "large differences: look for a layout, or for scales that should be tied"
    if layer.op in _LUT:
        return f"{layer.op} is approximated by the chip ({np.abs(steps).max()} steps at most)"
    return "rounding of the operator on the chip"


def _per_channel(steps: NDArray[np.int64], layer: Layer) -> tuple[float, float]:
    """rms of what is constant in a channel, and of the rest."""
    rows = _rows(steps, layer).astype(np.float64)
    mean = rows.mean(0)
    return float(np.sqrt((mean**2).mean())), float(np.sqrt(((rows - mean) ** 2).mean()))


def _outlier(steps: NDArray[np.int64], layer: Layer) -> tuple[float, int]:
    """The channel with the most error, and its share."""
    power = np.square(_rows(steps, layer), dtype=np.float64).sum(0)
    channel = int(power.argmax())
    return float(power[channel] / max(power.sum(), 1e-30)), channel


def _rows(steps: NDArray[np.int64], layer: Layer) -> NDArray[np.int64]:
    moved = np.moveaxis(steps, 2, -1) if layer.op == "Conv" else steps
    return moved.reshape(-1, moved.shape[-1])
