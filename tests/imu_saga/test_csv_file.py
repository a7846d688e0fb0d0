"""A user's csv: every unit and clock gives the same recording; every defect is refused by file, row and column."""

import random

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from shared_peft.errors import DataError

HEADER = "t,ax,ay,az,gx,gy,gz,what"
COLUMNS = {"acc": ["ax", "ay", "az"], "gyro": ["gx", "gy", "gz"], "time": "t", "label": "what"}


def motion(count=400, rate_hz=50.0):
    seconds = np.arange(count) / rate_hz
    tilt = 0.4 * np.sin(2 * np.pi * 0.8 * seconds)
    acc = 9.81 * np.stack([np.sin(tilt), 0 * tilt, np.cos(tilt)], axis=1)
    gyro = np.stack([0 * tilt, -np.gradient(tilt, seconds), 0 * tilt], axis=1)
    return seconds, acc, gyro


def rows_of(seconds, acc, gyro, stamp="{:.4f}"):
    return [
        ",".join([stamp.format(seconds[i]), *(f"{value:.6f}" for value in (*acc[i], *gyro[i])), "ab"[i >= 200]])
        for i in range(len(seconds))
    ]


def write(path, rows, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def rows():
    return rows_of(*motion())


@pytest.mark.parametrize(("time_unit", "scale"), [("s", 1), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize(("acc_scale", "gyro_scale"), [(1, 1), (1 / 9.80665, 180 / np.pi)])
@pytest.mark.parametrize("declared", [False, True])
def test_every_unit_gives_the_same_recording(tmp_path, time_unit, scale, acc_scale, gyro_scale, declared):
    seconds, acc, gyro = motion()
    stamps = 1_600_000_000 * scale + seconds * scale
    path = write(tmp_path / "walk.csv", rows_of(stamps, acc * acc_scale, gyro * gyro_scale, "{:.3f}"))
    units = {
        "time_unit": time_unit,
        "acc_unit": "m/s^2" if acc_scale == 1 else "g",
        "gyro_unit": "rad/s" if gyro_scale == 1 else "deg/s",
    }
    (made,) = open_dataset("csv", COLUMNS | (units if declared else {})).read(path)
    assert made.rate_hz == pytest.approx(50.0, rel=1e-4)
    np.testing.assert_allclose(made.signal[5:-5], np.concatenate([acc, gyro], axis=1)[5 : len(made) - 5], atol=2e-3)
    assert made.labels[[0, -1]].tolist() == [0, 1]
    assert made.subject == "walk"


def test_semicolons_byte_order_marks_and_spare_columns_are_fine(tmp_path, rows):
    text = "\n".join(["extra," + HEADER, *(f"7,{row}" for row in rows)]).replace(",", ";")
    path = tmp_path / "walk.csv"
    path.write_text("\ufeff" + text + "\n\n\n", encoding="utf-8")
    (made,) = open_dataset("csv", COLUMNS).read(path)
    assert len(made) == 400


def test_subject_and_session_columns_make_recordings(tmp_path, rows):
    table = [f"{row},{'ann' if i < 200 else 'bob'},{i // 100}" for i, row in enumerate(rows)]
    path = write(tmp_path / "all.csv", table, HEADER + ",who,run")
    made = open_dataset("csv", COLUMNS | {"subject": "who", "session": "run"}).read(path)
    assert [(one.subject, one.session, len(one)) for one in made] == [
        ("ann", "0", 100), ("ann", "1", 100), ("bob", "2", 100), ("bob", "3", 100),
    ]  # fmt: skip


def test_a_rate_replaces_a_time_column_and_the_gyroscope_may_be_missing(tmp_path, rows):
    path = write(tmp_path / "walk.csv", rows)
    (made,) = open_dataset("csv", COLUMNS | {"time": None, "rate_hz": 25.0, "gyro": None}).read(path)
    assert (made.rate_hz, made.channels) == (25.0, ("acc_x", "acc_y", "acc_z"))


def test_short_runs_of_empty_cells_are_filled_and_marked(tmp_path, rows):
    for index in (50, 51, 52):
        cells = rows[index].split(",")
        rows[index] = ",".join([cells[0], "", *cells[2:]])
    (made,) = open_dataset("csv", COLUMNS).read(write(tmp_path / "walk.csv", rows))
    assert np.flatnonzero(~made.valid).tolist() == [50, 51, 52]
    np.testing.assert_allclose(made.signal[50:53, 0], motion()[1][50:53, 0], atol=0.2)


def test_missing_rows_split_the_recording(tmp_path, rows):
    made = open_dataset("csv", COLUMNS).read(write(tmp_path / "walk.csv", rows[:150] + rows[200:]))
    assert [(len(one), one.start_s) for one in made] == [(150, 0.0), (200, 4.0)]
    assert made[0].session == made[1].session


def cell(rows, row, column, text):
    cells = rows[row].split(",")
    cells[column] = text
    return [*rows[:row], ",".join(cells), *rows[row + 1 :]]


def many(rows, first, last, column, text):
    for row in range(first, last):
        rows = cell(rows, row, column, text)
    return rows


DEFECTS = {
    "text": (lambda r: cell(r, 7, 2, "fast"), "walk.csv, row 9, column ay: must be a number, got 'fast'"),
    "boolean": (lambda r: many(r, 0, 400, 2, "True"), "row 2, column ay: must be a number, got 'True'"),
    "decimal comma": (lambda r: cell(r, 3, 3, '"9,8"'), "row 5, column az: must be a number, got '9,8'"),
    "infinite": (lambda r: cell(r, 7, 5, "inf"), "row 9, column gy: must be a finite number, got inf"),
    "nan run": (
        lambda r: many(r, 100, 160, 1, "NaN"),
        "rows 102 to 161, column ax: empty cells must span at most 0.5 s, got a longer run of NaN. Remove these rows",
    ),
    "empty column": (lambda r: many(r, 0, 400, 4, ""), "rows 2 to 401, column gx: empty cells must span"),
    "no time": (lambda r: cell(r, 7, 0, ""), "row 9, column t: time must be given, got nan. Fill the cell"),
    "backwards": (
        lambda r: cell(r, 7, 0, "0.02"),
        "column t: time must not run backwards, got 0.02 after 0.12 at row 9",
    ),
    "clock reset": (lambda r: [*r, *r], "time must not run backwards, got 0 after 7.98 at row 402. Sort the rows"),
    "standing clock": (lambda r: many(r, 0, 400, 0, "5"), "timestamps must give 4 to 1000 samples/s"),
    "too many cells": (
        lambda r: [*r[:9], r[9] + ",1,2", *r[10:]],
        "row 11: must have the header's 8 columns, got 10 in",
    ),
    "first row too long": (lambda r: [r[0] + ",1", *r[1:]], "row 2: must have the header's 8 columns"),
    "cut short": (lambda r: [*r[:-1], r[-1][:20]], "row 401: must have the header's 8 columns, got 3 in '7.9800,"),
    "header only": (lambda r: [], "walk.csv: "),
    "open quote": (lambda r: cell(r, 7, 7, '"a'), "every row must have the header's 8 columns, got EOF"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_by_row_and_column(tmp_path, rows, defect):
    spoil, message = DEFECTS[defect]
    with pytest.raises(DataError) as error:
        open_dataset("csv", COLUMNS).read(write(tmp_path / "walk.csv", spoil(rows)))
    assert message in str(error.value)
    assert "walk.csv" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must not be empty, got 0 bytes. Check that the copy"),
        (b"\n\n", "row 1 must name the columns"),
        (("\n".join([HEADER, "1,2"])).encode("utf-16"), "must be UTF-8 text"),
        (b"t,ax,ay,az,gx,gy,gz,what\n1,2,3,4,5,6,7,caf\xe9\n", "must be UTF-8 text, got byte 0xe9"),
        (b"t,ax,ax,az,gx,gy,gz,what\n1,2,3,4,5,6,7,a\n", "column names must differ, got ax"),
        (
            b"time;ax;ay\n1;2;3\n",
            "columns 'what' must be in the header, got none of that name. Map the columns to",
        ),
        (b"t,ax,ay,az,gx,gy,gz,what\n,,,,,,,\n", "must hold at least one row of data"),
        (b"\x00\x01\x02\x03" * 50, "must be UTF-8 text, got zero bytes"),
        (HEADER.encode() + b"\n" + b"9" * 300_000, "header's 8 columns"),
        (HEADER.encode() + b"\n" + b"," * 300_000, "header's 8 columns"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path, content, message):
    path = tmp_path / "walk.csv"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        open_dataset("csv", COLUMNS).read(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_column_is_refused_and_the_header_is_listed(tmp_path, rows):
    path = write(tmp_path / "walk.csv", rows)
    with pytest.raises(DataError, match="columns 'pitch' must be in the header, .* Map the columns .* t, ax, ay, az"):
        open_dataset("csv", COLUMNS | {"acc": ["pitch", "ay", "az"]}).read(path)


def test_g_declared_as_si_is_refused(tmp_path):
    seconds, acc, gyro = motion()
    path = write(tmp_path / "walk.csv", rows_of(seconds, acc / 9.81, gyro))
    with pytest.raises(DataError, match=r"walk.csv, columns ax, ay, az: acc declared in m/s\^2 .* Declare acc in g"):
        open_dataset("csv", COLUMNS | {"acc_unit": "m/s^2"}).read(path)


def test_a_label_outside_the_classes_is_refused(tmp_path, rows):
    path = write(tmp_path / "walk.csv", rows)
    with pytest.raises(DataError, match="row 202, column what: label must be empty or one of a, c, got 'b'"):
        open_dataset("csv", COLUMNS | {"classes": ["a", "c"]}).read(path)


@pytest.mark.parametrize("options", [{"time": None}, {"rate_hz": 50.0}])
def test_time_comes_from_a_column_or_a_rate_not_both(tmp_path, rows, options):
    with pytest.raises(DataError, match="must have a time column or rate_hz, got (both|neither)"):
        open_dataset("csv", COLUMNS | options).read(write(tmp_path / "walk.csv", rows))


def test_mutated_files_give_recordings_or_a_data_error(tmp_path, rows):
    draw = random.Random(0)
    good = "\n".join([HEADER, *rows[:120]]).encode()
    path, read, refused = tmp_path / "walk.csv", 0, 0
    for _ in range(150):
        data = bytearray(good)
        for _ in range(draw.randint(1, 6)):
            at = draw.randrange(len(data))
            match draw.randrange(5):
                case 0:
                    data[at] ^= 1 << draw.randrange(8)
                case 1:
                    del data[at : at + draw.randint(1, 200)]
                case 2:
                    data[at:at] = draw.choice([b"nan", b"inf", b'"', b"\n", b",", b"9" * 400, b"\xff", b"\0", b"1e999"])
                case 3:
                    data[at:at] = data[at - 60 : at]
                case _:
                    del data[draw.randint(len(data) // 2, len(data)) :]
            data = data or bytearray(b"x")
        path.write_bytes(bytes(data))
        try:
            made = open_dataset("csv", COLUMNS).read(path)
        except DataError:
            refused += 1
        else:
            read += 1
            assert all(7 < np.median(np.linalg.norm(one.signal[:, :3], axis=1)) < 15 for one in made if len(one) > 60)
    assert read + refused == 150
    assert read >= 5
    assert refused >= 50
