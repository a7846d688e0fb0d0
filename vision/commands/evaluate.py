"""`python -m vision evaluate`."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shared_peft.atomic import write_json
from shared_peft.command import Command
from vision.commands.scores import scores_text
from vision.evaluate import evaluate_run
from vision.options import data_help


@dataclass(frozen=True)
class EvaluateConfig:
    """Options of `python -m vision evaluate`."""

    run: tyro.conf.Positional[Path]
    """A finished run folder."""
    data: Annotated[str | None, tyro.conf.arg(help=data_help(" Its test side is scored; none: the run's."))] = None
    out: Path | None = None
    """JSON file to write the scores to."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""


def run(config: EvaluateConfig) -> None:
    """Score a run and print the scores with the confusion matrix."""
    classes, scores, skipped = evaluate_run(config.run, config.data, skip_broken=config.skip_broken, progress=True)
    sys.stdout.write(scores_text(classes, dataclasses.asdict(scores)))
    for reason in skipped:
        sys.stderr.write(f"skipped {reason}\n")
    if config.out is not None:
        write_json(config.out, {**dataclasses.asdict(scores), "classes": list(classes), "skipped_images": skipped})


COMMAND = Command(
    name="evaluate",
    config=EvaluateConfig,
    run=run,
    summary="Score a finished run: accuracy, macro-F1, per-class F1, confusion matrix.",
    example="python -m vision evaluate runs/flora --data FOLDER",
    place=20,
)
