"""Probe: how small may the characters of a licence plate be before the tiny encoder cannot read?

    python runs/probe_plates.py [--minutes 60] [--tokens 8|16] [--start CHECKPOINT] [--cells]

Plates only: seven random characters, glyphs 8 to 24 px high, anywhere in a 256 px picture, slightly
turned, blurred and noisy. `cockpit-tiny`'s encoder learns, from nothing or from a checkpoint, with
one attention query and one classifier per character: first large plates in the middle, then smaller
ones, then anywhere. With `--cells` every cell of 8 x 8 pixels has a character for a target as well,
and plates are anywhere from the start, large ones first. Prints characters and whole plates read,
and characters named in their cells, by glyph height, on plates in fonts that training saw and in
others, and on those others in the middle, as a crop would show them; one JSON line at the end.
`--minutes` counts processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import defaultdict
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from autoneural.bench.answer_checkpoint import load_model
from autoneural.config import MobileNetV5Config, preset
from autoneural.data.cells import BACKGROUND, CELL
from autoneural.data.cockpit.fonts import COMMON, FONTS, HELD_OUT
from autoneural.data.cockpit.render import rasterise
from autoneural.model.vision_encoder import MobileNetV5
from autoneural.train.device import autocast, pick_precision
from autoneural.train.loss import attribute_loss, cell_loss
from autoneural.train.vision_heads import AttributeHeads, CellHead

LETTERS = "ABCDEFGHJKLMNPRSTUVWXYZ0123456789"
SLOTS, SIZE, HEIGHTS = 7, 256, (8, 24)
# Until this share of the time: the least height, and how far from the middle (1: anywhere).
PHASES = ((0.3, 18, 0.0), (0.6, 8, 0.2), (1.0, 8, 1.0))
CELL_PHASES = ((0.3, 14, 1.0), (1.0, 8, 1.0))
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Plates:
    """Pictures uint8 [N,3,S,S], classes [N, SLOTS], glyph heights in px, cells [N, G, G]."""

    pixels: Tensor
    classes: Tensor
    heights: list[int]
    cells: Tensor


def draw(
    index: int, split: str, least: int, spread: float
) -> tuple[np.ndarray, np.ndarray, int, np.ndarray]:
    """One of each of `Plates`."""
    rng = np.random.default_rng((index, split == "test"))
    height = int(rng.integers(least, HEIGHTS[1] + 1))
    classes = rng.integers(0, len(LETTERS), SLOTS)
    text = "".join(LETTERS[i] for i in classes)
    names = HELD_OUT if split == "test" else COMMON
    name = names[int(rng.integers(len(names)))]
    font = FONTS[name]
    # Capitals are about 0.7 em high.
    em, step, width = height / 0.7, 0.82 * height, height * 0.82 * SLOTS + height
    x = (SIZE - width) * (0.5 + spread * rng.uniform(-0.48, 0.48))
    y = (SIZE - 2 * height) * (0.5 + spread * rng.uniform(-0.48, 0.48))
    light, angle = int(rng.integers(190, 250)), float(rng.uniform(-4, 4))
    body = ",".join(str(v) for v in rng.integers(20, 200, 3))
    style = f'font-size="{em:.1f}" font-family="{font.family}" font-weight="{font.weight}"'
    glyphs = "".join(
        f'<text x="{x + height + step * i:.1f}" y="{y + 1.4 * height:.1f}" text-anchor="middle"'
        f" {style}>{character}</text>"
        for i, character in enumerate(text)
    )
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE} {SIZE}">'
        f'<rect width="{SIZE}" height="{SIZE}" fill="rgb({body})"/>'
        f'<g transform="rotate({angle:.1f} {x + width / 2:.0f} {y + height:.0f})">'
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{1.8 * height:.1f}" rx="2"'
        f' fill="rgb({light},{light},{light})"/>{glyphs}</g></svg>'
    )
    pixels = np.asarray(rasterise(svg, SIZE, (name,)), dtype=np.float32)
    pixels = pixels * rng.uniform(0.6, 1.1) + rng.standard_normal(pixels.shape[:2])[..., None] * 6
    offsets = height + step * np.arange(SLOTS) - width / 2 + 1j * -0.1 * height
    centres = x + width / 2 + 1j * (y + height) + offsets * np.exp(1j * math.radians(angle))
    cells = np.full((SIZE // CELL, SIZE // CELL), BACKGROUND)
    cells[(centres.imag // CELL).astype(int), (centres.real // CELL).astype(int)] = classes
    return pixels.clip(0, 255).astype(np.uint8).transpose(2, 0, 1), classes, height, cells


def pictures(
    start: int, count: int, split: str, least: int = HEIGHTS[0], spread: float = 1.0
) -> Plates:
    """`count` pictures and what is on them."""
    drawn = (draw(index, split, least, spread) for index in range(start, start + count))
    pixels, classes, heights, cells = zip(*drawn, strict=True)
    pixels, classes, cells = (torch.from_numpy(np.stack(a)) for a in (pixels, classes, cells))
    return Plates(pixels, classes, list(heights), cells)


class Reader(torch.nn.Module):
    """`cockpit-tiny`'s encoder with `tokens` x `tokens` visual tokens, and one head per slot."""

    def __init__(self, tokens: int, start: str | None) -> None:
        super().__init__()
        config = preset("cockpit-tiny").vision
        assert isinstance(config, MobileNetV5Config)
        config = replace(config, fusion_size=tokens)
        encoder = MobileNetV5(config)
        if start is not None:
            encoder.load_state_dict(load_model(start).vision_encoder.state_dict())
        self.encoder = encoder.to(memory_format=torch.channels_last)  # pyright: ignore
        self.heads = AttributeHeads([len(LETTERS)] * SLOTS, config.out_channels, tokens**2)
        self.cells = CellHead(len(LETTERS), config.out_channels, tokens**2, SIZE // CELL)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the characters by place on the plate, and by cell of the picture."""
        scaled = pixels.float().div(255).contiguous(memory_format=torch.channels_last)
        seen = self.encoder(scaled)
        return self.heads(seen), self.cells(seen)


def train(reader: Reader, seconds: float, cached: int, with_cells: bool, batch: int = 32) -> int:
    """Train for `seconds` of processor time, drawing included; returns the pictures seen."""
    peak, phases = (1e-3, CELL_PHASES) if with_cells else (2e-3, PHASES)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=peak, betas=(0.9, 0.98))
    precision, began, seen = pick_precision("auto", CPU), time.process_time(), 0
    cache: dict[tuple[int, float], Plates] = {}
    while (spent := (time.process_time() - began) / seconds) < 1:
        until, least, spread = next(phase for phase in phases if spent < phase[0])
        key = (seen % cached, until)
        if key not in cache:
            cache[key] = pictures(key[0], batch, "train", least, spread)
        plates = cache[key]
        for group in optimizer.param_groups:
            warm = min(1.0, seen / (100 * batch))
            group["lr"] = peak * warm * (0.02 + 0.49 * (1 + math.cos(math.pi * spent)))
        with autocast(precision, CPU):
            slots, cells = reader(plates.pixels)
            loss = attribute_loss(slots, plates.classes) / plates.classes.numel()
            if with_cells:
                loss = loss + 2 * cell_loss(cells, plates.cells) / (plates.cells >= 0).sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seen += batch
        if seen % (50 * batch) == 0:
            found = by_cell(cells, plates.cells).float().mean().item()
            print(
                f"{seen:7d} pictures  {spent:6.1%}  loss {loss.item():.3f}  cells {found:.3f}",
                flush=True,
            )
    return seen


