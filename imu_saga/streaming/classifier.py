"""Classification of a stream: samples in any chunks, windows out as they are complete, equal to `predict` on a file."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from imu_saga.predict import GAP, TOO_SHORT, Labeller, Prediction, check_source, silence
from imu_saga.recording import Gravity
from imu_saga.signal.gravity import CausalHighPass, acc_columns
from imu_saga.signal.resample import HORIZON, rational_ratio
from imu_saga.streaming.clock import StreamClock
from imu_saga.streaming.resample import StreamResampler
from imu_saga.streaming.smoothing import NoSmoothing, Smoothing
from imu_saga.streaming.source import Source, SourceOptions, needs_start, settle
from shared_peft.errors import DataError
from shared_peft.training import TrainedModel

BLOCK = 1 << 14  # samples worked on at a time: bounds the memory of a large push


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is read and answered."""

    source: SourceOptions = field(default_factory=SourceOptions)
    gravity: Gravity = "kept"
    """Whether the source's accelerometer still measures gravity: kept or removed."""
    hop_s: float | None = None
    """Time from one window to the next [s]; none takes a window's length."""
    min_valid: float = 0.8
    """Measured part of a window below which no label is given."""


class StreamClassifier:
    """Classifies samples as they come.

    The stages are those of `predict`: clock, units, resampling, gravity, windows, model, smoothing. Whatever the
    chunks, the answers are the same. A window is answered once its last sample has passed the resampling filter,
    ``delay_s`` after it was measured.

    Args:
        run: a fine-tuned run.
        options: rate, units, hop and the like.
        channels: names of the pushed columns; None for the model's own.
        smoothing: rule over consecutive windows; None for none.
        session: name in the answers.
        notice: called with one line when the clock jumps back.

    Raises:
        DataError: a channel or gravity is missing, or an option that cannot be.
    """

    def __init__(
        self,
        run: TrainedModel,
        options: StreamOptions | None = None,
        *,
        channels: Sequence[str] | None = None,
        smoothing: Smoothing | None = None,
        session: str = "stream",
        notice: Callable[[str], object] = lambda line: None,
    ) -> None:
        wanted = run.preprocessing
        self.options, self.session, self.notice = options or StreamOptions(), session, notice
        self.channels = tuple(wanted["channels"] if channels is None else channels)
        self.columns = check_source(self.channels, self.options.gravity, run, "stream")
        self.labeller = Labeller(run, smoothing or NoSmoothing(), self.options.min_valid)
        self.rate_hz, self.length = float(wanted["rate_hz"]), int(wanted["samples"])
        hop_s = self.options.hop_s
        if hop_s is not None and not (np.isfinite(hop_s) and hop_s * self.rate_hz >= 1):
            must = f"hop_s must be a sample or more, {1 / self.rate_hz:g} s"
            raise DataError("stream", must, hop_s, "Give the time from one window to the next")
        self.hop = self.length if hop_s is None else round(hop_s * self.rate_hz)
        removes = wanted["gravity"] == "removed" and self.options.gravity == "kept"
        acc = acc_columns(wanted["channels"])
        self.high_pass = CausalHighPass(self.rate_hz, len(acc)) if removes and acc else None
        self.acc = acc
        self.source: Source | None = None
        self.waiting: list[tuple[np.ndarray | None, np.ndarray]] = []
        self.latencies_s: list[float] = []

    @property
    def delay_s(self) -> float:
        """Time [s] from a sample's measurement to when the resampling filter lets it pass; 0 before it is known."""
        return self.resampler.delay / self.source.rate_hz if self.source is not None else 0.0

    def push(self, times: np.ndarray | None, values: np.ndarray) -> list[Prediction]:
        """Take the next samples and answer the windows they complete.

        Args:
            times: (samples,) stamps in the options' unit, or None for samples evenly spaced at ``source_hz``.
            values: (samples, channels) in the source's units; a row with a value that is not finite was not measured.

        Returns:
            The answers, in order. ``latencies_s`` then holds the time [s] each took from the call of this method.

        Raises:
            DataError: shapes that do not fit, or a source that cannot be told from its start.
        """
        began = time.perf_counter()
        times, values = self._checked(times, values)
        found: list[Prediction] = []
        if self.source is None:
            self.waiting.append((times, values))
            held = sum(len(part) for _, part in self.waiting)
            known, stamped = self.options.source, times is not None
            if held < (known.settle_samples if needs_start(known, self.channels, stamped=stamped) else 1):
                self.latencies_s = []
                return found
            times, values = self._settle()
        for start in range(0, len(values), BLOCK):
            rows = slice(start, start + BLOCK)
            found += self._block(times[rows] if times is not None else None, values[rows])
        self.latencies_s = [time.perf_counter() - began for each in found if not each.note]
        return found

    def flush(self) -> list[Prediction]:
        """Answer the windows that are complete without a further sample; the stream is then over.

        Raises:
            DataError: a stream that ended before its source could be told.
        """
        found: list[Prediction] = []
        if self.source is None and sum(len(part) for _, part in self.waiting):
            times, values = self._settle()
            found += self._block(times, values)
        if self.source is not None:
            for piece in self.clock.flush():
                self._feed(piece.values, piece.valid)
            self._end_stretch()
            found += self._answers()
        self.latencies_s = []
        return found

    def _checked(self, times: np.ndarray | None, values: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        values = np.asarray(values, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.channels):
            must = f"values must be (samples, {len(self.channels)}): {', '.join(self.channels)}"
            raise DataError("stream", must, f"shape {values.shape}", "Push one column for each channel")
        if times is None:
            return None, values
        times = np.asarray(times, dtype=np.float64)
        if times.shape != (len(values),):
            raise DataError("stream", f"times must be ({len(values)},)", f"shape {times.shape}", "Push one per sample")
        return times, values

    def _settle(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Settle the source by the samples waiting, set up the stages and return those samples."""
        parts = [part for part in self.waiting if len(part[1])]
        stamped = [part for part, _ in parts if part is not None]
        if len(stamped) not in (0, len(parts)):
            raise DataError("stream", "every push must come with times, or none", "both", "Decide for one")
        values = np.concatenate([part for _, part in parts])
        times = np.concatenate(stamped) if stamped else None
        known = self.options.source
        start = slice(known.settle_samples)  # not all that came with them: any chunks must tell the same
        self.source = settle(known, self.channels, times[start] if times is not None else None, values[start])
        self.waiting = []
        rate_hz, columns = self.source.rate_hz, len(self.columns)
        self.clock = StreamClock(
            rate_hz, columns, max_gap_s=known.max_gap_s, timing=self.source.timing, notice=self.notice
        )
        self.resampler = StreamResampler(*rational_ratio(rate_hz, self.rate_hz, HORIZON, "stream"), columns)
        self.signal, self.valid = np.zeros((0, columns), np.float32), np.zeros(0, bool)
        self.start_s: float | None = None
        self.end_s: float | None = None  # of the last stretch that gave samples
        self.first = self.next = self.made = 0  # of the stretch: buffer's start, next window's start, samples made
        self.ready: list[tuple[float, np.ndarray, float] | Prediction | None] = []
        return times, values

    def _block(self, times: np.ndarray | None, values: np.ndarray) -> list[Prediction]:
        assert self.source is not None
        times_s = times * self.source.time_scale if times is not None else None
        scaled = (values * self.source.scale)[:, self.columns]
        for piece in self.clock.push(times_s, scaled):
            if piece.start_s is not None:
                self._end_stretch()
                self.start_s = piece.start_s
            self._feed(piece.values, piece.valid)
        return self._answers()

    def _feed(self, values: np.ndarray, valid: np.ndarray) -> None:
        self._cut(*self.resampler.push(values, valid))

    def _end_stretch(self) -> None:
        """Let the filters run out and forget the stretch."""
        if self.start_s is None:
            return
        self._cut(*self.resampler.flush())
        if self.made:
            self.end_s = self.start_s + self.made / self.rate_hz
            if self.made < self.length:
                self.ready.append(silence(self.session, self.start_s, self.end_s, TOO_SHORT))
        self.ready.append(None)
        self.signal, self.valid = self.signal[:0], self.valid[:0]
        self.first = self.next = self.made = 0
        self.start_s = None
        if self.high_pass is not None:
            self.high_pass.reset()

    def _cut(self, values: np.ndarray, valid: np.ndarray) -> None:
        """Take samples at the model's rate and cut the windows they complete."""
        if not len(values):
            return
        assert self.start_s is not None
        if not self.made and self.end_s is not None and self.start_s > self.end_s:
            self.ready.append(silence(self.session, self.end_s, self.start_s, GAP))
        if self.high_pass is not None:
            values[:, self.acc] = self.high_pass.push(values[:, self.acc])
        self.made += len(values)
        self.signal, self.valid = np.concatenate([self.signal, values]), np.concatenate([self.valid, valid])
        while self.next + self.length <= self.made:
            rows = slice(self.next - self.first, self.next - self.first + self.length)
            start_s = self.start_s + self.next / self.rate_hz
            self.ready.append((start_s, self.signal[rows], float(self.valid[rows].mean())))
            self.next += self.hop
        kept = min(self.next - self.first, len(self.signal))
        self.signal, self.valid = self.signal[kept:], self.valid[kept:]
        self.first += kept

    def _answers(self) -> list[Prediction]:
        """Answer everything ready, all windows in one call of the model."""
        ready, self.ready = self.ready, []
        windows = [each[1] for each in ready if isinstance(each, tuple)]
        rows = iter(self.labeller.probabilities(np.stack(windows)) if windows else ())
        found: list[Prediction] = []
        for each in ready:
            if each is None:
                self.labeller.restart()
            elif isinstance(each, Prediction):
                found.append(each)
            else:
                found.append(self.labeller.label(self.session, each[0], next(rows), each[2]))
        return found
