"""The page's signal modules, run in node, give the numbers Python gives."""

import numpy as np
import pytest

from deploy.web.settings import MAX_GAP_S, MIN_VALID, SETTLE_SAMPLES, _high_pass
from imu_saga.recording import IMU_CHANNELS
from imu_saga.signal import clock as signal_clock
from imu_saga.signal import resample
from imu_saga.signal.resample import low_pass_taps, rational_ratio, resample_array
from imu_saga.streaming import clock as stream_clock
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.resample import StreamResampler
from imu_saga.streaming.source import SourceOptions, settle
from shared_peft.training import TrainedModel

RATE_HZ, SAMPLES = 20.0, 40


def test_the_constants_are_those_of_python(node):
    found = node("return { ...(await load('signal/constants.mjs')) };")
    owners = (resample, signal_clock, stream_clock)
    expected = {name: next(getattr(owner, name) for owner in owners if hasattr(owner, name)) for name in found}
    assert found == {name: list(value) if isinstance(value, tuple) else value for name, value in expected.items()}
    assert (SourceOptions().max_gap_s, StreamOptions().min_valid) == (MAX_GAP_S, MIN_VALID)


def test_ratios_of_rates_are_those_of_python(node):
    rng = np.random.default_rng(0)
    pairs = [(60.0, 20.0), (59.94, 20.0), (20.0, 20.0), (102.45, 100.0), (0.1, 20.0), (0.02, 20.0), (20.0, 0.02)]
    pairs += [(float(old), float(new)) for old, new in np.exp(rng.uniform(np.log(4), np.log(1000), (300, 2)))]
    found = node(
        "const { rationalRatio } = await load('signal/ratio.mjs'); return data.map((p) => rationalRatio(...p));", pairs
    )
    assert [tuple(pair) for pair in found] == [rational_ratio(*pair, resample.HORIZON, "test") for pair in pairs]


@pytest.mark.parametrize(("up", "down"), [(1, 1), (1, 3), (50, 51), (7, 3), (1, 2000), (2000, 1999)])
def test_filters_are_those_of_python(node, up, down):
    found = node("const { lowPassTaps } = await load('signal/taps.mjs'); return [...lowPassTaps(...data)];", [up, down])
    expected = low_pass_taps(up, down)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13 * expected.max())


RESAMPLE = """
const { StreamResampler } = await load("signal/resampler.mjs");
const stream = new StreamResampler(data.up, data.down, 2);
const made = { rows: [], valid: [] };
const take = ({ rows, valid }) => (made.rows.push(...rows.map((row) => [...row])), made.valid.push(...valid));
let start = 0;
for (const size of data.sizes) {
  const rows = data.values.slice(start, start + size).map((row) => Float64Array.from(row));
  take(stream.push(rows, data.valid.slice(start, start + size)));
  start += size;
}
take(stream.flush());
return made;
"""


@pytest.mark.parametrize("count", [1, 2, 3, 40, 700])
@pytest.mark.parametrize(("up", "down"), [(1, 3), (97, 100), (5, 2), (1, 1)])
def test_a_resampled_stream_is_the_file_resampled(node, up, down, count):
    rng = np.random.default_rng(count)
    values, valid = rng.normal(3, 4, (count, 2)), rng.random(count) > 0.02
    sizes = [1] * min(count, 60) + [max(count - 60, 0)]
    found = node(RESAMPLE, {"up": up, "down": down, "values": values.tolist(), "valid": valid.tolist(), "sizes": sizes})
    np.testing.assert_allclose(found["rows"], resample_array(values, up, down), rtol=1e-6, atol=1e-5)
    stream = StreamResampler(up, down, 2)
    parts = [stream.push(values, valid), stream.flush()]
    assert found["valid"] == np.concatenate([part for _, part in parts]).tolist()


def movement(times):
    """(samples, 6) movement in SI."""
    waves = np.sin(times[:, None] * np.array([1.7, 5.1, 9.3, 2.2, 4.4, 11.0]) + np.arange(6))
    return waves * (1 + np.sin(0.4 * times))[:, None] + [0, 0, 9.8, 0, 0, 0]


def phone_times(rate_hz, seconds, *, kind):
    """Stamps [s] as phones send them: jittered; with gaps, late and repeated ones; or two at a time."""
    rng = np.random.default_rng(5)
    times = 3.2 + np.arange(round(seconds * rate_hz)) / rate_hz
    if kind == "batches":
        times[:-1:5] = times[1::5][: len(times[:-1:5])] - 1e-5
        return times
    times = times + rng.normal(0, 0.1 / rate_hz, len(times))
    if kind == "gaps":
        kept = rng.random(len(times)) > 0.01
        kept[400:412] = kept[700:703] = kept[800:900] = kept[940:1060] = False
        times = times[kept]
        times[50] = times[49]
        times[300] -= 0.2
        times[1100:] -= 20.0
    return times


