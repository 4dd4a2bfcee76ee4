"""Connector from visual tokens to the language model: two linear layers, no normalisation.

A norm-free connector has static ranges, which is what an integer-only NPU wants; the encoder's
closing RMSNorm already gives it a well-scaled input.
"""

from __future__ import annotations

from torch import Tensor, nn

from autoneural.model.layers import Gelu


class Projector(nn.Module):
    """[B,N,in_channels] -> [B,N,out_channels]: Linear, GELU, Linear."""

    def __init__(self, in_channels: int, hidden_size: int, out_channels: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(in_channels, hidden_size)
        self.act = Gelu()
        self.linear_2 = nn.Linear(hidden_size, out_channels)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Normal weights; the output starts small, near the size of token embeddings."""
        nn.init.normal_(self.linear_1.weight, std=self.linear_1.in_features**-0.5)
        nn.init.normal_(self.linear_2.weight, std=0.1 * self.linear_2.in_features**-0.5)
        nn.init.zeros_(self.linear_1.bias)
        nn.init.zeros_(self.linear_2.bias)

    def forward(self, x_BNC: Tensor) -> Tensor:
        return self.linear_2(self.act(self.linear_1(x_BNC)))
