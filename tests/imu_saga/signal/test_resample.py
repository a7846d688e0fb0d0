"""Resampling against analytic sines and against scipy; the mask follows the samples it came from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal as sps

from imu_saga.recording import ACC_CHANNELS, Recording
from imu_saga.signal.resample import PASSBAND, STOPBAND_DB, low_pass_taps, rational_ratio, resample, resample_array
from shared_peft.errors import DataError

RATES = [(102.5, 20.0), (102.5, 25.0), (102.5, 50.0), (102.5, 100.0), (200.0, 50.0), (416.0, 20.0), (20.0, 50.0)]


def recording_of(columns, rate_hz, valid=None, labels=None):
    columns = np.asarray(columns)
    signal = np.stack([columns] * 3, axis=1).astype(np.float32) if columns.ndim == 1 else columns.astype(np.float32)
    count = len(signal)
    labels = np.zeros(count, np.int64) if labels is None else labels
    valid = np.ones(count, bool) if valid is None else valid
    return Recording(signal, ACC_CHANNELS, rate_hz, labels, valid, "s", "run", "waist", "toy")


@pytest.mark.parametrize(("old_hz", "new_hz"), RATES)
@pytest.mark.parametrize("part", [0.0, 0.3, 0.7, 0.98])
def test_sines_in_the_passband_keep_their_values_to_a_thousandth(old_hz, new_hz, part):
    frequency = part * PASSBAND * min(old_hz, new_hz) / 2
    times = np.arange(int(old_hz * 30)) / old_hz
    made = resample(recording_of(np.sin(2 * np.pi * frequency * times + 0.3), old_hz), new_hz)
    at = np.arange(len(made)) / new_hz
    inner = (at > 4) & (at < 26)
    assert np.abs(made.signal[:, 0] - np.sin(2 * np.pi * frequency * at + 0.3))[inner].max() <= 1e-3


@pytest.mark.parametrize(("old_hz", "new_hz"), [pair for pair in RATES if pair[0] > 1.5 * pair[1]])
@pytest.mark.parametrize("above", [1.01, 1.2, 1.49])
def test_aliases_are_suppressed_by_60_db(old_hz, new_hz, above):
    times = np.arange(int(old_hz * 30)) / old_hz
    made = resample(recording_of(np.sin(2 * np.pi * above * new_hz / 2 * times), old_hz), new_hz)
    inner = made.signal[round(4 * new_hz) : round(26 * new_hz), 0]
    assert 20 * np.log10(np.abs(inner).max()) <= -60


def test_a_whole_ratio_equals_filtering_with_scipy_and_taking_every_fourth_sample():
    noise = np.random.default_rng(0).normal(size=2000)
    taps, beta = sps.kaiserord(80, 0.2 / 4)
    low_pass = sps.firwin(taps | 1, 0.9 / 4, window=("kaiser", beta))
    expected = np.convolve(noise, low_pass, "same")[::4]
    made = resample(recording_of(noise, 200.0), 50.0).signal[:, 0]
    np.testing.assert_allclose(made[50:-50], expected[50:-50], atol=1e-5)


@pytest.mark.parametrize(("up", "down"), [(5, 104), (351, 1798), (4, 5), (5, 2), (1, 4), (7, 3)])
def test_resampling_is_scipys_polyphase_filter_with_every_branch_passing_a_constant(up, down):
    width = max(up, down)
    count, beta = sps.kaiserord(STOPBAND_DB, (1 - PASSBAND) / width)
    plain = sps.firwin(count | 1, (1 + PASSBAND) / 2 / width, window=("kaiser", beta))
    taps = low_pass_taps(up, down)
    np.testing.assert_allclose([taps[branch::up].sum() for branch in range(up)], 1 / up, rtol=1e-12)
    np.testing.assert_allclose(taps, taps[::-1], atol=1e-15)
    noise = np.random.default_rng(up).normal(size=(6000, 1))
    expected = sps.resample_poly(noise, up, down, window=plain)
    inner = slice(round(3000 * up / down) - 20, round(3000 * up / down) + 20)
    assert np.abs(resample_array(noise, up, down) - expected)[inner].max() <= 1e-4 * np.abs(noise).max()


@pytest.mark.parametrize(("old_hz", "new_hz"), [(102.45, 20.0), (99.87, 20.0), (52.31, 104.1)])
def test_the_ratio_is_the_same_for_every_length_and_drifts_by_less_than_a_crystal(old_hz, new_hz):
    up, down = rational_ratio(old_hz, new_hz, 1_000_000, "toy")
    assert abs(up / down / (new_hz / old_hz) - 1) < 5e-6  # a quartz keeps 20e-6
    noise = np.random.default_rng(0).normal(size=3000)
    whole, part = (resample(recording_of(noise[:count], old_hz), new_hz).signal for count in (3000, 1500))
    shared = round(700 * new_hz / old_hz)
    np.testing.assert_allclose(part[:shared], whole[:shared], atol=1e-6)


@pytest.mark.parametrize(("old_hz", "new_hz"), RATES)
def test_gravity_stays_itself_up_to_both_ends(old_hz, new_hz):
    made = resample(recording_of(np.full(round(old_hz * 4), 9.80665), old_hz), new_hz)
    np.testing.assert_allclose(made.signal, 9.80665, atol=1e-5)
    assert made.seconds == pytest.approx(4.0, abs=1 / new_hz)


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(1, 120),
    old_hz=st.sampled_from([20.0, 50.0, 102.5]),
    new_hz=st.sampled_from([20.0, 25.0, 100.0]),
    seed=st.integers(0, 99),
)
def test_mask_and_labels_follow_the_samples_around(count, old_hz, new_hz, seed):
    rng = np.random.default_rng(seed)
    valid, labels = rng.random(count) > 0.2, rng.integers(-1, 4, count)
    source = recording_of(rng.normal(size=count), old_hz, valid, labels)
    made = resample(source, new_hz)
    if old_hz == new_hz:
        np.testing.assert_array_equal(made.valid, valid)
        return
    reach = max(1 / old_hz, 1 / new_hz) - 1e-9
    for index in range(len(made)):
        distance = np.abs(np.arange(count) / old_hz - index / new_hz)
        if not valid[distance < reach].all():
            assert not made.valid[index]
        elif valid[distance < reach + 2e-9].all():
            assert made.valid[index]
        nearest = np.flatnonzero(distance <= distance.min() + 1e-6)
        assert made.labels[index] in labels[nearest]


def test_one_sample_survives():
    assert len(resample(recording_of([9.8], 100.0), 20.0)) == 1


@pytest.mark.parametrize("rate_hz", [0.0, -5.0, float("nan"), float("inf")])
def test_rates_that_are_none_are_refused(rate_hz):
    with pytest.raises(DataError, match="the new rate must be a positive number"):
        resample(recording_of(np.ones(10), 50.0), rate_hz)


def test_rates_out_of_proportion_are_refused():
    with pytest.raises(DataError, match="within a factor of 2000 of 50 Hz, got 0.001 Hz"):
        resample(recording_of(np.ones(10), 50.0), 0.001)


@pytest.mark.parametrize(("old_hz", "new_hz"), [(0.02, 20.0), (20.0, 0.02), (1.0, 1999.0), (3.0, 1501.0)])
def test_rates_far_apart_have_a_ratio_too(old_hz, new_hz):
    up, down = rational_ratio(old_hz, new_hz, 10, "here")
    assert up / down == pytest.approx(new_hz / old_hz, rel=1e-3)
