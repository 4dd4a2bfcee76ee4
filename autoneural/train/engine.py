"""Who computes an optimiser step: this process alone, or several of them (`distributed.py`).

The trainer decides what is trained on what and when; an engine takes a model and an objective for
the length of a stage and turns batches into gradients.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from autoneural.data.loader import Batch
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.device import autocast, pick_device
from autoneural.train.objectives import Objective
from autoneural.train.state import Position, Tensors, fill_tensors, save_state

Parallel = Literal["ddp", "fsdp"]


class Engine(Protocol):
    """Process `rank` of `size`. All but `main` and `place` are called by all processes at once."""

    device: torch.device
    rank: int
    size: int

    @property
    def main(self) -> bool:
        """Whether this process is the one that prints and writes."""
        ...

    def place(self, model: VLM) -> VLM:
        """Put the model where it lies between stages."""
        ...

    def start(self, model: VLM, objective: Objective, processor: Processor) -> VLM:
        """Begin a stage; returns the model whose parameters train, under the same names."""
        ...

    def backward(self, objective: Objective, batches: Sequence[Batch], precision: str) -> float:
        """Gradients of all batches of all processes as if they were one; returns its loss."""
        ...

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> float:
        """Clip the norm of all gradients; returns what it was."""
        ...

    def finish(self, model: VLM) -> None:
        """End the stage: what was trained is in `model`."""
        ...

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process raised it."""
        ...

    def collect(self, sums: Iterable[Tensor]) -> None:
        """Bring tensors that add up over the processes together in the main one, in place."""
        ...

    def save(self, run: Path, position: Position, model: Tensors, optim: Tensors) -> None:
        """`save_state` of the tensors of all processes."""
        ...

    def fill(self, state: Path, targets: Tensors) -> None:
        """Copy the optimiser's tensors of a saved state into `targets`."""
        ...

    def wait(self) -> None:
        """Go on when all processes have come here."""
        ...


class Alone:
    """One process; nothing is exchanged."""

    rank, size, main = 0, 1, True

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def place(self, model: VLM) -> VLM:
        return to_device_layout(model, self.device)

    def start(self, model: VLM, objective: Objective, processor: Processor) -> VLM:
        self._model = model
        return model

    def backward(self, objective: Objective, batches: Sequence[Batch], precision: str) -> float:
        return accumulate(self._model, objective, batches, precision)

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> float:
        return float(nn.utils.clip_grad_norm_(parameters, most))

    def finish(self, model: VLM) -> None:
        pass

    def any(self, *flags: bool) -> list[bool]:
        return list(flags)

    def collect(self, sums: Iterable[Tensor]) -> None:
        pass

    def save(self, run: Path, position: Position, model: Tensors, optim: Tensors) -> None:
        save_state(run, position, model, optim)

    def fill(self, state: Path, targets: Tensors) -> None:
        fill_tensors(state, targets)

    def wait(self) -> None:
        pass


@contextmanager
def open_engine(device: str, parallel: Parallel | None = None) -> Iterator[Engine]:
    """The engine of this process: `parallel` (default ddp) where torchrun started several.

    Raises UserError where `parallel` is asked for and torchrun did not start this process.
    """
    if "RANK" not in os.environ and parallel is not None:
        raise UserError(
            f"--parallel {parallel}: start it as `torchrun --nproc-per-node N -m -- autoneural ...`"
        )
    if parallel is None and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Alone(pick_device(device))
        return
    from autoneural.train.distributed import join_engine

    with join_engine(device, parallel or "ddp") as engine:
        yield engine


def accumulate(model: VLM, objective: Objective, batches: Sequence[Batch], precision: str) -> float:
    """Backward through all `batches` as if they were one; returns its loss."""
    weights = [objective.normaliser(batch) for batch in batches]
    total = torch.stack([weight.float() for weight in weights]).sum().clamp(min=1e-6)
    loss = torch.zeros((), device=total.device)
    for batch in batches:
        with autocast(precision, total.device):
            part = objective.loss(model, batch) / total
        # A batch without any target (or none for the parts that train) has nothing to learn.
        if part.requires_grad:
            part.backward()
        loss += part.detach()
    return loss.item()


def to_device_layout(model: VLM, device: torch.device) -> VLM:
    """The model on `device`, its convolutions in the layout in which they are quickest."""
    model = model.to(device)
    model.vision_encoder.to(memory_format=torch.channels_last)  # pyright: ignore
    return model


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all tensors on `device`."""
    if device.type == "cpu":
        return batch

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    return Batch(
        move(batch.input_ids),
        move(batch.labels),
        move(batch.pixel_values),
        {name: move(tensor) for name, tensor in batch.targets.items()},
        move(batch.cells),
        move(batch.weights),
    )
