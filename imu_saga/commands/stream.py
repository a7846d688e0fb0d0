"""`python -m imu_saga stream`."""

import csv
import io
import json
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from imu_saga.predict import Prediction, csv_header, csv_row
from imu_saga.source import parsed_options
from imu_saga.streaming.classifier import StreamClassifier, StreamOptions
from imu_saga.streaming.lines import LineColumns, LineReader, OnBad
from imu_saga.streaming.smoothing import build_smoothing
from imu_saga.trained import load_run
from shared_peft.command import Command
from shared_peft.config import from_json

BLOCK_BYTES = 1 << 16
KEPT = 10_000  # latencies


@dataclass(frozen=True)
class StreamCommandOptions:
    """Options of `python -m imu_saga stream`."""

    run: tyro.conf.Positional[Path]
    """A finished fine-tuning run."""
    stream: StreamOptions = field(default_factory=StreamOptions)
    columns: tuple[str, ...] = ()
    """Names of the columns as NAME=VALUE: time=t acc=ax,ay,az gyro=gx,gy,gz; time=null where there are no stamps;
    header=t,ax,ay,... where the first line is data; if none is given, the header's words tell."""
    smoothing: str = "none"
    """Rule over consecutive windows: none, vote (most of the last n), hysteresis (a new label must win n times)."""
    smoothing_options: tuple[str, ...] = ()
    """Options of the smoothing as NAME=VALUE: n=5, margin=0.1."""
    port: int | None = None
    """Read from one client of this port of localhost instead of standard input; 0 chooses a free port."""
    format: Literal["csv", "json"] = "csv"
    """What is printed: csv, or one JSON object a line."""
    probabilities: bool = False
    """Print the probability of every class, too."""
    on_bad: OnBad = "skip"
    """What a line that cannot be read does: skip tells of it and goes on, stop ends the stream."""
    every: int = 0
    """Print the latency after every so many windows, too; 0 only at the end."""


def run(options: StreamCommandOptions) -> None:
    """Classify csv lines as they come in; answers on standard output, notices on standard error."""
    trained = load_run(options.run)
    smoothing = build_smoothing(options.smoothing, parsed_options(options.smoothing_options, "--smoothing-options"))
    names = from_json(LineColumns, parsed_options(options.columns, "--columns"), "--columns")
    classifier = StreamClassifier(trained, options.stream, smoothing=smoothing, notice=tell)
    reader = LineReader(names, classifier.channels, on_bad=options.on_bad, tell=tell)
    classes = trained.classes if options.probabilities else ()
    if options.format == "csv":
        write_cells(csv_header(classes))
    latency = Latency(options.every)
    with opened(options.port) as read:
        for block in blocks(read):
            samples = reader.feed(block) if block else reader.finish()
            found = classifier.push(*samples) if len(samples[1]) else []
            show(found, options.format, classes)
            latency.add(classifier.latencies_s if found else [])
    show(classifier.flush(), options.format, classes)
    tell(f"{latency}; resampling delays by {classifier.delay_s:.3g} s; {reader.bad} lines skipped")


def blocks(read: Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what comes in, then an empty block at the end of the stream or when it is interrupted."""
    with suppress(KeyboardInterrupt, ConnectionError):
        while block := read():
            yield block
    yield b""


@contextmanager
def opened(port: int | None) -> Iterator[Callable[[], bytes]]:
    """Give a function that returns the bytes there are, waiting for the first, and nothing at the end."""
    if port is None:
        yield lambda: sys.stdin.buffer.read1(BLOCK_BYTES)  # type: ignore[union-attr]  (a buffered reader)
        return
    with socket.create_server(("127.0.0.1", port)) as server:
        tell(f"waiting for a client of 127.0.0.1:{server.getsockname()[1]}")
        client, _ = server.accept()
        with client:
            yield lambda: client.recv(BLOCK_BYTES)


def show(found: list[Prediction], form: str, classes: tuple[str, ...]) -> None:
    """Print answers, one line each, at once."""
    for each in found:
        if form == "json":
            line = asdict(each) | {"probabilities": dict(zip(classes, each.probabilities, strict=False))}
            if not classes:
                del line["probabilities"]
            sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            write_cells(csv_row(each, classes))
    sys.stdout.flush()


def write_cells(cells: list[str]) -> None:
    """Print one csv line."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    sys.stdout.write(text.getvalue())
    sys.stdout.flush()


def tell(line: str) -> None:
    """Print a notice."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Latency:
    """The time from the call that brought a window's last sample to its answer, over the last 10,000 windows.

    Args:
        every: tell after every so many windows; 0 for never.
    """

    def __init__(self, every: int) -> None:
        self.every, self.windows = every, 0
        self.last = deque[float](maxlen=KEPT)

    def add(self, latencies_s: list[float]) -> None:
        """Take the latencies [s] of the next windows."""
        before, self.windows = self.windows, self.windows + len(latencies_s)
        self.last.extend(latencies_s)
        if self.every and self.windows // self.every > before // self.every:
            tell(str(self))

    def __str__(self) -> str:
        if not self.last:
            return f"{self.windows} windows"
        middle, high = np.percentile(self.last, [50, 95]) * 1e3
        return f"{self.windows} windows, latency p50 {middle:.2f} ms, p95 {high:.2f} ms"


COMMAND = Command(
    name="stream",
    config=StreamCommandOptions,
    run=run,
    summary="Classify samples as they come in, from standard input or a socket on localhost.",
    example="python -m imu_saga stream runs/finetune --source-hz 100 --acc-unit m/s^2 --gyro-unit rad/s < FILE.csv",
    place=41,
)
