"""What a lens does to a picture: fisheye, dirt, raindrops, glare; all off unless asked for.

    fisheye  k >= 0, barrel distortion; the corners stay, the centre grows 1 + 2k times
    dirt     [[x, y, rx, ry, alpha, "#rrggbb"], ...]  soft blobs
    drops    [[x, y, r], ...]  each shows the picture around it upside down and small
    glare    [[x, y, r, strength], ...]  bright blooms

Places and radii are fractions of the picture's side. `bent` and `bent_box` follow the fisheye from
the drawing into the picture: whatever is said about places must go through them.
"""

from __future__ import annotations

from functools import lru_cache
from math import hypot
from typing import Any

import numpy as np
from PIL import Image

from autoneural.data.cockpit.base import Box

CELLS = 16
"""The fisheye is exact at the corners of CELLS x CELLS tiles and bilinear within."""
MINIFY = 3
"""How much smaller than life a raindrop shows what is around it."""


def _source(values: np.ndarray, others: np.ndarray, k: float) -> np.ndarray:
    """Coordinate in the drawing of a picture point; both count from the centre, edges at 1."""
    return values * (1 + k * (values**2 + others**2)) / (1 + 2 * k)


@lru_cache(maxsize=64)
def _mesh(size: int, k: float) -> list[tuple[Any, Any]]:
    """PIL's mesh: target tiles, and the corners of each in the drawing (NW, SW, SE, NE)."""
    edges = np.rint(np.linspace(0, size, CELLS + 1)).astype(int)
    axis = edges * 2 / size - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    corners = (np.stack([_source(x, y, k), _source(y, x, k)], axis=2) + 1) * size / 2
    return [
        (
            (int(edges[j]), int(edges[i]), int(edges[j + 1]), int(edges[i + 1])),
            tuple(corners[[i, i + 1, i + 1, i], [j, j, j + 1, j + 1]].ravel().tolist()),
        )
        for i in range(CELLS)
        for j in range(CELLS)
    ]


def fisheye(image: Image.Image, k: float) -> Image.Image:
    """A square drawing seen through a barrel-distorting lens."""
    mesh = _mesh(image.width, k)
    return image.transform(
        image.size, Image.Transform.MESH, mesh, resample=Image.Resampling.BILINEAR
    )


def bent(x: float, y: float, k: float) -> tuple[float, float]:
    """Where the fisheye puts a point of the drawing; fractions of the side."""
    wanted = hypot(x * 2 - 1, y * 2 - 1)
    if k == 0 or wanted == 0:
        return x, y
    radius = wanted
    for _ in range(8):  # Newton on r (1 + k r^2) = (1 + 2k) wanted, convex for r > 0
        radius -= (radius * (1 + k * radius**2) - (1 + 2 * k) * wanted) / (1 + 3 * k * radius**2)
    grow = radius / wanted
    return 0.5 + (x - 0.5) * grow, 0.5 + (y - 0.5) * grow


def bent_box(box: Box, k: float) -> Box:
    """The box around what a box of the drawing becomes, within the picture."""
    steps = [i / 8 for i in range(9)]
    xs = [box.left + (box.right - box.left) * t for t in steps]
    ys = [box.top + (box.bottom - box.top) * t for t in steps]
    rim = [(x, y) for x in xs for y in (box.top, box.bottom)]
    rim += [(x, y) for x in (box.left, box.right) for y in ys]
    points = [bent(x, y, k) for x, y in rim]
    left, right = (end(x for x, _ in points) for end in (min, max))
    top, bottom = (end(y for _, y in points) for end in (min, max))
    return Box(*(round(min(max(value, 0.0), 1.0), 4) for value in (left, top, right, bottom)))


