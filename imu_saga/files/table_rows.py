"""The rows of a user's table before they are a recording: put in order, freed of repeats, short holes filled."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from imu_saga.signal.clock import MIN_STRETCH, check_ascending
from shared_peft.errors import DataError

LONG_RUN = 10  # rows; shorter ascending runs come from shuffled rows, not from a second recording
MOST_SWITCHES = 3  # per long run: a late row makes two, a second recording as many as it has rows
LARGEST_NUMBER = 1e12  # beyond any sensor in any unit; squares of it are still finite
INTERLEAVED_PART = 0.75  # of the rows of a table must hold every sensor, or each sensor has rows of its own


@dataclass(frozen=True, eq=False)
class TableRows:
    """Rows of one file.

    Args:
        path: the file.
        columns: names of the sensor columns.
        values: (rows, columns) float64 in the file's units; NaN where a cell is empty.
        time: name of the column of stamps, or "row number".
        times_s: (rows,) [s], finite, since ``origin``.
        origin: the stamp at 0 s, in the file's unit.
        labels: (rows,) int64 class indices.
        subjects: (rows,) str.
        sessions: (rows,) str.
        numbers: (rows,) int64, the file's row numbers.
    """

    path: Path
    columns: tuple[str, ...]
    values: np.ndarray
    time: str
    times_s: np.ndarray
    origin: float
    labels: np.ndarray
    subjects: np.ndarray
    sessions: np.ndarray
    numbers: np.ndarray

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.values)

    def at(self, rows: np.ndarray, columns: slice = slice(None)) -> "TableRows":
        """Return some rows, and some sensor columns, of the table."""
        return replace(
            self,
            columns=self.columns[columns],
            values=self.values[rows][:, columns],
            times_s=self.times_s[rows],
            labels=self.labels[rows],
            subjects=self.subjects[rows],
            sessions=self.sessions[rows],
            numbers=self.numbers[rows],
        )


def check_numbers(table: TableRows) -> None:
    """Raise DataError at the first cell that is infinite or beyond any sensor."""
    wrong = np.argwhere(np.abs(np.nan_to_num(table.values, posinf=np.inf, neginf=-np.inf)) > LARGEST_NUMBER)
    if len(wrong):
        row, column = wrong[0]
        where = f"{table.path}, row {table.numbers[row]}, column {table.columns[column]}"
        came = table.values[row, column]
        must = f"must be at most {LARGEST_NUMBER:g}" if np.isfinite(came) else "must be a finite number"
        raise DataError(where, must, came, "Correct the cell, or leave it empty")


def pieces_in_order(table: TableRows, *, sort: bool, split_resets: bool) -> dict[tuple[str, str], TableRows]:
    """Return the rows of every subject and session in order of time, without exact repeats.

    Args:
        table: all rows of a file.
        sort: put the rows in order of time, with a warning; two runs one over the other are refused.
        split_resets: start a new session, named -2, -3, ..., wherever time runs backwards.

    Returns:
        By (subject, session), in order of first appearance.

    Raises:
        DataError: time runs backwards and neither option is set, or sorting would mix two runs.
    """
    found: dict[tuple[str, str], TableRows] = {}
    for rows in _groups(table):
        one = table.at(rows)
        parts = _split(one) if split_resets else [_sorted(one) if sort else _ascending(one)]
        for index, part in enumerate(parts):
            name = str(one.sessions[0]) + (f"-{index + 1}" if index else "")
            found[str(one.subjects[0]), name] = without_repeats(part)
    return found


def without_repeats(table: TableRows) -> TableRows:
    """Return the rows without those that repeat their predecessor's stamp and every value."""
    if len(table) < 2:
        return table
    same = np.isclose(table.values[1:], table.values[:-1], rtol=0, atol=0, equal_nan=True).all(axis=1)
    repeated = same & (np.diff(table.times_s) == 0)
    return table.at(np.flatnonzero(~np.concatenate([[False], repeated]))) if repeated.any() else table


