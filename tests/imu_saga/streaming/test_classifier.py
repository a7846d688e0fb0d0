"""A stream in any chunks is answered as the file is: gaps, duplicates, clock jumps, units, gravity, smoothing."""

import gc
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from imu_saga.encoder import build_encoder, card_of
from imu_saga.heads import Classifier
from imu_saga.input_spec import InputSpec
from imu_saga.predict import GAP, TOO_SHORT, predict_csv, predict_recordings
from imu_saga.recording import IMU_CHANNELS, Recording
from imu_saga.signal.clock import to_uniform
from imu_saga.signal.units import GRAVITY
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.smoothing import build_smoothing
from imu_saga.streaming.source import SourceOptions
from imu_saga.trained import KIND, preprocessing
from shared_peft.errors import DataError
from shared_peft.training import TrainedModel

RATES = [416.0, 102.45, 50.0, 25.0, 20.0]
SI = {"acc_unit": "m/s^2", "gyro_unit": "rad/s", "time_unit": "s", "clock": "stamps"}


def tiny_run(*, seconds=2.0, gravity="kept", rate_hz=20.0, classes=("sit", "walk", "run")):
    """A small untrained model whose answers vary from window to window."""
    spec = InputSpec(IMU_CHANNELS, rate_hz, round(seconds * rate_hz), gravity)
    torch.manual_seed(0)
    model = Classifier(build_encoder("saga", spec, {"width": 16, "depth": 1, "heads": 2}), len(classes))
    generator = torch.Generator().manual_seed(1)
    examples = torch.randn(64, spec.samples, 6, generator=generator) * torch.tensor([3.0, 3, 3, 1, 1, 1])
    model.calibrate(examples + torch.tensor([0.0, 0, 9.8, 0, 0, 0]))
    card = card_of("saga", model.encoder, classes)
    model.requires_grad_(False).eval()
    shape = (spec.samples, 6)
    return TrainedModel(KIND, model, lambda: model, "window", shape, classes, preprocessing(card), examples)


RUN, RUN_WITHOUT_GRAVITY = tiny_run(), tiny_run(gravity="removed")


def movement(times, seed=0):
    """(samples, 6) movement in SI that changes its tempo and strength."""
    rng = np.random.default_rng(seed)
    hz, phase, size = rng.uniform(0.2, 4, (4, 6)), rng.uniform(0, 6, (4, 6)), rng.uniform(0.2, 2, (4, 6))
    waves = (size * np.sin(2 * np.pi * hz * times[:, None, None] + phase)).sum(axis=1)
    return waves * (1 + np.sin(0.4 * times))[:, None] + [0, 0, 9.8, 0, 0, 0]


def lost(count, rng, rate_hz, *, short, long):
    """(samples,) bool, False in stretches lost: shorter and longer than half a second."""
    kept = np.ones(count, bool)
    for number, low, high in ((short, 1 / rate_hz, 0.4), (long, 0.7, 3.0)):
        for _ in range(number):
            start = int(rng.integers(0, count))
            kept[start : start + round(rng.uniform(low, high) * rate_hz)] = False
    kept[0] = True
    return kept


def recordings_of(times, signal):
    made = []
    for stretch in to_uniform(times, signal, max_gap_s=0.5, clock="stamps"):
        labels = np.full(len(stretch.values), -1, np.int64)
        values = stretch.values.astype(np.float32)
        place = ("s", "stream", "waist", "toy")
        made.append(
            Recording(values, IMU_CHANNELS, stretch.rate_hz, labels, stretch.valid, *place, start_s=stretch.start_s)
        )
    return made


def streamed(classifier, times, values, sizes):
    edges = np.minimum(np.cumsum([0, *sizes]), len(values)).tolist() + [len(values)]
    found = []
    for a, b in zip(edges, edges[1:], strict=False):
        found += classifier.push(times[a:b] if times is not None else None, values[a:b])
    return found + classifier.flush()


def check_equal(found, expected):
    assert [each.note for each in found] == [each.note for each in expected]
    assert [each.label for each in found] == [each.label for each in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.start_s == pytest.approx(other.start_s, abs=1e-5)
        assert one.end_s == pytest.approx(other.end_s, abs=1e-5)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-5)
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    rate_hz=st.sampled_from(RATES),
    seconds=st.floats(3, 25),
    sizes=st.lists(st.integers(0, 900), max_size=12),
    gaps=st.tuples(st.integers(0, 4), st.integers(0, 3)),
    smoothing=st.sampled_from(["none", "vote", "hysteresis"]),
    hop=st.sampled_from([20, 40]),
    gravity=st.sampled_from(["kept", "removed"]),
    seed=st.integers(0, 2**31),
)
def test_a_stream_with_gaps_in_any_chunks_is_answered_as_the_file(
    rate_hz, seconds, sizes, gaps, smoothing, hop, gravity, seed
):
    rng = np.random.default_rng(seed)
    times = np.arange(round(seconds * rate_hz)) / rate_hz
    kept = lost(len(times), rng, rate_hz, short=gaps[0], long=gaps[1])
    times, run = times[kept], RUN if gravity == "kept" else RUN_WITHOUT_GRAVITY
    signal = movement(times, seed % 5)
    rule = build_smoothing(smoothing)
    try:
        recordings = recordings_of(times, signal)
    except DataError:  # nothing but gaps
        return
    expected = predict_recordings(run, recordings, overlap=1 - hop / 40, smoothing=rule, min_valid=0.85)
    options = StreamOptions(SourceOptions(source_hz=rate_hz, **SI), hop_s=hop / 20, min_valid=0.85)
    check_equal(streamed(StreamClassifier(run, options, smoothing=rule), times, signal, sizes), expected)


