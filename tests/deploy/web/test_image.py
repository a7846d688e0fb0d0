"""The page's image preprocessing, run in node, gives the input Python gives: at most one level apart, mostly equal."""

import numpy as np
import pytest
import torch

from vision.backbones.family import DataConfig
from vision.datasets.decode import read_image
from vision.transforms import describe_preprocessing, fit_image, normalise

PREPROCESS = """
const { preprocess } = await load("image/preprocess.mjs");
return data.map(({ image, steps }) => [...preprocess({ ...image, data: Uint8ClampedArray.from(image.data) }, steps)]);
"""
MOST_APART, SHARE_APART = 1.001, 0.002  # levels; part of the pixels. Equal where torch resizes bytes (AVX2, ARM)


def rgba(image):
    """Pixels as a browser holds them, of uint8 (1 or 3, height, width)."""
    planes = torch.cat([image.expand(3, -1, -1), torch.full_like(image[:1], 255)]).permute(1, 2, 0)
    return {"data": planes.flatten().tolist(), "height": image.shape[1], "width": image.shape[2]}


def check_inputs(node, images, configs):
    pairs = [(image, config) for image in images for config in configs]
    requests = [{"image": rgba(image), "steps": describe_preprocessing(config)} for image, config in pairs]
    apart = []
    for found, (image, config) in zip(node(PREPROCESS, requests), pairs, strict=True):
        expected = normalise(fit_image(image, config)[None], config)[0].numpy()
        scale = 255 * np.array(config.std)[:, None, None]
        apart.append(np.abs((np.array(found).reshape(expected.shape) - expected) * scale))
        assert apart[-1].max() < MOST_APART, config
    differing = np.concatenate([each.ravel() for each in apart])
    assert (differing > 0.01).mean() <= SHARE_APART


def drawn(height, width, channels=3):
    """A picture with edges, ramps and noise."""
    rng = np.random.default_rng(height * width)
    y, x = np.mgrid[:height, :width]
    ramps = np.stack([x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), 255 * ((x // 3 + y // 5) % 2)])
    noisy = (ramps + rng.normal(0, 20, ramps.shape)).clip(0, 255).astype(np.uint8)
    return torch.from_numpy(noisy[:channels])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_inputs_are_those_of_python(node, interpolation, crop_mode):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    configs = [DataConfig(32, mean, std, interpolation, fraction, crop_mode) for fraction in (1.0, 0.875)]
    images = [drawn(61, 83), drawn(120, 47), drawn(20, 23), drawn(32, 32), drawn(3, 90), drawn(40, 40, 1)]
    check_inputs(node, images, configs)


def test_grey_inputs_are_those_of_python(node):
    config = DataConfig(28, (0.5,), (0.5,), "bilinear", 0.9)
    check_inputs(node, [drawn(61, 83), drawn(45, 45, 1)], [config])


def test_real_photographs_are_prepared_as_python_does(node, shared_root):
    paths = sorted((shared_root / "data/vision/tiny_imagenet_10/test").rglob("*.*"))[::60][:8]
    config = DataConfig(48, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic", 0.9)
    check_inputs(node, [read_image(path) for path in paths], [config])
