"""Scene -> pixels: resvg draws the SVG, then numpy plays the camera.

svg -> resvg (portable, no system fonts) -> fisheye? -> slight blur -> dirt, drops, glare?
    -> infrared grey? -> exposure, white balance, vignette -> sensor noise -> uint8

What has a question mark happens where `params["camera"]` asks for it; `lens` explains its keys.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from autoneural.data.cockpit import lens
from autoneural.data.cockpit.base import Scene, rng_for
from autoneural.data.cockpit.fonts import font_file


def rasterise(svg: str, size: int, fonts: tuple[str, ...] = ()) -> Image.Image:
    """An SVG document as an RGB image of `size` x `size`, with only the named fonts."""
    import resvg_py  # of the extra [data], which reading rows does without

    png = resvg_py.svg_to_bytes(
        svg_string=svg,
        width=size,
        height=size,
        skip_system_fonts=True,
        font_files=[font_file(name) for name in fonts],
    )
    return Image.open(io.BytesIO(png)).convert("RGB")


@lru_cache(maxsize=4)
def _radius_squared(size: int) -> np.ndarray:
    """Squared distance from the centre, 1 in the corners: [size, 3 * size]."""
    axis = np.linspace(-1, 1, size, dtype=np.float32) ** 2
    return np.repeat((axis[:, None] + axis[None, :]) / 2, 3, axis=1)


def _veil(pixels: np.ndarray, color: str, left: float, right: float) -> np.ndarray:
    size = len(pixels)
    tint = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.float32)
    alpha = np.repeat(np.linspace(left, right, size, dtype=np.float32), 3)
    return pixels * (1 - alpha) + alpha * np.tile(tint, size)


def _infrared(pixels: np.ndarray) -> np.ndarray:
    """A near-infrared camera: no colour, lit from the camera, darkness behind the subject."""
    size = len(pixels)
    grey = pixels.reshape(size, size, 3) @ np.array([0.5, 0.35, 0.15], dtype=np.float32)
    grey = 0.45 * grey + 8.0 * np.sqrt(grey)  # skin and cloth reflect more than what eyes see
    return np.repeat(grey, 3, axis=1) * (1.08 - 0.65 * _radius_squared(size))


def _blur(pixels: np.ndarray, sigma: float) -> np.ndarray:
    """A three-tap blur of standard deviation `sigma` < 1 pixel, both ways; edges stay."""
    w = np.float32(sigma * sigma / 2)
    out = pixels.copy()
    out[1:-1] += w * (pixels[2:] + pixels[:-2] - 2 * pixels[1:-1])
    again = out.copy()
    again[:, 3:-3] += w * (out[:, 6:] + out[:, :-6] - 2 * out[:, 3:-3])
    return again


def _camera(image: Image.Image, camera: dict[str, Any], rng: np.random.Generator) -> np.ndarray:
    """Rows are [size, 3 * size]: numpy is many times slower over a last axis of three."""
    size = image.width
    pixels = _blur(np.asarray(image, dtype=np.float32).reshape(size, 3 * size), camera["blur"])
    pixels = lens.soil(pixels, camera)
    if camera["veil"]:
        pixels = _veil(pixels, *camera["veil"])
    gain = np.array(camera["gain"], dtype=np.float32) * np.float32(camera["exposure"])
    if camera["infrared"]:
        pixels, gain = _infrared(pixels), np.repeat(np.float32(camera["exposure"]), 3)
    pixels *= np.tile(gain, size)
    pixels *= 1 - np.float32(camera["vignette"]) * _radius_squared(size)
    grain = rng.standard_normal((size, size), dtype=np.float32) * np.float32(camera["noise"])
    pixels += np.repeat(grain, 3, axis=1) + np.float32(0.5)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8).reshape(size, size, 3)


def draw(scene: Scene, svg: str, size: int = 256) -> np.ndarray:
    """Pixels [size, size, 3] uint8 of a scene whose SVG is given."""
    image = rasterise(svg, size, tuple(scene.params.get("fonts", ())))
    bend = scene.params["camera"].get("fisheye", 0)
    if bend:
        image = lens.fisheye(image, bend)
    rng = rng_for(scene.task, scene.split, scene.seed, "noise")
    return _camera(image, scene.params["camera"], rng)
