"""Gravity taken out causally: what stands still gives 0, what moves fast enough stays, chunks make no difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as sps

from imu_saga.recording import IMU_CHANNELS, Recording
from imu_saga.signal.gravity import CUTOFF_HZ, CausalHighPass, remove_gravity


def recording(signal):
    count = len(signal)
    labels, valid = np.zeros(count, np.int64), np.ones(count, bool)
    return Recording(signal.astype(np.float32), IMU_CHANNELS, 50.0, labels, valid, "s", "a", "waist", "my")


def test_a_device_at_rest_measures_nothing_and_its_gyroscope_is_left_alone():
    signal = np.tile([3.0, -4.0, 8.5, 0.1, 0.2, 0.3], (500, 1))
    made = remove_gravity(recording(signal))
    assert np.abs(made.signal[:, :3]).max() < 1e-5
    np.testing.assert_array_equal(made.signal[:, 3:], signal[:, 3:].astype(np.float32))
    assert made.gravity == "removed"
    assert remove_gravity(made) is made


@pytest.mark.parametrize("frequency", [0.1, CUTOFF_HZ, 1.0, 5.0])
def test_gain_is_that_of_a_second_order_butterworth_filter(frequency):
    time = np.arange(20_000) / 50.0
    signal = np.tile(np.sin(2 * np.pi * frequency * time)[:, None], (1, 6))
    out = remove_gravity(recording(signal)).signal[10_000:, 0]
    warped = [np.tan(np.pi * value / 50.0) for value in (frequency, CUTOFF_HZ)]  # bilinear transform
    expected = 1 / np.sqrt(1 + (warped[1] / warped[0]) ** 4)
    assert out.std() * np.sqrt(2) == pytest.approx(expected, rel=2e-2, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 40), max_size=20), st.integers(0, 2**31))
def test_any_chunks_give_what_one_call_gives(sizes, seed):
    values = np.random.default_rng(seed).normal(0, 5, (400, 3))
    edges = np.minimum(np.cumsum([0, *sizes]), 400).tolist() + [400]
    chunked = CausalHighPass(20.0, 3)
    parts = [chunked.push(values[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    whole = CausalHighPass(20.0, 3).push(values)
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)
    sections = sps.butter(2, CUTOFF_HZ, "highpass", fs=20.0, output="sos")
    shifted = sps.sosfilt(sections, values - values[0], axis=0)  # linear: a constant from before the start gives 0
    np.testing.assert_allclose(whole, shifted, atol=1e-9)
