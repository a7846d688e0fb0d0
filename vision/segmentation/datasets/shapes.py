"""Synthetic shapes: six classes on a textured background, overlapping and noisy, with exact masks (ours).

A class is a shape with a favourite hue. Neighbouring hues overlap, so colour alone does not tell the class.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from shared_peft.errors import DataError
from vision.segmentation.masked import BACKGROUND_NAME, SEGMENTATION_DATASETS, MaskedImages, SegmentationData

TRAIN_IMAGES, TEST_IMAGES, SIZE_PX, SEED = 600, 150, 64, 0
_MOST_SHAPES = 3
_HUE_JITTER = 0.11  # of a turn; neighbouring classes are a sixth of a turn apart
_NOISE = 10.0  # standard deviation, of 255

Inside = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _polar(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.hypot(x, y), np.arctan2(y, x)


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    radius, angle = _polar(x, y)
    return radius < 0.68 + 0.32 * np.cos(5 * angle)


def _triangle(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (y < 0.5) & (np.sqrt(3) * np.abs(x) - y < 1)


SHAPES: dict[str, Inside] = {  # each inside the unit circle
    "circle": lambda x, y: np.hypot(x, y) < 0.85,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.7,
    "triangle": _triangle,
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) < 0.28) & (np.maximum(np.abs(x), np.abs(y)) < 0.9),
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.72) < 0.24,
    "star": _star,
}
CLASSES = (BACKGROUND_NAME, *SHAPES)


def draw_shapes(size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image and its mask.

    Args:
        size: height and width [px].
        generator: the only source of randomness.

    Returns:
        The image, uint8 (3, size, size), and the mask, uint8 (size, size).
    """
    rows, columns = np.mgrid[0:size, 0:size] + 0.5
    image, mask = _texture(rows, columns, size, generator), np.zeros((size, size), np.uint8)
    for _ in range(generator.integers(1, _MOST_SHAPES + 1)):
        label = int(generator.integers(1, len(CLASSES)))
        radius = generator.uniform(0.15, 0.28) * size
        middle = generator.uniform(0.15, 0.85, 2) * size
        turn = generator.uniform(-np.pi, np.pi)
        across, down = (columns - middle[1]) / radius, (rows - middle[0]) / radius
        x, y = np.cos(turn) * across + np.sin(turn) * down, np.cos(turn) * down - np.sin(turn) * across
        inside = SHAPES[CLASSES[label]](x, y)
        image[:, inside] = _colour(label, generator)[:, None] * (1 + 0.15 * np.tanh(x + y)[inside])
        mask[inside] = label
    noisy = image + generator.normal(0, _NOISE, image.shape)
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8), mask


@SEGMENTATION_DATASETS.register("shapes")
def load_shapes(path: Path | None) -> SegmentationData:
    """Return the shapes, always the same; an image is drawn when it is read.

    Raises:
        DataError: a path was given; this data set has none.
    """
    if path is not None:
        raise DataError("shapes", "takes no path", path, "Drop the path")
    return shapes_of(TRAIN_IMAGES, TEST_IMAGES, SIZE_PX, SEED)


def shapes_of(train: int, test: int, size: int, seed: int) -> SegmentationData:
    """Return shapes in the numbers and the size asked for.

    Args:
        train: images to train on.
        test: images to test on.
        size: height and width [px].
        seed: the same seed draws the same images.
    """

    def side(number: int, count: int) -> MaskedImages:
        def read(row: int) -> tuple[torch.Tensor, torch.Tensor]:
            image, mask = draw_shapes(size, np.random.default_rng((seed, number, row)))
            return torch.from_numpy(image), torch.from_numpy(mask)

        return MaskedImages(tuple(f"shapes_{number}_{row:05d}" for row in range(count)), CLASSES, read)

    return SegmentationData("shapes", side(0, train), side(1, test))


def _texture(rows: np.ndarray, columns: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Return two crossing waves of grey and a tint, float64 (3, size, size)."""
    image = generator.uniform(70, 170) + generator.uniform(-15, 15, (3, 1, 1)) * np.ones((3, size, size))
    for _ in range(2):
        turn, waves = generator.uniform(0, np.pi), generator.uniform(2, 8)
        along = (np.cos(turn) * rows + np.sin(turn) * columns) / size
        image += generator.uniform(8, 25) * np.sin(2 * np.pi * (waves * along + generator.uniform()))
    return image


def _colour(label: int, generator: np.random.Generator) -> np.ndarray:
    """Return a colour near the class's hue, float64 (3,), by the cosine palette of three channels a third apart."""
    hue = (label - 1) / len(SHAPES) + generator.uniform(-_HUE_JITTER, _HUE_JITTER)
    bright, vivid = generator.uniform(110, 160), generator.uniform(50, 90)
    return bright + vivid * np.cos(2 * np.pi * (hue - np.arange(3) / 3))
