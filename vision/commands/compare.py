"""`python -m vision compare`."""

import sys

from shared_peft.command import Command
from vision.compare import CompareConfig, compare, format_table


def run(config: CompareConfig) -> None:
    """Run what is missing of a comparison and print its table."""
    rows = compare(config, progress=True)
    sys.stdout.write(f"{format_table(rows)}\n{config.out / 'table.json'}\n")


COMMAND = Command(
    name="compare",
    config=CompareConfig,
    run=run,
    summary="Compare methods over several seeds at equal adapter parameters, learning rates tuned per method.",
    example="python -m vision compare --backbone resnet20 --checkpoint resnet20_cifar10.th --data FOLDER "
    "--shots 20 --seeds 5 --out runs/compare",
    place=40,
)
