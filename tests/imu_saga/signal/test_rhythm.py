"""Energy, key points and main period against slow loops over windows and planted truth."""

import math

import numpy as np
import pytest
import torch

from imu_saga.recording import IMU_CHANNELS
from imu_saga.signal.rhythm import CLEAR_PEAK, energy, key_points, main_period
from tests.imu_saga.planted import RATE_HZ, bursts


def slow_energy(window: np.ndarray, valid: np.ndarray, rate_hz: float) -> np.ndarray:
    mean = window[valid, :3].mean(axis=0)
    raw = np.array([((row[:3] - mean) ** 2).sum() if ok else 0.0 for row, ok in zip(window, valid, strict=True)])
    reach = round(0.15 * rate_hz) // 2
    return np.array([raw[max(0, i - reach) : i + reach + 1].mean() for i in range(len(raw))])


def slow_key_points(values: np.ndarray, rate_hz: float) -> list[int]:
    reach, low, high = max(1, round(0.2 * rate_hz)), values.min(), values.max()
    found = []
    for i, value in enumerate(values):
        before, after = values[max(0, i - reach) : i], values[i + 1 : i + 1 + reach]
        peak = all(value > other for other in before) and all(value >= other for other in after)
        valley = all(value < other for other in before) and all(value <= other for other in after)
        far_up, far_down = value - low >= 0.1 * (high - low), high - value >= 0.1 * (high - low)
        if high > low and ((peak and far_up) or (valley and far_down)):
            found.append(i)
    return found


def slow_period(values: np.ndarray) -> tuple[float, bool]:
    samples, amplitudes = len(values), []
    for k in range(2, samples // 2 + 1):
        wave = [math.e ** (-2j * math.pi * k * n / samples) for n in range(samples)]
        amplitudes.append(abs(sum((v - values.mean()) * w for v, w in zip(values, wave, strict=True))))
    best = int(np.argmax(amplitudes))
    lower_median = sorted(amplitudes)[(len(amplitudes) - 1) // 2]
    return samples / (best + 2), amplitudes[best] >= CLEAR_PEAK * lower_median


@pytest.fixture
def wild() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(12, 97, 6, generator=generator).cumsum(1)
    x[0] = 1.0
    return x, torch.rand(12, 97, generator=generator) > 0.05


@pytest.mark.parametrize("rate_hz", [8.0, 20.0, 50.0])
def test_energy_and_key_points_equal_the_slow_loops(wild, rate_hz):
    x, valid = wild
    found = energy(x, valid, rate_hz, IMU_CHANNELS)
    marked = key_points(found, rate_hz)
    for row in range(len(x)):
        expected = slow_energy(x[row].double().numpy(), valid[row].numpy(), rate_hz)
        torch.testing.assert_close(found[row].double(), torch.from_numpy(expected), rtol=1e-4, atol=1e-4)
        assert marked[row].nonzero().squeeze(1).tolist() == slow_key_points(found[row].numpy(), rate_hz)
    assert marked[1:].any(1).all()
    assert not marked[0].any()


def test_main_period_equals_the_slow_fourier_sum(wild):
    x, valid = wild
    found = energy(x, valid, RATE_HZ, IMU_CHANNELS)[1:]
    period, clear = main_period(found)
    for row in range(len(found)):
        expected, expected_clear = slow_period(found[row].double().numpy())
        assert float(period[row]) == pytest.approx(expected, rel=1e-6)
        assert bool(clear[row]) == expected_clear


@pytest.mark.parametrize("planted", [8, 10, 12, 20, 30, 60])
def test_a_planted_period_is_found(planted):
    x = bursts(planted)
    period, clear = main_period(energy(x, torch.ones(x.shape[:2], dtype=torch.bool), RATE_HZ, IMU_CHANNELS))
    assert clear.all()
    assert period.tolist() == pytest.approx([planted] * len(x))


def test_energy_does_not_change_when_the_device_is_turned():
    x = bursts(10)
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0))).Q
    turned = torch.cat([x[..., :3] @ turn, x[..., 3:]], dim=2)
    valid = torch.ones(x.shape[:2], dtype=torch.bool)
    torch.testing.assert_close(
        energy(x, valid, RATE_HZ, IMU_CHANNELS), energy(turned, valid, RATE_HZ, IMU_CHANNELS), rtol=1e-3, atol=1e-3
    )
