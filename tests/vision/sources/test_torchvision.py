"""torchvision's data sets, read back and compared with what was written."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from shared_peft.errors import DataError, UnknownNameError
from tests.vision.sources.made import noise, shown, write_mnist
from vision.datasets import open_images


class TestTorchvision:
    """Data sets laid out as torchvision expects them, without a network."""

    def test_a_data_set_with_train_and_test_flags(self, tmp_path):
        written = write_mnist(tmp_path / "MNIST" / "raw", zipped=False)
        data = open_images(f"torchvision:MNIST={tmp_path}")
        assert data.name == "MNIST"
        assert data.classes[:2] == ("0 - zero", "1 - one")
        assert data.test.labels.tolist() == written["t10k"][1].tolist()
        assert np.array_equal(shown(data.test, 4), written["t10k"][0][4])

    def test_a_data_set_with_named_splits(self, tmp_path):
        root = tmp_path / "food-101"
        (root / "meta").mkdir(parents=True)
        sides = {
            "train": {"pie": ["pie/1", "pie/2"], "soup": ["soup/1"]},
            "test": {"pie": ["pie/3"], "soup": ["soup/2"]},
        }
        for side, files in sides.items():
            (root / "meta" / f"{side}.json").write_text(json.dumps(files))
            for seed, name in enumerate(name for names in files.values() for name in names):
                (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(8, 8, 3, seed=seed)).save(root / "images" / f"{name}.jpg")
        data = open_images(f"torchvision:Food101={tmp_path}")
        assert data.classes == ("pie", "soup")
        assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([0, 0, 1], [0, 1])
        assert np.array_equal(shown(data.train, 2), np.array(Image.open(root / "images" / "soup" / "1.jpg")))

    def test_a_data_set_without_sides_is_split(self, tmp_path):
        for name in ("Forest", "River"):
            folder = tmp_path / "eurosat" / "2750" / name
            folder.mkdir(parents=True)
            for index in range(5):
                Image.fromarray(noise(4, 4, 3)).save(folder / f"{index}.jpg")
        data = open_images(f"torchvision:EuroSAT={tmp_path}")
        assert data.classes == ("Forest", "River")
        assert torch.bincount(data.train.labels).tolist() == [4, 4]

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            ("torchvision:CIFAR10", DataError, "must be NAME=FOLDER, got 'CIFAR10'"),
            (
                "torchvision:CIFAR=.",
                UnknownNameError,
                "must be a class of torchvision.datasets, .* Did you mean CIFAR10",
            ),
            ("torchvision:CIFAR10=/nowhere", DataError, "/nowhere: must be the folder CIFAR10 lies in"),
            ("torchvision:FakeData=.", UnknownNameError, "must be a class of torchvision.datasets"),
        ],
    )
    def test_wrong_names_are_refused(self, data, error, message):
        with pytest.raises(error, match=message):
            open_images(data)

    def test_nothing_is_fetched_for_an_empty_folder(self, tmp_path):
        with pytest.raises(DataError, match="must hold CIFAR10 as torchvision lays it out, got RuntimeError"):
            open_images(f"torchvision:CIFAR10={tmp_path}")
        assert not list(tmp_path.iterdir())
