"""The synthetic people obey physics, and the truth given with them is the truth."""

import time

import numpy as np
import pytest

from imu_saga.datasets import open_dataset
from imu_saga.synthetic import ACTIVITIES, Population, generate, random_rotation

CLEAN = Population(subjects=3, bout_s=20.0, sessions=1, noise=0.0, jitter=0.0, gaps_per_minute=0.0, tilt_error=0.8)


def test_the_same_seed_gives_the_same_people_and_another_seed_others():
    one, same, other = (
        generate(Population(subjects=2, bout_s=5.0, sessions=1, seed=seed))[1].signal for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(one, same)
    assert one.shape != other.shape or not np.allclose(one, other)


def test_more_subjects_leave_the_first_ones_as_they_are():
    few, many = (generate(Population(subjects=count, bout_s=5.0, sessions=1)) for count in (2, 4))
    np.testing.assert_array_equal(few[1].signal, many[1].signal)


@pytest.mark.parametrize("activity", [name for name, one in ACTIVITIES.items() if one.stride_hz])
def test_the_known_period_is_the_period_of_the_signal(activity):
    label = CLEAN.activities.index(activity)
    for session in generate(CLEAN):
        rows = session.labels == label
        gyro = session.signal[rows, 3:]
        spectrum = (np.abs(np.fft.rfft(gyro - gyro.mean(axis=0), 1 << 16, axis=0)) ** 2).sum(axis=1)
        frequency = np.fft.rfftfreq(1 << 16, 1 / CLEAN.rate_hz)
        stride_hz = 1 / session.stride_s[label]
        near = sum(spectrum[np.abs(frequency - k * stride_hz) < 0.1].sum() for k in (1, 2, 3, 4))
        moving = spectrum[frequency > 0.4].sum()
        assert near / moving > 0.9
    rest = [session.stride_s[CLEAN.activities.index("sit")] for session in generate(CLEAN)]
    assert rest == [0.0] * 3


def test_the_gyroscope_turns_gravity_as_physics_says():
    """Without acceleration, da/dt = -omega x a: integrate the gyroscope and compare with the measured gravity."""
    for session in generate(CLEAN):
        rows = np.flatnonzero(session.labels == CLEAN.activities.index("stand"))[100:900]
        down = session.signal[rows[0], :3].copy()
        for row in rows[:-1]:
            down -= np.cross(session.signal[row : row + 2, 3:].mean(axis=0), down) / CLEAN.rate_hz
        cosine = down @ session.signal[rows[-1], :3] / np.linalg.norm(down)
        angle = np.arccos(np.clip(cosine / np.linalg.norm(session.signal[rows[-1], :3]), -1, 1))
        assert angle < 0.05


def test_gravity_is_one_g_at_rest():
    for session in generate(CLEAN):
        rest = session.signal[session.labels == CLEAN.activities.index("sit"), :3]
        assert np.median(np.linalg.norm(rest, axis=1)) == pytest.approx(9.80665, abs=0.1)


def test_every_device_has_one_proper_rotation():
    rotations = [session.rotation for session in generate(CLEAN)]
    for rotation in rotations:
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(rotation) == pytest.approx(1.0)
    assert not np.allclose(rotations[0], rotations[1])
    assert np.allclose(random_rotation(np.random.default_rng(0), 0.0), np.eye(3))


def test_gaps_and_jitter_come_out_as_asked():
    gappy = Population(subjects=2, bout_s=20.0, sessions=1, gaps_per_minute=6.0, gap_s=0.4, jitter=0.3)
    for session in generate(gappy):
        steps = np.diff(session.times_s)
        assert steps.min() > 0
        assert 3 <= (steps > 2.5 / gappy.rate_hz).sum() <= 30
        assert steps.max() < 0.4 + 3 / gappy.rate_hz
        assert 0.002 < steps[steps < 1.6 / gappy.rate_hz].std() < 0.004  # uniform +-0.15 periods, differenced: 2.4 ms
    recordings = open_dataset(
        "synthetic", {"population": {"subjects": 2, "bout_s": 20.0, "gaps_per_minute": 6.0}}
    ).read()
    assert 0.002 < np.mean([1 - one.valid.mean() for one in recordings]) < 0.06


def test_the_default_set_is_made_in_seconds():
    start = time.perf_counter()
    recordings = open_dataset("synthetic").read()
    assert time.perf_counter() - start < 20  # 2 s on an idle core
    assert len({one.subject for one in recordings}) == 12


def test_few_shots_are_neither_hopeless_nor_at_the_ceiling():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import f1_score

    from imu_saga.signal.features import window_features
    from imu_saga.signal.resample import resample_all
    from imu_saga.splits import few_shot, subject_split
    from imu_saga.windows import cut_windows

    dataset = open_dataset("synthetic")
    windows, _ = cut_windows(resample_all(dataset.read(), 20.0), dataset.class_names(), seconds=6.0)
    features = window_features(windows.x, 20.0, windows.channels)
    scores = []
    for seed in range(3):
        split = subject_split(windows, test_fraction=0.25, seed=seed)
        rows = few_shot(windows, split.train, shots=10, seed=seed).train
        forest = RandomForestClassifier(100, random_state=seed).fit(features[rows], windows.labels[rows])
        scores.append(f1_score(windows.labels[split.test], forest.predict(features[split.test]), average="macro"))
    assert 0.6 < np.mean(scores) < 0.93
