"""Damaged image files of every format: an image or a clear error by path, at once, within bounds of memory."""

import resource
import time
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

from shared_peft.errors import DataError
from tests.vision.damaged_images import SIDE, damaged_files, sound_files
from vision.backbones import DataConfig
from vision.datasets import LabelledImages, read_image
from vision.transforms import load_pixels

RGB = DataConfig(32, (0.5,) * 3, (0.5,) * 3)
COUNT, LONGEST_S, LARGEST_GROWTH = 608, 5.0, 1.5e9  # [files], [s] a file, [bytes] over all


def listed(files: list[Path]) -> LabelledImages:
    labels = torch.zeros(len(files), dtype=torch.int64)
    return LabelledImages(tuple(map(str, files)), labels, ("a",), lambda row: read_image(files[row]))


def write(folder: Path, count: int) -> list[Path]:
    files = []
    for index, (name, _, content) in enumerate(damaged_files(count)):
        files.append(folder / f"{index}_{name}")
        files[-1].write_bytes(content)
    return files


def test_every_sound_file_is_read(tmp_path):
    for name, content in sound_files().items():
        (tmp_path / name).write_bytes(content)
        assert read_image(tmp_path / name).shape[1:] == ((1, 1) if name == "pixel.png" else (SIDE, SIDE))


def test_damaged_files_are_images_or_errors_by_path(tmp_path):
    files = write(tmp_path, COUNT)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = {"read": 0, "refused": 0}
    for file in files:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks on metadata it had to leave out
            try:
                assert load_pixels(listed([file]), RGB).values.shape == (1, 3, 32, 32)
                outcomes["read"] += 1
            except DataError as error:
                assert str(error).startswith(f"{file}: ")  # noqa: PT017
                outcomes["refused"] += 1
        assert time.perf_counter() - start < LONGEST_S, file
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < LARGEST_GROWTH
    assert min(outcomes.values()) > COUNT // 10, outcomes


def test_skipping_leaves_out_what_cannot_be_read_and_nothing_else(tmp_path):
    files = write(tmp_path, 152)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = load_pixels(listed(files), RGB, skip_broken=True)
    refused = [reason.split(": ")[0] for reason in pixels.skipped]
    assert len(pixels.names) + len(refused) == len(files)
    assert {*pixels.names, *refused} == set(map(str, files))
    assert list(pixels.names) == [str(file) for file in files if str(file) in pixels.names]


def test_a_bomb_is_refused_without_being_decoded(tmp_path):
    Image.new("1", (20_000, 10_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError, match=r"bomb\.png: an image may have at most 89,478,485 pixels"):
        load_pixels(listed([tmp_path / "bomb.png"]), RGB)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < 100e6
