"""KU-HAR: two sensors with a clock each in one row, gravity removed, and the ways one of them ends earlier."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError

WALK = "1.Raw_time_domian_data/11.Walk"


@pytest.fixture
def root(tmp_path):
    open_dataset("ku_har").write_sample(tmp_path / "download")
    return tmp_path / "download"


def planted(rows=600, late=7):
    """(rows, 8) of one 1.5 Hz wave on acc x and gyro z, each at its own jittered times; the gyroscope starts late."""
    rng = np.random.default_rng(0)
    acc_times = np.cumsum(rng.normal(0.01, 0.0005, rows))
    gyro_times = np.cumsum(rng.normal(0.01, 0.0005, rows)) + late / 100
    table = np.zeros((rows, 8))
    table[:, 0], table[:, 4] = acc_times, gyro_times
    table[:, 1], table[:, 7] = np.sin(3 * np.pi * acc_times), np.sin(3 * np.pi * gyro_times)
    return table


def text_of(table, missing="NaN"):
    return "\n".join(",".join(f"{cell:.9g}" for cell in row).replace("nan", missing) for row in table) + "\n"


def read_planted(tmp_path, text, name="1001_L_1.csv"):
    (tmp_path / WALK).mkdir(parents=True, exist_ok=True)
    (tmp_path / WALK / name).write_text(text)
    return open_dataset("ku_har").read(tmp_path)


def test_both_sensors_are_aligned_by_their_own_times(tmp_path):
    table = planted()
    (one,) = read_planted(tmp_path, text_of(table))
    times = one.start_s + np.arange(len(one)) / one.rate_hz
    np.testing.assert_allclose(one.signal[5:-5, 0], np.sin(3 * np.pi * times)[5:-5], atol=2e-3)
    np.testing.assert_allclose(one.signal[5:-5, 5], np.sin(3 * np.pi * times)[5:-5], atol=2e-3)
    assert np.abs(table[:, 1] - table[:, 7]).max() > 0.5  # row by row they are far apart
    assert times[0] >= table[0, 4] - 1e-6
    assert times[-1] <= min(table[-1, 0], table[-1, 4]) + 1e-6
    assert one.rate_hz == pytest.approx(100, rel=2e-3)


def test_gravity_is_told_to_be_removed(root):
    recordings = open_dataset("ku_har").read(root)
    assert {one.gravity for one in recordings} == {open_dataset("ku_har").gravity} == {"removed"}


def test_times_in_seconds_and_in_milliseconds_give_the_same(tmp_path):
    table = planted()
    (seconds,) = read_planted(tmp_path, text_of(table))
    (milliseconds,) = read_planted(tmp_path, text_of(table * [1000, 1, 1, 1, 1000, 1, 1, 1]))
    assert milliseconds.rate_hz == pytest.approx(seconds.rate_hz)
    np.testing.assert_allclose(milliseconds.signal, seconds.signal, atol=1e-5)


@pytest.mark.parametrize("columns", [slice(0, 4), slice(4, 8)])
def test_a_sensor_that_ends_earlier_ends_the_recording_however_the_file_says_so(tmp_path, columns):
    table = planted()
    table[500:, columns] = np.nan
    zeros = np.nan_to_num(table)
    texts = [text_of(table), text_of(table, missing=""), text_of(zeros)]
    if columns.stop == 8:
        texts.append("\n".join(line.removesuffix(",NaN" * 4) for line in text_of(table).split("\n")))
    recordings = [read_planted(tmp_path, text) for text in texts]
    assert {len(found) for found in recordings} == {1}
    end_s = np.nanmax(table[:, columns.start])
    for (one,) in recordings:
        assert end_s - 0.02 <= one.start_s + one.seconds - 1 / one.rate_hz <= end_s + 1e-6
        np.testing.assert_array_equal(one.signal, recordings[0][0].signal)


def test_repeated_stamps_change_nothing_and_gaps_are_marked_or_split(tmp_path):
    table = planted()
    (whole,) = read_planted(tmp_path, text_of(table))
    (repeated,) = read_planted(tmp_path, text_of(np.repeat(table, np.where(np.arange(600) == 300, 2, 1), axis=0)))
    np.testing.assert_allclose(repeated.signal, whole.signal, atol=1e-4)
    (short,) = read_planted(tmp_path, text_of(np.delete(table, slice(300, 310), axis=0)))
    assert 10 <= (~short.valid).sum() <= 26  # 10 rows lost by two sensors 7 rows apart
    longer = read_planted(tmp_path, text_of(np.delete(table, slice(300, 380), axis=0)))
    assert len(longer) == 2
    assert {one.session for one in longer} == {"1001_L_1"}


def test_user_and_activity_come_from_file_and_folder(root):
    dataset = open_dataset("ku_har")
    first = root / WALK / "1001_L_1.csv"
    first.rename(first.with_name("1001_L_1_2.csv"))
    (root / WALK).rename(root / "1.Raw_time_domian_data/11.Walking forward")
    found = {(one.subject, one.session, dataset.class_names()[one.labels[0]]) for one in dataset.read(root)}
    assert len(found) == 6
    assert ("1001", "1001_L_1_2", "Walk") in found
    assert ("1002", "1002_T_1", "Stair-down") in found
    for folder in (root.parent, root / "1.Raw_time_domian_data"):
        assert [one.where for one in dataset.read(folder)] == [one.where for one in dataset.read(root)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.01,1,2,3\n0.02,1,2,3\n0.03,1,2,3\n", "must hold samples of both sensors, got none of one"),
        ("0.01,1,2\n", "row 1: must hold 8 numbers, got 3"),
        ("0.01,1,2,3,0.01,1,2,3,4\n", "row 1: must hold 8 numbers, got 9"),
        ("0.01,1,2,x,0.01,1,2,3\n", "row 1, column 4: must be a number"),
        ("0.01,1,2,3,0.01,1,2,3\n" * 9, "column 1"),
        ("time,x,y,z,time,x,y,z\n", "row 1, column 1: must be a number"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_planted(tmp_path, text)
    assert "1001_L_1.csv" in str(error.value)


def test_folders_beyond_the_eighteen_are_refused(tmp_path):
    path = tmp_path / "1.Raw_time_domian_data/18.Bike/1001_P_1.csv"
    path.parent.mkdir(parents=True)
    path.write_text(text_of(planted()))
    with pytest.raises(DataError, match="with N from 0 to 17, got 18.Bike/1001_P_1.csv"):
        open_dataset("ku_har").read(tmp_path)
