"""Windows equal a brute-force loop over recordings and never mix sessions."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.recording import ACC_CHANNELS, Recording
from imu_saga.windows import cut_windows, window_labels
from shared_peft.errors import DataError

CLASSES = ("a", "b", "c")


def make(samples, seed=0, session="run", rate_hz=10.0, subject="s"):
    rng = np.random.default_rng(seed)
    labels = np.repeat(rng.integers(-1, 3, samples // 7 + 1), 7)[:samples].astype(np.int64)
    signal = rng.normal(size=(samples, 3)).astype(np.float32)
    valid = rng.random(samples) > 0.15
    return Recording(signal, ACC_CHANNELS, rate_hz, labels, valid, subject, session, "waist", "toy", start_s=seed)


def by_hand(recordings, length, hop, rule, keep_unlabelled, min_valid):
    rows = []
    for recording in recordings:
        for start in range(0, len(recording) - length + 1, hop):
            part = slice(start, start + length)
            if sum(recording.valid[part].tolist()) / length < min_valid:
                continue
            (label, count) = Counter(recording.labels[part].tolist()).most_common(1)[0]
            wins = count == length if rule == "all_same" else 2 * count > length
            label = label if wins else -1
            if label == -1 and not keep_unlabelled:
                continue
            rows.append((recording.signal[part], label, recording.session, recording.start_s + start / 10.0))
    return rows


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 90), min_size=1, max_size=4),
    length=st.integers(2, 25),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    rule=st.sampled_from(["all_same", "majority"]),
    keep_unlabelled=st.booleans(),
    min_valid=st.sampled_from([0.0, 0.8, 1.0]),
)
def test_windows_equal_a_loop_by_hand(sizes, length, overlap, rule, keep_unlabelled, min_valid):
    recordings = [make(size, seed, f"run{seed}") for seed, size in enumerate(sizes)]
    windows, report = cut_windows(
        recordings,
        CLASSES,
        seconds=length / 10,
        overlap=overlap,
        label_rule=rule,
        keep_unlabelled=keep_unlabelled,
        min_valid=min_valid,
    )
    hop = max(1, round(length * (1 - overlap)))
    expected = by_hand(recordings, length, hop, rule, keep_unlabelled, min_valid)
    assert len(windows) == report.kept == len(expected)
    for index, (signal, label, session, start_s) in enumerate(expected):
        np.testing.assert_array_equal(windows.x[index], signal)
        assert windows.labels[index] == label
        assert windows.sessions[index] == f"toy/s/{session}/waist"
        assert windows.start_s[index] == pytest.approx(start_s, abs=1e-9)
    positions = sum(len(range(0, size - length + 1, hop)) for size in sizes)
    assert report.kept + report.mixed + report.unlabelled + report.invalid == positions
    assert report.short == sum(size < length for size in sizes)


def test_mixed_and_unlabelled_windows_are_counted_apart():
    labels = np.array([0, 0, 0, 1, -1, -1, 1, 1], np.int64)
    recording = dataclasses.replace(make(8), labels=labels, valid=np.ones(8, bool))
    windows, report = cut_windows([recording], CLASSES, seconds=0.2)
    assert windows.labels.tolist() == [0, 1]
    assert (report.mixed, report.unlabelled) == (1, 1)
    assert report.per_class == (("a", 1), ("b", 1), ("c", 0))


def test_half_is_no_majority():
    labels, mixed = window_labels(np.array([[0, 0, 1, 1], [1, 1, 1, 0]]), "majority")
    assert labels.tolist() == [-1, 1]
    assert mixed.tolist() == [True, False]


def test_subset_keeps_every_field_aligned():
    windows, _ = cut_windows([make(80, 1, "x"), make(80, 2, "y")], CLASSES, seconds=0.5, keep_unlabelled=True)
    rows = np.array([5, 0, 17])
    chosen = windows.subset(rows)
    for field in dataclasses.fields(windows):
        before, after = getattr(windows, field.name), getattr(chosen, field.name)
        if isinstance(before, np.ndarray):
            np.testing.assert_array_equal(after, before[rows])
        else:
            assert after == before


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"seconds": 0.05}, "a window must hold 2 samples or more at 10 Hz, got 0.05 s"),
        ({}, {"seconds": float("nan")}, "a window must hold 2 samples"),
        ({}, {"seconds": 1.0, "overlap": 1.0}, r"overlap: must be in \[0, 1\), got 1.0"),
        ({}, {"seconds": 1.0, "min_valid": 2.0}, r"min_valid: must be in \[0, 1\]"),
        ({"rate_hz": 10.1}, {"seconds": 1.0}, "rate must be 10 Hz as in toy/s/run/waist, got 10.1 Hz. Resample"),
        ({"channels": ("p", "q", "r")}, {"seconds": 1.0}, "Select the same channels"),
        ({"labels": np.full(80, 3)}, {"seconds": 1.0}, "labels must be below 3"),
    ],
)
def test_windows_that_cannot_be_cut_are_refused(change, options, message):
    with pytest.raises(DataError, match=message):
        cut_windows([make(80), dataclasses.replace(make(80), **change)], CLASSES, **options)


def test_no_recordings_are_refused():
    with pytest.raises(DataError, match="recordings: must be at least one, got none"):
        cut_windows([], CLASSES, seconds=1.0)
