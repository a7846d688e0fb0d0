"""`python -m vision finetune`."""

import sys

from shared_peft.command import Command
from shared_peft.training import one_voice
from vision.commands.scores import results_text
from vision.finetune import FinetuneConfig, finetune


def run(config: FinetuneConfig) -> None:
    """Fine-tune and print the test scores."""
    with one_voice():
        result = finetune(config, progress=True)
        sys.stdout.write(results_text(result.folder, result.results))


COMMAND = Command(
    name="finetune",
    config=FinetuneConfig,
    run=run,
    summary="Adapt a pretrained backbone to a folder of images.",
    example="python -m vision finetune --backbone resnet20 --checkpoint resnet20_cifar10.th --data FOLDER "
    "--shots 20 --method flora --out runs/flora",
    place=10,
)
