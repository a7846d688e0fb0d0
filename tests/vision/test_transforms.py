"""Resizing, normalising and augmenting against Pillow, numpy and their own definitions."""

import numpy as np
import pytest
import torch
from PIL import Image

from vision.backbones import DataConfig
from vision.datasets import open_images
from vision.transforms import augment, describe_preprocessing, fit_image, load_pixels, make_batches, normalise

RGB = DataConfig(8, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
GREY = DataConfig(8, (0.5,), (0.5,))


def noise(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("interpolation", "reference"), [("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)])
def test_resizing_agrees_with_pillow(interpolation, reference):
    image = noise(3, 40, 40)
    found = fit_image(image, DataConfig(16, (0.0,) * 3, (1.0,) * 3, interpolation))
    expected = np.array(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((16, 16), reference))
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected.astype(int)).max() <= 1


def test_the_centre_is_kept_when_the_sides_differ():
    image = torch.zeros(3, 8, 24, dtype=torch.uint8)
    image[:, :, 8:16] = 200
    assert fit_image(image, RGB).unique().tolist() == [200]


def test_the_crop_fraction_keeps_that_share_of_the_shorter_side():
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, 4:12, 4:12] = 90
    assert fit_image(image, DataConfig(8, (0.0,) * 3, (1.0,) * 3, crop_fraction=0.5)).unique().tolist() == [90]


def test_grey_is_repeated_and_colour_is_weighted():
    assert torch.equal(fit_image(noise(1, 8, 8), RGB), noise(1, 8, 8).expand(3, -1, -1))
    colour = noise(3, 8, 8)
    luma = (colour.float() * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0)
    assert (fit_image(colour, GREY)[0].float() - luma).abs().max() <= 1


def test_one_pixel_fills_the_image():
    assert fit_image(torch.full((1, 1, 1), 9, dtype=torch.uint8), GREY).unique().tolist() == [9]


def test_normalising_follows_its_formula():
    values = noise(2, 3, 8, 8)
    mean, std = (np.array(v)[None, :, None, None] for v in (RGB.mean, RGB.std))
    np.testing.assert_allclose(
        normalise(values, RGB).numpy(), (values.numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6
    )


def test_no_augmentation_changes_nothing():
    values = noise(4, 3, 8, 8)
    assert torch.equal(augment(values, "none", torch.Generator()), values)


def test_a_shift_moves_each_image_by_at_most_an_eighth():
    values = noise(64, 1, 16, 16)
    moved = augment(values, "shift", torch.Generator().manual_seed(2))
    offsets = set()
    for before, after in zip(values[:, 0], moved[:, 0], strict=True):
        fits = [
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(after[2:14, 2:14], before[2 + dy : 14 + dy, 2 + dx : 14 + dx])
        ]
        assert len(fits) == 1
        offsets.update(fits)
    assert len(offsets) > 15


def test_light_mirrors_about_half_of_the_images():
    ramp = torch.arange(16, dtype=torch.uint8).expand(400, 1, 16, 16) * 10
    moved = augment(ramp, "light", torch.Generator().manual_seed(0))
    mirrored = (moved[:, 0, 8, 4] > moved[:, 0, 8, 11]).float().mean()
    assert 0.4 < mirrored < 0.6


def test_a_batch_is_a_function_of_its_number_and_the_seed(colour_folder):
    pixels = load_pixels(open_images(str(colour_folder)).train, RGB)
    first, again, other = (make_batches(pixels, RGB, 4, "light", seed)(7) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_an_epoch_shows_every_image_once(colour_folder):
    pixels = load_pixels(open_images(str(colour_folder)).train, RGB)
    batches = make_batches(pixels, RGB, 6, "none", 0)
    shown = torch.cat([batches(index)[0] for index in range(3)]).flatten(1)
    expected = normalise(pixels.values, RGB).flatten(1)
    assert sorted(map(tuple, shown.tolist())) == sorted(map(tuple, expected.tolist()))


def test_broken_images_are_skipped_and_listed_only_when_asked(colour_folder):
    from shared_peft.errors import DataError

    (colour_folder / "train" / "green" / "0.png").write_bytes(b"broken")
    images = open_images(str(colour_folder)).train
    with pytest.raises(DataError, match=r"green/0\.png"):
        load_pixels(images, RGB)
    pixels = load_pixels(images, RGB, skip_broken=True)
    assert torch.bincount(pixels.labels).tolist() == [6, 5, 6]
    assert len(pixels.skipped) == 1
    assert "green/0.png" in pixels.skipped[0]


def test_the_written_preprocessing_says_what_is_done():
    described = describe_preprocessing(DataConfig(224, (0.5,) * 3, (0.25,) * 3, "bicubic", 0.875))
    assert described["resize_shorter_side_px"] == 256
    assert (described["height_px"], described["channels"], described["colour"]) == (224, 3, "RGB")
    assert described["scale"] * 255 == 1
