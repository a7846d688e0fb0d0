"""`python -m vision compare`."""

import sys

from shared_peft.command import Command
from vision.compare import CompareConfig, compare
from vision.comparison.page import PAGE


def run(config: CompareConfig) -> None:
    """Run what is missing of a comparison and print its table."""
    done = compare(config, progress=True)
    sys.stdout.write(f"{done.as_text()}\n{config.out / PAGE}\n")


COMMAND = Command(
    name="compare",
    config=CompareConfig,
    run=run,
    summary="Compare methods over shots and seeds at equal adapter parameters; says what is within noise.",
    example="python -m vision compare --backbone resnet20 --checkpoint resnet20_cifar10.th --data FOLDER "
    "--methods probe,lora,flora,full --shots 5,20 --seeds 5 --budget 20k --out runs/compare",
    place=40,
)
