"""Small image folders and a small trained backbone, made on the spot."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vision.pretrain import PretrainConfig, pretrain

COLOURS = {"blue": (30, 40, 200), "green": (30, 180, 60), "red": (200, 40, 30)}


@pytest.fixture
def colour_folder(tmp_path) -> Path:
    """Three classes of noisy one-colour PNG images, 12 x 12, with 6 train and 4 test images each."""
    generator = np.random.default_rng(0)
    root = tmp_path / "colours"
    for side, count in (("train", 6), ("test", 4)):
        for name, colour in COLOURS.items():
            (root / side / name).mkdir(parents=True)
            for index in range(count):
                noise = generator.integers(-25, 26, (12, 12, 3))
                pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / side / name / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def small_conv_run(tmp_path_factory) -> Path:
    """A small ConvNet trained for a moment on the digits 0 to 4."""
    out = tmp_path_factory.mktemp("runs") / "small_conv"
    pretrain(PretrainConfig("small_conv", "digits", out, classes=tuple("01234"), epochs=6, learning_rate=4e-3))
    return out
