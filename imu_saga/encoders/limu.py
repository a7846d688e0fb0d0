"""LIMU-BERT's network (Xu et al. 2021, SenSys, "LIMU-BERT"): one block used four times; reads its published weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from imu_saga.encoder import ENCODERS, Encoder
from imu_saga.input_spec import InputSpec
from imu_saga.recording import IMU_CHANNELS
from shared_peft.errors import DataError

WIDTH, FEED_FORWARD, HEADS, LAYERS = 72, 144, 4, 4
SAMPLES, RATE_HZ = 120, 20.0
EPSILON = 1e-12  # of the published layer norms


@dataclass(frozen=True)
class LimuConfig:
    """LIMU-BERT has no options: its sizes are those of the published weights."""


@ENCODERS.register("limu")
class LimuEncoder(Encoder):
    """Linear 6 -> 72, learned positions, one shared post-norm block; 62,646 parameters with its decoder."""

    config_class: ClassVar[type] = LimuConfig
    citation = "Xu et al. 2021, LIMU-BERT, SenSys 2021, doi:10.1145/3485730.3485937"
    gravity = 9.8  # as its authors scaled

    def __init__(self, spec: InputSpec, config: LimuConfig | None = None) -> None:
        if (spec.samples, spec.rate_hz, len(spec.channels)) != (SAMPLES, RATE_HZ, 6):
            must = f"windows must be {SAMPLES} samples of 6 channels at {RATE_HZ:g} Hz"
            got = f"{spec.samples} of {len(spec.channels)} at {spec.rate_hz:g} Hz"
            raise DataError("encoder limu", must, got, "Use --rate-hz 20 --seconds 6, or the saga encoder")
        super().__init__(spec, IMU_CHANNELS, WIDTH, LimuConfig())
        self.embed = nn.Linear(6, WIDTH)
        self.position = nn.Embedding(SAMPLES, WIDTH)
        self.embed_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.fc1, self.fc2 = nn.Linear(WIDTH, FEED_FORWARD), nn.Linear(FEED_FORWARD, WIDTH)
        self.feed_forward_norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        nn.init.normal_(self.position.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Return one token a sample, shape (windows, 120, 72)."""
        positions = self.position(torch.arange(SAMPLES, device=x.device))
        h = self.embed_norm(self.embed_norm(self.embed(self.scaled(x))) + positions)
        for _ in range(LAYERS):
            attended = self._attend(h)
            # the residual joins the attention's output, not its input: so are the published weights
            h = self.attention_norm(attended + self.proj(attended))
            h = self.feed_forward_norm(h + self.fc2(functional.gelu(self.fc1(h))))
        return h

    def _attend(self, h: Tensor) -> Tensor:
        query, key, value = (
            layer(h).unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        return functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    def make_decoder(self) -> nn.Module:
        """Return LIMU-BERT's reconstruction head."""
        return LimuDecoder()

    @classmethod
    def convert(cls, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename a published LIMU-BERT checkpoint; anything else comes back unchanged."""
        if not any(name.startswith("transformer.") for name in tensors):
            return dict(tensors)
        return {_our_name(name): tensor for name, tensor in tensors.items()}


class LimuDecoder(nn.Module):
    """72 -> 72, GELU, LayerNorm, 72 -> 6; ``unused`` is in the published file without being called."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(WIDTH, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, eps=EPSILON)
        self.out = nn.Linear(WIDTH, 6)
        self.unused.requires_grad_(False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return samples in g and rad/s, shape (windows, 120, 6), of tokens (windows, 120, 72)."""
        return self.out(self.norm(functional.gelu(self.hidden(tokens))))


_NAMES = {
    "transformer.embed.lin": "encoder.embed",
    "transformer.embed.pos_embed": "encoder.position",
    "transformer.embed.norm": "encoder.embed_norm",
    "transformer.attn.proj_q": "encoder.q",
    "transformer.attn.proj_k": "encoder.k",
    "transformer.attn.proj_v": "encoder.v",
    "transformer.proj": "encoder.proj",
    "transformer.norm1": "encoder.attention_norm",
    "transformer.pwff.fc1": "encoder.fc1",
    "transformer.pwff.fc2": "encoder.fc2",
    "transformer.norm2": "encoder.feed_forward_norm",
    "fc": "decoder.unused",
    "linear": "decoder.hidden",
    "norm": "decoder.norm",
    "decoder": "decoder.out",
}


def _our_name(name: str) -> str:
    module, _, leaf = name.rpartition(".")
    leaf = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
    return f"{_NAMES.get(module, module)}.{leaf}"
