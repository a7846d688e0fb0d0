"""UCI HAR: windows that overlap by half become recordings in which every raw sample stands once."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from imu_saga.datasets.uci_har import HALF, WINDOW, stitched
from shared_peft.errors import DataError


@pytest.fixture
def root(tmp_path):
    open_dataset("uci_har").write_sample(tmp_path / "download")
    return tmp_path / "download"


def by_session(recordings):
    return {one.session: one for one in recordings}


def overlapping(stream):
    """(n, 128, channels) windows of a stream whose length is a multiple of 64."""
    return np.stack([stream[start : start + WINDOW] for start in range(0, len(stream) - HALF, HALF)])


def test_recordings_are_the_runs_the_windows_were_cut_from(root):
    recordings = by_session(open_dataset("uci_har").read(root))
    lengths = {name: (one.subject, len(one)) for name, one in recordings.items()}
    assert lengths == {
        "train_0001": ("01", 6 * HALF),
        "train_0006": ("03", 5 * HALF),
        "test_0001": ("02", 3 * HALF),
        "test_0003": ("02", 4 * HALF),
    }
    signals = root / "UCI HAR Dataset/train/Inertial Signals"
    for channel, name, scale in ((1, "total_acc_y", 9.80665), (3, "body_gyro_x", 1.0)):
        windows = np.loadtxt(signals / f"{name}_train.txt")
        expected = np.concatenate([windows[0], *(window[HALF:] for window in windows[1:5])]) * scale
        np.testing.assert_allclose(recordings["train_0001"].signal[:, channel], expected, rtol=1e-6)


def test_no_raw_sample_stands_in_two_recordings(root):
    samples = np.concatenate([one.signal for one in open_dataset("uci_har").read(root)])
    assert len(np.unique(samples, axis=0)) == len(samples) == 18 * HALF


def test_a_half_two_windows_label_differently_is_unlabelled(root):
    labels = by_session(open_dataset("uci_har").read(root))["train_0001"].labels
    np.testing.assert_array_equal(labels, np.repeat([3, 3, -1, 0, 0, 0], HALF))  # windows 4 4 1 1 1


@pytest.mark.parametrize("seed", range(5))
def test_windows_in_any_order_or_repeated_give_every_half_once(seed):
    rng = np.random.default_rng(seed)
    stream = rng.normal(size=(9 * HALF, 6))
    order = rng.permutation(np.repeat(np.arange(8), rng.integers(1, 3, 8)))
    sessions = stitched(overlapping(stream)[order], np.zeros(len(order), int), np.full(len(order), 7), "train")
    halves = [half.tobytes() for session in sessions for half in session.halves]
    assert sorted(halves) == sorted(half.tobytes() for half in stream.reshape(9, HALF, 6))


def test_windows_of_two_subjects_are_never_joined():
    windows = overlapping(np.random.default_rng(0).normal(size=(4 * HALF, 6)))
    sessions = stitched(windows, np.zeros(3, int), np.array([1, 1, 2]), "test")
    assert [(one.subject, len(one.halves)) for one in sessions] == [("01", 3), ("02", 2)]


def test_halves_that_differ_in_one_number_are_not_joined():
    windows = overlapping(np.random.default_rng(0).normal(size=(3 * HALF, 6)))
    windows[1, 5, 2] += 1e-12
    assert [len(one.halves) for one in stitched(windows, np.zeros(2, int), np.ones(2, int), "x")] == [2, 2]


def test_parts_and_folders_above_and_below_are_found(root):
    dataset = open_dataset("uci_har", {"part": "test"})
    assert {one.subject for one in dataset.read(root)} == {"02"}
    for folder in (root.parent, root / "UCI HAR Dataset"):
        assert [one.where for one in dataset.read(folder)] == [one.where for one in dataset.read(root)]


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("y_train.txt", "4\n", "7\n", "y_train.txt, row 1: must be a whole number from 1 to 6, got 7"),
        ("subject_train.txt", "1\n", "1\n1\n", "same number of rows, got 9, 9, 9, 9, 9, 9, 9, 10"),
        ("Inertial Signals/total_acc_x_train.txt", "\n", " 1.0\n", "row 1: must hold 128 numbers, got 129"),
        ("Inertial Signals/body_gyro_z_train.txt", "e-", "f-", "row 1, column .*: must be a number"),
    ],
)
def test_broken_files_are_refused_by_row(root, file, old, new, message):
    path = root / "UCI HAR Dataset/train" / file
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        open_dataset("uci_har").read(root)
