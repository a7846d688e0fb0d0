"""Models that adapter libraries meet, small: which layers of them to adapt, and an input."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from vision.torchvision_ops import declare_missing_operators


@dataclass(frozen=True)
class Setting:
    """A model, the layers to adapt in it, and an input."""

    build: Callable[[], nn.Module]
    targets: tuple[str, ...]
    shape: tuple[int, ...]

    def model(self) -> nn.Module:
        """Build the model, the same one each time."""
        torch.manual_seed(0)
        return self.build().eval()

    def x(self) -> Tensor:
        """Return the input, the same one each time."""
        return torch.randn(self.shape, generator=torch.Generator().manual_seed(1))


class Attention(nn.Module):
    """Attention of a sequence to itself; keys and values of another width where asked."""

    def __init__(self, keys: int = 8) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, kdim=keys, vdim=keys)
        self.keys = keys

    def forward(self, x: Tensor) -> Tensor:
        keys = functional.pad(x, (0, self.keys - 8), mode="circular")
        return self.attention(x, keys, keys, need_weights=False)[0]


class Twice(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(x)))


class Reader(nn.Module):
    """A model that reads a layer's weight instead of calling the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.layer.weight)


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(8, 8), nn.Linear(8, 8)
        self.outer.weight = self.inner.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(x))


class Recurrent(nn.Module):
    """A recurrent layer's outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GRU(8, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Normed(nn.Module):
    """A convolution and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def encoder() -> nn.Module:
    """Build a transformer layer of torch's own, which has a fused kernel for evaluation."""
    return nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))


def timm_layer(name: str) -> nn.Module:
    """Build a convolution of timm's own."""
    declare_missing_operators()
    from timm import layers

    return getattr(layers, name)(6, 8, 3)


def timm_model(name: str) -> nn.Module:
    """Build a timm model."""
    declare_missing_operators()
    import timm

    return timm.create_model(name)


def _images(build: Callable[[], nn.Module], channels: int = 6) -> Setting:
    return Setting(lambda: nn.Sequential(build()), ("0",), (2, channels, 9, 9))


def _tokens(build: Callable[[], nn.Module], *targets: str) -> Setting:
    return Setting(build, targets, (2, 5, 8))


CONV = _images(lambda: nn.Conv2d(16, 16, 3, padding=1), 16)
CIRCULAR = _images(lambda: nn.Conv2d(16, 16, 3, padding=1, padding_mode="circular"), 16)
ATTENTION = _tokens(Attention, "attention")
TIED = "one weight in two layers, one of them adapted"

MERGED = {
    "convolution, reflect padding": _images(lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect")),
    "convolution, circular padding": CIRCULAR,
    "convolution, replicate padding": _images(lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="replicate")),
    "convolution, dilated": _images(lambda: nn.Conv2d(6, 8, 3, dilation=2)),
    'convolution, dilated, padding="same"': _images(lambda: nn.Conv2d(6, 8, 3, padding="same", dilation=2)),
    "convolution, 2 groups": _images(lambda: nn.Conv2d(6, 8, 3, groups=2)),
    "convolution, depthwise": _images(lambda: nn.Conv2d(6, 6, 3, groups=6)),
    "convolution, 3-D with a 1x1x1 kernel": Setting(lambda: nn.Sequential(nn.Conv3d(4, 6, 1)), ("0",), (2, 4, 3, 3, 3)),
    "convolution, transposed": _images(lambda: nn.ConvTranspose2d(6, 8, 3, stride=2)),
    "timm StdConv2d (BiT's ResNets)": _images(lambda: timm_layer("StdConv2d")),
    "timm ScaledStdConv2d (NFNets)": _images(lambda: timm_layer("ScaledStdConv2d")),
    "timm Conv2dSame (TensorFlow's EfficientNets)": _images(lambda: timm_layer("Conv2dSame")),
    "MultiheadAttention, whole": ATTENTION,
    "MultiheadAttention, out_proj by name": _tokens(Attention, "attention.out_proj"),
    "MultiheadAttention, keys of another width": _tokens(lambda: Attention(12), "attention"),
    "TransformerEncoderLayer, its linear layers": _tokens(encoder, "0.linear1", "0.linear2"),
    "TransformerEncoderLayer, its attention": _tokens(encoder, "0.self_attn"),
    "GRU": _tokens(Recurrent, "layer"),
    "a layer under two names": _tokens(Twice, "first"),
    "a weight the model reads itself": _tokens(Reader, "layer"),
    TIED: _tokens(Tied, "outer"),
}
