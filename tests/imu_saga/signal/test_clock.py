"""Timestamps become uniform grids: jitter is undone, gaps split or are marked, batches are spread evenly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.signal.clock import detect_time_unit, to_uniform
from shared_peft.errors import DataError


def sine(times):
    return np.sin(2 * np.pi * 1.5 * times)[:, None]


def jittered(count=1000, rate_hz=50.0, part=0.2, seed=0):
    rng = np.random.default_rng(seed)
    return (np.arange(count) + rng.uniform(-part, part, count)) / rate_hz


def test_jittered_stamps_give_the_sine_on_an_even_grid():
    times = jittered()
    (made,) = to_uniform(times, sine(times), max_gap_s=0.5)
    grid = made.start_s + np.arange(len(made.valid)) / made.rate_hz
    assert made.valid.all()
    assert made.rate_hz == pytest.approx(50.0, rel=1e-3)
    assert np.abs(made.values - sine(grid)).max() < 2e-3
    assert np.abs(times[made.nearest] - grid).max() <= 0.5 * np.diff(times).max() + 1e-9


def test_long_gaps_split_and_short_ones_are_marked_invalid():
    times = jittered()
    kept = np.ones(1000, bool)
    kept[300:306] = kept[500:600] = False
    first, second = to_uniform(times[kept], sine(times[kept]), max_gap_s=0.5)
    grid = first.start_s + np.arange(len(first.valid)) / first.rate_hz
    inside = (grid > times[299] + 0.02) & (grid < times[306] - 0.02)
    assert inside.sum() >= 3
    assert not first.valid[inside].any()
    assert first.valid[(grid < times[299]) | (grid > times[306])].all()
    np.testing.assert_allclose(
        first.values[inside, 0],
        np.interp(grid[inside], [times[299], times[306]], [sine(times[[299]])[0, 0], sine(times[[306]])[0, 0]]),
        atol=0.02,
    )
    assert second.start_s == pytest.approx(times[600])
    assert second.valid.all()


def test_batched_deliveries_are_spread_evenly():
    true = np.arange(2000) / 102.5
    delivered = np.repeat(true[7::8], 8) + 0.03
    (made,) = to_uniform(delivered, sine(true), max_gap_s=0.5)
    assert made.rate_hz == pytest.approx(102.5, rel=1e-3)
    np.testing.assert_array_equal(made.values, sine(true))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), lost=st.floats(0, 0.2))
def test_no_sample_is_invented_outside_the_stamps_and_every_valid_one_has_a_neighbour(seed, lost):
    times = jittered(200, seed=seed)
    times = times[np.random.default_rng(seed).random(200) >= lost]
    for made in to_uniform(times, sine(times), max_gap_s=0.3):
        grid = made.start_s + np.arange(len(made.valid)) / made.rate_hz
        assert grid[0] >= times[0] - 1e-9
        assert grid[-1] <= times[-1] + 1e-6
        nearest = np.abs(times[:, None] - grid).min(axis=0)
        assert nearest[made.valid].max() <= 1.75 / 50
        assert np.isfinite(made.values).all()


@pytest.mark.parametrize(("unit", "scale"), [("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9)])
@pytest.mark.parametrize("rate_hz", [5.0, 20.0, 102.5, 416.0, 1000.0])
def test_time_units_are_told_from_the_rate(unit, scale, rate_hz):
    assert detect_time_unit(1.6e9 * scale + np.arange(400) * scale / rate_hz, "here") == unit


def test_unreadable_time_units_are_refused():
    with pytest.raises(DataError, match="here: timestamps must give 4 to 1000 samples/s in s, ms, us or ns, got"):
        detect_time_unit(np.arange(100) * 0.5, "here")


def test_time_running_backwards_is_refused_with_its_row():
    times = np.arange(100) / 50
    times[40] = 0.1
    with pytest.raises(DataError, match="here: time must not run backwards, got 0.1 after 0.78 at row 40"):
        to_uniform(times, sine(times), max_gap_s=0.5, where="here")


def test_a_limit_below_the_period_is_refused():
    with pytest.raises(DataError, match="max_gap_s must exceed 1.75 sampling periods, got 0.01 s"):
        to_uniform(np.arange(100) / 50, sine(np.arange(100) / 50), max_gap_s=0.01)
