"""Every masking level, unasked; then each against what it must hide."""

import pytest
import torch

import imu_saga.masking  # noqa: F401
from imu_saga.masking.period import PeriodLevel
from imu_saga.masking.point import PointLevel
from imu_saga.masking.sensor import SensorLevel
from imu_saga.masking.sub_period import SubPeriodLevel
from imu_saga.masking_level import MASKING_LEVELS
from imu_saga.mixture import draw_every_level, draw_mixture, normalised_weights
from imu_saga.recording import ACC_CHANNELS, GYRO_CHANNELS, IMU_CHANNELS
from imu_saga.signal.rhythm import energy, key_points, main_period
from shared_peft.errors import ConfigError, DataError, UnknownNameError
from tests.imu_saga.planted import RATE_HZ, bursts

LEVELS = ("period", "point", "sensor", "sub_period")
RATIO = {"period": (0.02, 0.5), "point": (0.15, 0.24), "sensor": (1 / 6, 1 / 6), "sub_period": (1 / 120, 0.4)}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(windows: int = 600, samples: int = 120, channels: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(windows, samples, channels, generator=generator(1))
    return x, torch.ones(windows, samples, dtype=torch.bool)


def draw(level, x, valid, seed=0, rate_hz=RATE_HZ, channels=IMU_CHANNELS):
    return level.draw(x, valid, generator(seed), rate_hz=rate_hz, channels=channels)


def test_the_four_levels_of_the_paper_are_registered():
    assert set(LEVELS) <= set(MASKING_LEVELS.names())


@pytest.mark.parametrize("name", MASKING_LEVELS.names())
def test_battery_shape_reach_and_determinism(name):
    x, valid = noise(3000)
    before = x.clone()
    mask = draw(MASKING_LEVELS.get(name)(), x, valid)
    assert mask.dtype == torch.bool
    assert mask.shape == x.shape
    assert mask.any(0).all(), "every sample of every channel is hidden sometimes, the last too"
    assert (~mask).any(0).all()
    assert not mask.flatten(1).all(1).any()
    assert mask.flatten(1).any(1).all()
    assert torch.equal(mask, draw(MASKING_LEVELS.get(name)(), x, valid))
    assert not torch.equal(mask, draw(MASKING_LEVELS.get(name)(), x, valid, seed=1))
    assert torch.equal(x, before)


@pytest.mark.parametrize("name", MASKING_LEVELS.names())
def test_battery_hides_within_the_ratio_bounds(name):
    x, valid = noise()
    share = draw(MASKING_LEVELS.get(name)(), x, valid).flatten(1).float().mean(1)
    low, high = RATIO.get(name, (0.0, 0.99))  # of another level all that is known: something stays to see
    assert float(share.min()) >= low - 1e-6
    assert float(share.max()) <= high + 1e-6


@pytest.mark.parametrize("name", MASKING_LEVELS.names())
@pytest.mark.parametrize(
    ("samples", "channels", "rate_hz"), [(4, 6, 20.0), (9, 3, 1.0), (300, 6, 100.0), (50, 1, 50.0)]
)
def test_battery_any_length_rate_and_channel_count(name, samples, channels, rate_hz):
    x, valid = noise(200, samples, channels)
    mask = draw(MASKING_LEVELS.get(name)(), x, valid, rate_hz=rate_hz, channels=IMU_CHANNELS[:channels])
    assert not mask.flatten(1).all(1).any()
    assert mask.flatten(1).any(1).all()
    assert mask.flatten(0, 1).any(0).all()


@pytest.mark.parametrize("name", MASKING_LEVELS.names())
def test_battery_flat_and_unmeasured_windows_are_masked_too(name):
    x, valid = torch.full((20, 120, 6), 9.8), torch.zeros(20, 120, dtype=torch.bool)
    mask = draw(MASKING_LEVELS.get(name)(), x, valid)
    assert mask.flatten(1).any(1).all()
    assert not mask.flatten(1).all(1).any()


@pytest.mark.parametrize("name", MASKING_LEVELS.names())
def test_battery_refuses_windows_that_cannot_be_masked(name):
    with pytest.raises(DataError, match="at least 4 samples, 6 channels.*got"):
        draw(MASKING_LEVELS.get(name)(), *noise(2, 3))
    with pytest.raises(DataError, match="6 channels"):
        draw(MASKING_LEVELS.get(name)(), *noise(2, 120, 5))


def slow_runs(row: torch.Tensor) -> list[int]:
    lengths, run = [], 0
    for hidden in [*row.tolist(), False]:
        if hidden:
            run += 1
        elif run:
            lengths.append(run)
            run = 0
    return lengths


def test_point_spans_have_the_clipped_geometric_lengths():
    x, valid = noise(20_000, 120, 1)
    mask = draw(PointLevel(count="one"), x, valid, channels=("acc_x",))[..., 0]
    counts = torch.bincount(mask.sum(1), minlength=11).double() / len(x)
    expected = [0.0, *(0.2 * 0.8 ** (n - 1) for n in range(1, 10)), 0.8**9]
    assert counts.tolist() == pytest.approx(expected, abs=0.012)
    assert all(len(slow_runs(row)) == 1 for row in mask[:200])


def test_point_spans_last_as_long_at_any_rate():
    x, valid = noise(4000, 600, 1)
    seconds = {
        rate: float(
            draw(PointLevel(count="one"), x, valid, rate_hz=rate, channels=("acc_x",)).sum((1, 2)).float().mean()
        )
        / rate
        for rate in (20.0, 100.0)
    }
    assert seconds[100.0] == pytest.approx(seconds[20.0], rel=0.12)


def test_point_masks_are_the_same_on_all_axes_and_just_reach_the_share():
    x, valid = noise()
    mask = draw(PointLevel(), x, valid)
    assert (mask == mask[..., :1]).all()
    hidden = mask[..., 0].sum(1)
    assert int(hidden.min()) >= 18
    assert int(hidden.max()) <= 18 + 9


def test_sensor_hides_each_axis_equally_often_and_for_the_whole_window():
    x, valid = noise(6000)
    mask = draw(SensorLevel(), x, valid)
    assert (mask == mask[:, :1]).all()
    assert (mask[:, 0].sum(1) == 1).all()
    assert mask[:, 0].double().mean(0).tolist() == pytest.approx([1 / 6] * 6, abs=0.02)


def test_sensor_can_hide_a_whole_device_but_not_the_only_one():
    x, valid = noise(500)
    mask = draw(SensorLevel(hides="sensor"), x, valid)[:, 0]
    assert {tuple(row) for row in mask.tolist()} == {(True,) * 3 + (False,) * 3, (False,) * 3 + (True,) * 3}
    alone = draw(SensorLevel(hides="sensor"), x[..., :3], valid, channels=ACC_CHANNELS)[:, 0]
    assert (alone.sum(1) == 1).all()
    assert len(GYRO_CHANNELS) == 3


def test_sub_period_hides_exactly_what_lies_between_two_neighbouring_key_points():
    x, valid = bursts(20, windows=400), torch.ones(400, 120, dtype=torch.bool)
    marked = key_points(energy(x, valid, RATE_HZ, IMU_CHANNELS), RATE_HZ)
    mask = draw(SubPeriodLevel(), x, valid)
    seen = set()
    for row in range(len(x)):
        points = marked[row].nonzero().squeeze(1).tolist()
        allowed = [tuple(range(a, b + 1)) for a, b in zip(points, points[1:], strict=False)]
        hidden = tuple(mask[row, :, 0].nonzero().squeeze(1).tolist())
        assert hidden in allowed
        seen.add(allowed.index(hidden))
    assert seen == set(range(max(seen) + 1)), "every pair is drawn"
    assert (mask == mask[..., :1]).all()


def test_sub_period_hides_at_most_40_percent_of_a_long_stroke():
    x = torch.zeros(300, 120, 6)
    x[..., 0] = torch.linspace(-1, 1, 120).sign() * torch.linspace(-1, 1, 120) ** 2
    valid = torch.ones(300, 120, dtype=torch.bool)
    hidden = draw(SubPeriodLevel(), x, valid)[..., 0]
    assert int(hidden.sum(1).max()) == 48
    assert len({int(row.nonzero()[0]) for row in hidden}) > 5, "the part hidden is drawn"


@pytest.mark.parametrize("planted", [8, 12, 20, 60])
def test_period_hides_one_planted_period_at_a_uniform_place(planted):
    x, valid = bursts(planted, windows=3000), torch.ones(3000, 120, dtype=torch.bool)
    mask = draw(PeriodLevel(), x, valid)
    assert (mask == mask[..., :1]).all()
    starts = mask[..., 0].int().argmax(1)
    for row, start in zip(mask[:50, :, 0], starts[:50].tolist(), strict=True):
        assert row.nonzero().squeeze(1).tolist() == list(range(start, start + planted))
    assert starts.unique().tolist() == list(range(120 - planted + 1))
    assert float(starts.double().mean()) == pytest.approx((120 - planted) / 2, rel=0.05)


def test_levels_without_rhythm_fall_back_to_point():
    still, valid = torch.full((50, 120, 6), 9.8), torch.ones(50, 120, dtype=torch.bool)
    point = draw(PointLevel(), still, valid)
    assert torch.equal(draw(PeriodLevel(), still, valid)[..., 0].sum(1) >= 18, point[..., 0].sum(1) >= 18)
    assert int(draw(SubPeriodLevel(), still, valid)[..., 0].sum(1).min()) >= 18
    x = noise(400)[0]
    clear = main_period(energy(x, valid[:1].expand(400, -1), RATE_HZ, IMU_CHANNELS))[1]
    assert 0 < int((~clear).sum()) < 400


def test_mixture_draws_levels_by_weight_and_equals_the_weighted_sum_in_expectation():
    x, valid = bursts(20, windows=12).repeat(1000, 1, 1), torch.ones(12_000, 120, dtype=torch.bool)
    weights = normalised_weights({"sensor": 1.0, "point": 2.0, "period": 1.0})
    assert weights == {"period": 0.25, "point": 0.5, "sensor": 0.25, "sub_period": 0.0}

    def loss(mask):
        error = (x - x.mean(1, keepdim=True)).square() * mask
        return error.sum((1, 2)) / mask.sum((1, 2)).clamp(min=1)

    about = {"rate_hz": RATE_HZ, "channels": IMU_CHANNELS}
    mask, level = draw_mixture(x, valid, weights, generator(5), **about)
    mixed, counted = loss(mask), torch.bincount(level, minlength=4)
    masks = draw_every_level(x, valid, list(weights), generator(6), **about)
    total = sum(weight * loss(masks[:, index]) for index, weight in enumerate(weights.values()))
    assert (counted / counted.sum()).tolist() == pytest.approx(list(weights.values()), abs=0.015)
    error = float((mixed.var() / len(mixed) + total.var() / len(total)).sqrt())
    assert abs(float(mixed.mean() - total.mean())) < 4 * error
    assert error < 0.02 * float(total.mean()), "the test could see a difference of 8 percent"


def test_wrong_weights_are_refused():
    with pytest.raises(UnknownNameError, match="masking level: name must be one of period, point, sensor, sub_period"):
        normalised_weights({"spans": 1.0})
    with pytest.raises(ConfigError, match="weight of level point: must be 0 or more, got -1"):
        normalised_weights({"point": -1.0})
    with pytest.raises(ConfigError, match="one must be above 0"):
        normalised_weights({"point": 0.0})
