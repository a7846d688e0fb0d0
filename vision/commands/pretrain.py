"""`python -m vision pretrain`."""

import sys

from shared_peft.command import Command
from shared_peft.training import one_voice
from vision.commands.scores import results_text
from vision.pretrain import PretrainConfig, pretrain


def run(config: PretrainConfig) -> None:
    """Train from scratch and print the test scores."""
    with one_voice():
        result = pretrain(config, progress=True)
        sys.stdout.write(results_text(result.folder, result.results))


COMMAND = Command(
    name="pretrain",
    config=PretrainConfig,
    run=run,
    summary="Train a backbone from scratch on all images of some classes.",
    example="python -m vision pretrain --backbone small_vit --data digits --classes 0 1 2 3 4 --out runs/small_vit",
    place=50,
)
