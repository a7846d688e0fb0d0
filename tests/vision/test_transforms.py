"""Resizing, normalising and augmenting against Pillow, numpy and their own definitions."""

import numpy as np
import pytest
import torch
from PIL import Image

from vision.backbones import DataConfig
from vision.datasets import open_images
from vision.transforms import describe_preprocessing, fit_image, load_pixels, make_batches, normalise

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


def test_colour_becomes_the_same_grey_in_every_channel_of_another_number():
    four = fit_image(noise(3, 8, 8), DataConfig(8, (0.0,) * 4, (1.0,) * 4))
    assert torch.equal(four, fit_image(noise(3, 8, 8), GREY).expand(4, -1, -1))


def test_a_thin_image_shows_its_middle_and_costs_no_more_than_a_wide_one():
    image = torch.zeros(1, 30_000, 1, dtype=torch.uint8)
    image[:, 14_990:15_010] = 77
    shown = fit_image(image, DataConfig(224, (0.5,), (0.5,)))  # resized whole it would be 224 x 6,720,000
    assert shown.shape == (1, 224, 224)
    assert shown.unique().tolist() == [77]


def test_one_pixel_fills_the_image():
    assert fit_image(torch.full((1, 1, 1), 9, dtype=torch.uint8), GREY).unique().tolist() == [9]


def test_normalising_follows_its_formula():
    values = noise(2, 3, 8, 8)
    mean, std = (np.array(v)[None, :, None, None] for v in (RGB.mean, RGB.std))
    np.testing.assert_allclose(
        normalise(values, RGB).numpy(), (values.numpy() / 255 - mean) / std, rtol=1e-5, atol=1e-6
    )


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


def test_a_wide_image_is_squashed_or_gets_a_border_of_the_mean_colour():
    image = torch.full((3, 20, 80), 200, dtype=torch.uint8)
    image[:, :, 20:] = 100
    squashed, bordered = (
        fit_image(image, DataConfig(8, (0.2, 0.4, 0.6), (1.0,) * 3, "nearest", crop_mode=mode))
        for mode in ("squash", "border")
    )
    assert squashed[:, :, :2].unique().tolist() == [200]
    assert squashed[:, :, 2:].unique().tolist() == [100]
    assert torch.equal(bordered[:, 3:5], squashed[:, 3:5])
    rest = torch.cat([bordered[:, :3], bordered[:, 5:]], dim=1).flatten(1)
    assert [colour.unique().tolist() for colour in rest] == [[51], [102], [153]]


def test_the_written_preprocessing_says_what_is_done():
    described = describe_preprocessing(DataConfig(224, (0.5,) * 3, (0.25,) * 3, "bicubic", 0.875))
    assert described["resize_shorter_side_px"] == 256
    assert (described["height_px"], described["channels"], described["colour"]) == (224, 3, "RGB")
    assert described["scale"] * 255 == 1
    modes = {
        mode: describe_preprocessing(DataConfig(8, (0.5,), (0.2,), crop_mode=mode)) for mode in ("squash", "border")
    }
    assert (modes["squash"]["resize_both_sides_px"], modes["border"]["resize_longer_side_px"]) == (8, 8)
    assert modes["border"]["border_levels"] == [128]
