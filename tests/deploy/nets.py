"""Two networks with enough weights for their size to say something, and their exports, for the variant tests."""

import torch
from torch import nn

from shared_peft.training import LabelledRows, TrainedModel

CLASSES = ("still", "walk", "run")
SAMPLES, WIDTH = 32, 96


class WideConvNet(nn.Module):
    """Three convolutions with batch norms, a shortcut and a linear head; input (3, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.second = (nn.Conv2d(n, 96, 3, padding=1, bias=False) for n in (3, 96, 96))
        self.norms = nn.ModuleList(nn.BatchNorm2d(96) for _ in range(3))
        self.head = nn.Linear(96, len(CLASSES))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hidden = self.norms[0](self.stem(image)).relu()
        inner = self.norms[1](self.first(hidden)).relu()
        return self.head((hidden + self.norms[2](self.second(inner))).relu().mean((2, 3)))


class TableNet(nn.Module):
    """A convolution, two linear layers of which one runs twice, and a spectrum from constant tables; input (32, 6)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv1d(6, WIDTH, 3, padding=1)
        self.mixing, self.wide, self.narrow = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 768), nn.Linear(768, WIDTH)
        angles = 2 * torch.pi * torch.outer(torch.arange(SAMPLES), torch.arange(1, SAMPLES // 2 + 1)) / SAMPLES
        self.register_buffer("cosines", angles.cos() / SAMPLES)
        self.head = nn.Linear(WIDTH + 6 * (SAMPLES // 2), len(CLASSES))

    def forward(self, window: torch.Tensor) -> torch.Tensor:
        power = ((window.mT @ self.cosines).square() + 1e-6).log10().flatten(1)
        tokens = self.stem(window.mT).mT
        tokens = tokens + self.narrow(self.wide(tokens).relu())
        pooled = self.mixing(self.mixing(tokens.mean(1)).tanh())  # on two axes: a Gemm, its weight used twice
        return self.head(torch.cat([pooled, power], dim=1))


NETS = {"conv": (WideConvNet, (3, 8, 8), "image"), "table": (TableNet, (SAMPLES, 6), "window")}


def trained_net(name: str, **changes: object) -> TrainedModel:
    """Return a network as a run would give it; its validation labels are the classes it answers itself."""
    made, shape, input_name = NETS[name]
    torch.manual_seed(3)
    model = made().eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        rows = torch.randn(160, *shape, generator=generator) * torch.logspace(-1, 1, 160).view(-1, *(1 for _ in shape))
        model.head.bias -= model(rows).mean(0)
        labels = model(rows).argmax(1)
    fields = {
        "kind": "vision" if input_name == "image" else "imu_saga",
        "model": model,
        "build_base": made,
        "input_name": input_name,
        "input_shape": shape,
        "classes": CLASSES,
        "preprocessing": {},
        "examples": rows[::20],
        "validation": lambda: LabelledRows(rows, labels),
    }
    return TrainedModel(**{**fields, **changes})
