"""Compression: a float model in, a quantised one out, and what it cost.

Three verbs on any model made of our layers, in place, in the manner of optimum-quanto:

    precision = PRECISIONS["w4a16"]
    quantize(model, precision)             # attach quantisers; nothing is rounded yet
    with Calibration(model):               # inputs of 4-bit layers, ranges of outputs
        model(...)
    encodings = freeze(model, precision)   # fix integers and ranges, switch rounding on

`calibrate` does the three in one, and better: weights first, then ranges with the rounded weights;
its `rounding` is "nearest", "compensated" or "sequential". Rewrites come before it, each alone or
in this order, and leave the function of the float model as it is:

    untie_head(model)    a head of its own, which `rotate` needs
    fold(model)          norm weights and layer scales into the layers beside them
    rotate(model)        the decoder's residual stream and its values, by Hadamard matrices
    equalize(model)      channels of two layers with nothing bent between them
    smooth(model, runs)  large activations into the weights that read them

`post_training_quantize` quantises a checkpoint folder, `load_quantized` reads the result back.
"""

from autoneural.compress import fake_quant
from autoneural.compress.equalize import equalize
from autoneural.compress.fake_quant import Calibration, freeze
from autoneural.compress.fold import fold, untie_head
from autoneural.compress.precision import PRECISIONS, Precision, Rule
from autoneural.compress.quantize import calibrate, load_quantized, post_training_quantize
from autoneural.compress.rewrite import Rewrite
from autoneural.compress.rotate import rotate
from autoneural.compress.smooth import smooth

# Last, because loading the file of the same name has bound it to the module.
quantize = fake_quant.quantize

__all__ = [
    "PRECISIONS",
    "Calibration",
    "Precision",
    "Rewrite",
    "Rule",
    "calibrate",
    "equalize",
    "fold",
    "freeze",
    "load_quantized",
    "post_training_quantize",
    "quantize",
    "rotate",
    "smooth",
    "untie_head",
]
