"""Tensors that are spread over processes, on disk: PyTorch's distributed checkpoints (DCP) in its
safetensors layout, whose metadata is JSON in each file's header and not a pickle.

    FOLDER/shard-<process>-model-....safetensors    the pieces that one process holds

Pieces say where they belong, so that any number of processes reads them, one with the whole too.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from autoneural.errors import UserError


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Every process of the run writes its pieces of `tensors`; all must call it."""
    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    dcp.save(dict(tensors), storage_writer=writer)


def read_shards(folder: Path) -> dict[str, Tensor]:
    """The whole tensors, on the CPU, of a folder of pieces or of whole files. UserError: damaged.

    For this process alone: nothing is exchanged.
    """
    known = _metadata(folder)
    tensors = {k: torch.empty(m.size, dtype=m.properties.dtype) for k, m in known.items()}
    _load(folder, tensors, alone=True)
    return tensors


def fill_from_shards(folder: Path, targets: Mapping[str, Tensor]) -> set[str]:
    """Read into `targets`, spread or not, what `folder` has of them; returns the names it lacks.

    All processes of the run must call it.
    """
    known = _metadata(folder)
    _load(folder, {k: t for k, t in targets.items() if k in known}, alone=False)
    return targets.keys() - known.keys()


def _metadata(folder: Path) -> dict[str, TensorStorageMetadata]:
    try:
        found = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    except Exception as error:  # of safetensors, of JSON, of the file system
        raise UserError(f"{folder}: damaged or not safetensors ({error})") from error
    return {k: m for k, m in found.items() if isinstance(m, TensorStorageMetadata)}


def _load(folder: Path, tensors: dict[str, Tensor], *, alone: bool) -> None:
    reader = HuggingFaceStorageReader(str(folder))
    try:
        with warnings.catch_warnings():
            # That one process reads alone is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=reader, no_dist=alone)
    except (CheckpointException, ValueError, RuntimeError) as error:
        raise UserError(f"{folder}: damaged, or of another model ({error})") from error
