"""Several processes compute a step together, started by `torchrun`, with PyTorch's own engine.

    ddp    every process has the whole model; gradients are averaged (DistributedDataParallel)
    fsdp   weights, gradients and moments are spread over the processes (FSDP2, `fully_shard`)

Every process builds its own rows of each batch, and losses are divided by the weight of the whole
batch, so the steps are those of one process but for the order of sums. Process 0 prints and writes;
under fsdp all write their pieces of the state, into one folder that all must see.
"""

from __future__ import annotations

import copy
import os
import re
import shutil
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from autoneural.data.loader import Batch, with_blank
from autoneural.data.processor import Processor
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import longest_prefix
from autoneural.train.device import autocast, pick_device
from autoneural.train.engine import Engine, Parallel, to_device_layout
from autoneural.train.objectives import Objective
from autoneural.train.shards import fill_from_shards, write_shards
from autoneural.train.state import (
    Position,
    Tensors,
    check_filled,
    drop_older,
    fill_tensors,
    save_state,
    state_folder,
    write_position,
)

_SEEING = ("vision_encoder", "projector")
_LOST = ("gloo", "nccl", "connection", "peer")


@contextmanager
def join_engine(device: str, parallel: Parallel) -> Iterator[Engine]:
    """The engine of this process among those that torchrun started.

    Raises UserError, within as well: when another process of the run went away.
    """
    place = _join(device)
    engine = Sharded(place) if parallel == "fsdp" else Replicated(place)
    try:
        yield engine
    except RuntimeError as error:
        if not any(word in str(error).lower() for word in _LOST):
            raise
        first = str(error).strip().splitlines()[0]
        raise UserError(
            f"process {engine.rank} of {engine.size}: another one went away ({first}); the same "
            "command goes on from the last saved state"
        ) from error
    # Not after an error: the others may wait in a collective that nobody would end.
    dist.destroy_process_group()


def _join(device: str) -> torch.device:
    """Join the run's process group; the device of this process."""
    place = pick_device(device)
    try:
        if place.type == "cuda":
            place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
            torch.cuda.set_device(place)
            # Flags and counts are on the CPU.
            dist.init_process_group("cpu:gloo,cuda:nccl", device_id=place)
        else:
            dist.init_process_group("gloo")
    except ValueError as error:
        raise UserError(f"WORLD_SIZE is set, but torchrun did not start this: {error}") from error
    return place


class Learner(nn.Module):
    """Model, heads and loss as one module: what DDP and FSDP hook into is its forward."""

    def __init__(self, model: VLM, objective: Objective) -> None:
        super().__init__()
        self.model, self.heads = model, objective.modules
        self._loss = objective.loss

    def forward(self, batch: Batch) -> Tensor:
        return self._loss(self.model, batch)


