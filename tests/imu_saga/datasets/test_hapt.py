"""HAPT: labels by first and last sample, both counted from 1 and included."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError


@pytest.fixture
def root(tmp_path):
    open_dataset("hapt").write_sample(tmp_path / "download")
    return tmp_path / "download"


def test_labels_start_and_end_with_the_samples_named(root):
    dataset = open_dataset("hapt")
    names = np.array([*dataset.class_names(), "none"])
    for one, standing in zip(dataset.read(root), (51, 101, 151), strict=True):
        # as labels.txt counts
        spans = {"STANDING": (standing, 250), "STAND_TO_SIT": (251, 330), "WALKING": (401, 600)}
        for number, name in enumerate(names[one.labels], start=1):
            covering = [activity for activity, (first, last) in spans.items() if first <= number <= last]
            assert [name] == (covering or ["none"])


def test_signals_are_the_files_in_si_units(root):
    one = open_dataset("hapt").read(root)[2]
    assert (one.subject, one.session, one.rate_hz) == ("02", "exp03", 50.0)
    acc = np.loadtxt(root / "RawData/acc_exp03_user02.txt")
    gyro = np.loadtxt(root / "RawData/gyro_exp03_user02.txt")
    np.testing.assert_allclose(one.signal, np.concatenate([acc * 9.80665, gyro], axis=1), rtol=1e-6)


def test_two_experiments_of_a_user_are_two_sessions_of_one_subject(root):
    recordings = open_dataset("hapt").read(root)
    assert [(one.subject, one.session) for one in recordings] == [("01", "exp01"), ("01", "exp02"), ("02", "exp03")]


def test_without_transitions_they_are_unlabelled(root):
    dataset = open_dataset("hapt", {"transitions": False})
    assert len(dataset.class_names()) == 6
    labels = dataset.read(root)[0].labels
    assert (labels[250:330] == -1).all()
    assert labels[249] == dataset.class_names().index("STANDING")


def test_samples_two_lines_label_differently_are_unlabelled(root):
    path = root / "RawData/labels.txt"
    path.write_text(path.read_text() + "1 1 4 241 260\n1 1 5 51 60\n")
    labels = open_dataset("hapt").read(root)[0].labels
    assert labels[239] == 4
    assert (labels[240:260] == -1).all()
    assert labels[260] == 6
    assert (labels[50:60] == 4).all()


def test_folders_above_and_below_are_found(root):
    dataset = open_dataset("hapt")
    for folder in (root.parent, root / "RawData"):
        assert [one.where for one in dataset.read(folder)] == [one.where for one in dataset.read(root)]


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (
            "labels.txt",
            "1 1 5 51 601\n",
            "labels.txt, row 1: must name an activity from 1 to 12 and samples from 1 to 600",
        ),
        ("labels.txt", "1 1 13 51 60\n", "got 1 1 13 51 60"),
        ("labels.txt", "2 1 1 0 60\n", "got 2 1 1 0 60"),
        ("labels.txt", "1 1 1 60 59\n", "got 1 1 1 60 59"),
        ("labels.txt", "1 1 1.5 3 9\n", "must hold whole numbers"),
        ("gyro_exp02_user01.txt", "0 0 0\n", "must hold as many rows as acc_exp02_user01.txt, 600, got 1"),
        ("gyro_exp02_user01.txt", "0 0\n", "row 1: must hold 3 numbers, got 2"),
        ("acc_exp02_user01.txt", "0 nan 0\n", "row 1, column 2: must be a number"),
    ],
)
def test_broken_files_are_refused(root, file, text, message):
    (root / "RawData" / file).write_text(text)
    with pytest.raises(DataError, match=message):
        open_dataset("hapt").read(root)


def test_a_missing_gyroscope_file_is_named(root):
    (root / "RawData/gyro_exp01_user01.txt").unlink()
    with pytest.raises(DataError, match="gyro_exp01_user01.txt: must be a file"):
        open_dataset("hapt").read(root)
