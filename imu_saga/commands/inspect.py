"""`python -m imu_saga inspect`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from imu_saga.datasets import open_dataset
from imu_saga.inspection.facts import TableFacts, dataset_of, inspect_recording, inspect_table
from imu_saga.inspection.reading import read_facts
from imu_saga.inspection.report import as_json, draw, read_lines, table_lines
from imu_saga.source import parsed_options
from shared_peft.atomic import write_json
from shared_peft.command import Command
from shared_peft.errors import DataError
from shared_peft.picture import write_picture


@dataclass(frozen=True)
class InspectOptions:
    """Options of `python -m imu_saga inspect`."""

    path: tyro.conf.Positional[Path | None] = None
    """A csv, npz or parquet file, or with --data the folder of a data set."""
    data: str | None = None
    """Data set whose folder PATH is; none looks at a file of your own."""
    columns: tuple[str, ...] = ()
    """Options of the reader as NAME=VALUE: time=t acc=ax,ay,az ...; columns left out are guessed."""
    rate_hz: float = 20.0
    """Rate of the windows counted [Hz]."""
    seconds: float = 6.0
    """Length of the windows counted [s]."""
    out: Path | None = None
    """Folder for inspection.json and inspection.png; none writes nothing."""


def run(options: InspectOptions) -> None:
    """Print what is in a recording, what would be repaired and what is refused."""
    given = parsed_options(options.columns, "--columns")
    facts: TableFacts | None
    if options.data is None:
        if options.path is None or not options.path.is_file():
            fix = "Give a csv, npz or parquet file, or --data NAME with the folder of a data set"
            raise DataError(options.path or "PATH", "must be a file", "no such file", fix)
        facts = inspect_table(options.path, given)
        name, given, path = dataset_of(options.path), dict(facts.options), options.path
    else:
        facts, name, path = None, options.data, options.path
        open_dataset(name, given)
    read, recordings = read_facts(name, given, path, rate_hz=options.rate_hz, seconds=options.seconds)
    if facts is None and recordings:
        facts = inspect_recording(max(recordings, key=len))
    lines = [*(table_lines(facts) if facts is not None else ()), *read_lines(read, given)]
    sys.stdout.write("\n".join(lines) + "\n")
    if options.out is not None:
        write_json(options.out / "inspection.json", as_json(facts, read))
        if facts is not None:
            write_picture(options.out / "inspection.png", draw(facts))
        sys.stdout.write(f"written to {options.out}\n")


COMMAND = Command(
    name="inspect",
    config=InspectOptions,
    run=run,
    summary="Look at a recording: clock, units, axes, what is repaired and what is refused.",
    example="python -m imu_saga inspect FILE.csv --out inspected",
    place=20,
)
