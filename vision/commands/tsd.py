"""`python -m vision tsd`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from shared_peft.command import Command
from shared_peft.directions_report import directions_of_run, directions_table, write_directions
from shared_peft.picture import new_figure
from vision.trained import load_run


@dataclass(frozen=True)
class TsdOptions:
    """Options of `python -m vision tsd`."""

    run: tyro.conf.Positional[Path]
    """A finished run of lora_tsd, lora_dash or lora_init."""
    out: Path = Path("tsd")
    """Folder to write: tsd.json, tsd.csv (a line a direction), tsd.png."""


def run(options: TsdOptions) -> None:
    """Report on the directions of a run and print a line a layer."""
    figure = new_figure("tsd")
    method, rows = directions_of_run(options.run, load_run(options.run).model)
    write_directions(options.out, method, rows, figure)
    sys.stdout.write(f"{directions_table(rows)}\n{options.out}\n")


COMMAND = Command(
    name="tsd",
    config=TsdOptions,
    run=run,
    summary="Show which directions of each weight a LoRA-TSD, LoRA-Dash or LoRA-Init run moved and chose.",
    example="python -m vision tsd runs/lora_tsd --out runs/lora_tsd_directions",
    place=60,
)
