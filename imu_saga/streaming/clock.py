"""The clock of a stream: samples put on an even grid as they come, as `to_uniform` does it for a file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from imu_saga.signal.clock import MIN_STRETCH, MISSING_PERIODS
from shared_peft.errors import DataError

StreamTiming = Literal["stamps", "even"]
SAME_PERIODS = 0.1  # stamps closer than this part of a period are one sample sent twice
NODES = 4  # of a cubic


@dataclass(frozen=True, eq=False)
class Piece:
    """Samples of one stretch, in order.

    Args:
        values: (samples, columns) float32 on the even grid.
        valid: (samples,) bool, False where a gap was filled.
        start_s: time of the first sample [s] where a stretch begins with this piece, else None.
    """

    values: np.ndarray
    valid: np.ndarray
    start_s: float | None = None


class StreamClock:
    """Splits a stream at long gaps and at jumps of its clock, and evens what lies between.

    Rows that are not finite count as missing. A step longer than ``max_gap_s`` begins a new stretch, and so does a
    stamp that lies more than that before the newest one; other late and repeated stamps are dropped.

    Args:
        rate_hz: the source's rate [Hz], also the grid's.
        columns: number of channels.
        max_gap_s: longest gap that is bridged [s].
        timing: "stamps" takes the stamps as true times and interpolates between them; "even" takes a stretch's
            samples as equally spaced, and their stamps as noisy times of delivery.
        notice: called with one line where the clock jumps back.

    Raises:
        DataError: a rate that is none, or a ``max_gap_s`` below 1.75 periods.
    """

    def __init__(
        self,
        rate_hz: float,
        columns: int,
        *,
        max_gap_s: float,
        timing: StreamTiming = "stamps",
        notice: Callable[[str], object] = lambda line: None,
    ) -> None:
        if not (np.isfinite(rate_hz) and rate_hz > 0):
            raise DataError("stream rate_hz", "must be a positive number", rate_hz, "Give the source's rate in Hz")
        if not max_gap_s > MISSING_PERIODS / rate_hz:
            must = f"max_gap_s must exceed {MISSING_PERIODS} sampling periods"
            raise DataError("stream", must, f"{max_gap_s} s at {rate_hz:g} Hz", "Raise it")
        self.rate_hz, self.columns, self.max_gap_s, self.timing = rate_hz, columns, max_gap_s, timing
        self.notice = notice
        self.rows = 0  # received since the start
        self.newest_s: float | None = None
        self.start_s, self.start_row = 0.0, 0
        self.grid = _Grid(columns)
        self.dropped = self.jumps = 0

    def push(self, times_s: np.ndarray | None, values: np.ndarray) -> Iterator[Piece]:
        """Take the next samples.

        Args:
            times_s: (samples,) [s]; None where the samples are evenly spaced.
            values: (samples, columns).

        Yields:
            What can be put on the grid, in order.
        """
        rows = self.rows + np.arange(len(values))
        self.rows += len(values)
        times = rows / self.rate_hz if times_s is None else times_s
        measured = np.isfinite(values).all(axis=1) & np.isfinite(times)
        rows, times, values = rows[measured], times[measured], values[measured]
        while len(rows):
            end = self._first_break(times)
            if end:
                yield self._evened(rows[:end], times[:end], values[:end])
            if end < len(rows):
                newest_s = self.newest_s
                yield from self.flush()
                self._begin(int(rows[end]), float(times[end]), newest_s)
                yield Piece(np.zeros((0, self.columns), np.float32), np.zeros(0, bool), self.start_s)
            rows, times, values = rows[end:], times[end:], values[end:]

    def flush(self) -> Iterator[Piece]:
        """Yield what is left of the stretch; the next sample begins another one."""
        values, valid = self.grid.rest()
        self.grid, self.newest_s = _Grid(self.columns), None
        if len(values):
            yield Piece(values, valid)

    def _first_break(self, times: np.ndarray) -> int:
        """Return the position of the first sample that belongs to another stretch than those before."""
        if self.newest_s is None:
            return 0
        newest = np.maximum.accumulate(np.concatenate([[self.newest_s], times]))[:-1]
        broken = np.abs(times - newest) > self.max_gap_s
        return int(np.argmax(broken)) if broken.any() else len(times)

    def _begin(self, row: int, time_s: float, newest_s: float | None) -> None:
        if newest_s is not None and time_s < newest_s:
            self.jumps += 1
            self.notice(f"the clock jumped back from {newest_s:.3f} to {time_s:.3f} s: started afresh")
        self.newest_s = time_s - self.max_gap_s / 2  # the sample itself is new
        self.start_s, self.start_row = time_s, row

    def _evened(self, rows: np.ndarray, times: np.ndarray, values: np.ndarray) -> Piece:
        assert self.newest_s is not None
        place = (times - self.start_s) * self.rate_hz  # in periods since the stretch began
        newest = np.maximum.accumulate(np.concatenate([[self.newest_s], times]))
        fresh = times - newest[:-1] > SAME_PERIODS / self.rate_hz
        self.newest_s = float(newest[-1])
        if self.timing == "even":
            place, fresh = (rows - self.start_row).astype(np.float64), np.ones(len(rows), bool)
        self.dropped += int((~fresh).sum())
        return Piece(*self.grid.push(place[fresh], values[fresh], rows=len(rows)))


class _Grid:
    """Interpolates one stretch at whole periods: cubic through four neighbours, linear across gaps."""

    def __init__(self, columns: int) -> None:
        self.places, self.values = np.zeros(0), np.zeros((0, columns))  # knots: samples, and points in gaps
        self.real = np.zeros(0, bool)
        self.next = self.rows = 0

    def push(self, places: np.ndarray, values: np.ndarray, *, rows: int) -> tuple[np.ndarray, np.ndarray]:
        """Take samples at ascending places [periods] out of ``rows`` received; return values and validity."""
        self.rows += rows
        self._add(places, values.astype(np.float64))
        if self.rows < MIN_STRETCH or len(self.places) < NODES:
            return self._at(0)
        return self._at(int(np.ceil(self.places[-2])) - self.next)

    def rest(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is left; a stretch of fewer than four samples gives nothing."""
        enough = self.rows >= MIN_STRETCH and len(self.places) >= NODES
        return self._at(int(np.floor(self.places[-1] + 1e-6)) + 1 - self.next if enough else 0)

    def _add(self, places: np.ndarray, values: np.ndarray) -> None:
        """Append samples, with equally spaced points on the straight line across every gap."""
        if not len(places):
            return
        all_places = np.concatenate([self.places[-1:], places])
        all_values = np.concatenate([self.values[-1:], values])
        steps = np.diff(all_places)
        extra = np.where(steps > MISSING_PERIODS, np.rint(steps).astype(np.int64) - 1, 0)
        before = np.repeat(np.arange(len(steps)), extra)
        within = np.arange(len(before)) - np.repeat(np.cumsum(extra) - extra, extra) + 1
        part = within / (extra[before] + 1)
        filled = all_values[before] + part[:, None] * (all_values[before + 1] - all_values[before])
        knots = np.concatenate([places, all_places[before] + part * steps[before]])
        order = np.argsort(knots, kind="stable")
        real = np.arange(len(knots)) < len(places)
        self.places = np.concatenate([self.places, knots[order]])
        self.values = np.concatenate([self.values, np.concatenate([values, filled])[order]])
        self.real = np.concatenate([self.real, real[order]])

    def _at(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next ``count`` points of the grid, and forget the knots no later one needs."""
        if count <= 0:
            return np.zeros((0, self.values.shape[1]), np.float32), np.zeros(0, bool)
        at = np.arange(self.next, self.next + count, dtype=np.float64)
        left = np.clip(np.searchsorted(self.places, at, side="right") - 1, 0, len(self.places) - 2)
        made = self._cubic(at, left)
        real_before, real_after = self.real[left], self.real[left + 1]
        near_before, near_after = at - self.places[left] <= 0.5, self.places[left + 1] - at <= 0.5
        valid = (real_before & real_after) | (real_before & near_before) | (real_after & near_after)
        self.next += count
        kept = max(0, min(int(left[-1]) - 1, len(self.places) - NODES))
        self.places, self.values, self.real = self.places[kept:], self.values[kept:], self.real[kept:]
        return made.astype(np.float32), valid

    def _cubic(self, at: np.ndarray, left: np.ndarray) -> np.ndarray:
        """Return Lagrange's cubic through the two knots on either side of each place, shape (places, columns)."""
        nodes = np.clip(left - 1, 0, len(self.places) - NODES)[:, None] + np.arange(NODES)
        knots = self.places[nodes]
        made = np.zeros((len(at), self.values.shape[1]))
        for one in range(NODES):
            others = [other for other in range(NODES) if other != one]
            weight = np.prod((at[:, None] - knots[:, others]) / (knots[:, one : one + 1] - knots[:, others]), axis=1)
            made += weight[:, None] * self.values[nodes[:, one]]
        return made
