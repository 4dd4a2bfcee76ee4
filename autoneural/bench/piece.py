"""Which part of which preset is measured, at which static shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from autoneural.config import MobileNetV5Config, ModelConfig, preset
from autoneural.errors import UserError

PartName = Literal["vision", "decoder"]

_LAYERS, _CONTEXT, _WIDTHS = 4, 4096, (128, 1)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A part of a preset; what belongs to the other part is 0.

    vision: the encoder and the projector at `image_size`.
    decoder: the first `layers` layers and the closing norm, one graph per width.
    """

    preset: str
    part: PartName
    image_size: int = 0
    layers: int = 0
    context: int = 0
    widths: tuple[int, ...] = ()

    @property
    def config(self) -> ModelConfig:
        """The preset, cut down to the piece."""
        config = preset(self.preset)
        if self.part == "vision":
            return replace(config, vision=replace(config.vision, image_size=self.image_size))
        layer_types = config.text.layer_types[: self.layers]
        return replace(config, text=replace(config.text, layer_types=layer_types))

    @property
    def title(self) -> str:
        """As a reader calls it: `autoneural-1.5b vision, 512 px`."""
        if self.part == "vision":
            return f"{self.preset} vision, {self.image_size} px"
        widths = " ".join(f"AR-{width}" for width in self.widths)
        return f"{self.preset} decoder, {self.layers} layers, context {self.context}, {widths}"

    def shapes(self) -> dict[str, Any]:
        """What it is measured at, as in a report."""
        if self.part == "vision":
            return {"image_size": self.image_size}
        return {"layers": self.layers, "context": self.context, "widths": list(self.widths)}


def plan_piece(
    name: str,
    part: PartName,
    image_size: int | None = None,
    layers: int | None = None,
    context: int | None = None,
    widths: Sequence[int] | None = None,
) -> Piece:
    """The piece, with defaults for what is None.

    Raises UserError for shapes that the preset does not have, or that belong to the other part.
    """
    decoder = {"--layers": layers, "--context": context, "--widths": widths}
    other = decoder if part == "vision" else {"--image-size": image_size}
    for option, value in other.items():
        if value is not None:
            raise UserError(f"{option}: means nothing for --part {part}")
    try:
        config = preset(name)
        if part == "vision":
            size = config.vision.image_size if image_size is None else image_size
            return _checked_vision(Piece(preset=name, part=part, image_size=size))
    except ValueError as error:
        raise UserError(str(error)) from error
    limit = config.text.max_position_embeddings
    piece = Piece(
        preset=name,
        part=part,
        layers=_LAYERS if layers is None else layers,
        context=min(_CONTEXT, limit) if context is None else context,
        widths=tuple(_WIDTHS if widths is None else widths),
    )
    _check_decoder(piece, config)
    return piece


def _checked_vision(piece: Piece) -> Piece:
    vision = piece.config.vision  # a transformer's own configuration checks its size
    if isinstance(vision, MobileNetV5Config):
        step = 2 ** (len(vision.stages) + 1)
        if piece.image_size % step:
            raise UserError(f"--image-size {piece.image_size}: not a multiple of {step}")
    return piece


def _check_decoder(piece: Piece, config: ModelConfig) -> None:
    depth, limit = config.text.num_hidden_layers, config.text.max_position_embeddings
    if not 0 < piece.layers <= depth:
        raise UserError(f"--layers {piece.layers}: {piece.preset} has {depth}")
    if not 0 < piece.context <= limit:
        raise UserError(f"--context {piece.context}: {piece.preset} has {limit} positions")
    if not piece.widths or len(set(piece.widths)) < len(piece.widths):
        raise UserError("--widths: name each width once")
    if not 0 < min(piece.widths) <= max(piece.widths) <= piece.context:
        wrong = max(piece.widths) if min(piece.widths) > 0 else min(piece.widths)
        raise UserError(f"--widths {wrong}: not within the context, {piece.context}")
