"""Images: uint8 pixels of any size, resized with antialiasing, cropped and normalised in the graph.

The steps are those of `vision.transforms`: resize as Pillow does, central crop, scale, mean, deviation. One thing is
left out: Pillow's resize of 8-bit pixels rounds to whole levels after the rows and again after the columns. Without
that, the values differ from training's by a quarter of a level on average and are those of Pillow's float resize
(1.6e-5 at most), and no rounding can flip between two machines.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from deploy.preprocessor import INSIDE, OUTPUT, PREPROCESSORS, refuse_units
from shared_peft.errors import ExportError
from shared_peft.training import LabelledRows, TrainedModel

if TYPE_CHECKING:
    from vision.backbones.family import DataConfig

ENLARGED, WIDER_PX = 2, 3  # ours: examples are this much larger than the model's input, so that the gates see a resize


class ImageInput(nn.Module):
    """An image model that takes pixels as a camera gives them.

    Args:
        net: takes normalised images, shape (batch, channels, size, size).
        data: what ``net`` expects.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, net: nn.Module, data: "DataConfig") -> None:
        from vision.transforms import resized_side  # noqa: PLC0415  (slow to import)

        super().__init__()
        self.net, self.size, self.side = net, data.size, resized_side(data)
        self.mode, self.squash = data.interpolation, data.crop_mode == "squash"
        for name, levels in (("mean", data.mean), ("spread", data.std)):
            self.register_buffer(name, 255 * torch.tensor(levels)[None, :, None, None], persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, shape (batch, classes), of pixels, uint8, shape (batch, height, width, channels)."""
        height, width = self.resized(image.shape[1], image.shape[2])
        pixels = image.permute(0, 3, 1, 2).float()
        for size in ((image.shape[1], width), (height, width)):  # as Pillow: overshoot is cut off after either pass
            pixels = functional.interpolate(pixels, size, mode=self.mode, antialias=True).clamp(0, 255)
        pixels = self._middle(self._middle(pixels, 2, height), 3, width)
        return self.net((pixels - self.mean) / self.spread)

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """Return what an image is resized to [px], as `vision.transforms.resized_size` in whole numbers."""
        if self.squash:
            return self.side, self.side
        shorter: Any = torch.sym_min(height, width)
        return self.side * height // shorter, self.side * width // shorter

    def _middle(self, pixels: Tensor, dim: int, length: int) -> Tensor:
        """Return the ``size`` middle rows or columns of ``length``; half a pixel goes to the even side."""
        lost = length - self.size
        start = (lost + (lost % 2) * (lost // 2 % 2)) // 2
        return pixels.index_select(dim, torch.arange(self.size, device=pixels.device) + start)


@PREPROCESSORS.register("vision")
def with_pixels(trained: TrainedModel, units: Sequence[str]) -> TrainedModel:
    """Return a model of uint8 pixels, shape (height, width, channels), height and width free; see `in_graph`.

    Raises:
        ExportError: images that get a border or are resized without a filter; units.
    """
    from deploy.runtime_images import data_config  # noqa: PLC0415  (slow to import)

    refuse_units(trained.kind, units)
    data = data_config(trained.preprocessing)
    refused = (
        "a border is added" if data.crop_mode == "border" else "nearest" if data.interpolation == "nearest" else ""
    )
    if refused:
        must = "images must be resized by bilinear or bicubic interpolation, then cropped or squashed"
        raise ExportError("--preprocess in-graph", must, refused, "Export with --preprocess none")
    examples = enlarged(raw_pixels(trained.examples, data))
    validation = trained.validation

    def raw_validation() -> LabelledRows:
        assert validation is not None
        rows = validation()
        return replace(rows, inputs=enlarged(raw_pixels(rows.inputs, data)))

    return replace(
        trained,
        model=ImageInput(trained.model, data).eval(),
        build_base=lambda: ImageInput(trained.build_base(), data),
        input_shape=tuple(examples.shape[1:]),
        free_axes=(0, 1),
        preprocessing=_described(trained.preprocessing),
        examples=examples,
        validation=raw_validation if validation is not None else None,
    )


def raw_pixels(images: Tensor, data: "DataConfig") -> Tensor:
    """Return the pixels that preprocessing turned into these inputs, but for a border that it cut off again.

    Args:
        images: normalised, shape (images, channels, size, size).
        data: how they were normalised.

    Returns:
        uint8, shape (images, side, side, channels), side being what the shorter side of an image is resized to.
    """
    from vision.transforms import resized_side  # noqa: PLC0415  (slow to import)

    mean, std = (torch.tensor(levels)[None, :, None, None] for levels in (data.mean, data.std))
    levels = (images.cpu() * std + mean) * 255
    lost = resized_side(data) - data.size
    before = (lost + (lost % 2) * (lost // 2 % 2)) // 2
    padded = functional.pad(levels, [before, lost - before] * 2, mode="replicate")
    return padded.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def enlarged(pixels: Tensor) -> Tensor:
    """Return pixels twice as high and wide, and a little wider, so that they must be resized and cropped."""
    larger = pixels.repeat_interleave(ENLARGED, 1).repeat_interleave(ENLARGED, 2)
    return torch.cat([larger, larger[:, :, -1:].expand(-1, -1, WIDER_PX, -1)], dim=2).contiguous()


def _described(preprocessing: dict[str, Any]) -> dict[str, Any]:
    from vision.transforms import LARGEST_ASPECT  # noqa: PLC0415  (slow to import)

    return {
        "input": preprocessing["input"],
        "colour": preprocessing["colour"],
        "channels": preprocessing["channels"],
        "layout": "(batch, height, width, channels), uint8, any height and width",
        "outside_the_graph": f"decode; colour; cut the middle of an image over {LARGEST_ASPECT} times as long as wide",
        "largest_aspect": LARGEST_ASPECT,
        "output": OUTPUT,
        INSIDE: preprocessing,
    }
