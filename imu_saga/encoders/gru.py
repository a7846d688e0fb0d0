"""A recurrent encoder: a strided convolution, then gated recurrent units over its tokens, in both directions.

Gated recurrent units: Cho et al. 2014, arXiv:1406.1078; convolution before recurrence for motion sensors: Ordóñez and
Roggen 2016, doi:10.3390/s16010115. LIMU-BERT's classifier is recurrent, too. Sizes are ours.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional

from imu_saga.encoder import ENCODERS, Encoder
from imu_saga.input_spec import InputSpec
from imu_saga.patch_decoder import PatchDecoder
from shared_peft.errors import ConfigError

TOKENS = 30


@dataclass(frozen=True)
class GruConfig:
    """Sizes of the recurrent encoder.

    Args:
        width: size of a token, even: one half reads forward in time, the other backward.
        depth: recurrent layers.
        patch: samples a token stands for; 0 chooses about 30 tokens a window.
        slots: channels the network has weights for; none means the windows' own.
    """

    width: int = 96
    depth: int = 2
    patch: int = 0
    slots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.width < 2 or self.width % 2 or self.depth < 1:  # noqa: PLR2004
            got = f"width {self.width}, depth {self.depth}"
            raise ConfigError("encoder gru", "width must be even, depth positive", got, "Choose other sizes")
        if self.patch < 0:
            raise ConfigError(
                "encoder gru", "patch must be positive or 0", self.patch, "Use 4 at 20 Hz, or 0 to choose"
            )


@ENCODERS.register("gru")
class GruEncoder(Encoder):
    """A strided convolution to about 30 tokens, then recurrent layers in both directions of time."""

    config_class: ClassVar[type] = GruConfig
    citation = "Cho et al. 2014, arXiv:1406.1078; Ordóñez and Roggen 2016, doi:10.3390/s16010115; sizes ours"

    def __init__(self, spec: InputSpec, config: GruConfig | None = None) -> None:
        config = config or GruConfig()
        patch = config.patch or max(1, round(spec.samples / TOKENS))
        config = replace(config, patch=patch, slots=config.slots or spec.channels)
        super().__init__(spec, config.slots, config.width, config)
        width, half = config.width, config.width // 2
        self.stem = nn.Conv1d(len(self.slots), width, 2 * patch + 1, stride=patch, padding=patch)
        self.stem_norm = nn.LayerNorm(width)
        self.recurrent = nn.GRU(width, half, config.depth, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, shape (windows, tokens, width)."""
        h = functional.gelu(self.stem(self.scaled(x).transpose(1, 2)))
        return self.recurrent(self.stem_norm(h.transpose(1, 2)))[0]

    def make_decoder(self) -> nn.Module:
        """Return a decoder of two linear layers; each token rebuilds its own samples."""
        return PatchDecoder(self.width, self.config.patch, len(self.slots), self.spec.samples)