class _Group(ABC):
    """What the two kinds share: this process among the others, and what they exchange."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    @property
    def main(self) -> bool:
        return self.rank == 0

    @abstractmethod
    def wrap(self, learner: Learner) -> nn.Module:
        """The module to call in place of `learner`, which exchanges gradients."""

    @abstractmethod
    def hold_back(self) -> AbstractContextManager[object]:
        """Within it, gradients need not be exchanged yet: more batches of the step follow."""

    def begin(self, learner: Learner, processor: Processor) -> None:
        self._learner, self._called, self._processor = learner, self.wrap(learner), processor

    def backward(self, objective: Objective, batches: Sequence[Batch], precision: str) -> float:
        total, pictures = self._totals(objective, batches)
        seeing = [p for n, p in self._learner.model.named_parameters() if _sees(n)]
        # All processes must run the same modules, whatever their rows hold.
        look = pictures or any(p.requires_grad for p in seeing)
        loss = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches, start=1):
            if look and not len(batch.pixel_values):
                batch = with_blank(batch, self._processor)
            with nullcontext() if number == len(batches) else self.hold_back():
                with autocast(precision, self.device):
                    part = self._called(batch) / total
                if part.requires_grad:
                    (part * self.size).backward()  # the engines average
            loss += part.detach()
        if not pictures:
            for parameter in seeing:
                parameter.grad = None  # as where nothing was seen
        dist.all_reduce(loss)
        return loss.item()

    def _totals(self, objective: Objective, batches: Sequence[Batch]) -> tuple[Tensor, bool]:
        """Weight of all targets of the step, and whether it has any picture."""
        weight = torch.stack([objective.normaliser(batch).float() for batch in batches]).sum()
        pictures = sum(len(batch.pixel_values) for batch in batches)
        totals = torch.stack([weight, weight.new_tensor(float(pictures))])
        dist.all_reduce(totals)
        return totals[0].clamp(min=1e-6), bool(totals[1] > 0)

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> float:
        norm = nn.utils.clip_grad_norm_(parameters, most)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def any(self, *flags: bool) -> list[bool]:
        raised = torch.tensor(flags, dtype=torch.int32)
        dist.all_reduce(raised, dist.ReduceOp.MAX)
        return [bool(flag) for flag in raised]

    def collect(self, sums: Iterable[Tensor]) -> None:
        for tensor in sums:
            dist.reduce(tensor, dst=0)
            if not self.main:
                tensor.zero_()

    def wait(self) -> None:
        dist.barrier()


class Replicated(_Group):
    """Distributed data parallel: the whole model in every process."""

    def place(self, model: VLM) -> VLM:
        return to_device_layout(model, self.device)

    def start(self, model: VLM, objective: Objective, processor: Processor) -> VLM:
        self.begin(Learner(model, objective), processor)
        return model

    def wrap(self, learner: Learner) -> nn.Module:
        # A kernel of one row has strides that differ in name only: it costs a copy.
        warnings.filterwarnings("ignore", message="(?s).*Grad strides do not match bucket view")
        return DistributedDataParallel(learner, forward_sync_buffers=False)

    def hold_back(self) -> AbstractContextManager[object]:
        assert isinstance(self._called, DistributedDataParallel)
        return self._called.no_sync()

    def finish(self, model: VLM) -> None:
        pass

    def save(self, run: Path, position: Position, model: Tensors, optim: Tensors) -> None:
        if self.main:
            save_state(run, position, model, optim)
        self.wait()

    def fill(self, state: Path, targets: Tensors) -> None:
        fill_tensors(state, targets)


class Sharded(_Group):
    """FSDP2: a copy of the model is spread for the length of a stage, decoder layer by decoder
    layer and block by block of the encoder; between stages the model is whole, on the CPU."""

    def place(self, model: VLM) -> VLM:
        return model

    def start(self, model: VLM, objective: Objective, processor: Processor) -> VLM:
        learner = Learner(copy.deepcopy(model), objective)
        self.begin(learner, processor)
        return learner.model

    def wrap(self, learner: Learner) -> nn.Module:
        # Layers return slices (conv windows); nothing of ours writes into them.
        warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view")
        mesh = init_device_mesh(self.device.type, (self.size,))
        for name, module in list(learner.model.named_modules()):
            if _is_unit(name):
                fully_shard(module, mesh=mesh)
        fully_shard(learner, mesh=mesh)
        return learner

    def hold_back(self) -> AbstractContextManager[object]:
        return nullcontext()  # to hold gradients back would keep them whole

    @torch.no_grad()
    def finish(self, model: VLM) -> None:
        spread = self._learner.model.state_dict()
        for name, target in model.state_dict().items():
            value = spread[name]
            target.copy_(value.full_tensor() if isinstance(value, DTensor) else value)

    def save(self, run: Path, position: Position, model: Tensors, optim: Tensors) -> None:
        folder = state_folder(run, position)
        if self.any(folder.exists())[0]:
            return
        temporary = run / f".{folder.name}"
        if self.main:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        self.wait()
        for part, tensors in (("model", model), ("optim", optim)):
            # What is not spread is the main one's to write: of sums, only it has all.
            mine = {k: t for k, t in tensors.items() if self.main or isinstance(t, DTensor)}
            write_shards(temporary / part, mine)
        self.wait()
        if self.main:
            write_position(temporary, position, len(list(temporary.glob("*/*.safetensors"))))
            os.replace(temporary, folder)
            drop_older(run)
        self.wait()

    def fill(self, state: Path, targets: Tensors) -> None:
        pieces = state / "optim"
        lacking = fill_from_shards(pieces if pieces.is_dir() else state, targets)
        check_filled(state, lacking)


def _sees(name: str) -> bool:
    return longest_prefix(name, _SEEING) is not None


def _is_unit(name: str) -> bool:
    """Whether the module is gathered as one: a decoder's or a ViT's layer, an encoder's block."""
    return re.fullmatch(r"language_model\.model\.layers\.\d+", name) is not None or (
        re.fullmatch(r"vision_encoder\.(blocks\.\d+\.\d+|encoder\.layers\.\d+)", name) is not None
    )
