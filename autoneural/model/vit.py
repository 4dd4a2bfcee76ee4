"""Plain ViT, the baseline twin of the convolutional encoder; SigLIP's parameter names.

    pixels -> patch conv + positions -> n x { x + attn(norm(x)), x + mlp(norm(x)) } -> norm
           -> pixel unshuffle (LFM2-VL's order: row, column, channel) -> [B,N,C]

Shape suffixes: see `layers.py`.
"""

from __future__ import annotations

from torch import Tensor, nn

from autoneural.config import ViTConfig
from autoneural.model.layers import Add, Gelu, MatMul, Range, Scale, Softmax, pixel_unshuffle


class Embeddings(nn.Module):
    """Patch convolution plus a learned position per patch."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        patches = (config.image_size // config.patch_size) ** 2
        self.patch_embedding = nn.Conv2d(
            3, config.hidden_size, config.patch_size, stride=config.patch_size
        )
        self.position_embedding = nn.Embedding(patches, config.hidden_size)
        self.add = Add()

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        x_BTD = self.patch_embedding(pixels_BCHW).flatten(2).transpose(1, 2)
        return self.add(x_BTD, self.position_embedding.weight)


class SelfAttention(nn.Module):
    """Full attention among all patches."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.num_heads = config.num_attention_heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.scale = Scale((width // self.num_heads) ** -0.5)
        self.scores = MatMul()
        self.softmax = Softmax()
        self.mix = MatMul()
        self.out_proj = nn.Linear(width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        q_BhTd = self._heads(self.scale(self.q_proj(x_BTD)))
        k_BhTd = self._heads(self.k_proj(x_BTD))
        v_BhTd = self._heads(self.v_proj(x_BTD))
        weights_BhTM = self.softmax(self.scores(q_BhTd, k_BhTd.transpose(2, 3)))
        return self.out_proj(self.mix(weights_BhTM, v_BhTd).transpose(1, 2).flatten(2))

    def _heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.unflatten(2, (self.num_heads, -1)).transpose(1, 2)


class MLP(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = Gelu()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x_BTD)))


class EncoderLayer(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: ViTConfig, layer: int) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.self_attn = SelfAttention(config)
        self.attn_add = Add()
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.mlp = MLP(config.hidden_size, config.mlp_width(layer))
        self.mlp_add = Add()

    def forward(self, x_BTD: Tensor) -> Tensor:
        x_BTD = self.attn_add(x_BTD, self.self_attn(self.layer_norm1(x_BTD)))
        return self.mlp_add(x_BTD, self.mlp(self.layer_norm2(x_BTD)))


class Encoder(nn.Module):
    """The stack of blocks, under SigLIP's name `encoder.layers`."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            EncoderLayer(config, layer) for layer in range(config.num_hidden_layers)
        )

    def forward(self, x_BTD: Tensor) -> Tensor:
        for layer in self.layers:
            x_BTD = layer(x_BTD)
        return x_BTD


class ViT(nn.Module):
    """Pixels [B,3,S,S] in [0,1] -> visual tokens [B,N,C]; S must be the config's image_size."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.grid = config.image_size // config.patch_size
        self.unshuffle = config.unshuffle
        self.pixels = Range()
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linears normal with std 1/sqrt(fan in), positions 0.02, biases zero."""
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        nn.init.normal_(self.embeddings.position_embedding.weight, std=0.02)

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        x_BTD = self.encoder(self.embeddings(self.pixels(pixels_BCHW)))
        return pixel_unshuffle(self.post_layernorm(x_BTD), self.grid, self.unshuffle)
