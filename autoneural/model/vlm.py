"""The whole vision-language model, its reference generation and its costs.

    pixels -> vision_encoder -> projector --+
    input_ids -> embed_tokens --------------+-> language_model -> logits

Visual tokens fill, in order, the positions whose id is the image token; any number of images,
anywhere. This is the one implementation: training, export and the reference all run it.
Shape suffixes: see `layers.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from autoneural.config import MobileNetV5Config, ModelConfig, ViTConfig
from autoneural.model.language_model import LanguageModel
from autoneural.model.layers import MatMul
from autoneural.model.low_rank import factorise_layers
from autoneural.model.projector import Projector
from autoneural.model.state import DecoderState
from autoneural.model.vision_encoder import build_vision_encoder
from autoneural.model.vit import resize_positions

_POSITIONS = "vision_encoder.embeddings.position_embedding.weight"


@dataclass(frozen=True)
class VisualTokens:
    """What the encoder made of B pictures, [B,N,C], before the projector."""

    tokens_BNC: Tensor

    def __len__(self) -> int:
        return len(self.tokens_BNC)


# [B,3,S,S] of one size, pictures [3,H,W] of their own sizes (tiles and a thumbnail), or encoded.
Pictures = Tensor | Sequence[Tensor] | VisualTokens


class VLM(nn.Module):
    """A model of `config`, randomly initialised; children vision_encoder, projector,
    language_model. Under `torch.device("meta")` it costs no memory.

    Raises UserError naming the layer that has no rank of `config.ranks`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision_encoder = build_vision_encoder(config.vision)
        self.projector = Projector(
            config.vision.out_channels, config.text.hidden_size, config.projector
        )
        self.language_model = LanguageModel(config.text)
        factorise_layers(self, config.ranks)

    def image_features(self, pixels_BCHW: Tensor) -> Tensor:
        """[B,3,H,W], float in [0,1] or uint8 -> visual tokens [B,N,D] as the decoder reads them."""
        return self.projector(self.encode(pixels_BCHW).tokens_BNC)

    def encode(self, pixels_BCHW: Tensor) -> VisualTokens:
        """[B,3,H,W], float in [0,1] or uint8 -> what the projector reads."""
        if pixels_BCHW.dtype == torch.uint8:
            pixels_BCHW = pixels_BCHW.to(next(self.projector.parameters()).dtype) / 255
        pixels_BCHW = pixels_BCHW.contiguous(memory_format=torch.channels_last)
        return VisualTokens(self.vision_encoder(pixels_BCHW))

    def embed(self, input_ids_BT: Tensor, pictures: Pictures | None, image_token_id: int) -> Tensor:
        """Token embeddings [B,T,D] with visual tokens in the image positions.

        Raises ValueError when the image positions are not as many as the visual tokens.
        """
        embeds_BTD = self.language_model.model.embed_tokens(input_ids_BT)
        is_image_BT = input_ids_BT == image_token_id
        features_ND = self._features(pictures)
        positions, tokens = int(is_image_BT.sum()), 0 if features_ND is None else len(features_ND)
        if positions != tokens:
            images = 0 if pictures is None else len(pictures)
            raise ValueError(
                f"{positions} image token positions for {images} images "
                f"of {tokens} tokens in all: expected {tokens}"
            )
        if features_ND is None:
            return embeds_BTD
        mask_BTD = is_image_BT[..., None].expand_as(embeds_BTD)
        return embeds_BTD.masked_scatter(mask_BTD, features_ND.to(embeds_BTD.dtype))

    def _features(self, pictures: Pictures | None) -> Tensor | None:
        """Visual tokens [N,D] of all pictures, in order; None where there are none."""
        if pictures is None or len(pictures) == 0:
            return None
        if isinstance(pictures, VisualTokens):
            return self.projector(pictures.tokens_BNC).flatten(0, 1)
        if isinstance(pictures, Tensor):
            return self.image_features(pictures).flatten(0, 1)
        return torch.cat([self.image_features(pixels_CHW[None])[0] for pixels_CHW in pictures])

    def hidden_states(
        self, input_ids_BT: Tensor, pictures: Pictures | None, image_token_id: int
    ) -> Tensor:
        """[B,T,D] before the head: for a loss that wants logits at a few positions only."""
        return self.language_model(self.embed(input_ids_BT, pictures, image_token_id))

    def forward(
        self, input_ids_BT: Tensor, pictures: Pictures | None, image_token_id: int
    ) -> Tensor:
        """Logits [B,T,V] of whole sequences, padded on the right."""
        hidden_BTD = self.hidden_states(input_ids_BT, pictures, image_token_id)
        return self.language_model.lm_head(hidden_BTD)

    @torch.inference_mode()
    def generate(
        self,
        input_ids_T: Tensor,
        pictures: Pictures | None,
        *,
        image_token_id: int,
        eos_id: int,
        max_new_tokens: int = 64,
    ) -> list[int]:
        """Greedy reference for one conversation: the new ids, without the closing `eos_id`."""
        model = self.language_model
        embeds_BTD = self.embed(input_ids_T.reshape(1, -1), pictures, image_token_id)
        length = embeds_BTD.shape[1]
        state = DecoderState.zeros(
            self.config.text,
            1,
            length + max_new_tokens,
            dtype=embeds_BTD.dtype,
            device=embeds_BTD.device,
        )
        hidden_BTD = model.extend(embeds_BTD, state, 0, length)
        tokens: list[int] = []
        while len(tokens) < max_new_tokens:
            token_B = model.lm_head(hidden_BTD[:, -1]).argmax(-1)
            if int(token_B) == eos_id:
                break
            embed_BTD = model.model.embed_tokens(token_B)[:, None]
            hidden_BTD = model.extend(embed_BTD, state, length + len(tokens), 1)
            tokens.append(int(token_B))
        return tokens


