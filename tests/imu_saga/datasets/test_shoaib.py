"""Shoaib's traps: two header rows, blocks of columns, a misspelt activity, stamps too coarse to use."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from imu_saga.datasets.shoaib import BLOCKS, CLASSES
from imu_saga.recording import IMU_CHANNELS, MAG_CHANNELS
from shared_peft.errors import DataError


def write(root, activities, *, edit=None, stamp="1.39E+12", spare=False):
    """A file whose every cell tells its block and column: acc near gravity, gyro 100 + block, mag 200 + block."""
    rows = [",".join(["Left_pocket", *[""] * 69]), ",".join(["time_stamp", *[""] * 69])]
    for index, activity in enumerate(activities):
        blocks = []
        for block in range(5):
            acc = [0.0, 9.8, 0.1 * block + 0.01 * (index % 50)]
            cells = [*acc, *[-1.0] * 3, *[block + 0.25 * axis for axis in range(3)], *[200 + block] * 3]
            blocks.append(",".join([stamp, *map(str, cells)]))
        rows.append(",,".join(blocks) + ("," if spare else "") + f",{activity}")
    for row, old, new in edit or []:
        assert old in rows[row]
        rows[row] = rows[row].replace(old, new, 1)
    path = root / "DataSet" / "Participant_7.csv"
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize("spare", [False, True])
def test_every_block_is_read_from_its_own_columns(tmp_path, spare):
    write(tmp_path, ["walking"] * 100, spare=spare)
    recordings = open_dataset("shoaib", {"mag": True}).read(tmp_path)
    assert [one.placement for one in recordings] == list(BLOCKS)
    for block, one in enumerate(recordings):
        assert one.channels == IMU_CHANNELS + MAG_CHANNELS
        assert one.subject == "7"
        expected_z = 0.1 * block + 0.01 * (np.arange(100) % 50)
        np.testing.assert_allclose(one.signal[:, 2], expected_z, atol=1e-5)  # the accelerometer with gravity, not Lz
        np.testing.assert_allclose(one.signal[:, 3:6], np.tile(block + np.array([0, 0.25, 0.5]), (100, 1)), atol=1e-5)
        np.testing.assert_allclose(one.signal[:, 6:], 200 + block, atol=1e-4)


def test_rows_are_fifty_to_the_second_though_stamps_stand_still(tmp_path):
    write(tmp_path, ["walking"] * 100)
    (one,) = open_dataset("shoaib", {"placement": "wrist"}).read(tmp_path)
    assert (one.rate_hz, len(one), one.valid.all()) == (50.0, 100, True)


def test_the_misspelt_activity_is_upstairs(tmp_path):
    write(tmp_path, ["upsatirs"] * 50 + ["Upstairs "] * 50)
    (one,) = open_dataset("shoaib", {"placement": "belt"}).read(tmp_path)
    assert set(one.labels) == {CLASSES.index("upstairs")}


def test_activities_are_sessions_of_their_own(tmp_path):
    write(tmp_path, ["walking"] * 60 + ["sitting"] * 50 + ["walking"] * 70)
    recordings = open_dataset("shoaib", {"placement": "belt"}).read(tmp_path)
    found = [(one.session, len(one), set(one.labels), one.start_s) for one in recordings]
    assert found == [("walking_00", 60, {0}, 0.0), ("sitting_01", 50, {3}, 1.2), ("walking_02", 70, {0}, 2.2)]


def test_empty_cells_are_a_gap_of_that_phone_only(tmp_path):
    write(tmp_path, ["walking"] * 100, edit=[(2 + row, "0.0,9.8,0.", ",9.8,0.") for row in range(40, 50)])
    left, right = (
        open_dataset("shoaib", {"placement": where}).read(tmp_path)[0] for where in ("left_pocket", "right_pocket")
    )
    np.testing.assert_array_equal(np.flatnonzero(~left.valid), np.arange(40, 50))
    assert right.valid.all()


def test_the_folder_may_be_the_archives_or_its_parent(tmp_path):
    write(tmp_path, ["walking"] * 50)
    dataset = open_dataset("shoaib", {"placement": "belt"})
    assert len(dataset.read(tmp_path)) == len(dataset.read(tmp_path / "DataSet")) == 1


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ([(5, "walking", "flying")], "row 6: activity must be one of walking, .* got 'flying'"),
        ([(5, "walking", "")], "row 6: activity must be one of"),
        ([(5, "9.8", "high")], "rows must hold numbers, then the activity"),
        ([(2, ",walking", "")], "row 3: must hold 70 or 71 columns, got 69"),
        ([(5, ",walking", ",walking,1,2")], "rows must hold numbers, then the activity"),
        ([(row, "0.0,9.8", "0.0,1.0") for row in range(2, 52)], "left_pocket: acc declared in m/s.2 must have"),
    ],
)
def test_a_broken_file_is_refused(tmp_path, edit, message):
    path = write(tmp_path, ["walking"] * 50, edit=edit)
    with pytest.raises(DataError, match=message) as error:
        open_dataset("shoaib").read(tmp_path)
    assert path.name in str(error.value)
