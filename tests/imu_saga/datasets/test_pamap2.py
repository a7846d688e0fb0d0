"""PAMAP2: 54 columns, lost packets as NaN, activity ids with gaps, three IMUs in a row."""

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError


@pytest.fixture
def root(tmp_path):
    open_dataset("pamap2").write_sample(tmp_path / "download")
    return tmp_path / "download"


def table_of(root, subject, part="Protocol"):
    return np.loadtxt(root / f"PAMAP2_Dataset/{part}/subject{subject}.dat")


def read(root, **options):
    return open_dataset("pamap2", options).read(root)


@pytest.mark.parametrize(("placement", "first"), [("hand", 4), ("chest", 21), ("ankle", 38)])
def test_channels_are_the_16g_accelerometer_the_gyroscope_and_the_magnetometer(root, placement, first):
    table = table_of(root, 102)[280:]  # behind the lost packets
    columns = [*range(first, first + 3), *range(first + 6, first + 9), *range(first + 9, first + 12)]
    one = [one for one in read(root, placement=placement, magnetometer=True) if one.subject == "102"][-1]
    assert one.channels[-3:] == ("mag_x", "mag_y", "mag_z")
    np.testing.assert_allclose(one.signal[-len(table) :], table[:, columns], rtol=1e-4, atol=1e-4)
    assert one.rate_hz == pytest.approx(100, rel=1e-6)
    accelerometer_6g = table[:, [column + 3 for column in columns[:3]]]
    assert np.abs(accelerometer_6g - table[:, columns[:3]]).max() > 0.4  # reading it would be seen


def test_short_losses_are_filled_and_marked_long_ones_split(root):
    hand = [one for one in read(root) if one.subject == "101"]
    table = table_of(root, 101)
    assert [len(one) for one in hand] == [200, 1500 - 280]
    assert [one.start_s for one in hand] == pytest.approx([table[0, 0], table[280, 0]])
    assert {one.where for one in hand} == {"pamap2/101/protocol/hand"}
    np.testing.assert_array_equal(np.flatnonzero(~hand[0].valid), np.arange(100, 105))
    assert hand[1].valid.all()
    bridge = np.linspace(table[99, 4:7], table[105, 4:7], 7)[1:-1]
    np.testing.assert_allclose(hand[0].signal[100:105, :3], bridge, rtol=1e-5)


def test_losses_of_one_imu_leave_the_others_whole(root):
    recordings = [one for one in read(root, placement="all") if one.subject == "101"]
    lengths = {place: [len(one) for one in recordings if one.placement == place] for place in ("chest", "ankle")}
    assert lengths == {"chest": [1500], "ankle": [1500]}
    assert {one.session for one in recordings} == {"protocol"}


def test_ids_with_gaps_become_their_activities_and_transient_rows_are_unlabelled(root):
    names = open_dataset("pamap2").class_names()
    assert len(names) == 18
    chest = next(one for one in read(root, placement="chest") if one.subject == "101")
    planted = ["lying", None, "walking", "ascending stairs", "rope jumping"]
    expected = [-1 if name is None else names.index(name) for name in planted]
    np.testing.assert_array_equal(chest.labels, np.repeat(expected, 300))


def test_labels_change_at_their_row_though_its_packets_were_lost(root):
    path = root / "PAMAP2_Dataset/Protocol/subject102.dat"
    lines = path.read_text().splitlines()
    for row in range(590, 630):  # activity changes at row 600
        cells = lines[row].split()
        lines[row] = " ".join([*cells[:3], *["NaN"] * 17, *cells[20:]])
    path.write_text("\n".join(lines) + "\n")
    one = [one for one in read(root) if one.subject == "102"][-1]
    labels = table_of(root, 102)[280:, 1]
    np.testing.assert_array_equal(one.labels == open_dataset("pamap2").class_names().index("walking"), labels == 4)
    assert (~one.valid).sum() == 40


def test_missing_rows_count_as_losses_too(root):
    path = root / "PAMAP2_Dataset/Protocol/subject102.dat"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:500] + lines[510:]) + "\n")
    one = next(one for one in read(root, placement="chest") if one.subject == "102")
    assert len(one) == len(lines)
    np.testing.assert_array_equal(np.flatnonzero(~one.valid), np.arange(500, 510))


def test_the_optional_part_is_a_session_of_its_own(root):
    everything = read(root, part="all", placement="chest")
    found = {(one.subject, one.session) for one in everything}
    assert found == {("101", "protocol"), ("102", "protocol"), ("109", "protocol"), ("101", "optional")}
    assert {one.session for one in read(root, part="optional")} == {"optional"}
    names = open_dataset("pamap2").class_names()
    optional = next(one for one in everything if one.session == "optional")
    assert {names[label] for label in optional.labels if label >= 0} == {"watching TV", "playing soccer"}


def test_an_imu_that_never_reported_gives_no_recording(root):
    path = root / "PAMAP2_Dataset/Protocol/subject109.dat"
    lines = [line.split() for line in path.read_text().splitlines()]
    path.write_text("\n".join(" ".join([*cells[:3], *["NaN"] * 17, *cells[20:]]) for cells in lines))
    assert {one.placement for one in read(root, placement="all") if one.subject == "109"} == {"chest", "ankle"}


def test_folders_above_and_below_are_found(root):
    for folder in (root.parent, root / "PAMAP2_Dataset"):
        assert [one.where for one in read(folder)] == [one.where for one in read(root)]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("8.38 1 ", "8.38 8 ", "row 1: activity must be 0 or one of 1, 2, .*, got 8"),
        ("8.38 1 104", "8.38 1", "row 1: must hold 54 numbers, got 53"),
        ("8.38 1 ", "8.38 one ", "row 1, column 2: must be a number"),
        ("8.38 1 ", "NaN 1 ", "row 1: timestamps and activities must be given"),
        ("8.38 1 ", "99.38 1 ", "time must not run backwards"),
    ],
)
def test_broken_rows_are_refused(root, old, new, message):
    path = root / "PAMAP2_Dataset/Protocol/subject101.dat"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read(root)
