"""Predictions: of folders, files and tables, with the likeliest classes, and what could not be read."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from shared_peft.command import run_commands
from shared_peft.errors import DataError
from vision.commands import COMMANDS
from vision.datasets import read_image
from vision.evaluate import predict_logits
from vision.predict import image_files, predict
from vision.trained import load_model, read_description
from vision.transforms import fit_image


def call(*words: object) -> int:
    return run_commands("vision", COMMANDS, [str(word) for word in words])


def rows_of(path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_ranked_classes_are_the_softmax_of_the_logits_in_order(small_conv_run, colour_folder):
    found = predict(small_conv_run, [colour_folder / "test"], top=9).predictions
    description, model = read_description(small_conv_run), load_model(small_conv_run, read_description(small_conv_run))
    for row in found[::5]:
        image = fit_image(read_image(row.path), description.data)
        scores = np.exp(predict_logits(model, image[None], description.data)[0].double().numpy())
        expected = sorted(zip(description.classes, scores / scores.sum(), strict=True), key=lambda pair: -pair[1])
        assert [name for name, _ in row.ranked] == [name for name, _ in expected]
        np.testing.assert_allclose([share for _, share in row.ranked], [share for _, share in expected], rtol=1e-4)


def test_files_folders_and_tables_may_be_mixed(small_conv_run, colour_folder, tmp_path):
    test = colour_folder / "test"
    (test / "list.csv").write_text("name,path\nx,red/0.png\ny,blue/1.png\n")
    out = tmp_path / "p.csv"
    assert call("predict", small_conv_run, test / "green", test / "list.csv", test / "red" / "3.png", "--out", out) == 0
    expected = [
        *(test / "green" / f"{i}.png" for i in range(4)),
        test / "red/0.png",
        test / "blue/1.png",
        test / "red/3.png",
    ]
    assert [row["path"] for row in rows_of(out)] == [str(path) for path in expected]


def test_the_likeliest_classes_get_columns_of_their_own(small_conv_run, colour_folder, tmp_path):
    out = tmp_path / "p.csv"
    assert call("predict", small_conv_run, colour_folder / "test", "--out", out, "--top", 3) == 0
    rows = rows_of(out)
    assert list(rows[0]) == ["path", "label", "confidence", "label_2", "confidence_2", "label_3", "confidence_3"]
    for row in rows:
        shares = [float(row[name]) for name in ("confidence", "confidence_2", "confidence_3")]
        assert shares == sorted(shares, reverse=True)
        assert len({row[name] for name in ("label", "label_2", "label_3")}) == 3


def test_unreadable_images_are_listed_in_a_table(small_conv_run, colour_folder, tmp_path, capsys):
    (colour_folder / "test" / "red" / 'x,"y.png').write_bytes(b"broken")
    out = tmp_path / "p.csv"
    assert call("predict", small_conv_run, colour_folder / "test", "--out", out, "--skip-broken") == 0
    assert len(rows_of(out)) == 12
    (listed,) = rows_of(tmp_path / "p_skipped.csv")
    assert 'x,"y.png: must be an image Pillow can read' in listed["error"]
    assert "1 unreadable images" in capsys.readouterr().out


def test_a_picture_shows_the_answers(small_conv_run, colour_folder, tmp_path):
    out = ("--out", tmp_path / "p.csv", "--picture", tmp_path / "p.png", "--pictured", 5)
    assert call("predict", small_conv_run, colour_folder / "test", *out) == 0
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.size == (5 * 216, 288)


def test_a_file_name_that_is_no_utf_8_is_written_as_an_escape(small_conv_run, colour_folder, tmp_path):
    source = colour_folder / "test" / "red" / "0.png"
    shutil.copy(source, str(tmp_path / "im\udcffage.png"))
    assert call("predict", small_conv_run, tmp_path, "--out", tmp_path / "p.csv") == 0
    assert rows_of(tmp_path / "p.csv")[0]["path"].endswith("im\\udcffage.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"file\na.png\n", 'must have a column "path", got file'),
        (b"", 'must have a column "path", got none'),
        (b"path,label\na.png,x\n,y\n", "list.csv: line 3: must have a path"),
        (b"path\n\xff\xfe\n", "must be a csv file in UTF-8"),
        (b"path\n", "must be an image, a folder of images or a csv file of paths, got none"),
    ],
)
def test_a_table_without_paths_is_refused(tmp_path, text, message):
    (tmp_path / "list.csv").write_bytes(text)
    with pytest.raises(DataError, match=message):
        image_files(tmp_path / "list.csv")


def test_no_class_asked_for_is_refused(small_conv_run, colour_folder, capsys):
    assert call("predict", small_conv_run, colour_folder, "--top", 0) == 2
    assert "--top: must be at least 1, got 0" in capsys.readouterr().err
