"""WISDM's traps: trailing semicolons, stamps of odd epochs that run back, runs of other rates, no activity N."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError


def tone(times_s, offset=0.0):
    return offset + np.sin(2 * np.pi * 1.0 * times_s[:, None] + np.array([0.0, 0.7, 2.0]))


def lines(times_s, offset=0.0, *, letter="A", epoch_s=252_207.0, subject="1600", end=";"):
    return [
        f"{subject},{letter},{round((epoch_s + t) * 1e9)},{','.join(map(repr, v))}{end}"
        for t, v in zip(times_s.tolist(), tone(times_s, offset).tolist(), strict=True)
    ]


def write(root, acc, gyro, device="phone", subject="1600"):
    for sensor, rows in (("accel", acc), ("gyro", gyro)):
        path = root / f"raw/{device}/{sensor}/data_{subject}_{sensor}_{device}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(rows) + "\n")


def every(rate_hz, seconds=20.0, phase_s=0.0):
    return phase_s + np.arange(round(seconds * rate_hz)) / rate_hz


def assert_true(one, epoch_s):
    times = one.start_s - epoch_s + np.arange(len(one)) / one.rate_hz
    inner = (times > 3) & (times < 17)
    np.testing.assert_allclose(one.signal[inner], np.hstack([tone(times, 9.8), tone(times)])[inner], atol=2e-3)


@pytest.mark.parametrize("end", [";", "", "; "])
def test_the_gyroscopes_clock_meets_the_accelerometers(tmp_path, end):
    write(tmp_path, lines(every(20.0), 9.8, end=end), lines(every(20.6, phase_s=0.011), end=end))
    (one,) = open_dataset("wisdm").read(tmp_path)
    assert one.rate_hz == pytest.approx(20, rel=1e-6)
    assert one.where == "wisdm/1600/A_00/pocket"
    assert_true(one, 252_207.0)


def test_every_recording_has_the_rate_of_its_own_stamps(tmp_path):
    acc = lines(every(20.0), 9.8) + lines(every(50.0), 9.8, letter="B", epoch_s=252_300.0)
    gyro = lines(every(20.0)) + lines(every(100.0), letter="B", epoch_s=252_300.0)
    write(tmp_path, acc, gyro)
    walking, jogging = open_dataset("wisdm").read(tmp_path)
    assert (walking.rate_hz, jogging.rate_hz) == pytest.approx((20, 50), rel=1e-6)
    assert_true(jogging, 252_300.0)
    assert [int(one.labels[0]) for one in (walking, jogging)] == [0, 1]


def test_time_that_runs_back_starts_a_new_run_even_within_an_activity(tmp_path):
    acc = lines(every(20.0), 9.8, epoch_s=5000.0) + lines(every(20.0), 9.8, epoch_s=17.0)
    gyro = lines(every(20.0), epoch_s=5000.0) + lines(every(20.0), epoch_s=17.0)
    write(tmp_path, acc, gyro)
    first, second = open_dataset("wisdm").read(tmp_path)
    assert (first.session, second.session) == ("A_00", "A_01")
    assert_true(first, 5000.0)
    assert_true(second, 17.0)


def test_activities_are_never_joined_though_their_stamps_overlap(tmp_path):
    acc = lines(every(20.0), 9.8) + lines(every(20.0), 9.8, letter="B")
    gyro = lines(every(20.0)) + lines(every(20.0), letter="B")
    write(tmp_path, acc, gyro)
    recordings = open_dataset("wisdm").read(tmp_path)
    assert [(one.session, set(one.labels)) for one in recordings] == [("A_00", {0}), ("B_01", {1})]


def test_a_repeated_stamp_is_dropped_and_a_long_gap_splits(tmp_path):
    times = every(20.0)
    times[40] = times[39]
    gapped = times[(times < 8) | (times > 12)]
    write(tmp_path, lines(gapped, 9.8), lines(every(20.0)))
    first, second = open_dataset("wisdm").read(tmp_path)
    assert first.rate_hz == pytest.approx(20, rel=1e-3)
    assert np.abs(first.signal[:, 0] - 9.8).max() < 1.05
    assert second.start_s - first.start_s == pytest.approx(12.05, abs=1e-6)
    assert first.session == second.session


def test_a_run_whose_gyroscope_counts_from_another_epoch_is_left_out_unless_acc_alone_is_wanted(tmp_path):
    acc = lines(every(20.0), 9.8) + lines(every(20.0), 9.8, letter="C", epoch_s=252_300.0)
    write(tmp_path, acc, lines(every(20.0)) + lines(every(20.0), letter="C", epoch_s=9.0))
    assert [one.session for one in open_dataset("wisdm").read(tmp_path)] == ["A_00"]
    alone = open_dataset("wisdm", {"gyro": False}).read(tmp_path)
    assert [(one.session, one.signal.shape) for one in alone] == [("A_00", (400, 3)), ("C_01", (400, 3))]


def test_eighteen_activities_without_n_and_s_is_the_last(tmp_path):
    names = open_dataset("wisdm").class_names()
    assert len(names) == 18
    write(tmp_path, lines(every(20.0), 9.8, letter="S"), lines(every(20.0), letter="S"))
    (one,) = open_dataset("wisdm").read(tmp_path)
    assert names[int(one.labels[0])] == "folding"


def test_the_watch_is_on_the_wrist_and_every_folder_level_is_found(tmp_path):
    dataset = open_dataset("wisdm", {"device": "both"})
    dataset.write_sample(tmp_path)
    for root in (tmp_path, tmp_path / "wisdm-dataset", tmp_path / "wisdm-dataset/raw"):
        assert {one.placement for one in dataset.read(root)} == {"pocket", "wrist"}


@pytest.mark.parametrize(
    "row", ["1600,N,1,2,3,4;", "1600,A,1,2,3;", "1600,A,soon,1,2,3;", "1600,A,1,2,nan,3;", "1600,A,1,2,3,4,5;", "1600"]
)
def test_a_broken_row_is_refused_by_number(tmp_path, row):
    write(tmp_path, lines(every(20.0), 9.8), lines(every(20.0)))
    path = tmp_path / "raw/phone/accel/data_1600_accel_phone.txt"
    rows = path.read_text().split("\n")
    path.write_text("\n".join([*rows[:6], row, *rows[6:]]))
    with pytest.raises(DataError, match=f"row 7: must be subject, activity, .* got '{row}'"):
        open_dataset("wisdm").read(tmp_path)
