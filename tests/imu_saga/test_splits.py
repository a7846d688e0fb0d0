"""Splits keep people apart, few-shot draws keep to their budget, and the check finds every kind of leak."""

import numpy as np
import pytest

from imu_saga.recording import ACC_CHANNELS
from imu_saga.splits import check_apart, few_shot, group_folds, labelled_rows, leave_one_subject_out, subject_split
from imu_saga.windows import WindowSet
from shared_peft.errors import DataError


def make(subjects=8, per_subject=30, classes=3, overlap=False):
    count = subjects * per_subject
    rng = np.random.default_rng(0)
    owner = np.repeat([f"s{i}" for i in range(subjects)], per_subject)
    hop = 0.5 if overlap else 1.0
    return WindowSet(
        x=rng.normal(size=(count, 10, 3)).astype(np.float32),
        labels=np.arange(count) % classes,
        subjects=owner,
        sessions=np.char.add(owner, np.where(np.arange(count) % per_subject < per_subject // 2, "-1", "-2")),
        placements=np.full(count, "waist"),
        start_s=np.arange(count) % (per_subject // 2) * hop,
        valid=np.ones((count, 10), bool),
        classes=tuple("abcdef"[:classes]),
        channels=ACC_CHANNELS,
        rate_hz=10.0,
        seconds=1.0,
    )


@pytest.mark.parametrize("fraction", [0.01, 0.25, 0.5, 0.99])
def test_held_out_subjects_are_on_one_side_only(fraction):
    windows = make()
    split = subject_split(windows, test_fraction=fraction, seed=3)
    assert set(windows.subjects[split.test]) == set(split.held_out)
    assert not set(windows.subjects[split.train]) & set(split.held_out)
    assert len(split.held_out) == min(max(1, round(8 * fraction)), 7)
    assert sorted([*split.train, *split.test]) == list(range(len(windows)))
    check_apart(windows, split.train, split.test)


def test_the_seed_decides_the_subjects():
    windows = make()
    draws = [subject_split(windows, test_fraction=0.25, seed=seed).held_out for seed in (1, 1, 2, 3, 4, 5)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 2


@pytest.mark.parametrize("folds", [2, 3, 8])
def test_every_subject_is_held_out_once(folds):
    windows = make()
    splits = list(group_folds(windows, folds=folds, seed=0))
    assert len(splits) == folds
    assert sorted(name for split in splits for name in split.held_out) == sorted(set(windows.subjects))
    assert sorted(np.concatenate([split.test for split in splits])) == list(range(len(windows)))
    for split in splits:
        check_apart(windows, split.train, split.test)


def test_leave_one_subject_out_takes_each_in_turn():
    held = [split.held_out for split in leave_one_subject_out(make(subjects=4))]
    assert held == [("s0",), ("s1",), ("s2",), ("s3",)]


def test_a_few_shot_draw_keeps_the_budget_and_the_side():
    windows = make()
    split = subject_split(windows, test_fraction=0.25, seed=0)
    drawn = few_shot(windows, split.train, shots=10, seed=1, validation_fraction=0.3)
    assert np.bincount(windows.labels[drawn.train]).tolist() == [7, 7, 7]
    assert np.bincount(windows.labels[drawn.validation]).tolist() == [3, 3, 3]
    both = np.concatenate([drawn.train, drawn.validation])
    assert len(set(both.tolist())) == 30
    assert set(both.tolist()) <= set(split.train.tolist())


def test_more_shots_keep_the_fewer_ones_and_the_seed_decides():
    windows, rows = make(), np.arange(240)
    small, large = (few_shot(windows, rows, shots=shots, seed=4).train for shots in (5, 20))
    assert set(small) <= set(large)
    np.testing.assert_array_equal(small, few_shot(windows, rows[::-1], shots=5, seed=4).train)
    assert set(small) != set(few_shot(windows, rows, shots=5, seed=5).train)


def test_one_shot_stays_in_training():
    drawn = few_shot(make(), np.arange(240), shots=1, seed=0, validation_fraction=0.9)
    assert (len(drawn.train), len(drawn.validation)) == (3, 0)


def test_unlabelled_windows_are_left_out():
    windows = make()
    windows.labels[::2] = -1
    assert labelled_rows(windows, np.arange(10)).tolist() == [1, 3, 5, 7, 9]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda w: few_shot(w, np.arange(9), shots=4, seed=0), "class 'a': must have 4 labelled windows .* got 3"),
        (lambda w: few_shot(w, np.arange(9), shots=0, seed=0), "shots: must be 1 or more, got 0"),
        (
            lambda w: few_shot(w, np.arange(9), shots=1, seed=0, validation_fraction=1.0),
            r"must be in \[0, 1\), got 1.0",
        ),
        (lambda w: subject_split(w, test_fraction=0.0, seed=0), r"test_fraction: must be in \(0, 1\), got 0.0"),
        (lambda w: subject_split(w.subset(np.arange(5)), test_fraction=0.5, seed=0), "from 2 subjects or more, got 1"),
        (lambda w: list(group_folds(w, folds=9, seed=0)), "must come from 9 subjects or more, got 8"),
        (lambda w: list(group_folds(w, folds=1, seed=0)), "folds: must be 2 or more, got 1"),
        (lambda w: list(leave_one_subject_out(w.subset(np.arange(5)))), "must come from 2 subjects or more"),
    ],
)
def test_impossible_splits_are_refused(call, message):
    with pytest.raises(DataError, match=message):
        call(make())


@pytest.mark.parametrize(
    ("one", "other", "overlap", "message"),
    [
        ([0, 1], [1, 40], False, "no window may stand on both sides, got 1 that do, window 1 first"),
        ([0, 2], [1, 40], True, "pre-training and test: no raw sample may stand on both sides, got 1 that do, s0-1"),
        ([0, 2], [1, 40], False, "no session may stand on both sides, got 1 that do, s0-1 first"),
        ([0, 2], [20, 40], False, "no subject may stand on both sides, got 1 that do, s0 first"),
    ],
)
def test_every_kind_of_leak_is_found(one, other, overlap, message):
    with pytest.raises(DataError, match=message):
        check_apart(make(overlap=overlap), np.array(one), np.array(other), what="pre-training and test")


def test_a_random_split_of_overlapping_windows_is_caught():
    windows = make(overlap=True)
    rows = np.random.default_rng(0).permutation(len(windows))
    with pytest.raises(DataError, match="no raw sample may stand on both sides"):
        check_apart(windows, rows[:180], rows[180:])