WINDOWS = """
const { WindowStream } = await load("signal/windows.mjs");
const stream = new WindowStream(data.options);
const found = data.times.flatMap((time, k) => stream.push(time, data.values[k].map((v) => v ?? NaN)));
found.push(...stream.flush());
return { source: stream.source, items: found.map((each) => ({ ...each, values: each.values && [...each.values] })) };
"""


def python_windows(times, values, *, gravity, hop):
    """What StreamClassifier feeds its model, and its answers, with the page's options."""
    steps = {"rate_hz": RATE_HZ, "samples": SAMPLES, "channels": list(IMU_CHANNELS), "gravity": gravity}
    run = TrainedModel("imu_saga", None, None, "window", (SAMPLES, 6), ("a", "b"), steps, None)  # type: ignore[arg-type]
    source = SourceOptions(acc_unit="m/s^2", gyro_unit="rad/s", time_unit="s", settle_samples=SETTLE_SAMPLES)
    classifier = StreamClassifier(run, StreamOptions(source, hop_s=hop / RATE_HZ, min_valid=0.0))
    fed = []

    def record(x):
        fed.extend(x)
        return np.tile([0.7, 0.3], (len(x), 1))

    classifier.labeller.probabilities = record
    answers = classifier.push(times, values) + classifier.flush()
    return classifier.source, answers, fed


@pytest.mark.parametrize("kind", ["jitter", "gaps", "batches"])
@pytest.mark.parametrize(
    ("rate_hz", "gravity", "hop"), [(60.0, "kept", 40), (102.3, "removed", 13), (20.0, "kept", 50)]
)
def test_the_windows_of_a_phone_are_those_of_python(node, kind, rate_hz, gravity, hop):
    times = phone_times(rate_hz, 1300 / rate_hz, kind=kind)
    values = movement(times)
    values[150, 2] = values[600:604] = np.nan
    source, answers, fed = python_windows(times, values, gravity=gravity, hop=hop)
    options = {
        "rate_hz": RATE_HZ,
        "samples": SAMPLES,
        "hop": hop,
        "channels": list(IMU_CHANNELS),
        "high_pass": _high_pass(RATE_HZ) if gravity == "removed" else None,
        "max_gap_s": MAX_GAP_S,
        "settle_samples": SETTLE_SAMPLES,
    }
    rows = [[None if np.isnan(value) else value for value in row] for row in values.tolist()]
    found = node(WINDOWS, {"options": options, "times": times.tolist(), "values": rows})
    assert found["source"]["timing"] == source.timing
    assert found["source"]["rateHz"] == pytest.approx(source.rate_hz, rel=1e-9)
    assert [each["note"] for each in found["items"]] == [each.note for each in answers]
    assert len(fed) >= 2
    for mine, theirs in zip(found["items"], answers, strict=True):
        assert (mine["startS"], mine["endS"]) == pytest.approx((theirs.start_s, theirs.end_s), abs=1e-9)
    made = np.array([each["values"] for each in found["items"] if not each["note"]]).reshape(-1, SAMPLES, 6)
    np.testing.assert_allclose(made, np.stack(fed), rtol=1e-6, atol=2e-6)


def test_the_measured_part_of_a_window_is_that_of_python(node):
    times = np.delete(3.2 + np.arange(900) / 60.0, [*range(300, 324), *range(500, 506)])
    values = movement(times)
    options = {"rate_hz": 20.0, "samples": 40, "hop": 40, "channels": list(IMU_CHANNELS), "high_pass": None}
    options |= {"max_gap_s": MAX_GAP_S, "settle_samples": SETTLE_SAMPLES}
    found = node(WINDOWS, {"options": options, "times": times.tolist(), "values": values.tolist()})
    measured = [each["measured"] for each in found["items"]]
    stream = StreamResampler(1, 3, 1)
    valid = np.ones(900, bool)
    valid[300:324] = valid[500:506] = False
    whole = [stream.push(np.zeros((900, 1)), valid), stream.flush()]
    expected = np.concatenate([part for _, part in whole])[:280].reshape(7, 40).mean(1)
    assert measured == pytest.approx(expected.tolist())
    assert min(measured) < 0.8


def test_a_device_that_is_too_slow_is_refused(node):
    body = """
    const { settle } = await load("signal/source.mjs");
    try { settle(data, 0.5); } catch (error) { return error.message; }
    """
    assert "more often than every 0.5 s" in node(body, [0, 1, 2, 3, 4, 5])


def test_the_source_of_steady_stamps_is_that_of_python(node):
    times = 1.0 + np.arange(120) / 61.7
    found = node("const { settle } = await load('signal/source.mjs'); return settle(data, 0.5);", times.tolist())
    options = SourceOptions(acc_unit="m/s^2", gyro_unit="rad/s", time_unit="s")
    expected = settle(options, IMU_CHANNELS, times, movement(times))
    assert (found["rateHz"], found["timing"]) == (pytest.approx(expected.rate_hz, rel=1e-12), expected.timing)
