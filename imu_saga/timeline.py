"""A timeline of predictions: the signal, a coloured band of labels, the confidence, and hatched gaps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from imu_saga.predict import Prediction
from imu_saga.recording import Recording
from imu_saga.signal.gravity import acc_columns
from shared_peft.picture import new_figure, write_picture

BINS = 1500  # columns of the picture a session's signal is drawn in
MAX_SESSIONS = 6
WIDTH_IN, SESSION_IN, LEGEND_IN = 12.0, 3.4, 0.5
SILENT = "0.93"  # grey of windows without a label
_TIME_AXES = ((3 * 3600.0, 3600.0, "h"), (300.0, 60.0, "min"), (0.0, 1.0, "s"))  # from, unit [s], name


@dataclass(frozen=True, eq=False)
class _Session:
    """What is drawn of one session: its recordings and predictions, and its time's unit [s]."""

    name: str
    recordings: list[Recording]
    predictions: list[Prediction]

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last moment [s]."""
        return self.recordings[0].start_s, max(one.start_s + one.seconds for one in self.recordings)

    @property
    def unit(self) -> tuple[float, str]:
        """Unit of the time axis: seconds in it, and its name."""
        first, last = self.span_s
        return next((scale, name) for least, scale, name in _TIME_AXES if last - first >= least)


def draw_timeline(
    path: Path, recordings: Sequence[Recording], predictions: Sequence[Prediction], classes: Sequence[str]
) -> int:
    """Draw up to six sessions below each other, and write the picture.

    Args:
        path: PNG, SVG or PDF to write.
        recordings: as read, in order.
        predictions: as `predict_recordings` returns them.
        classes: class names; each has its colour.

    Returns:
        The number of sessions drawn.

    Raises:
        MissingPackageError: matplotlib is not installed.
    """
    sessions = list(_sessions(recordings, predictions))[:MAX_SESSIONS]
    figure = new_figure("timeline", WIDTH_IN, LEGEND_IN + SESSION_IN * len(sessions))
    colours = _colours(classes)
    panels = figure.subplots(3 * len(sessions), 1, squeeze=False, height_ratios=[2.0, 0.7, 1.2] * len(sessions))[:, 0]
    for index, session in enumerate(sessions):
        _draw_session(panels[3 * index : 3 * index + 3], session, colours)
    from matplotlib.patches import Patch  # noqa: PLC0415  (slow to import, and an extra)

    marks = [Patch(facecolor=colour, label=name) for name, colour in colours.items()]
    marks.append(Patch(facecolor=SILENT, edgecolor="0.6", label="no label"))
    marks.append(Patch(facecolor="white", edgecolor="0.4", hatch="////", label="not measured"))
    figure.legend(handles=marks, loc="outside upper center", ncols=min(len(marks), 9), frameon=False, fontsize=9)
    write_picture(path, figure)
    return len(sessions)


def _sessions(recordings: Sequence[Recording], predictions: Sequence[Prediction]) -> Iterator[_Session]:
    """Group recordings and predictions by session, a clock that starts again counting as another."""
    for name, ones in groupby(recordings, key=lambda one: one.where):
        yield _Session(name, list(ones), [each for each in predictions if each.session == name])


def _colours(classes: Sequence[str]) -> dict[str, Any]:
    """Return a colour for each class: ten that differ well, more by going around the colour circle."""
    from matplotlib import colormaps  # noqa: PLC0415  (slow to import, and an extra)

    if len(classes) <= 10:
        return {name: colormaps["tab10"](index) for index, name in enumerate(classes)}
    return {name: colormaps["gist_rainbow"](index / len(classes)) for index, name in enumerate(classes)}


def _draw_session(panels: Sequence[Any], session: _Session, colours: dict[str, Any]) -> None:
    signal, labels, confidence = panels
    scale, unit = session.unit
    first, last = session.span_s
    _draw_signal(signal, session, scale)
    _draw_labels(labels, session.predictions, colours, scale)
    _draw_confidence(confidence, session.predictions, scale)
    for panel in panels:
        panel.set_xlim(first / scale, max(last, first + 1e-3) / scale)
        panel.margins(x=0)
        _hatch(panel, session, scale)
    for panel in panels[:2]:
        panel.tick_params(labelbottom=False)
    confidence.set_xlabel(f"time [{unit}]")
    signal.set_title(session.name, fontsize=10, loc="left")


def _draw_signal(panel: Any, session: _Session, scale: float) -> None:
    """Draw the length of the acceleration: its range in every column of the picture."""
    first, last = session.span_s
    for recording in session.recordings:
        columns = acc_columns(recording.channels) or list(range(recording.signal.shape[1]))
        length = np.linalg.norm(recording.signal[:, columns].astype(np.float64), axis=1)
        bins = max(1, min(len(length), round(BINS * recording.seconds / max(last - first, 1e-9))))
        edges = np.linspace(0, len(length), bins + 1).astype(np.int64)[:-1]
        low, high = np.minimum.reduceat(length, edges), np.maximum.reduceat(length, edges)
        at = (recording.start_s + edges / recording.rate_hz) / scale
        panel.fill_between(at, low, high, color="0.25", linewidth=0.6)
    panel.set_ylabel("|acc| [m/s$^2$]")


def _draw_labels(panel: Any, predictions: Sequence[Prediction], colours: dict[str, Any], scale: float) -> None:
    """Draw one rectangle for each run of windows with the same label."""
    for label, start_s, end_s in label_runs(predictions):
        colour = colours.get(label, SILENT)
        panel.broken_barh([(start_s / scale, (end_s - start_s) / scale)], (0, 1), facecolor=colour, linewidth=0)
    panel.set_ylim(0, 1)
    panel.set_yticks([])
    panel.set_ylabel("label")


def label_runs(predictions: Sequence[Prediction]) -> Iterator[tuple[str, float, float]]:
    """Yield (label, start [s], end [s]) of windows with the same label that follow each other without a break.

    Where windows overlap, each lasts until the next one starts.
    """
    starts = [each.start_s for each in predictions[1:]] + [np.inf]
    run: tuple[str, float, float] | None = None
    for each, following in zip(predictions, starts, strict=True):
        end_s = min(each.end_s, following) if following >= each.start_s else each.end_s
        if run is not None and run[0] == each.label and abs(run[2] - each.start_s) < 1e-3:
            run = (run[0], run[1], end_s)
            continue
        if run is not None:
            yield run
        run = (each.label, each.start_s, end_s)
    if run is not None:
        yield run


def _draw_confidence(panel: Any, predictions: Sequence[Prediction], scale: float) -> None:
    times = np.array([each for one in predictions for each in (one.start_s, one.end_s)]) / scale
    level = np.array([one.confidence if one.label else np.nan for one in predictions for _ in range(2)])
    panel.plot(times, level, color="0.2", linewidth=0.9)
    panel.set_ylim(0, 1.05)
    panel.set_yticks([0, 0.5, 1])
    panel.grid(axis="y", color="0.9")
    panel.set_ylabel("confidence")


def _hatch(panel: Any, session: _Session, scale: float) -> None:
    """Hatch what was not measured: between recordings, and where samples are not valid."""
    ends = [(one.start_s + one.seconds, other.start_s) for one, other in _pairs(session.recordings)]
    spans = [(start, end) for start, end in ends if end > start]
    for one in session.recordings:
        edges = np.flatnonzero(np.diff(np.concatenate([[1], one.valid.astype(np.int8), [1]])))
        spans += [(one.start_s + a / one.rate_hz, one.start_s + b / one.rate_hz) for a, b in edges.reshape(-1, 2)]
    if spans:
        bars = [(start / scale, (end - start) / scale) for start, end in spans]
        height = {"transform": panel.get_xaxis_transform()}
        panel.broken_barh(bars, (0, 1), facecolor="white", edgecolor="0.4", hatch="////", linewidth=0, **height)


def _pairs(recordings: Sequence[Recording]) -> Iterator[tuple[Recording, Recording]]:
    return zip(recordings, recordings[1:], strict=False)
