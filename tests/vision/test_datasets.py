"""Image files of every mode, class folders, shots and splits."""

import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import integers, sampled_from
from PIL import Image

from shared_peft.errors import DataError
from vision.datasets import (
    DATASETS,
    describe_datasets,
    draw_shots,
    open_images,
    read_image,
    stratified_folds,
    stratified_split,
)


def gradient(height: int = 6, width: int = 4) -> np.ndarray:
    return np.arange(height * width, dtype=np.uint8).reshape(height, width) * 5


def png_and_its_pixels(mode: str, pixels: np.ndarray, generator: np.random.Generator) -> tuple[Image.Image, np.ndarray]:
    """Return an image of ``mode`` and what it shows on white, float, shape (height, width, 1 or 3)."""
    if mode in ("RGBA", "LA"):
        alpha = pixels[:, :, -1:] / 255
        return Image.fromarray(pixels.astype(np.uint8)), pixels[:, :, :-1] * alpha + 255 * (1 - alpha)
    if mode == "I;16":
        return Image.fromarray(pixels[:, :, 0].astype(np.uint16)), pixels / 65_535 * 255
    if mode == "1":
        return Image.fromarray(pixels[:, :, 0] > 99), (pixels > 99) * 255.0
    if mode == "P":
        colours = generator.integers(0, 256, (8, 3))
        image = Image.fromarray((pixels[:, :, 0] % 8).astype(np.uint8)).convert("P")
        image.putpalette(colours.flatten().tolist())
        colours[3] = 255  # transparent in the file
        return image, colours[pixels[:, :, 0] % 8].astype(float)
    return Image.fromarray(pixels.astype(np.uint8).squeeze(2) if mode == "L" else pixels.astype(np.uint8)), pixels


