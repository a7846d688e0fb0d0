"""A stream resampled in any chunks is the file resampled, and the file is the analytic sine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.recording import ACC_CHANNELS, Recording
from imu_saga.signal.resample import HORIZON, rational_ratio, resample, resample_array
from imu_saga.streaming.resample import StreamResampler

PAIRS = [(416.0, 20.0), (102.45, 20.0), (25.0, 20.0), (20.0, 50.0), (100.0, 50.0), (50.0, 50.0), (52.3, 104.1)]


def chunked(stream, values, valid, sizes):
    edges = np.minimum(np.cumsum([0, *sizes]), len(values)).tolist() + [len(values)]
    parts = [stream.push(values[a:b], valid[a:b]) for a, b in zip(edges, edges[1:], strict=False)] + [stream.flush()]
    return np.concatenate([part for part, _ in parts]), np.concatenate([part for _, part in parts])


@settings(deadline=None, max_examples=120)
@given(
    pair=st.sampled_from(PAIRS),
    count=st.integers(1, 1500),
    sizes=st.lists(st.integers(0, 300), max_size=12),
    seed=st.integers(0, 2**31),
)
def test_any_chunks_give_the_file_resampled_to_a_hundred_thousandth_of_the_signal(pair, count, sizes, seed):
    rng = np.random.default_rng(seed)
    signal = (9.8 + rng.normal(0, 5, (count, 3)).cumsum(0)).astype(np.float32)
    valid = rng.random(count) > 0.02
    labels = np.zeros(count, np.int64)
    whole = resample(Recording(signal, ACC_CHANNELS, pair[0], labels, valid, "s", "a", "waist", "toy"), pair[1])
    up, down = rational_ratio(*pair, HORIZON, "toy")
    values, measured = chunked(StreamResampler(up, down, 3), signal, valid, sizes)
    assert values.dtype == np.float32
    assert len(values) == len(whole)
    assert np.abs(values - whole.signal).max() <= 1e-5 * np.abs(signal).max()
    np.testing.assert_array_equal(measured, whole.valid)


@settings(deadline=None, max_examples=60)
@given(up=st.integers(1, 40), down=st.integers(1, 40), count=st.integers(1, 400), seed=st.integers(0, 99))
def test_any_ratio_sample_by_sample_gives_the_file_resampled(up, down, count, seed):
    common = int(np.gcd(up, down))
    up, down = up // common, down // common
    signal = np.random.default_rng(seed).normal(3, 1, (count, 1)).astype(np.float32)
    values, _ = chunked(StreamResampler(up, down, 1), signal, np.ones(count, bool), [1] * min(count, 50))
    np.testing.assert_allclose(values, resample_array(signal, up, down), atol=1e-5 * np.abs(signal).max())


def test_a_flushed_stream_starts_afresh():
    signal = np.random.default_rng(0).normal(0, 1, (700, 2))
    stream, valid = StreamResampler(5, 104, 2), np.ones(700, bool)
    first, second = (chunked(stream, signal, valid, [100, 3, 200]) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    assert len(stream.flush()[0]) == 0


@pytest.mark.parametrize("pair", PAIRS)
def test_the_buffer_stays_as_short_as_the_filter(pair):
    stream = StreamResampler(*rational_ratio(*pair, HORIZON, "toy"), columns=6)
    held = []
    for _ in range(60):
        stream.push(np.zeros((100, 6)), np.ones(100, bool))
        held.append(len(stream.values))
    assert max(held[20:]) <= 2 * stream.delay + 2 + 100


def test_a_stream_at_rest_gives_gravity_from_its_first_sample_to_its_last():
    for pair in PAIRS:
        stream = StreamResampler(*rational_ratio(*pair, HORIZON, "toy"), columns=1)
        values, _ = chunked(stream, np.full((800, 1), 9.80665), np.ones(800, bool), [1, 2, 300])
        np.testing.assert_allclose(values, 9.80665, atol=1e-5)
