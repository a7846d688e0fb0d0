"""Random changes of a batch that move image and mask alike, pixel by pixel."""

from collections.abc import Callable

import torch

from shared_peft.registry import Registry

SMALLEST_CROP = 0.6  # ours: side of the smallest crop, as a share of the image's

Places = tuple[torch.Tensor, torch.Tensor]
PAIR_AUGMENTATIONS: Registry[Callable[[int, int, torch.Generator], Places]] = Registry("mask augmentation")


def augment_pair(
    values: torch.Tensor, masks: torch.Tensor, preset: str, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change a batch of training images and their masks at random.

    A preset says from which row and column each new pixel is taken. Image and mask are taken from the same places, so
    a mask never holds a class its image does not show there.

    Args:
        values: uint8, shape (images, channels, size, size).
        masks: uint8, shape (images, size, size).
        preset: a name from PAIR_AUGMENTATIONS.
        generator: the only source of randomness.

    Raises:
        UnknownNameError: no such preset.
    """
    rows, columns = PAIR_AUGMENTATIONS.get(preset)(len(values), values.shape[-1], generator)
    image = torch.arange(len(values))[:, None, None]
    moved = values.movedim(1, -1)[image, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
    return moved.contiguous(), masks[image, rows[:, :, None], columns[:, None, :]]


@PAIR_AUGMENTATIONS.register("none")
def keep(count: int, size: int, generator: torch.Generator) -> Places:
    """Leave every pixel where it is; rows and columns of shape (count, size)."""
    line = torch.arange(size).expand(count, size)
    return line, line


@PAIR_AUGMENTATIONS.register("flip")
def flip(count: int, size: int, generator: torch.Generator) -> Places:
    """Mirror half of the images left to right."""
    rows, columns = keep(count, size, generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    return rows, torch.where(mirrored, columns.flip(1), columns)


@PAIR_AUGMENTATIONS.register("crop")
def crop(count: int, size: int, generator: torch.Generator) -> Places:
    """Blow up a random square of 60 to 100 % of the side to the whole image, by the nearest pixel, and mirror half."""
    _, columns = flip(count, size, generator)
    shares = SMALLEST_CROP + (1 - SMALLEST_CROP) * torch.rand(count, 1, generator=generator)
    sides = (shares * size).round().clamp_min(1)
    first = (torch.rand(2, count, 1, generator=generator) * (size - sides + 1)).floor()

    def taken(start: torch.Tensor, line: torch.Tensor) -> torch.Tensor:
        return (start + ((line + 0.5) * sides / size).floor()).long().clamp_max(size - 1)

    return taken(first[0], torch.arange(size).expand(count, size)), taken(first[1], columns)
