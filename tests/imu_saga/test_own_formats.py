"""A user's own file: every format gives the same recording; clocks, orders and sensors of every kind are handled."""

import sys

import numpy as np
import pandas as pd
import pytest

from imu_saga.datasets import open_dataset
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, IMU_CHANNELS, MAG_CHANNELS
from shared_peft.errors import ConfigError, DataError, MissingPackageError

FORMATS = ("csv", "npz", "parquet")
TILT_HZ = 0.8


def truth(seconds):
    """(samples, 9) SI signal of a rocking device, at any times."""
    tilt = 0.4 * np.sin(2 * np.pi * TILT_HZ * seconds)
    rate = 0.4 * 2 * np.pi * TILT_HZ * np.cos(2 * np.pi * TILT_HZ * seconds)
    none = np.zeros_like(tilt)
    columns = [9.81 * np.sin(tilt), none, 9.81 * np.cos(tilt), none, -rate, none, 40 * np.cos(tilt), none, none]
    return np.stack(columns, axis=1)


def table(seconds=None, mag=False):
    seconds = np.arange(400) / 50 if seconds is None else seconds
    channels = IMU_CHANNELS + (MAG_CHANNELS if mag else ())
    signal = truth(seconds)[:, : len(channels)]
    labels = np.where(seconds < 4, "a", "b")
    return pd.DataFrame({"time": seconds, **dict(zip(channels, signal.T, strict=True)), "label": labels})


def write(frame, path):
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".parquet":
            frame.to_parquet(path, index=False)
        case _:
            np.savez(path, **{name: np.asarray(frame[name].tolist()) for name in frame})
    return path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_recording_that_was_written(tmp_path, kind):
    path = write(table(mag=True), tmp_path / f"walk.{kind}")
    options = {"label": "label", "mag": list(MAG_CHANNELS)}
    (made,) = open_dataset(kind, options).read(path)
    assert made.channels == IMU_CHANNELS + MAG_CHANNELS
    assert made.dataset == kind
    np.testing.assert_allclose(made.signal, truth(np.arange(400) / 50), atol=1e-4)
    np.testing.assert_array_equal(made.labels, np.arange(400) >= 200)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_accelerometer_alone_is_enough(tmp_path, kind):
    path = write(table()[["time", *ACC_CHANNELS]], tmp_path / f"walk.{kind}")
    (made,) = open_dataset(kind, {"gyro": None}).read(path)
    assert made.channels == ACC_CHANNELS
    np.testing.assert_allclose(made.signal, truth(np.arange(400) / 50)[:, :3], atol=1e-4)


def test_arrays_of_three_columns_are_named_by_axis(tmp_path):
    seconds = np.arange(400) / 50
    path, signal = tmp_path / "walk.npz", truth(seconds)
    np.savez(path, t=seconds, acc=signal[:, :3], gyro=signal[:, 3:6], note=np.zeros((2, 2)))
    dataset = open_dataset("npz", {"time": "t"})
    assert dataset.column_names(path) == ["t", *ACC_CHANNELS, *GYRO_CHANNELS]
    np.testing.assert_allclose(dataset.read(path)[0].signal, signal[:, :6], atol=1e-4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"time": np.arange(9.0), "acc": np.ones((8, 3))}, "arrays must have one length, got acc 8, time 9"),
        ({"time": np.arange(9.0), "acc": np.ones((9, 4))}, "columns 'acc_x', 'acc_y', 'acc_z' must be in the header"),
        ({"time": np.arange(9.0), "acc": np.full((9, 3), 1j)}, "array acc: must hold real numbers or text"),
        ({"time": np.arange(9.0), "acc": np.full((9, 3), None)}, "must be a whole npz file, got Object arrays"),
        ({"time": np.arange(0.0), "acc": np.ones((0, 3))}, "must hold at least one row"),
    ],
)
def test_an_npz_that_holds_no_recording_is_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "walk.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_dataset("npz", {"gyro": None}).read(tmp_path / "walk.npz")


