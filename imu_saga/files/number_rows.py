"""Text tables of numbers without a header, read strictly: whatever is wrong is named by file, row and column."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from imu_saga.files.tables import check_file
from shared_peft.errors import DataError

Between = Literal["spaces", ","]
MISSING = ("NaN", "nan", "")
LARGEST = 1e30  # ours: no sensor measures as much in any unit, and float32 still holds it in every unit
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_FIX = "Use the official file, unchanged; if it is the last row, copy the file again"


def read_rows(
    path: Path,
    columns: int,
    *,
    between: Between = "spaces",
    use: Sequence[int] | None = None,
    missing: bool = False,
    fewest: int | None = None,
) -> np.ndarray:
    """Read the rows of a table that has no header.

    Args:
        path: an ASCII text file; spaces before and after the numbers of a row are ignored.
        columns: cells of a whole row.
        between: what stands between two cells: runs of spaces or tabs, or one comma.
        use: the columns wanted, ascending; None for all.
        missing: allow NaN and empty cells; they come back as NaN.
        fewest: with ``missing``, cells a row may end after; the rest come back as NaN. None for whole rows only.

    Returns:
        (rows, columns used) float64, finite but for the missing cells.

    Raises:
        DataError: the file is missing, empty or not ASCII, a row has too few or too many cells, or a cell is no number.
    """
    check_file(path)
    fewest = fewest if missing and fewest is not None else columns
    _check_widths(path, between, fewest, columns)
    wanted = list(range(columns) if use is None else use)
    try:
        frame = pd.read_csv(
            path,
            sep=r"\s+" if between == "spaces" else ",",
            header=None,
            names=list(range(columns)),
            usecols=None if use is None else wanted,
            dtype=np.float64,
            index_col=False,
            skipinitialspace=True,
            quoting=csv.QUOTE_NONE,
            encoding="ascii",
            na_values=list(MISSING),
            keep_default_na=False,
        )
    except (ValueError, OverflowError, pd.errors.ParserError, pd.errors.ParserWarning) as error:
        raise _fault(path, between, wanted, missing=missing) from error
    values = frame.to_numpy(dtype=np.float64)
    bad = (np.abs(values) >= LARGEST) | (np.isnan(values) & (not missing))
    if bad.any():
        raise _fault(path, between, wanted, missing=missing)
    return values


def _cells(line: bytes, between: Between) -> list[bytes]:
    return line.split() if between == "spaces" else line.strip().split(b",")


def _check_widths(path: Path, between: Between, fewest: int, columns: int) -> None:
    rows = 0
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            rows += 1
            cells = _cells(line, between)
            if b"\0" in line:  # some versions of pandas read over it
                column = next(index for index, cell in enumerate(cells) if b"\0" in cell)
                raise _not_a_number(path, number, column, cells[column].decode("utf-8", "replace"))
            found = len(cells)
            if not fewest <= found <= columns:
                must = f"must hold {columns} numbers"
                came = f"{found} in {line[:60].decode('utf-8', 'replace').strip()!r}"
                raise DataError(f"{path}, row {number}", must, came, _FIX)
    if not rows:
        raise DataError(path, "must hold at least one row of numbers", "empty lines only", _FIX)


def _fault(path: Path, between: Between, wanted: list[int], *, missing: bool) -> DataError:
    """Return the error for the first cell that is no finite number."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            cells = [cell.strip().decode("utf-8", "replace") for cell in _cells(line, between)]
            for column in (index for index in wanted if line.strip() and index < len(cells)):
                known = _NUMBER.fullmatch(cells[column]) and abs(float(cells[column])) < LARGEST
                if not (known or (missing and cells[column] in MISSING)):
                    return _not_a_number(path, number, column, cells[column])
    return DataError(path, "must be a table of numbers", "text that cannot be read", _FIX)


def _not_a_number(path: Path, row: int, column: int, cell: str) -> DataError:
    where = f"{path}, row {row}, column {column + 1}"
    return DataError(where, f"must be a number below {LARGEST:g}", repr(cell[:40]), _FIX)
