"""Lines of a csv stream turned into samples as they come; a line that cannot be read is told by its number."""

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from imu_saga.inspection.guess import as_flag, guess_columns
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS
from shared_peft.errors import DataError

OnBad = Literal["skip", "stop"]
MAX_LINE = 1 << 16  # bytes
SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class LineColumns:
    """Names of a stream's columns; where none is given and the header has others, they are guessed from its words."""

    time: str | None = "time"
    """Column of stamps; none when the samples are evenly spaced."""
    acc: tuple[str, str, str] = ACC_CHANNELS
    """Columns of the accelerometer, x y z."""
    gyro: tuple[str, str, str] = GYRO_CHANNELS
    """Columns of the gyroscope, x y z."""
    header: tuple[str, ...] = ()
    """Names of all columns in order, for a stream whose first line is data; empty reads them off the first line."""


class LineReader:
    r"""Collects bytes, cuts them into lines and reads the samples.

    Args:
        columns: names of the columns.
        channels: the channels wanted, in order.
        on_bad: "skip" tells of a bad line and goes on, "stop" raises.
        tell: called with one line for every bad line skipped.

    Example:
        >>> reader = LineReader(LineColumns(), ("acc_x",))
        >>> times, values = reader.feed(b"time,acc_x\n0.00,1.5\n0.01,2")
        >>> times.tolist(), values.tolist()
        ([0.0], [[1.5]])
    """

    def __init__(
        self,
        columns: LineColumns,
        channels: Sequence[str],
        *,
        on_bad: OnBad = "skip",
        tell: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.channels, self.on_bad, self.tell = tuple(channels), on_bad, tell
        self.unmapped = columns == LineColumns()
        self._want(columns)
        self.rest, self.line, self.bad = b"", 0, 0
        self.too_long = False
        self.separator, self.width, self.places = "", 0, list[int]()
        if columns.header:
            self._take_header(list(columns.header), "header")

    def feed(self, block: bytes) -> tuple[np.ndarray | None, np.ndarray]:
        """Take the next bytes and read the lines they complete.

        Returns:
            (samples,) stamps, or None where there is no column of them, and (samples, channels).

        Raises:
            DataError: the header lacks a column, or a bad line where ``on_bad`` is "stop".
        """
        *lines, self.rest = (self.rest + block).split(b"\n")
        if self.too_long and lines:
            lines, self.too_long = lines[1:], False
        if len(self.rest) > MAX_LINE:
            self._bad(self.line + len(lines) + 1, f"at most {MAX_LINE} bytes", "a longer line")
            self.line += 1
            self.too_long = True
        if self.too_long:
            self.rest = b""
        return self._samples(lines)

    def finish(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Read the last line, which has no line end."""
        return self.feed(b"\n")

    def _samples(self, lines: list[bytes]) -> tuple[np.ndarray | None, np.ndarray]:
        found = [row for row in map(self._row, lines) if row is not None]
        table = np.array(found, dtype=np.float64).reshape(len(found), len(self.wanted))
        return (table[:, 0], table[:, 1:]) if self.stamped else (None, table)

    def _row(self, line: bytes) -> list[float] | None:
        """Return the cells wanted of a line, or None for an empty, a bad and the header line."""
        self.line += 1
        try:
            text = line.decode("utf-8-sig" if self.line == 1 else "utf-8").strip("\r\n\0 ")
        except UnicodeDecodeError:
            return self._bad(self.line, "UTF-8 text", repr(line[:40]))
        if not text:
            return None
        self.separator = self.separator or max(SEPARATORS, key=text.count)
        if not self.places:
            self._take_header([name.strip() for name in next(csv.reader([text], delimiter=self.separator))], "line 1")
            return None
        cells = text.split(self.separator)
        if len(cells) != self.width:
            return self._bad(self.line, f"{self.width} cells", f"{len(cells)} in {text[:40]!r}")
        try:
            row = [float(cells[place]) if cells[place].strip() else math.nan for place in self.places]
        except ValueError:
            return self._bad(self.line, "numbers", repr(text[:60]))
        if any(map(math.isinf, row)) or (self.stamped and math.isnan(row[0])):
            return self._bad(self.line, "finite numbers and a stamp", repr(text[:60]))
        return row

    def _want(self, columns: LineColumns) -> None:
        named: dict[str, str] = dict(zip((*ACC_CHANNELS, *GYRO_CHANNELS), (*columns.acc, *columns.gyro), strict=True))
        self.wanted: list[str] = [named.get(channel, channel) for channel in self.channels]
        self.stamped = columns.time is not None
        if columns.time is not None:
            self.wanted.insert(0, columns.time)

    def _guess(self, names: list[str]) -> None:
        """Take what the header's names tell, where nothing was mapped by hand."""
        guessed = {name: value for name, value in guess_columns(names).items() if name in ("time", "acc", "gyro")}
        if "acc" in guessed:
            known = {name: tuple(value) if name != "time" else value for name, value in guessed.items() if value}
            self._want(replace(LineColumns(time=None), **known))
            self.tell(f"columns taken: {as_flag(guessed)}")

    def _take_header(self, names: list[str], where: str) -> None:
        if self.unmapped and not set(self.wanted) <= set(names):
            self._guess(names)
        missing = [name for name in self.wanted if name not in names]
        if missing:
            must = f"columns {', '.join(map(repr, missing))} must be in the header"
            fix = "Map them with --columns time=t acc=ax,ay,az gyro=gx,gy,gz, or name all with header=..."
            raise DataError(f"stream, {where}", must, ", ".join(names)[:200], fix)
        self.places, self.width = [names.index(name) for name in self.wanted], len(names)

    def _bad(self, line: int, must: str, got: str) -> None:
        self.bad += 1
        if self.on_bad == "stop":
            raise DataError(f"stream, line {line}", f"must be {must}", got, "Repair the source, or use --on-bad skip")
        self.tell(f"line {line} skipped: must be {must}, got {got}")
