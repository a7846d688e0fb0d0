"""RealWorld's traps: zips in folders and in zips, parts, names that differ by sensor, clocks of their own."""

import io
import zipfile

import numpy as np
import pytest

from imu_saga.datasets import open_dataset, realworld
from shared_peft.errors import DataError

EPOCH_S = 1_435_993_000.0
NAMES = {"acc": "acc", "gyr": "Gyroscope", "mag": "MagneticField"}


def tone(times_s, offset=0.0):
    return offset + np.sin(2 * np.pi * 1.0 * times_s[:, None] + np.array([0.0, 0.7, 2.0]))


def table(times_s, offset=0.0):
    rows = [
        f"{i},{round((EPOCH_S + t) * 1000)},{','.join(map(repr, v))}"
        for i, (t, v) in enumerate(zip(times_s.tolist(), tone(times_s, offset).tolist(), strict=True), start=1)
    ]
    return "\n".join(["id,attr_time,attr_x,attr_y,attr_z", *rows]) + "\n"


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def times_of(sensor, start_s=0.0, seconds=10.0):
    rate_hz, phase_s = {"acc": (50.0, 0.0), "gyr": (100.0, 0.005), "mag": (40.0, 0.01)}[sensor]
    return start_s + phase_s + np.arange(round(seconds * rate_hz)) / rate_hz


def csv_of(sensor, start_s=0.0):
    return table(times_of(sensor, start_s), 9.8 if sensor == "acc" else 0.0)


def data_folder(root, person=1):
    folder = root / "realworld2016_dataset" / f"proband{person}" / "data"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(root, activity="walking", *, person=1, infix="", sensors=("acc", "gyr", "mag"), position="waist"):
    for sensor in sensors:
        name = f"{NAMES[sensor]}_{activity}{infix}_{position}.csv"
        path = data_folder(root, person) / f"{sensor}_{activity}_csv.zip"
        path.write_bytes(zipped({name: csv_of(sensor), "readMe": "notes"}))


def assert_true(one, start_s=0.0):
    times = one.start_s - EPOCH_S + np.arange(len(one)) / one.rate_hz
    inner = (times > start_s + 2) & (times < start_s + 8)
    np.testing.assert_allclose(one.signal[inner, :3], tone(times, 9.8)[inner], atol=2e-3)
    np.testing.assert_allclose(one.signal[inner, 3:6], tone(times)[inner], atol=2e-3)


def test_sensors_of_their_own_clocks_are_read_from_zips_named_and_filled_by_sensor(tmp_path):
    write(tmp_path)
    (one,) = open_dataset("realworld", {"mag": True}).read(tmp_path)
    assert one.where == "realworld/1/walking/waist"
    assert one.rate_hz == pytest.approx(50, rel=1e-4)
    assert one.signal.shape[1] == 9
    assert set(one.labels) == {7}
    assert_true(one)


def test_a_table_with_a_part_number_in_a_plain_archive_is_read(tmp_path):
    write(tmp_path, infix="_2")
    (one,) = open_dataset("realworld").read(tmp_path)
    assert_true(one)


def test_parts_in_zips_within_a_zip_meet_by_time_whatever_their_numbers(tmp_path):
    for sensor in ("acc", "gyr"):
        parts = {}
        for part, start_s in ((1, 100.0), (2, 200.0), (3, 0.0)):
            outer = f"_{part}" if part > 1 or sensor == "acc" else ""
            inner = f"_{part}" if part > 1 else ""
            content = zipped({f"{NAMES[sensor]}_climbingup{inner}_waist.csv": csv_of(sensor, start_s)})
            parts[f"{sensor}_climbingup{outer}_csv.zip"] = content
        (data_folder(tmp_path) / f"{sensor}_climbingup_csv.zip").write_bytes(zipped(parts))
    recordings = open_dataset("realworld").read(tmp_path)
    assert [one.start_s - EPOCH_S for one in recordings] == pytest.approx([0.02, 100.02, 200.02], abs=1e-3)
    assert {one.session for one in recordings} == {"climbingup"}
    for one, start_s in zip(recordings, (0.0, 100.0, 200.0), strict=True):
        assert_true(one, start_s)