def fix_image_size(
    config: ModelConfig, state: Mapping[str, Tensor], size: int
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The same model for square pictures of `size` alone: its configuration and its weights.

    A ViT's table of positions is resized once, to the grid that a static graph has. Pictures that
    kept their shape are cut into tiles where these have that size, else squared. Raises ValueError
    for a size that the encoder cannot have.
    """
    vision = replace(config.vision, image_size=size)
    tensors = dict(state)
    if isinstance(vision, ViTConfig) and vision.num_patches:
        table_ND = tensors.get(_POSITIONS)
        # A table of another length is left to `load_weights`, which says so.
        if table_ND is not None and len(table_ND) == vision.num_patches:
            tensors[_POSITIONS] = resize_positions(table_ND, vision.grid, vision.grid)
        vision = replace(vision, num_patches=0)
    elif isinstance(vision, ViTConfig) and vision != config.vision:
        raise ValueError(f"image_size: the positions are fixed at {config.vision.image_size}")
    elif isinstance(vision, MobileNetV5Config) and size % (2 ** (len(vision.stages) + 1)):
        step = 2 ** (len(vision.stages) + 1)
        raise ValueError(f"image_size: {size} is not a multiple of {step}")
    if config.tiling is not None and config.tiling.tile_size == size:
        return replace(config, vision=vision, resize="tile"), tensors
    resize = "squash" if config.resize == "tile" else config.resize
    return replace(config, vision=vision, resize=resize, tiling=None), tensors


def num_parameters(module: nn.Module) -> int:
    """Parameters of a module, a tied matrix counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of the convolutions, linears and matmuls in `module(*inputs)`."""
    with count_macs(module) as counts, torch.no_grad():
        module(*inputs)
    return sum(counts)


@contextmanager
def count_macs(module: nn.Module) -> Iterator[list[int]]:
    """While open, every forward of `module` adds its multiply-accumulates to the list."""
    counts: list[int] = []

    def hook(child: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(child, MatMul):
            counts.append(output.numel() * args[0].shape[-1])
        elif isinstance(child, nn.Linear | nn.Conv1d | nn.Conv2d):
            counts.append(output.numel() * child.weight[0].numel())

    handles = [child.register_forward_hook(hook) for child in module.modules()]
    try:
        yield counts
    finally:
        for handle in handles:
            handle.remove()
