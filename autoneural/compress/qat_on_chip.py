"""QAT whose forward pass is a chip's: what is learnt is what that chip will compute.

    on_chip = ChipForward(68, samples)
    RoundedObjective(objective, on_chip.follow)      before every loss

Integers and ranges are taken as they are learnt so far, scales are snapped as they will be in the
end (`snap.py`: what the chip does to scales that are not is nothing to learn from), and every layer
of the matrix engine gets its arithmetic anew (`chip.py`). Values are the chip's, gradients those of
learned rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from autoneural.compress.chip import compute_as
from autoneural.compress.qat import settle
from autoneural.compress.report import Run
from autoneural.compress.snap import snap_scales
from autoneural.compress.wiring import Wiring, trace


class ChipForward:
    """Of HTP generation `htp` (68, 73, ...); `runs` show which module reads which.

    Raises UserError at the first loss for a model whose numbers that engine does not take, such as
    8-bit activations.
    """

    def __init__(self, htp: int, runs: Sequence[Run]) -> None:
        self._htp = htp
        self._runs = runs
        self._wiring: Wiring | None = None

    @torch.no_grad()
    def follow(self, model: nn.Module) -> None:
        """Compute, from now on, as the chip does with what `model` has learnt so far."""
        compute_as(model, None)
        settle(model)
        if self._wiring is None:
            self._wiring = trace(model, self._runs)
        snap_scales(model, self._wiring, write=False)
        compute_as(model, self._htp, self._wiring)
