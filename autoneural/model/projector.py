"""Connector from visual tokens to the language model: two linear layers.

Ours has no normalisation: a norm-free connector has static ranges, which is what an integer-only
NPU wants, and the encoder's closing RMSNorm already gives it a well-scaled input. LFM2-VL's may
have a LayerNorm in front and no biases (`Lfm2VlMultiModalProjector` in transformers).
"""

from __future__ import annotations

from torch import Tensor, nn

from autoneural.config import ProjectorConfig
from autoneural.model.layers import Gelu


class Projector(nn.Module):
    """[B,N,in_channels] -> [B,N,out_channels]: [LayerNorm,] Linear, GELU, Linear."""

    def __init__(self, in_channels: int, out_channels: int, config: ProjectorConfig) -> None:
        super().__init__()
        width, bias = config.hidden_size, config.bias
        self.layer_norm = nn.LayerNorm(in_channels) if config.layer_norm else nn.Identity()
        self.linear_1 = nn.Linear(in_channels, width, bias=bias)
        self.act = Gelu(exact=config.hidden_act == "gelu")
        self.linear_2 = nn.Linear(width, out_channels, bias=bias)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights; the output starts small, near the size of token embeddings."""
        nn.init.normal_(self.linear_1.weight, std=self.linear_1.in_features**-0.5)
        nn.init.normal_(self.linear_2.weight, std=0.1 * self.linear_2.in_features**-0.5)
        for linear in (self.linear_1, self.linear_2):
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(self.layer_norm(x_BNC))))
