"""MNIST's files, read back and compared with what was written."""

import numpy as np
import pytest
import torch

from shared_peft.errors import DataError
from tests.vision.sources.made import idx, noise, shown, write_mnist
from vision.datasets import open_images
from vision.datasets.idx import read_idx
from vision.torchvision_ops import declare_missing_operators


class TestIdx:
    """MNIST's files, against torchvision's reader."""

    @pytest.mark.parametrize("zipped", [False, True])
    def test_both_sides_are_read(self, tmp_path, zipped):
        written = write_mnist(tmp_path / "mnist", zipped=zipped)
        data = open_images(str(tmp_path / "mnist"))
        assert data.classes == ("0", "1", "2")
        for side, images in (("train", data.train), ("t10k", data.test)):
            assert images.labels.tolist() == written[side][1].tolist()
            assert all(np.array_equal(shown(images, row), written[side][0][row]) for row in range(12))

    def test_the_array_is_torchvisions(self, tmp_path):
        declare_missing_operators()
        from torchvision.datasets.mnist import read_image_file

        write_mnist(tmp_path / "mnist", zipped=False)
        path = tmp_path / "mnist" / "train-images-idx3-ubyte"
        assert np.array_equal(read_idx(path), read_image_file(str(path)).numpy())

    def test_one_pair_alone_is_split(self, tmp_path):
        write_mnist(tmp_path / "mnist", zipped=True, sides=("t10k",))
        data = open_images(str(tmp_path / "mnist"))
        assert torch.bincount(data.test.labels).tolist() == [1, 1, 1]
        assert len(set(data.train.names) | set(data.test.names)) == 12

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "must be an idx file of uint8, got begins"),
            (b"\0\0\x0d\x01\0\0\0\x01abcd", "must be an idx file of uint8, got begins 00000d01"),
            (idx(noise(12, 7, 5))[:-1], "must hold 12 x 7 x 5 values, got 419 bytes"),
            (bytes((0, 0, 8, 3)) + b"\xff" * 12, "must hold 4294967295 x"),
            (idx(noise(11, 7, 5)), "must hold images, and one label an image beside it"),
            (idx(noise(12)), "must hold images, and one label an image beside it"),
        ],
    )
    def test_damaged_files_are_refused(self, tmp_path, content, message):
        write_mnist(tmp_path / "mnist", zipped=False)
        (tmp_path / "mnist" / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(DataError, match=f"train-images-idx3-ubyte: {message}"):
            open_images(str(tmp_path / "mnist"))

    def test_a_cut_gz_file_and_a_missing_one_are_refused(self, tmp_path):
        write_mnist(tmp_path / "mnist", zipped=True)
        path = tmp_path / "mnist" / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz: must be readable"):
            open_images(str(tmp_path / "mnist"))
        (tmp_path / "mnist" / "train-labels-idx1-ubyte.gz").unlink()
        with pytest.raises(DataError, match=r"must hold train-labels-idx1-ubyte \(\.gz\), got no such file"):
            open_images(str(tmp_path / "mnist"))
