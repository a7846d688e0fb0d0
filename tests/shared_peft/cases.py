"""Layers of every kind, each with an input, for the batteries over the method registry."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shared_peft import METHODS, AdapterConfig, PeftModel, make_config


class SelfAttention(nn.Module):
    """A MultiheadAttention that attends to its own input, so that it takes one argument."""

    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor) -> Tensor:
        keys = x if self.attention.in_proj_weight is not None else torch.cat([x, x[..., :4]], -1)
        return self.attention(x, keys, keys, need_weights=False)[0]


class Recurrent(nn.Module):
    """A recurrent layer that returns its outputs alone."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


@dataclass(frozen=True)
class Case:
    """A layer to adapt and an input for it."""

    name: str
    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    entries: int = 0  # for embeddings: the input is indices below this

    def layer(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(self.build()).eval()

    def x(self, batch: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        shape = (batch, *self.input_shape)
        if self.entries:
            return torch.randint(self.entries, shape, generator=generator)
        return torch.randn(shape, generator=generator)


CASES = [
    Case("linear", lambda: nn.Linear(9, 7), (5, 9)),
    Case("linear without bias", lambda: nn.Linear(9, 7, bias=False), (9,)),
    Case("conv1d", lambda: nn.Conv1d(6, 8, 3, padding=1), (6, 11)),
    Case(
        "conv1d circular dilated", lambda: nn.Conv1d(6, 8, 3, padding=2, dilation=2, padding_mode="circular"), (6, 11)
    ),
    Case("conv2d", lambda: nn.Conv2d(6, 8, 3, stride=2, padding=1), (6, 9, 10)),
    Case("conv2d 1x1", lambda: nn.Conv2d(6, 8, 1), (6, 5, 5)),
    Case("conv2d reflect", lambda: nn.Conv2d(6, 8, 3, padding=1, padding_mode="reflect"), (6, 7, 7)),
    Case("conv2d replicate same", lambda: nn.Conv2d(6, 8, 3, padding="same", padding_mode="replicate"), (6, 7, 7)),
    Case("conv2d uneven kernel", lambda: nn.Conv2d(6, 8, (3, 5), dilation=(2, 1)), (6, 9, 9)),
    Case("conv2d grouped", lambda: nn.Conv2d(6, 8, 3, groups=2, bias=False), (6, 7, 7)),
    Case("conv2d depthwise", lambda: nn.Conv2d(6, 12, 3, groups=6, padding=1, padding_mode="circular"), (6, 7, 7)),
    Case("conv3d", lambda: nn.Conv3d(4, 6, (1, 3, 3), padding=(0, 1, 1)), (4, 3, 5, 5)),
    Case("conv1d transposed", lambda: nn.ConvTranspose1d(6, 8, 4, stride=3, padding=1, dilation=2, bias=False), (6, 5)),
    Case("conv2d transposed", lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, padding=1, output_padding=1), (6, 5, 4)),
    Case("conv2d transposed grouped", lambda: nn.ConvTranspose2d(6, 8, 3, stride=2, groups=2), (6, 4, 4)),
    Case("conv3d transposed", lambda: nn.ConvTranspose3d(4, 6, (1, 2, 3), stride=(1, 2, 1)), (4, 2, 3, 3)),
    Case("gru", lambda: Recurrent(nn.GRU(5, 4, batch_first=True)), (6, 5)),
    Case(
        "lstm two ways",
        lambda: Recurrent(nn.LSTM(5, 4, num_layers=2, batch_first=True, bidirectional=True)),
        (4, 5),
    ),
    Case("embedding", lambda: nn.Embedding(20, 8, padding_idx=0), (5,), entries=20),
    Case("attention", SelfAttention, (5, 8)),
    Case("attention with other keys", lambda: SelfAttention(kdim=12, vdim=12), (5, 8)),
]


def config_for(method: str, **fields: object) -> AdapterConfig:
    """A configuration every case can have: rank 2, and a scale that is not 1 where there is one."""
    known = METHODS.get(method).config_class.__dataclass_fields__
    values = {"r": 2, "lora_alpha": 3.0, "kernel_r": 2, "scale": 0.7, "warmup_steps": 2} | fields
    return make_config(method, **{name: value for name, value in values.items() if name in known})


@torch.no_grad()
def fill_randomly(model: PeftModel, seed: int = 2) -> None:
    """Move every adapter value away from its start."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def close(first: Tensor, second: Tensor, tolerance: float = 1e-5) -> bool:
    """Tell whether two outputs agree to float32 rounding."""
    return torch.allclose(first, second, rtol=tolerance, atol=tolerance)
