"""`python -m imu_saga evaluate`."""

import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from imu_saga.commands.finetune import FinetuneOptions
from imu_saga.commands.pretrain import stored_options
from imu_saga.commands.scores import scores_text
from imu_saga.evaluate import check_apart, check_fits, score_model
from imu_saga.source import load_windows
from imu_saga.trained import FINETUNE_KIND, load_run
from shared_peft.atomic import write_json
from shared_peft.command import Command
from shared_peft.config import from_json


@dataclass(frozen=True)
class EvaluateOptions:
    """Options of `python -m imu_saga evaluate`."""

    run: tyro.conf.Positional[Path]
    """A finished fine-tuning run."""
    data: str = ""
    """Another data set than the run's own, with the same classes; all its people are then scored."""
    root: Path | None = None
    """Folder of the data set; by default the run's own."""
    data_options: tuple[str, ...] = ()
    """Options of the other data set as NAME=VALUE."""
    out: Path | None = None
    """JSON file to write the scores to."""


def run(options: EvaluateOptions) -> None:
    """Score a run on the people it held out, or on another data set."""
    trained = load_run(options.run)
    made = from_json(FinetuneOptions, stored_options(options.run, FINETUNE_KIND), str(options.run))
    source = replace(made.source, root=options.root or made.source.root, overlap=0.0)
    if options.data:
        source = replace(source, data=options.data, data_options=options.data_options, root=options.root)
    windows, _ = load_windows(source)
    if not options.data:
        windows = windows.subset(np.isin(windows.subjects, trained.details["test_subjects"]))
        check_apart(windows, trained.details["train_subjects"])
    check_fits(windows, trained)
    scores = asdict(score_model(trained.model, windows))
    sys.stdout.write(scores_text(trained.classes, scores))
    if options.out is not None:
        write_json(options.out, scores)


COMMAND = Command(
    name="evaluate",
    config=EvaluateOptions,
    run=run,
    summary="Score a run on its held-out people, or on another data set.",
    example="python -m imu_saga evaluate runs/finetune",
    place=33,
)