class TestDecode:
    """One file of each kind, against the pixels that were written."""

    def test_rgb_keeps_every_pixel(self, tmp_path):
        pixels = np.stack([gradient(), gradient() + 1, gradient() + 2], axis=2)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        assert np.array_equal(read_image(tmp_path / "a.png").permute(1, 2, 0).numpy(), pixels)

    def test_grey_has_one_channel(self, tmp_path):
        Image.fromarray(gradient()).save(tmp_path / "a.png")
        assert np.array_equal(read_image(tmp_path / "a.png")[0].numpy(), gradient())

    def test_sixteen_bits_become_eight(self, tmp_path):
        wide = np.array([[0, 257, 65_535], [128, 32_768, 300]], dtype=np.uint16)
        Image.fromarray(wide).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png")[0].tolist() == [[0, 1, 255], [0, 128, 1]]

    def test_transparency_becomes_white_in_proportion(self, tmp_path):
        pixels = np.array([[[200, 0, 100, 255], [200, 0, 100, 0], [200, 0, 100, 51]]], dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "a.png")
        found = read_image(tmp_path / "a.png")[:, 0].T.tolist()
        assert found[:2] == [[200, 0, 100], [255, 255, 255]]
        assert found[2] == pytest.approx([0.2 * 200 + 204, 204, 0.2 * 100 + 204], abs=1)

    def test_a_transparent_palette_colour_becomes_white(self, tmp_path):
        image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
        image.putpalette([10, 20, 30, 40, 50, 60])
        image.save(tmp_path / "a.png", transparency=1)
        assert read_image(tmp_path / "a.png")[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255]]

    def test_cmyk_becomes_rgb(self, tmp_path):
        Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
        red, green, blue = read_image(tmp_path / "a.jpg")[:, 4, 4].tolist()
        assert (red, green, blue) == pytest.approx((255, 0, 0), abs=3)

    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_exif_orientation_is_applied(self, tmp_path, orientation):
        # EXIF 2.32, tag 0x0112: which side of the picture the stored first row and first column are
        sides = ["top left", "top right", "bottom right", "bottom left", "left top", "right top", "right bottom"]
        row, column = [*sides, "left bottom"][orientation - 1].split()
        expected = gradient()
        if row in ("left", "right"):
            expected, row, column = expected.T, column, row
        expected = expected[::-1] if row == "bottom" else expected
        expected = expected[:, ::-1] if column == "right" else expected
        exif = Image.Exif()
        exif[0x0112] = orientation
        Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
        assert np.array_equal(read_image(tmp_path / "a.png")[0].numpy(), expected)

    def test_an_animation_gives_its_first_frame(self, tmp_path):
        first, second = (Image.new("RGB", (5, 4), colour) for colour in ((255, 0, 0), (0, 0, 255)))
        first.save(tmp_path / "a.gif", save_all=True, append_images=[second])
        assert read_image(tmp_path / "a.gif").flatten(1).unique(dim=1).T.tolist() == [[255, 0, 0]]

    def test_a_progressive_jpeg_has_the_pixels_of_a_plain_one(self, tmp_path):
        image = Image.effect_noise((40, 24), 60).convert("RGB")
        for name, progressive in (("plain", False), ("progressive", True)):
            image.save(tmp_path / f"{name}.jpg", progressive=progressive, quality=90)
        assert b"\xff\xc2" in (tmp_path / "progressive.jpg").read_bytes()  # its frame header, SOF2
        plain, progressive = (read_image(tmp_path / f"{name}.jpg") for name in ("plain", "progressive"))
        assert torch.equal(plain, progressive)

    def test_grey_with_transparency_stays_grey(self, tmp_path):
        pixels = np.array([[[40, 255], [40, 0], [40, 51]]], dtype=np.uint8)
        Image.fromarray(pixels, mode=None).save(tmp_path / "a.png")
        found = read_image(tmp_path / "a.png")
        assert found.shape == (1, 1, 3)
        assert found.flatten().tolist() == pytest.approx([40, 255, 0.2 * 40 + 204], abs=1)

    def test_one_bit_images_are_black_and_white(self, tmp_path):
        Image.fromarray(gradient() > 60).save(tmp_path / "a.png")
        assert np.array_equal(read_image(tmp_path / "a.png")[0].numpy(), (gradient() > 60) * np.uint8(255))

    def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(self, tmp_path, monkeypatch):
        Image.new("L", (11, 10)).save(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 110)
        assert read_image(tmp_path / "a.png").shape == (1, 10, 11)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 54)  # beyond twice the limit Pillow itself raises
        with pytest.raises(DataError, match=r"a\.png: an image may have at most 54 pixels, got more"):
            read_image(tmp_path / "a.png")
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # between the two it warns only
        with (
            pytest.warns(Image.DecompressionBombWarning),
            pytest.raises(DataError, match=r"a\.png: an image may have at most 100 pixels, got 11 x 10"),
        ):
            read_image(tmp_path / "a.png")

    @settings(max_examples=60, deadline=None)
    @given(mode=sampled_from(("1", "L", "RGB", "RGBA", "LA", "I;16", "P")), seed=integers(0, 2**32 - 1))
    def test_any_png_is_what_the_alpha_formula_says(self, mode, seed):
        generator = np.random.default_rng(seed)
        height, width = generator.integers(1, 9, 2)
        stored = {"RGB": 3, "RGBA": 4, "LA": 2}.get(mode, 1)
        pixels = generator.integers(0, 65_536 if mode == "I;16" else 256, (height, width, stored))
        image, expected = png_and_its_pixels(mode, pixels, generator)
        stream = io.BytesIO()
        image.save(stream, "PNG", **({"transparency": 3} if mode == "P" else {}))
        found = read_image(io.BytesIO(stream.getvalue()), "a png").permute(1, 2, 0).numpy()
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= (1 if mode in ("RGBA", "LA") else 0.5)

    def test_one_pixel_is_an_image(self, tmp_path):
        Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "a.png")
        assert read_image(tmp_path / "a.png").flatten().tolist() == [1, 2, 3]

    @pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
    def test_a_broken_file_is_an_error_by_path(self, tmp_path, content):
        (tmp_path / "bad.png").write_bytes(content)
        with pytest.raises(DataError, match=r"bad\.png: must be an image Pillow can read.*--skip-broken"):
            read_image(tmp_path / "bad.png")

    def test_a_truncated_jpeg_is_an_error(self, tmp_path):
        Image.effect_noise((64, 64), 50).save(tmp_path / "a.jpg")
        whole = (tmp_path / "a.jpg").read_bytes()
        (tmp_path / "a.jpg").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="truncated"):
            read_image(tmp_path / "a.jpg")

    def test_floating_point_pixels_are_refused(self, tmp_path):
        Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "a.tiff")
        with pytest.raises(DataError, match="pixels must be integers"):
            read_image(tmp_path / "a.tiff")


