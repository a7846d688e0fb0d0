"""HHAR's traps: two clocks a sample, clocks that start anew, unsorted rows, missing gyroscopes, files of any length."""

import numpy as np
import pytest

from imu_saga.datasets import hhar, open_dataset
from shared_peft.errors import DataError

HEADER = "Index,Arrival_Time,Creation_Time,x,y,z,User,Model,Device,gt"
START_MS = 1_424_696_633_908


def lines(times_s, values, *, created_s=None, delay_s=0.0, user="a", device="s3_1", labels="walk"):
    """Rows of one sensor: sampled at ``times_s``, stamped ``created_s`` by its own clock, arriving later."""
    created = times_s if created_s is None else created_s
    labels = [labels] * len(times_s) if isinstance(labels, str) else labels
    return [
        f"{i},{START_MS + round((t + delay_s) * 1e3)},{round(c * 1e9)},{','.join(map(repr, v))},{user},s3,{device},{g}"
        for i, (t, c, v, g) in enumerate(zip(times_s.tolist(), created.tolist(), values.tolist(), labels, strict=True))
    ]


def write(root, acc, gyro, kind="Phones"):
    for sensor, rows in (("accelerometer", acc), ("gyroscope", gyro)):
        (root / f"{kind}_{sensor}.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def tone(times_s, offset=0.0):
    return offset + np.sin(2 * np.pi * 1.0 * times_s[:, None] + np.array([0.0, 0.7, 2.0]))


def acc_times(seconds=10.0):
    return np.arange(round(seconds * 100)) / 100


def gyro_times(seconds=10.0):
    return 0.0031 + np.arange(round(seconds * 190)) / 190


def assert_true(one, atol=2e-3, start_s=0.0):
    """The recording must show both sensors' tones at its own times."""
    times = start_s + one.start_s + np.arange(len(one)) / one.rate_hz
    inner = slice(100, -100)
    np.testing.assert_allclose(one.signal[inner, :3], tone(times, 9.8)[inner], atol=atol)
    np.testing.assert_allclose(one.signal[inner, 3:], tone(times)[inner], atol=atol)


def test_sensors_of_their_own_rates_meet_on_one_clock(tmp_path):
    write(tmp_path, lines(acc_times(), tone(acc_times(), 9.8)), lines(gyro_times(), tone(gyro_times())))
    (one,) = open_dataset("hhar").read(tmp_path)
    assert one.rate_hz == pytest.approx(100, rel=1e-6)
    assert_true(one)


def test_steps_come_from_the_creation_clock_not_from_late_batches(tmp_path):
    batches = acc_times()[np.arange(1000) // 20 * 20 + 19] - acc_times()
    acc = lines(acc_times() + batches, tone(acc_times(), 9.8), created_s=acc_times() + 77_000)
    gyro = lines(gyro_times(), tone(gyro_times()), created_s=gyro_times() + 77_000, delay_s=0.1)
    write(tmp_path, acc, gyro)
    (one,) = open_dataset("hhar").read(tmp_path)
    times = one.start_s + np.arange(len(one)) / one.rate_hz
    phase = np.angle(np.exp(-2j * np.pi * times) @ (one.signal - one.signal.mean(axis=0)))
    assert phase[0] - phase[3] == pytest.approx(0, abs=0.02)  # acc and gyro x: one tone, 100 ms of delay apart
    assert one.valid.all()


def test_rows_in_any_order_give_the_same_recordings(tmp_path):
    acc, gyro = lines(acc_times(), tone(acc_times(), 9.8)), lines(gyro_times(), tone(gyro_times()))
    order = np.random.default_rng(0).permutation(len(acc))
    write(tmp_path, [acc[i] for i in order], gyro[700:] + gyro[:700])
    (one,) = open_dataset("hhar").read(tmp_path)
    assert_true(one)


def test_a_creation_clock_that_starts_anew_is_moved_to_where_the_samples_arrived(tmp_path):
    def restarted(times_s):
        return np.where(times_s < 5, times_s + 90_000, times_s - 5)

    acc = lines(acc_times(), tone(acc_times(), 9.8), created_s=restarted(acc_times()))
    gyro = lines(gyro_times(), tone(gyro_times()), created_s=restarted(gyro_times()))
    write(tmp_path, acc, gyro)
    recordings = open_dataset("hhar").read(tmp_path)
    assert sum(len(one) for one in recordings) > 980
    for one in recordings:
        assert_true(one, atol=0.05)


def test_sensors_stamped_by_different_clocks_are_joined_on_the_arrival_clock(tmp_path):
    acc = lines(acc_times(), tone(acc_times(), 9.8), created_s=acc_times() + 1_424_696_631)
    gyro = lines(gyro_times(), tone(gyro_times()), created_s=gyro_times() + 27_920)
    write(tmp_path, acc, gyro)
    (one,) = open_dataset("hhar").read(tmp_path)
    assert_true(one, atol=0.01)  # arrival is told to a millisecond


def test_null_and_empty_labels_are_unlabelled_and_the_others_keep_their_time(tmp_path):
    labels = ["null"] * 300 + [""] * 200 + ["stand"] * 300 + ["bike"] * 200
    acc = lines(acc_times(), tone(acc_times(), 9.8), labels=labels)
    write(tmp_path, acc, lines(gyro_times(), tone(gyro_times())))
    (one,) = open_dataset("hhar").read(tmp_path)
    times = one.start_s + np.arange(len(one)) / one.rate_hz
    expected = np.select([times < 4.995, times < 7.995], [-1, 2], 0)
    np.testing.assert_array_equal(one.labels, expected)


def test_devices_without_a_gyroscope_are_left_out_unless_the_accelerometer_alone_is_wanted(tmp_path):
    acc = lines(acc_times(), tone(acc_times(), 9.8))
    bare = lines(acc_times(), tone(acc_times(), 9.8), device="samsungold_1")
    write(tmp_path, acc + bare, lines(gyro_times(), tone(gyro_times())))
    assert {one.session for one in open_dataset("hhar").read(tmp_path)} == {"s3_1"}
    alone = open_dataset("hhar", {"gyro": False}).read(tmp_path)
    assert {(one.session, one.signal.shape[1]) for one in alone} == {("s3_1", 3), ("samsungold_1", 3)}


def test_a_gap_splits_and_users_and_devices_stay_apart(tmp_path):
    times = acc_times()[(acc_times() < 4) | (acc_times() > 6)]
    acc = [row for user in "ab" for row in lines(times, tone(times, 9.8), user=user)]
    gyro = [row for user in "ab" for row in lines(gyro_times(), tone(gyro_times()), user=user)]
    write(tmp_path, acc, gyro)
    found = [(one.subject, one.session, round(one.start_s)) for one in open_dataset("hhar").read(tmp_path)]
    assert found == [("a", "s3_1", 0), ("a", "s3_1", 6), ("b", "s3_1", 0), ("b", "s3_1", 6)]


def test_reading_in_chunks_changes_nothing(tmp_path, monkeypatch):
    dataset = open_dataset("hhar", {"device": "both"})
    dataset.write_sample(tmp_path)
    whole = dataset.read(tmp_path)
    monkeypatch.setattr(hhar, "CHUNK_ROWS", 777)
    for one, other in zip(dataset.read(tmp_path), whole, strict=True):
        assert one.where == other.where
        np.testing.assert_array_equal(one.signal, other.signal)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_phones_are_worn_at_the_waist_and_watches_on_the_wrist(tmp_path):
    dataset = open_dataset("hhar", {"device": "both"})
    dataset.write_sample(tmp_path)
    placements = {one.session: one.placement for one in dataset.read(tmp_path / "Activity recognition exp")}
    assert placements == {"nexus4_1": "waist", "s3mini_2": "waist", "gear_1": "wrist"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",walk", ",dance", "gt must be null, empty or one of bike, .*, got 'dance'"),
        (f",{START_MS},", ",soon,", "every row must be as in the official file"),
        ("Arrival_Time", "When", "header must name Arrival_Time"),
        ("0,1424", "0,7,1424", "every row must be as in the official file"),
        (",a,s3,", ",nan,a,s3,", "every row must be as in the official file"),
    ],
)
def test_a_broken_file_is_refused_by_name(tmp_path, old, new, message):
    write(tmp_path, lines(acc_times(), tone(acc_times(), 9.8)), lines(gyro_times(), tone(gyro_times())))
    path = tmp_path / "Phones_accelerometer.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message) as error:
        open_dataset("hhar").read(tmp_path)
    assert path.name in str(error.value)


def test_a_value_that_is_not_finite_is_refused_by_row(tmp_path):
    values = tone(acc_times(), 9.8)
    values[41, 1] = np.inf
    write(tmp_path, lines(acc_times(), values), lines(gyro_times(), tone(gyro_times())))
    with pytest.raises(DataError, match="row 43: x, y, z must be finite"):
        open_dataset("hhar").read(tmp_path)
