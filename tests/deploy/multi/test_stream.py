"""A bundle answers a stream of samples as the PyTorch run does, for the task that was active."""

import numpy as np
import pytest

from deploy import BundleRunner
from imu_saga.recording import IMU_CHANNELS
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.smoothing import build_smoothing
from imu_saga.streaming.source import SourceOptions
from imu_saga.trained import load_run
from shared_peft.errors import AdapterError, DataError

SOURCE = SourceOptions(source_hz=50.0, acc_unit="m/s^2", gyro_unit="rad/s", time_unit="s", clock="stamps")


def movement(seconds=20.0, rate_hz=50.0):
    """Return stamps [s] and samples in SI of a movement that changes, with a gap."""
    times = np.arange(0, seconds, 1 / rate_hz)
    rng = np.random.default_rng(0)
    tempo = np.repeat(rng.uniform(0.5, 4, 20), len(times) // 20)
    wave = np.sin(2 * np.pi * np.cumsum(tempo) / rate_hz)
    values = wave[:, None] * rng.uniform(0.2, 2, 6) + rng.normal(0, 0.1, (len(times), 6))
    values[:, 2] += 9.8
    kept = (times < 8) | (times > 9.5)
    return times[kept], values[kept]


def answers(classifier, times, values, chunk):
    found = []
    for start in range(0, len(times), chunk):
        found += classifier.push(times[start : start + chunk], values[start : start + chunk])
    return found + classifier.flush()


@pytest.mark.parametrize("task", ["activity", "user"])
@pytest.mark.parametrize("chunk", [7, 10_000])
def test_stream_of_a_bundle_is_that_of_the_run(imu, runs, task, chunk):
    runner = BundleRunner(imu.folder, threads=1)
    runner.set_adapter(task)
    options, smoothing = StreamOptions(SOURCE, hop_s=0.7), build_smoothing("vote", {"n": 3})
    stream = runner.stream(options, channels=IMU_CHANNELS, smoothing=smoothing)
    runner.set_adapter("plain")
    own = StreamClassifier(load_run(runs[task]), options, channels=IMU_CHANNELS, smoothing=smoothing, session=task)
    got, expected = (answers(classifier, *movement(), chunk) for classifier in (stream, own))
    assert len(got) == len(expected) > 15
    for one, other in zip(got, expected, strict=True):
        assert (one.session, one.start_s, one.label, one.note) == (
            other.session,
            other.start_s,
            other.label,
            other.note,
        )
        np.testing.assert_allclose(one.probabilities, other.probabilities, rtol=0, atol=1e-5)
    assert runner.active == "plain"


def test_a_bundle_of_images_streams_nothing_and_one_of_windows_reads_no_image(conv, imu, tmp_path):
    with pytest.raises(DataError, match="must be a bundle of imu_saga, got vision"):
        BundleRunner(conv.folder).stream()
    with pytest.raises(DataError, match="must be files for a bundle of vision, got imu_saga"):
        BundleRunner(imu.folder).predict_images([tmp_path / "a.png"])
    with pytest.raises(DataError, match="must be files for a bundle of vision, got no file"):
        BundleRunner(conv.folder).predict_images([])


def test_a_merged_bundle_has_no_adapters_to_switch(bundle_of):
    runner = BundleRunner(bundle_of()[1])
    assert runner.tasks == ()
    with pytest.raises(AdapterError, match="must hold adapters to switch, got one merged model"):
        runner.set_adapter("user")
