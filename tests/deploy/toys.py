"""Small networks and trained models that the deploy tests share."""

import torch
from torch import nn

from shared_peft.training import TrainedModel

CLASSES = ("still", "walk", "run", "jump", "turn")


class ConvNet(nn.Module):
    """Convolutions (plain, depthwise, 1 x 1), batch norms, a shortcut; input (3, 12, 12)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 8, 1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.stem(image)
        hidden = (hidden + self.norm(self.pointwise(self.depthwise(hidden)))).relu()
        return self.head(hidden.mean((2, 3)))


class SequenceNet(nn.Module):
    """Conv1d stem, nn.TransformerEncoder, nn.MultiheadAttention, LayerNorm; input (24, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(6, 16, 4, stride=4)
        self.position = nn.Parameter(torch.randn(1, 6, 16) * 0.02)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        tokens = self.encoder(self.stem(window.transpose(1, 2)).transpose(1, 2) + self.position)
        tokens = tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]
        return self.head(self.norm(tokens).mean(1))


INPUT_SHAPES = {ConvNet: (3, 12, 12), SequenceNet: (24, 6)}


def trained_toy(model: nn.Module, base: type[nn.Module], **changes: object) -> TrainedModel:
    """Return ``model`` as a run would give it, with nine examples."""
    image = base is not SequenceNet
    shape = INPUT_SHAPES[SequenceNet if base is SequenceNet else ConvNet]
    fields = {
        "kind": "vision" if image else "imu_saga",
        "model": model.eval(),
        "build_base": base,
        "input_name": "image" if image else "window",
        "input_shape": shape,
        "classes": CLASSES,
        "preprocessing": {"image_size": 12, "mean": [0.5, 0.5, 0.5]} if image else {"rate_hz": 20.0, "units": "m/s^2"},
        "examples": torch.randn(9, *shape, generator=torch.Generator().manual_seed(1)),
        "scores": {"accuracy": 0.75},
        "details": {"backbone": base.__name__, "checkpoint": "/home/me/weights/base.safetensors"},
    }
    return TrainedModel(**{**fields, **changes})
