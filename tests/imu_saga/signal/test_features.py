"""Features equal their textbook definitions, computed window by window with scipy."""

import time

import numpy as np
import pytest
from scipy import signal as sps
from scipy import stats

from imu_saga.recording import IMU_CHANNELS
from imu_saga.signal.features import WindowFeatures, feature_names, feature_table, window_features

RATE = 20.0


@pytest.fixture(scope="module")
def windows():
    rng = np.random.default_rng(0)
    times = np.arange(120) / RATE
    x = rng.normal(size=(6, 120, 6))
    x[:, :, 0] += 3 * np.sin(2 * np.pi * 1.5 * times) + 9.8
    return x.astype(np.float32)


def column(features, name):
    return features[:, feature_names(IMU_CHANNELS).index(name)]


@pytest.mark.parametrize("signal", ["acc_x", "gyro_z", "acc_length", "gyro_length"])
def test_statistics_equal_their_definitions(windows, signal):
    made = window_features(windows, RATE, IMU_CHANNELS)
    triad = windows[:, :, :3] if signal.startswith("acc") else windows[:, :, 3:]
    values = np.linalg.norm(triad.astype(float), axis=2) if "length" in signal else triad[:, :, "xyz".index(signal[-1])]
    values = values.astype(float)
    for row, window in enumerate(values):
        frequency, power = sps.periodogram(window, RATE, detrend="constant")
        power[-1] *= 2  # scipy doubles every bin that stands for two, all but the last
        share = power[1:] / power[1:].sum()
        centred = window - window.mean()
        lags = sps.correlate(centred, centred)[119:] / (centred**2).sum()
        expected = {
            "mean": window.mean(),
            "std": window.std(),
            "min": window.min(),
            "max": window.max(),
            "median": np.median(window),
            "iqr": stats.iqr(window),
            "p05": np.percentile(window, 5),
            "p95": np.percentile(window, 95),
            "skewness": stats.skew(window),
            "kurtosis": stats.kurtosis(window),
            "mean_abs_step": np.abs(np.diff(window)).mean() * RATE,
            "crossings": sum((a > 0) != (b > 0) for a, b in zip(centred, centred[1:], strict=False)) / 119 * RATE,
            "peak_hz": frequency[power.argmax()],
            "peak_share": share.max(),
            "entropy": stats.entropy(share) / np.log(60),
            "autocorrelation": lags[5:60].max(),
            "mean_abs_deviation": np.abs(centred).mean(),
            "rms": np.sqrt((window**2).mean()),
            "step_std": np.diff(window).std() * RATE,
            "slope": stats.linregress(np.arange(120) / RATE, window).slope,
            "halves": window[60:].mean() - window[:60].mean(),
            "centroid_hz": (frequency[1:] * share).sum(),
            "spread_hz": np.sqrt(((frequency[1:] - (frequency[1:] * share).sum()) ** 2 * share).sum()),
        }
        for name, value in expected.items():
            assert column(made, f"{signal}_{name}")[row] == pytest.approx(value, rel=1e-4, abs=1e-4), name


@pytest.mark.parametrize("length", [2, 3, 75, 120])
def test_spectrum_from_half_of_the_tables_is_that_of_the_fast_fourier_transform(length):
    x = np.random.default_rng(length).normal(size=(3, length, 1))
    power = np.abs(np.fft.rfft(x[:, :, 0], axis=1)[:, 1:] / length) ** 2
    share = power / power.sum(axis=1, keepdims=True)
    frequency = np.fft.rfftfreq(length, 1 / RATE)[1:]
    made, names = window_features(x, RATE, ("acc_x",)), feature_names(("acc_x",))
    np.testing.assert_allclose(made[:, names.index("acc_x_centroid_hz")], share @ frequency, rtol=1e-6)
    np.testing.assert_allclose(made[:, names.index("acc_x_peak_share")], share.max(axis=1), rtol=1e-6)
    tables = WindowFeatures(("acc_x",), RATE, length)
    assert max(len(tables.cosines), len(tables.sines)) == length // 2 + 1


def test_correlations_equal_numpy(windows):
    made = window_features(windows, RATE, IMU_CHANNELS)
    for row, window in enumerate(windows):
        expected = np.corrcoef(window[:, 3:].T)[0, 2]
        assert column(made, "gyro_correlation_xz")[row] == pytest.approx(expected, abs=1e-5)


def test_directions_are_the_mean_vectors_and_do_not_feel_its_length(windows):
    made = window_features(windows, RATE, IMU_CHANNELS)
    doubled = window_features(2 * windows, RATE, IMU_CHANNELS)
    for triad, start in (("acc", 0), ("gyro", 3)):
        mean = windows[:, :, start : start + 3].mean(axis=1)
        expected = mean / np.linalg.norm(mean, axis=1)[:, None]
        for axis in range(3):
            name = f"{triad}_direction_{'xyz'[axis]}"
            np.testing.assert_allclose(column(made, name), expected[:, axis], atol=1e-5)
            np.testing.assert_allclose(column(doubled, name), expected[:, axis], atol=1e-5)


def test_the_table_documents_every_column_with_formula_and_unit():
    rows = [line.split(" | ") for line in feature_table().splitlines()[2:]]
    documented = {row[0].strip("| `") for row in rows}
    assert len(documented) == len(rows) >= 30
    for name in feature_names(IMU_CHANNELS):
        assert sum(name.endswith(f"_{kind}") for kind in documented) >= 1, name
    assert all(len(cell.strip(" |")) for row in rows for cell in row)


def test_band_powers_add_up_to_the_variance(windows):
    x = sps.sosfiltfilt(sps.butter(6, 8, fs=RATE, output="sos"), windows, axis=1)
    made = window_features(x, RATE, IMU_CHANNELS)
    bands = [column(made, name) for name in feature_names(IMU_CHANNELS) if name.startswith("acc_x_band")]
    total = sum(10**band for band in bands)
    np.testing.assert_allclose(2 * total, x[:, :, 0].var(axis=1), rtol=0.02)


def test_lengths_do_not_change_when_the_device_is_rotated(windows):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turned = np.concatenate([windows[:, :, :3] @ rotation, windows[:, :, 3:] @ rotation], axis=2)
    names = feature_names(IMU_CHANNELS)
    lengths = [i for i, name in enumerate(names) if "_length_" in name]
    before, after = (window_features(x, RATE, IMU_CHANNELS)[:, lengths] for x in (windows, turned))
    np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-3)


def test_constant_windows_give_finite_features():
    made = window_features(np.full((3, 40, 6), 9.8, np.float32), RATE, IMU_CHANNELS)
    assert np.isfinite(made).all()


@pytest.mark.parametrize(("length", "channels"), [(2, 3), (5, 6), (120, 9)])
def test_names_and_columns_agree(length, channels):
    names = tuple(f"{['acc', 'gyro', 'mag'][i // 3]}_{'xyz'[i % 3]}" for i in range(channels))
    made = window_features(np.random.default_rng(0).normal(size=(4, length, channels)), RATE, names)
    assert made.shape == (4, len(feature_names(names)))
    assert len(set(feature_names(names))) == made.shape[1]
    assert np.isfinite(made).all()
    assert window_features(np.zeros((0, length, channels)), RATE, names).shape == (0, made.shape[1])


def test_a_thousand_windows_take_seconds_not_minutes():
    x = np.random.default_rng(0).normal(size=(1000, 120, 6))
    start = time.perf_counter()
    window_features(x, RATE)
    assert time.perf_counter() - start < 10