@pytest.mark.parametrize("keep_zips", [False, True])
def test_unpacked_tables_give_what_the_zips_give_and_nothing_twice(tmp_path, keep_zips):
    write(tmp_path)
    (packed,) = open_dataset("realworld").read(tmp_path)
    for path in sorted(data_folder(tmp_path).glob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(path.with_suffix(""))
        if not keep_zips:
            path.unlink()
    (unpacked,) = open_dataset("realworld").read(tmp_path)
    np.testing.assert_array_equal(unpacked.signal, packed.signal)
    assert unpacked.rate_hz == packed.rate_hz


def test_rows_out_of_order_and_repeated_are_put_right(tmp_path):
    write(tmp_path)
    (straight,) = open_dataset("realworld").read(tmp_path)
    header, *rows = csv_of("gyr").strip().split("\n")
    text = "\n".join([header, *rows[400:], *rows[:500]])
    path = data_folder(tmp_path) / "gyr_walking_csv.zip"
    path.write_bytes(zipped({"Gyroscope_walking_waist.csv": text}))
    (one,) = open_dataset("realworld").read(tmp_path)
    np.testing.assert_array_equal(one.signal, straight.signal)


def test_a_missing_gyroscope_leaves_the_recording_out_unless_acc_alone_is_wanted(tmp_path):
    write(tmp_path, person=2)
    write(tmp_path, person=6, sensors=("acc",))
    assert [one.subject for one in open_dataset("realworld").read(tmp_path)] == ["2"]
    alone = open_dataset("realworld", {"gyro": False}).read(tmp_path)
    assert [(one.subject, one.signal.shape[1]) for one in alone] == [("2", 3), ("6", 3)]


def test_positions_are_chosen_and_people_come_in_order_of_number(tmp_path):
    for person in (10, 2):
        write(tmp_path, person=person)
        write(tmp_path, "sitting", person=person, position="head")
    found = [(one.subject, one.session, one.placement) for one in open_dataset("realworld").read(tmp_path)]
    assert found == [("2", "walking", "waist"), ("10", "walking", "waist")]
    every = open_dataset("realworld", {"placement": "all"}).read(tmp_path / "realworld2016_dataset")
    assert {one.placement for one in every} == {"head", "waist"}


def test_an_entry_named_like_a_path_is_read_in_memory_and_writes_nothing(tmp_path):
    write(tmp_path)
    path = data_folder(tmp_path) / "acc_walking_csv.zip"
    path.write_bytes(zipped({"../../../acc_walking_waist.csv": csv_of("acc")}))
    before = sorted(tmp_path.rglob("*"))
    (one,) = open_dataset("realworld").read(tmp_path)
    assert_true(one)
    assert sorted(tmp_path.rglob("*")) == before
    assert not (tmp_path.parent / "acc_walking_waist.csv").exists()


def test_an_archive_that_would_unpack_to_too_much_is_refused_before_it_is_read(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr(realworld, "MAX_ARCHIVE_BYTES", 1 << 20)
    path = data_folder(tmp_path) / "acc_walking_csv.zip"
    path.write_bytes(zipped({"acc_walking_waist.csv": b" " * (3 << 20)}))
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("the entry was read"))
    with pytest.raises(DataError, match="must hold at most 1 MiB, .* got 3.0 MiB"):
        open_dataset("realworld").read(tmp_path)


def test_archives_nested_too_deep_are_refused(tmp_path):
    write(tmp_path)
    content = csv_of("acc")
    for name in ("acc_walking_waist.csv", "a.zip", "b.zip"):
        content = zipped({name: content})
    (data_folder(tmp_path) / "acc_walking_csv.zip").write_bytes(content)
    with pytest.raises(DataError, match="archives at most 2 deep, got .* 3 deep"):
        open_dataset("realworld").read(tmp_path)


def broken(content):
    at = content.index(b"acc_walking_waist.csv") + 200
    return content[:at] + bytes(64) + content[at + 64 :]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04 not a zip", "must be a whole zip file"),
        (zipped({"acc_walking_waist.csv": csv_of("acc")})[:-40], "must be a whole zip file"),
        (broken(zipped({"acc_walking_waist.csv": csv_of("acc")})), "must be a whole zip file"),
        (zipped({"acc_walking_waist.csv": "id,time\n1,2\n"}), "must be a table with attr_time"),
        (zipped({"acc_walking_waist.csv": ""}), "must be a table with attr_time"),
        (zipped({"acc_walking_waist.csv": csv_of("acc").replace("\n3,", "\nx,x,", 1)}), "must be a table with"),
        (zipped({"acc_walking_waist.csv": "id,attr_time,attr_x,attr_y,attr_z\n1,5,,2,3\n"}), "row 2: must hold num"),
    ],
)
def test_a_broken_archive_or_table_is_refused_by_name(tmp_path, content, message):
    write(tmp_path)
    (data_folder(tmp_path) / "acc_walking_csv.zip").write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        open_dataset("realworld").read(tmp_path)
    assert "acc_walking_csv.zip" in str(error.value)
