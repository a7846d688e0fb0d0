"""Images named by a table, read back and compared with what was written."""

import numpy as np
import pytest
import torch
from PIL import Image

from shared_peft.errors import DataError
from tests.vision.sources.made import by_name, noise, shown
from vision.datasets import open_images


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
