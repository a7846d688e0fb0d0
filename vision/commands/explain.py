"""`python -m vision explain`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from shared_peft.command import Command
from vision.options import data_help
from vision.report.explain import ReportSettings, explain_run
from vision.report.features import Projection


@dataclass(frozen=True)
class ExplainConfig:
    """Options of `python -m vision explain`."""

    run: tyro.conf.Positional[Path]
    """A finished run folder."""
    data: Annotated[str, tyro.conf.arg(help=data_help(" The test side is explained."))]
    out: Path | None = None
    """Folder to write report.html and its pictures to; RUN/report if not given."""
    explanation: str = "auto"
    """grad_cam, attention_rollout or occlusion; auto takes what suits the model."""
    projection: Projection = "tsne"
    """How features are laid out on a plane."""
    mistakes: int = 18
    """Wrong answers to show, the surest first."""
    maps: int = 8
    """Images to draw heat maps of."""
    points: int = 500
    """Images to draw features of."""
    seed: int = 0
    """Of the layout of features."""
    skip_broken: bool = False
    """Leave unreadable images out and report them, instead of stopping."""


def run(config: ExplainConfig) -> None:
    """Write the report of a run and print where it lies."""
    settings = ReportSettings(
        config.explanation, config.projection, config.mistakes, config.maps, config.points, config.seed
    )
    out = config.out or config.run / "report"
    made = explain_run(config.run, config.data, out, settings, skip_broken=config.skip_broken, progress=True)
    for reason in made.skipped:
        sys.stderr.write(f"skipped {reason}\n")
    scores = made.scores
    sys.stdout.write(f"accuracy {100 * scores.accuracy:.1f} %, macro-F1 {100 * scores.macro_f1:.1f} %\n{made.page}\n")


COMMAND = Command(
    name="explain",
    config=ExplainConfig,
    run=run,
    summary="Write one HTML page on a run: mistakes, confusions, heat maps before and after, features, confidence.",
    example="python -m vision explain runs/flora --data FOLDER",
    place=35,
)
