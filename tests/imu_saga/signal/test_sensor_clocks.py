"""Sensors with a clock each: analytic sines on two clocks, planted gaps, planted epochs."""

import numpy as np
import pytest

from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, IMU_CHANNELS, MAG_CHANNELS
from imu_saga.signal.sensor_clocks import NoOverlapError, SensorStream, Wearer, joint_recordings, on_one_clock
from shared_peft.errors import DataError

EDGE_S = 2.0  # the filters' reach at the slowest rate tried


def tone(times_s, frequency_hz, offset=0.0):
    """(samples, 3): a sine at three phases around an offset."""
    phases = np.array([0.0, 0.7, 2.0])
    return offset + np.sin(2 * np.pi * frequency_hz * times_s[:, None] + phases)


def stream(rate_hz, frequency_hz, *, start_s=0.0, seconds=20.0, offset=0.0, labels=None):
    times = start_s + np.arange(round(seconds * rate_hz)) / rate_hz
    return SensorStream(times, tone(times, frequency_hz, offset), labels)


def times_of(stretch):
    return stretch.start_s + np.arange(len(stretch.values)) / stretch.rate_hz


RATES = [(50.0, 50.0), (50.0, 200.0), (20.0, 200.0), (200.0, 20.0), (49.83, 51.37), (100.0, 66.6)]


@pytest.mark.parametrize(("acc_hz", "gyro_hz"), RATES)
@pytest.mark.parametrize("part", [0.1, 0.5, 0.8])
def test_a_sine_on_another_clock_is_read_off_within_a_thousandth_up_to_the_pass_bands_edge(acc_hz, gyro_hz, part):
    frequency = part * min(acc_hz, gyro_hz) / 2
    acc = stream(acc_hz, 0.3, offset=9.8)
    gyro = stream(gyro_hz, frequency, start_s=1.23456, offset=4.0)
    (one,) = on_one_clock({"acc": acc, "gyro": gyro}, 0.5, "here")
    times = times_of(one)
    assert one.rate_hz == pytest.approx(acc_hz, rel=1e-9)
    assert one.valid.all()
    np.testing.assert_allclose(one.values[:, :3], tone(times, 0.3, 9.8), atol=1e-6)
    inner = (times > times[0] + EDGE_S) & (times < times[-1] - EDGE_S)
    np.testing.assert_allclose(one.values[inner, 3:], tone(times, frequency, 4.0)[inner], atol=1e-3)


def test_amplitude_and_phase_keep_within_a_thousandth():
    frequency = 7.0
    (one,) = on_one_clock({"acc": stream(20.0, 1.0), "gyro": stream(200.0, frequency, start_s=0.0171)}, 0.5, "here")
    times = times_of(one)
    inner = (times > EDGE_S) & (times < 20 - EDGE_S)
    basis = np.exp(2j * np.pi * frequency * times[inner])
    design = np.stack([basis.imag, basis.real], axis=1)
    (sine, cosine), *_ = np.linalg.lstsq(design, one.values[inner, 3], rcond=None)
    assert np.hypot(sine, cosine) == pytest.approx(1.0, abs=1e-3)
    assert np.arctan2(cosine, sine) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("frequency_hz", [10.5, 12.0, 33.0, 95.0])
def test_what_the_accelerometers_rate_cannot_carry_is_suppressed_by_60_db_not_folded_down(frequency_hz):
    (one,) = on_one_clock({"acc": stream(20.0, 1.0), "gyro": stream(200.0, frequency_hz)}, 0.5, "here")
    times = times_of(one)
    inner = (times > EDGE_S) & (times < 20 - EDGE_S)
    assert np.abs(one.values[inner, 3:]).max() < 1e-3


def test_only_the_time_that_all_sensors_cover_remains():
    streams = {
        "acc": stream(50.0, 1.0, start_s=100.0, seconds=10.0),
        "gyro": stream(200.0, 1.0, start_s=102.011, seconds=10.0),
        "mag": stream(20.0, 1.0, start_s=99.0, seconds=8.0),
    }
    (one,) = on_one_clock(streams, 0.5, "here")
    assert one.values.shape == (one.nearest.size, 9)
    assert one.start_s == pytest.approx(102.02)
    assert times_of(one)[-1] == pytest.approx(106.94)  # the magnetometer's last sample is at 106.95
    np.testing.assert_array_equal(one.nearest, np.arange(len(one.nearest)) + 101)
    np.testing.assert_allclose(one.values[60:-60, 6:], tone(times_of(one), 1.0)[60:-60], atol=1e-3)


def test_equal_clocks_lose_no_sample():
    acc, gyro = stream(33.3, 1.0, start_s=7.7), stream(33.3, 2.0, start_s=7.7)
    (one,) = on_one_clock({"acc": acc, "gyro": gyro}, 0.5, "here")
    assert len(one.values) == len(acc.times_s)


