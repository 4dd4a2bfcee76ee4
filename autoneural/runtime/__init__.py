"""Runs a bundle: one ONNX Runtime session per graph, host-side state, sampling, streaming.

engine.py    Engine: prompt -> chunked prefill -> decode -> text, with timings
devices.py   CPU, NPU or emulator: where a target runs
session.py   graphs of one target, and the encodings at their borders
chain.py     a graph that was cut into parts, run as one
qnn.py       Qualcomm's provider; interrupt.py lets Ctrl-C leave its long steps
state.py     what the decoder remembers between steps
sampling.py  logits -> next token
watch.py     what a caller may see of an answer while it is computed
"""

from autoneural.runtime.engine import Engine, Generation, Piece, Result
from autoneural.runtime.sampling import Sampling
from autoneural.runtime.watch import Watch

__all__ = ["Engine", "Generation", "Piece", "Result", "Sampling", "Watch"]
