"""Facts about a recording in words, in JSON and in a picture."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from scipy import signal as sps

from imu_saga.inspection.axes import AxisFacts
from imu_saga.inspection.facts import ClockFacts, TableFacts
from imu_saga.inspection.guess import as_flag
from imu_saga.inspection.reading import ReadFacts
from shared_peft.picture import new_figure

NOISY_JITTER = 0.05  # ours; of a sampling period
SHOWN = 12  # recordings listed
COLOURS = ("tab:blue", "tab:orange", "tab:green")
MOST_POINTS, MOST_GAPS = 20_000, 200  # drawn


def table_lines(facts: TableFacts) -> Iterator[str]:
    """Yield what is in the file, a line a fact."""
    yield f"{facts.path}: {facts.rows} rows" + (
        f", {facts.broken_rows} more with too many cells" if facts.broken_rows else ""
    )
    yield f"columns    {as_flag(facts.options)}"
    yield from _clock_lines(facts.clock)
    yield f"acc unit   {_unit(facts.acc_unit.unit, facts.acc_unit.evidence)}"
    yield f"gyro unit  {_unit(facts.gyro_unit.unit, facts.gyro_unit.evidence)}"
    if facts.gravity is not None:
        axis = int(np.argmax(np.abs(facts.gravity)))
        shown = ", ".join(f"{part:+.2f}" for part in facts.gravity)
        yield f"gravity    ({shown}): up is {'-' if facts.gravity[axis] < 0 else '+'}{'xyz'[axis]} on average"
    if facts.bias is not None:
        shown = ", ".join(f"{part:+.3g}" for part in facts.bias)
        yield f"gyro bias  ({shown}) in the file's unit, over its calmest second"
    elif facts.options.get("gyro"):
        yield "gyro bias  cannot be told: the device never rests for a second"
    yield from (f"axis       {line}" for axis in facts.axes for line in _axis_lines(axis, facts.rows))
    fit = facts.arrangement
    if fit is not None and fit.exchanged:
        yield (
            f"exchanged  the gyroscope's axes fit gravity's turning as ({', '.join(fit.mapping)}), correlation "
            f"{fit.best:.2f}, not as mapped, {fit.given:.2f}: {_exchange(facts, fit.mapping)}"
        )
    elif fit is not None:
        yield f"turning    gyroscope and gravity agree with correlation {fit.given:.2f} as mapped (best {fit.best:.2f})"


def read_lines(facts: ReadFacts, options: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the reader repairs or refuses, and what it gives."""
    if facts.refusal:
        yield f"refused    {facts.refusal}"
        if facts.cure:
            yield f"cure       reads with {as_flag({**options, **facts.cure})}"
        return
    yield from (f"repaired   {each}" for each in facts.repairs)
    for where, seconds, rate_hz, measured in facts.recordings[:SHOWN]:
        yield f"recording  {where}: {seconds:.1f} s at {rate_hz:.2f} Hz, {100 * measured:.1f} % measured"
    if len(facts.recordings) > SHOWN:
        yield f"           and {len(facts.recordings) - SHOWN} more, {len(facts.recordings)} in all"
    yield f"windows    {facts.windows}"
    yield from _count_table(facts.seconds_by)


def as_json(table: TableFacts | None, read: ReadFacts) -> dict[str, Any]:
    """Return all facts as JSON values; what is not a number becomes null."""
    found = {} if table is None else {name: value for name, value in vars(table).items() if name not in UNPRINTED}
    return _plain({"table": found, "read": read})


def draw(facts: TableFacts) -> Any:
    """Draw signal, gaps, histogram of steps and spectrum; return the figure."""
    figure = new_figure("inspect", width_in=11.0, height_in=7.5)
    grid = figure.add_gridspec(3, 2, height_ratios=(1.2, 1.2, 1))
    _draw_signal(figure.add_subplot(grid[0, :]), facts, slice(0, 3), f"acc [{facts.acc_unit.unit or 'unit unknown'}]")
    last = facts.values.shape[1] >= 6
    if last:
        unit = facts.gyro_unit.unit or facts.options.get("gyro_unit") or "unit unknown"
        _draw_signal(figure.add_subplot(grid[1, :]), facts, slice(3, 6), f"gyro [{unit}]")
    _draw_steps(figure.add_subplot(grid[2, 0]), facts)
    _draw_spectrum(figure.add_subplot(grid[2, 1]), facts)
    figure.suptitle(f"{facts.path.name}: {facts.rows} rows")
    return figure


UNPRINTED = ("times_s", "values")


def _unit(unit: str, evidence: str) -> str:
    return f"{unit} ({evidence})" if unit else f"cannot be told: {evidence}"