@settings(deadline=None, max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 400), max_size=12),
    timing=st.sampled_from(["stamps", "even", "auto"]),
    measured=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_noisy_stamps_duplicates_late_samples_and_lost_values_give_the_same_in_any_chunks(
    sizes, timing, measured, seed
):
    rng = np.random.default_rng(seed)
    times = np.arange(1500) / 100 + rng.uniform(-0.3, 0.3, 1500) / 100
    times[rng.random(1500) < 0.02] -= 0.03  # late
    times[700:] += rng.choice([0.2, 5.0, -5.0])
    signal = movement(times)
    signal[rng.random(1500) < 0.03, 2] = np.nan
    chosen = SourceOptions(source_hz=None if measured else 100.0, **(SI | {"clock": timing}))
    options = StreamOptions(chosen, hop_s=0.7, min_valid=0.2)
    whole = streamed(StreamClassifier(RUN, options), times, signal, [])
    check_equal(streamed(StreamClassifier(RUN, options), times, signal, sizes), whole)
    assert sum(bool(each.label) for each in whole) >= 3


@pytest.mark.parametrize("unit", ["auto", "g"])
def test_a_csv_of_416_hz_in_g_and_degrees_streams_as_it_is_predicted(tmp_path, unit):
    rng = np.random.default_rng(3)
    times = np.arange(416 * 30) / 416
    kept = lost(len(times), rng, 416, short=3, long=1)
    times, signal = times[kept], tilting(times[kept]) / ([GRAVITY] * 3 + [np.pi / 180] * 3)
    names = ",".join(("time", *IMU_CHANNELS))
    np.savetxt(tmp_path / "me.csv", np.column_stack([times, signal]), "%.9f", ",", header=names, comments="")
    expected = predict_csv(RUN, tmp_path / "me.csv", options={})
    units = {"acc_unit": unit, "gyro_unit": "auto" if unit == "auto" else "deg/s"}
    source = SourceOptions(source_hz=416.0, time_unit="s", clock="stamps", settle_samples=3000, **units)
    found = streamed(StreamClassifier(RUN, StreamOptions(source)), times, signal, [500] * 20)
    assert sum(bool(each.label) for each in expected) > 8
    check_equal(found, expected)


def tilting(times):
    """(samples, 6) a device that tilts about x, the gyroscope telling so, in SI."""
    angle = 0.8 * np.sin(2 * np.pi * 0.5 * times)
    turning = 0.8 * np.pi * np.cos(2 * np.pi * 0.5 * times)
    zero = np.zeros_like(times)
    return np.stack([zero, GRAVITY * np.sin(angle), GRAVITY * np.cos(angle), turning, zero, zero], axis=1)


def test_without_stamps_rows_that_were_lost_are_bridged_and_long_losses_start_afresh():
    times = np.arange(3000) / 100
    signal = movement(times)
    signal[500:520] = np.nan
    signal[1500:1700] = np.nan
    kept = np.isfinite(signal).all(1)
    expected = predict_recordings(RUN, recordings_of(times[kept], signal[kept]))
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI))
    found = streamed(StreamClassifier(RUN, options), None, signal, [7, 1000])
    assert [each.note for each in expected].count(GAP) == 1
    check_equal(found, expected)


def test_a_clock_that_jumps_back_starts_afresh_with_a_notice():
    times = np.concatenate([np.arange(1000) / 100 + 50, np.arange(1000) / 100])
    signal, told = movement(times), []
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI))
    classifier = StreamClassifier(RUN, options, notice=told.append)
    found = streamed(classifier, times, signal, [300] * 5)
    halves = [
        predict_recordings(RUN, recordings_of(times[half], signal[half])) for half in (slice(1000), slice(1000, None))
    ]
    check_equal(found, halves[0] + halves[1])
    assert told == ["the clock jumped back from 59.990 to 0.000 s: started afresh"]


def test_repeated_and_late_samples_change_nothing():
    times = np.arange(2000) / 100
    signal = movement(times)
    rows = np.sort(np.concatenate([np.arange(2000), np.arange(100, 2000, 50)]))
    late = np.insert(rows, 500, rows[480])
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI))
    expected = streamed(StreamClassifier(RUN, options), times, signal, [])
    check_equal(streamed(StreamClassifier(RUN, options), times[late], signal[late], [333] * 6), expected)


