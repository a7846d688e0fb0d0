"""UMAFall's traps: devices told by the header, rows of five clocks mixed, g and deg/s, a phone without a gyroscope."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from imu_saga.datasets.umafall import ACTIVITIES, FALLS
from imu_saga.signal.units import GRAVITY
from shared_peft.errors import DataError

HEADER = (
    "% Universidad de M\xe1laga",
    "%f8:95:c7:f3:ba:82; 0; RIGHTPOCKET; lge-LG-H815-5.1",
    "%C4:BE:84:71:A5:02; 2; WAIST; SensorTag",
    "%C4:BE:84:70:0E:80; 1; WRIST; SensorTag",
    "% TimeStamp; Sample No; X-Axis; Y-Axis; Z-Axis; Sensor Type; Sensor ID",
    "",
)


def tone(times_s, scale=1.0, offset=0.0):
    return offset + scale * np.sin(2 * np.pi * 1.0 * times_s[:, None] + np.array([0.0, 0.7, 2.0]))


def lines(times_s, values, kind, device, end=""):
    return [
        (t, f"{round(t * 1000)};{i + 1};{';'.join(map(repr, v))};{kind};{device}{end}")
        for i, (t, v) in enumerate(zip(times_s.tolist(), values.tolist(), strict=True))
    ]


def trial(*, phone=True, late_s=0.013, end="", header=HEADER):
    """Ten seconds of a phone (acc in g) and of two motes (acc in g, gyro in deg/s, mag in uT), in order of time."""
    rows = []
    if phone:
        times = np.arange(2000) / 200
        rows += lines(times, tone(times, 0.1, 0.6), 0, 0, end)
    for device, offset in ((2, 0.57), (1, 0.58)):
        times = np.arange(200) / 20
        rows += lines(times, tone(times, 0.1, offset), 0, device, end)
        rows += lines(times + late_s, tone(times + late_s, 90.0), 1, device, end)
        rows += lines(times, tone(times, 1.0, 40.0), 2, device, end)
    return "\n".join([*header, *(row for _, row in sorted(rows))]) + "\n"


def write(root, text, name="UMAFall_Subject_05_ADL_Walking_2_2016-06-13_20-23-52.csv"):
    path = root / "UMAFall_Dataset" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.parametrize("end", ["", ";", "; "])
def test_units_become_si_and_each_sensor_keeps_its_time(tmp_path, end):
    write(tmp_path, trial(end=end))
    wrist, waist = open_dataset("umafall", {"mag": True}).read(tmp_path)
    assert [wrist.placement, waist.placement] == ["wrist", "waist"]  # numbers 1 and 2, by this file's header
    for one, offset in ((wrist, 0.58), (waist, 0.57)):
        assert one.rate_hz == pytest.approx(20, rel=1e-3)
        times = one.start_s + np.arange(len(one)) / one.rate_hz
        inner = (times > 3) & (times < 7)
        np.testing.assert_allclose(one.signal[:, :3], tone(times, 0.1, offset) * GRAVITY, atol=5e-3)
        np.testing.assert_allclose(one.signal[inner, 3:6], tone(times, np.pi / 2)[inner], atol=5e-3)
        np.testing.assert_allclose(one.signal[inner, 6:], tone(times, 1.0, 40.0)[inner], atol=5e-3)


def test_the_phone_has_an_accelerometer_only_at_200_hz(tmp_path):
    write(tmp_path, trial())
    assert {one.placement for one in open_dataset("umafall").read(tmp_path)} == {"wrist", "waist"}
    alone = open_dataset("umafall", {"gyro": False}).read(tmp_path)
    assert {one.placement: round(one.rate_hz) for one in alone} == {"pocket": 200, "wrist": 20, "waist": 20}
    assert all(one.signal.shape[1] == 3 for one in alone)
    pocket = open_dataset("umafall", {"gyro": False, "placement": "pocket"}).read(tmp_path)
    assert [one.placement for one in pocket] == ["pocket"]
    assert open_dataset("umafall", {"placement": "pocket"}).read(tmp_path) == []


def test_a_mote_that_stopped_sending_is_left_out(tmp_path):
    text = trial()
    kept = [line for line in text.split("\n") if not (line.endswith(";1;1") and int(line.split(";")[0]) > 100)]
    write(tmp_path, "\n".join(kept))
    assert [one.placement for one in open_dataset("umafall").read(tmp_path)] == ["waist"]


@pytest.mark.parametrize(
    ("falls", "labels"), [("unlabelled", {-1}), ("labelled", {len(ACTIVITIES) + 1}), ("left_out", set())]
)
def test_falls_are_unlabelled_labelled_or_left_out(tmp_path, falls, labels):
    write(tmp_path, trial(), "UMAFall_Subject_05_Fall_backwardFall_4_2016-06-13_20-51-32.csv")
    write(tmp_path, trial())
    dataset = open_dataset("umafall", {"falls": falls})
    assert dataset.class_names() == (ACTIVITIES + FALLS if falls == "labelled" else ACTIVITIES)
    found = {one.session.partition("_")[0]: set(one.labels) for one in dataset.read(tmp_path)}
    assert found.pop("Walking") == {0}
    assert found == ({"backwardFall": labels} if labels else {})


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("LyingDown_OnABed", "LyingDown_OnABed"), ("LyingDown", "LyingDown_OnABed"), ("GoUpstairs", "GoUpstairs")],
)
def test_activities_are_told_by_the_files_name_underscores_included(tmp_path, spelling, name):
    write(tmp_path, trial(), f"UMAFall_Subject_11_ADL_{spelling}_3_2016-06-13_20-23-52.csv")
    one, _ = open_dataset("umafall").read(tmp_path)
    assert one.labels[0] == ACTIVITIES.index(name)
    assert (one.subject, one.session) == ("11", f"{spelling}_3_2016-06-13_20-23-52")


def test_rows_out_of_order_are_sorted(tmp_path):
    head, body = trial().split("Sensor ID\n", 1)
    rows = body.strip().split("\n")
    write(tmp_path, head + "Sensor ID\n" + "\n".join(rows[1500:] + rows[:1500]))
    (one,) = open_dataset("umafall", {"placement": "waist"}).read(tmp_path)
    assert len(one) >= 198
    assert one.valid.all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (";0;2\n", ";0\n", "row .*: must be time_ms; sample; x; y; z; type; device, got"),
        ("0;1;0.6;", "0;1;high;", "row 9: must be time_ms; .* got '0;1;high;"),
        ("WAIST", "KNEE", "position must be one of RIGHTPOCKET, .* got 'KNEE'"),
        ("02; 2; WAIST", "02; 9; WAIST", "device must be one of the header's 0, 9, 1, got 2"),
        ("%C4", "% none", "device must be one of the header's 0, 1"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, old, new, message):
    text = trial()
    assert old in text
    path = write(tmp_path, text.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as error:
        open_dataset("umafall").read(tmp_path)
    assert path.name in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("UMAFall_Subject_05_ADL_Dancing_2_2016-06-13_20-23-52.csv", "activity must be one of Walking, .*'Dancing'"),
        ("UMAFall_Subject_05.csv", "name must be UMAFall_Subject_NN_ADL or Fall_NAME_TRIAL_DATE_TIME.csv"),
    ],
)
def test_a_name_that_tells_no_activity_is_refused(tmp_path, name, message):
    write(tmp_path, trial(), name)
    with pytest.raises(DataError, match=message):
        open_dataset("umafall").read(tmp_path)
