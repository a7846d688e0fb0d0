"""What resampling does to sines: error in the pass band, suppression of aliases, distance to scipy's own filter.

Run: python -m tests.benchmarks.resample_accuracy
"""

import numpy as np
from scipy import signal as sps

from imu_saga.signal.resample import HORIZON, PASSBAND, STOPBAND_DB, rational_ratio, resample_array
from imu_saga.streaming.resample import StreamResampler

PAIRS = (
    (416.0, 20.0),
    (208.0, 20.0),
    (200.0, 50.0),
    (104.27, 20.0),
    (102.45, 20.0),
    (102.45, 50.0),
    (100.0, 50.0),
    (100.0, 20.0),
    (64.0, 20.0),
    (52.3, 104.1),
    (50.0, 20.0),
    (50.0, 100.0),
    (31.25, 20.0),
    (25.0, 20.0),
    (20.0, 50.0),
)
SECONDS, SKIPPED_S = 60.0, 6.0  # of signal; at either end, where the continuation and not the filter decides
PARTS = np.linspace(0.02, 0.99, 25)  # of the pass band
TONES = 60  # from just above the new Nyquist frequency to just below the old one


def sine_error(old_hz: float, new_hz: float, hz: float) -> float:
    """Return the largest error of a resampled sine of amplitude 1."""
    made, at, inner = resampled(old_hz, new_hz, hz)
    return float(np.abs(made - np.sin(2 * np.pi * hz * at + 0.3))[inner].max())


def alias_db(old_hz: float, new_hz: float, hz: float) -> float:
    """Return what is left of a sine that the new rate cannot carry [dB]."""
    made, _, inner = resampled(old_hz, new_hz, hz)
    return float(20 * np.log10(np.abs(made[inner]).max()))


def resampled(old_hz: float, new_hz: float, hz: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a resampled sine, its true times [s] and where the filter alone decides."""
    up, down = rational_ratio(old_hz, new_hz, HORIZON, "benchmark")
    times = np.arange(round(old_hz * SECONDS)) / old_hz
    made = resample_array(np.sin(2 * np.pi * hz * times + 0.3)[:, None], up, down)[:, 0]
    at = np.arange(len(made)) * down / up / old_hz
    return made, at, (at > SKIPPED_S) & (at < SECONDS - SKIPPED_S)


def scipy_distance(old_hz: float, new_hz: float) -> float:
    """Return the largest difference from scipy's polyphase filter with plain Kaiser taps, over the signal's largest."""
    up, down = rational_ratio(old_hz, new_hz, HORIZON, "benchmark")
    noise = np.random.default_rng(0).normal(size=(round(old_hz * SECONDS), 1))
    count, beta = sps.kaiserord(STOPBAND_DB, (1 - PASSBAND) / max(up, down))
    taps = sps.firwin(count | 1, (1 + PASSBAND) / 2 / max(up, down), window=("kaiser", beta))
    expected = sps.resample_poly(noise, up, down, window=taps)
    inner = slice(round(SKIPPED_S * new_hz), round((SECONDS - SKIPPED_S) * new_hz))
    return float(np.abs(resample_array(noise, up, down)[inner] - expected[inner]).max() / np.abs(noise).max())


def stream_distance(old_hz: float, new_hz: float) -> float:
    """Return the largest difference of the stream, in chunks of 1 to 200 samples, over the signal's largest."""
    up, down = rational_ratio(old_hz, new_hz, HORIZON, "benchmark")
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(round(old_hz * SECONDS), 1))
    stream, parts, start = StreamResampler(up, down, columns=1), [], 0
    while start < len(noise):
        chunk = noise[start : start + int(rng.integers(1, 200))]
        parts.append(stream.push(chunk, np.ones(len(chunk), bool))[0])
        start += len(chunk)
    made = np.concatenate([*parts, stream.flush()[0]])
    return float(np.abs(made - resample_array(noise, up, down)).max() / np.abs(noise).max())


def main() -> None:
    """Print one line for each pair of rates."""
    print("| from [Hz] | to [Hz] | ratio | pass-band error | aliases [dB] | to scipy | stream to file | delay [s] |")
    print("|---|---|---|---|---|---|---|---|")
    for old_hz, new_hz in PAIRS:
        up, down = rational_ratio(old_hz, new_hz, HORIZON, "benchmark")
        lower = min(old_hz, new_hz) / 2
        error = max(sine_error(old_hz, new_hz, part * PASSBAND * lower) for part in PARTS)
        above = np.linspace(1.005 * lower, 0.995 * old_hz / 2, TONES) if old_hz > new_hz else ()
        alias = f"{max(alias_db(old_hz, new_hz, hz) for hz in above):.1f}" if len(above) else "none possible"
        delay = StreamResampler(up, down, columns=1).delay / old_hz
        apart = f"{scipy_distance(old_hz, new_hz):.1e} | {stream_distance(old_hz, new_hz):.1e}"
        print(f"| {old_hz:g} | {new_hz:g} | {up}/{down} | {error:.1e} | {alias} | {apart} | {delay:.2f} |")


if __name__ == "__main__":
    main()
