"""Data sets of every kind written to disk in their published layout, read back and compared with what was written."""

import gzip
import io
import json
import struct
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from shared_peft.errors import DataError, MissingPackageError, SagaPeftError, UnknownNameError
from vision.datasets import DATASETS, open_images
from vision.datasets.idx import read_idx
from vision.torchvision_ops import declare_missing_operators


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def shown(images, row: int) -> np.ndarray:
    return images.read(row).permute(1, 2, 0).squeeze().numpy()


def by_name(images) -> dict[str, str]:
    return {
        name.split("/")[-1]: images.classes[label]
        for name, label in zip(images.names, images.labels.tolist(), strict=True)
    }


class TestTable:
    """A csv file that lists images."""

    def folder(self, tmp_path, lines, head="path,label,split"):
        (tmp_path / "photos").mkdir(exist_ok=True)
        for index in range(8):
            Image.fromarray(noise(5, 4, 3, seed=index)).save(tmp_path / "photos" / f"{index}.png")
        (tmp_path / "list.csv").write_text("\n".join([head, *lines]) + "\n", encoding="utf-8-sig")
        return str(tmp_path / "list.csv")

    def test_the_sides_are_those_of_the_split_column(self, tmp_path):
        lines = [
            "photos/0.png,cat,train",
            "photos/1.png,dog,train",
            '"photos/2.png", cat ,Test',
            "photos/3.png,dog,val",
        ]
        data = open_images(self.folder(tmp_path, lines))
        assert data.classes == ("cat", "dog")
        assert by_name(data.train) == {"0.png": "cat", "1.png": "dog"}
        assert by_name(data.test) == {"2.png": "cat"}
        assert np.array_equal(shown(data.train, 1), noise(5, 4, 3, seed=1))

    def test_val_is_the_test_side_where_there_is_no_other(self, tmp_path):
        data = open_images("csv:" + self.folder(tmp_path, ["photos/0.png,a,train", "photos/1.png,a,validation"]))
        assert by_name(data.test) == {"1.png": "a"}

    def test_without_the_column_a_fifth_of_every_class_is_set_aside(self, tmp_path):
        lines = [f"photos/{index}.png,{'ab'[index % 2]}" for index in range(8)]
        data = open_images(self.folder(tmp_path, lines, "path,label"))
        assert torch.bincount(data.test.labels).tolist() == [1, 1]
        assert {**by_name(data.train), **by_name(data.test)} == {f"{i}.png": "ab"[i % 2] for i in range(8)}

    def test_a_bar_makes_every_label_one_of_several(self, tmp_path):
        lines = ["photos/0.png,cat|dog,train", "photos/1.png,,train", "photos/2.png,dog| ant|dog,test"]
        data = open_images(self.folder(tmp_path, lines))
        assert data.classes == ("ant", "cat", "dog")
        assert data.train.multi_label
        assert data.train.labels.tolist() == [[0, 1, 1], [0, 0, 0]]
        assert data.test.labels.tolist() == [[1, 0, 1]]
        kept = open_images(str(tmp_path / "list.csv"), ("dog", "cat"))
        assert kept.train.labels.tolist() == [[1, 1], [0, 0]]

    def test_a_missing_image_is_an_error_only_when_it_is_read(self, tmp_path):
        data = open_images(self.folder(tmp_path, ["photos/9.png,a,train", "photos/1.png,a,test"]))
        with pytest.raises(DataError, match=r"photos/9\.png: must be an image Pillow can read, got no such file"):
            data.train.read(0)

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("../secret.png,a,train", r"line 2: path must stay within the folder .* got '\.\./secret\.png'"),
            ("/etc/hostname,a,train", "line 2: path must stay within the folder"),
            ("photos/../../x.png,a,train", "line 2: path must stay within the folder"),
            (",a,train", "line 2: path must stay within"),
            ("photos/0.png,,train", "line 2: label must not be empty"),
            ("photos/0.png,a,learn", "line 2: split must be one of train, test, val, .* got 'learn'"),
            ("photos/0.png,a", "line 2: must have a value for every column"),
            ("photos/0.png,a,train,b", "line 2: must have a value for every column"),
            ("photos/0.png,a,train", r"split must name train and test \(or val\), got train"),
        ],
    )
    def test_lines_that_break_a_rule_are_named(self, tmp_path, line, message):
        with pytest.raises(DataError, match=message):
            open_images(self.folder(tmp_path, [line]))

    def test_a_link_out_of_the_folder_is_refused(self, tmp_path):
        (tmp_path / "inside").mkdir()
        Image.new("L", (2, 2)).save(tmp_path / "outside.png")
        (tmp_path / "inside" / "link.png").symlink_to(tmp_path / "outside.png")
        (tmp_path / "inside" / "list.csv").write_text("path,label\nlink.png,a\n")
        with pytest.raises(DataError, match="path must stay within the folder of the csv file, got 'link.png'"):
            open_images(str(tmp_path / "inside" / "list.csv"))

    def test_other_files_are_refused(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.csv: must be a csv file in UTF-8, got no such file"):
            open_images(str(tmp_path / "none.csv"))
        with pytest.raises(DataError, match="columns must be path, label and perhaps split, got file, class"):
            open_images(self.folder(tmp_path, ["a,b"], "file,class"))
        with pytest.raises(DataError, match="must list images, got no lines"):
            open_images(self.folder(tmp_path, [], "path,label"))
        for content in (b"\xff\xfe\0p", b'path,label\n"a,b\n'):
            (tmp_path / "list.csv").write_bytes(content)
            with pytest.raises(DataError, match=r"list\.csv: must be a csv file in UTF-8"):
                open_images(str(tmp_path / "list.csv"))


def idx(values: np.ndarray) -> bytes:
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def write_mnist(folder, *, zipped: bool, sides=("train", "t10k")) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    folder.mkdir(parents=True)
    written = {}
    for seed, side in enumerate(sides):
        images, labels = noise(12, 7, 5, seed=seed), np.arange(12, dtype=np.uint8) % 3
        written[side] = images, labels
        for name, values in ((f"{side}-images-idx3-ubyte", images), (f"{side}-labels-idx1-ubyte", labels)):
            content = gzip.compress(idx(values)) if zipped else idx(values)
            (folder / (name + ".gz" * zipped)).write_bytes(content)
    return written


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
