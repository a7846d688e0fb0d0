"""The benchmarks' data, each opened by one word."""

import pytest
import torch

from vision.datasets import DATASETS, open_images


class TestRealData:
    """The targets of the benchmarks, each opened by one word."""

    @pytest.mark.parametrize(
        ("name", "classes", "train", "test"),
        [("tiny_imagenet_10", 10, 2000, 500), ("sign_digits", 10, 1500, 562), ("cifar10", 10, 5000, 2000)],
    )
    def test_class_folders(self, shared_root, name, classes, train, test):
        data = open_images(str(shared_root / "data" / "vision" / name))
        assert (len(data.classes), len(data.train), len(data.test)) == (classes, train, test)
        assert data.test.read(0).dtype == torch.uint8

    def test_mnist_and_fashion(self, shared_root):
        folder = shared_root / "data" / "vision"
        mnist = open_images(str(folder / "mnist_t10k"))
        assert mnist.classes == tuple("0123456789")
        assert len(mnist.train) + len(mnist.test) == 10_000
        counts = torch.bincount(mnist.train.labels) + torch.bincount(mnist.test.labels)
        assert counts.tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # of MNIST's test side
        fashion = open_images(str(folder / "fashion_mnist_900.npz"))
        assert fashion.classes[:2] == ("T-shirt/top", "Trouser")
        assert len(fashion.train) + len(fashion.test) == 900


def test_a_name_and_a_path_may_be_given_together(colour_folder):
    assert "folder" in DATASETS
    assert open_images(f"folder:{colour_folder}").train.names == open_images(str(colour_folder)).train.names
