"""A small training run for one process or several, as a program of its own.

python parallel_run.py KIND CHECKPOINT ROWS RUN [N]
KIND: alone, ddp, fsdp, as torchrun would start it. N: the last process dies at the N-th step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from autoneural.checkpoint import load_checkpoint
from autoneural.data.dataset import Source
from autoneural.data.importers import open_source
from autoneural.data.messages import image_parts
from autoneural.data.processor import Processor
from autoneural.data.tokenizer import Tokenizer
from autoneural.errors import UserError
from autoneural.model.vlm import VLM
from autoneural.train.curriculum import PARTS, Stage
from autoneural.train.engine import open_engine
from autoneural.train.trainer import RunOptions, Trainer

STAGES = (
    Stage(
        name="vision",
        objective="vision",
        train=("vision_encoder",),
        mixture={"demo": 1.0},
        steps=3,
        batch_size=4,
        lr={"vision_encoder": 1e-3},
        warmup=2,
        jitter=0.2,
    ),
    # Three rows for two processes, some with a picture and some without.
    Stage(
        name="general",
        train=PARTS,
        mixture={"demo": 0.4, "words": 0.6},
        steps=5,
        batch_size=3,
        accumulate=2,
        lr=dict.fromkeys(PARTS, 1e-3),
        warmup=2,
        ema=0.9,
    ),
    # Steps without any picture, after those with some.
    Stage(
        name="words",
        train=PARTS,
        mixture={"words": 1.0},
        steps=2,
        batch_size=3,
        lr=dict.fromkeys(PARTS, 1e-3),
    ),
)


def without_pictures(row: dict[str, Any]) -> dict[str, Any]:
    """The row's later turns: nothing in them needs the picture."""
    rest = row["messages"][2:]
    assert not list(image_parts(rest))
    return {"messages": rest}


def train(kind: str, checkpoint: Path, rows: Path, run: Path) -> None:
    """All stages, saving after every step."""
    config = load_checkpoint(checkpoint).config
    demo = open_source(rows / "train.jsonl", "demo")
    words = Source("words", [without_pictures(demo.row(i)) for i in range(len(demo))])
    options = RunOptions(
        device="cpu",
        parallel=None if kind == "alone" else kind,
        precision="fp32",
        save_minutes=0.0,
        log_every=1,
    )
    torch.manual_seed(1)
    with open_engine("cpu", options.parallel) as engine:
        trainer = Trainer(
            VLM(config),
            Processor(
                Tokenizer.load(checkpoint), config.vision.image_size, config.vision.num_tokens
            ),
            {"demo": demo, "words": words},
            STAGES,
            run,
            seed=3,
            options=options,
            engine=engine,
        )
        trainer.run()
        engine.wait()


def _die_at(step: int) -> None:
    advance = Trainer._advance

    def advance_or_die(self: Trainer, *arguments: Any) -> None:
        if self.position.total_step == step and self.engine.rank == self.engine.size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        advance(self, *arguments)

    Trainer._advance = advance_or_die  # pyright: ignore[reportAttributeAccessIssue]


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) > 5:
        _die_at(int(sys.argv[5]))
    try:
        train(sys.argv[1], *map(Path, sys.argv[2:5]))
    except UserError as error:
        sys.exit(f"error: {error}")
