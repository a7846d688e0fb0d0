"""A 1-D residual network with squeeze-and-excitation, the kind DAGHAR found most robust with few labels.

Residual blocks: He et al. 2016, arXiv:1512.03385; squeeze-and-excitation: Hu et al. 2018, arXiv:1709.01507. Sizes and
group norms (no running statistics, so that few labels and frozen layers see what pre-training saw) are ours.
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
STEM_KERNELS = 2  # the stem's kernel spans this many strides, plus one sample
GROUP = 8  # channels normalised together
REDUCTION = 4  # of the squeeze


@dataclass(frozen=True)
class ResNet1dConfig:
    """Sizes of the residual encoder.

    Args:
        widths: channels of each stage, multiples of 8; every stage after the first halves time.
        depth: blocks a stage.
        kernel: samples a kernel spans, odd.
        patch: samples a token stands for, a multiple of 2 ** (stages - 1); 0 chooses about 30 tokens a window.
        slots: channels the network has weights for; none means the windows' own.
    """

    widths: tuple[int, ...] = (48, 64, 96)
    depth: int = 2
    kernel: int = 5
    patch: int = 0
    slots: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.widths or any(width < GROUP or width % GROUP for width in self.widths) or self.depth < 1:
            got = f"widths {self.widths}, depth {self.depth}"
            raise ConfigError("encoder resnet1d", f"widths must be multiples of {GROUP}", got, "Choose other sizes")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ConfigError("encoder resnet1d", "kernel must be odd", self.kernel, "Use 5")
        if self.patch < 0 or self.patch % self.halvings:
            must = f"patch must be a multiple of {self.halvings}"
            raise ConfigError("encoder resnet1d", must, self.patch, "Use 4 at 20 Hz, or 0 to choose")

    @property
    def halvings(self) -> int:
        """How much longer a token is than a sample of the first stage."""
        return 2 ** (len(self.widths) - 1)


@ENCODERS.register("resnet1d")
class ResNet1dEncoder(Encoder):
    """A strided convolution, then three stages of residual blocks with squeeze-and-excitation."""

    config_class: ClassVar[type] = ResNet1dConfig
    citation = "He et al. 2016, arXiv:1512.03385; Hu et al. 2018, arXiv:1709.01507; sizes ours"

    def __init__(self, spec: InputSpec, config: ResNet1dConfig | None = None) -> None:
        config = config or ResNet1dConfig()
        halvings = config.halvings
        patch = config.patch or halvings * max(1, round(spec.samples / (halvings * TOKENS)))
        config = replace(config, patch=patch, slots=config.slots or spec.channels)
        super().__init__(spec, config.slots, config.widths[-1], config)
        stride, first = patch // halvings, config.widths[0]
        kernel = STEM_KERNELS * stride + 1
        self.stem = nn.Conv1d(len(self.slots), first, kernel, stride=stride, padding=kernel // 2)
        self.stem_norm = _norm(first)
        blocks, inside = [], first
        for stage, width in enumerate(config.widths):
            for place in range(config.depth):
                blocks.append(ResidualBlock(inside, width, config.kernel, 2 if stage and not place else 1))
                inside = width
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Return tokens, shape (windows, tokens, width)."""
        h = functional.relu(self.stem_norm(self.stem(self.scaled(x).transpose(1, 2))))
        return self.blocks(h).transpose(1, 2)

    def make_decoder(self) -> nn.Module:
        """Return a decoder of two linear layers; each token rebuilds its own samples."""
        return PatchDecoder(self.width, self.config.patch, len(self.slots), self.spec.samples)


class ResidualBlock(nn.Module):
    """Two convolutions and a gate for each channel, added to the input (through a 1x1 convolution if shapes differ).

    Args:
        inside: channels that come.
        width: channels that leave.
        kernel: samples a kernel spans.
        stride: of the first convolution.
    """

    def __init__(self, inside: int, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inside, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.conv2 = nn.Conv1d(width, width, kernel, padding=kernel // 2, bias=False)
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.squeeze, self.excite = nn.Linear(width, width // REDUCTION), nn.Linear(width // REDUCTION, width)
        same = inside == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv1d(inside, width, 1, stride=stride, bias=False)

    def forward(self, h: Tensor) -> Tensor:
        """Map (windows, inside, samples) to (windows, width, ceil(samples / stride))."""
        change = self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(h)))))
        gate = self.excite(functional.relu(self.squeeze(change.mean(2)))).sigmoid()
        return functional.relu(self.shortcut(h) + change * gate.unsqueeze(2))


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // GROUP, width)
