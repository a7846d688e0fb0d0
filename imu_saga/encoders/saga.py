"""The saga encoder (ours): convolution stem, pre-norm attention blocks, positions in seconds, any rate and channels."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.encoder import ENCODERS, Encoder
from imu_saga.input_spec import InputSpec
from imu_saga.patch_decoder import PatchDecoder
from shared_peft.errors import ConfigError

TOKENS = 30
POSITION_SCALE = 0.1  # beside a normalised stem: at 1 the positions drown the signal (docs/RESULTS.md)


@dataclass(frozen=True)
class SagaConfig:
    """Sizes of the saga encoder.

    Args:
        width: size of a token; a multiple of 2 * heads.
        depth: attention blocks.
        heads: attention heads.
        patch: samples a token stands for, even; 0 chooses about 30 tokens a window.
        slots: channels the network has weights for; none means the windows' own.
    """

    width: int = 96
    depth: int = 4
    heads: int = 4
    patch: int = 0
    slots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.heads) < 1 or self.width % (2 * self.heads):
            got = f"width {self.width}, depth {self.depth}, heads {self.heads}"
            raise ConfigError("encoder saga", "width must be a multiple of 2 * heads", got, "Choose other sizes")
        if self.patch < 0 or self.patch % 2:
            raise ConfigError("encoder saga", "patch must be even", self.patch, "Use 4 at 20 Hz, or 0 to choose")


@ENCODERS.register("saga")
class SagaEncoder(Encoder):
    """Two strided convolutions to about 30 tokens, then pre-norm transformer blocks."""

    config_class: ClassVar[type] = SagaConfig
    citation = "ours; the idea of pre-training it is Saga, arXiv:2504.11726"
    positions: Tensor

    def __init__(self, spec: InputSpec, config: SagaConfig | None = None) -> None:
        config = config or SagaConfig()
        patch = config.patch or max(2, 2 * round(spec.samples / (2 * TOKENS)))
        config = replace(config, patch=patch, slots=config.slots or spec.channels)
        super().__init__(spec, config.slots, config.width, config)
        self.patch = config.patch
        half, width = self.patch // 2, config.width
        self.stem_in = nn.Conv1d(len(self.slots), width // 2, 2 * half + 1, stride=half, padding=half)
        self.stem_out = nn.Conv1d(width // 2, width, 5, stride=2, padding=2)
        tokens = math.ceil(math.ceil(spec.samples / half) / 2)
        seconds = torch.arange(tokens) * self.patch / spec.rate_hz
        positions = POSITION_SCALE * position_features(seconds, width)
        self.register_buffer("positions", positions, persistent=False)
        self.stem_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, shape (windows, tokens, width)."""
        h = functional.gelu(self.stem_in(self.scaled(x).transpose(1, 2)))
        h = self.stem_norm(self.stem_out(h).transpose(1, 2)) + self.positions
        for block in self.blocks:
            h = block(h)
        return self.norm(h)

    def make_decoder(self) -> nn.Module:
        """Return a decoder of two linear layers; each token rebuilds its own samples."""
        return PatchDecoder(self.width, self.patch, len(self.slots), self.spec.samples)


class Block(nn.Module):
    """Pre-norm attention and feed-forward (Xiong et al. 2020, arXiv:2002.04745), both with a residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, h: Tensor) -> Tensor:
        """Map tokens to tokens, shape (windows, tokens, width)."""
        normed = self.attention_norm(h)
        query, key, value = (
            layer(normed).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        attended = functional.scaled_dot_product_attention(query, key, value)
        h = h + self.proj(attended.transpose(1, 2).flatten(2))
        return h + self.fc2(functional.gelu(self.fc1(self.feed_forward_norm(h))))


def position_features(seconds: Tensor, width: int) -> Tensor:
    """Return sines and cosines of time at wavelengths from 0.2 s to 60 s.

    Args:
        seconds: times of the tokens [s], shape (tokens,).
        width: number of features, even.

    Returns:
        Shape (tokens, width).
    """
    wavelength = torch.logspace(math.log10(0.2), math.log10(60.0), width // 2)
    angle = 2 * math.pi * seconds.unsqueeze(1) / wavelength
    return torch.cat([angle.sin(), angle.cos()], dim=1)
