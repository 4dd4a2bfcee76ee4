"""Runs a bundle: one ONNX Runtime session per graph, host-side state, sampling, streaming.

engine.py    Engine: prompt -> chunked prefill -> decode -> text, with timings
session.py   graphs of one target, and the encodings at their borders
state.py     what the decoder remembers between steps
sampling.py  logits -> next token
"""

from autoneural.runtime.engine import Engine, Generation, Piece, Result
from autoneural.runtime.sampling import Sampling

__all__ = ["Engine", "Generation", "Piece", "Result", "Sampling"]
