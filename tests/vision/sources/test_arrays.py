"""Images in numpy files, read back and compared with what was written."""

import numpy as np
import pytest
import torch

from shared_peft.errors import DataError
from tests.vision.sources.made import noise, shown
from vision.datasets import open_images


class TestArrays:
    """Numpy files."""

    def test_one_side_is_split_and_named(self, tmp_path):
        images, labels = noise(20, 6, 5), np.arange(20) % 2
        np.savez(tmp_path / "tiles.npz", images=images, labels=labels, class_names=np.array(["a", "b"]))
        data = open_images(str(tmp_path / "tiles.npz"))
        assert data.classes == ("a", "b")
        assert torch.bincount(data.test.labels).tolist() == [2, 2]
        row = int(data.test.names[0].split("[")[1][:-1])
        assert np.array_equal(shown(data.test, 0), images[row])

    def test_the_layout_of_medmnist_with_several_labels(self, tmp_path):
        train, test = noise(6, 4, 4, 3), noise(3, 4, 4, 3, seed=1)
        several = noise(6, 3, seed=2) % 2
        several[0] = 1
        arrays = {"train_images": train, "train_labels": several, "test_images": test, "test_labels": several[:3]}
        np.savez(tmp_path / "chest.npz", val_images=test, **arrays)
        data = open_images(str(tmp_path / "chest.npz"))
        assert data.train.labels.tolist() == several.tolist()
        assert np.array_equal(shown(data.test, 2), test[2])

    def test_a_column_of_labels_is_one_label_an_image(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=noise(4, 3, 3), labels=np.array([[0], [1], [0], [1]]))
        assert not open_images(str(tmp_path / "a.npz")).train.multi_label

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"images": noise(4, 3, 3)}, "labels must be class indices"),
            (
                {"images": noise(4, 3, 3), "labels": np.array([0.5, 1, 0, 1])},
                "labels must be class indices .* got float64",
            ),
            ({"images": noise(4, 3, 3), "labels": np.array([-1, 1, 0, 1])}, "labels must be class indices"),
            ({"images": noise(3, 3, 3), "labels": np.array([0, 1, 0, 1])}, "images must be uint8 .* for 4 labels"),
            ({"images": noise(4, 3, 3, 2), "labels": np.array([0, 1, 0, 1])}, "images must be uint8"),
            ({"images": np.zeros((4, 3, 3)), "labels": np.array([0, 1, 0, 1])}, "images must be uint8 .* got float64"),
            (
                {"images": noise(4, 3, 3), "labels": np.array([0, 1, 0, 1]), "class_names": np.array(["a"])},
                "class_names must",
            ),
            ({"images": np.array([{}]), "labels": np.array([0])}, "must be an npz file of plain arrays"),
        ],
    )
    def test_arrays_of_another_form_are_refused(self, tmp_path, arrays, message):
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(DataError, match=message):
            open_images(str(tmp_path / "a.npz"))

    def test_damaged_files_are_refused(self, tmp_path):
        np.savez(tmp_path / "a.npz", images=noise(4, 3, 3), labels=np.array([0, 1, 0, 1]))
        whole = (tmp_path / "a.npz").read_bytes()
        for content in (b"", b"no zip", whole[: len(whole) // 2], whole[:60] + b"\0" * 90 + whole[150:]):
            (tmp_path / "a.npz").write_bytes(content)
            with pytest.raises(DataError, match=r"a\.npz: must be an npz file"):
                open_images(str(tmp_path / "a.npz"))
