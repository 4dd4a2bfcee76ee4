"""Tiles, thumbnail and their tokens are those of transformers' LFM2-VL processor."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tokenizers
from PIL import Image
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast
from transformers.models.lfm2_vl.image_processing_lfm2_vl import Lfm2VlImageProcessor
from transformers.models.lfm2_vl.processing_lfm2_vl import Lfm2VlProcessor

from autoneural.config import TilingConfig
from autoneural.data.processor import Processor, TilingProcessor
from autoneural.data.tiles import (
    cut,
    fitted_size,
    image_tokens,
    is_too_large,
    num_tokens,
    tile_grid,
)
from autoneural.data.tokenizer import Tokenizer, train_tokenizer
from autoneural.errors import UserError

SMALL = TilingConfig(
    tile_size=64, min_image_tokens=4, max_image_tokens=16, encoder_patch_size=8, max_tiles=6
)
SIZES = [(640, 480), (1100, 520), (300, 900), (130, 128), (40, 300), (64, 64), (20, 20), (1500, 90)]
TILINGS = {
    "small": SMALL,
    "without-thumbnail": replace(SMALL, use_thumbnail=False),
    "never-cut": replace(SMALL, min_tiles=1, max_tiles=1),
    "up-to-three": replace(SMALL, min_tiles=2, max_tiles=3),
    "patient": replace(SMALL, max_pixels_tolerance=100.0),
}


def noise(width: int, height: int) -> Image.Image:
    """Coarse random colours, so that resizing has something to lose."""
    rng = np.random.default_rng(width * 10_000 + height)
    coarse = rng.integers(0, 256, (height // 5 + 2, width // 5 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """With a token for every tile of a grid of 10 x 10, as LFM2-VL's."""
    plain = train_tokenizer(["What is this? Two roads and a sign."] * 4, 300)
    backend = tokenizers.Tokenizer.from_str(plain._backend.to_str())
    names = [f"<|img_row_{r}_col_{c}|>" for r in range(1, 11) for c in range(1, 11)]
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    return Tokenizer(backend, plain._template_text)


def reference(tokenizer: Tokenizer, tiling: TilingConfig) -> Lfm2VlProcessor:
    values = {name: getattr(tiling, name) for name in TilingConfig.__dataclass_fields__}
    words = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer._backend,
        pad_token="<|pad|>",
        extra_special_tokens={
            "image_token": "<image>",
            "image_start_token": "<|image_start|>",
            "image_end_token": "<|image_end|>",
            "image_thumbnail_token": "<|img_thumbnail|>",
        },
    )
    return Lfm2VlProcessor(Lfm2VlImageProcessor(**values), words)


def unflatten(values: np.ndarray, grid: tuple[int, int], patch: int) -> np.ndarray:
    """Scaled patches [P,patch*patch*3] -> bytes [3,H,W], not rounded."""
    rows, columns = grid
    cells = values[: rows * columns].reshape(rows, columns, patch, patch, 3)
    return cells.transpose(4, 0, 2, 1, 3).reshape(3, rows * patch, columns * patch) * 127.5 + 127.5


@pytest.mark.parametrize("name", TILINGS)
def test_ids_and_pixels_equal_transformers(name: str, tokenizer: Tokenizer) -> None:
    tiling = TILINGS[name]
    theirs, ours = reference(tokenizer, tiling), TilingProcessor(tokenizer, tiling)
    cuts = []
    for first, second in zip(SIZES, [*SIZES[1:], SIZES[0]], strict=True):
        images = [noise(*first), noise(*second)]
        image = {"type": "image", "image": None}
        parts = [image, {"type": "text", "text": "What is this?"}, image]
        messages = [{"role": "user", "content": parts}]
        actual = ours(messages, images)
        text = tokenizer.apply_chat_template(messages)
        expected = theirs(text=[text], images=[images], return_tensors="np")
        assert actual.input_ids.tolist() == expected["input_ids"][0].tolist()
        shapes = [tuple(map(int, shape)) for shape in expected["spatial_shapes"]]
        assert len(actual.pictures) == len(shapes)
        for picture, grid, values in zip(
            actual.pictures, shapes, expected["pixel_values"], strict=True
        ):
            wanted = unflatten(values, grid, tiling.encoder_patch_size)
            assert picture.shape == wanted.shape
            assert picture.dtype == np.uint8
            assert np.abs(picture - wanted).max() < 1.001
        cuts.append(len(shapes))
    assert (max(cuts) > 2) == (name != "never-cut")


