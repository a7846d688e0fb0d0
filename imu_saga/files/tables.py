"""Text tables, frames and npz files read strictly: whatever is wrong is named by file, row and column."""

import csv
import lzma
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Literal

import numpy as np
import pandas as pd

from shared_peft.archives import check_content, check_unpacked
from shared_peft.errors import DataError

Separator = Literal["auto", ",", ";", "tab"]
Decimal = Literal["point", "comma"]
MAX_BYTES = 4 << 30
LONGEST_NAME = 1000  # characters of a text cell; every row of the column takes the room of the longest
_SEPARATORS = {",": ",", ";": ";", "tab": "\t"}
NPZ_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError)
NPZ_ERRORS += (AttributeError, KeyError, RuntimeError, MemoryError, OverflowError, SyntaxError, TypeError, TokenError)


def read_header(path: Path, separator: Separator = "auto") -> tuple[list[str], str]:
    """Return a table's column names and its separator.

    Args:
        path: a UTF-8 text file with a header line.
        separator: the separator, or "auto" to choose the one most frequent in the header.

    Raises:
        DataError: the file is missing, empty, too large, not UTF-8 text, or repeats a column name.
    """
    check_file(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline(1 << 16).rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from error
    if "\0" in line:
        raise DataError(
            path, "must be UTF-8 text", "zero bytes", "Save the file as UTF-8 (UTF-16 and binary do not fit)"
        )
    if not line.strip():
        raise DataError(path, "row 1 must name the columns", "an empty line", "Write the column names in the first row")
    char = max(_SEPARATORS.values(), key=line.count) if separator == "auto" else _SEPARATORS[separator]
    try:
        names = [name.strip() for name in next(csv.reader([line], delimiter=char))]
    except csv.Error as error:
        raise DataError(path, "row 1 must name the columns", str(error), "Repair the first row") from error
    repeated = sorted({name for name in names if names.count(name) > 1 and name})
    if repeated:
        raise DataError(path, "column names must differ", ", ".join(repeated), "Rename the repeated columns")
    return names, char


def read_table(
    path: Path,
    numbers: Sequence[str],
    texts: Sequence[str] = (),
    *,
    separator: Separator = "auto",
    decimal: Decimal = "point",
    dates: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read named columns of a text table.

    Args:
        path: a UTF-8 text file with a header line.
        numbers: columns that must hold numbers; an empty cell becomes NaN.
        texts: columns kept as text; an empty cell becomes "".
        separator: the separator, or "auto".
        decimal: the mark of the decimals.
        dates: those of ``numbers`` that may hold ISO 8601 dates instead; they become seconds since 1970.

    Returns:
        The number columns as (rows,) float64 and the text columns as (rows,) str, by name.

    Raises:
        DataError: a column is missing, a cell is not a number, a row is broken, or the file is no such table.
    """
    names, char = read_header(path, separator)
    missing_columns(path, names, (*numbers, *texts))
    kinds = {name: str for name in texts}
    frame = _parse(path, names, char, [*numbers, *texts], kinds, "." if decimal == "point" else ",")
    if frame.empty:
        raise DataError(path, "must hold at least one row of data", "a header only", "Check that the export finished")
    filled = np.flatnonzero(~np.asarray(frame.isna().all(axis=1)))
    if not len(filled):
        raise DataError(path, "must hold at least one row of data", "empty rows only", "Check that the export finished")
    frame = frame.iloc[: filled[-1] + 1]  # empty lines at the end
    return columns_of_frame(frame, path, numbers, texts, first_row=2, dates=dates)


def missing_columns(path: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise DataError when a wanted column is not among a file's ``names``."""
    missing = [name for name in wanted if name not in names]
    if missing:
        must = f"columns {', '.join(map(repr, missing))} must be in the header"
        fix = f"Map the columns to the file's own: {', '.join(names)}"
        raise DataError(path, must, "none of that name", fix)


def columns_of_frame(
    frame: pd.DataFrame,
    path: Path,
    numbers: Sequence[str],
    texts: Sequence[str],
    *,
    first_row: int,
    dates: Sequence[str] = (),
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return number columns as (rows,) float64 and text columns as (rows,) str.

    Args:
        frame: the columns wanted.
        path: the file, for error messages.
        numbers: columns that must hold numbers; an empty cell becomes NaN, a date of the frame's own nanoseconds.
        texts: columns kept as text; an empty cell becomes "".
        first_row: what the file calls the frame's first row.
        dates: those of ``numbers`` that may hold ISO 8601 text.

    Raises:
        DataError: no rows, a cell that is not a number, or a text too long for a name.
    """
    if frame.empty:
        raise DataError(path, "must hold at least one row of data", "none", "Check that the export finished")
    found = {name: _numbers(frame[name], path, first_row, is_date=name in dates) for name in numbers}
    return found, {name: _names(frame[name], path, first_row) for name in texts}


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read named arrays of an npz file; nothing pickled is loaded.

    Args:
        path: the npz file.
        names: the arrays wanted.

    Raises:
        DataError: the file is missing, broken, or lacks an array.
    """
    check_file(path)
    try:
        check_unpacked(path)
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            missing = [name for name in names if name not in stored.files]
            if missing:
                must = f"must hold the arrays {', '.join(missing)}"
                raise DataError(path, must, ", ".join(stored.files), "Use the file of this data set")
            return {name: stored[name] for name in names}
    except NPZ_ERRORS as error:
        raise DataError(path, "must be a whole npz file", str(error)[:200], "Copy or download it again") from error


def check_file(path: Path) -> None:
    """Raise DataError unless ``path`` is a readable, non-empty file of at most 4 GiB."""
    try:
        size = path.stat().st_size if path.is_file() else -1
    except OSError as error:
        raise DataError(path, "must be a readable file", error.strerror, "Correct the path") from error
    if size < 0:
        raise DataError(path, "must be a file", "no such file", "Correct the path")
    if not size:
        raise DataError(path, "must not be empty", "0 bytes", "Check that the copy or the export finished")
    if size > MAX_BYTES:
        raise DataError(path, f"must be at most {MAX_BYTES >> 30} GiB", f"{size / 2**30:.1f} GiB", "Split the file")


def _parse(
    path: Path, names: list[str], char: str, wanted: list[str], kinds: dict[str, type[str]], decimal: str
) -> pd.DataFrame:
    _check_widths(path, char, len(names))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would cut a longer first row
            return _frame(path, names, char, wanted, kinds, decimal)
    except pd.errors.EmptyDataError as error:
        raise DataError(path, "must hold at least one row of data", "a header only", "Check the export") from error
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OverflowError) as error:
        came = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        must = f"every row must have the header's {len(names)} columns"
        raise DataError(path, must, came, "Repair or remove that row") from error


def _frame(
    path: Path, names: list[str], char: str, wanted: list[str], kinds: dict[str, type[str]], decimal: str
) -> pd.DataFrame:
    return pd.read_csv(
        path,
        sep=char,
        decimal=decimal,
        header=None,
        skiprows=1,
        names=[name or f"unnamed {index}" for index, name in enumerate(names)],
        usecols=list(dict.fromkeys(wanted)),
        dtype=kinds,  # type: ignore[arg-type]  (a mapping from names to types)
        encoding="utf-8-sig",
        low_memory=False,
        skip_blank_lines=False,
        skipinitialspace=True,
        index_col=False,
        na_values=["NaN", "nan", "NA", ""],
        keep_default_na=False,
        on_bad_lines="error",
    )


def _check_widths(path: Path, char: str, columns: int) -> None:
    """Raise DataError at the first row with more or fewer cells than the header: pandas would pad it or cut it."""
    separator = char.encode()
    with path.open("rb") as stream:
        for row, line in enumerate(stream, start=1):
            if line.count(b'"') % 2:  # a quoted cell with line ends in it: left to the parser
                return
            found = line.count(separator) + 1 if b'"' not in line else _quoted_width(line, char)
            if found != columns and line.strip():
                shown = line[:60].decode("utf-8", "replace").strip()
                must, came = f"must have the header's {columns} columns", f"{found} in {shown!r}"
                raise DataError(
                    f"{path}, row {row}", must, came, "Repair the row; if it is the last, copy the file again"
                )


def _quoted_width(line: bytes, char: str) -> int:
    try:
        return len(next(csv.reader([line.decode("utf-8", "replace")], delimiter=char), []))
    except csv.Error:  # a cell longer than the parser takes
        return -1


def _numbers(column: pd.Series, path: Path, first_row: int, *, is_date: bool) -> np.ndarray:
    kind = np.dtype(column.dtype if isinstance(column.dtype, np.dtype) else object).kind
    if kind in "fiu":
        return np.asarray(column, dtype=np.float64)
    if kind == "M":
        return np.asarray(column.astype("datetime64[ns]").astype(np.int64), dtype=np.float64)
    text = column.astype(str).where(column.notna())  # True and False are text here, not 1 and 0
    parsed = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    empty = np.asarray(column.isna())
    if is_date and np.isnan(parsed).all():
        parsed = _seconds(text)
    wrong = np.isnan(parsed) & ~empty
    if wrong.any():
        row = int(np.argmax(wrong))
        cell = str(column.iloc[row])
        where = f"{path}, row {row + first_row}, column {column.name}"
        comma = "; decimal=comma if commas mark the decimals" if cell.count(",") == 1 else ""
        raise DataError(where, "must be a number", repr(cell)[:60], f"Correct the cell or its column{comma}")
    return parsed


def _seconds(text: pd.Series) -> np.ndarray:
    """Return ISO 8601 dates as (rows,) seconds since 1970, NaN where a cell is none."""
    dates = pd.to_datetime(text, errors="coerce", format="ISO8601", utc=True)
    seconds = (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    return np.asarray(seconds, dtype=np.float64)


def _names(column: pd.Series, path: Path, first_row: int) -> np.ndarray:
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    lengths = np.asarray(text.str.len())
    if lengths.max() > LONGEST_NAME:
        row = int(np.argmax(lengths > LONGEST_NAME))
        where = f"{path}, row {row + first_row}, column {column.name}"
        must = f"must be a name of at most {LONGEST_NAME} characters"
        raise DataError(where, must, f"{lengths[row]} characters", "Repair the cell: a quote may never be closed")
    check_content(path, 4 * len(lengths) * int(lengths.max()))
    return np.asarray(text, dtype=np.str_)


def _not_text(path: Path, error: UnicodeDecodeError) -> DataError:
    came = f"byte 0x{error.object[error.start]:02x} that is not UTF-8"
    return DataError(path, "must be UTF-8 text", came, "Save the file as UTF-8")