def _clock_lines(clock: ClockFacts | None) -> Iterator[str]:
    if clock is None:
        yield "time       no column of stamps: rows count as evenly spaced, declare rate_hz"
        return
    if not clock.unit:
        yield "time       the unit of the stamps cannot be told: declare time_unit"
        return
    spread = f"jitter {100 * clock.jitter:.1f} % of a period"
    how = " (batches or noise: evened out)" if clock.jitter > NOISY_JITTER else ""
    yield f"time       {clock.unit}, {clock.rate_hz:.2f} Hz, {spread}{how}"
    if clock.gaps:
        yield f"gaps       {clock.gaps}, the longest {clock.longest_gap_s:.3g} s"
    if clock.repeated:
        yield f"repeated   {clock.repeated} rows have the stamp of the row before"
    if clock.missing:
        yield f"no stamp   {clock.missing} rows"
    if clock.backwards:
        yield (
            f"backwards  {clock.backwards} rows are earlier than the row before, first row {clock.first_backwards}: "
            "sort=true if rows are out of order, split_resets=true if the clock restarted"
        )


def _axis_lines(axis: AxisFacts, rows: int) -> Iterator[str]:
    if axis.missing:
        yield f"{axis.name}: {axis.missing} of {rows} cells empty or no number"
    if axis.constant and np.isfinite(axis.low):
        yield f"{axis.name}: always {axis.low:g}, not measured"
    if axis.clipped:
        yield f"{axis.name}: {100 * axis.clipped:.1f} % of the samples stand on {axis.low:g} or {axis.high:g}: clipped"
    if axis.same_as:
        yield f"{axis.name}: equal to {axis.same_as} everywhere: the same column twice"


def _exchange(facts: TableFacts, mapping: tuple[str, str, str]) -> str:
    columns = list(facts.options.get("gyro") or ())
    if any(axis.startswith("-") for axis in mapping) or len(columns) != 3:
        return "order or sign differ, correct the export"
    return as_flag({"gyro": [columns["xyz".index(axis)] for axis in mapping]})


def _count_table(seconds_by: Mapping[tuple[str, str], float]) -> Iterator[str]:
    subjects = list(dict.fromkeys(subject for subject, _ in seconds_by))
    labels = list(dict.fromkeys(label for _, label in sorted(seconds_by, key=lambda key: key[1])))
    width = max([len("seconds"), *map(len, subjects)])
    widths = [max(len(label), 7) for label in labels]
    yield "  ".join(["seconds".ljust(width), *(name.rjust(size) for name, size in zip(labels, widths, strict=True))])
    for subject in subjects:
        cells = [f"{seconds_by.get((subject, label), 0.0):.1f}" for label in labels]
        yield "  ".join([subject.ljust(width), *(cell.rjust(size) for cell, size in zip(cells, widths, strict=True))])


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return _plain(vars(value))
    if isinstance(value, Mapping):
        return {name if isinstance(name, str) else "/".join(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value if isinstance(value, (str, int, bool)) or value is None else str(value)


def _draw_signal(axes: Any, facts: TableFacts, columns: slice, label: str) -> None:
    every = max(1, len(facts.times_s) // MOST_POINTS)
    limit = every * facts.clock.gap_from_s if facts.clock is not None and facts.clock.unit else np.inf
    times, values = facts.times_s[::every], facts.values[::every]
    gaps = np.flatnonzero(np.abs(np.diff(times)) > limit)
    broken_times, broken = np.insert(times, gaps + 1, np.nan), np.insert(values, gaps + 1, np.nan, axis=0)
    for index, colour in zip(range(*columns.indices(values.shape[1])), COLOURS, strict=True):
        axes.plot(broken_times, broken[:, index], color=colour, linewidth=0.6, label=facts.axes[index].name)
    for row in gaps[:MOST_GAPS]:
        axes.axvspan(*sorted((times[row], times[row + 1])), color="tab:red", alpha=0.25, linewidth=0)
    axes.set(xlabel="time [s] (gaps in red)", ylabel=label)
    axes.margins(x=0)
    axes.legend(loc="upper right", ncols=3, fontsize="small")


def _draw_steps(axes: Any, facts: TableFacts) -> None:
    steps = np.diff(facts.times_s[np.isfinite(facts.times_s)]) * 1000
    if len(steps):
        usual = float(np.median(np.abs(steps)))
        axes.hist(np.clip(steps, -usual, 4 * usual), bins=100, color="tab:grey", log=True)
    axes.set(xlabel="step between rows [ms], the longest at the edge", ylabel="rows", title="steps of the clock")


def _draw_spectrum(axes: Any, facts: TableFacts) -> None:
    rate_hz = facts.clock.rate_hz if facts.clock is not None else float(facts.options.get("rate_hz") or 1.0)
    length = np.linalg.norm(facts.values[:, :3], axis=1)
    length = length[np.isfinite(length)]
    if len(length) > 16 and rate_hz > 0:
        frequency, power = sps.welch(length - length.mean(), fs=rate_hz, nperseg=min(len(length), 1024))
        axes.semilogy(frequency[1:], np.maximum(power[1:], 1e-20), color="tab:blue", linewidth=0.9)
    axes.set(xlabel="frequency [Hz]", ylabel="power / Hz", title="spectrum of |acc|")
