"""The subcommand `tsd` of every package: the directions of a run as a table, as files and as a picture."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from shared_peft.atomic import replacing, write_json
from shared_peft.command import Command
from shared_peft.config import to_json
from shared_peft.directions_picture import draw_directions
from shared_peft.directions_report import DirectionsRow, directions_of_run
from shared_peft.picture import write_picture
from shared_peft.training import TrainedModel

CSV_COLUMNS = ("layer", "direction", "sigma", "change_rate", "chosen", "dsigma")


@dataclass(frozen=True)
class TsdOptions:
    """Options of `tsd`."""

    run: tyro.conf.Positional[Path]
    """A finished run of lora_tsd, lora_dash or lora_init."""
    out: Path = Path("tsd")
    """Folder to write: tsd.json, tsd.csv (a line a direction), tsd.png."""


def tsd_command(program: str, load: Callable[[Path], TrainedModel]) -> Command:
    """Return the subcommand of a package.

    Args:
        program: the package's name.
        load: reads one of its runs.
    """

    def run(options: TsdOptions) -> None:
        method, rows = directions_of_run(options.run, load(options.run).model)
        write_directions(options.out, method, rows)
        sys.stdout.write(f"{directions_table(rows)}\n{options.out}\n")

    return Command(
        name="tsd",
        config=TsdOptions,
        run=run,
        summary="Show which directions of each weight a LoRA-TSD, LoRA-Dash or LoRA-Init run moved and chose.",
        example=f"python -m {program} tsd runs/lora_tsd --out runs/lora_tsd_directions",
        place=60,
    )


def directions_table(rows: Sequence[DirectionsRow]) -> str:
    """Return a text table: a line a weight with the chosen directions and what they carry of the change."""
    width = max(len("layer"), *(len(row.layer) for row in rows))
    lines = [f"{'layer':<{width}}  {'step':>5}  {'carried':>8}  {'by top':>8}  {'|dW|':>9}  chosen directions"]
    for row in rows:
        step = "-" if row.step is None else str(row.step)
        shown = " ".join(map(str, row.chosen[:8])) + (" ..." if len(row.chosen) > 8 else "")
        shares = f"{_percent(row.chosen_share):>8}  {_percent(row.top_share):>8}"
        lines.append(f"{row.layer:<{width}}  {step:>5}  {shares}  {row.change_norm:>9.3g}  {shown}".rstrip())
    return "\n".join(lines)


def write_directions(folder: Path, method: str, rows: Sequence[DirectionsRow]) -> None:
    """Write tsd.json (the rows), tsd.csv (a line a direction) and tsd.png, each whole or not at all.

    Args:
        folder: where to write; made if it is missing.
        method: name of the run's method.
        rows: see `directions_report`.

    Raises:
        MissingPackageError: matplotlib is not installed; nothing is written then.
    """
    figure = draw_directions(method, rows)
    write_json(folder / "tsd.json", {"method": method, "layers": [to_json(row) for row in rows]})
    with replacing(folder / "tsd.csv") as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, lineterminator="\n").writerows((CSV_COLUMNS, *_csv_rows(rows)))
    write_picture(folder / "tsd.png", figure)


def _csv_rows(rows: Sequence[DirectionsRow]) -> Iterator[tuple[Any, ...]]:
    """Yield CSV_COLUMNS for each direction of each weight; dsigma is "" where none is trained."""
    for row in rows:
        dsigma = dict(zip(row.chosen, row.dsigma, strict=False))
        for index, (sigma, rate) in enumerate(zip(row.sigma, row.change_rates, strict=True)):
            yield row.layer, index, sigma, rate, int(index in row.chosen), dsigma.get(index, "")


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
