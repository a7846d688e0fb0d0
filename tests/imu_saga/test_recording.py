"""A recording refuses what cannot be one."""

import dataclasses

import numpy as np
import pytest

from imu_saga.recording import ACC_CHANNELS, Recording
from shared_peft.errors import DataError

GOOD = Recording(
    np.ones((10, 3), np.float32),
    ACC_CHANNELS,
    50.0,
    np.zeros(10, np.int64),
    np.ones(10, bool),
    "s",
    "run",
    "waist",
    "toy",
)


def _with_nan():
    signal = np.ones((10, 3), np.float32)
    signal[4, 1] = np.nan
    return signal


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signal": np.ones((10, 3))}, "must be float32 .samples, channels., got float64"),
        ({"signal": np.ones(10, np.float32)}, "must be float32 .samples, channels."),
        ({"signal": _with_nan()}, "must be finite, got nan at sample 4, channel acc_y"),
        ({"channels": ("a", "a", "b")}, "channels must be 3 different names"),
        ({"channels": ("a", "b")}, "channels must be 3 different names"),
        ({"rate_hz": 0.0}, "rate_hz must be a positive number, got 0.0"),
        ({"rate_hz": float("nan")}, "rate_hz must be a positive number, got nan"),
        ({"labels": np.zeros(9, np.int64)}, r"labels must be int64 of shape \(10,\)"),
        ({"labels": np.full(10, -2)}, "labels must be -1 or more, got -2"),
        ({"valid": np.ones(10)}, "valid must be bool"),
        ({"subject": ""}, "subject must be a name"),
        ({"start_s": float("inf")}, "start_s must be a finite number"),
    ],
)
def test_what_cannot_be_a_recording_is_refused_with_its_address(change, message):
    with pytest.raises(DataError, match=message) as error:
        dataclasses.replace(GOOD, **change)
    assert "recording toy/" in str(error.value)


def test_duration_is_samples_over_rate():
    assert GOOD.seconds == 10 / 50
