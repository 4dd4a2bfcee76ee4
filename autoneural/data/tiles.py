"""Pictures of their own shape: LFM2-VL's tiles and thumbnail, and their tokens. Torch-free.

    picture -> near its own size, within 64 to 256 tokens          one picture
            -> much larger: rows x columns tiles, then a thumbnail  several

    <|image_start|> [<|img_row_1_col_1|> <image>*N ...] [<|img_thumbnail|>] <image>*N <|image_end|>

Sizes, tokens and their order are those of transformers' `Lfm2VlImageProcessor` and
`Lfm2VlProcessor`; see the model card of LiquidAI/LFM2-VL-1.6B for what it is meant for. Pillow's
bilinear filter stands for torchvision's antialiased one: both round to bytes, a step apart at most.
A static graph has one size: with `square`, what is no tile is squashed to the size of a tile.
Shapes: H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from autoneural.config import TilingConfig
from autoneural.data.tokenizer import IMAGE_THUMBNAIL, Tokenizer
from autoneural.errors import UserError

Size = tuple[int, int]  # (height, width)


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """What became of one picture: `pictures` uint8 [3,H,W], tiles row by row, then the thumbnail.

    A picture that was not cut is one picture in one row and one column.
    """

    pictures: tuple[np.ndarray, ...]
    rows: int = 1
    columns: int = 1


def cut(image: Image.Image, tiling: TilingConfig, *, square: bool = False) -> Tiles:
    """An RGB picture as the model takes it: resized, or cut into tiles when it is far too large.

    Raises UserError for a strip so narrow that it takes more than `max_image_tokens`, one token
    being the least on a side. transformers' processor fails on it too, with tensors of two sizes.
    """
    size = (image.height, image.width)
    side = tiling.tile_size
    whole = (side, side) if square else fitted_size(size, tiling)
    tokens, most = whole[0] * whole[1] // _token_side(tiling) ** 2, tiling.max_image_tokens
    if tokens > most:
        raise UserError(
            f"image: {image.width}x{image.height} is too narrow: {tokens} tokens, "
            f"at most {most}; crop it"
        )
    if tiling.max_tiles == 1 or not is_too_large(size, tiling):
        return Tiles(pictures=(_resized(image, whole),))
    rows, columns = tile_grid(size, tiling)
    large_CHW = _resized(image, (rows * side, columns * side))
    tiles_RCTHW = large_CHW.reshape(3, rows, side, columns, side).transpose(1, 3, 0, 2, 4)
    pictures = [np.ascontiguousarray(tile) for row in tiles_RCTHW for tile in row]
    if tiling.use_thumbnail and len(pictures) > 1:
        pictures.append(_resized(image, whole))
    return Tiles(pictures=tuple(pictures), rows=rows, columns=columns)


def image_tokens(tiles: Tiles, counts: Sequence[int], tokenizer: Tokenizer) -> list[int]:
    """The ids that stand for one picture, of whose tiles each has so many visual tokens.

    Raises UserError when the tokenizer has no token for a tile.
    """
    ids = [tokenizer.image_start]
    for number, count in enumerate(counts):
        row, column = divmod(number, tiles.columns)
        if row == tiles.rows:
            ids.append(tokenizer.special_id(IMAGE_THUMBNAIL))
        elif tiles.rows * tiles.columns > 1:
            ids.append(tokenizer.special_id(f"<|img_row_{row + 1}_col_{column + 1}|>"))
        ids += [tokenizer.image_id] * count
    return [*ids, tokenizer.image_end]


def num_tokens(tiles: Tiles, tiling: TilingConfig) -> list[int]:
    """Visual tokens of each of the pictures."""
    area = _token_side(tiling) ** 2
    return [picture.shape[1] * picture.shape[2] // area for picture in tiles.pictures]


def fitted_size(size: Size, tiling: TilingConfig) -> Size:
    """The size near `size`, in whole tokens, whose tokens are within the limits."""
    token = _token_side(tiling)
    least, most = (n * token**2 for n in (tiling.min_image_tokens, tiling.max_image_tokens))
    area = size[0] * size[1]
    height, width = (max(token, _rounded(side, token)) for side in size)
    if height * width > most:
        shrink = math.sqrt(area / most)
        height, width = (max(token, math.floor(side / shrink / token) * token) for side in size)
    elif height * width < least:
        grow = math.sqrt(least / area)
        height, width = (math.ceil(side * grow / token) * token for side in size)
    return height, width


def is_too_large(size: Size, tiling: TilingConfig) -> bool:
    """Whether one picture of `max_image_tokens` would lose too much of it."""
    token = _token_side(tiling)
    height, width = (max(tiling.encoder_patch_size, _rounded(side, token)) for side in size)
    return height * width > tiling.max_image_tokens * token**2 * tiling.max_pixels_tolerance


def tile_grid(size: Size, tiling: TilingConfig) -> tuple[int, int]:
    """(rows, columns) of tiles whose shape is nearest to the picture's.

    Of two that are as near, the one with more tiles when the picture fills more than half of them.
    """
    height, width = size
    most = tiling.max_tiles
    shapes = {(c, r) for c in range(1, most + 1) for r in range(1, most // c + 1)}
    inside = [shape for shape in shapes if shape[0] * shape[1] >= tiling.min_tiles]
    best, least = (1, 1), math.inf
    for columns, rows in sorted(inside, key=lambda shape: shape[0] * shape[1]):
        difference = abs(width / height - columns / rows)
        half = tiling.tile_size**2 * columns * rows / 2
        if difference < least or (difference == least and height * width > half):
            best, least = (rows, columns), difference
    return best


def _token_side(tiling: TilingConfig) -> int:
    return tiling.encoder_patch_size * tiling.downsample_factor


def _rounded(side: int, step: int) -> int:
    return round(side / step) * step


def _resized(image: Image.Image, size: Size) -> np.ndarray:
    fitted = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.ascontiguousarray(np.asarray(fitted, dtype=np.uint8).transpose(2, 0, 1))