def without(one, start_s, end_s):
    keep = (one.times_s < start_s) | (one.times_s >= end_s)
    return SensorStream(one.times_s[keep], one.values[keep], None if one.labels is None else one.labels[keep])


@pytest.mark.parametrize("sensor", ["acc", "gyro", "mag"])
def test_a_long_gap_in_any_sensor_splits(sensor):
    streams = {"acc": stream(50.0, 1.0), "gyro": stream(120.0, 1.0), "mag": stream(20.0, 1.0)}
    streams[sensor] = without(streams[sensor], 8.0, 9.5)
    first, second = on_one_clock(streams, 0.5, "here")
    assert 7.9 <= times_of(first)[-1] <= 8.0
    assert 9.5 <= second.start_s <= 9.52 + 1e-9
    assert first.valid.all()
    assert second.valid.all()


@pytest.mark.parametrize("sensor", ["acc", "gyro"])
def test_a_short_gap_in_any_sensor_is_marked_invalid_and_nothing_else(sensor):
    streams = {"acc": stream(50.0, 1.0), "gyro": stream(200.0, 1.0)}
    streams[sensor] = without(streams[sensor], 8.0, 8.4)
    (one,) = on_one_clock(streams, 0.5, "here")
    times = times_of(one)
    assert not one.valid[(times > 8.01) & (times < 8.38)].any()
    assert one.valid[(times < 7.95) | (times > 8.45)].all()


def test_gaps_in_two_sensors_split_at_both():
    streams = {"acc": without(stream(50.0, 1.0), 5.0, 6.0), "gyro": without(stream(99.0, 1.0), 12.0, 14.0)}
    stretches = on_one_clock(streams, 0.5, "here")
    starts = [stretch.start_s for stretch in stretches]
    np.testing.assert_allclose(starts, [0.0, 6.0, 14.0], atol=0.021)


def test_clocks_of_different_epochs_are_refused_with_the_distance():
    streams = {"acc": stream(50.0, 1.0), "gyro": stream(50.0, 1.0, start_s=1_000_019.98)}
    message = r"here: gyro must overlap acc in time, 0 to 19.98 s, got .*, 1e\+06 s apart. Check that both clocks"
    with pytest.raises(NoOverlapError, match=message):
        on_one_clock(streams, 0.5, "here")


def test_sensors_that_only_measure_in_turns_are_refused():
    streams = {"acc": without(stream(50.0, 1.0), 5.0, 10.0), "gyro": stream(50.0, 1.0, start_s=5.5, seconds=4.0)}
    with pytest.raises(NoOverlapError, match="all sensors must cover 4 samples in common"):
        on_one_clock(streams, 0.5, "here")


def test_labels_and_channels_come_from_the_accelerometer_and_the_sensors():
    labels = np.repeat(np.arange(4), 250)
    streams = {"acc": stream(50.0, 1.0, labels=labels), "mag": stream(20.0, 1.0, start_s=1.0)}
    (one,) = joint_recordings(streams, 0.5, Wearer("ann", "run", "waist", "my"))
    assert one.channels == ACC_CHANNELS + MAG_CHANNELS
    assert one.where == "my/ann/run/waist"
    times = one.start_s + np.arange(len(one)) / one.rate_hz
    np.testing.assert_array_equal(one.labels, np.floor(times / 5 + 1e-9).astype(int))
    (bare,) = joint_recordings({"acc": stream(50.0, 1.0)}, 0.5, Wearer("ann", "run", "waist", "my"))
    assert bare.channels == ACC_CHANNELS
    assert (bare.labels == -1).all()


def test_the_accelerometer_comes_first_whatever_the_order_of_the_mapping():
    streams = {"gyro": stream(50.0, 1.0, offset=1.0), "acc": stream(50.0, 1.0, offset=9.8)}
    (one,) = joint_recordings(streams, 0.5, Wearer("ann", "run", "waist", "my"))
    assert one.channels == IMU_CHANNELS == ACC_CHANNELS + GYRO_CHANNELS
    np.testing.assert_allclose(one.signal.mean(axis=0), [9.8] * 3 + [1.0] * 3, atol=0.05)


def test_what_is_no_stream_is_refused():
    with pytest.raises(DataError, match="the sensors must include acc, got gyro"):
        on_one_clock({"gyro": stream(50.0, 1.0)}, 0.5, "here")
    with pytest.raises(DataError, match=r"must have times \(samples,\), values \(samples, 3\)"):
        SensorStream(np.arange(4.0), np.zeros((4, 2)))
    with pytest.raises(DataError, match="sample 2: values must be finite"):
        SensorStream(np.arange(4.0), np.array([[0.0] * 3, [0.0] * 3, [0.0, np.nan, 0.0], [0.0] * 3]))
    backwards = SensorStream(np.array([0.0, 1.0, 0.5, 2.0]), np.zeros((4, 3)))
    with pytest.raises(DataError, match="here, gyro: time must not run backwards"):
        on_one_clock({"acc": stream(50.0, 1.0), "gyro": backwards}, 0.5, "here")