def by_cell(logits: Tensor, cells: Tensor) -> Tensor:
    """Whether each character is named in its cell."""
    held = cells >= 0
    return logits[held].argmax(-1) == cells[held]


@torch.inference_mode()
def read(reader: Reader, count: int, split: str, spread: float) -> list[dict[str, float]]:
    """Characters and whole plates right, per band of four pixels of glyph height."""
    bands: dict[int, list[Tensor]] = defaultdict(list)
    named: dict[int, list[Tensor]] = defaultdict(list)
    for start in range(0, count, 50):
        plates = pictures(10**6 + start, 50, split, spread=spread)
        slots, cells = reader(plates.pixels)
        right = slots.argmax(-1) == plates.classes
        for row, found, truth, height in zip(
            right, cells, plates.cells, plates.heights, strict=True
        ):
            bands[height // 4 * 4].append(row)
            named[height // 4 * 4].append(by_cell(found, truth))
    rows: list[dict[str, float]] = []
    for height, members in sorted(bands.items()):
        right = torch.stack(members).float()
        plates = right.all(1).float().mean().item()
        characters = right.mean().item()
        cells = torch.cat(named[height]).float().mean().item()
        row = {"characters": characters, "plates": plates, "cells": cells}
        rows.append({"height": height, "n": len(right), **row})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=8)
    parser.add_argument("--start", help="take the encoder of this checkpoint, not random weights")
    parser.add_argument("--cells", action="store_true", help="a target for every cell as well")
    parser.add_argument("--compile", action="store_true", help="needs a C++ compiler")
    parser.add_argument("--cached", type=int, default=16_000, help="pictures drawn, then reused")
    parser.add_argument("--count", type=int, default=2000, help="pictures read per split")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    reader = Reader(args.tokens, args.start)
    if args.compile:
        reader.encoder.compile()
    seen = train(reader, 60 * args.minutes, args.cached, args.cells)
    report = {
        "minutes": args.minutes,
        "tokens": args.tokens**2,
        "start": args.start,
        "pictures": seen,
    }
    for name, split, spread in (
        ("seen_fonts", "train", 1.0),
        ("held_out_fonts", "test", 1.0),
        ("in_the_middle", "test", 0.0),
    ):
        report[name] = read(reader, args.count, split, spread)
        for row in report[name]:
            print(
                f"{name:15} {row['height']:.0f}-{row['height'] + 3:.0f} px  "
                + ", ".join(f"{key} {row[key]:.3f}" for key in ("characters", "plates", "cells"))
            )
    print(json.dumps(report))


if __name__ == "__main__":
    main()
