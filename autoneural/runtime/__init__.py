"""Runs a bundle: one ONNX Runtime session per graph, host-side state, sampling, streaming.

engine.py       Engine: prompt -> chunked prefill -> logits
generation.py   an answer on its way: steps -> text, with timings
steps.py        a step of an answer: its last token, and drafts behind it
drafting.py     guesses of the next tokens; speculation.py gives them up where they do not pay
beams.py        the likeliest answer, by beam search
devices.py      CPU, NPU or emulator: where a target runs
session.py      graphs of one target, and the encodings at their borders
chain.py        a graph that was cut into parts, run as one
qnn.py          Qualcomm's provider; interrupt.py lets Ctrl-C leave its long steps
state.py        what the decoder remembers between steps; step_inputs.py: what else a graph takes
sampling.py     logits -> next token
constraint.py   which tokens may be next, by JSON schema (schema.py: its limits)
tools.py        calls of tools, in and out (pythonic.py reads them)
watch.py        what a caller may see of an answer while it is computed
"""

from autoneural.runtime.engine import Engine
from autoneural.runtime.generation import Generation, Piece, Result
from autoneural.runtime.sampling import Sampling
from autoneural.runtime.watch import Watch

__all__ = ["Engine", "Generation", "Piece", "Result", "Sampling", "Watch"]
