"""Parquet shards of images, read back and compared with what was written."""

import json
import sys
from collections import Counter

import numpy as np
import pytest

from shared_peft.errors import DataError, MissingPackageError, SagaPeftError
from tests.vision.sources.made import noise, png, shown
from vision.datasets import open_images


class TestParquet:
    """Shards as the Hugging Face hub keeps them, written with pyarrow."""

    def write(self, path, images, labels, names=(), *, kind="struct", several=False):
        import pyarrow as arrow
        from pyarrow import parquet

        encoded = [png(image) for image in images]
        column = encoded if kind == "binary" else [{"bytes": content, "path": None} for content in encoded]
        described = {"_type": "ClassLabel", "names": list(names)}
        features = {
            "image": {"_type": "Image"},
            "label": {"feature": described, "_type": "List"} if several else described,
        }
        metadata = {"huggingface": json.dumps({"info": {"features": features}})} if names else {}
        types = (
            arrow.binary() if kind == "binary" else arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
        )
        label_type = arrow.infer_type(labels)
        schema = arrow.schema([("image", types), ("label", label_type)], metadata=metadata)
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(arrow.table({"image": column, "label": labels}, schema=schema), path, row_group_size=2)

    def test_shards_of_two_sides_with_named_classes(self, tmp_path):
        images = noise(9, 6, 5, 3)
        for number, rows in enumerate((slice(0, 3), slice(3, 6))):
            self.write(
                tmp_path / "data" / f"train-0000{number}-of-00002.parquet", images[rows], [0, 1, 1], ("cat", "dog")
            )
        self.write(tmp_path / "data" / "test-00000-of-00001.parquet", images[6:], [1, 0, 1], ("cat", "dog"))
        data = open_images(str(tmp_path))
        assert data.classes == ("cat", "dog")
        assert data.train.labels.tolist() == [0, 1, 1, 0, 1, 1]
        assert data.test.labels.tolist() == [1, 0, 1]
        assert all(np.array_equal(shown(data.train, row), images[row]) for row in range(6))
        assert np.array_equal(shown(data.test, 2), images[8])

    @pytest.mark.parametrize(
        ("labels", "classes"), [([0, 2, 0, 2, 1, 1], ("0", "1", "2")), (["b", "a", "b", "a", "a", "b"], ("a", "b"))]
    )
    def test_plain_bytes_and_labels_without_a_description(self, tmp_path, labels, classes):
        images = noise(6, 3, 4)
        self.write(tmp_path / "pictures.parquet", images, labels, kind="binary")
        data = open_images(str(tmp_path / "pictures.parquet"))
        assert data.classes == classes
        for side in (data.train, data.test):
            for row, name in enumerate(side.names):
                place = int(name.split("[")[1][:-1])
                assert data.classes[side.labels[row]] == str(labels[place])
                assert np.array_equal(shown(side, row), images[place])

    def test_lists_of_labels(self, tmp_path):
        labels = [[0, 1], [], [1], [0], [1, 0], [0, 1]]
        self.write(tmp_path / "train.parquet", noise(6, 3, 4), labels, ("a", "b", "c"), several=True)
        self.write(tmp_path / "test.parquet", noise(6, 3, 4), labels, ("a", "b", "c"), several=True)
        data = open_images(str(tmp_path))
        assert data.train.labels.tolist() == [[float(c in row) for c in range(3)] for row in labels]

    def test_a_missing_package_is_named_with_its_extra(self, tmp_path, monkeypatch):
        self.write(tmp_path / "a.parquet", noise(4, 3, 4), [0, 1, 0, 1])
        monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
        with pytest.raises(MissingPackageError, match=r'needs the package pyarrow.*pip install "saga-peft\[parquet\]"'):
            open_images(str(tmp_path))

    def test_labels_outside_the_described_classes_are_refused(self, tmp_path):
        self.write(tmp_path / "a.parquet", noise(4, 3, 4), [0, 1, -1, 1], ("cat", "dog"))
        with pytest.raises(DataError, match=r"labels must be in \[0, 1\], got -1"):
            open_images(str(tmp_path))

    def test_a_broken_image_is_named_by_its_row(self, tmp_path):
        import pyarrow as arrow
        from pyarrow import parquet

        table = arrow.table({"image": [b"broken"] * 4, "label": [0, 1, 0, 1]})
        parquet.write_table(table, tmp_path / "a.parquet")
        with pytest.raises(DataError, match=r"a\.parquet\[\d\]: must be an image Pillow can read"):
            open_images(str(tmp_path)).train.read(0)
        parquet.write_table(arrow.table({"words": ["a", "b"]}), tmp_path / "a.parquet")
        with pytest.raises(DataError, match="must have a column of image bytes and one of labels, got words string"):
            open_images(str(tmp_path))

    def test_damaged_files_give_images_or_errors_and_nothing_else(self, tmp_path):
        self.write(tmp_path / "a.parquet", noise(4, 3, 4), [0, 1, 0, 1], ("cat", "dog"))
        whole = (tmp_path / "a.parquet").read_bytes()
        generator, outcomes = np.random.default_rng(0), Counter()
        for _ in range(60):
            content = bytearray(whole)
            for place in generator.integers(0, len(whole), 6):
                content[place] ^= 1 << int(generator.integers(8))
            (tmp_path / "a.parquet").write_bytes(bytes(content[: generator.choice([len(whole), len(whole) // 2])]))
            try:
                data = open_images(str(tmp_path))
                for side in (data.train, data.test):
                    for row in range(len(side)):
                        side.read(row)
                outcomes["read"] += 1
            except SagaPeftError:
                outcomes["refused"] += 1
        assert outcomes["refused"] >= 20, "half of the files are cut off"
        assert outcomes.total() == 60
