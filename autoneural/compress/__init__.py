"""Compression: a float checkpoint in, a quantised one out, and what it cost.

    precision = PRECISIONS["w4a16"]
    quantize(model, precision)
    with Calibration(model):
        model(...)
    encodings = freeze(model, precision)

`post_training_quantize` does it for a checkpoint folder, `load_quantized` reads the result back.
"""
