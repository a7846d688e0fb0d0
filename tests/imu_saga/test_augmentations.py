"""The battery every augmentation passes, and what each one keeps: angles, norms, means, order in time, the books."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import imu_saga.augmentations  # noqa: F401  (registers them)
from imu_saga.augmentation import AUGMENTATIONS, Augmentations, parse_augmentations, sensors
from imu_saga.augmentations.channel_drop import ChannelDrop
from imu_saga.augmentations.gap_drop import GapDrop
from imu_saga.augmentations.jitter import Jitter
from imu_saga.augmentations.rotation import Rotation, random_rotations, rotate
from imu_saga.augmentations.scale import Scale
from imu_saga.augmentations.time_warp import TimeWarp, warps
from imu_saga.commands.finetune import FinetuneOptions, finetune_config
from imu_saga.finetune import FinetuneConfig, balanced_batches
from imu_saga.recording import ACC_CHANNELS, IMU_CHANNELS, MAG_CHANNELS
from shared_peft.errors import ConfigError, UnknownNameError
from tests.imu_saga.planted import people

ALL = IMU_CHANNELS + MAG_CHANNELS
CHANNEL_LISTS = (ALL, IMU_CHANNELS, ACC_CHANNELS, ("acc_x",), ("gyro_z", "acc_x", "acc_y", "gyro_y"))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(windows: int, samples: int, channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = seeded(seed)
    x = torch.randn(windows, samples, channels, generator=generator) * 3 + 5
    return x, torch.rand(windows, samples, generator=generator) < 0.8


def first_field(kind: type) -> str:
    return dataclasses.fields(kind)[0].name


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(AUGMENTATIONS.names()),
    st.sampled_from(CHANNEL_LISTS),
    st.integers(0, 6),
    st.integers(1, 70),
    st.sampled_from([1.0, 20.0, 416.0]),
    st.integers(0, 2**40),
)
def test_every_augmentation_keeps_shapes_and_books_repeats_and_rests_at_strength_0(
    name, channels, windows, samples, rate_hz, seed
):
    kind = AUGMENTATIONS.get(name)
    x, valid = drawn(windows, samples, len(channels), seed % 1000)
    before = x.clone(), valid.clone()
    strongest = kind(**{first_field(kind): 1.0})
    one, other = (strongest.apply(x, valid, channels, rate_hz, seeded(seed)) for _ in range(2))
    assert all(torch.equal(first, second) for first, second in zip(one, other, strict=True))
    assert torch.equal(x, before[0]), "the windows given stay as they are"
    assert torch.equal(valid, before[1])
    assert (one[0].shape, one[0].dtype, one[1].shape, one[1].dtype) == (x.shape, x.dtype, valid.shape, torch.bool)
    assert torch.isfinite(one[0]).all()
    nothing = torch.zeros_like(valid)
    assert not strongest.apply(x, nothing, channels, rate_hz, seeded(seed))[1].any(), "nothing becomes measured"
    resting = kind(**{first_field(kind): 0.0})
    same = resting.apply(x, valid, channels, rate_hz, seeded(seed))
    assert torch.equal(same[0], x)
    assert torch.equal(same[1], valid)


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_every_augmentation_changes_each_window_in_its_own_way(name):
    kind = AUGMENTATIONS.get(name)
    x = drawn(1, 60, 6)[0].expand(40, 60, 6)
    found, _ = kind(**{first_field(kind): 1.0}).apply(x, torch.ones(40, 60).bool(), IMU_CHANNELS, 20.0, seeded())
    different = torch.unique(found.flatten(1), dim=0)
    assert len(different) == (2 if name == "channel_drop" else len(different))
    assert len(different) >= (2 if name == "channel_drop" else 30)
    assert not (found == x).all((1, 2)).any()


def test_rotations_are_proper_and_bounded_and_their_angles_uniform():
    turns = random_rotations(2000, 30.0, seeded())
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(2000, 3, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(torch.linalg.det(turns), torch.ones(2000))
    angle = torch.rad2deg(torch.acos(((turns.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2).clamp(-1, 1)))
    assert 29 < float(angle.max()) <= 30.01
    assert float(angle.mean()) == pytest.approx(15, abs=4 * 30 / np.sqrt(12 * 2000))
    axis = torch.stack([turns[:, 2, 1] - turns[:, 1, 2], turns[:, 0, 2] - turns[:, 2, 0]], 1)
    assert axis.mean(0).abs().max() < 4 * float(axis.std()) / np.sqrt(2000)


def test_a_rotation_keeps_lengths_and_the_angles_between_all_sensors_of_a_device():
    x, valid = drawn(50, 20, 9)
    turned, kept = Rotation(180.0).apply(x, valid, ALL, 20.0, seeded())
    assert torch.equal(kept, valid)
    for one in (0, 3, 6):
        for other in (0, 3, 6):  # |a|^2 where both are the same, |a| |b| cos(angle) elsewhere
            before = (x[..., one : one + 3] * x[..., other : other + 3]).sum(2)
            after = (turned[..., one : one + 3] * turned[..., other : other + 3]).sum(2)
            torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-3)
    assert float((turned - x).abs().mean()) > 1


def test_a_rotation_is_the_matrix_times_each_vector_and_leaves_incomplete_sensors_alone():
    x, _ = drawn(200, 10, 6)
    turns = random_rotations(200, 30.0, seeded())
    turned = rotate(x, turns, IMU_CHANNELS)
    for row in (0, 199):
        for first in (0, 3):
            expected = torch.stack([turns[row] @ vector for vector in x[row, :, first : first + 3]])
            torch.testing.assert_close(turned[row, :, first : first + 3], expected)
    incomplete = ("acc_x", "acc_y", "gyro_x", "gyro_y", "gyro_z", "mag_z")
    kept = rotate(x, turns, incomplete)
    assert torch.equal(kept[..., [0, 1, 5]], x[..., [0, 1, 5]])
    assert not torch.equal(kept[..., 2:5], x[..., 2:5])


def test_jitter_adds_white_noise_in_proportion_to_each_channel():
    x, valid = drawn(100, 200, 6)
    x = x * torch.tensor([1.0, 2.0, 3.0, 0.1, 0.0, 10.0])
    noise = Jitter(0.1).apply(x, valid, IMU_CHANNELS, 20.0, seeded())[0] - x
    expected = 0.1 * x.std(1, correction=0)
    assert float((noise.std(1) / expected)[:, [0, 1, 2, 3, 5]].mean()) == pytest.approx(1, abs=0.01)
    assert float(noise[..., 4].abs().max()) == 0.0, "a channel at rest stays at rest"
    flat = noise[..., 0].flatten().numpy()
    assert abs(np.corrcoef(flat[1:], flat[:-1])[0, 1]) < 4 / np.sqrt(len(flat))


def test_scale_keeps_means_and_draws_factors_around_1_of_its_strength():
    x, valid = drawn(2000, 40, 6)
    moved, _ = Scale(0.1).apply(x, valid, IMU_CHANNELS, 20.0, seeded())
    torch.testing.assert_close(moved.mean(1), x.mean(1), rtol=0, atol=1e-4)
    factor = (moved - moved.mean(1, keepdim=True))[:, 0] / (x - x.mean(1, keepdim=True))[:, 0]
    factor = factor[(x - x.mean(1, keepdim=True))[:, 0].abs() > 0.5]
    assert float(factor.mean()) == pytest.approx(1, abs=4 * 0.1 / np.sqrt(len(factor)))
    assert float(factor.std()) == pytest.approx(0.1, rel=0.05)


@settings(deadline=None, max_examples=80)
@given(st.integers(2, 200), st.floats(0, 1), st.integers(2, 9), st.integers(0, 2**31))
def test_warps_run_forward_from_end_to_end_and_their_speed_is_their_slope(samples, strength, knots, seed):
    time, speed = warps(5, samples, strength, knots, seeded(seed))
    assert (time.diff(dim=1) > 0).all()
    torch.testing.assert_close(time[:, 0], torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(time[:, -1], torch.full((5,), samples - 1.0, dtype=torch.float64))
    torch.testing.assert_close((speed[:, 1:] + speed[:, :-1]) / 2, time.diff(dim=1), rtol=1e-6, atol=1e-9)


def test_a_warp_at_rest_is_the_clock_itself_for_every_length():
    for samples in range(1, 200):
        time, speed = warps(2, samples, 0.0, 5, seeded())
        assert torch.equal(time, torch.arange(samples).double().expand(2, -1))
        assert torch.equal(speed, torch.ones(2, samples, dtype=torch.float64))


def test_a_warp_leaves_gravity_alone_and_moves_a_ramp_by_the_warp_itself():
    still = torch.tensor([3.1, -4.2, 8.3]).expand(20, 50, 3).clone()
    valid = torch.ones(20, 50).bool()
    warped, _ = TimeWarp(1.0).apply(still, valid, ACC_CHANNELS, 20.0, seeded())
    assert torch.equal(warped, still)
    ramp = torch.arange(50.0).view(1, 50, 1).expand(20, 50, 1)
    time, _ = warps(20, 50, 0.5, 5, seeded(3))
    found, _ = TimeWarp(0.5).apply(ramp, valid, ("acc_x",), 20.0, seeded(3))
    torch.testing.assert_close(found[..., 0].double(), time, rtol=0, atol=1e-4)


def test_a_warp_keeps_the_angle_the_device_turns_and_the_frequency_content_moves():
    seconds = torch.arange(0, 6, 1 / 200, dtype=torch.float64)
    gyro = (1 + torch.sin(2 * torch.pi * 0.7 * seconds)).view(1, -1, 1).expand(30, -1, 1)
    valid = torch.ones(gyro.shape[:2]).bool()
    warped, _ = TimeWarp(0.3).apply(gyro, valid, ("gyro_x",), 200.0, seeded())
    angles = [torch.trapezoid(turning[..., 0], dx=1 / 200) for turning in (gyro, warped)]
    torch.testing.assert_close(angles[1], angles[0], rtol=1e-3, atol=0)
    assert float((warped - gyro).abs().mean()) > 0.1


def test_a_warped_sample_is_measured_only_between_measured_ones():
    x, valid = drawn(30, 40, 1)
    time, _ = warps(30, 40, 0.6, 5, seeded(4))
    _, found = TimeWarp(0.6).apply(x, valid, ("acc_x",), 20.0, seeded(4))
    for row in range(30):
        for sample in range(40):
            place = float(time[row, sample])
            needed = {int(np.floor(place)), int(np.ceil(place))}
            assert bool(found[row, sample]) == all(bool(valid[row, index]) for index in needed)


@pytest.mark.parametrize("drops", ["axis", "sensor"])
def test_channel_drop_silences_one_group_of_as_many_windows_as_asked(drops):
    x, valid = drawn(6000, 5, 9)
    found, kept = ChannelDrop(0.3, drops).apply(x, valid, ALL, 20.0, seeded())
    silent = (found == 0).all(1)
    assert torch.equal(found, torch.where(silent.unsqueeze(1), 0.0, x))
    assert torch.equal(kept, valid)
    size, groups = (3, 3) if drops == "sensor" else (1, 9)
    assert set(silent.sum(1).tolist()) == {0, size}
    assert float(silent.any(1).float().mean()) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 6000))
    share = 0.3 / groups
    assert (silent.float().mean(0) - share).abs().max() < 4 * np.sqrt(share / 6000)
    if drops == "sensor":
        assert (silent.view(-1, 3, 3).float().std(2) == 0).all(), "whole sensors only"


@pytest.mark.parametrize("fill", ["hold", "zero"])
def test_gap_drop_loses_one_stretch_and_books_it(fill):
    x, _ = drawn(3000, 40, 3)
    valid = torch.ones(3000, 40).bool()
    found, kept = GapDrop(0.5, 0.5, fill).apply(x, valid, ACC_CHANNELS, 20.0, seeded())
    lost = ~kept
    assert torch.equal(found[kept], x[kept])
    lengths = lost.sum(1)
    assert set(lengths.tolist()) == set(range(11)), "0, or 1 to 10 samples"
    assert float((lengths > 0).float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(3000))
    edges = torch.nn.functional.pad(lost.int(), (1, 1)).diff(dim=1)
    assert ((edges == 1).sum(1) == (lengths > 0).int()).all(), "one stretch"
    assert lost.any(0).all(), "every sample can be lost"
    for row in torch.nonzero(lengths)[:200, 0].tolist():
        gap = lost[row].nonzero()[:, 0]
        first, last = int(gap[0]), int(gap[-1])
        held = x[row, first - 1] if first else x[row, last + 1]
        expected = held if fill == "hold" else torch.zeros(3)
        assert torch.equal(found[row, gap], expected.expand(len(gap), 3))


def test_a_chain_is_its_members_in_order_on_one_generator():
    x, valid = drawn(8, 60, 6)
    chain = Augmentations({"rotation": {"largest_deg": 90.0}, "time_warp": {}, "gap_drop": {"probability": 1}})
    found = chain.apply(x, valid, IMU_CHANNELS, 20.0, seeded(9))
    generator, step = seeded(9), (x, valid)
    for member in (Rotation(90.0), TimeWarp(), GapDrop(1.0)):
        step = member.apply(*step, IMU_CHANNELS, 20.0, generator)
    assert all(torch.equal(one, other) for one, other in zip(found, step, strict=True))
    untouched = Augmentations({}).apply(x, valid, IMU_CHANNELS, 20.0, seeded())
    assert untouched[0] is x


def test_fine_tuning_draws_augmented_windows_and_its_defaults_are_those_of_the_command():
    windows = people(subjects=2)
    plain, turned = (
        balanced_batches(windows, FinetuneConfig(batch_size=12, augment=augment))(3)
        for augment in ({}, {"rotation": {"largest_deg": 120.0}})
    )
    lengths = [batch[0].unflatten(2, (2, 3)).norm(dim=3).flatten() for batch in (plain, turned)]
    assert torch.equal(plain[1], turned[1])
    torch.testing.assert_close(*lengths, rtol=1e-4, atol=1e-4)
    assert float((plain[0] - turned[0]).abs().mean()) > 0.5
    assert finetune_config(FinetuneOptions()) == FinetuneConfig(method="auto")
    usual = Augmentations(FinetuneConfig().augment).chain
    assert usual == [Rotation(15.0), Scale(0.05), Jitter(0.05)]
    typed = FinetuneOptions(augment=("time_warp.strength=0.3", "gap_drop.fill=zero", "gap_drop.longest_s=1"))
    expected = [TimeWarp(0.3), GapDrop(longest_s=1.0, fill="zero")]
    assert Augmentations(finetune_config(typed).augment).chain == expected
    assert finetune_config(FinetuneOptions(augment=())).augment == {}


def test_sensors_are_grouped_by_name():
    assert sensors(ALL) == {"acc": [0, 1, 2], "gyro": [3, 4, 5], "mag": [6, 7, 8]}
    assert sensors(("pressure", "acc_x")) == {"pressure": [0], "acc": [1]}


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"rotation": {"largest_deg": 200.0}}, r"Rotation.largest_deg: must be in \[0, 180\], got 200.0"),
        ({"jitter": {"strength": -0.1}}, r"Jitter.strength: must be in \[0, 1\], got -0.1"),
        ({"scale": {"strength": float("nan")}}, r"Scale.strength: must be in \[0, 1\], got nan"),
        ({"time_warp": {"knots": 1}}, r"TimeWarp.knots: must be in \[2, 1000\], got 1"),
        ({"channel_drop": {"drops": "all"}}, "augmentation channel_drop.drops: must be one of 'axis', 'sensor'"),
        ({"gap_drop": {"longest_s": -1.0}}, r"GapDrop.longest_s: must be in \[0, inf\], got -1.0"),
        ({"gap_drop": {"length": 1}}, "augmentation gap_drop: key must be one of fill, longest_s, probability"),
    ],
)
def test_values_that_make_no_sense_are_refused(augment, message):
    with pytest.raises(ConfigError, match=message):
        FinetuneConfig(augment=augment)


def test_unknown_names_and_options_without_a_value_are_refused():
    with pytest.raises(UnknownNameError, match=f"augmentation: name must be one of {', '.join(AUGMENTATIONS.names())}"):
        FinetuneConfig(augment={"flip": {}})
    with pytest.raises(ConfigError, match="--augment: must be NAME or NAME.OPTION=VALUE, got 'rotation.30'"):
        parse_augmentations(["rotation.30"])