def test_a_parquet_with_dates_is_read_and_a_broken_one_refused(tmp_path):
    frame = table()
    frame["time"] = pd.to_datetime("2024-03-31 01:59:58") + pd.to_timedelta(frame["time"], unit="s")
    (made,) = open_dataset("parquet").read(write(frame, tmp_path / "walk.parquet"))
    assert made.rate_hz == pytest.approx(50, rel=1e-6)
    (tmp_path / "walk.parquet").write_bytes(b"PAR1 broken PAR1")
    with pytest.raises(DataError, match=r"walk.parquet: must be a whole parquet file, got .*"):
        open_dataset("parquet").read(tmp_path / "walk.parquet")


def test_a_csv_with_iso_dates_is_read(tmp_path):
    frame = table()
    stamps = pd.to_datetime("2024-03-31 01:59:58.5Z") + pd.to_timedelta(frame["time"], unit="s")
    frame["time"] = [stamp.isoformat() for stamp in stamps]
    (made,) = open_dataset("csv").read(write(frame, tmp_path / "walk.csv"))
    assert made.rate_hz == pytest.approx(50, rel=1e-5)
    np.testing.assert_allclose(made.signal[9:-9], truth(np.arange(400) / 50)[9:-9, :6], atol=1e-3)


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    path = write(table(), tmp_path / "walk.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(MissingPackageError, match=r'needs the package pyarrow.* pip install "saga-peft\[parquet\]"'):
        open_dataset("parquet").read(path)
    assert open_dataset("csv").read(write(table(), tmp_path / "walk.csv"))


def test_decimal_commas_are_read_when_declared(tmp_path):
    path = tmp_path / "walk.csv"
    table().to_csv(path, index=False, sep=";", decimal=",")
    with pytest.raises(DataError, match=r"column acc_x: must be a number, got '.*,.*'. .*decimal=comma if commas mark"):
        open_dataset("csv").read(path)
    (made,) = open_dataset("csv", {"decimal": "comma"}).read(path)
    np.testing.assert_allclose(made.signal, truth(np.arange(400) / 50)[:, :6], atol=1e-4)


def test_quoted_headers_do_not_hide_short_rows(tmp_path):
    text = table().to_csv(index=False, quoting=1).splitlines()
    text[9] = ",".join(text[9].split(",")[:5])
    path = tmp_path / "walk.csv"
    path.write_text("\n".join(text))
    with pytest.raises(DataError, match="row 10: must have the header's 8 columns, got 5 in"):
        open_dataset("csv").read(path)


@pytest.mark.parametrize("offset_s", [0.0, 0.0037])
def test_sensors_on_rows_of_their_own_are_put_on_one_clock(tmp_path, offset_s):
    acc, gyro = table(np.arange(1000) / 100), table(offset_s + np.arange(500) / 50)
    acc[list(GYRO_CHANNELS)] = np.nan
    gyro[list(ACC_CHANNELS)] = np.nan
    both = pd.concat([acc, gyro]).sort_values("time", kind="stable")
    (made,) = open_dataset("csv", {"label": "label"}).read(write(both, tmp_path / "walk.csv"))
    assert made.rate_hz == pytest.approx(100, rel=1e-4)
    seconds = made.start_s + np.arange(len(made)) / made.rate_hz
    inner = slice(20, -20)
    np.testing.assert_allclose(made.signal[inner], truth(seconds)[inner, :6], atol=4e-3)
    np.testing.assert_array_equal(made.labels, seconds >= 4)
    assert made.valid.mean() > 0.98


def test_sensors_in_files_of_their_own_are_put_on_one_clock(tmp_path):
    write(table(10 + np.arange(800) / 100)[["time", *ACC_CHANNELS, "label"]], tmp_path / "Accelerometer.csv")
    write(table(9.5 + np.arange(400) / 47)[["time", *GYRO_CHANNELS]], tmp_path / "Gyroscope.csv")
    for root in (tmp_path / "Accelerometer.csv", tmp_path):
        (made,) = open_dataset("csv", {"gyro_file": "Gyroscope.csv"}).read(root)
        seconds = 10 + made.start_s + np.arange(len(made)) / made.rate_hz
        inner = slice(20, -20)
        np.testing.assert_allclose(made.signal[inner], truth(seconds)[inner, :6], atol=4e-3)


def shuffled(frame):
    return frame.iloc[np.random.default_rng(0).permutation(len(frame))]


def late(frame):
    order = np.arange(len(frame))
    order[[50, 51, 52, 200, 201]] = order[[52, 50, 51, 201, 200]]
    return frame.iloc[order]


def swapped(frame):
    return pd.concat([frame.iloc[250:], frame.iloc[:250]])


@pytest.mark.parametrize("spoil", [shuffled, late, swapped])
def test_unsorted_rows_are_refused_and_sorted_when_asked(tmp_path, spoil):
    path = write(spoil(table()), tmp_path / "walk.csv")
    with pytest.raises(DataError, match=r"column time: time must not run backwards, got .* at row \d+. .*sort=true"):
        open_dataset("csv").read(path)
    with pytest.warns(UserWarning, match=r"walk.csv: time ran backwards at \d+ rows; sorted by time"):
        (made,) = open_dataset("csv", {"sort": True}).read(path)
    np.testing.assert_allclose(made.signal, truth(np.arange(400) / 50)[:, :6], atol=1e-4)


def test_a_clock_that_restarts_is_split_when_asked_and_never_sorted_together(tmp_path):
    frame = pd.concat([table(), table(np.arange(300) / 50 + 0.004)])
    path = write(frame, tmp_path / "walk.csv")
    with pytest.raises(DataError, match="got 0.004 after 7.98 at row 402. .*split_resets=true"):
        open_dataset("csv").read(path)
    with pytest.raises(DataError, match="sorting must not mix two runs"):
        open_dataset("csv", {"sort": True}).read(path)
    made = open_dataset("csv", {"split_resets": True}).read(path)
    assert [(one.session, len(one)) for one in made] == [("walk", 400), ("walk-2", 300)]
    np.testing.assert_allclose(made[1].signal, truth(np.arange(300) / 50 + 0.004)[:, :6], atol=1e-4)


def test_repeated_rows_change_nothing(tmp_path):
    frame = table()
    twice = pd.concat([frame, frame.iloc[::3]]).sort_values("time", kind="stable")
    (made,) = open_dataset("csv").read(write(twice, tmp_path / "twice.csv"))
    assert made.rate_hz == pytest.approx(50)
    np.testing.assert_allclose(made.signal, truth(np.arange(400) / 50)[:, :6], atol=1e-4)


def test_a_column_named_for_two_axes_is_refused(tmp_path):
    path = write(table(), tmp_path / "walk.csv")
    with pytest.raises(DataError, match="csv columns: must differ, got acc_y twice"):
        open_dataset("csv", {"acc": ["acc_x", "acc_y", "acc_y"]}).read(path)


def test_a_magnetometer_in_another_unit_is_converted_and_an_impossible_field_refused(tmp_path):
    frame = table(mag=True)
    frame[list(MAG_CHANNELS)] /= 100
    path = write(frame, tmp_path / "walk.csv")
    (made,) = open_dataset("csv", {"mag": list(MAG_CHANNELS), "mag_unit": "G"}).read(path)
    np.testing.assert_allclose(made.signal[:, 6:], truth(np.arange(400) / 50)[:, 6:], atol=1e-4)
    with pytest.raises(DataError, match="columns mag_x, mag_y, mag_z: must stay within 6000 uT"):
        open_dataset("csv", {"mag": list(MAG_CHANNELS), "mag_unit": "T"}).read(path)


def test_a_unit_no_option_knows_is_refused():
    with pytest.raises(ConfigError, match="mag_unit: must be one of 'uT', 'nT', 'mT', 'T', 'G', 'mG'"):
        open_dataset("npz", {"mag_unit": "gauss"})