def _window(
    size: int, x: float, y: float, rx: float, ry: float
) -> tuple[slice, slice, np.ndarray, np.ndarray]:
    """Rows and columns around a blob, and the offsets from its centre in units of its radii."""
    rows = slice(max(int((y - ry) * size), 0), min(int((y + ry) * size) + 2, size))
    columns = slice(max(int((x - rx) * size), 0), min(int((x + rx) * size) + 2, size))
    down = (np.arange(rows.start, rows.stop, dtype=np.float32) + 0.5) / size
    along = (np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5) / size
    return rows, columns, (along[None, :] - x) / rx, (down[:, None] - y) / ry


def _blend(
    pixels: np.ndarray, rows: slice, columns: slice, color: np.ndarray, alpha: np.ndarray
) -> None:
    """Lays `color` ([3] or [rows, columns * 3]) over a window of [size, 3 * size] pixels."""
    part = pixels[rows, columns.start * 3 : columns.stop * 3]
    opacity = np.repeat(alpha, 3, axis=1)
    tint = np.tile(color, alpha.shape[1]) if color.ndim == 1 else color
    part += opacity * (tint - part)


def _dirt(pixels: np.ndarray, blob: list[Any]) -> None:
    """Thick in the middle, ragged at the rim (beyond 1.3 radii nothing is left)."""
    x, y, rx, ry, alpha, color = blob
    rows, columns, u, v = _window(len(pixels), x, y, 1.3 * rx, 1.3 * ry)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    u, v = u * 1.3, v * 1.3
    ragged = 0.12 * np.sin(7 * u + 40 * x) * np.sin(6 * v + 40 * y)
    thick = np.clip((1.3 - np.sqrt(u**2 + v**2) + ragged) / 0.45, 0, 1)
    tint = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
    _blend(pixels, rows, columns, tint, thick * np.float32(alpha))


def _drop(pixels: np.ndarray, clean: np.ndarray, drop: list[float]) -> None:
    """A drop is a strong lens of its own: the surroundings inverted, a dark rim, a highlight."""
    x, y, r = drop
    size = len(pixels)
    rows, columns, u, v = _window(size, x, y, r, r)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    far = 2 * MINIFY * r * size
    down = np.clip(y * size - v[:, 0] * far / 2, 0, size - 1).astype(int)
    along = np.clip(x * size - u[0] * far / 2, 0, size - 1).astype(int)
    seen = clean.reshape(size, size, 3)[down][:, along].reshape(len(down), -1)
    distance = np.sqrt(u**2 + v**2)
    shade = 1.06 - 0.5 * distance**4
    shine = 90 * np.exp(-((u + 0.35) ** 2 + (v + 0.4) ** 2) / 0.05)
    seen = seen * np.repeat(shade, 3, axis=1) + np.repeat(shine, 3, axis=1)
    _blend(pixels, rows, columns, seen, np.clip((1 - distance) / 0.12, 0, 1))


def _glare(pixels: np.ndarray, bloom: list[float]) -> None:
    x, y, r, strength = bloom
    size = len(pixels)
    rows, columns, u, v = _window(size, x, y, 2.2 * r, 2.2 * r)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return
    distance = (u**2 + v**2) * 2.2**2
    white = np.array([255, 250, 232], dtype=np.float32)
    core = np.clip(1.6 * np.exp(-(distance**2)), 0, 1) + 0.35 * np.exp(-distance)
    _blend(pixels, rows, columns, white, np.clip(np.float32(strength) * core, 0, 1))


def soil(pixels: np.ndarray, camera: dict[str, Any]) -> np.ndarray:
    """Dirt, drops and glare that `camera` names, on float pixels [size, 3 * size]."""
    if not any(camera.get(key) for key in ("dirt", "drops", "glare")):
        return pixels
    clean, pixels = pixels, pixels.copy()
    for blob in camera.get("dirt", ()):
        _dirt(pixels, blob)
    for drop in camera.get("drops", ()):
        _drop(pixels, clean, drop)
    for bloom in camera.get("glare", ()):
        _glare(pixels, bloom)
    return pixels
