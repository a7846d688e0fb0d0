"""Tables of numbers without a header: read as numpy reads them, refused by row and column."""

import numpy as np
import pytest

from imu_saga.files.number_rows import read_rows
from shared_peft.errors import DataError

NUMBERS = np.random.default_rng(0).normal(size=(40, 5)) * 10.0 ** np.arange(-6, 4, 2)


def write(path, text):
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.parametrize(
    ("between", "joint"), [("spaces", " "), ("spaces", "   "), ("spaces", "\t"), (",", ","), (",", ", ")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_values_are_those_numpy_reads(tmp_path, between, joint, end):
    text = "".join("  " + joint.join(f"{value:.7e}" for value in row) + end for row in NUMBERS)
    path = write(tmp_path / "a.txt", text + "\n")
    expected = np.loadtxt(text.replace(",", " ").splitlines())
    np.testing.assert_allclose(read_rows(path, 5, between=between), expected, rtol=1e-15)
    np.testing.assert_allclose(read_rows(path, 5, between=between, use=(1, 4)), expected[:, [1, 4]], rtol=1e-15)


def test_missing_cells_come_back_as_nan_where_allowed(tmp_path):
    path = write(tmp_path / "a.csv", "1,NaN,3\n,2,nan\n4,5\n7\n")
    nan = np.nan
    found = read_rows(path, 3, between=",", missing=True, fewest=1)
    np.testing.assert_array_equal(found, [[1, nan, 3], [nan, 2, nan], [4, 5, nan], [7, nan, nan]])
    with pytest.raises(DataError, match="row 3: must hold 3 numbers, got 2 in '4,5'"):
        read_rows(path, 3, between=",", fewest=1)
    path.write_text("1,2,3\n4,NaN,6\n")
    with pytest.raises(DataError, match=r"row 2, column 2: must be a number below 1e\+30, got 'NaN'"):
        read_rows(path, 3, between=",")
    assert read_rows(path, 3, between=",", missing=True).shape == (2, 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3 x\n", "row 2, column 2: must be a number below 1e.30, got 'x'"),
        ("1 2\n\n3 inf\n", "row 3, column 2: .* got 'inf'"),
        ("1 2\n3 1e31\n", "row 2, column 2: .* got '1e31'"),
        ("1 2\n3 1e999\n", "row 2, column 2: .* got '1e999'"),
        ("1 2\n3 1_000\n", "row 2, column 2: .* got '1_000'"),
        ("1 2\n3 0x1F\n", "row 2, column 2: .* got '0x1F'"),
        ("1 2\n3 True\n", "row 2, column 2: .* got 'True'"),
        ("1 2\n3 4 5\n", "row 2: must hold 2 numbers, got 3 in '3 4 5'"),
        ("1 2\n3\n", "row 2: must hold 2 numbers, got 1 in '3'"),
        ("1 2\n3 \xe9\n", "row 2, column 2: .* got '\ufffd'"),
        ("1 2\n3 4\0\n", "row 2, column 2: must be a number"),
        ('1 "2"\n', "row 1, column 2: must be a number"),
        ("", "must not be empty"),
        ("\n \n", "must hold at least one row of numbers"),
    ],
)
def test_whatever_is_wrong_is_named_by_row_and_column(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        read_rows(write(tmp_path / "b.txt", text), 2)
    assert "b.txt" in str(error.value)


@pytest.mark.parametrize("missing", [True, False])
def test_damaged_bytes_give_numbers_or_an_error_that_says_where(tmp_path, missing):
    rng = np.random.default_rng(1)
    whole = "".join(" ".join(f"{value:.4g}" for value in row) + "\n" for row in NUMBERS).encode()
    refused: list[str] = []
    for _ in range(150):
        data = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for _ in range(rng.integers(0, 4)):
            data[rng.integers(len(data))] = rng.integers(256)
        path = tmp_path / "c.txt"
        path.write_bytes(data)
        try:
            values = read_rows(path, 5, missing=missing)
        except DataError as error:
            refused.append(str(error))
        else:
            assert values.shape[1] == 5
            assert missing or np.isfinite(values).all()
    assert len(refused) >= 100
    assert all("c.txt" in message for message in refused)
