"""Resampling of a stream: chunks of any size give what `resample_array` gives for the whole."""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from imu_saga.signal.resample import low_pass_taps, measured_between, neighbours

BLOCK_VALUES = 1 << 21  # filter inputs gathered at a time: 16 MiB


class StreamResampler:
    """Resamples by up / down with the filter of `resample_array`, sample by sample or chunk by chunk.

    An output sample appears once the inputs its filter reaches are there: `delay` inputs later. Before its first
    sample the signal is continued by odd reflection, and behind its last when `flush` is called.

    Args:
        up: numerator of the ratio of rates, in lowest terms.
        down: denominator.
        columns: number of channels.

    Example:
        >>> stream = StreamResampler(1, 2, columns=1)
        >>> parts = [stream.push(np.ones((10, 1)), np.ones(10, bool)) for _ in range(20)] + [stream.flush()]
        >>> sum(len(values) for values, valid in parts)
        100
    """

    def __init__(self, up: int, down: int, columns: int) -> None:
        self.up, self.down = up, down
        taps = low_pass_taps(up, down)
        self.delay = -(-(len(taps) // 2) // up)
        self.branches = _branches(taps, up, self.delay)
        self.values, self.valid = np.zeros((0, columns)), np.zeros(0, bool)
        self.first = 0  # position of the buffer's first sample in the input; -delay at the start
        self.received = self.made = 0

    def push(self, values: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take the next samples and return what can be computed.

        Args:
            values: (samples, columns), finite.
            valid: (samples,) bool, False where a sample was not measured.

        Returns:
            (outputs, columns) float32 and (outputs,) bool, valid as `resample` defines it.
        """
        started = self.received > self.delay
        self.values, self.valid = np.concatenate([self.values, values]), np.concatenate([self.valid, valid])
        self.received += len(values)
        if self.received <= self.delay:
            return self._outputs(0)
        if not started:
            self._extend(_reflected(self.values, np.arange(-self.delay, 0)), before=True)
        return self._outputs(self._ready(self.received - self.delay))

    def flush(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what is left, shapes as of `push`; the next sample starts afresh."""
        if self.received:
            last = self.received - 1 - self.first
            after = _reflected(
                self.values[max(0, last - self.delay) : last + 1], np.arange(1, self.delay + 1), last=True
            )
            if self.received <= self.delay:
                self._extend(_reflected(self.values, np.arange(-self.delay, 0)), before=True)
            self._extend(after, before=False)
        left = self._outputs(self._ready(self.received))
        self.values, self.valid = self.values[:0], self.valid[:0]
        self.first = self.received = self.made = 0
        return left

    def _ready(self, inputs: int) -> int:
        """Return how many outputs lie before input position ``inputs``."""
        return -(-inputs * self.up // self.down)

    def _extend(self, values: np.ndarray, *, before: bool) -> None:
        filler = np.ones(len(values), bool)  # positions outside of the recording say nothing about what was measured
        if before:
            self.values, self.valid = np.concatenate([values, self.values]), np.concatenate([filler, self.valid])
            self.first -= len(values)
        else:
            self.values, self.valid = np.concatenate([self.values, values]), np.concatenate([self.valid, filler])

    def _outputs(self, until: int) -> tuple[np.ndarray, np.ndarray]:
        """Compute the outputs up to number ``until`` and forget the inputs no later one needs."""
        made = np.arange(self.made, max(until, self.made))
        width, columns = self.branches.shape[1], self.values.shape[1]
        values = np.empty((len(made), columns), np.float32)
        step = max(1, BLOCK_VALUES // (width * max(columns, 1)))
        reach = sliding_window_view(self.values, width, axis=0) if len(made) else self.values
        for start in range(0, len(made), step):
            row, phase = np.divmod(made[start : start + step] * self.down, self.up)
            gathered = reach[row - self.delay - self.first]
            values[start : start + step] = np.einsum("ock,ok->oc", gathered, self.branches[phase])
        valid = np.ones(0, bool)
        if len(made):
            first, last = (edge - self.first for edge in neighbours(made, self.up, self.down))
            valid = measured_between(self.valid, first, last)
        self._forget(until)
        return values, valid

    def _forget(self, until: int) -> None:
        if until > self.made:
            self.made = until
            needed = until * self.down // self.up - self.delay - self.first
            needed = max(0, min(needed, len(self.values) - self.delay - 1))  # flush reflects the last ones
            self.values, self.valid = self.values[needed:].copy(), self.valid[needed:].copy()
            self.first += needed


def _branches(taps: np.ndarray, up: int, delay: int) -> np.ndarray:
    """Return (up, 2 * delay + 1) weights of the inputs around an output that lies phase / up behind an input."""
    tap = np.arange(up)[:, None] + len(taps) // 2 + np.arange(delay, -delay - 1, -1) * up
    inside = (tap >= 0) & (tap < len(taps))
    return np.where(inside, taps[np.clip(tap, 0, len(taps) - 1)] * up, 0.0)


def _reflected(values: np.ndarray, position: np.ndarray, *, last: bool = False) -> np.ndarray:
    """Return a signal continued by odd reflection about both ends: x(-k) = 2 x(0) - x(k), and so on without end.

    Args:
        values: (samples, columns), at least one.
        position: (outputs,) int64, from the first sample, or from the last one.
        last: whether ``position`` counts from the last sample.

    Returns:
        (outputs, columns).
    """
    if len(values) == 1:
        values = np.concatenate([values, values])
    end = len(values) - 1
    turn, at = np.divmod(position + end if last else position, 2 * end)
    mirrored = np.where(
        (at <= end)[:, None], values[np.minimum(at, end)], 2 * values[end] - values[np.minimum(2 * end - at, end)]
    )
    return mirrored + 2 * turn[:, None] * (values[end] - values[0])