@pytest.mark.parametrize("limits", [(2, 10), (1, 10), (2, 2), (2, 3), (3, 7), (4, 4)])
def test_sizes_and_grids_equal_transformers(limits: tuple[int, int]) -> None:
    tiling = TilingConfig(min_tiles=limits[0], max_tiles=limits[1])
    theirs = Lfm2VlImageProcessor()
    rng = np.random.default_rng(0)
    sizes = [
        tuple(map(int, rng.integers(1, most, 2))) for most in (60, 600, 6000) for _ in range(150)
    ]
    sizes += [(400, 500), (1000, 1250), (4000, 5000), (1000, 1500), (16, 32_768), (15, 33_000)]
    for height, width in sizes:
        fitted = theirs.smart_resize(height, width, 2, 64, 256, 16)
        assert fitted_size((height, width), tiling) == fitted[::-1]
        too_large = theirs._is_image_too_large(height, width, 256, 16, 2, 2.0)
        assert is_too_large((height, width), tiling) == too_large
        columns, rows, *_ = theirs._get_grid_layout(height, width, *limits, 512)
        assert tile_grid((height, width), tiling) == (rows, columns)


def test_tokens_name_rows_columns_and_the_thumbnail(tokenizer: Tokenizer) -> None:
    tiles = cut(noise(250, 130), SMALL)
    assert (tiles.rows, tiles.columns, len(tiles.pictures)) == (1, 2, 3)
    text = tokenizer.decode(
        image_tokens(tiles, num_tokens(tiles, SMALL), tokenizer), skip_special=False
    )
    assert text.replace("<image>", "") == (
        "<|image_start|><|img_row_1_col_1|><|img_row_1_col_2|><|img_thumbnail|><|image_end|>"
    )
    left, right, _ = tiles.pictures
    large = noise(250, 130).resize((128, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        np.concatenate((left, right), 2), np.asarray(large).transpose(2, 0, 1)
    )


def test_a_static_input_has_the_same_tiles_and_all_else_squashed(tokenizer: Tokenizer) -> None:
    free = TilingProcessor(tokenizer, SMALL)
    static = Processor(tokenizer, 64, 16, "tile", SMALL)
    parts = [{"type": "image", "image": None}, {"type": "text", "text": "What is this?"}]
    for size in SIZES:
        picture = noise(*size)
        messages = [{"role": "user", "content": parts}]
        theirs, ours = free(messages, [picture]), static(messages, [picture])
        cuts = len(theirs.pictures)
        assert ours.pixel_values.shape == (cuts, 3, 64, 64)
        assert ours.input_ids.tolist().count(tokenizer.image_id) == 16 * cuts
        marks = [i for i in theirs.input_ids.tolist() if i != tokenizer.image_id]
        assert [i for i in ours.input_ids.tolist() if i != tokenizer.image_id] == marks
        for tile, wanted in zip(ours.pixel_values[:-1], theirs.pictures[:-1], strict=True):
            np.testing.assert_array_equal(tile, wanted)
        whole = picture.resize((64, 64), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(ours.pixel_values[-1].transpose(1, 2, 0), np.asarray(whole))


def test_a_picture_that_is_kept_is_cut_as_the_file_was(tokenizer: Tokenizer, tmp_path) -> None:
    noise(640, 480).save(tmp_path / "photo.png")
    processor = Processor(tokenizer, 64, 16, "tile", SMALL)
    kept = processor.load(tmp_path / "photo.png")
    pixels = processor.pixels([tmp_path / "photo.png"])
    assert len(pixels) > 2
    np.testing.assert_array_equal(processor.pixels([kept]), pixels)


def test_what_cannot_be_cut_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="4000x3 is too narrow: 146 tokens, at most 16; crop it"):
        cut(noise(4000, 3), SMALL)
    ours = TilingProcessor(train_tokenizer(["What?"], 300), SMALL)
    message = [{"role": "user", "content": [{"type": "image", "image": noise(640, 480)}]}]
    with pytest.raises(UserError, match=r"no special token <\|img_row_1_col_1\|>; use an LFM2-VL"):
        ours(message)
    with pytest.raises(UserError, match="1 image parts but 0 images"):
        TilingProcessor(tokenizer, SMALL)(message, images=[])
