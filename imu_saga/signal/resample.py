"""Resampling to any rate through an anti-alias filter (polyphase, Kaiser window); the validity mask goes along."""

import dataclasses
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache

import numpy as np
from scipy import signal as sps

from imu_saga.recording import Recording
from shared_peft.errors import DataError

# Ours: at most 1e-4 of ripple up to 80 % of the lower Nyquist frequency, and 80 dB of suppression from it on.
STOPBAND_DB = 80.0
PASSBAND = 0.8
TERMS = (250, 500, 1000, 2000)  # largest term of the rational ratio: the first that is exact enough; filters grow
MAX_DRIFT = 0.005  # of a sample, from the first sample to the last
HORIZON = 1_000_000  # samples the drift is kept small for, whatever the length: a stream, too, has one ratio


def resample(recording: Recording, rate_hz: float) -> Recording:
    """Return the recording at another rate.

    Args:
        recording: at its own, possibly measured, rate (102.5 Hz is fine).
        rate_hz: the rate wanted [Hz].

    Returns:
        A recording of the same duration. A sample is valid where all samples it was computed from (one period to
        either side) are; its label is that of the nearest sample.

    Raises:
        DataError: the rate is not positive, or more than 2000 times higher or lower.
    """
    up, down = rational_ratio(recording.rate_hz, rate_hz, HORIZON, recording.where)
    if up == down:
        return dataclasses.replace(recording, rate_hz=float(rate_hz))
    values = resample_array(recording.signal, up, down)
    made = np.arange(len(values))
    nearest = np.minimum(np.rint(made * (down / up)).astype(np.int64), len(recording) - 1)
    return dataclasses.replace(
        recording,
        signal=values,
        rate_hz=float(rate_hz),
        labels=recording.labels[nearest],
        valid=measured_between(recording.valid, *neighbours(made, up, down)),
    )


def resample_all(recordings: Sequence[Recording], rate_hz: float) -> list[Recording]:
    """Return every recording at ``rate_hz`` [Hz]."""
    return [resample(recording, rate_hz) for recording in recordings]


def resample_array(values: np.ndarray, up: int, down: int) -> np.ndarray:
    """Resample along the first axis by up / down.

    Args:
        values: (samples, channels), any float type.
        up: numerator of the ratio of rates.
        down: denominator.

    Returns:
        (ceil(samples * up / down), channels) float32. Beyond its ends the signal is continued by odd reflection, so
        that a constant (gravity) and a slope stay themselves.
    """
    if len(values) == 1:  # scipy's antireflect divides by zero on one sample
        return np.repeat(values, -(-up // down), axis=0).astype(np.float32)
    taps = low_pass_taps(up, down)
    return sps.resample_poly(values.astype(np.float64), up, down, window=taps, padtype="antireflect").astype(np.float32)


def rational_ratio(old_hz: float, new_hz: float, samples: int, where: str) -> tuple[int, int]:
    """Return (up, down), the new rate over the old one as a ratio of whole numbers.

    Args:
        old_hz: rate of the input [Hz].
        new_hz: rate wanted [Hz].
        samples: length of the input; over it the ratio may drift by 0.005 samples, or its terms reach 2000.
        where: the recording's address, for the error message.

    Raises:
        DataError: the rate is not positive, or more than 2000 times higher or lower.
    """
    if not (np.isfinite(new_hz) and new_hz > 0):
        raise DataError(where, "the new rate must be a positive number", new_hz, "Give a rate in Hz")
    exact = new_hz / old_hz
    if not 1 / TERMS[-1] <= exact <= TERMS[-1]:
        must = f"the new rate must be within a factor of {TERMS[-1]} of {old_hz:g} Hz"
        raise DataError(where, must, f"{new_hz:g} Hz", "Choose a rate closer to the recording's own")
    ratio = Fraction(1)
    for limit in TERMS:
        small = Fraction(min(exact, 1 / exact)).limit_denominator(limit) or Fraction(1, limit)
        ratio = small if exact < 1 else 1 / small
        if abs(float(ratio) / exact - 1) * samples <= MAX_DRIFT:
            break
    return ratio.numerator, ratio.denominator


def resample_mask(valid: np.ndarray, position: np.ndarray, *, reach: float) -> np.ndarray:
    """Tell which output samples rest on measured input only.

    Args:
        valid: (samples,) bool.
        position: (outputs,) places of the output samples, in input samples.
        reach: distance, in input samples, within which every input sample must be valid.

    Returns:
        (outputs,) bool.
    """
    return measured_between(
        valid, np.ceil(position - reach).astype(np.int64), np.floor(position + reach).astype(np.int64)
    )


def neighbours(made: np.ndarray, up: int, down: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first and last input sample within one period, the longer of the two, of each output sample.

    Args:
        made: (outputs,) int64, positions of output samples.
        up: numerator of the ratio of rates.
        down: denominator.

    Returns:
        Two (outputs,) int64 arrays; positions before the first or past the last input sample are possible.
    """
    span = max(up, down) if up != down else 0  # in 1 / up of an input sample: whole numbers, no rounding
    return -((span - made * down) // up), (made * down + span) // up


def measured_between(valid: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Tell where all samples from ``first`` to ``last`` are valid; positions outside of the recording do not count.

    Args:
        valid: (samples,) bool.
        first: (outputs,) int64.
        last: (outputs,) int64, inclusive.

    Returns:
        (outputs,) bool.
    """
    missing = np.concatenate([[0], np.cumsum(~valid)])
    first, last = (np.clip(edge, 0, len(valid) - 1) for edge in (first, last))
    return missing[last + 1] == missing[first]


@lru_cache(maxsize=64)
def low_pass_taps(up: int, down: int) -> np.ndarray:
    """Return the anti-alias filter of a ratio in lowest terms.

    Every output sample uses one branch of it, each ``up``-th tap. Each branch is scaled to sum to 1 / up, so that a
    constant comes out as itself from the first sample on; unscaled, the branches differ by the filter's ripple.

    Returns:
        (taps,) float64 at ``up`` times the input rate; odd and symmetric.
    """
    if up == down:
        return np.ones(1)
    width = (1 - PASSBAND) / max(up, down)
    count, beta = sps.kaiserord(STOPBAND_DB, width)
    cutoff = (1 + PASSBAND) / 2 / max(up, down)
    taps = np.asarray(sps.firwin(count | 1, cutoff, window=("kaiser", beta)))  # type: ignore[arg-type]  (scipy's stub)
    branches = np.pad(taps, (0, -len(taps) % up)).reshape(-1, up)
    return (branches / (up * branches.sum(axis=0))).ravel()[: len(taps)]
