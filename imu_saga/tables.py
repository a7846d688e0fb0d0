"""Text tables and npz files read strictly: whatever is wrong is named by file, row and column."""

import csv
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from shared_peft.errors import DataError

Separator = Literal["auto", ",", ";", "tab"]
MAX_BYTES = 4 << 30
_SEPARATORS = {",": ",", ";": ";", "tab": "\t"}


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
    names = [name.strip() for name in next(csv.reader([line], delimiter=char))]
    repeated = sorted({name for name in names if names.count(name) > 1 and name})
    if repeated:
        raise DataError(path, "column names must differ", ", ".join(repeated), "Rename the repeated columns")
    return names, char


def read_table(
    path: Path, numbers: Sequence[str], texts: Sequence[str] = (), *, separator: Separator = "auto"
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read named columns of a text table.

    Args:
        path: a UTF-8 text file with a header line.
        numbers: columns that must hold numbers; an empty cell becomes NaN.
        texts: columns kept as text; an empty cell becomes "".
        separator: the separator, or "auto".

    Returns:
        The number columns as (rows,) float64 and the text columns as (rows,) str, by name.

    Raises:
        DataError: a column is missing, a cell is not a number, a row is broken, or the file is no such table.
    """
    names, char = read_header(path, separator)
    missing = [name for name in (*numbers, *texts) if name not in names]
    if missing:
        fix = f"Map the columns to the file's own: {', '.join(names)}"
        raise DataError(
            path, f"columns {', '.join(map(repr, missing))} must be in the header", "none of that name", fix
        )
    frame = _parse(path, names, char, [*numbers, *texts], {name: str for name in texts})
    if frame.empty:
        raise DataError(path, "must hold at least one row of data", "a header only", "Check that the export finished")
    filled = np.flatnonzero(~np.asarray(frame.isna().all(axis=1)))
    if not len(filled):
        raise DataError(path, "must hold at least one row of data", "empty rows only", "Check that the export finished")
    frame = frame.iloc[: filled[-1] + 1]  # empty lines at the end
    found = {name: _numbers(frame[name], path) for name in numbers}
    return found, {name: np.char.strip(np.asarray(frame[name].fillna(""), dtype=np.str_)) for name in texts}


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
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            missing = [name for name in names if name not in stored.files]
            if missing:
                must = f"must hold the arrays {', '.join(missing)}"
                raise DataError(path, must, ", ".join(stored.files), "Use the file of this data set")
            return {name: stored[name] for name in names}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, AttributeError) as error:
        raise DataError(path, "must be a whole npz file", str(error), "Copy or download it again") from error


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


def _parse(path: Path, names: list[str], char: str, wanted: list[str], kinds: dict[str, type[str]]) -> pd.DataFrame:
    _check_widths(path, char, len(names))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # pandas would cut a longer first row
            return _frame(path, names, char, wanted, kinds)
    except pd.errors.EmptyDataError as error:
        raise DataError(path, "must hold at least one row of data", "a header only", "Check the export") from error
    except UnicodeDecodeError as error:
        raise _not_text(path, error) from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, ValueError, OverflowError) as error:
        came = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        must = f"every row must have the header's {len(names)} columns"
        raise DataError(path, must, came, "Repair or remove that row") from error


def _frame(path: Path, names: list[str], char: str, wanted: list[str], kinds: dict[str, type[str]]) -> pd.DataFrame:
    return pd.read_csv(
        path,
        sep=char,
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
            if b'"' in line:  # quoted cells may hold separators and line ends: left to the parser
                return
            found = line.count(separator) + 1
            if found != columns and line.strip():
                shown = line[:60].decode("utf-8", "replace").strip()
                must, came = f"must have the header's {columns} columns", f"{found} in {shown!r}"
                raise DataError(
                    f"{path}, row {row}", must, came, "Repair the row; if it is the last, copy the file again"
                )


def _numbers(column: pd.Series, path: Path) -> np.ndarray:
    if np.dtype(column.dtype if isinstance(column.dtype, np.dtype) else object).kind in "fiu":
        return np.asarray(column, dtype=np.float64)
    text = column.astype(str).where(column.notna())  # True and False are text here, not 1 and 0
    parsed = np.asarray(pd.to_numeric(text, errors="coerce"), dtype=np.float64)
    wrong = np.isnan(parsed) & np.asarray(column.notna())
    if wrong.any():
        row = int(np.argmax(wrong))
        where = f"{path}, row {row + 2}, column {column.name}"
        raise DataError(where, "must be a number", repr(str(column.iloc[row]))[:60], "Correct the cell or its column")
    return parsed


def _not_text(path: Path, error: UnicodeDecodeError) -> DataError:
    came = f"byte 0x{error.object[error.start]:02x} that is not UTF-8"
    return DataError(path, "must be UTF-8 text", came, "Save the file as UTF-8")