def test_windows_further_apart_than_their_length_skip_what_lies_between():
    times = np.arange(3000) / 100
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI), hop_s=5.0)
    found = streamed(StreamClassifier(RUN, options), times, movement(times), [77] * 30)
    assert [each.start_s for each in found] == [0, 5, 10, 15, 20, 25]


def test_a_stretch_shorter_than_a_window_is_told():
    times = np.arange(150) / 100
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI))
    found = streamed(StreamClassifier(RUN, options), times, movement(times), [])
    assert [(each.note, each.label, each.start_s, each.end_s) for each in found] == [(TOO_SHORT, "", 0.0, 1.5)]


def test_the_rate_is_measured_and_answers_wait_no_longer_than_the_filter():
    times = np.arange(3000) / 100 + 1000.0
    options = StreamOptions(SourceOptions(**SI))
    classifier, arrived = StreamClassifier(RUN, options), []
    for row in range(3000):
        for each in classifier.push(times[row : row + 1], movement(times[row : row + 1])):
            arrived.append((times[row], each.end_s))
    assert classifier.source.rate_hz == pytest.approx(100.0)
    waits = [now - end for now, end in arrived if end > 1000 + 500 / 100]
    assert len(waits) >= 10
    assert 0 < max(waits) <= classifier.delay_s + 0.05
    assert min(waits) > classifier.delay_s - 0.15


@pytest.mark.parametrize(
    ("source", "signal_scale", "message"),
    [
        ({"acc_unit": "auto"}, 300.0, "start of the stream: median .acc. must be about 9.8"),
        ({"gyro_unit": "auto"}, 0.0, "start of the stream: .*to tell"),
        ({"acc_unit": "ft/s^2"}, 1.0, "stream acc_unit: must be one of m/s.2, g, mg, auto, got 'ft/s.2'"),
        ({"max_gap_s": 0.01}, 1.0, "max_gap_s must exceed 1.75 sampling periods, got 0.01 s at 100 Hz"),
        ({"source_hz": -1.0}, 1.0, "stream rate_hz: must be a positive number, got -1.0"),
    ],
)
def test_a_source_that_cannot_be_is_refused(source, signal_scale, message):
    known = SourceOptions(**({"source_hz": 100.0} | SI | source))
    times = np.arange(600) / 100
    signal = movement(times) * signal_scale if signal_scale else np.tile([0, 0, 9.8, 0, 0, 0.0], (600, 1))
    with pytest.raises(DataError, match=message):
        streamed(StreamClassifier(RUN, StreamOptions(known)), times, signal, [])


def test_pushes_and_models_that_do_not_fit_are_refused():
    known = SourceOptions(source_hz=100.0, **SI)
    classifier = StreamClassifier(RUN, StreamOptions(known))
    with pytest.raises(DataError, match=r"values must be \(samples, 6\): acc_x, .* got shape \(3, 5\)"):
        classifier.push(None, np.zeros((3, 5)))
    with pytest.raises(DataError, match=r"times must be \(3,\), got shape \(2,\)"):
        classifier.push(np.zeros(2), np.zeros((3, 6)))
    with pytest.raises(DataError, match="must have a rate|must have stamps or a rate, got neither"):
        streamed(StreamClassifier(RUN, StreamOptions(SourceOptions(**SI))), None, np.zeros((600, 6)), [])
    with pytest.raises(DataError, match="the accelerometer must measure gravity, as in training, got gravity removed"):
        StreamClassifier(RUN, StreamOptions(known, gravity="removed"))
    with pytest.raises(DataError, match="must have the channels acc_x, .* got .'acc_x'"):
        StreamClassifier(RUN, StreamOptions(known), channels=["acc_x"])
    with pytest.raises(DataError, match="hop_s must be a sample or more, 0.05 s, got 0.01"):
        StreamClassifier(RUN, StreamOptions(known, hop_s=0.01))
    with pytest.raises(DataError, match=r"min_valid: must be in \[0, 1\], got 2"):
        StreamClassifier(RUN, StreamOptions(known, min_valid=2.0))


def test_memory_stays_the_same_however_long_the_stream():
    options = StreamOptions(SourceOptions(source_hz=100.0, **SI), hop_s=2.0)
    classifier = StreamClassifier(RUN, options)
    signal = movement(np.arange(10_000) / 100)
    held = {}
    tracemalloc.start()
    for turn in range(15):
        times = np.arange(10_000) / 100 + turn * 100
        assert len(classifier.push(times, signal)) in (49, 50)
        if turn in (2, 14):
            gc.collect()  # numpy's sliding views are cycles
            held[turn] = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held[14] <= held[2] + 20_000  # 120,000 samples of 6 channels: 5.8 MB