def are_interleaved(values: np.ndarray, sensors: int) -> bool:
    """Tell whether each sensor has rows of its own, as in a log of two clocks.

    Args:
        values: (rows, 3 * sensors); NaN where a cell is empty.
        sensors: their number.
    """
    filled = ~np.isnan(values).reshape(len(values), sensors, 3).all(axis=2)  # (rows, sensors)
    together, used = np.logical_and.reduce(filled, axis=1).sum(), np.logical_or.reduce(filled, axis=1).sum()
    return bool(filled.any(axis=0).all() and together < INTERLEAVED_PART * used)


def fill_holes(table: TableRows, max_gap_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate short runs of empty cells.

    Args:
        table: rows in order of time.
        max_gap_s: the longest run filled [s].

    Returns:
        (rows, columns) values without NaN, and (rows,) bool, False where a cell was filled.

    Raises:
        DataError: a run of empty cells is longer, or a column is empty.
    """
    missing = np.isnan(table.values)
    values = table.values.copy()
    for column, name in enumerate(table.columns):
        holes = missing[:, column]
        if holes.any():
            _check_holes(table, holes, name, max_gap_s)
            known = ~holes
            values[holes, column] = np.interp(table.times_s[holes], table.times_s[known], values[known, column])
    return values, np.asarray(~missing.any(axis=1))


def _check_holes(table: TableRows, holes: np.ndarray, column: str, max_gap_s: float) -> None:
    edges = np.diff(np.concatenate([[0], holes.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1
    before, after = np.maximum(first - 1, 0), np.minimum(last + 1, len(holes) - 1)
    too_long = table.times_s[after] - table.times_s[before] > max_gap_s
    if holes.all() or too_long.any():
        run = 0 if holes.all() else int(np.argmax(too_long))
        where = f"{table.path}, rows {table.numbers[first[run]]} to {table.numbers[last[run]]}, column {column}"
        fix = "Remove these rows: the recording is then split there"
        raise DataError(where, f"empty cells must span at most {max_gap_s} s", "a longer run of NaN", fix)


def _ascending(table: TableRows) -> TableRows:
    try:
        check_ascending(table.times_s, f"{table.path}, column {table.time}")
    except DataError as error:
        row = int(np.argmax(np.diff(table.times_s) < 0)) + 1
        came = f"{table.times_s[row]:.10g} after {table.times_s[row - 1]:.10g} at row {table.numbers[row]}"
        fix = (
            "Sort the rows by time (sort=true), split where the clock restarts (split_resets=true), or name the "
            "column that tells subjects or sessions apart"
        )
        raise DataError(error.where, error.must, came, fix) from None
    return table


def _sorted(table: TableRows) -> TableRows:
    late = int((np.diff(table.times_s) < 0).sum())
    if not late:
        return table
    order = np.argsort(table.times_s, kind="stable")
    run = np.concatenate([[0], np.cumsum(np.diff(table.times_s) < 0)])
    length = np.bincount(run)
    long = run[order][length[run[order]] >= LONG_RUN]
    switches = int((np.diff(long) != 0).sum())
    if switches > MOST_SWITCHES * int((length >= LONG_RUN).sum()):
        fix = "Split where the clock restarts (split_resets=true), or name the column that tells sessions apart"
        must = "sorting must not mix two runs"
        came = f"runs that overlap in time, {switches} rows in turns"
        raise DataError(f"{table.path}, column {table.time}", must, came, fix)
    warnings.warn(f"{table.path}: time ran backwards at {late} rows; sorted by {table.time}", stacklevel=2)
    return table.at(order)


def _split(table: TableRows) -> list[TableRows]:
    edges = [0, *(np.flatnonzero(np.diff(table.times_s) < 0) + 1).tolist(), len(table)]
    pieces = [np.arange(first, last) for first, last in zip(edges, edges[1:], strict=False)]
    kept = [table.at(rows) for rows in pieces if len(rows) >= MIN_STRETCH]
    if not kept:
        fix = "Sort the rows by time (sort=true)"
        must = f"the clock must run on for {MIN_STRETCH} rows somewhere"
        raise DataError(f"{table.path}, column {table.time}", must, "a restart every few rows", fix)
    return kept


def _groups(table: TableRows) -> list[np.ndarray]:
    """Return the rows of every (subject, session), in order of first appearance."""
    keys = np.char.add(np.char.add(table.subjects, "\0"), table.sessions)
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    return [np.flatnonzero(group == index) for index in np.argsort(first)]
