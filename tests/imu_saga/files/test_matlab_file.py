"""Matlab 5 files: the same numbers as scipy reads, and damage ends in an error, never with the process."""

import struct
import zlib

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from imu_saga.files.matlab_file import MAX_BYTES, read_matrix
from shared_peft.errors import DataError

VALUES = np.random.default_rng(0).normal(size=(50, 6))


def packed(order, values, number_type, number_format, name=b"d_iner"):
    """A file written by hand: one matrix of class double, stored as another type of number."""

    def element(kind, content):
        if len(content) <= 4:
            return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
        return struct.pack(f"{order}II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    numbers = values.T.astype(order + number_format).tobytes()
    parts = ((6, struct.pack(f"{order}II", 6, 0)), (5, struct.pack(f"{order}ii", *values.shape)), (1, name))
    inside = b"".join(element(kind, content) for kind, content in (*parts, (number_type, numbers)))
    version = struct.pack(f"{order}H", 0x0100) + (b"IM" if order == "<" else b"MI")
    return b"MATLAB 5.0 MAT-file".ljust(124) + version + element(14, inside)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numbers_are_those_scipy_reads_among_other_variables(tmp_path, compressed, kind):
    path = tmp_path / "a.mat"
    others = {"text": "x", "table": {"field": 1.0}, "later": np.eye(6)}
    savemat(path, {**others, "d_iner": VALUES.astype(kind)}, do_compression=compressed)
    found = read_matrix(path, "d_iner", 6)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, loadmat(path)["d_iner"])
    np.testing.assert_array_equal(read_matrix(path, "later", 6), np.eye(6))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("number_type", "number_format"), [(9, "f8"), (7, "f4"), (3, "i2"), (2, "u1")])
@pytest.mark.parametrize("name", [b"d_iner", b"acc"])
def test_both_byte_orders_and_short_numbers_are_read(tmp_path, order, number_type, number_format, name):
    values = np.arange(42.0).reshape(7, 6)
    path = tmp_path / "a.mat"
    path.write_bytes(packed(order, values, number_type, number_format, name))
    np.testing.assert_array_equal(loadmat(path)[name.decode()], values)
    np.testing.assert_array_equal(read_matrix(path, name.decode(), 6), values)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_give_an_error_or_numbers(tmp_path, compressed):
    path = tmp_path / "a.mat"
    savemat(path, {"d_iner": VALUES}, do_compression=compressed)
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    refused: list[str] = []
    for trial in range(600):
        data = bytearray(whole)
        if trial % 3:
            data[rng.integers(126, 220)] ^= 1 << rng.integers(8)
        else:
            data = data[: rng.integers(1, len(whole))]
        path.write_bytes(data)
        try:
            assert np.isfinite(read_matrix(path, "d_iner", 6)).all()
        except DataError as error:
            refused.append(str(error))
    assert len(refused) >= 400
    assert all("must be a whole Matlab 5 file with d_iner" in message for message in refused)


def test_a_type_code_that_ends_scipys_process_is_refused(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(packed("<", VALUES, 0x89, "f8"))
    with pytest.raises(DataError, match="an array without a shape or numbers"):
        read_matrix(path, "d_iner", 6)


def test_small_files_that_grow_without_end_are_refused(tmp_path):
    content = zlib.compress(bytes(MAX_BYTES + 1))
    path = tmp_path / "a.mat"
    head = packed("<", VALUES, 9, "f8")[:128]
    path.write_bytes(head + struct.pack("<II", 15, len(content)) + content)
    with pytest.raises(DataError, match="compressed data without an end, or too large"):
        read_matrix(path, "d_iner", 6)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"MATLAB 7.3 MAT-file".ljust(512), "another kind of file"),
        (b"x", "another kind of file"),
        (packed("<", VALUES, 9, "f8").replace(b"d_iner", b"d_othr"), "got only d_othr"),
        (packed("<", VALUES[:, :5], 9, "f8"), r"got shape \(50, 5\)"),
        (packed("<", VALUES[:0], 9, "f8"), r"got shape \(0, 6\)"),
        (packed("<", VALUES * np.inf, 9, "f8"), "got -?inf among them"),
        (packed("<", VALUES * 1e33, 9, "f8"), "e.3. among them"),
    ],
)
def test_other_files_and_arrays_are_refused(tmp_path, data, message):
    path = tmp_path / "a.mat"
    path.write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_matrix(path, "d_iner", 6)


def test_a_truncated_file_says_how_much_is_left(tmp_path):
    path = tmp_path / "a.mat"
    whole = packed("<", VALUES, 9, "f8")
    path.write_bytes(whole[:-800])
    with pytest.raises(DataError, match=f"an element of {len(whole) - 136} bytes where {len(whole) - 936} are left"):
        read_matrix(path, "d_iner", 6)
