"""What a caller may see of an answer while it is computed, and where it may stop it."""

from __future__ import annotations

import numpy as np


class Watch:
    """Sees nothing. Derive from it and give it to `Engine.answer`.

    Its methods run on the thread that computes. An exception they raise ends the answer and reaches
    the caller; the engine stays usable.
    """

    def step(self) -> None:
        """Before each picture, each chunk of the prompt and each decoding step."""

    def token(self, token: int, logits: np.ndarray) -> None:
        """Each token of the answer, the end token included, with the logits [V] it came from."""


NOBODY = Watch()