class TestClassFolder:
    """Folders of images as people have them."""

    def test_both_sides_are_listed_by_class(self, colour_folder):
        data = open_images(str(colour_folder))
        assert data.classes == ("blue", "green", "red")
        assert torch.bincount(data.train.labels).tolist() == [6, 6, 6]
        assert torch.bincount(data.test.labels).tolist() == [4, 4, 4]
        assert all(f"/{data.classes[y]}/" in n for n, y in zip(data.test.names, data.test.labels.tolist(), strict=True))
        assert data.train.read(17)[0].float().mean() > 150

    def test_one_folder_is_split_without_overlap(self, colour_folder):
        data = open_images(str(colour_folder / "train"))
        assert torch.bincount(data.test.labels).tolist() == [1, 1, 1]
        assert not set(data.train.names) & set(data.test.names)
        assert len(data.train) + len(data.test) == 18

    def test_an_empty_class_folder_is_refused(self, colour_folder):
        (colour_folder / "train" / "empty").mkdir()
        with pytest.raises(DataError, match=r"train/empty: must hold images .*got none"):
            open_images(str(colour_folder))

    def test_a_missing_folder_is_refused(self, tmp_path):
        with pytest.raises(
            DataError, match="nowhere: must be a folder of class folders, or one of csv, .*, got no such folder"
        ):
            open_images(str(tmp_path / "nowhere"))

    def test_classes_of_one_side_only_are_refused(self, colour_folder):
        (colour_folder / "test" / "blue").rename(colour_folder / "test" / "bleu")
        with pytest.raises(DataError, match="classes must be those of train/, got differences in bleu, blue"):
            open_images(str(colour_folder))

    def test_train_without_test_is_refused(self, colour_folder):
        (colour_folder / "test").rename(colour_folder / "other")
        with pytest.raises(DataError, match=r"must hold test/ or val/ beside train/"):
            open_images(str(colour_folder))

    def test_kept_classes_are_relabelled_in_their_order(self, colour_folder):
        data = open_images(str(colour_folder), ("red", "blue"))
        assert data.classes == ("red", "blue")
        expected = [("red", "blue").index(name.split("/")[-2]) for name in data.test.names]
        assert data.test.labels.tolist() == expected

    def test_an_unknown_class_is_refused(self, colour_folder):
        with pytest.raises(DataError, match="classes must be different ones of blue, green, red, got 'pink'"):
            open_images(str(colour_folder), ("red", "pink"))


class TestDigits:
    """scikit-learn's digits."""

    def test_digits_are_scikit_learns(self):
        from sklearn.datasets import load_digits

        data = open_images("digits")
        assert len(data.train) + len(data.test) == len(load_digits().images) == 1797
        row = int(data.test.names[5].removeprefix("digits[").removesuffix("]"))
        reference = load_digits().images[row] * 255 / 16
        assert np.abs(data.test.read(5)[0].numpy() - reference).max() <= 0.5
        assert int(data.test.labels[5]) == load_digits().target[row]

    def test_every_data_set_says_what_it_reads(self):
        lines = describe_datasets().splitlines()[2:]
        for line, (name, source) in zip(lines, DATASETS.items(), strict=True):
            asked, summary = re.split(r" (?<!\\)\| ", line.strip("| "))
            assert asked.strip("`").split(":")[0] == name
            assert summary.replace("\\|", "|") == source.summary

    def test_digits_take_no_path(self):
        with pytest.raises(DataError, match="digits: takes no path, got here"):
            open_images("digits:here")


class TestSampling:
    """Shots, folds and splits."""

    def test_shots_are_balanced_and_seeded(self):
        images = open_images("digits").train
        rows = draw_shots(images, 7, seed=3)
        assert torch.bincount(images.labels[rows]).tolist() == [7] * 10
        assert torch.equal(rows, draw_shots(images, 7, seed=3))
        assert not torch.equal(rows, draw_shots(images, 7, seed=4))
        assert len(rows.unique()) == 70

    def test_too_few_images_for_the_shots_are_refused(self, colour_folder):
        images = open_images(str(colour_folder)).train
        with pytest.raises(
            DataError, match="class 'blue': must hold at least 7 readable images .*got 6. Lower --shots"
        ):
            draw_shots(images, 7, seed=0)

    def test_an_unreadable_image_is_replaced_by_another_of_its_class(self, colour_folder):
        images = open_images(str(colour_folder)).train
        rows = draw_shots(images, 5, seed=0, readable=lambda row: row != 2)
        assert 2 not in rows.tolist()
        assert torch.bincount(images.labels[rows]).tolist() == [5, 5, 5]

    def test_folds_hold_every_class_evenly(self):
        labels = torch.tensor([0] * 20 + [1] * 21 + [2] * 3)
        folds = stratified_folds(labels, 4, seed=0)
        for label in range(3):
            counts = torch.bincount(folds[labels == label], minlength=4)
            assert counts.max() - counts.min() <= 1

    def test_a_split_keeps_the_proportions(self):
        labels = torch.tensor([0] * 50 + [1] * 10)
        first, second = stratified_split(labels, 0.2, seed=1)
        assert torch.bincount(labels[second]).tolist() == [10, 2]
        assert sorted([*first.tolist(), *second.tolist()]) == list(range(60))
