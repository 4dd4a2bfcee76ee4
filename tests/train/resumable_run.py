"""A small training run as a program of its own, so that a test can kill it while it saves.

python resumable_run.py CHECKPOINT ROWS RUN [N]   N: die by SIGKILL after writing the N-th file
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from autoneural.checkpoint import load_checkpoint, save_tensors
from autoneural.data.importers import open_source
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.model.vlm import VLM
from autoneural.train import state
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.trainer import RunOptions, Trainer

STAGES = (
    Stage(
        name="vision",
        objective="vision",
        train=("vision_encoder",),
        mixture={"demo": 1.0},
        steps=4,
        batch_size=4,
        lr={"vision_encoder": 1e-3},
        warmup=2,
        jitter=0.2,
    ),
    Stage(
        name="general",
        train=PARTS,
        mixture={"demo": 1.0},
        steps=6,
        batch_size=2,
        accumulate=2,
        lr=dict.fromkeys(PARTS, 1e-3),
        warmup=2,
        ema=0.9,
    ),
)


def train(checkpoint: Path, rows: Path, run: Path) -> None:
    """Both stages, saving after every step."""
    config = load_checkpoint(checkpoint).config
    torch.manual_seed(1)
    trainer = Trainer(
        VLM(config),
        Processor(Tokenizer.load(checkpoint), config.vision.image_size, config.vision.num_tokens),
        {"demo": open_source(rows / "train.jsonl", "demo")},
        STAGES,
        run,
        seed=3,
        options=RunOptions(device="cpu", precision="fp32", save_minutes=0.0, log_every=1),
    )
    trainer.run()


def _die_after(count: int) -> None:
    left = [count]

    def save_and_die(path: Path, tensors: Mapping[str, Tensor]) -> None:
        save_tensors(path, tensors)
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    state.save_tensors = save_and_die


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 4:
        _die_after(int(sys.argv[4]))
    train(*map(Path, sys.argv[1:4]))
